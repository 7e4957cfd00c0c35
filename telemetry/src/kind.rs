//! Kinds and severities of incidents.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A name that is none of the accepted ones.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is no {what}; one of {accepted} is meant")]
pub struct UnknownName {
    /// The name given.
    pub name: String,
    /// What kind of name was expected.
    pub what: &'static str,
    /// The accepted names.
    pub accepted: String,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// What an incident is, as `family.kind`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Kind { $($(#[$doc])* #[serde(rename = $name)] $variant,)* }
        impl Kind {
            /// Every kind.
            pub const ALL: &'static [Kind] = &[$(Kind::$variant,)*];
            /// The name outside, such as `slowdown.rank`.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Kind::$variant => $name,)* }
            }
        }
    };
}

kinds! {
    /// The loss jumps up and comes back.
    LossSpike = "divergence.loss_spike",
    /// The loss leaves its course and does not come back.
    Drift = "divergence.drift",
    /// A NaN or an infinity was logged.
    Nonfinite = "divergence.nonfinite",
    /// The gradient norm of the whole run leaves its range.
    Gradient = "divergence.gradient",
    /// One rank does its own work slower than its peers.
    SlowRank = "slowdown.rank",
    /// The whole job became slower.
    SlowRun = "slowdown.run",
    /// Communication over one link is slow.
    SlowLink = "slowdown.link",
    /// Rare pauses, on changing ranks or steps.
    Intermittent = "slowdown.intermittent",
    /// Slow steps in a rhythm that was not there before.
    Periodic = "slowdown.periodic",
    /// Ranks wait in a collective that somebody never finishes.
    Hang = "stall.hang",
    /// Ranks entered different operations under one sequence number.
    Desync = "stall.desync",
    /// Replicas of the weights differ.
    ReplicaMismatch = "weights.replica_mismatch",
    /// Weights moved with no optimizer step between.
    UnexplainedUpdate = "weights.unexplained_update",
    /// A checkpoint loaded is not the one saved.
    LineageBreak = "weights.lineage_break",
    /// One rank's gradient stands apart from its peers'.
    GradientRank = "gradient.outlier_rank",
    /// The update does not follow from the gradient.
    InconsistentUpdate = "optimizer.inconsistent_update",
    /// The learning rate leaves its law.
    Schedule = "optimizer.schedule",
    /// A batch was seen before, or by two data-parallel ranks.
    DuplicateBatch = "data.duplicate",
    /// Batches come in another order than before.
    BatchOrder = "data.order",
    /// The data's distribution moved.
    DataShift = "data.shift",
    /// Code, configuration or environment differs between ranks.
    EnvironmentMismatch = "environment.mismatch",
    /// Code, configuration or environment changed.
    EnvironmentChanged = "environment.changed",
    /// Processes were killed.
    Kills = "process.kills",
    /// A device reports a fault.
    HardwareFault = "hardware.fault",
    /// A device lowers its clocks.
    Throttle = "hardware.throttle",
    /// A device counts memory errors.
    MemoryErrors = "hardware.memory_errors",
    /// A rank, or a whole run, stopped speaking.
    Silence = "telemetry.silence",
    /// A rank sends what it sent before.
    Replay = "telemetry.replay",
    /// A signature does not hold.
    Forged = "telemetry.forged",
    /// A rank contradicts itself.
    Inconsistent = "telemetry.inconsistent",
    /// A value of an unknown metric stands apart.
    MetricOutlier = "metric.outlier",
    /// The level of an unknown metric moved.
    MetricShift = "metric.shift",
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth a line, never a notice.
    Info,
    /// 2 % of throughput or more, or a person must look.
    Warning,
    /// Weights or evidence cannot be trusted, the run has stopped, or 10 % of throughput or more is lost.
    Critical,
}

impl Severity {
    /// The name outside.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }

    /// The severity of a loss of throughput: below 2 % information, from 10 % on critical.
    ///
    /// * `loss`: fraction of throughput lost, 0 to 1.
    #[must_use]
    pub fn of_throughput_loss(loss: f64) -> Self {
        match loss {
            loss if loss >= 0.10 => Self::Critical,
            loss if loss >= 0.02 => Self::Warning,
            _ => Self::Info,
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Severity {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        match name {
            "info" => Ok(Self::Info),
            "warning" => Ok(Self::Warning),
            "critical" => Ok(Self::Critical),
            _ => Err(UnknownName {
                name: name.to_owned(),
                what: "severity",
                accepted: "`info`, `warning`, `critical`".to_owned(),
            }),
        }
    }
}
