//! One file a detector, named after the fault.

mod departures;
pub(crate) mod gradient_outlier;
pub(crate) mod late_arrival;
pub(crate) mod nonfinite;
pub(crate) mod rank_outlier;
pub(crate) mod straggler;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod wandering_sleep;
