//! Detects data that does not follow its plan.
//!
//! # What it finds
//! `data.order`, a warning, for three laws: after a restart a step reads other batches than the same step read
//! before; ranks of one data-parallel index read different batches; a random generator comes back to a state it had
//! at an earlier step.
//!
//! # Why it matters
//! The order of data and the states of the generators are the plan of a training: whoever changes them steers what
//! the model sees last, or makes a run impossible to repeat, without touching a weight. Ranks of one index with
//! different data compute halves of layers for different inputs: the result is no gradient of anything.
//!
//! # How it decides
//! By law. *Plan*: a resumed run replays the steps after its checkpoint, so a step seen in an earlier attempt must
//! read the same batch on each data-parallel index. It is judged where the same indices told the step in both
//! attempts: a run resumed with another number of indices has another plan. Whether the other batch is a planned one
//! of another step is said. *Index*: digests `batch` are equal inside one index; more than half of its ranks are the
//! majority and the others the suspects. *State*: digests `rng` of one rank and name never repeat between the steps
//! of an attempt. A repeated state is filed here because the generators give the order. Suspects are named while they
//! are fewer than half of those that told. A case ends after [`CLEAR_ROWS`] good rows.
//!
//! # Parameters
//! [`CLEAR_ROWS`], [`BATCHES_MAX`], [`STATES_MAX`]: what is remembered.
//!
//! # Blind spots
//! An order changed in an attempt that no earlier one has planned: without a declared plan a digest does not prove
//! its place. Reshuffled epochs and attempts that skip batches on purpose: the former are not judged, the latter are
//! found and are a planned intervention to acknowledge. Steps whose indices did not all tell. Steps further back than
//! the memory. A generator that nobody draws from does not move and is found: its digest is not worth sending.
//!
//! # Source
//! A law of training: batch ids follow a plan of seed, step and rank.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use trainwarden_kernels::{Backend, Vote, vote};
use trainwarden_telemetry::{
    Attempt, DigestKind, DigestSet, Evidence, Kind, Observation, Rank, Severity, Step, Verdict,
};

use super::batches::{Index, hash, index_of};
use super::breach::{Breach, Breaches, Break, SUSPECTS_MAX, note, short};
use crate::{Against, DetectError, Judge, Scene, Spec};

const SPEC: Spec = Spec {
    name: "batch_order",
    against: Against::Law,
    watches: &["digests: batch", "digests: rng"],
    kinds: &[Kind::BatchOrder],
};
const VERSION: u8 = 1;
/// Good rows that end a case.
const CLEAR_ROWS: u32 = 20;
/// Batches of the plan remembered: about 20 MB; a restart replays the steps since the last checkpoint, so the newest
/// count.
const BATCHES_MAX: usize = 1 << 18;
/// Generator states remembered, oldest forgotten first: about 20 MB.
const STATES_MAX: usize = 1 << 18;

/// See the module's page.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct BatchOrder {
    plan: BTreeMap<(Step, String), Planned>,
    plan_batches: usize,
    states: BTreeMap<u64, Step>,
    states_order: VecDeque<u64>,
    breaches: Breaches<(Attempt, Law)>,
}

/// What the indices read at a step, in the latest attempt that told.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Planned {
    attempt: Attempt,
    batches: BTreeMap<Index, u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Law {
    Plan,
    Index,
    State,
}

/// What broke a law in one row.
struct Offence {
    ranks: Vec<Rank>,
    evidence: Vec<Evidence>,
    told: usize,
    words: String,
}

/// Ranks and digests of one row by data-parallel index.
type Readers<'a> = BTreeMap<Index, Vec<(Option<Rank>, &'a str)>>;

fn readers<'a>(set: &'a DigestSet, scene: &Scene) -> Readers<'a> {
    let mut readers = Readers::new();
    for entry in &set.entries {
        readers.entry(index_of(entry.rank, set.attempt, scene)).or_default().push((entry.rank, &entry.digest));
    }
    readers
}

impl BatchOrder {
    fn judge_batches(&mut self, set: &DigestSet, scene: &Scene) -> Vec<Verdict> {
        let readers = readers(set, scene);
        let index = index_offence(set, &readers);
        let mut verdicts = Vec::new();
        // A row with one rank an index cannot break the law of the index, nor hold it.
        if readers.values().any(|ranks| ranks.len() > 1) {
            verdicts.extend(self.settle(set, Law::Index, index, scene));
        }
        if let Some(offence) = self.plan_offence(set, &readers) {
            verdicts.extend(self.settle(set, Law::Plan, offence, scene));
        }
        verdicts
    }

    /// Compares a row with the plan and makes it the plan; `None` when nothing can be compared.
    fn plan_offence(&mut self, set: &DigestSet, readers: &Readers<'_>) -> Option<Option<Offence>> {
        let step = set.label.step?;
        let first = |ranks: &Vec<(Option<Rank>, &str)>| hash(&[ranks[0].1]);
        let batches: BTreeMap<Index, u64> = readers.iter().map(|(index, ranks)| (*index, first(ranks))).collect();
        let key = (step, set.name.clone());
        let planned = self.plan.get(&key);
        if planned.is_some_and(|planned| planned.attempt > set.attempt) {
            return None;
        }
        let is_comparable =
            |planned: &&Planned| planned.attempt < set.attempt && planned.batches.keys().eq(batches.keys());
        let offence = planned.filter(is_comparable).map(|planned| {
            let other: Vec<Index> = batches
                .iter()
                .filter(|(index, batch)| planned.batches[index] != **batch)
                .map(|(index, _)| *index)
                .collect();
            (!other.is_empty()).then(|| self.describe(set, readers, &other, planned.attempt))
        });
        self.remember_plan(key, Planned { attempt: set.attempt, batches });
        offence
    }

    fn describe(&self, set: &DigestSet, readers: &Readers<'_>, other: &[Index], planned: Attempt) -> Offence {
        let wrong = other.iter().filter_map(|index| Some((index, readers.get(index)?)));
        let evidence = wrong.clone().take(SUSPECTS_MAX).map(|(index, ranks)| {
            let (rank, digest) = ranks[0];
            let place = match self.place_of(&set.name, hash(&[digest])) {
                Some((step, owner)) => format!("the batch of {owner} at {step}"),
                None => "a batch unknown to the plan".to_owned(),
            };
            let said = format!("{index} read {}, {place} of attempt {}", short(digest), planned.0);
            note(SPEC.name, &set.name, (set.label.step, rank), said)
        });
        let ranks = wrong.clone().flat_map(|(_, ranks)| ranks.iter().filter_map(|(rank, _)| *rank)).collect();
        let words = format!("other batches than attempt {} read at the same steps", planned.0);
        Offence { ranks, evidence: evidence.collect(), told: set.entries.len(), words }
    }

    /// Where the plan holds a batch. A search of the whole plan, because it happens only for what was convicted.
    fn place_of(&self, name: &str, batch: u64) -> Option<(Step, Index)> {
        let of_name = self.plan.iter().filter(|((_, planned), _)| planned == name);
        let place = |((step, _), planned): (&(Step, String), &Planned)| {
            let owner = planned.batches.iter().find(|(_, known)| **known == batch)?;
            Some((*step, *owner.0))
        };
        of_name.into_iter().find_map(place)
    }

    fn remember_plan(&mut self, key: (Step, String), planned: Planned) {
        self.plan_batches += planned.batches.len();
        if let Some(replaced) = self.plan.insert(key, planned) {
            self.plan_batches -= replaced.batches.len();
        }
        // The lowest step is the one a restart comes back to last.
        while self.plan_batches > BATCHES_MAX {
            let Some((_, forgotten)) = self.plan.pop_first() else { break };
            self.plan_batches -= forgotten.batches.len();
        }
    }

    fn state_offence(&mut self, set: &DigestSet) -> Option<Option<Offence>> {
        let step = set.label.step?;
        let (mut ranks, mut evidence, mut count, mut earliest) = (Vec::new(), Vec::new(), 0, step);
        for entry in &set.entries {
            let who = entry.rank.map_or(String::new(), |rank| rank.0.to_string());
            let group = entry.group.as_deref().unwrap_or_default();
            let key = hash(&[&set.attempt.0.to_string(), &who, &set.name, group, &entry.digest]);
            match self.states.get(&key).copied() {
                Some(before) if before != step => {
                    count += 1;
                    earliest = earliest.min(before);
                    ranks.extend(entry.rank);
                    let said = format!("state {} was that of {before}", short(&entry.digest));
                    if evidence.len() < SUSPECTS_MAX {
                        evidence.push(note(SPEC.name, &set.name, (set.label.step, entry.rank), said));
                    }
                }
                Some(_) => {}
                None => self.remember_state(key, step),
            }
        }
        let words = format!("a random state of {earliest} again");
        Some((count > 0).then_some(Offence { ranks, evidence, told: set.entries.len(), words }))
    }

    fn remember_state(&mut self, key: u64, step: Step) {
        self.states.insert(key, step);
        self.states_order.push_back(key);
        if self.states_order.len() > STATES_MAX
            && let Some(oldest) = self.states_order.pop_front()
        {
            self.states.remove(&oldest);
        }
    }

    fn settle(&mut self, set: &DigestSet, law: Law, offence: Option<Offence>, scene: &Scene) -> Option<Verdict> {
        let key = (set.attempt, law);
        let Some(offence) = offence else {
            return if set.entries.is_empty() { None } else { self.breaches.holds(&key, &set.name, CLEAR_ROWS) };
        };
        let is_few = offence.ranks.len() * 2 < offence.told || offence.told == 1;
        let found = Break {
            detector: SPEC.name,
            attempt: set.attempt,
            kind: Kind::BatchOrder,
            severity: Severity::Warning,
            name: set.name.clone(),
            label: set.label,
            ranks: if is_few { offence.ranks } else { Vec::new() },
            good_until: set.label.step.and_then(|step| step.0.checked_sub(1)).map(Step),
            evidence: offence.evidence,
        };
        let (told, words) = (offence.told, offence.words);
        self.breaches.broke(key, found, |breach| summary(breach, law, (told, &words), scene))
    }
}

/// Ranks that read something else than the majority of their data-parallel index.
fn index_offence(set: &DigestSet, readers: &Readers<'_>) -> Option<Offence> {
    let (mut ranks, mut evidence, mut torn) = (Vec::new(), Vec::new(), None);
    for (index, members) in readers {
        let words: Vec<&str> = members.iter().map(|(_, digest)| *digest).collect();
        let minority = match vote(&words) {
            Vote::Unanimous => continue,
            Vote::Minority(minority) => minority,
            Vote::Split(_) => Vec::new(),
        };
        torn = torn.or(Some(*index));
        ranks.extend(minority.iter().filter_map(|member| members[*member].0));
        let shown = if minority.is_empty() { (0..members.len()).collect() } else { minority };
        let room = SUSPECTS_MAX - evidence.len();
        evidence.extend(shown.iter().take(room).map(|member| {
            let (rank, digest) = members[*member];
            let said = format!("read {}, one of several batches of {index}", short(digest));
            note(SPEC.name, &set.name, (set.label.step, rank), said)
        }));
    }
    let index = torn?;
    let words = format!("another batch than the ranks of the same index, first {index}");
    Some(Offence { ranks, evidence, told: set.entries.len(), words })
}

fn summary(breach: &Breach, law: Law, (told, words): (usize, &str), scene: &Scene) -> String {
    let (who, verb) = match (breach.ranks().len(), law) {
        (0, Law::Index) => ("ranks that cannot be named".to_owned(), "read"),
        (0, _) => ("the run".to_owned(), "reads"),
        (1, _) if told == 1 => ("the only rank".to_owned(), "reads"),
        (1, _) => (breach.who(scene), "reads"),
        _ => (breach.who(scene), "read"),
    };
    let verb = match (law, verb) {
        (Law::State, "reads") => "has",
        (Law::State, _) => "have",
        (_, verb) => verb,
    };
    format!("{who} {verb} {words}{}", breach.when())
}

impl Judge for BatchOrder {
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
            DigestKind::Batch => Ok(self.judge_batches(set, scene)),
            DigestKind::Rng => {
                let Some(offence) = self.state_offence(set) else { return Ok(Vec::new()) };
                Ok(self.settle(set, Law::State, offence, scene).into_iter().collect())
            }
            _ => Ok(Vec::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use trainwarden_telemetry::Phase;

    use super::*;
    use crate::detectors::breach::testing::{digests_of, grid, in_group, named, phases};
    use crate::detectors::testing::{assert_restores, bare_scene, judge_all};

    fn judge(seen: &[Observation]) -> Vec<Verdict> {
        judge_all(&mut BatchOrder::default(), &mut bare_scene(), seen)
    }

    fn read(attempt: u32, step: u64, words: &[&str]) -> Observation {
        digests_of(attempt, DigestKind::Batch, "input_ids", step, words)
    }

    fn state(step: u64, words: &[&str]) -> Observation {
        digests_of(0, DigestKind::Rng, "cuda", step, words)
    }

    /// The planned batches of four ranks.
    fn planned(attempt: u32, steps: std::ops::Range<u64>) -> Vec<Observation> {
        let row = |step| {
            let words: Vec<String> = (0..4).map(|rank| format!("{step}-{rank}")).collect();
            read(attempt, step, &words.iter().map(String::as_str).collect::<Vec<_>>())
        };
        steps.map(row).collect()
    }

    #[test]
    fn a_rank_that_leaves_the_plan_after_a_restart_is_named() {
        let mut seen = planned(0, 0..20);
        seen.push(read(1, 10, &["10-0", "10-1", "15-2", "10-3"]));
        seen.extend(planned(1, 11..40));
        let verdicts = judge(&seen);
        assert_eq!(phases(&verdicts), [Phase::Raised]);
        assert_eq!(named(&verdicts[0]), [2]);
        let expected = "rank 2 reads other batches than attempt 0 read at the same steps at step 10";
        assert_eq!(verdicts[0].summary, expected);
        let said = verdicts[0].evidence[0].note.as_deref();
        assert_eq!(said, Some("rank 2 read 15-2, the batch of rank 2 at step 15 of attempt 0"));
        assert_restores(|| Box::new(BatchOrder::default()), &seen);
    }

    #[test]
    fn a_restart_that_replays_its_plan_says_nothing() {
        assert_eq!(judge(&[planned(0, 0..20), planned(1, 10..40), planned(2, 35..50)].concat()), []);
    }

    #[test]
    fn attempts_may_interleave() {
        let mut seen = planned(0, 0..10);
        seen.extend(planned(1, 5..8));
        seen.extend(planned(0, 10..12));
        seen.extend(planned(1, 8..14));
        assert_eq!(judge(&seen), []);
    }

    #[test]
    fn a_step_told_twice_in_one_attempt_is_no_plan_for_itself() {
        assert_eq!(judge(&[read(0, 1, &["a", "b"]), read(0, 1, &["c", "d"])]), []);
    }

    #[test]
    fn a_new_order_on_all_ranks_names_nobody() {
        let verdicts = judge(&[planned(0, 0..3), vec![read(1, 1, &["x", "y", "z", "w"])]].concat());
        assert_eq!(named(&verdicts[0]), [] as [u32; 0]);
        assert!(verdicts[0].summary.starts_with("the run reads other batches"));
    }

    #[test]
    fn reshuffled_epochs_and_another_number_of_ranks_are_not_judged() {
        let first = (0..3).map(|step| in_group(read(0, step, &[&format!("b{step}")]), "0"));
        let second = (0..3).map(|step| in_group(read(0, 3 + step, &[&format!("b{}", 2 - step)]), "1"));
        assert_eq!(judge(&first.chain(second).collect::<Vec<_>>()), []);
        assert_eq!(judge(&[read(0, 1, &["a", "b"]), read(1, 1, &["c"]), read(1, 2, &[])]), []);
    }

    #[test]
    fn the_rank_that_reads_another_batch_than_its_index_is_named() {
        let places = grid(0, &[(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]);
        assert_eq!(judge(&[places.clone(), read(0, 0, &["a", "a", "a", "b", "b", "b"])]), []);
        let verdicts = judge(&[places, read(0, 0, &["a", "a", "a", "b", "x", "b"])]);
        assert_eq!(named(&verdicts[0]), [4]);
        let expected = "rank 4 (n02) reads another batch than the ranks of the same index, first dp 1 at step 0";
        assert_eq!(verdicts[0].summary, expected);
    }

    #[test]
    fn a_random_state_that_comes_back_is_found_and_one_shared_by_ranks_is_not() {
        let seen = [state(0, &["a", "a", "a"]), state(1, &["b", "b", "b"]), state(2, &["c", "a", "c"])];
        let verdicts = judge(&seen);
        assert_eq!(verdicts.len(), 1);
        assert_eq!(named(&verdicts[0]), [1]);
        assert_eq!(verdicts[0].summary, "rank 1 has a random state of step 0 again at step 2");
        assert_restores(|| Box::new(BatchOrder::default()), &seen);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut detector = BatchOrder::default();
        for step in 0..BATCHES_MAX as u64 + 3 {
            let batches = BTreeMap::from([(Index::Whole, step)]);
            detector.remember_plan((Step(step), "b".to_owned()), Planned { attempt: Attempt(0), batches });
            detector.remember_state(step, Step(step));
        }
        assert_eq!((detector.plan.len(), detector.plan_batches), (BATCHES_MAX, BATCHES_MAX));
        assert_eq!((detector.states.len(), detector.states_order.len()), (STATES_MAX, STATES_MAX));
    }
}
