//! The registry: one variant and one arm a detector; the order is the order of judging.

use crate::Detector;
use crate::detectors::gradient_outlier::GradientOutlier;
use crate::detectors::nonfinite::Nonfinite;
use crate::detectors::straggler::Straggler;

/// Which detectors there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DetectorKind {
    /// A NaN or an infinity was logged.
    Nonfinite,
    /// One rank does its own work slower than its peers.
    Straggler,
    /// One rank's gradient stands apart from its peers'.
    GradientOutlier,
}

impl DetectorKind {
    /// Every detector, in the order of judging: law, then peers, then past, so that causes are named before effects.
    pub const ALL: &'static [Self] = &[Self::Nonfinite, Self::Straggler, Self::GradientOutlier];

    /// A detector that has seen nothing.
    #[must_use]
    pub fn build(self) -> Box<dyn Detector> {
        match self {
            Self::Nonfinite => Box::<Nonfinite>::default(),
            Self::Straggler => Box::<Straggler>::default(),
            Self::GradientOutlier => Box::<GradientOutlier>::default(),
        }
    }
}
