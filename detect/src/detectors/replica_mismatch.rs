//! Detects replicas that are not equal.
//!
//! # What it finds
//! Weights, optimizer state or reduced gradients that must be the same on several ranks and are not:
//! `weights.replica_mismatch`, always critical.
//!
//! # Why it matters
//! A replica that differs trains another model. The all-reduce mixes its gradients into everyone's, and the
//! checkpoint holds whichever replica happens to be saved. It is the trace of a flipped bit, of a defective device,
//! and of weights edited on one rank.
//!
//! # How it decides
//! By law, bit for bit, on the digests `weight`, `optimizer` and `gradient`. Digests are compared inside their
//! `group`; without a group, over ranks of one role (pp, ep, cp, tp) where roles are told, else over all ranks. One
//! unequal set convicts. More than half of the ranks are the majority and the others the suspects, with equal shares;
//! without a majority nobody can be named. All steps and buckets of one kind of digest in one replica set are one
//! case; it is updated when another rank joins and at powers of two of steps and buckets, and ends when each bucket
//! it was broken in agrees again. The onset lies after the last step at which the first bucket agreed, and not before
//! step 0 if it never did.
//!
//! # Parameters
//! [`NAMES_MAX`] bounds the memory of steps at which buckets agreed.
//!
//! # Blind spots
//! Shards without a replica; tampering on all ranks alike (see `moved_weights` and `lineage_break`); trainings whose
//! replicas are not deterministic must not send these digests; a rank that sends false digests; two ranks that
//! disagree (no majority).
//!
//! # Source
//! A law of training: replicas hold equal bits; vote over fingerprints as in redundant computing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use trainwarden_kernels::{Backend, Vote, vote};
use trainwarden_telemetry::{
    Attempt, DigestKind, DigestSet, Evidence, Kind, Observation, Rank, Role, Severity, Step, Verdict, Working,
};

use super::breach::{Breach, Breaches, Break, SUSPECTS_MAX, note, short};
use crate::{Against, DetectError, Judge, Scene, Spec};

const SPEC: Spec = Spec {
    name: "replica_mismatch",
    against: Against::Law,
    watches: &["digests: weight", "digests: optimizer", "digests: gradient"],
    kinds: &[Kind::ReplicaMismatch],
};
const VERSION: u8 = 1;
/// Buckets whose last good step is remembered, over all attempts: a few thousand buckets of three kinds, and to
/// spare.
const NAMES_MAX: usize = 1 << 15;

/// See the module's page.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ReplicaMismatch {
    breaches: Breaches<(Attempt, DigestKind, ReplicaSet)>,
    agreed: BTreeMap<(Attempt, DigestKind, String), Step>,
}

/// Ranks whose digests must be equal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum ReplicaSet {
    All,
    Role(Role),
    Group(String),
}

type Members<'a> = Vec<(Rank, &'a str)>;

fn replica_sets<'a>(set: &'a DigestSet, scene: &Scene) -> BTreeMap<ReplicaSet, Members<'a>> {
    let roster = scene.roster(set.attempt).filter(|roster| roster.is_told());
    let mut sets: BTreeMap<ReplicaSet, Members<'a>> = BTreeMap::new();
    for entry in &set.entries {
        let Some(rank) = entry.rank else { continue };
        let replica_set = match (&entry.group, roster) {
            (Some(group), _) => ReplicaSet::Group(group.clone()),
            (None, None) => ReplicaSet::All,
            (None, Some(roster)) => match roster.placements.get(&rank) {
                Some(placement) => ReplicaSet::Role(placement.role),
                // A rank that a given roster does not list has no peers.
                None => continue,
            },
        };
        sets.entry(replica_set).or_default().push((rank, &entry.digest));
    }
    sets
}

/// What each suspect holds against the majority, or without one, how many hold what.
fn evidence(set: &DigestSet, members: &Members<'_>, minority: &[usize]) -> Vec<Evidence> {
    let total = members.len();
    let majority = (0..total).find(|index| !minority.contains(index)).map_or("", |index| members[index].1);
    let against = |index: &usize| {
        let (rank, digest) = members[*index];
        let agreeing = total - minority.len();
        let said = format!("{}, while {agreeing} of {total} ranks have {}", short(digest), short(majority));
        let working = Working::new(&["replicas hold equal bits; the digest of more than half of them is right"])
            .with("kind", set.kind.as_str())
            .with("digest", digest)
            .with("majority_digest", majority)
            .with("ranks_with_majority_digest", agreeing)
            .with("ranks_compared", total);
        Evidence { working, ..note(SPEC.name, &set.name, (set.label.step, Some(rank)), said) }
    };
    if !minority.is_empty() {
        return minority.iter().take(SUSPECTS_MAX).map(against).collect();
    }
    let mut holders: BTreeMap<&str, usize> = BTreeMap::new();
    members.iter().for_each(|(_, digest)| *holders.entry(digest).or_default() += 1);
    let words = holders.into_iter().take(SUSPECTS_MAX).map(|(digest, count)| {
        let said = format!("{count} of {total} ranks have {}", short(digest));
        let working = Working::new(&["replicas hold equal bits; no digest is that of more than half of them"])
            .with("kind", set.kind.as_str())
            .with("digest", digest)
            .with("ranks_with_digest", count)
            .with("ranks_compared", total);
        Evidence { working, ..note(SPEC.name, &set.name, (set.label.step, None), said) }
    });
    words.collect()
}

fn summary(set: &DigestSet, total: usize, breach: &Breach, scene: &Scene) -> String {
    let (kind, names, when) = (set.kind.as_str(), breach.names("buckets"), breach.when());
    match breach.ranks().len() {
        0 => format!("{total} replicas of {kind} {names} differ{when}, without a majority that could name a rank"),
        1 => format!("{kind} {names} of {} differs from its {} replicas{when}", breach.who(scene), total - 1),
        _ => format!("{kind} {names} of {} differ from the majority of {total} replicas{when}", breach.who(scene)),
    }
}

impl ReplicaMismatch {
    fn judge_set(&mut self, set: &DigestSet, scene: &Scene) -> Vec<Verdict> {
        let named = (set.attempt, set.kind, set.name.clone());
        let good_until = self.agreed.get(&named).copied();
        let sets = replica_sets(set, scene);
        let mut verdicts = Vec::new();
        let mut all_agree = true;
        for (replica_set, members) in sets {
            let words: Vec<&str> = members.iter().map(|(_, digest)| *digest).collect();
            let key = (set.attempt, set.kind, replica_set);
            let minority = match vote(&words) {
                // One voter agrees with itself, which proves nothing about a case of several.
                Vote::Unanimous if words.len() < 2 => continue,
                Vote::Unanimous => {
                    verdicts.extend(self.breaches.holds(&key, &set.name, 1));
                    continue;
                }
                Vote::Minority(minority) => minority,
                Vote::Split(_) => Vec::new(),
            };
            all_agree = false;
            let found = Break {
                detector: SPEC.name,
                attempt: set.attempt,
                kind: Kind::ReplicaMismatch,
                severity: Severity::Critical,
                name: set.name.clone(),
                label: set.label,
                ranks: minority.iter().map(|index| members[*index].0).collect(),
                good_until,
                evidence: evidence(set, &members, &minority),
            };
            let total = members.len();
            verdicts.extend(self.breaches.broke(key, found, |breach| summary(set, total, breach, scene)));
        }
        if let (true, Some(step)) = (all_agree, set.label.step) {
            self.remember(named, step);
        }
        verdicts
    }

    fn remember(&mut self, named: (Attempt, DigestKind, String), step: Step) {
        self.agreed.insert(named, step);
        if self.agreed.len() > NAMES_MAX {
            self.agreed.pop_first();
        }
    }
}

impl Judge for ReplicaMismatch {
    const SPEC: Spec = SPEC;
    const VERSION: u8 = VERSION;

    fn judge(
        &mut self,
        seen: &Observation,
        scene: &Scene,
        _backend: &mut dyn Backend,
    ) -> Result<Vec<Verdict>, DetectError> {
        match seen {
            Observation::Digests(set)
                if matches!(set.kind, DigestKind::Weight | DigestKind::Optimizer | DigestKind::Gradient) =>
            {
                Ok(self.judge_set(set, scene))
            }
            _ => Ok(Vec::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use trainwarden_telemetry::{Onset, Phase};

    use super::*;
    use crate::detectors::breach::testing::{digests, grid, in_group, named, phases};
    use crate::detectors::testing::{assert_restores, bare_scene, judge_all};

    fn judge(seen: &[Observation]) -> Vec<Verdict> {
        judge_all(&mut ReplicaMismatch::default(), &mut bare_scene(), seen)
    }

    fn weights(step: u64, words: &[&str]) -> Observation {
        digests(DigestKind::Weight, "layer.0", step, words)
    }

    #[test]
    fn the_rank_whose_weights_differ_is_named_and_the_case_ends_when_they_agree() {
        let seen = [
            weights(4, &["aa", "aa", "aa", "aa"]),
            weights(5, &["ab", "ab", "0123456789abcdef", "ab"]),
            weights(6, &["ac", "ac", "ac", "ac"]),
        ];
        let verdicts = judge(&seen);
        assert_eq!(phases(&verdicts), [Phase::Raised, Phase::Cleared]);
        assert_eq!(named(&verdicts[0]), [2]);
        assert_eq!(verdicts[0].severity, Severity::Critical);
        assert_eq!(verdicts[0].onset, Some(Onset { step: Step(5), low: Step(5), high: Step(5) }));
        assert_eq!(verdicts[0].summary, "weight `layer.0` of rank 2 differs from its 3 replicas at step 5");
        assert_eq!(verdicts[0].evidence[0].note.as_deref(), Some("0123456789ab, while 3 of 4 ranks have ab"));
        assert_restores(|| Box::new(ReplicaMismatch::default()), &seen);
    }

    #[test]
    fn equal_replicas_one_rank_and_no_rank_say_nothing() {
        let seen = [weights(0, &["aa", "aa"]), weights(1, &["bb"]), weights(2, &[]), weights(3, &["cc", ""])];
        assert_eq!(judge(&seen), []);
    }

    #[test]
    fn two_ranks_that_differ_name_nobody() {
        let verdicts = judge(&[weights(7, &["aa", "bb"])]);
        assert_eq!(named(&verdicts[0]), [] as [u32; 0]);
        let expected = "2 replicas of weight `layer.0` differ at step 7, without a majority that could name a rank";
        assert_eq!(verdicts[0].summary, expected);
        assert_eq!(verdicts[0].evidence.len(), 2);
    }

    #[test]
    fn many_buckets_and_steps_of_one_rank_are_one_case_with_few_updates() {
        let mut seen = Vec::new();
        for step in 0..64 {
            for bucket in 0..32 {
                seen.push(digests(DigestKind::Gradient, &format!("b{bucket}"), step, &["a", "a", "x"]));
            }
        }
        let verdicts = judge(&seen);
        assert!(verdicts.len() <= 12, "{} verdicts", verdicts.len());
        assert!(verdicts.iter().all(|verdict| verdict.case == 0 && named(verdict) == [2]));
        let last = &verdicts[verdicts.len() - 1].summary;
        assert_eq!(
            last,
            "gradient 32 buckets, first `b0` of rank 2 differs from its 2 replicas since step 0 (64 times)"
        );
    }

    #[test]
    fn stages_and_groups_are_compared_inside_themselves() {
        let stages = grid(0, &[(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1)]);
        assert_eq!(judge(&[stages.clone(), weights(0, &["a", "a", "a", "b", "b", "b"])]), []);
        let verdicts = judge(&[stages, weights(0, &["a", "a", "a", "b", "x", "b"])]);
        assert_eq!(named(&verdicts[0]), [4]);
        assert!(verdicts[0].summary.contains("rank 4 (n02)"));
        let shard = in_group(weights(0, &["a", "a", "x"]), "shard-0");
        assert_eq!(named(&judge(&[shard])[0]), [2]);
    }

    proptest! {
        #[test]
        fn renaming_ranks_renames_the_suspects_and_changes_nothing_else(
            words in proptest::collection::vec(0_u8..3, 1..9),
            shift in 1_u32..5,
        ) {
            let words: Vec<String> = words.iter().map(|word| format!("d{word}")).collect();
            let seen = weights(3, &words.iter().map(String::as_str).collect::<Vec<_>>());
            let Observation::Digests(mut renamed) = seen.clone() else { unreachable!("digests were just made") };
            // Five and the modulus share no factor, so that no two ranks get one name.
            let modulus = words.len() as u32 * 5 + 1;
            let rename = |rank: u32| (rank * 5 + shift) % modulus + 100;
            renamed.entries.iter_mut().for_each(|entry| entry.rank = entry.rank.map(|rank| Rank(rename(rank.0))));
            renamed.entries.sort();
            let (before, after) = (judge(&[seen]), judge(&[Observation::Digests(renamed)]));
            prop_assert_eq!(before.len(), after.len());
            for (one, other) in before.iter().zip(&after) {
                let mut expected: Vec<u32> = named(one).into_iter().map(rename).collect();
                expected.sort_unstable();
                prop_assert_eq!(expected, named(other));
                prop_assert_eq!(&one.onset, &other.onset);
                prop_assert_eq!(one.evidence.len(), other.evidence.len());
                let shares = |verdict: &Verdict| verdict.suspects.iter().map(|suspect| suspect.share).collect::<Vec<_>>();
                prop_assert_eq!(shares(one), shares(other));
            }
        }
    }
}
