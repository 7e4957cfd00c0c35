//! The registry: one variant and one arm a detector; the order is the order of judging.

use crate::Detector;
use crate::detectors::batch_order::BatchOrder;
use crate::detectors::contradiction::Contradiction;
use crate::detectors::duplicate_batch::DuplicateBatch;
use crate::detectors::environment_change::EnvironmentChange;
use crate::detectors::environment_mismatch::EnvironmentMismatch;
use crate::detectors::evaluation_collapse::EvaluationCollapse;
use crate::detectors::gradient_explosion::GradientExplosion;
use crate::detectors::lineage_break::LineageBreak;
use crate::detectors::loss_drift::LossDrift;
use crate::detectors::loss_excursion::LossExcursion;
use crate::detectors::metric_outlier::MetricOutlier;
use crate::detectors::metric_shift::MetricShift;
use crate::detectors::moved_weights::MovedWeights;
use crate::detectors::nonfinite::Nonfinite;
use crate::detectors::replica_mismatch::ReplicaMismatch;
use crate::detectors::run_pauses::RunPauses;
use crate::detectors::run_slowdown::RunSlowdown;
use crate::detectors::schedule::Schedule;

/// Which detectors there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DetectorKind {
    /// Replicas of weights, optimizer state or gradients differ.
    ReplicaMismatch,
    /// Weights moved with no optimizer step between.
    MovedWeights,
    /// A checkpoint loaded is not the one saved.
    LineageBreak,
    /// A batch was seen before, or by two data-parallel indices.
    DuplicateBatch,
    /// Batches or random states come in another order than planned.
    BatchOrder,
    /// Code, configuration or environment differs between ranks.
    EnvironmentMismatch,
    /// Code, configuration or environment changed.
    EnvironmentChange,
    /// Telemetry contradicts itself.
    Contradiction,
    /// A NaN or an infinity was logged.
    Nonfinite,
    /// The gradient norm leaves its range.
    GradientExplosion,
    /// The loss jumps up.
    LossExcursion,
    /// The loss creeps up.
    LossDrift,
    /// The whole run became slower.
    RunSlowdown,
    /// Long steps come now and then, or in a rhythm.
    RunPauses,
    /// The learning rate leaves its law.
    Schedule,
    /// An evaluation score falls to nearly nothing.
    EvaluationCollapse,
    /// A metric without a detector of its own moves to another level.
    MetricShift,
    /// A metric without a detector of its own has a value apart.
    MetricOutlier,
}

impl DetectorKind {
    /// Every detector, in the order of judging: law, then peers, then past, so that causes are named before effects.
    pub const ALL: &'static [Self] = &[
        Self::ReplicaMismatch,
        Self::MovedWeights,
        Self::LineageBreak,
        Self::DuplicateBatch,
        Self::BatchOrder,
        Self::EnvironmentMismatch,
        Self::EnvironmentChange,
        Self::Contradiction,
        Self::Nonfinite,
        Self::GradientExplosion,
        Self::LossExcursion,
        Self::LossDrift,
        Self::RunSlowdown,
        Self::RunPauses,
        Self::Schedule,
        Self::EvaluationCollapse,
        Self::MetricShift,
        Self::MetricOutlier,
    ];

    /// A detector that has seen nothing.
    #[must_use]
    pub fn build(self) -> Box<dyn Detector> {
        match self {
            Self::ReplicaMismatch => Box::<ReplicaMismatch>::default(),
            Self::MovedWeights => Box::<MovedWeights>::default(),
            Self::LineageBreak => Box::<LineageBreak>::default(),
            Self::DuplicateBatch => Box::<DuplicateBatch>::default(),
            Self::BatchOrder => Box::<BatchOrder>::default(),
            Self::EnvironmentMismatch => Box::<EnvironmentMismatch>::default(),
            Self::EnvironmentChange => Box::<EnvironmentChange>::default(),
            Self::Contradiction => Box::<Contradiction>::default(),
            Self::Nonfinite => Box::<Nonfinite>::default(),
            Self::GradientExplosion => Box::<GradientExplosion>::default(),
            Self::LossExcursion => Box::<LossExcursion>::default(),
            Self::LossDrift => Box::<LossDrift>::default(),
            Self::RunSlowdown => Box::<RunSlowdown>::default(),
            Self::RunPauses => Box::<RunPauses>::default(),
            Self::Schedule => Box::<Schedule>::default(),
            Self::EvaluationCollapse => Box::<EvaluationCollapse>::default(),
            Self::MetricShift => Box::<MetricShift>::default(),
            Self::MetricOutlier => Box::<MetricOutlier>::default(),
        }
    }
}
