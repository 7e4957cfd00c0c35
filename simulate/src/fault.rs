//! Faults: what goes wrong, since when, where and how much.

use serde::Deserialize;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// The ranks compute slower by the fraction `size`; everybody waits for them.
    SlowRank,
    /// All ranks compute slower by the fraction `size`.
    SlowRun,
    /// Transfers in the communicators of the ranks take longer by the fraction `size`.
    SlowLink,
    /// In every fourth step or so one rank, drawn anew, sleeps for `size` usual steps.
    RandomSleeps,
    /// The ranks stop before they enter the collective of the onset step; the log ends there.
    Hang,
    /// The loss jumps by `size` nats and falls back in a straight line until the end step.
    LossSpike,
    /// The loss creeps up by `size` nats over the ramp and stays there.
    LossDrift,
    /// The gradient of the ranks is NaN; from the next step on the weights are, and so is everything.
    Nonfinite,
    /// The ranks send their gradient with the wrong sign.
    GradientFlip,
    /// The noise in the gradient of the ranks is `size` times larger than it should be.
    GradientNoise,
    /// One bit flips in the weights of the ranks inside the onset step.
    WeightFlip,
    /// The weights of all ranks are edited alike before the onset step; the loss jumps by `size` nats and heals slowly.
    WeightEdit,
    /// All data-parallel indices read the data of the first one.
    BatchSame,
    /// Each step reads the data of `size` steps before.
    BatchRepeat,
    /// The learning rate is multiplied by `size`.
    LearningRate,
    /// The ranks run other code; from step 0 on, because a change later is `environment.changed`.
    CodeMismatch,
    /// All ranks run other code from the onset step on: somebody patched a live training.
    CodeChange,
    /// The ranks enter their all-reduce with half of the payload.
    Desync,
    /// The ranks compute, but tell nothing.
    Silence,
}

impl FaultKind {
    /// Every kind.
    pub const ALL: [Self; 19] = [
        Self::SlowRank,
        Self::SlowRun,
        Self::SlowLink,
        Self::RandomSleeps,
        Self::Hang,
        Self::LossSpike,
        Self::LossDrift,
        Self::Nonfinite,
        Self::GradientFlip,
        Self::GradientNoise,
        Self::WeightFlip,
        Self::WeightEdit,
        Self::BatchSame,
        Self::BatchRepeat,
        Self::LearningRate,
        Self::CodeMismatch,
        Self::CodeChange,
        Self::Desync,
        Self::Silence,
    ];

    /// The kind of the incident that a detector should make of it.
    #[must_use]
    pub fn incident_kind(self) -> &'static str {
        match self {
            Self::SlowRank => "slowdown.rank",
            Self::SlowRun => "slowdown.run",
            Self::SlowLink => "slowdown.link",
            Self::RandomSleeps => "slowdown.intermittent",
            Self::Hang => "stall.hang",
            Self::LossSpike => "divergence.loss_spike",
            Self::LossDrift => "divergence.drift",
            Self::Nonfinite => "divergence.nonfinite",
            Self::GradientFlip | Self::GradientNoise => "gradient.outlier_rank",
            Self::WeightFlip => "weights.replica_mismatch",
            Self::WeightEdit => "weights.unexplained_update",
            Self::BatchSame | Self::BatchRepeat => "data.duplicate",
            Self::LearningRate => "optimizer.schedule",
            Self::CodeMismatch => "environment.mismatch",
            Self::CodeChange => "environment.changed",
            Self::Desync => "stall.desync",
            Self::Silence => "telemetry.silence",
        }
    }

    /// True where single ranks are guilty and must be told; otherwise the whole run is meant.
    #[must_use]
    pub fn names_ranks(self) -> bool {
        matches!(
            self,
            Self::SlowRank
                | Self::Hang
                | Self::Nonfinite
                | Self::GradientFlip
                | Self::GradientNoise
                | Self::WeightFlip
                | Self::CodeMismatch
                | Self::Desync
                | Self::Silence
        )
    }

    /// True where `size` must be told.
    pub(crate) fn has_size(self) -> bool {
        !matches!(
            self,
            Self::Hang
                | Self::Nonfinite
                | Self::GradientFlip
                | Self::WeightFlip
                | Self::WeightEdit
                | Self::BatchSame
                | Self::CodeMismatch
                | Self::CodeChange
                | Self::Desync
                | Self::Silence
        )
    }

    /// True for what cannot be undone inside an attempt.
    pub(crate) fn is_final(self) -> bool {
        matches!(self, Self::Hang | Self::Nonfinite | Self::WeightFlip | Self::WeightEdit | Self::CodeMismatch)
    }
}

/// One fault of a scenario.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// What goes wrong.
    pub kind: FaultKind,
    /// The first step it touches.
    pub onset_step: u64,
    /// The first step it no longer touches; absent = until the end of the run.
    pub end_step: Option<u64>,
    /// Where; which ranks a kind needs is said at the kind.
    #[serde(default)]
    pub ranks: Vec<u32>,
    /// How large, in the unit of its kind.
    #[serde(default)]
    pub size: f64,
    /// Steps over which it grows to its size in a straight line; 0 = at once.
    #[serde(default)]
    pub ramp_steps: u64,
    /// A command that an audit source recorded shortly before the onset, on the node of the first rank.
    pub audit: Option<String>,
}

impl Fault {
    /// True when it is at work in this step.
    #[must_use]
    pub fn is_active(&self, step: u64) -> bool {
        step >= self.onset_step && self.end_step.is_none_or(|end| step < end)
    }

    /// True when it is at work in this step and on this rank; without ranks it is on all.
    #[must_use]
    pub fn touches(&self, step: u64, rank: u32) -> bool {
        self.is_active(step) && (self.ranks.is_empty() || self.ranks.contains(&rank))
    }

    /// `size`, less while it ramps up.
    pub(crate) fn strength(&self, step: u64) -> f64 {
        let grown = (step + 1).saturating_sub(self.onset_step);
        if grown < self.ramp_steps { self.size * grown as f64 / self.ramp_steps as f64 } else { self.size }
    }
}

/// The faults of one kind that are at work in a step.
pub(crate) fn active(faults: &[Fault], kind: FaultKind, step: u64) -> impl Iterator<Item = &Fault> {
    faults.iter().filter(move |fault| fault.kind == kind && fault.is_active(step))
}

/// True when a fault of the kind is at work in a step on a rank.
pub(crate) fn is_hit(faults: &[Fault], kind: FaultKind, step: u64, rank: u32) -> bool {
    faults.iter().any(|fault| fault.kind == kind && fault.touches(step, rank))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ramp_grows_to_its_size_and_stays() {
        let text = "kind = 'slow_rank'\nonset_step = 10\nranks = [3]\nsize = 0.4\nramp_steps = 4";
        let fault: Fault = toml::from_str(text).expect("the text is a fault");
        let sizes: Vec<f64> = (10..15).map(|step| fault.strength(step)).collect();
        assert_eq!(sizes, [0.1, 0.2, 0.4 * 3.0 / 4.0, 0.4, 0.4]);
        assert!(!fault.touches(9, 3) && fault.touches(10, 3) && !fault.touches(10, 4));
    }
}
