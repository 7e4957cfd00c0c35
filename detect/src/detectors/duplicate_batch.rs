//! Detects a batch that is read twice.
//!
//! # What it finds
//! Two data-parallel indices that read the same batch in one step, and a batch that comes again inside one epoch:
//! `data.duplicate`, a warning.
//!
//! # Why it matters
//! Ranks that share their data do the same work twice: the effective batch shrinks, the gradient is noisier than it
//! looks, and nothing else in the telemetry shows it. Data read again trains the model to recite it. Both follow from
//! a sampler whose rank or seed was changed.
//!
//! # How it decides
//! By law, on the digests `batch`: equal inside one data-parallel index (see `batch_order`), different between
//! indices, and different between the steps of one `group` (an epoch). Without a told index every rank is its own.
//! One repeat convicts: under a plan batch numbers are a permutation. Ranks of the indices concerned are the suspects
//! while they are fewer than half of those that told; otherwise the whole run is meant. Repeats are compared per
//! name, inside one attempt: a resumed run replays its plan. Where no group is told, all steps are one epoch until
//! the row of batches that came first comes again as a whole, on all indices: then a new epoch has begun. A case ends
//! after [`CLEAR_ROWS`] good rows.
//!
//! # Parameters
//! [`CLEAR_ROWS`], [`BATCHES_MAX`]: how many batches are remembered, as 64-bit hashes.
//!
//! # Blind spots
//! A repeat of a batch older than the last [`BATCHES_MAX`]; samples repeated inside batches that differ otherwise;
//! epochs without a group that repeat from elsewhere than the beginning look like a duplicate; a batch told under two
//! names. Two of 2^18 batches share a hash by accident with a chance of 2e-9.
//!
//! # Source
//! A law of training: inside an epoch batch ids are a permutation, so any repeat is a proof.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use trainwarden_kernels::Backend;
use trainwarden_telemetry::{Attempt, DigestKind, DigestSet, Kind, Observation, Rank, Severity, Step, Verdict};

use super::batches::{Index, hash, index_of};
use super::breach::{Breach, Breaches, Break, SUSPECTS_MAX, note, short};
use crate::{Against, DetectError, Judge, Scene, Spec};

const SPEC: Spec = Spec {
    name: "duplicate_batch",
    against: Against::Law,
    watches: &["digests: batch"],
    kinds: &[Kind::DuplicateBatch],
};
const VERSION: u8 = 1;
/// Good rows that end a case: a sampler that repeats now and then is one case.
const CLEAR_ROWS: u32 = 20;
/// Batches remembered: about 20 MB; 256 steps of a thousand indices, or all of an epoch of most smaller runs.
const BATCHES_MAX: usize = 1 << 18;
/// Names of batches of one run, over all attempts, whose first row is remembered.
const FIRST_ROWS_MAX: usize = 64;

/// See the module's page.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct DuplicateBatch {
    seen: BTreeMap<u64, Seen>,
    /// Hashes in the order they came, to forget the oldest.
    order: VecDeque<u64>,
    /// First row of each name without a group, and which unnamed epoch it is.
    first_rows: BTreeMap<(Attempt, String), FirstRow>,
    breaches: Breaches<(Attempt, Pattern)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    step: Step,
    index: Index,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct FirstRow {
    step: Step,
    hash: u64,
    epoch: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Pattern {
    /// Several indices read one batch in one step.
    Shared,
    /// A batch of an earlier step.
    Again,
}

/// One data-parallel index's batch in a row, with the ranks that told it.
struct Batch<'a> {
    index: Index,
    digest: &'a str,
    group: Option<&'a str>,
    ranks: Vec<Rank>,
}

/// What was read twice: the index, and the index and step that had it before.
struct Twice<'a> {
    batch: &'a Batch<'a>,
    before: Seen,
}

fn batches<'a>(set: &'a DigestSet, scene: &Scene) -> Vec<Batch<'a>> {
    let mut batches: BTreeMap<(Index, Option<&str>, &str), Vec<Rank>> = BTreeMap::new();
    for entry in &set.entries {
        let index = index_of(entry.rank, set.attempt, scene);
        let ranks = batches.entry((index, entry.group.as_deref(), &entry.digest)).or_default();
        ranks.extend(entry.rank);
    }
    let batch = |((index, group, digest), ranks)| Batch { index, digest, group, ranks };
    batches.into_iter().map(batch).collect()
}

impl DuplicateBatch {
    fn judge_set(&mut self, set: &DigestSet, scene: &Scene) -> Vec<Verdict> {
        let batches = batches(set, scene);
        let shared = shared(set, &batches);
        let again = self.again(set, &batches);
        let mut verdicts = Vec::new();
        for (pattern, twice) in [(Pattern::Shared, shared), (Pattern::Again, again)] {
            verdicts.extend(self.judge_pattern(set, &batches, (pattern, &twice), scene));
        }
        verdicts
    }

    fn judge_pattern(
        &mut self,
        set: &DigestSet,
        batches: &[Batch<'_>],
        (pattern, twice): (Pattern, &[Twice<'_>]),
        scene: &Scene,
    ) -> Option<Verdict> {
        let key = (set.attempt, pattern);
        if twice.is_empty() {
            return if batches.is_empty() { None } else { self.breaches.holds(&key, &set.name, CLEAR_ROWS) };
        }
        let told: usize = batches.iter().map(|batch| batch.ranks.len()).sum();
        let ranks: Vec<Rank> = twice.iter().flat_map(|twice| twice.batch.ranks.clone()).collect();
        let found = Break {
            detector: SPEC.name,
            attempt: set.attempt,
            kind: Kind::DuplicateBatch,
            severity: Severity::Warning,
            name: set.name.clone(),
            label: set.label,
            ranks: if ranks.len() * 2 < told { ranks } else { Vec::new() },
            good_until: set.label.step.and_then(|step| step.0.checked_sub(1)).map(Step),
            evidence: twice.iter().take(SUSPECTS_MAX).map(|twice| twice.evidence(set)).collect(),
        };
        let (count, first) = (twice.len(), twice[0].before);
        self.breaches.broke(key, found, |breach| summary(breach, (pattern, count, first), scene))
    }

    /// Batches of earlier steps; remembers those of this one.
    fn again<'a>(&mut self, set: &DigestSet, batches: &'a [Batch<'a>]) -> Vec<Twice<'a>> {
        let Some(step) = set.label.step else { return Vec::new() };
        let epoch = self.unnamed_epoch(set, batches, step);
        let mut again = Vec::new();
        for batch in batches {
            let group = batch.group.map_or_else(|| format!("\u{1}{epoch}"), str::to_owned);
            let key = hash(&[&set.attempt.0.to_string(), &set.name, &group, batch.digest]);
            match self.seen.get(&key) {
                Some(before) if before.step != step => again.push(Twice { batch, before: *before }),
                Some(_) => {}
                None => self.remember(key, Seen { step, index: batch.index }),
            }
        }
        again
    }

    fn remember(&mut self, key: u64, seen: Seen) {
        self.seen.insert(key, seen);
        self.order.push_back(key);
        if self.order.len() > BATCHES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
    }

    /// Which epoch a row without groups belongs to: a new one begins when the very first row comes again as a whole.
    fn unnamed_epoch(&mut self, set: &DigestSet, batches: &[Batch<'_>], step: Step) -> u64 {
        let words: Vec<&str> = batches.iter().filter(|batch| batch.group.is_none()).map(|batch| batch.digest).collect();
        if words.is_empty() {
            return 0;
        }
        let hash = hash(&words);
        if self.first_rows.len() > FIRST_ROWS_MAX {
            self.first_rows.pop_first();
        }
        let key = (set.attempt, set.name.clone());
        let first = self.first_rows.entry(key).or_insert(FirstRow { step, hash, epoch: 0 });
        // Two equal rows in a row are a stuck loader and no epoch.
        if first.hash == hash && step.0 > first.step.0.saturating_add(1) {
            first.epoch += 1;
            first.step = step;
        }
        first.epoch
    }
}

/// Batches that several indices read in this row.
fn shared<'a>(set: &DigestSet, batches: &'a [Batch<'a>]) -> Vec<Twice<'a>> {
    let mut holders: BTreeMap<&str, Vec<&Batch<'_>>> = BTreeMap::new();
    for batch in batches {
        holders.entry(batch.digest).or_default().push(batch);
    }
    let step = set.label.step.unwrap_or(Step(0));
    let several = holders.into_values().filter(|holders| holders.iter().any(|one| one.index != holders[0].index));
    let mut shared: Vec<Twice<'_>> = several
        .flat_map(|holders| {
            let (first, second) = (holders[0].index, holders[holders.len() - 1].index);
            let other = move |index: Index| if index == first { second } else { first };
            holders.into_iter().map(move |batch| Twice { batch, before: Seen { step, index: other(batch.index) } })
        })
        .collect();
    shared.sort_by_key(|twice| twice.batch.index);
    shared
}

impl Twice<'_> {
    fn evidence(&self, set: &DigestSet) -> trainwarden_telemetry::Evidence {
        let digest = short(self.batch.digest);
        let said = match Some(self.before.step) == set.label.step || set.label.step.is_none() {
            true => format!("{} read {digest}, which {} read too", self.batch.index, self.before.index),
            false => {
                format!("{} read {digest}, which {} read at {}", self.batch.index, self.before.index, self.before.step)
            }
        };
        note(SPEC.name, &set.name, (set.label.step, self.batch.ranks.first().copied()), said)
    }
}

fn summary(breach: &Breach, (pattern, count, first): (Pattern, usize, Seen), scene: &Scene) -> String {
    let who = match breach.ranks().len() {
        0 => format!("{count} data-parallel indices"),
        _ => breach.who(scene),
    };
    let (verb, when) = (
        if breach.ranks().len() == 1 || (breach.ranks().is_empty() && count == 1) { "reads" } else { "read" },
        breach.when(),
    );
    let who = if count == 1 { who.replace("indices", "index") } else { who };
    match pattern {
        Pattern::Shared => format!("{who} {verb} the same batch{when}"),
        Pattern::Again => format!("{who} {verb} a batch of {} again{when}", first.step),
    }
}

impl Judge for DuplicateBatch {
    const SPEC: Spec = SPEC;
    const VERSION: u8 = VERSION;

    fn judge(
        &mut self,
        seen: &Observation,
        scene: &Scene,
        _backend: &mut dyn Backend,
    ) -> Result<Vec<Verdict>, DetectError> {
        match seen {
            Observation::Digests(set) if set.kind == DigestKind::Batch => Ok(self.judge_set(set, scene)),
            _ => Ok(Vec::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use trainwarden_telemetry::Phase;

    use super::*;
    use crate::detectors::breach::testing::{digests, digests_of, grid, in_group, named, phases};
    use crate::detectors::testing::{assert_restores, bare_scene, judge_all};

    fn judge(seen: &[Observation]) -> Vec<Verdict> {
        judge_all(&mut DuplicateBatch::default(), &mut bare_scene(), seen)
    }

    fn read(step: u64, words: &[&str]) -> Observation {
        digests(DigestKind::Batch, "input_ids", step, words)
    }

    /// Steps in which eight ranks read what nobody read before.
    fn fresh(steps: std::ops::Range<u64>) -> Vec<Observation> {
        let row = |step| {
            let words: Vec<String> = (0..8).map(|rank| format!("{step}-{rank}")).collect();
            read(step, &words.iter().map(String::as_str).collect::<Vec<_>>())
        };
        steps.map(row).collect()
    }

    #[test]
    fn two_ranks_that_read_one_batch_are_named_and_the_case_ends_after_good_rows() {
        let mut seen = fresh(0..5);
        seen.push(read(5, &["a", "b", "c", "d", "e", "c", "g", "h"]));
        seen.extend(fresh(6..30));
        let verdicts = judge(&seen);
        assert_eq!(phases(&verdicts), [Phase::Raised, Phase::Cleared]);
        assert_eq!(named(&verdicts[0]), [2, 5]);
        assert_eq!(verdicts[0].severity, Severity::Warning);
        assert_eq!(verdicts[0].summary, "2 ranks, first rank 2 read the same batch at step 5");
        assert_eq!(verdicts[0].evidence[0].note.as_deref(), Some("rank 2 read c, which rank 5 read too"));
        assert_restores(|| Box::new(DuplicateBatch::default()), &seen);
    }

    #[test]
    fn fresh_batches_one_rank_and_no_rank_say_nothing() {
        assert_eq!(judge(&fresh(0..50)), []);
        assert_eq!(judge(&[read(0, &["a"]), read(1, &["b"]), read(2, &[])]), []);
    }

    #[test]
    fn the_same_data_on_all_ranks_names_nobody() {
        let verdicts = judge(&[read(0, &["a", "a", "a", "a"]), read(1, &["b", "b", "b", "b"])]);
        assert_eq!(named(&verdicts[0]), [] as [u32; 0]);
        assert_eq!(verdicts[0].summary, "4 data-parallel indices read the same batch at step 0");
        assert_eq!(phases(&verdicts), [Phase::Raised, Phase::Updated]);
    }

    #[test]
    fn ranks_of_one_data_parallel_index_share_their_batch_by_law() {
        let places = grid(0, &[(0, 0), (0, 1), (1, 0), (1, 1)]);
        assert_eq!(judge(&[places.clone(), read(0, &["a", "a", "b", "b"])]), []);
        assert_eq!(judge(&[places, read(0, &["a", "a", "a", "a"])]).len(), 1);
    }

    #[test]
    fn a_batch_of_an_earlier_step_of_the_epoch_is_a_repeat() {
        let mut seen = fresh(0..10);
        seen.push(read(10, &["10-0", "10-1", "3-2", "10-3", "10-4", "10-5", "10-6", "10-7"]));
        let verdicts = judge(&seen);
        assert_eq!(named(&verdicts[0]), [2]);
        assert_eq!(verdicts[0].summary, "rank 2 reads a batch of step 3 again at step 10");
    }

    #[test]
    fn a_new_epoch_and_a_new_attempt_read_the_data_again() {
        let epoch = |first: u64, group: &str| {
            (0..4).map(|step| in_group(read(first + step, &[&format!("b{step}")]), group)).collect::<Vec<_>>()
        };
        assert_eq!(judge(&[epoch(0, "epoch-0"), epoch(4, "epoch-1")].concat()), []);
        assert_eq!(judge(&[epoch(0, "epoch-0"), epoch(4, "epoch-0")].concat()).len(), 3);
        let resumed = digests_of(1, DigestKind::Batch, "input_ids", 1, &["b1"]);
        assert_eq!(judge(&[read(1, &["b1"]), resumed]), []);
    }

    #[test]
    fn an_epoch_without_a_name_begins_anew_with_its_first_row() {
        let again: Vec<Observation> = (0..12).map(|step| read(step, &[&format!("b{}", step % 4)])).collect();
        assert_eq!(judge(&again), []);
        let stuck: Vec<Observation> = (0..3).map(|step| read(step, &["b0"])).collect();
        assert!(!judge(&stuck).is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut detector = DuplicateBatch::default();
        for key in 0..BATCHES_MAX as u64 + 5 {
            detector.remember(key, Seen { step: Step(key), index: Index::Whole });
        }
        assert_eq!((detector.seen.len(), detector.order.len()), (BATCHES_MAX, BATCHES_MAX));
        assert!(!detector.seen.contains_key(&4));
    }
}
