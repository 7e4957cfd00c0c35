//! What was planted against what was told: the one place that says when a fault counts as found.

use trainwarden_simulate::PlantedFault;
use trainwarden_telemetry::{Incident, Severity};

/// True for an incident that a person is told of as one of its own: at `warning` or above, and not merged into another.
#[must_use]
pub fn is_told(incident: &Incident) -> bool {
    incident.severity >= Severity::Warning && incident.merged_into.is_none()
}

/// True when an incident is the planted fault: its exact kind, and its first suspect guilty, or nobody suspected where
/// the whole run is meant. What was over before the fault began is not it.
#[must_use]
pub fn is_found(fault: &PlantedFault, incident: &Incident) -> bool {
    let first = incident.suspects.first().map(|suspect| suspect.rank.0);
    let is_named = match first {
        Some(rank) => fault.ranks.contains(&rank),
        None => fault.ranks.is_empty(),
    };
    let is_over_before = incident.last_step.is_some_and(|last| last.0 < fault.onset_step);
    incident.kind.as_str() == fault.kind && is_named && !is_over_before
}
