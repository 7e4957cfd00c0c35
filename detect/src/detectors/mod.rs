//! One file a detector, named after the fault.

pub(crate) mod batch_order;
mod batches;
mod breach;
pub(crate) mod contradiction;
pub(crate) mod duplicate_batch;
pub(crate) mod environment_change;
pub(crate) mod environment_mismatch;
pub(crate) mod evaluation_collapse;
pub(crate) mod gradient_explosion;
pub(crate) mod lineage_break;
pub(crate) mod loss_drift;
pub(crate) mod loss_excursion;
pub(crate) mod metric_outlier;
pub(crate) mod metric_shift;
pub(crate) mod moved_weights;
pub(crate) mod nonfinite;
pub(crate) mod replica_mismatch;
pub(crate) mod run_pauses;
pub(crate) mod run_slowdown;
pub(crate) mod schedule;
#[cfg(test)]
pub(crate) mod testing;
mod work;
