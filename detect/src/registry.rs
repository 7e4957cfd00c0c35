//! The registry: one variant and one arm a detector; the order is the order of judging.

use crate::Detector;
use crate::detectors::gradient_outlier::GradientOutlier;
use crate::detectors::late_arrival::LateArrival;
use crate::detectors::nonfinite::Nonfinite;
use crate::detectors::rank_outlier::RankOutlier;
use crate::detectors::straggler::Straggler;
use crate::detectors::wandering_sleep::WanderingSleep;

/// Which detectors there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DetectorKind {
    /// A NaN or an infinity was logged.
    Nonfinite,
    /// One rank does its own work slower than its peers.
    Straggler,
    /// One rank comes last to collectives, or a communicator became slow.
    LateArrival,
    /// Rare pauses wander over the ranks.
    WanderingSleep,
    /// One rank's gradient stands apart from its peers'.
    GradientOutlier,
    /// One rank stands apart in a metric without a detector of its own.
    RankOutlier,
}

impl DetectorKind {
    /// Every detector, in the order of judging: law, then peers, then past, so that causes are named before effects.
    pub const ALL: &'static [Self] = &[
        Self::Nonfinite,
        Self::Straggler,
        Self::LateArrival,
        Self::WanderingSleep,
        Self::GradientOutlier,
        Self::RankOutlier,
    ];

    /// A detector that has seen nothing.
    #[must_use]
    pub fn build(self) -> Box<dyn Detector> {
        match self {
            Self::Nonfinite => Box::<Nonfinite>::default(),
            Self::Straggler => Box::<Straggler>::default(),
            Self::LateArrival => Box::<LateArrival>::default(),
            Self::WanderingSleep => Box::<WanderingSleep>::default(),
            Self::GradientOutlier => Box::<GradientOutlier>::default(),
            Self::RankOutlier => Box::<RankOutlier>::default(),
        }
    }
}
