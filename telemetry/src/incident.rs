//! What a person is told: one event, however many verdicts speak of it.

use serde::{Deserialize, Serialize};

use crate::{Attempt, Evidence, Hypothesis, Impact, Kind, Onset, Rank, RunId, Severity, Step, Timestamp};

/// Identity of an incident: a hash of run, attempt, kind, suspects at its opening and its first step or time.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IncidentId(pub String);

/// Where an incident stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It goes on, or nobody has looked.
    Open,
    /// A person has taken it.
    Acknowledged,
    /// It is over.
    Resolved,
}

/// A rank under suspicion, with where it runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct IncidentSuspect {
    /// Who.
    pub rank: Rank,
    /// Host, if told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// GPU UUID, if told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Share of the blame, 0 to 1.
    pub share: f64,
}

/// How many ranks are meant, of how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncidentScope {
    /// Ranks named; all known ones when the whole run is meant.
    pub ranks: u64,
    /// Ranks known in the attempt.
    pub world_size: u64,
}

/// An audit record shortly before the onset, in scope.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AuditChange {
    /// When.
    pub time: Timestamp,
    /// Recorded by.
    pub source: String,
    /// What.
    pub kind: String,
    /// Who, as the source wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
    /// Where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Which rank.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rank: Option<Rank>,
    /// To what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Seconds from the onset to the record: negative when it came before.
    pub lag_s: f64,
    /// Chance that a record of its kind lies so close by accident, from the rate of its kind so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p_value: Option<f64>,
}

/// A checkpoint by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Its name.
    pub name: String,
    /// Its digest, if told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// One event to a person; the JSON of the outside contract. A field without content is left out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    /// Stable identity.
    pub id: IncidentId,
    /// The run.
    pub run: RunId,
    /// The launch.
    pub attempt: Attempt,
    /// What it is.
    pub kind: Kind,
    /// How much it matters.
    pub severity: Severity,
    /// Where it stands.
    pub state: State,
    /// The first step that belongs to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_step: Option<Step>,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub onset: Option<Onset>,
    /// The step that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detected_step: Option<Step>,
    /// The last step that belongs to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_step: Option<Step>,
    /// Median over ranks of the time of the opening row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// Median over ranks of the time of the deciding row.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detected_at: Option<Timestamp>,
    /// Most suspicious first; empty when the whole run is meant.
    #[serde(default)]
    pub suspects: Vec<IncidentSuspect>,
    /// How many ranks are meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<IncidentScope>,
    /// One sentence.
    pub summary: String,
    /// The numbers that convict.
    pub evidence: Vec<Evidence>,
    /// How many incidents this strong a week of such a run gives with nothing wrong; absent where a law was broken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub false_alarms_per_week: Option<f64>,
    /// What may be behind it, the likeliest first; empty in one that became part of another.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hypotheses: Vec<Hypothesis>,
    /// Audit records before the onset in its scope, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<AuditChange>,
    /// What it cost so far, where that can be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub impact: Option<Impact>,
    /// Where to roll back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_good_checkpoint: Option<Checkpoint>,
    /// Checkpoints saved since the onset.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub affected_checkpoints: Vec<String>,
    /// The incident this one turned out to be part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merged_into: Option<IncidentId>,
}

impl Incident {
    /// An open incident of the first launch, of which nothing else is known.
    #[must_use]
    pub fn new(id: IncidentId, run: RunId, kind: Kind, severity: Severity) -> Self {
        Self {
            id,
            run,
            attempt: Attempt(0),
            kind,
            severity,
            state: State::Open,
            first_step: None,
            onset: None,
            detected_step: None,
            last_step: None,
            started_at: None,
            detected_at: None,
            suspects: Vec::new(),
            scope: None,
            summary: String::new(),
            evidence: Vec::new(),
            false_alarms_per_week: None,
            hypotheses: Vec::new(),
            changes: Vec::new(),
            impact: None,
            last_good_checkpoint: None,
            affected_checkpoints: Vec::new(),
            merged_into: None,
        }
    }
}

/// What happened to an incident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChangeKind {
    /// It is new.
    Opened,
    /// There is more to say.
    Updated,
    /// A person has taken it.
    Acknowledged,
    /// It is part of an older one.
    Merged,
    /// It is over.
    Resolved,
    /// It came back.
    Reopened,
}

/// One change of one incident, with the incident as it stands after it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// What happened.
    pub change: ChangeKind,
    /// The incident after it.
    pub incident: Incident,
}
