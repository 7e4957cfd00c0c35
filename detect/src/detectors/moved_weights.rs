//! Detects weights that moved with no optimizer step between.
//!
//! # What it finds
//! A rank that begins a step with other weights than it ended the step before with: `weights.unexplained_update`,
//! always critical.
//!
//! # Why it matters
//! Nobody but the optimizer moves weights. Between two steps lies the moment in which a process attached to the
//! trainer, a broadcast from a wrong rank or a hot patch replaces them. Replicas that are all moved alike still agree
//! with each other, so that a comparison over ranks sees nothing: this one compares each rank with itself.
//!
//! # How it decides
//! By law, bit for bit: `weight_before` of step s equals `weight` of step s - 1, for the same rank, name and group.
//! Nothing is compared over a gap (sampled digests are judged only where both neighbours were told) or over attempts
//! (that is `lineage_break`). When all judged ranks of two or more moved, nobody is named: the whole run was moved.
//! The two digests may come in either order; what waits for its other half is kept for [`PENDING_STEPS`] steps. All
//! names of one attempt are one case; it ends when each name it was broken in holds again.
//!
//! # Parameters
//! [`PENDING_STEPS`], [`PENDING_ENTRIES_MAX`].
//!
//! # Blind spots
//! Weights moved inside the optimizer step, or between attempts; steps without both digests; a trainer in whose
//! process the intruder also computes the digest. Averaging of weights outside the optimizer (an exponential average
//! swapped in for an evaluation and not swapped back) is rightly found.
//!
//! # Source
//! A law of training: a weight moves only by an optimizer step.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use trainwarden_kernels::Backend;
use trainwarden_telemetry::{
    Attempt, DigestEntry, DigestKind, DigestSet, Evidence, Kind, Label, Observation, Rank, Severity, Step, Verdict,
    Working,
};

use super::breach::{Breach, Breaches, Break, SUSPECTS_MAX, note, short};
use crate::{Against, DetectError, Judge, Scene, Spec};

const SPEC: Spec = Spec {
    name: "moved_weights",
    against: Against::Law,
    watches: &["digests: weight", "digests: weight_before"],
    kinds: &[Kind::UnexplainedUpdate],
};
const VERSION: u8 = 1;
/// Steps a digest waits for its other half: rows of one step close within a deadline of about three steps.
const PENDING_STEPS: u64 = 8;
/// Digests waiting at most; beyond it the oldest step is dropped unjudged. About 50 MB, for a thousand ranks with a
/// hundred buckets each over several steps.
const PENDING_ENTRIES_MAX: usize = 1 << 19;

/// See the module's page.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct MovedWeights {
    pending: BTreeMap<PendingKey, Pending>,
    pending_entries: usize,
    breaches: Breaches<(Attempt, Extent)>,
}

/// The step boundary (named after the step that begins), the name, and which side of the boundary was told.
type PendingKey = (Attempt, Step, String, Side);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Side {
    Ended,
    Begun,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Extent {
    SomeRanks,
    WholeRun,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Pending {
    label: Label,
    entries: Vec<DigestEntry>,
}

/// One rank's weights on the two sides of a step boundary.
struct Pair<'a> {
    rank: Option<Rank>,
    ended: &'a str,
    begun: &'a str,
}

fn pairs<'a>(ended: &'a [DigestEntry], begun: &'a [DigestEntry]) -> Vec<Pair<'a>> {
    let known: BTreeMap<_, &str> = ended.iter().map(|entry| ((entry.rank, &entry.group), &*entry.digest)).collect();
    let pair = |entry: &'a DigestEntry| {
        let ended = *known.get(&(entry.rank, &entry.group))?;
        Some(Pair { rank: entry.rank, ended, begun: &entry.digest })
    };
    begun.iter().filter_map(pair).collect()
}

impl MovedWeights {
    fn judge_set(&mut self, set: &DigestSet, scene: &Scene) -> Vec<Verdict> {
        let (boundary, side) = match (set.label.step, set.kind) {
            (Some(step), DigestKind::Weight) => (Step(step.0.saturating_add(1)), Side::Ended),
            (Some(step), DigestKind::WeightBefore) => (step, Side::Begun),
            _ => return Vec::new(),
        };
        let other_side = if side == Side::Ended { Side::Begun } else { Side::Ended };
        let told = Pending { label: set.label, entries: set.entries.clone() };
        let Some(other) = self.take(&(set.attempt, boundary, set.name.clone(), other_side)) else {
            self.keep((set.attempt, boundary, set.name.clone(), side), told);
            return Vec::new();
        };
        let (ended, begun) = if side == Side::Ended { (told, other) } else { (other, told) };
        self.judge_boundary(set, &ended.entries, &begun, scene)
    }

    fn judge_boundary(
        &mut self,
        set: &DigestSet,
        ended: &[DigestEntry],
        begun: &Pending,
        scene: &Scene,
    ) -> Vec<Verdict> {
        let (attempt, name) = (set.attempt, &set.name);
        let pairs = pairs(ended, &begun.entries);
        if pairs.is_empty() {
            return Vec::new();
        }
        let moved: Vec<&Pair<'_>> = pairs.iter().filter(|pair| pair.ended != pair.begun).collect();
        if moved.is_empty() {
            let extents = [Extent::SomeRanks, Extent::WholeRun];
            return extents.iter().filter_map(|extent| self.breaches.holds(&(attempt, *extent), name, 1)).collect();
        }
        // A single judged rank is named; of several, all moved alike means the run itself.
        let is_whole = moved.len() == pairs.len() && pairs.len() > 1 || moved.iter().all(|pair| pair.rank.is_none());
        let extent = if is_whole { Extent::WholeRun } else { Extent::SomeRanks };
        let ranks = if is_whole { Vec::new() } else { moved.iter().filter_map(|pair| pair.rank).collect() };
        let found = Break {
            detector: SPEC.name,
            attempt,
            kind: Kind::UnexplainedUpdate,
            severity: Severity::Critical,
            name: name.clone(),
            label: begun.label,
            ranks,
            // The step before ended with the weights it should have: the boundary is exact.
            good_until: begun.label.step.and_then(|step| step.0.checked_sub(1)).map(Step),
            evidence: evidence(name, begun.label.step, &moved),
        };
        let total = pairs.len();
        self.breaches.broke((attempt, extent), found, |breach| summary(total, breach, scene)).into_iter().collect()
    }

    fn take(&mut self, key: &PendingKey) -> Option<Pending> {
        let pending = self.pending.remove(key)?;
        self.pending_entries -= pending.entries.len();
        Some(pending)
    }

    /// Keeps one side of a boundary, and drops what has waited too long.
    fn keep(&mut self, key: PendingKey, told: Pending) {
        let (attempt, boundary) = (key.0, key.1);
        self.pending_entries += told.entries.len();
        if let Some(replaced) = self.pending.insert(key, told) {
            self.pending_entries -= replaced.entries.len();
        }
        let first_kept = (attempt, Step(boundary.0.saturating_sub(PENDING_STEPS)), String::new(), Side::Ended);
        let of_attempt = (attempt, Step(0), String::new(), Side::Ended);
        while let Some(key) =
            self.pending.range(of_attempt.clone()..first_kept.clone()).next().map(|(key, _)| key.clone())
        {
            self.take(&key);
        }
        while self.pending_entries > PENDING_ENTRIES_MAX {
            let Some((_, dropped)) = self.pending.pop_first() else { break };
            self.pending_entries -= dropped.entries.len();
        }
    }
}

fn evidence(name: &str, step: Option<Step>, moved: &[&Pair<'_>]) -> Vec<Evidence> {
    let words = moved.iter().take(SUSPECTS_MAX).map(|pair| {
        let said = format!("began with {}, ended the step before with {}", short(pair.begun), short(pair.ended));
        let working =
            Working::new(&["weights move by the optimizer alone: those of a step begin as the step before ended"])
                .with("digest_ended", pair.ended)
                .with("digest_begun", pair.begun)
                .with("ranks_moved", moved.len());
        Evidence { working, ..note(SPEC.name, name, (step, pair.rank), said) }
    });
    words.collect()
}

fn summary(total: usize, breach: &Breach, scene: &Scene) -> String {
    let who = match breach.ranks().len() {
        0 if total == 1 => String::new(),
        0 => format!(" on all {total} ranks"),
        _ => format!(" on {}", breach.who(scene)),
    };
    format!("weights of {} moved with no optimizer step{who}{}", breach.names("buckets"), breach.when())
}

impl Judge for MovedWeights {
    const SPEC: Spec = SPEC;
    const VERSION: u8 = VERSION;

    fn judge(
        &mut self,
        seen: &Observation,
        scene: &Scene,
        _backend: &mut dyn Backend,
    ) -> Result<Vec<Verdict>, DetectError> {
        match seen {
            Observation::Digests(set) => Ok(self.judge_set(set, scene)),
            _ => Ok(Vec::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use trainwarden_telemetry::{Onset, Phase};

    use super::*;
    use crate::detectors::breach::testing::{digests, digests_of, named, phases};
    use crate::detectors::testing::{assert_restores, bare_scene, judge_all};

    fn judge(seen: &[Observation]) -> Vec<Verdict> {
        judge_all(&mut MovedWeights::default(), &mut bare_scene(), seen)
    }

    fn after(step: u64, words: &[&str]) -> Observation {
        digests(DigestKind::Weight, "layer.0", step, words)
    }

    fn before(step: u64, words: &[&str]) -> Observation {
        digests(DigestKind::WeightBefore, "layer.0", step, words)
    }

    #[test]
    fn the_rank_whose_weights_moved_between_steps_is_named() {
        let seen = [
            before(0, &["w0", "w0"]),
            after(0, &["w1", "w1"]),
            before(1, &["w1", "w1"]),
            after(1, &["w2", "w2"]),
            before(2, &["w2", "xx"]),
            after(2, &["w3", "w3"]),
            before(3, &["w3", "w3"]),
        ];
        let verdicts = judge(&seen);
        assert_eq!(phases(&verdicts), [Phase::Raised, Phase::Cleared]);
        assert_eq!(named(&verdicts[0]), [1]);
        assert_eq!(verdicts[0].onset, Some(Onset { step: Step(2), low: Step(2), high: Step(2) }));
        assert_eq!(verdicts[0].summary, "weights of `layer.0` moved with no optimizer step on rank 1 at step 2");
        assert_restores(|| Box::new(MovedWeights::default()), &seen);
    }

    #[test]
    fn weights_that_only_the_optimizer_moves_say_nothing() {
        let words: Vec<String> = (0..40).map(|step| format!("w{step}")).collect();
        let mut seen = Vec::new();
        for step in 0..39 {
            seen.push(before(step, &[&words[step as usize]]));
            seen.push(after(step, &[&words[step as usize + 1]]));
        }
        assert_eq!(judge(&seen), []);
    }

    #[test]
    fn all_ranks_moved_alike_are_the_whole_run() {
        let verdicts = judge(&[after(4, &["a", "a", "a"]), before(5, &["x", "x", "x"])]);
        assert_eq!(named(&verdicts[0]), [] as [u32; 0]);
        assert_eq!(verdicts[0].summary, "weights of `layer.0` moved with no optimizer step on all 3 ranks at step 5");
        assert_eq!(named(&judge(&[after(4, &["a"]), before(5, &["x"])])[0]), [0]);
    }

    #[test]
    fn the_two_sides_may_come_in_either_order() {
        let verdicts = judge(&[before(5, &["x", "a"]), after(4, &["a", "a"])]);
        assert_eq!(named(&verdicts[0]), [0]);
        assert_eq!(verdicts[0].first.step, Some(Step(5)));
    }

    #[test]
    fn nothing_is_judged_over_a_gap_another_attempt_or_an_absent_rank() {
        assert_eq!(judge(&[after(4, &["a"]), before(6, &["x"])]), []);
        assert_eq!(judge(&[after(4, &["a"]), digests_of(1, DigestKind::WeightBefore, "layer.0", 5, &["x"])]), []);
        assert_eq!(judge(&[after(4, &["a", ""]), before(5, &["", "x"])]), []);
        assert_eq!(judge(&[after(4, &[]), before(5, &[])]), []);
    }

    #[test]
    fn what_waits_for_its_other_half_is_bounded() {
        let mut detector = MovedWeights::default();
        let seen: Vec<Observation> = (0..1000).map(|step| after(step, &["a", "b"])).collect();
        judge_all(&mut detector, &mut bare_scene(), &seen);
        assert!(detector.pending.len() <= PENDING_STEPS as usize + 1);
        assert_eq!(detector.pending_entries, detector.pending.len() * 2);
    }
}
