//! Communication calls, aligned over the members of their communicator.

use serde::{Deserialize, Serialize};

use crate::{Attempt, Rank, Step, Timestamp};

/// One rank's part in a call.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CollectiveEntry {
    /// Who.
    pub rank: Rank,
    /// Operation, such as `all_reduce`.
    pub op: String,
    /// Payload.
    pub bytes: Option<u64>,
    /// Type and shape, as the sender wrote it.
    pub signature: Option<String>,
    /// When the host issued the call.
    pub enqueued: Option<Timestamp>,
    /// When the device began; `None` = never started.
    pub start: Option<Timestamp>,
    /// When the device ended; `None` = not finished.
    pub end: Option<Timestamp>,
    /// Optimizer step, if told.
    pub step: Option<Step>,
    /// The other side of a point-to-point call.
    pub peer: Option<Rank>,
}

/// One call of one communicator: what its members said before it closed.
///
/// It closes when every known member has finished, or at the deadline; so an unfinished call in here *is* overdue.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CollectiveCall {
    /// The launch it belongs to.
    pub attempt: Attempt,
    /// Communicator.
    pub comm: String,
    /// Sequence number inside the communicator.
    pub seq: u64,
    /// Sorted by rank, then operation.
    pub entries: Vec<CollectiveEntry>,
    /// Members that the table `groups` told, or that were seen in earlier calls, and that said nothing of this one.
    pub missing: Vec<Rank>,
    /// How long it was kept open, in nanoseconds; `None` where the log has no times.
    pub deadline_ns: Option<i64>,
}

impl CollectiveCall {
    /// True when every known member entered and finished.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.missing.is_empty() && self.entries.iter().all(|entry| entry.end.is_some())
    }

    /// The step most entries name; the smallest of equals.
    #[must_use]
    pub fn step(&self) -> Option<Step> {
        let mut steps: Vec<Step> = self.entries.iter().filter_map(|entry| entry.step).collect();
        steps.sort_unstable();
        steps.get(steps.len().saturating_sub(1) / 2).copied()
    }
}
