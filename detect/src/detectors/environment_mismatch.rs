//! Detects ranks that do not run the same code, configuration or environment.
//!
//! # What it finds
//! A rank whose digest of code, configuration or environment differs from the other ranks': `environment.mismatch`;
//! critical for code and configuration, a warning for the environment.
//!
//! # Why it matters
//! One worker that runs other code can scale its gradient, skip its clipping or read other data, and every collective
//! still fits. What such a rank contributed to the weights cannot be trusted. A differing environment (a library, a
//! driver) is more often neglect, and changes numbers all the same.
//!
//! # How it decides
//! By law, on the digests `code`, `config` and `env`, name by name: equal over all ranks of an attempt. Each rank's
//! last word counts, so that ranks may tell at different times. More than half of the ranks that told are the
//! majority and the others the suspects; without a majority nobody can be named. All names of one kind of digest are
//! one case; it ends when all agree.
//!
//! # Parameters
//! [`SUBJECTS_MAX`], [`DIGESTS_MAX`], [`RANKS_MAX`]: what is remembered.
//!
//! # Blind spots
//! The same wrong code on all ranks (see `environment_change`); what a collector does not fingerprint; ranks whose
//! configuration holds their own name or rank must leave it out of the digest.
//!
//! # Source
//! A law of training: digests of code, configuration and environment agree over ranks.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use trainwarden_kernels::Backend;
use trainwarden_telemetry::{
    Attempt, DigestKind, DigestSet, Evidence, Kind, Observation, Rank, Severity, Step, Verdict,
};

use super::breach::{Breach, Breaches, Break, SUSPECTS_MAX, note, short};
use crate::{Against, DetectError, Judge, Scene, Spec};

const SPEC: Spec = Spec {
    name: "environment_mismatch",
    against: Against::Law,
    watches: &["digests: code", "digests: config", "digests: env"],
    kinds: &[Kind::EnvironmentMismatch],
};
const VERSION: u8 = 1;
/// Names remembered over all attempts: every file of a large code base would be too many, its packages are not.
const SUBJECTS_MAX: usize = 4096;
/// Different digests remembered of one name; more than that is noise, and the rest counts as one more.
const DIGESTS_MAX: usize = 64;

/// Stands for all digests beyond the last remembered one; no hexadecimal digest reads so, and it is never the
/// majority.
const OTHERS: &str = "others";
/// Ranks remembered over all names: about 30 MB.
const RANKS_MAX: usize = 1 << 22;

/// True for a digest of code, configuration or environment.
pub(crate) fn is_of_environment(kind: DigestKind) -> bool {
    matches!(kind, DigestKind::Code | DigestKind::Config | DigestKind::Env)
}

/// How much a difference matters: other code or configuration means weights that cannot be trusted.
pub(crate) fn severity_of(kind: DigestKind) -> Severity {
    if kind == DigestKind::Env { Severity::Warning } else { Severity::Critical }
}

/// See the module's page.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct EnvironmentMismatch {
    told: BTreeMap<(Attempt, DigestKind, String), Holders>,
    told_ranks: usize,
    agreed: BTreeMap<(Attempt, DigestKind), Step>,
    breaches: Breaches<(Attempt, DigestKind)>,
}

/// Ranks by the digest they told last.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Holders(BTreeMap<String, BTreeSet<Rank>>);

impl Holders {
    fn put(&mut self, rank: Rank, digest: &str) {
        self.0.retain(|known, ranks| {
            if known != digest {
                ranks.remove(&rank);
            }
            !ranks.is_empty()
        });
        let kept = if self.0.len() < DIGESTS_MAX || self.0.contains_key(digest) { digest } else { OTHERS };
        self.0.entry(kept.to_owned()).or_default().insert(rank);
    }

    fn total(&self) -> usize {
        self.0.values().map(BTreeSet::len).sum()
    }

    /// The digest of more than half of the ranks.
    fn majority(&self) -> Option<&str> {
        let total = self.total();
        let is_most = |(digest, ranks): &(&String, &BTreeSet<Rank>)| ranks.len() * 2 > total && *digest != OTHERS;
        self.0.iter().find(is_most).map(|(digest, _)| &**digest)
    }

    /// Ranks outside the majority, ascending, with their digests; empty without a majority.
    fn minority(&self) -> BTreeMap<Rank, &str> {
        let Some(majority) = self.majority() else { return BTreeMap::new() };
        let others = self.0.iter().filter(|(digest, _)| *digest != majority);
        others.flat_map(|(digest, ranks)| ranks.iter().map(move |rank| (*rank, &**digest))).collect()
    }

    fn evidence(&self, set: &DigestSet) -> Vec<Evidence> {
        let (total, minority) = (self.total(), self.minority());
        let Some(majority) = self.majority() else {
            let words = self.0.iter().take(SUSPECTS_MAX).map(|(digest, ranks)| {
                let said = format!("{} of {total} ranks have {}", ranks.len(), short(digest));
                note(SPEC.name, &set.name, (set.label.step, None), said)
            });
            return words.collect();
        };
        let agreeing = total - minority.len();
        let words = minority.iter().take(SUSPECTS_MAX).map(|(rank, digest)| {
            let said = format!("{}, while {agreeing} of {total} ranks have {}", short(digest), short(majority));
            note(SPEC.name, &set.name, (set.label.step, Some(*rank)), said)
        });
        words.collect()
    }
}

impl EnvironmentMismatch {
    fn judge_set(&mut self, set: &DigestSet, scene: &Scene) -> Option<Verdict> {
        let subject = (set.attempt, set.kind, set.name.clone());
        while self.told.len() > 1 && (self.told.len() > SUBJECTS_MAX || self.told_ranks > RANKS_MAX) {
            let Some((_, forgotten)) = self.told.pop_first() else { break };
            self.told_ranks -= forgotten.total();
        }
        let holders = self.told.entry(subject).or_default();
        self.told_ranks -= holders.total();
        for entry in &set.entries {
            if let Some(rank) = entry.rank {
                holders.put(rank, &entry.digest);
            }
        }
        self.told_ranks += holders.total();
        let key = (set.attempt, set.kind);
        if holders.0.len() < 2 {
            if let (Some(step), 1) = (set.label.step, holders.0.len()) {
                self.agreed.insert(key, step);
            }
            return self.breaches.holds(&key, &set.name, 1);
        }
        let found = Break {
            detector: SPEC.name,
            attempt: set.attempt,
            kind: Kind::EnvironmentMismatch,
            severity: severity_of(set.kind),
            name: set.name.clone(),
            label: set.label,
            ranks: holders.minority().into_keys().collect(),
            good_until: self.agreed.get(&key).copied(),
            evidence: holders.evidence(set),
        };
        let total = holders.total();
        self.breaches.broke(key, found, |breach| summary((set.kind, total), breach, scene))
    }
}

fn summary((kind, total): (DigestKind, usize), breach: &Breach, scene: &Scene) -> String {
    let (kind, names, when) = (kind.as_str(), breach.names("names"), breach.when());
    match breach.ranks().len() {
        0 => format!("{kind} {names} differs over {total} ranks{when}, without a majority that could name a rank"),
        _ => format!("{kind} {names} of {} differs from the majority of {total} ranks{when}", breach.who(scene)),
    }
}

impl Judge for EnvironmentMismatch {
    const SPEC: Spec = SPEC;
    const VERSION: u8 = VERSION;

    fn judge(
        &mut self,
        seen: &Observation,
        scene: &Scene,
        _backend: &mut dyn Backend,
    ) -> Result<Vec<Verdict>, DetectError> {
        match seen {
            Observation::Digests(set) if is_of_environment(set.kind) => {
                Ok(self.judge_set(set, scene).into_iter().collect())
            }
            _ => Ok(Vec::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use trainwarden_telemetry::Phase;

    use super::*;
    use crate::detectors::breach::testing::{digests, digests_of, grid, named, phases};
    use crate::detectors::testing::{assert_restores, bare_scene, judge_all};

    fn judge(seen: &[Observation]) -> Vec<Verdict> {
        judge_all(&mut EnvironmentMismatch::default(), &mut bare_scene(), seen)
    }

    fn code(step: u64, words: &[&str]) -> Observation {
        digests(DigestKind::Code, "train.py", step, words)
    }

    #[test]
    fn the_rank_that_runs_other_code_is_named_until_it_agrees() {
        let seen = [grid(0, &[(0, 0), (1, 0), (2, 0)]), code(0, &["a", "a", "x"]), code(9, &["a", "a", "a"])];
        let verdicts = judge(&seen);
        assert_eq!(phases(&verdicts), [Phase::Raised, Phase::Cleared]);
        assert_eq!(named(&verdicts[0]), [2]);
        assert_eq!(verdicts[0].severity, Severity::Critical);
        let expected = "code `train.py` of rank 2 (n01) differs from the majority of 3 ranks at step 0";
        assert_eq!(verdicts[0].summary, expected);
        assert_eq!(verdicts[0].evidence[0].note.as_deref(), Some("x, while 2 of 3 ranks have a"));
        assert_restores(|| Box::new(EnvironmentMismatch::default()), &seen);
    }

    #[test]
    fn equal_code_one_rank_and_no_rank_say_nothing() {
        assert_eq!(judge(&[code(0, &["a", "a", "a"]), code(1, &["b", "b", "b"])]), []);
        assert_eq!(judge(&[code(0, &["a"])]), []);
        assert_eq!(judge(&[code(0, &[])]), []);
        assert_eq!(judge(&[code(0, &["a", "a"]), digests_of(1, DigestKind::Code, "train.py", 0, &["b", "b"])]), []);
    }

    #[test]
    fn ranks_that_tell_one_after_the_other_are_compared() {
        let verdicts = judge(&[code(0, &["a"]), code(1, &["", "a"]), code(2, &["", "", "x"])]);
        assert_eq!(named(&verdicts[0]), [2]);
    }

    #[test]
    fn a_differing_environment_is_a_warning_and_a_tie_names_nobody() {
        let verdicts = judge(&[digests(DigestKind::Env, "libraries", 0, &["a", "b"])]);
        assert_eq!((verdicts[0].severity, named(&verdicts[0])), (Severity::Warning, vec![]));
        assert_eq!(verdicts[0].evidence.len(), 2);
    }

    #[test]
    fn many_files_of_one_rank_are_one_case() {
        let seen: Vec<Observation> =
            (0..100).map(|file| digests(DigestKind::Code, &format!("f{file}"), 0, &["a", "x", "a"])).collect();
        let verdicts = judge(&seen);
        assert!(verdicts.len() < 10 && verdicts.iter().all(|verdict| verdict.case == 0));
    }

    proptest! {
        #[test]
        fn renaming_ranks_renames_the_suspects_and_changes_nothing_else(
            words in proptest::collection::vec(0_u8..3, 1..9),
            shift in 1_u32..5,
        ) {
            let words: Vec<String> = words.iter().map(|word| format!("d{word}")).collect();
            let seen = code(3, &words.iter().map(String::as_str).collect::<Vec<_>>());
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
                prop_assert_eq!((one.severity, one.onset, one.phase), (other.severity, other.onset, other.phase));
                prop_assert_eq!(one.evidence.len(), other.evidence.len());
            }
        }
    }
}
