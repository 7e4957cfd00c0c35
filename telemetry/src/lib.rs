//! The nouns of TrainWarden: what a run, a rank, a table, a panel, a verdict and an incident are.
//!
//! No input or output, no clock and no arithmetic beyond labels. Everything that crosses from one stage of the pipeline
//! to the next is defined here, once.

mod cause;
mod collective;
mod digest;
mod event;
mod fault;
mod incident;
mod kind;
mod metric;
mod observation;
mod panel;
mod roster;
mod run;
mod table;
mod verdict;
mod working;

pub use cause::{Cause, Hypothesis, Impact};
pub use collective::{CollectiveCall, CollectiveEntry};
pub use digest::{DigestEntry, DigestKind, DigestSet};
pub use event::Event;
pub use fault::Fault;
pub use incident::{
    AuditChange, Change, ChangeKind, Checkpoint, Incident, IncidentId, IncidentScope, IncidentSuspect, State,
};
pub use kind::{Kind, Severity, UnknownName};
pub use metric::Metric;
pub use observation::{AttemptStart, Conflict, Observation, Quiet};
pub use panel::{Label, Panel};
pub use roster::{Communicators, Placement, Role, Roster};
pub use run::{Attempt, Rank, RunId, Step, Timestamp};
pub use table::{Column, ColumnType, Table};
pub use verdict::{Evidence, Onset, Phase, Suspect, Verdict};
pub use working::{Figure, FigureValue, Working};
