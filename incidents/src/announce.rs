//! What people are told of the life of an incident, and when.
//!
//! An incident tells much more than a person wants to read: it grows, it gains evidence, it ends and comes back. Told is
//! what asks for an act: it is there, it is worse, it has a name, somebody has it, it is over. An end counts once it has
//! lasted: an incident that comes back in that time was never away, and each end that did not hold makes the next wait
//! longer.

use serde::{Deserialize, Serialize};
use trainwarden_telemetry::{Change, ChangeKind, Incident, Severity};

/// An end waits at most so many times the first dwell: one that comes and goes for hours is told a few times an hour.
const DWELL_GROWTH_MAX: u32 = 16;

/// What was told of one incident.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Announced {
    /// How severe it was said to be.
    pub severity: Severity,
    /// Whether anybody was named.
    pub is_named: bool,
    /// When its end was told, in nanoseconds since the epoch, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub over_since: Option<i64>,
    /// Ends that did not hold.
    pub returns: u32,
    /// An end that waits until it has lasted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<HeldEnd>,
    /// Its notices that may still wait in the slow lane, as sink and number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub slow: Vec<(String, u64)>,
}

/// An end that waits until it has lasted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct HeldEnd {
    /// When it counts, in nanoseconds since the epoch.
    pub due: i64,
    /// Number of the change.
    pub number: u64,
    /// The incident as it ended.
    pub incident: Incident,
}

/// What follows from a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Nobody is told.
    Nothing,
    /// It is told, as this kind of change.
    Tell(ChangeKind),
    /// The end waits until it has lasted.
    Hold,
}

impl Announced {
    /// What follows from a change, and what is known after it; nothing is known of an incident that nobody needs to know.
    ///
    /// * `known`: what was told before; nothing where the incident is new, was below `warning`, or was another worker's.
    /// * `number`: of the change.
    /// * `now`: nanoseconds since the epoch.
    /// * `dwell_ns`: how long an end must last.
    #[must_use]
    pub fn after(
        known: Option<Self>,
        (number, change): (u64, &Change),
        now: i64,
        dwell_ns: i64,
    ) -> (Act, Option<Self>) {
        let incident = &change.incident;
        if incident.severity < Severity::Warning {
            return (Act::Nothing, known);
        }
        let Some(mut known) = known else {
            // Whoever hears of it for the first time is not told that it is more of something.
            let kind = if change.change == ChangeKind::Updated { ChangeKind::Opened } else { change.change };
            let slow = Vec::new();
            let news =
                Self { severity: incident.severity, is_named: false, over_since: None, returns: 0, held: None, slow };
            return (Act::Tell(kind), Some(news.told(kind, incident, now)));
        };
        let was_held = known.held.take();
        let act = match change.change {
            ChangeKind::Resolved if known.over_since.is_some() => Act::Nothing,
            ChangeKind::Resolved => {
                let growth = 2_u32.saturating_pow(known.returns).min(DWELL_GROWTH_MAX);
                let due = now.saturating_add(dwell_ns.saturating_mul(i64::from(growth)));
                known.held = Some(HeldEnd { due, number, incident: incident.clone() });
                return (Act::Hold, Some(known));
            }
            // What turned out to be part of another incident does not come back.
            ChangeKind::Merged if known.over_since.is_some() => Act::Nothing,
            ChangeKind::Reopened | ChangeKind::Opened if known.over_since.is_none() => {
                known.returns += u32::from(was_held.is_some());
                known.more(incident).map_or(Act::Nothing, Act::Tell)
            }
            ChangeKind::Updated => {
                // An incident that has ended may still gain evidence: the end waits on.
                known.held = was_held;
                known.more(incident).map_or(Act::Nothing, Act::Tell)
            }
            ChangeKind::Acknowledged => {
                known.held = was_held;
                Act::Tell(ChangeKind::Acknowledged)
            }
            kind => Act::Tell(kind),
        };
        match act {
            Act::Tell(kind) => (act, Some(known.told(kind, incident, now))),
            _ => (act, Some(known)),
        }
    }

    /// An end that has lasted.
    #[must_use]
    pub fn ended(mut self, now: i64) -> (Option<HeldEnd>, Self) {
        let held = self.held.take();
        if held.is_some() {
            self.over_since = Some(now);
            self.returns += 1;
        }
        (held, self)
    }

    /// It became worse, or somebody is named for the first time.
    fn more(&self, incident: &Incident) -> Option<ChangeKind> {
        let is_worse = incident.severity > self.severity;
        let is_news = is_worse || (!self.is_named && !incident.suspects.is_empty());
        (is_news && self.over_since.is_none()).then_some(ChangeKind::Updated)
    }

    fn told(mut self, kind: ChangeKind, incident: &Incident, now: i64) -> Self {
        self.severity = self.severity.max(incident.severity);
        self.is_named |= !incident.suspects.is_empty();
        self.over_since = match kind {
            ChangeKind::Resolved | ChangeKind::Merged => Some(now),
            ChangeKind::Acknowledged => self.over_since,
            _ => None,
        };
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{change, incident};

    const DWELL: i64 = 60;

    struct Told {
        known: Option<Announced>,
        number: u64,
        words: Vec<String>,
    }

    impl Told {
        fn new() -> Self {
            Self { known: None, number: 0, words: Vec::new() }
        }

        fn take(&mut self, now: i64, change: &Change) {
            self.pass(now);
            let (act, known) = Announced::after(self.known.take(), (self.number, change), now, DWELL);
            self.number += 1;
            self.known = known;
            if let Act::Tell(kind) = act {
                self.words.push(format!("{now} {kind:?}"));
            }
        }

        fn pass(&mut self, now: i64) {
            if let Some(due) = self.known.as_ref().and_then(|known| known.held.as_ref()).map(|held| held.due)
                && due <= now
            {
                self.known = self.known.take().map(|known| known.ended(due).1);
                self.words.push(format!("{due} over"));
            }
        }
    }

    #[test]
    fn information_is_no_notice_and_what_rises_to_a_warning_is_told_as_new() {
        let mut told = Told::new();
        told.take(0, &change(ChangeKind::Opened, incident("info", &[])));
        told.take(1, &change(ChangeKind::Resolved, incident("info", &[])));
        assert_eq!((told.words.len(), &told.known), (0, &None));
        told.take(2, &change(ChangeKind::Updated, incident("warning", &[])));
        told.take(3, &change(ChangeKind::Updated, incident("warning", &[])));
        told.take(4, &change(ChangeKind::Updated, incident("critical", &[])));
        told.take(5, &change(ChangeKind::Updated, incident("critical", &[7])));
        told.take(6, &change(ChangeKind::Updated, incident("critical", &[7, 8])));
        told.take(7, &change(ChangeKind::Acknowledged, incident("critical", &[7, 8])));
        assert_eq!(told.words, ["2 Opened", "4 Updated", "5 Updated", "7 Acknowledged"]);
    }

    #[test]
    fn an_incident_that_flaps_is_told_once_and_its_end_once_it_has_lasted() {
        let mut told = Told::new();
        told.take(0, &change(ChangeKind::Opened, incident("critical", &[7])));
        for turn in 0..1_000 {
            told.take(10 + 2 * turn, &change(ChangeKind::Resolved, incident("critical", &[7])));
            told.take(11 + 2 * turn, &change(ChangeKind::Reopened, incident("critical", &[7])));
        }
        told.take(3_000, &change(ChangeKind::Resolved, incident("critical", &[7])));
        told.take(3_001, &change(ChangeKind::Updated, incident("critical", &[7])));
        told.pass(9_999);
        assert_eq!(told.words, ["0 Opened", "3960 over"], "the dwell has grown sixteen times");
        told.take(20_000, &change(ChangeKind::Reopened, incident("critical", &[7])));
        assert_eq!(told.words[2..], ["20000 Reopened"]);
    }

    #[test]
    fn what_was_merged_is_over_at_once_and_ends_once() {
        let mut told = Told::new();
        told.take(0, &change(ChangeKind::Opened, incident("warning", &[])));
        told.take(1, &change(ChangeKind::Resolved, incident("warning", &[])));
        told.take(2, &change(ChangeKind::Merged, incident("warning", &[])));
        told.take(3, &change(ChangeKind::Resolved, incident("warning", &[])));
        told.pass(999);
        assert_eq!(told.words, ["0 Opened", "2 Merged"]);
    }

    #[test]
    fn the_end_of_what_another_worker_told_is_told() {
        let mut told = Told::new();
        told.take(5, &change(ChangeKind::Resolved, incident("warning", &[])));
        assert_eq!(told.words, ["5 Resolved"]);
    }
}
