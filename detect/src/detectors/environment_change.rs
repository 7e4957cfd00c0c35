//! Detects code, configuration or environment that changed.
//!
//! # What it finds
//! `environment.changed`: a change inside an attempt (critical for code and configuration, a warning for the
//! environment), and a change from one attempt to the next (a warning for code and environment that nobody declared,
//! otherwise information).
//!
//! # Why it matters
//! A process that runs does not change its code: if the fingerprint moves, somebody patched a live training. A change
//! at a restart is how people deploy, and worth a line beside whatever goes wrong afterwards: many regressions are a
//! change of one line. It is also how one changes a training without touching a live process, so what nobody declared
//! somebody must look at.
//!
//! # How it decides
//! By law: a rank's digest of `code`, `config` and `env` is constant inside an attempt, name by name, against its
//! first word of that attempt. Ranks that changed are the suspects while they are at most half of those that told; a
//! change of more is the run's. The case ends when each changed rank's first digest is back. Between attempts the
//! digest most ranks told first is compared with that of the latest attempt before which told the name; all names of
//! one kind that changed at a restart are one case, which carries old and new digest. It was declared when in the
//! [`DECLARED_S`] before it an event `annotate` or an audit record of a kind in [`DECLARATIONS`] came. Configuration is
//! changed at every other restart and stays information.
//!
//! # Parameters
//! [`DECLARED_S`], [`DECLARATIONS`]; [`SUBJECTS_MAX`], [`WORDS_MAX`]: what is remembered.
//!
//! # Blind spots
//! A change between two tellings that is undone in time; what is not fingerprinted; a change that rides on the
//! declaration of another.
//!
//! # Source
//! A silent library upgrade changed the training of OPT (metaseq chronicles): changes are worth a line.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use trainwarden_kernels::Backend;
use trainwarden_telemetry::{
    Attempt, DigestKind, DigestSet, Event, Evidence, Kind, Label, Observation, Rank, Severity, Step, Timestamp, Verdict,
};

use super::breach::{Breach, Breaches, Break, SUSPECTS_MAX, note, short};
use super::environment_mismatch::{is_of_environment, severity_of};
use crate::{Against, DetectError, Judge, Scene, Spec};

const SPEC: Spec = Spec {
    name: "environment_change",
    against: Against::Law,
    watches: &["digests: code", "digests: config", "digests: env", "events: annotate, deploy and the like"],
    kinds: &[Kind::EnvironmentChanged],
};
const VERSION: u8 = 2;
/// A declaration covers the launches of so many seconds after it: a day of waiting in a queue.
const DECLARED_S: f64 = 86_400.0;
/// Kinds of audit records that say that somebody changes software on purpose.
const DECLARATIONS: [&str; 6] = ["deploy", "release", "rollout", "merge", "upgrade", "install"];
/// Names remembered over all attempts, the last attempts longest.
const SUBJECTS_MAX: usize = 4096;
/// Digests remembered over all names and ranks: about 50 MB.
const WORDS_MAX: usize = 1 << 19;

/// See the module's page.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct EnvironmentChange {
    first_words: BTreeMap<(Attempt, DigestKind, String), FirstWords>,
    words: usize,
    breaches: Breaches<(Attempt, DigestKind, Since)>,
    declared: Option<Timestamp>,
}

/// What ranks told first in an attempt.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct FirstWords {
    of_rank: BTreeMap<Option<Rank>, String>,
    /// The first digest that most of the first telling's ranks had.
    usual: String,
    held_until: Option<Step>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Since {
    /// The attempt before.
    AttemptBefore,
    /// The first word of the same attempt.
    FirstWord,
}

/// The digest most entries have; the smallest of equally frequent ones.
fn usual(set: &DigestSet) -> Option<&str> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    set.entries.iter().for_each(|entry| *counts.entry(&entry.digest).or_default() += 1);
    let most = counts.values().copied().max()?;
    counts.into_iter().find(|(_, count)| *count == most).map(|(digest, _)| digest)
}

impl EnvironmentChange {
    fn judge_set(&mut self, set: &DigestSet, scene: &Scene) -> Vec<Verdict> {
        let Some(usual) = usual(set) else { return Vec::new() };
        let subject = (set.attempt, set.kind, set.name.clone());
        let mut verdicts = Vec::new();
        if self.first_words.contains_key(&subject) {
            verdicts.extend(self.breaches.holds(&(set.attempt, set.kind, Since::AttemptBefore), &set.name, 1));
        } else {
            verdicts.extend(self.judge_restart(set, usual));
            while self.first_words.len() >= SUBJECTS_MAX || self.words > WORDS_MAX {
                let Some((_, forgotten)) = self.first_words.pop_first() else { break };
                self.words -= forgotten.of_rank.len();
            }
            let words = FirstWords { usual: usual.to_owned(), ..FirstWords::default() };
            self.first_words.insert(subject.clone(), words);
        }
        verdicts.extend(self.judge_inside(&subject, set, scene));
        verdicts
    }

    /// Compares an attempt's first telling of a name with the latest attempt before.
    fn judge_restart(&mut self, set: &DigestSet, usual: &str) -> Option<Verdict> {
        let is_same = |key: &(Attempt, DigestKind, String)| key.1 == set.kind && key.2 == set.name;
        let earlier = ..(set.attempt, DigestKind::Weight, String::new());
        let (before, words) = self.first_words.range(earlier).rev().find(|(key, _)| is_same(key))?;
        if words.usual == usual {
            return None;
        }
        let (old, before) = (&words.usual, before.0);
        let said = format!("{} since attempt {}, {} in attempt {}", short(usual), set.attempt.0, short(old), before.0);
        let found = Break {
            detector: SPEC.name,
            attempt: set.attempt,
            kind: Kind::EnvironmentChanged,
            severity: self.severity_at_restart(set.kind, set.label),
            name: set.name.clone(),
            label: set.label,
            ranks: Vec::new(),
            good_until: set.label.step.and_then(|step| step.0.checked_sub(1)).map(Step),
            evidence: vec![note(SPEC.name, &set.name, (set.label.step, None), said)],
        };
        let (kind, from, to) = (set.kind.as_str(), short(old).to_owned(), short(usual).to_owned());
        self.breaches.broke((set.attempt, set.kind, Since::AttemptBefore), found, |breach| {
            format!(
                "{kind} {} changed from {from} to {to} between attempts {} and {}",
                breach.names("names"),
                before.0,
                set.attempt.0
            )
        })
    }

    /// A change that was declared, and one of configuration, is how people work.
    fn severity_at_restart(&self, kind: DigestKind, label: Label) -> Severity {
        let lag_s = |declared: Timestamp| label.time.map_or(0.0, |time| time.seconds_since(declared));
        let is_declared = self.declared.is_some_and(|declared| (0.0..=DECLARED_S).contains(&lag_s(declared)));
        if is_declared || kind == DigestKind::Config { Severity::Info } else { Severity::Warning }
    }

    fn take_event(&mut self, event: &Event) {
        let kind = event.kind.to_ascii_lowercase();
        if kind == "annotate" || DECLARATIONS.iter().any(|word| kind.contains(word)) {
            self.declared = self.declared.max(Some(event.time));
        }
    }

    /// Compares each rank with its first word of the attempt.
    fn judge_inside(
        &mut self,
        subject: &(Attempt, DigestKind, String),
        set: &DigestSet,
        scene: &Scene,
    ) -> Option<Verdict> {
        let words = self.first_words.get_mut(subject)?;
        let mut changed: Vec<(Option<Rank>, &str, String)> = Vec::new();
        self.words -= words.of_rank.len();
        for entry in &set.entries {
            let first = words.of_rank.entry(entry.rank).or_insert_with(|| entry.digest.clone());
            if *first != entry.digest {
                changed.push((entry.rank, &entry.digest, first.clone()));
            }
        }
        self.words += words.of_rank.len();
        let key = (set.attempt, set.kind, Since::FirstWord);
        if changed.is_empty() {
            words.held_until = words.held_until.max(set.label.step);
            return self.breaches.holds(&key, &set.name, 1);
        }
        let told = words.of_rank.len();
        let is_few = changed.len() * 2 <= told || told == 1;
        let found = Break {
            detector: SPEC.name,
            attempt: set.attempt,
            kind: Kind::EnvironmentChanged,
            severity: severity_of(set.kind),
            name: set.name.clone(),
            label: set.label,
            ranks: if is_few { changed.iter().filter_map(|(rank, _, _)| *rank).collect() } else { Vec::new() },
            good_until: words.held_until,
            evidence: evidence(set, &changed),
        };
        self.breaches.broke(key, found, |breach| summary(set, breach, scene))
    }
}

fn evidence(set: &DigestSet, changed: &[(Option<Rank>, &str, String)]) -> Vec<Evidence> {
    let words = changed.iter().take(SUSPECTS_MAX).map(|(rank, now, first)| {
        let said = format!("{}, at first {}", short(now), short(first));
        note(SPEC.name, &set.name, (set.label.step, *rank), said)
    });
    words.collect()
}

fn summary(set: &DigestSet, breach: &Breach, scene: &Scene) -> String {
    let who = if breach.ranks().is_empty() { String::new() } else { format!(" of {}", breach.who(scene)) };
    let names = breach.names("names");
    format!("{} {names}{who} changed inside attempt {}{}", set.kind.as_str(), set.attempt.0, breach.when())
}

impl Judge for EnvironmentChange {
    const SPEC: Spec = SPEC;
    const VERSION: u8 = VERSION;

    fn judge(
        &mut self,
        seen: &Observation,
        scene: &Scene,
        _backend: &mut dyn Backend,
    ) -> Result<Vec<Verdict>, DetectError> {
        match seen {
            Observation::Digests(set) if is_of_environment(set.kind) => return Ok(self.judge_set(set, scene)),
            Observation::Event(event) => self.take_event(event),
            _ => {}
        }
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use trainwarden_telemetry::{Onset, Phase};

    use super::*;
    use crate::detectors::breach::testing::{digests_of, named, phases};
    use crate::detectors::testing::{assert_restores, bare_scene, event, judge_all};

    fn judge(seen: &[Observation]) -> Vec<Verdict> {
        judge_all(&mut EnvironmentChange::default(), &mut bare_scene(), seen)
    }

    fn code(attempt: u32, step: u64, words: &[&str]) -> Observation {
        digests_of(attempt, DigestKind::Code, "train.py", step, words)
    }

    #[test]
    fn code_that_changes_on_a_live_rank_is_critical_until_it_is_back() {
        let seen =
            [code(0, 0, &["a", "a"]), code(0, 5, &["a", "a"]), code(0, 9, &["a", "x"]), code(0, 12, &["a", "a"])];
        let verdicts = judge(&seen);
        assert_eq!(phases(&verdicts), [Phase::Raised, Phase::Cleared]);
        assert_eq!((verdicts[0].severity, named(&verdicts[0])), (Severity::Critical, vec![1]));
        assert_eq!(verdicts[0].onset, Some(Onset { step: Step(9), low: Step(6), high: Step(9) }));
        assert_eq!(verdicts[0].summary, "code `train.py` of rank 1 changed inside attempt 0 at step 9");
        assert_restores(|| Box::new(EnvironmentChange::default()), &seen);
    }

    #[test]
    fn constant_code_one_rank_and_no_rank_say_nothing() {
        assert_eq!(judge(&[code(0, 0, &["a", "a"]), code(0, 9, &["a", "a"]), code(1, 9, &["a", "a"])]), []);
        assert_eq!(judge(&[code(0, 0, &["a"]), code(0, 1, &[]), code(0, 2, &["a"])]), []);
        assert_eq!(judge(&[code(0, 0, &["a", ""]), code(0, 1, &["", "b"])]), [], "ranks that differ did not change");
    }

    /// Two launches with another digest, and an event of a kind so many seconds before the second one, if any.
    fn relaunched(kind: DigestKind, declared: Option<(&str, i64)>) -> Vec<Verdict> {
        let words = |attempt, step, word| digests_of(attempt, kind, "train.py", step, &[word, word]);
        let mut seen = vec![words(0, 0, "a")];
        let second = words(1, 200_000, "b");
        // The time of a label of the tests is its step in seconds.
        seen.extend(declared.map(|(kind, before_s)| event(kind, 200_000 - before_s)));
        seen.extend([second, words(1, 200_009, "b"), words(2, 200_009, "b")]);
        assert_restores(|| Box::new(EnvironmentChange::default()), &seen);
        judge(&seen)
    }

    #[test]
    fn a_change_at_a_restart_that_nobody_declared_is_a_warning_with_both_digests() {
        for kind in [DigestKind::Code, DigestKind::Env] {
            let verdicts = relaunched(kind, None);
            assert_eq!(phases(&verdicts), [Phase::Raised, Phase::Cleared]);
            assert_eq!((verdicts[0].severity, named(&verdicts[0])), (Severity::Warning, vec![]));
            assert!(verdicts[0].summary.ends_with("`train.py` changed from a to b between attempts 0 and 1"));
        }
        assert_eq!(relaunched(DigestKind::Code, Some(("deploy", 100_000)))[0].severity, Severity::Warning, "long ago");
        assert_eq!(relaunched(DigestKind::Code, Some(("login", 60)))[0].severity, Severity::Warning);
    }

    #[test]
    fn a_declared_deploy_and_a_new_configuration_are_information() {
        for declared in ["annotate", "Deploy", "package_upgrade"] {
            assert_eq!(relaunched(DigestKind::Code, Some((declared, 600)))[0].severity, Severity::Info, "{declared}");
        }
        assert_eq!(relaunched(DigestKind::Config, None)[0].severity, Severity::Info);
    }

    #[test]
    fn attempts_may_interleave() {
        let seen = [code(0, 0, &["a"]), code(1, 5, &["b"]), code(0, 6, &["a"]), code(1, 7, &["b"])];
        assert_eq!(phases(&judge(&seen)), [Phase::Raised, Phase::Cleared]);
    }

    #[test]
    fn a_change_on_all_ranks_names_nobody_and_an_environment_only_warns() {
        let env = |step, words: &[&str]| digests_of(0, DigestKind::Env, "libraries", step, words);
        let verdicts = judge(&[env(0, &["a", "a", "a"]), env(1, &["b", "b", "b"])]);
        assert_eq!((verdicts[0].severity, named(&verdicts[0])), (Severity::Warning, vec![]));
    }
}
