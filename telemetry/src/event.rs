//! Changes and acts from audit sources, and marks in the life of a run.

use serde::{Deserialize, Serialize};

use crate::{Attempt, Rank, RunId, Timestamp};

/// One row of the table `events`.
///
/// Kinds of a run's life: `run_start`, `run_end`, `process_exit`, `pause_begin`, `pause_end`, `checkpoint`, `ack`,
/// `annotate`, `silence`. Any other kind is an audit record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Event {
    /// When it happened.
    pub time: Timestamp,
    /// Where it was recorded, such as `sudo`, `git`, `slurm`.
    pub source: String,
    /// What it was.
    pub kind: String,
    /// Who, as the source wrote it.
    pub actor: Option<String>,
    /// The run it concerns; `None` = joined by time alone.
    pub run: Option<RunId>,
    /// The launch it concerns.
    pub attempt: Attempt,
    /// The host it concerns.
    pub node: Option<String>,
    /// The rank it concerns.
    pub rank: Option<Rank>,
    /// What it was done to.
    pub subject: Option<String>,
    /// Further facts as JSON text.
    pub detail: Option<String>,
}

impl Event {
    /// The kinds that mark the life of a run; all others are audit records.
    pub const LIFE: [&'static str; 9] = [
        "run_start",
        "run_end",
        "process_exit",
        "pause_begin",
        "pause_end",
        "checkpoint",
        "ack",
        "annotate",
        "silence",
    ];

    /// True for an act or a change from an audit source, false for a mark in the run's life.
    #[must_use]
    pub fn is_audit(&self) -> bool {
        !Self::LIFE.contains(&self.kind.as_str())
    }
}
