//! A law that was broken: one case while it lasts, however many steps, names and ranks it touches.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use trainwarden_telemetry::{
    Attempt, Evidence, Kind, Label, Metric, Onset, Phase, Rank, Severity, Step, Suspect, Verdict,
};

use crate::Scene;

/// Ranks named at most in a verdict; the shares of the rest are left out, so that the named ones keep theirs.
pub(crate) const SUSPECTS_MAX: usize = 16;
/// Cases open side by side at most; beyond it the oldest is forgotten and would be raised anew.
const OPEN_MAX: usize = 256;
/// Names remembered of one case; the buckets of a large model are a few thousand.
const NAMES_MAX: usize = 4096;
/// Characters of a digest shown to a person.
const DIGEST_SHOWN: usize = 12;

/// One violation of a law, as found in one observation.
pub(crate) struct Break {
    pub(crate) detector: &'static str,
    pub(crate) attempt: Attempt,
    pub(crate) kind: Kind,
    pub(crate) severity: Severity,
    /// The bucket, checkpoint or metric in which the law was broken.
    pub(crate) name: String,
    pub(crate) label: Label,
    /// Who broke it; empty when nobody can be named.
    pub(crate) ranks: Vec<Rank>,
    /// The last step at which the law was seen to hold.
    pub(crate) good_until: Option<Step>,
    pub(crate) evidence: Vec<Evidence>,
}

/// A case that lasts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Breach {
    said: Verdict,
    /// Names in which the law does not hold yet again, with the good observations since.
    broken: BTreeMap<String, u32>,
    touched: BTreeSet<String>,
    ranks: BTreeSet<Rank>,
    rows: u64,
    last_bad: Label,
}

impl Breach {
    fn new(case: u64, found: &Break) -> Self {
        let onset = found.label.step.map(|step| {
            let low = found.good_until.map_or(Step(0), |good| Step(good.0.saturating_add(1)).min(step));
            Onset { step, low, high: step }
        });
        let said = Verdict {
            detector: found.detector.to_owned(),
            case,
            phase: Phase::Raised,
            attempt: found.attempt,
            kind: found.kind,
            severity: found.severity,
            suspects: Vec::new(),
            subject: found.name.clone(),
            onset,
            first: found.label,
            last: found.label,
            summary: String::new(),
            evidence: Vec::new(),
        };
        let last_bad = found.label;
        let (broken, touched, ranks) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        Self { said, broken, touched, ranks, rows: 0, last_bad }
    }

    /// Takes in a violation; true when there is more to say: a new rank, or a power of two of rows or names.
    fn grow(&mut self, found: &Break) -> bool {
        let ranks_before = self.ranks.len();
        self.ranks.extend(&found.ranks);
        let mut grew = self.ranks.len() > ranks_before;
        if self.touched.len() < NAMES_MAX && self.touched.insert(found.name.clone()) {
            grew |= self.touched.len().is_power_of_two();
        }
        if self.touched.contains(&found.name) {
            self.broken.insert(found.name.clone(), 0);
        }
        if self.rows == 0 || self.last_bad != found.label {
            self.rows += 1;
            grew |= self.rows.is_power_of_two();
        }
        self.last_bad = found.label;
        grew
    }

    fn suspects(&self) -> Vec<Suspect> {
        let share = 1.0 / self.ranks.len().max(1) as f64;
        self.ranks.iter().take(SUSPECTS_MAX).map(|rank| Suspect { rank: *rank, share }).collect()
    }

    /// Everyone who broke the law since the case opened.
    pub(crate) fn ranks(&self) -> &BTreeSet<Rank> {
        &self.ranks
    }

    /// The names touched, in words: "`layer.0`", "4 buckets, first `layer.0`".
    pub(crate) fn names(&self, plural: &str) -> String {
        match self.touched.len() {
            0 | 1 => format!("`{}`", self.said.subject),
            many => format!("{many} {plural}, first `{}`", self.said.subject),
        }
    }

    /// Since when, in words: " at step 12", " since step 12 (4 rows)", or nothing without steps.
    pub(crate) fn when(&self) -> String {
        match (self.said.first.step, self.rows) {
            (None, _) => String::new(),
            (Some(step), 0 | 1) => format!(" at {step}"),
            (Some(step), rows) => format!(" since {step} ({rows} times)"),
        }
    }

    /// The ranks in words, with the node where told: "rank 3 (n01)", "2 ranks, first rank 3".
    pub(crate) fn who(&self, scene: &Scene) -> String {
        let Some(first) = self.ranks.first() else { return "nobody".to_owned() };
        let first = scene.describe(self.said.attempt, *first);
        match self.ranks.len() {
            1 => first,
            many => format!("{many} ranks, first {first}"),
        }
    }
}

/// The open cases of one detector.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(bound = "K: Ord + Serialize + serde::de::DeserializeOwned")]
pub(crate) struct Breaches<K> {
    open: BTreeMap<K, Breach>,
    cases: u64,
}

impl<K> Default for Breaches<K> {
    fn default() -> Self {
        Self { open: BTreeMap::new(), cases: 0 }
    }
}

impl<K: Ord + Clone> Breaches<K> {
    /// The law was broken: raises a case, or updates it when there is more to say.
    ///
    /// * `summary`: writes the sentence from the case as it stands now.
    pub(crate) fn broke(&mut self, key: K, found: Break, summary: impl FnOnce(&Breach) -> String) -> Option<Verdict> {
        let is_new = !self.open.contains_key(&key);
        if is_new && self.open.len() >= OPEN_MAX {
            self.forget_oldest();
        }
        let case = self.cases;
        let breach = self.open.entry(key).or_insert_with(|| Breach::new(case, &found));
        self.cases += u64::from(is_new);
        if !breach.grow(&found) && !is_new {
            return None;
        }
        let summary = summary(breach);
        breach.said = Verdict {
            phase: if is_new { Phase::Raised } else { Phase::Updated },
            severity: breach.said.severity.max(found.severity),
            suspects: breach.suspects(),
            last: found.label,
            summary,
            evidence: found.evidence,
            ..breach.said.clone()
        };
        Some(breach.said.clone())
    }

    /// The law was seen to hold for `name`; the case is over when it held `patience` times in every name it touched.
    pub(crate) fn holds(&mut self, key: &K, name: &str, patience: u32) -> Option<Verdict> {
        let breach = self.open.get_mut(key)?;
        let good = breach.broken.get_mut(name)?;
        *good += 1;
        if *good < patience {
            return None;
        }
        breach.broken.remove(name);
        if !breach.broken.is_empty() {
            return None;
        }
        let breach = self.open.remove(key)?;
        Some(Verdict { phase: Phase::Cleared, last: breach.last_bad, ..breach.said })
    }

    /// True when no case is open.
    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Keys of the open cases, ascending.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &K> {
        self.open.keys()
    }

    fn forget_oldest(&mut self) {
        let oldest = self.open.iter().min_by_key(|(_, breach)| breach.said.case).map(|(key, _)| key.clone());
        if let Some(key) = oldest {
            self.open.remove(&key);
        }
    }
}

/// The first characters of a digest.
pub(crate) fn short(digest: &str) -> &str {
    digest.char_indices().nth(DIGEST_SHOWN).map_or(digest, |(end, _)| &digest[..end])
}

/// Evidence in words: a sentence about one name, at a step, on a rank.
pub(crate) fn note(detector: &'static str, name: &str, at: (Option<Step>, Option<Rank>), note: String) -> Evidence {
    Evidence { step: at.0, rank: at.1, note: Some(note), ..Evidence::new(detector, &Metric::new(name)) }
}

/// Hand-made digests for the tests of the laws.
#[cfg(test)]
pub(crate) mod testing {
    use std::sync::Arc;

    use trainwarden_telemetry::{
        AttemptStart, Communicators, DigestEntry, DigestKind, DigestSet, Observation, Placement, Role, Roster,
    };

    use super::*;
    use crate::detectors::testing::label;

    /// Digests of ranks 0, 1, ... in attempt 0.
    pub(crate) fn digests(kind: DigestKind, name: &str, step: u64, words: &[&str]) -> Observation {
        digests_of(0, kind, name, step, words)
    }

    /// Digests of ranks 0, 1, ... in an attempt; an empty word = that rank did not tell.
    pub(crate) fn digests_of(attempt: u32, kind: DigestKind, name: &str, step: u64, words: &[&str]) -> Observation {
        let told = (0..).zip(words).filter(|(_, word)| !word.is_empty());
        let entries = told
            .map(|(rank, word)| DigestEntry { rank: Some(Rank(rank)), group: None, digest: (*word).to_owned() })
            .collect();
        Observation::Digests(DigestSet {
            attempt: Attempt(attempt),
            kind,
            name: name.to_owned(),
            label: label(step),
            entries,
        })
    }

    /// The same digests, all in a group.
    pub(crate) fn in_group(seen: Observation, group: &str) -> Observation {
        let Observation::Digests(mut set) = seen else { return seen };
        set.entries.iter_mut().for_each(|entry| entry.group = Some(group.to_owned()));
        Observation::Digests(set)
    }

    /// An attempt whose ranks 0, 1, ... have these data-parallel indices and pipeline stages, on nodes of two ranks.
    pub(crate) fn grid(attempt: u32, places: &[(u32, u32)]) -> Observation {
        let mut roster = Roster::default();
        for (rank, (dp, pp)) in (0..).zip(places) {
            let role = Role { pp: Some(*pp), ..Role::default() };
            let node = Some(format!("n{:02}", rank / 2));
            roster.placements.insert(Rank(rank), Placement { node, dp: Some(*dp), role, ..Placement::default() });
        }
        let (roster, communicators) = (Arc::new(roster), Arc::new(Communicators::default()));
        Observation::Attempt(AttemptStart { attempt: Attempt(attempt), roster, communicators })
    }

    /// Phases of verdicts, in order.
    pub(crate) fn phases(verdicts: &[Verdict]) -> Vec<Phase> {
        verdicts.iter().map(|verdict| verdict.phase).collect()
    }

    /// Ranks a verdict names.
    pub(crate) fn named(verdict: &Verdict) -> Vec<u32> {
        verdict.ranks().map(|rank| rank.0).collect()
    }
}
