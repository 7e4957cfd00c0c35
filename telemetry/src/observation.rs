//! What alignment hands to judgement: everything a detector can see, one piece at a time, in a fixed order.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Attempt, CollectiveCall, Communicators, DigestSet, Event, Label, Panel, Rank, Roster, Timestamp};

/// The first row of an attempt was seen; nothing of it was judged yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttemptStart {
    /// Which launch.
    pub attempt: Attempt,
    /// Its ranks, as told.
    pub roster: Arc<Roster>,
    /// Its communicators, as told.
    pub communicators: Arc<Communicators>,
}

/// Two unequal rows for one key: somebody contradicts himself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Conflict {
    /// The launch.
    pub attempt: Attempt,
    /// Metric, communicator or digest name the rows are about.
    pub subject: String,
    /// Step and time of the key.
    pub label: Label,
    /// Who sent both; `None` for the whole run.
    pub rank: Option<Rank>,
    /// The value judged and the value set aside, when they are numbers.
    pub values: Option<(f64, f64)>,
}

/// The log goes on, and nothing has come of the run for a long time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quiet {
    /// The newest launch.
    pub attempt: Attempt,
    /// Its last row: step, and log time.
    pub last: Label,
    /// When it was overdue, in log time.
    pub overdue: Timestamp,
}

/// One aligned piece of telemetry of one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Observation {
    /// An attempt begins.
    Attempt(AttemptStart),
    /// Closed rows of one metric.
    Panel(Panel),
    /// Fingerprints of one thing at one step.
    Digests(DigestSet),
    /// A communication call, complete or overdue.
    Collective(CollectiveCall),
    /// A mark in the run's life or an audit record.
    Event(Event),
    /// Unequal rows for one key.
    Conflict(Conflict),
    /// The whole run is silent.
    Quiet(Quiet),
}
