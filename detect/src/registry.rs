//! The registry: one variant and one arm a detector; the order is the order of judging.

use crate::Detector;
use crate::detectors::nonfinite::Nonfinite;
use crate::detectors::replica_mismatch::ReplicaMismatch;

/// Which detectors there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DetectorKind {
    /// Replicas of weights, optimizer state or gradients differ.
    ReplicaMismatch,
    /// A NaN or an infinity was logged.
    Nonfinite,
}

impl DetectorKind {
    /// Every detector, in the order of judging: law, then peers, then past, so that causes are named before effects.
    pub const ALL: &'static [Self] = &[Self::ReplicaMismatch, Self::Nonfinite];

    /// A detector that has seen nothing.
    #[must_use]
    pub fn build(self) -> Box<dyn Detector> {
        match self {
            Self::ReplicaMismatch => Box::<ReplicaMismatch>::default(),
            Self::Nonfinite => Box::<Nonfinite>::default(),
        }
    }
}
