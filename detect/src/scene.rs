//! What every detector may know of the run beside the observation at hand: rosters, pauses, exits, the budget.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use trainwarden_telemetry::{Attempt, AttemptStart, Communicators, Event, Observation, Rank, Roster, RunId, Timestamp};

use crate::Budget;
use crate::detectors::exit::field;

/// Pauses kept: an evaluation every few minutes for the longest deadline, and some to spare.
const PAUSES_MAX: usize = 256;

/// An announced interruption: evaluation, checkpoint, maintenance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pause {
    /// The launch it interrupts; `None` = whichever runs, because a person planned it by the clock.
    pub attempt: Option<Attempt>,
    /// When it began.
    pub begin: Timestamp,
    /// When it ended; `None` = it lasts.
    pub end: Option<Timestamp>,
    /// What for, as the event told.
    pub reason: Option<String>,
    /// Who said so, as the event told.
    pub actor: Option<String>,
}

/// What is known of a run, kept by the pipeline from the observations; it knows an observation before it is judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scene {
    /// The run.
    pub run: RunId,
    /// The false-alarm budget.
    pub budget: Budget,
    attempts: BTreeMap<Attempt, AttemptStart>,
    pauses: VecDeque<Pause>,
    exits: BTreeMap<(Attempt, Rank), Timestamp>,
}

impl Scene {
    /// The scene of a run of which nothing was seen.
    #[must_use]
    pub fn new(run: RunId, budget: Budget) -> Self {
        Self { run, budget, attempts: BTreeMap::new(), pauses: VecDeque::new(), exits: BTreeMap::new() }
    }

    /// Takes in an observation, before any detector judges it.
    pub fn observe(&mut self, seen: &Observation) {
        match seen {
            Observation::Attempt(start) => {
                self.attempts.insert(start.attempt, start.clone());
            }
            Observation::Event(event) => self.observe_event(event),
            _ => {}
        }
    }

    fn observe_event(&mut self, event: &Event) {
        match event.kind.as_str() {
            "pause_begin" => {
                let reason = event.detail.clone().or_else(|| event.subject.clone());
                let (begin, actor) = (event.time, event.actor.clone());
                self.keep(Pause { attempt: Some(event.attempt), begin, end: None, reason, actor });
            }
            "annotate" => {
                let time = |name| field(event.detail.as_deref()?, name)?.parse().ok().map(Timestamp);
                if let Some(end) = time("pause_until") {
                    let begin = time("pause_from").unwrap_or(event.time);
                    let (reason, actor) = (event.subject.clone(), event.actor.clone());
                    self.keep(Pause { attempt: None, begin, end: Some(end), reason, actor });
                }
            }
            "pause_end" => {
                let open = |pause: &&mut Pause| pause.attempt == Some(event.attempt) && pause.end.is_none();
                if let Some(pause) = self.pauses.iter_mut().rev().find(open) {
                    pause.end = Some(event.time);
                }
            }
            "process_exit" => {
                if let Some(rank) = event.rank {
                    self.exits.insert((event.attempt, rank), event.time);
                }
            }
            _ => {}
        }
    }

    fn keep(&mut self, pause: Pause) {
        if self.pauses.len() == PAUSES_MAX {
            self.pauses.pop_front();
        }
        self.pauses.push_back(pause);
    }

    /// The ranks of an attempt, as told; `None` before its first row.
    #[must_use]
    pub fn roster(&self, attempt: Attempt) -> Option<&Arc<Roster>> {
        self.attempts.get(&attempt).map(|start| &start.roster)
    }

    /// The communicators of an attempt, as told; `None` before its first row.
    #[must_use]
    pub fn communicators(&self, attempt: Attempt) -> Option<&Arc<Communicators>> {
        self.attempts.get(&attempt).map(|start| &start.communicators)
    }

    /// Columns whose ranks are peers: see [`Roster::peer_groups`]; all columns when nothing was told.
    #[must_use]
    pub fn peer_groups(&self, attempt: Attempt, ranks: &[Rank]) -> Vec<Vec<usize>> {
        match self.roster(attempt) {
            Some(roster) => roster.peer_groups(ranks),
            None => vec![(0..ranks.len()).collect()],
        }
    }

    /// The pauses that people planned by the clock, in the order in which they were told.
    pub fn planned_pauses(&self) -> impl Iterator<Item = &Pause> {
        self.pauses.iter().filter(|pause| pause.attempt.is_none())
    }

    /// The pause that overlaps the interval, if one does. A pause without an end lasts.
    #[must_use]
    pub fn pause_during(&self, attempt: Attempt, from: Timestamp, to: Timestamp) -> Option<&Pause> {
        let overlaps = |pause: &&Pause| {
            let is_meant = pause.attempt.is_none_or(|paused| paused == attempt);
            is_meant && pause.begin <= to && pause.end.is_none_or(|end| end >= from)
        };
        self.pauses.iter().rev().find(overlaps)
    }

    /// When the process of a rank was reported to have exited.
    #[must_use]
    pub fn exit_of(&self, attempt: Attempt, rank: Rank) -> Option<Timestamp> {
        self.exits.get(&(attempt, rank)).copied()
    }

    /// A rank in words, with its node where told: `rank 17 (n02)`.
    #[must_use]
    pub fn describe(&self, attempt: Attempt, rank: Rank) -> String {
        match self.roster(attempt).and_then(|roster| roster.node(rank)) {
            Some(node) => format!("{rank} ({node})"),
            None => rank.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(kind: &str, time: i64) -> Observation {
        Observation::Event(Event {
            time: Timestamp(time),
            source: "trainer".to_owned(),
            kind: kind.to_owned(),
            actor: None,
            run: None,
            attempt: Attempt(0),
            node: None,
            rank: None,
            subject: None,
            detail: Some("evaluation".to_owned()),
        })
    }

    #[test]
    fn a_pause_covers_what_overlaps_it_and_nothing_after_its_end() {
        let mut scene = Scene::new(RunId::new("r"), Budget::default());
        scene.observe(&mark("pause_begin", 100));
        assert!(scene.pause_during(Attempt(0), Timestamp(150), Timestamp(200)).is_some());
        scene.observe(&mark("pause_end", 140));
        assert!(scene.pause_during(Attempt(0), Timestamp(150), Timestamp(200)).is_none());
        assert!(scene.pause_during(Attempt(0), Timestamp(90), Timestamp(110)).is_some());
        assert!(scene.pause_during(Attempt(1), Timestamp(90), Timestamp(110)).is_none());
    }

    #[test]
    fn a_planned_pause_is_of_every_attempt_and_a_note_is_none() {
        let annotate = |detail: &str| match mark("annotate", 100) {
            Observation::Event(event) => {
                let (subject, detail) = (Some("switch maintenance".to_owned()), Some(detail.to_owned()));
                Observation::Event(Event { subject, detail, ..event })
            }
            other => other,
        };
        let mut scene = Scene::new(RunId::new("r"), Budget::default());
        scene.observe(&annotate(r#"{"ticket": "OPS-1"}"#));
        assert!(scene.pause_during(Attempt(0), Timestamp(0), Timestamp(900)).is_none());
        scene.observe(&annotate(r#"{"pause_from": 200, "pause_until": 300}"#));
        for attempt in [Attempt(0), Attempt(3)] {
            let pause = scene.pause_during(attempt, Timestamp(250), Timestamp(260)).expect("it is planned");
            assert_eq!(pause.reason.as_deref(), Some("switch maintenance"));
            assert!(scene.pause_during(attempt, Timestamp(150), Timestamp(190)).is_none());
            assert!(scene.pause_during(attempt, Timestamp(301), Timestamp(400)).is_none());
        }
    }
}
