//! Where to roll back to, and what is touched.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use trainwarden_telemetry::{Checkpoint, DigestKind, Event, Kind, Label, Observation, Step, Timestamp};

use crate::limits::CHECKPOINTS_MAX;

/// A checkpoint that was saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Saved {
    label: Label,
    digest: Option<String>,
}

/// The checkpoints of a run by name; a name saved again is the later one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Checkpoints {
    saved: BTreeMap<String, Saved>,
}

/// What is known of a checkpoint from the detail of its event.
#[derive(Deserialize)]
struct Detail {
    step: Option<u64>,
    digest: Option<String>,
}

/// True for incidents that may have touched the weights; a slow rank does not.
pub(crate) fn touches_weights(kind: Kind) -> bool {
    let family = kind.as_str().split('.').next().unwrap_or_default();
    ["divergence", "weights", "gradient", "optimizer", "data"].contains(&family)
        || matches!(kind, Kind::EnvironmentMismatch | Kind::MemoryErrors | Kind::HardwareFault)
}

impl Checkpoints {
    /// Takes in what says that a checkpoint was saved: `checkpoint` events and `checkpoint_saved` digests.
    pub(crate) fn observe(&mut self, seen: &Observation) {
        match seen {
            Observation::Event(event) if event.kind == "checkpoint" => self.take_event(event),
            Observation::Digests(set) if set.kind == DigestKind::CheckpointSaved => {
                // Shards differ by rank; only a digest of the whole names the checkpoint.
                let whole = set.entries.iter().find(|entry| entry.rank.is_none() || set.entries.len() == 1);
                self.insert(&set.name, set.label, whole.map(|entry| entry.digest.clone()));
            }
            _ => {}
        }
    }

    fn take_event(&mut self, event: &Event) {
        let Some(name) = &event.subject else { return };
        let detail = event.detail.as_deref().and_then(|text| serde_json::from_str::<Detail>(text).ok());
        let step = detail.as_ref().and_then(|detail| detail.step).map(Step);
        let label = Label { step, time: Some(event.time) };
        self.insert(name, label, detail.and_then(|detail| detail.digest));
    }

    fn insert(&mut self, name: &str, label: Label, digest: Option<String>) {
        let known = self.saved.entry(name.to_owned()).or_insert(Saved { label, digest: None });
        known.label = Label { step: label.step.or(known.label.step), time: label.time.or(known.label.time) };
        known.digest = digest.or(known.digest.take());
        if self.saved.len() > CHECKPOINTS_MAX {
            let oldest = self.saved.iter().min_by_key(|(name, saved)| (saved.label, (*name).clone()));
            if let Some(name) = oldest.map(|(name, _)| name.clone()) {
                self.saved.remove(&name);
            }
        }
    }

    /// The newest checkpoint saved before `onset`.
    pub(crate) fn last_good(&self, onset: Label) -> Option<Checkpoint> {
        let (name, saved) = self.newest(|saved| is_before(saved.label, onset) == Some(true))?;
        Some(Checkpoint { name: name.clone(), digest: saved.digest.clone() })
    }

    /// The step of the newest checkpoint saved before `onset`, if told.
    pub(crate) fn last_good_step(&self, onset: Label) -> Option<Step> {
        self.newest(|saved| is_before(saved.label, onset) == Some(true))?.1.label.step
    }

    /// The step of the newest checkpoint, if told.
    pub(crate) fn last_step(&self) -> Option<Step> {
        self.newest(|_| true)?.1.label.step
    }

    /// True when a checkpoint was saved at most so many steps away.
    pub(crate) fn is_near(&self, step: Step, steps: u64) -> bool {
        self.saved.values().filter_map(|saved| saved.label.step).any(|saved| saved.0.abs_diff(step.0) <= steps)
    }

    fn newest(&self, is_meant: impl Fn(&Saved) -> bool) -> Option<(&String, &Saved)> {
        let meant = self.saved.iter().filter(|(_, saved)| is_meant(saved));
        meant.max_by_key(|(name, saved)| (saved.label.step, saved.label.time, (*name).clone()))
    }

    /// Names of the checkpoints saved from `onset` on, and not after `end` if the incident is over; oldest first.
    pub(crate) fn affected(&self, onset: Label, end: Option<Label>) -> Vec<String> {
        let is_touched = |saved: &Saved| {
            let begun = is_before(saved.label, onset) == Some(false);
            let over = end.is_some_and(|end| is_before(end, saved.label) == Some(true));
            begun && !over
        };
        let mut touched: Vec<(Label, &String)> =
            self.saved.iter().filter(|(_, saved)| is_touched(saved)).map(|(name, saved)| (saved.label, name)).collect();
        touched.sort();
        touched.into_iter().map(|(_, name)| name.clone()).collect()
    }
}

/// Whether one label lies before another: by step where both have one, else by time; `None` when neither can tell.
fn is_before(one: Label, other: Label) -> Option<bool> {
    let by_time = |one: Timestamp, other: Timestamp| one < other;
    match (one.step, other.step) {
        (Some(one), Some(other)) => Some(one < other),
        _ => Some(by_time(one.time?, other.time?)),
    }
}

#[cfg(test)]
mod tests {
    use trainwarden_telemetry::{Attempt, DigestEntry, DigestSet};

    use super::*;

    fn saved(name: &str, step: u64) -> Observation {
        Observation::Digests(DigestSet {
            attempt: Attempt(0),
            kind: DigestKind::CheckpointSaved,
            name: name.to_owned(),
            label: at(step),
            entries: vec![DigestEntry { rank: None, group: None, digest: format!("d{step}") }],
        })
    }

    fn at(step: u64) -> Label {
        Label { step: Some(Step(step)), time: None }
    }

    #[test]
    fn the_last_checkpoint_before_the_onset_is_good_and_later_ones_are_affected() {
        let mut checkpoints = Checkpoints::default();
        for (name, step) in [("a", 100), ("b", 200), ("c", 300), ("d", 400)] {
            checkpoints.observe(&saved(name, step));
        }
        let good = checkpoints.last_good(at(250)).expect("two were saved before");
        assert_eq!((good.name.as_str(), good.digest.as_deref()), ("b", Some("d200")));
        assert_eq!(checkpoints.affected(at(250), None), ["c", "d"]);
        assert_eq!(checkpoints.affected(at(250), Some(at(350))), ["c"]);
        assert_eq!(checkpoints.last_good(at(100)), None);
    }
}
