//! Fingerprints of what should be equal somewhere.

use serde::{Deserialize, Serialize};

use crate::{Attempt, Label, Rank};

/// What was fingerprinted, and so what it must equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DigestKind {
    /// Weights after a step: equal over replicas.
    Weight,
    /// Optimizer state after a step: equal over replicas.
    Optimizer,
    /// Gradient after all-reduce: equal over replicas.
    Gradient,
    /// Weights when a step begins: equal to `weight` of the step before on the same rank.
    WeightBefore,
    /// Input ids: equal inside one data-parallel index, different between indices and steps.
    Batch,
    /// State of the random generators: never repeats between steps.
    Rng,
    /// Source code: equal over ranks, constant inside an attempt.
    Code,
    /// Configuration: equal over ranks, constant inside an attempt.
    Config,
    /// Libraries and environment: equal over ranks, constant inside an attempt.
    Env,
    /// A checkpoint as written.
    CheckpointSaved,
    /// A checkpoint as read.
    CheckpointLoaded,
}

impl DigestKind {
    /// Every kind.
    pub const ALL: [Self; 11] = [
        Self::Weight,
        Self::Optimizer,
        Self::Gradient,
        Self::WeightBefore,
        Self::Batch,
        Self::Rng,
        Self::Code,
        Self::Config,
        Self::Env,
        Self::CheckpointSaved,
        Self::CheckpointLoaded,
    ];

    /// The name in the table `digests`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Weight => "weight",
            Self::Optimizer => "optimizer",
            Self::Gradient => "gradient",
            Self::WeightBefore => "weight_before",
            Self::Batch => "batch",
            Self::Rng => "rng",
            Self::Code => "code",
            Self::Config => "config",
            Self::Env => "env",
            Self::CheckpointSaved => "checkpoint_saved",
            Self::CheckpointLoaded => "checkpoint_loaded",
        }
    }

    /// The kind of this name; `None` for a kind of the user's own, which nothing judges.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// One rank's word on a fingerprint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DigestEntry {
    /// Who computed it; `None` for the whole run.
    pub rank: Option<Rank>,
    /// The set inside which it is compared, where the sender named one.
    pub group: Option<String>,
    /// Lower-case hexadecimal.
    pub digest: String,
}

/// All fingerprints of one thing at one step, over the ranks that told before the deadline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DigestSet {
    /// The launch they belong to.
    pub attempt: Attempt,
    /// What was fingerprinted.
    pub kind: DigestKind,
    /// Which one: a parameter bucket, a file, a checkpoint.
    pub name: String,
    /// Step, and median time over ranks.
    pub label: Label,
    /// Sorted by rank, then group, then digest; a rank appears once per group.
    pub entries: Vec<DigestEntry>,
}
