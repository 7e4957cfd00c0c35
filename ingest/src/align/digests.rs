//! Fingerprints of one thing, open for the words of its ranks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use trainwarden_telemetry::{
    Attempt, Conflict, DigestEntry, DigestKind, DigestSet, Label, Observation, Rank, Step, Timestamp,
};

use super::lane::{Lane, OpenRow, Placed, Wait};
use super::samples::time_key;
use super::{Counts, median_time};
use crate::limits::OPEN_ROWS_MAX;
use crate::row::{DigestRow, NO_TIME, NO_U32, NO_U64, Names};

/// Which fingerprints are compared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct DigestKey {
    pub(crate) attempt: u32,
    pub(crate) kind: DigestKind,
    pub(crate) name: String,
    pub(crate) is_stepped: bool,
}

/// The words of one row: the judged one of each rank and group, and the largest that contradicts it.
type Words = BTreeMap<(Option<Rank>, Option<String>), Word>;

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Word {
    judged: (i64, String),
    aside: Option<(i64, String)>,
}

/// Aligns the fingerprints of one thing.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct DigestLane {
    pub(crate) key: DigestKey,
    lane: Lane<Words>,
}

impl DigestLane {
    pub(crate) fn new(key: DigestKey) -> Self {
        Self { key, lane: Lane::default() }
    }

    pub(crate) fn closes_at(&self) -> Option<i64> {
        self.lane.closes_at()
    }

    pub(crate) fn opened_at(&self) -> Option<i64> {
        self.lane.opened_at()
    }

    /// Takes a row in. Gives the rows that a full lane closes early.
    pub(crate) fn place(&mut self, row: &DigestRow, names: &Names, wait: Wait, counts: &mut Counts) -> Vec<Placed> {
        let key = match row.step {
            // Without a step, what came while a row was open belongs to it: ranks tell at slightly different times.
            NO_U64 => self.lane.rows.last_key_value().map_or(time_key(row.log_time), |(key, _)| *key),
            step => step,
        };
        if self.lane.is_closed(key) {
            counts.late += 1;
            return Vec::new();
        }
        let open = self.lane.open(key, wait, Words::new);
        let rank = (row.rank != NO_U32).then_some(Rank(row.rank));
        let group = names.get(row.group).map(str::to_owned);
        let word = (row.time, names.get(row.digest).unwrap_or_default().to_ascii_lowercase());
        put(&mut open.cells, (rank, group), word, counts);
        if rank.is_none() && self.key.is_stepped {
            open.complete_at.get_or_insert(row.log_time);
        }
        match self.lane.rows.len() > OPEN_ROWS_MAX {
            true => {
                let closed = self.lane.close_first(row.log_time);
                self.observations(closed)
            }
            false => Vec::new(),
        }
    }

    /// Closes what [`closes_at`](Self::closes_at) announced.
    pub(crate) fn close(&mut self) -> Vec<Placed> {
        let closed = self.lane.close();
        self.observations(closed)
    }

    fn observations(&self, closed: Vec<(u64, OpenRow<Words>)>) -> Vec<Placed> {
        closed.into_iter().flat_map(|(key, row)| self.row_observations(key, row)).collect()
    }

    fn row_observations(&self, key: u64, row: OpenRow<Words>) -> Vec<Placed> {
        let (at, words) = (row.opened_at, row.cells);
        let step = self.key.is_stepped.then_some(Step(key));
        let times = words.values().map(|word| word.judged.0).filter(|time| *time != NO_TIME);
        let label = Label { step, time: median_time(times) };
        let attempt = Attempt(self.key.attempt);
        let mut observations = Vec::new();
        for ((rank, _), word) in &words {
            if word.aside.is_some() {
                let subject = format!("{} `{}`", self.key.kind.as_str(), self.key.name);
                let time = (word.judged.0 != NO_TIME).then_some(Timestamp(word.judged.0));
                let label = Label { step, time };
                let conflict = Conflict { attempt, subject, label, rank: *rank, values: None };
                observations.push(Placed { at, seen: Observation::Conflict(conflict) });
            }
        }
        let entries =
            words.into_iter().map(|((rank, group), word)| DigestEntry { rank, group, digest: word.judged.1 }).collect();
        let (kind, name) = (self.key.kind, self.key.name.clone());
        let set = DigestSet { attempt, kind, name, label, entries };
        observations.push(Placed { at, seen: Observation::Digests(set) });
        observations
    }
}

fn put(words: &mut Words, key: (Option<Rank>, Option<String>), word: (i64, String), counts: &mut Counts) {
    let Some(known) = words.get_mut(&key) else {
        words.insert(key, Word { judged: word, aside: None });
        return;
    };
    if known.judged.1 == word.1 {
        counts.repeated += 1;
        known.judged = word.min(known.judged.clone());
        return;
    }
    counts.conflicting += 1;
    let (smaller, larger) =
        if word < known.judged { (word, known.judged.clone()) } else { (known.judged.clone(), word) };
    known.judged = smaller;
    known.aside = known.aside.take().max(Some(larger));
}
