//! A notice: one change of one incident, for one receiver.

use serde::{Deserialize, Serialize};
use trainwarden_telemetry::{ChangeKind, Incident, Severity};

use crate::limits::{NOTICE_LIST_MAX, NOTICE_TEXT_BYTES_MAX};

/// One change of one incident, for one receiver.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    /// The same whenever it is sent and however often it was worked out: receivers tell repeats by it.
    pub id: String,
    /// What happened.
    pub change: ChangeKind,
    /// When it was put into the outbox, in nanoseconds since the epoch.
    pub told_at: i64,
    /// The incident after it, in brief: of long lists the beginning.
    pub incident: Incident,
    /// True for a notice that tries a receiver out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_test: bool,
}

impl Notice {
    /// The notice of a change.
    ///
    /// * `sink`: name of the receiver.
    /// * `number`, `kind`: of the change, counted in its run.
    /// * `told_at`: nanoseconds since the epoch.
    #[must_use]
    pub fn new(sink: &str, (number, kind): (u64, ChangeKind), incident: &Incident, told_at: i64) -> Self {
        let facts = format!("{}\0{}\0{number}\0{sink}", incident.run.0, incident.id.0);
        let hash = blake3::hash(facts.as_bytes()).to_hex();
        Self { id: format!("ntc_{}", &hash[..32]), change: kind, told_at, incident: brief(incident), is_test: false }
    }

    /// The name of the change outside, such as `opened`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self.change {
            ChangeKind::Opened => "opened",
            ChangeKind::Updated => "updated",
            ChangeKind::Acknowledged => "acknowledged",
            ChangeKind::Merged => "merged",
            ChangeKind::Resolved => "resolved",
            ChangeKind::Reopened => "reopened",
        }
    }

    /// True where the incident needs nobody any more.
    #[must_use]
    pub fn is_over(&self) -> bool {
        matches!(self.change, ChangeKind::Resolved | ChangeKind::Merged)
    }

    /// The lane it waits in: what is critical never waits behind the rest.
    #[must_use]
    pub fn lane(&self) -> u8 {
        u8::from(self.incident.severity < Severity::Critical)
    }
}

/// An incident small enough for any receiver, however many ranks it names: lists are cut to their beginning, which holds
/// the strongest, and texts to their beginning. `scope` tells how many ranks there are.
fn brief(incident: &Incident) -> Incident {
    let mut brief = incident.clone();
    cut(&mut brief.summary);
    brief.suspects.truncate(NOTICE_LIST_MAX);
    brief.evidence.truncate(NOTICE_LIST_MAX);
    brief.changes.truncate(NOTICE_LIST_MAX);
    brief.affected_checkpoints.truncate(NOTICE_LIST_MAX);
    for suspect in &mut brief.suspects {
        suspect.node.iter_mut().chain(&mut suspect.device).for_each(cut);
    }
    for evidence in &mut brief.evidence {
        evidence.note.iter_mut().for_each(cut);
    }
    for change in &mut brief.changes {
        let texts = [&mut change.source, &mut change.kind].into_iter();
        texts.chain(change.actor.iter_mut()).chain(&mut change.node).chain(&mut change.subject).for_each(cut);
    }
    brief.affected_checkpoints.iter_mut().for_each(cut);
    brief
}

fn cut(text: &mut String) {
    if text.len() > NOTICE_TEXT_BYTES_MAX {
        *text = shortened(text, NOTICE_TEXT_BYTES_MAX);
    }
}

/// The beginning of a text, with a mark where it was cut.
pub(crate) fn shortened(text: &str, bytes_max: usize) -> String {
    const MARK: &str = "…";
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    format!("{}{MARK}", &text[..text.floor_char_boundary(bytes_max - MARK.len())])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::incident;

    #[test]
    fn the_id_names_run_incident_change_and_receiver_and_nothing_else() {
        let one = incident("warning", &[17]);
        let id =
            |sink, number, incident: &Incident, at| Notice::new(sink, (number, ChangeKind::Opened), incident, at).id;
        assert_eq!(id("a", 3, &one, 1), id("a", 3, &incident("critical", &[]), 2));
        let ids = [id("a", 3, &one, 1), id("b", 3, &one, 1), id("a", 4, &one, 1)];
        let distinct: std::collections::BTreeSet<&String> = ids.iter().collect();
        assert_eq!(distinct.len(), 3);
        assert_eq!(ids[0].len(), 36);
    }

    #[test]
    fn an_incident_of_8192_ranks_is_told_by_its_first_and_its_size() {
        let ranks: Vec<u32> = (0..8192).collect();
        let mut wide = incident("critical", &ranks);
        wide.summary = "é".repeat(9_000);
        let notice = Notice::new("a", (0, ChangeKind::Opened), &wide, 0);
        assert_eq!(notice.incident.scope.map(|scope| scope.ranks), Some(8192));
        assert!(notice.incident.summary.ends_with("é…") && notice.incident.summary.len() <= NOTICE_TEXT_BYTES_MAX);
        let json = serde_json::to_string(&notice).expect("plain data");
        assert!(json.len() < 8_000, "{} bytes", json.len());
    }
}
