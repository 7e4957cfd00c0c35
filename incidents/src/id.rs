//! Stable identity of incidents.

use trainwarden_telemetry::{IncidentId, RunId, Verdict};

/// Hash of run, attempt, kind, suspects at its opening and its first step (else its first time).
///
/// The same log gives the same id, so a repeat of the work repeats nothing to a person.
pub(crate) fn incident_id(run: &RunId, opening: &Verdict) -> IncidentId {
    let mut ranks: Vec<u32> = opening.ranks().map(|rank| rank.0).collect();
    ranks.sort_unstable();
    let begin = match (opening.first.step, opening.first.time) {
        (Some(step), _) => format!("step {}", step.0),
        (None, Some(time)) => format!("time {}", time.0),
        (None, None) => String::new(),
    };
    let facts = format!("{}\0{}\0{}\0{ranks:?}\0{begin}", run.0, opening.attempt.0, opening.kind);
    let hash = blake3::hash(facts.as_bytes()).to_hex();
    IncidentId(format!("inc_{}", &hash[..16]))
}
