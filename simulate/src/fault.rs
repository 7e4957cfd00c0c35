//! Faults: what goes wrong, since when, where and how much.

use serde::Deserialize;

use crate::moment::Moment;

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
    /// The weights of the ranks, or of all alike, are edited before the onset step; the loss jumps by `size` nats and
    /// heals slowly.
    WeightEdit,
    /// The launch that begins at or after the onset loads another checkpoint than was saved.
    CheckpointSwap,
    /// The optimizer moves the weights up the gradient.
    UpdateSign,
    /// All data-parallel indices read the data of the first one.
    BatchSame,
    /// Each step reads the data of `size` steps before.
    BatchRepeat,
    /// Steps read the batches of their plan in another order.
    BatchReorder,
    /// The data-parallel indices of the ranks read data that costs `size` nats more.
    Poison,
    /// The learning rate is multiplied by `size`.
    LearningRate,
    /// The ranks run other code; from step 0 on, because a change later is `environment.changed`.
    CodeMismatch,
    /// All ranks run other code from the onset step on: somebody patched a live training.
    CodeChange,
    /// All ranks run another environment; from the first step of a launch on.
    EnvironmentChange,
    /// `size` times a process, drawn anew, is killed, and the run launched again.
    Kills,
    /// The ranks enter their all-reduce with half of the payload.
    Desync,
    /// The clock of the ranks' devices falls by the fraction `size`, and their work slows down with it.
    Throttle,
    /// The devices of the ranks correct `size` memory errors a step, on average.
    MemoryErrors,
    /// The ranks compute, but tell nothing.
    Silence,
    /// The ranks tell what they told `size` steps before.
    Replay,
    /// The ranks date what they tell `size` seconds back.
    Backdate,
}

impl FaultKind {
    /// Every kind.
    pub const ALL: [Self; 29] = [
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
        Self::CheckpointSwap,
        Self::UpdateSign,
        Self::BatchSame,
        Self::BatchRepeat,
        Self::BatchReorder,
        Self::Poison,
        Self::LearningRate,
        Self::CodeMismatch,
        Self::CodeChange,
        Self::EnvironmentChange,
        Self::Kills,
        Self::Desync,
        Self::Throttle,
        Self::MemoryErrors,
        Self::Silence,
        Self::Replay,
        Self::Backdate,
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
            Self::CheckpointSwap => "weights.lineage_break",
            Self::UpdateSign => "optimizer.inconsistent_update",
            Self::BatchSame | Self::BatchRepeat => "data.duplicate",
            Self::BatchReorder => "data.order",
            Self::Poison => "data.shift",
            Self::LearningRate => "optimizer.schedule",
            Self::CodeMismatch => "environment.mismatch",
            Self::CodeChange | Self::EnvironmentChange => "environment.changed",
            Self::Kills => "process.kills",
            Self::Desync => "stall.desync",
            Self::Throttle => "hardware.throttle",
            Self::MemoryErrors => "hardware.memory_errors",
            Self::Silence => "telemetry.silence",
            Self::Replay => "telemetry.replay",
            Self::Backdate => "telemetry.inconsistent",
        }
    }

    /// True where single ranks are guilty and must be told.
    #[must_use]
    pub fn needs_ranks(self) -> bool {
        matches!(
            self,
            Self::SlowRank
                | Self::Hang
                | Self::Nonfinite
                | Self::GradientFlip
                | Self::GradientNoise
                | Self::WeightFlip
                | Self::Poison
                | Self::CodeMismatch
                | Self::Desync
                | Self::Throttle
                | Self::MemoryErrors
                | Self::Silence
                | Self::Replay
                | Self::Backdate
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
                | Self::CheckpointSwap
                | Self::UpdateSign
                | Self::BatchSame
                | Self::BatchReorder
                | Self::CodeMismatch
                | Self::CodeChange
                | Self::EnvironmentChange
                | Self::Desync
                | Self::Silence
        )
    }

    /// True for what happens when a run is launched again.
    pub(crate) fn begins_with_launch(self) -> bool {
        matches!(self, Self::CheckpointSwap | Self::EnvironmentChange)
    }

    /// True for what cannot be undone inside an attempt.
    pub(crate) fn is_final(self) -> bool {
        matches!(
            self,
            Self::Hang
                | Self::WeightFlip
                | Self::WeightEdit
                | Self::CheckpointSwap
                | Self::CodeMismatch
                | Self::EnvironmentChange
        )
    }
}

/// One fault of a scenario.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// What goes wrong.
    pub kind: FaultKind,
    /// The launch in which it begins, from 0.
    #[serde(default)]
    pub attempt: u32,
    /// The first step it touches.
    pub onset_step: u64,
    /// The first step it no longer touches, in the same launch; absent = until the end of the run.
    pub end_step: Option<u64>,
    /// Hours of the day, UTC, in which it is at work: from the first to the second (excluded), over midnight where the
    /// second is smaller; absent = all.
    pub hours: Option<[u8; 2]>,
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
    /// True when it is at work.
    pub(crate) fn is_active(&self, moment: Moment) -> bool {
        let is_over = self.end_step.is_some_and(|end| moment.place() >= (self.attempt, end));
        moment.place() >= (self.attempt, self.onset_step) && !is_over && self.covers_hour(moment.hour())
    }

    fn covers_hour(&self, hour: i64) -> bool {
        let Some([from, to]) = self.hours.map(|hours| hours.map(i64::from)) else { return true };
        if from <= to { (from..to).contains(&hour) } else { hour >= from || hour < to }
    }

    /// True in the first step it touches.
    pub(crate) fn begins(&self, moment: Moment) -> bool {
        moment.place() == (self.attempt, self.onset_step)
    }

    /// True when it is at work on this rank; without ranks it is on all.
    pub(crate) fn touches(&self, moment: Moment, rank: u32) -> bool {
        self.is_active(moment) && (self.ranks.is_empty() || self.ranks.contains(&rank))
    }

    /// `size`, less while it ramps up.
    pub(crate) fn strength(&self, moment: Moment) -> f64 {
        let grown = (moment.step + 1).saturating_sub(self.onset_step);
        let is_growing = moment.attempt == self.attempt && grown < self.ramp_steps;
        if is_growing { self.size * grown as f64 / self.ramp_steps as f64 } else { self.size }
    }
}

/// The faults of one kind that are at work.
pub(crate) fn active(faults: &[Fault], kind: FaultKind, moment: Moment) -> impl Iterator<Item = &Fault> {
    faults.iter().filter(move |fault| fault.kind == kind && fault.is_active(moment))
}

/// True when a fault of the kind is at work on a rank.
pub(crate) fn is_hit(faults: &[Fault], kind: FaultKind, moment: Moment, rank: u32) -> bool {
    faults.iter().any(|fault| fault.kind == kind && fault.touches(moment, rank))
}

/// The sizes of the faults of one kind on a rank, multiplied after `weigh`.
pub(crate) fn factor(faults: &[Fault], kind: FaultKind, at: (Moment, u32), weigh: impl Fn(f64) -> f64) -> f64 {
    let (moment, rank) = at;
    let hits = faults.iter().filter(|fault| fault.kind == kind && fault.touches(moment, rank));
    hits.map(|fault| weigh(fault.strength(moment))).product()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(attempt: u32, step: u64, hour: i64) -> Moment {
        Moment { attempt, step, now_ns: hour * 3_600_000_000_000 }
    }

    fn fault(text: &str) -> Fault {
        toml::from_str(&format!("kind = 'slow_rank'\nranks = [3]\nsize = 0.4\n{text}")).expect("the text is a fault")
    }

    #[test]
    fn a_ramp_grows_to_its_size_and_stays() {
        let fault = fault("onset_step = 10\nramp_steps = 4");
        let sizes: Vec<f64> = (10..15).map(|step| fault.strength(at(0, step, 0))).collect();
        assert_eq!(sizes, [0.1, 0.2, 0.4 * 3.0 / 4.0, 0.4, 0.4]);
        assert!(!fault.touches(at(0, 9, 0), 3) && fault.touches(at(0, 10, 0), 3) && !fault.touches(at(0, 10, 0), 4));
    }

    #[test]
    fn a_fault_goes_on_in_the_next_launch_unless_it_has_ended() {
        let (lasting, ended) = (fault("onset_step = 10"), fault("onset_step = 10\nend_step = 20"));
        assert!(lasting.is_active(at(1, 5, 0)) && !ended.is_active(at(1, 15, 0)));
        let later = fault("onset_step = 10\nattempt = 1");
        assert!(!later.is_active(at(0, 30, 0)) && later.is_active(at(1, 10, 0)));
    }

    #[test]
    fn a_fault_of_the_night_sleeps_by_day() {
        let night = fault("onset_step = 0\nhours = [22, 6]");
        let hours: Vec<i64> = (0..24).filter(|hour| night.is_active(at(0, 1, *hour))).collect();
        assert_eq!(hours, [0, 1, 2, 3, 4, 5, 22, 23]);
        assert!(!fault("onset_step = 0\nhours = [9, 17]").is_active(at(0, 1, 17)));
    }
}
