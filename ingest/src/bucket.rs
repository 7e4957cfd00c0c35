//! Rows of a stretch of log time, by table, in the order of coming; and in log order once no more come.

use std::iter::Peekable;
use std::slice::Iter;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::run_rows::TimedEvent;
use crate::{CollectiveRow, DigestRow, NameId, Names, Record, Row, SampleRow};

/// Rows whose log times lie in one stretch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Bucket {
    pub(crate) events: Vec<TimedEvent>,
    pub(crate) samples: Vec<SampleRow>,
    pub(crate) digests: Vec<DigestRow>,
    pub(crate) collectives: Vec<CollectiveRow>,
}

impl Bucket {
    /// Puts each table in log order; rows of equal log times stay in the order of coming.
    pub(crate) fn sort(&mut self) {
        sort_by_time(&mut self.events, |(log_time, _)| *log_time);
        sort_by_time(&mut self.samples, |row| row.log_time);
        sort_by_time(&mut self.digests, |row| row.log_time);
        sort_by_time(&mut self.collectives, |row| row.log_time);
    }

    /// The rows of a sorted bucket in log order; of equal log times events come first, then samples, digests and
    /// collectives, as in a folder.
    pub(crate) fn records(&self) -> Records<'_> {
        Records {
            events: self.events.iter().peekable(),
            samples: self.samples.iter().peekable(),
            digests: self.digests.iter().peekable(),
            collectives: self.collectives.iter().peekable(),
        }
    }

    /// The attempts of its rows, each at least once; an event of every run is of none.
    pub(crate) fn attempts(&self) -> impl Iterator<Item = u32> {
        let own = self.events.iter().filter(|(_, event)| event.run.is_some());
        let mut attempts: Vec<u32> = own.map(|(_, event)| event.attempt.0).collect();
        attempts.extend(self.samples.iter().map(|row| row.attempt));
        attempts.extend(self.digests.iter().map(|row| row.attempt));
        attempts.extend(self.collectives.iter().map(|row| row.attempt));
        attempts.dedup();
        attempts.into_iter()
    }

    /// Gives every text its number in other names.
    pub(crate) fn rename(&mut self, old: &Names, new: &mut Names) {
        let mut renew = |id: &mut NameId| *id = old.get(*id).map_or(NameId::NONE, |text| new.intern(text));
        self.samples.iter_mut().for_each(|row| renew(&mut row.metric));
        for row in &mut self.digests {
            [&mut row.kind, &mut row.name, &mut row.digest, &mut row.group].into_iter().for_each(&mut renew);
        }
        for row in &mut self.collectives {
            [&mut row.comm, &mut row.op, &mut row.signature].into_iter().for_each(&mut renew);
        }
    }
}

fn sort_by_time<T>(rows: &mut [T], log_time: impl Fn(&T) -> i64) {
    // What one sender tells comes in order.
    if !rows.is_sorted_by_key(&log_time) {
        rows.sort_by_key(log_time);
    }
}

/// See [`Bucket::records`].
pub(crate) struct Records<'a> {
    events: Peekable<Iter<'a, TimedEvent>>,
    samples: Peekable<Iter<'a, SampleRow>>,
    digests: Peekable<Iter<'a, DigestRow>>,
    collectives: Peekable<Iter<'a, CollectiveRow>>,
}

impl Iterator for Records<'_> {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        let events = self.events.peek().map(|(log_time, _)| (*log_time, 0));
        let samples = self.samples.peek().map(|row| (row.log_time, 1));
        let digests = self.digests.peek().map(|row| (row.log_time, 2));
        let collectives = self.collectives.peek().map(|row| (row.log_time, 3));
        let (log_time, table) = [events, samples, digests, collectives].into_iter().flatten().min()?;
        let row = match table {
            0 => self.events.next().map(|(_, event)| Row::Event(Arc::clone(event))),
            1 => self.samples.next().copied().map(Row::Sample),
            2 => self.digests.next().copied().map(Row::Digest),
            _ => self.collectives.next().copied().map(Row::Collective),
        };
        row.map(|row| Record { log_time, row })
    }
}
