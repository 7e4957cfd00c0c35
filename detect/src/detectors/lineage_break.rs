//! Detects a checkpoint that was loaded and is not the one that was saved.
//!
//! # What it finds
//! A checkpoint whose digest at loading differs from its digest at saving: `weights.lineage_break`, always critical.
//!
//! # Why it matters
//! A checkpoint at rest is the easiest place to edit a model: no process runs, every replica loads the same edit, and
//! all comparisons over ranks agree afterwards.
//!
//! # How it decides
//! By law, bit for bit: `checkpoint_loaded` equals `checkpoint_saved` of the same name, inside a run, over all its
//! attempts. A rank's load is compared with what the same rank saved under the name (shards); a load without a rank,
//! or of a rank that saved nothing, with the one digest that was saved, if it is one: then the checkpoint is a whole,
//! and only when all loads of the row are alike (else they are shards cut anew). A name that is saved again replaces
//! the one before: the last save wins. Loads before any save, and loads whose `group` names another run, cannot be
//! judged here. Ranks that loaded something else are the suspects; when all that could be judged did, the checkpoint
//! itself is meant and nobody is named. All names loaded by one attempt are one case; it ends when each is loaded as
//! saved.
//!
//! # Parameters
//! [`CHECKPOINTS_MAX`], [`ENTRIES_MAX`]: what is remembered.
//!
//! # Blind spots
//! A checkpoint of another run, or saved before the log begins; one edited before its first digest; loads on another
//! number of ranks than saved; a save longer ago than the last [`CHECKPOINTS_MAX`] names.
//!
//! # Source
//! A law of training: the digest of a checkpoint when read is the one when written.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use trainwarden_kernels::Backend;
use trainwarden_telemetry::{
    Attempt, DigestEntry, DigestKind, DigestSet, Evidence, Kind, Observation, Rank, Severity, Step, Verdict,
};

use super::breach::{Breach, Breaches, Break, SUSPECTS_MAX, note, short};
use crate::{Against, DetectError, Judge, Scene, Spec};

const SPEC: Spec = Spec {
    name: "lineage_break",
    against: Against::Law,
    watches: &["digests: checkpoint_saved", "digests: checkpoint_loaded"],
    kinds: &[Kind::LineageBreak],
};
const VERSION: u8 = 1;
/// Names remembered; the one saved longest ago is forgotten first. A save every ten minutes for a month.
const CHECKPOINTS_MAX: usize = 4096;
/// Digests remembered over all names: the last sixty-four checkpoints of eight thousand shards.
const ENTRIES_MAX: usize = 1 << 19;

/// See the module's page.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct LineageBreak {
    saved: BTreeMap<String, Saved>,
    saved_entries: usize,
    saves: u64,
    breaches: Breaches<Attempt>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Saved {
    /// Number of the last save, to forget the oldest.
    order: u64,
    attempt: Attempt,
    step: Option<Step>,
    digests: BTreeMap<Option<Rank>, String>,
}

impl Saved {
    /// What a load must equal, when the log proves it.
    fn expected(&self, rank: Option<Rank>, is_load_uniform: bool) -> Option<&str> {
        if let Some(digest) = self.digests.get(&rank) {
            return Some(digest);
        }
        let first = self.digests.values().next()?;
        let is_whole = self.digests.values().all(|digest| digest == first);
        (is_whole && is_load_uniform).then_some(first)
    }
}

struct Load<'a> {
    rank: Option<Rank>,
    loaded: &'a str,
    saved: &'a str,
}

impl LineageBreak {
    fn save(&mut self, set: &DigestSet) {
        self.saves += 1;
        let saved = self.saved.entry(set.name.clone()).or_insert_with(|| Saved {
            order: 0,
            attempt: set.attempt,
            step: set.label.step,
            digests: BTreeMap::new(),
        });
        self.saved_entries -= saved.digests.len();
        if (saved.attempt, saved.step) != (set.attempt, set.label.step) {
            // Another save of the same name: shards of the one before are gone.
            saved.digests.clear();
        }
        (saved.order, saved.attempt, saved.step) = (self.saves, set.attempt, set.label.step);
        saved.digests.extend(set.entries.iter().map(|entry| (entry.rank, entry.digest.clone())));
        self.saved_entries += saved.digests.len();
        while self.saved.len() > CHECKPOINTS_MAX || (self.saved_entries > ENTRIES_MAX && self.saved.len() > 1) {
            let oldest = self.saved.iter().min_by_key(|(_, saved)| saved.order).map(|(name, _)| name.clone());
            let Some(forgotten) = oldest.and_then(|name| self.saved.remove(&name)) else { break };
            self.saved_entries -= forgotten.digests.len();
        }
    }

    fn load(&mut self, set: &DigestSet, scene: &Scene) -> Option<Verdict> {
        let saved = self.saved.get(&set.name)?;
        let is_own = |entry: &&DigestEntry| entry.group.as_deref().is_none_or(|run| run == &*scene.run.0);
        let entries: Vec<&DigestEntry> = set.entries.iter().filter(is_own).collect();
        let is_uniform = entries.iter().map(|entry| &entry.digest).collect::<BTreeSet<_>>().len() == 1;
        let loads: Vec<Load<'_>> = entries
            .into_iter()
            .filter_map(|entry| {
                let saved = saved.expected(entry.rank, is_uniform)?;
                Some(Load { rank: entry.rank, loaded: &entry.digest, saved })
            })
            .collect();
        let broken: Vec<&Load<'_>> = loads.iter().filter(|load| load.loaded != load.saved).collect();
        if loads.is_empty() {
            return None;
        }
        if broken.is_empty() {
            return self.breaches.holds(&set.attempt, &set.name, 1);
        }
        let is_whole = broken.len() == loads.len();
        let found = Break {
            detector: SPEC.name,
            attempt: set.attempt,
            kind: Kind::LineageBreak,
            severity: Severity::Critical,
            name: set.name.clone(),
            label: set.label,
            ranks: if is_whole { Vec::new() } else { broken.iter().filter_map(|load| load.rank).collect() },
            good_until: saved.step,
            evidence: evidence(set, &broken, saved),
        };
        self.breaches.broke(set.attempt, found, |breach| summary(breach, scene))
    }
}

fn evidence(set: &DigestSet, broken: &[&Load<'_>], saved: &Saved) -> Vec<Evidence> {
    let at = saved.step.map_or(String::new(), |step| format!(" at {step}"));
    let words = broken.iter().take(SUSPECTS_MAX).map(|load| {
        let (loaded, told) = (short(load.loaded), short(load.saved));
        let said = format!("loaded as {loaded}, saved as {told}{at} of attempt {}", saved.attempt.0);
        note(SPEC.name, &set.name, (set.label.step, load.rank), said)
    });
    words.collect()
}

fn summary(breach: &Breach, scene: &Scene) -> String {
    let who = if breach.ranks().is_empty() { String::new() } else { format!(" by {}", breach.who(scene)) };
    format!("checkpoint {} loaded{who}{} is not the one saved", breach.names("parts"), breach.when())
}

impl Judge for LineageBreak {
    const SPEC: Spec = SPEC;
    const VERSION: u8 = VERSION;

    fn judge(
        &mut self,
        seen: &Observation,
        scene: &Scene,
        _backend: &mut dyn Backend,
    ) -> Result<Vec<Verdict>, DetectError> {
        let Observation::Digests(set) = seen else { return Ok(Vec::new()) };
        match set.kind {
            DigestKind::CheckpointSaved => self.save(set),
            DigestKind::CheckpointLoaded => return Ok(self.load(set, scene).into_iter().collect()),
            _ => {}
        }
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use trainwarden_telemetry::{Onset, Phase};

    use super::*;
    use crate::detectors::breach::testing::{digests_of, in_group, named, phases};
    use crate::detectors::testing::{assert_restores, bare_scene, judge_all};

    fn judge(seen: &[Observation]) -> Vec<Verdict> {
        judge_all(&mut LineageBreak::default(), &mut bare_scene(), seen)
    }

    fn saved(attempt: u32, step: u64, words: &[&str]) -> Observation {
        digests_of(attempt, DigestKind::CheckpointSaved, "step-4000", step, words)
    }

    fn loaded(attempt: u32, step: u64, words: &[&str]) -> Observation {
        digests_of(attempt, DigestKind::CheckpointLoaded, "step-4000", step, words)
    }

    #[test]
    fn a_checkpoint_edited_at_rest_is_found_when_the_next_attempt_loads_it() {
        let seen = [saved(0, 4000, &["aa", "bb"]), loaded(1, 4001, &["aa", "xx"]), loaded(1, 4002, &["aa", "bb"])];
        let verdicts = judge(&seen);
        assert_eq!(phases(&verdicts), [Phase::Raised, Phase::Cleared]);
        assert_eq!(named(&verdicts[0]), [1]);
        assert_eq!(verdicts[0].onset, Some(Onset { step: Step(4001), low: Step(4001), high: Step(4001) }));
        assert_eq!(verdicts[0].summary, "checkpoint `step-4000` loaded by rank 1 at step 4001 is not the one saved");
        let said = verdicts[0].evidence[0].note.as_deref();
        assert_eq!(said, Some("loaded as xx, saved as bb at step 4000 of attempt 0"));
        assert_restores(|| Box::new(LineageBreak::default()), &seen);
    }

    #[test]
    fn a_checkpoint_loaded_as_saved_says_nothing() {
        assert_eq!(judge(&[saved(0, 9, &["aa", "bb"]), loaded(1, 10, &["aa", "bb"])]), []);
        assert_eq!(judge(&[saved(0, 9, &["aa"]), loaded(1, 10, &["aa", "aa", "aa"])]), []);
    }

    #[test]
    fn a_whole_checkpoint_that_all_ranks_load_edited_names_nobody() {
        let verdicts = judge(&[saved(0, 9, &["aa"]), loaded(1, 10, &["xx", "xx"])]);
        assert_eq!(named(&verdicts[0]), [] as [u32; 0]);
        assert_eq!(verdicts[0].summary, "checkpoint `step-4000` loaded at step 10 is not the one saved");
    }

    #[test]
    fn the_last_save_of_a_name_wins() {
        assert_eq!(judge(&[saved(0, 9, &["aa"]), saved(0, 18, &["bb"]), loaded(1, 19, &["bb"])]), []);
        assert_eq!(judge(&[saved(0, 9, &["aa"]), saved(0, 18, &["bb"]), loaded(1, 10, &["aa"])]).len(), 1);
    }

    #[test]
    fn shards_of_a_replaced_save_are_no_evidence() {
        let seen = [saved(0, 9, &["aa", "bb"]), saved(0, 18, &["cc"]), loaded(1, 19, &["cc", "xx"])];
        assert_eq!(judge(&seen), []);
    }

    #[test]
    fn loads_without_a_save_of_another_run_or_cut_anew_cannot_be_judged() {
        assert_eq!(judge(&[loaded(0, 0, &["aa"]), saved(0, 9, &["bb"])]), []);
        assert_eq!(judge(&[saved(0, 9, &["aa"]), in_group(loaded(1, 0, &["xx"]), "parent")]), []);
        assert_eq!(judge(&[saved(0, 9, &["aa", "bb"]), loaded(1, 10, &["", "", "cc", "dd"])]), []);
        assert_eq!(judge(&[saved(0, 9, &[]), loaded(1, 10, &["xx"]), loaded(1, 11, &[])]), []);
        assert_eq!(judge(&[saved(0, 9, &["aa"]), in_group(loaded(1, 10, &["xx"]), "run")]).len(), 1);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut detector = LineageBreak::default();
        let save =
            |index: usize| digests_of(0, DigestKind::CheckpointSaved, &format!("s{index}"), index as u64, &["a"]);
        let seen: Vec<Observation> = (0..CHECKPOINTS_MAX + 9).map(save).collect();
        judge_all(&mut detector, &mut bare_scene(), &seen);
        assert_eq!((detector.saved.len(), detector.saved_entries), (CHECKPOINTS_MAX, CHECKPOINTS_MAX));
        assert!(!detector.saved.contains_key("s8"));
    }
}
