//! One file a detector, named after the fault; the files that are no detector hold what several share.

pub(crate) mod batch_order;
pub(crate) mod batches;
pub(crate) mod breach;
pub(crate) mod contradiction;
pub(crate) mod departures;
pub(crate) mod desync;
pub(crate) mod duplicate_batch;
pub(crate) mod environment_change;
pub(crate) mod environment_mismatch;
pub(crate) mod exit;
pub(crate) mod gradient_explosion;
pub(crate) mod gradient_outlier;
pub(crate) mod hang;
pub(crate) mod kills;
pub(crate) mod late_arrival;
pub(crate) mod lineage_break;
pub(crate) mod loss_drift;
pub(crate) mod loss_excursion;
pub(crate) mod moved_weights;
pub(crate) mod nonfinite;
pub(crate) mod rank_outlier;
pub(crate) mod repeats;
pub(crate) mod replayed;
pub(crate) mod replica_mismatch;
pub(crate) mod run_pauses;
pub(crate) mod run_slowdown;
pub(crate) mod schedule;
pub(crate) mod silence;
pub(crate) mod straggler;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod waits;
pub(crate) mod wandering_sleep;
pub(crate) mod work;
