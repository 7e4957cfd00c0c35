//! One file a detector, named after the fault.

pub(crate) mod nonfinite;
pub(crate) mod straggler;
#[cfg(test)]
pub(crate) mod testing;
