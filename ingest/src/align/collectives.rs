//! Calls of one communicator, open until every member has finished.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use trainwarden_telemetry::{
    Attempt, CollectiveCall, CollectiveEntry, Communicators, Conflict, Label, Observation, Rank, Step, Timestamp,
};

use super::Counts;
use super::lane::{Lane, OpenRow, Placed, Wait};
use crate::limits::OPEN_ROWS_MAX;
use crate::row::{CollectiveRow, NO_TIME, NO_U32, NO_U64, Names};

/// Which calls follow each other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct CollectiveKey {
    pub(crate) attempt: u32,
    pub(crate) comm: String,
    /// Point-to-point calls count on their own.
    pub(crate) is_pairwise: bool,
}

/// The parts of one call: the judged one of each rank and operation, and whether one contradicts it.
type Parts = BTreeMap<(u32, String), (CollectiveEntry, bool)>;

/// Aligns the calls of one communicator.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct CollectiveLane {
    pub(crate) key: CollectiveKey,
    lane: Lane<Parts>,
    told: Option<BTreeSet<Rank>>,
    /// Ranks and the first sequence number each was seen at.
    seen: BTreeMap<Rank, u64>,
}

impl CollectiveLane {
    pub(crate) fn new(key: CollectiveKey, communicators: Option<&Communicators>) -> Self {
        let told = communicators.and_then(|told| told.members.get(&key.comm)).filter(|_| !key.is_pairwise).cloned();
        Self { key, lane: Lane::default(), told, seen: BTreeMap::new() }
    }

    pub(crate) fn closes_at(&self) -> Option<i64> {
        self.lane.closes_at()
    }

    pub(crate) fn opened_at(&self) -> Option<i64> {
        self.lane.opened_at()
    }

    /// Takes a row in. Gives the calls that a full lane closes early.
    pub(crate) fn place(&mut self, row: &CollectiveRow, names: &Names, wait: Wait, counts: &mut Counts) -> Vec<Placed> {
        let first = self.seen.entry(Rank(row.rank)).or_insert(row.seq);
        *first = row.seq.min(*first);
        if self.lane.is_closed(row.seq) {
            counts.late += 1;
            return Vec::new();
        }
        let open = self.lane.open(row.seq, wait, Parts::new);
        let entry = entry(row, names);
        put(&mut open.cells, entry, counts);
        let finished = |part: &(CollectiveEntry, bool)| part.0.end.is_some();
        if let Some(told) = &self.told
            && open.cells.len() >= told.len()
            && open.cells.values().all(finished)
        {
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

    fn observations(&self, closed: Vec<(u64, OpenRow<Parts>)>) -> Vec<Placed> {
        let attempt = Attempt(self.key.attempt);
        let mut observations = Vec::new();
        for (seq, row) in closed {
            let deadline_ns = Some(row.waited);
            let mut entries = Vec::with_capacity(row.cells.len());
            for (entry, is_contradicted) in row.cells.into_values() {
                if is_contradicted {
                    let label = Label { step: entry.step, time: entry.end.or(entry.start).or(entry.enqueued) };
                    let subject = format!("{} call {seq}", self.key.comm);
                    let rank = Some(entry.rank);
                    let conflict = Conflict { attempt, subject, label, rank, values: None };
                    observations.push(Placed { at: row.opened_at, seen: Observation::Conflict(conflict) });
                }
                entries.push(entry);
            }
            let missing = self.missing(seq, &entries);
            let comm = self.key.comm.clone();
            let call = CollectiveCall { attempt, comm, seq, entries, missing, deadline_ns };
            observations.push(Placed { at: row.opened_at, seen: Observation::Collective(call) });
        }
        observations
    }

    /// Members told, or seen at smaller numbers, that said nothing.
    fn missing(&self, seq: u64, entries: &[CollectiveEntry]) -> Vec<Rank> {
        if self.key.is_pairwise {
            return Vec::new();
        }
        let entered: BTreeSet<Rank> = entries.iter().map(|entry| entry.rank).collect();
        match &self.told {
            Some(told) => told.difference(&entered).copied().collect(),
            None => {
                let before = self.seen.iter().filter(|(_, first)| **first < seq).map(|(rank, _)| *rank);
                before.filter(|rank| !entered.contains(rank)).collect()
            }
        }
    }
}

fn entry(row: &CollectiveRow, names: &Names) -> CollectiveEntry {
    let time = |time: i64| (time != NO_TIME).then_some(Timestamp(time));
    CollectiveEntry {
        rank: Rank(row.rank),
        op: names.get(row.op).unwrap_or_default().to_owned(),
        bytes: (row.bytes != NO_U64).then_some(row.bytes),
        signature: names.get(row.signature).map(str::to_owned),
        enqueued: time(row.enqueued),
        start: time(row.start),
        end: time(row.end),
        step: (row.step != NO_U64).then_some(Step(row.step)),
        peer: (row.peer != NO_U32).then_some(Rank(row.peer)),
    }
}

/// How far a part has come: a later state of the same part replaces an earlier one and contradicts nothing.
fn progress(entry: &CollectiveEntry) -> u8 {
    u8::from(entry.start.is_some()) + 2 * u8::from(entry.end.is_some())
}

fn put(parts: &mut Parts, entry: CollectiveEntry, counts: &mut Counts) {
    let key = (entry.rank.0, entry.op.clone());
    let Some((known, is_contradicted)) = parts.get_mut(&key) else {
        parts.insert(key, (entry, false));
        return;
    };
    if *known == entry {
        counts.repeated += 1;
    } else if progress(known) != progress(&entry) {
        if progress(&entry) > progress(known) {
            *known = entry;
        }
    } else {
        counts.conflicting += 1;
        *is_contradicted = true;
        if entry < *known {
            *known = entry;
        }
    }
}
