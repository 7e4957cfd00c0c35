//! One file a detector, named after the fault.

pub(crate) mod desync;
pub(crate) mod exit;
pub(crate) mod hang;
pub(crate) mod kills;
pub(crate) mod nonfinite;
pub(crate) mod repeats;
pub(crate) mod replayed;
pub(crate) mod silence;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod waits;
