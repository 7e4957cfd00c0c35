//! What one detector says of what it saw.

use serde::{Deserialize, Serialize};

use crate::{Attempt, Kind, Label, Metric, Rank, Severity, Step, Working};

/// The numbers that convict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// Detector that measured it.
    pub detector: String,
    /// What was measured, or the name of what was compared.
    pub metric: Metric,
    /// At which step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<Step>,
    /// On which rank.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rank: Option<Rank>,
    /// What was seen, in the unit of the metric (or as a ratio where the detector's page says so).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<f64>,
    /// What was expected, in the same unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<f64>,
    /// Lower end of the normal band.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub low: Option<f64>,
    /// Upper end of the normal band.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub high: Option<f64>,
    /// Decimal logarithm of the e-value against "nothing is wrong"; absent where a law was broken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log10_e: Option<f64>,
    /// In words, where the numbers are not numbers: two digests, two operations.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// How it was worked out; no part of what is told or stored.
    #[serde(skip)]
    pub working: Working,
}

impl Evidence {
    /// Evidence of `detector` on `metric` with nothing filled in.
    #[must_use]
    pub fn new(detector: &str, metric: &Metric) -> Self {
        Self {
            detector: detector.to_owned(),
            metric: metric.clone(),
            step: None,
            rank: None,
            observed: None,
            expected: None,
            low: None,
            high: None,
            log10_e: None,
            note: None,
            working: Working::default(),
        }
    }
}

/// A rank and its share of the blame.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Suspect {
    /// Who.
    pub rank: Rank,
    /// 0 to 1; the shares of one verdict sum to at most 1.
    pub share: f64,
}

/// When it began: the best estimate and the interval it lies in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Onset {
    /// Best estimate.
    pub step: Step,
    /// Not before.
    pub low: Step,
    /// Not after.
    pub high: Step,
}

/// Where a finding stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Said for the first time.
    Raised,
    /// Still so, with more to say (it grew, moved, or lasts).
    Updated,
    /// No longer so.
    Cleared,
}

/// What one detector says: one finding, at one moment of its life.
///
/// `case` links the verdicts of one finding: a detector raises a case once, may update it, and may clear it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Verdict {
    /// Which detector.
    pub detector: String,
    /// Number of the finding, unique inside the detector and run.
    pub case: u64,
    /// Raised, updated or cleared.
    pub phase: Phase,
    /// The launch it is about.
    pub attempt: Attempt,
    /// What it is.
    pub kind: Kind,
    /// How much it matters.
    pub severity: Severity,
    /// Most suspicious first; empty when the whole run is meant.
    pub suspects: Vec<Suspect>,
    /// Metric, communicator, bucket or checkpoint it is about.
    pub subject: String,
    /// When it began, where there are steps.
    pub onset: Option<Onset>,
    /// The first row that belongs to it. Its time becomes `started_at`.
    pub first: Label,
    /// The row that decided (raised) or the last row that belongs to it (updated, cleared).
    pub last: Label,
    /// What a person reads: one sentence, no full stop.
    pub summary: String,
    /// The numbers that convict; never empty when raised.
    pub evidence: Vec<Evidence>,
}

impl Verdict {
    /// Ranks named, most suspicious first.
    pub fn ranks(&self) -> impl Iterator<Item = Rank> + '_ {
        self.suspects.iter().map(|suspect| suspect.rank)
    }
}
