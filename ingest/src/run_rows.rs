//! The rows of one run: taken in any order, given back in log order.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::Peekable;
use std::sync::Arc;

use bytemuck::Pod;
use trainwarden_telemetry::Event;

use crate::clock::{StepClock, TimeIndex};
use crate::sorter::{Merge, Sorter, SpillFile};
use crate::{CollectiveRow, DigestRow, IngestError, LogClock, NO_TIME, Record, Row, SampleRow};

/// An event with its log time, shared because one without a run belongs to all.
pub(crate) type TimedEvent = (i64, Arc<Event>);

/// A row with a place in the log.
pub(crate) trait LogRow: Pod {
    fn log_time(&self) -> i64;
    fn set_log_time(&mut self, log_time: i64);
    fn attempt(&self) -> u32;
    fn step(&self) -> u64;
}

macro_rules! log_row {
    ($($row:ty),+) => {$(
        impl LogRow for $row {
            fn log_time(&self) -> i64 {
                self.log_time
            }

            fn set_log_time(&mut self, log_time: i64) {
                self.log_time = log_time;
            }

            fn attempt(&self) -> u32 {
                self.attempt
            }

            fn step(&self) -> u64 {
                self.step
            }
        }
    )+};
}
log_row!(SampleRow, CollectiveRow, DigestRow);

/// The rows of one table: those with a time in its order, those without in no order until all are known.
#[derive(Debug)]
pub(crate) struct TableRows<T> {
    timed: Sorter<T, i64>,
    untimed: Sorter<T, ()>,
    attempts: BTreeSet<u32>,
    attempt: Option<u32>,
}

impl<T: LogRow> TableRows<T> {
    fn new(spill: &Arc<SpillFile>) -> Self {
        Self {
            timed: Sorter::new(T::log_time, Arc::clone(spill)),
            untimed: Sorter::new(|_| (), Arc::clone(spill)),
            attempts: BTreeSet::new(),
            attempt: None,
        }
    }

    /// Takes a row; its log time is that of its clock, or [`NO_TIME`].
    pub(crate) fn push(&mut self, row: T) {
        if self.attempt != Some(row.attempt()) {
            self.attempt = Some(row.attempt());
            self.attempts.insert(row.attempt());
        }
        if row.log_time() == NO_TIME { self.untimed.push(row) } else { self.timed.push(row) }
    }

    fn memory_bytes(&self) -> usize {
        self.timed.memory_bytes() + self.untimed.memory_bytes()
    }

    fn spill(&mut self) -> Result<(), IngestError> {
        self.timed.spill()?;
        self.untimed.spill()
    }

    fn is_empty(&self) -> bool {
        self.timed.is_empty() && self.untimed.is_empty()
    }

    /// Gives the rows without a time their place.
    fn place(self, log_time: impl Fn(u32, u64) -> i64, memory_bytes_max: usize) -> Result<Self, IngestError> {
        let Self { mut timed, untimed, attempts, attempt } = self;
        let emptied = untimed.emptied();
        for row in untimed.into_rows() {
            let mut row = row?;
            row.set_log_time(log_time(row.attempt(), row.step()));
            timed.push(row);
            if timed.memory_bytes() > memory_bytes_max {
                timed.spill()?;
            }
        }
        Ok(Self { timed, untimed: emptied, attempts, attempt })
    }
}

/// The rows of one run.
#[derive(Debug)]
pub struct RunRows {
    pub(crate) samples: TableRows<SampleRow>,
    pub(crate) collectives: TableRows<CollectiveRow>,
    pub(crate) digests: TableRows<DigestRow>,
    /// Events of this run, with their log times.
    pub(crate) events: Vec<TimedEvent>,
    /// Events of every run.
    shared: Arc<[TimedEvent]>,
}

impl RunRows {
    pub(crate) fn new(spill: &Arc<SpillFile>) -> Self {
        Self {
            samples: TableRows::new(spill),
            collectives: TableRows::new(spill),
            digests: TableRows::new(spill),
            events: Vec::new(),
            shared: Arc::default(),
        }
    }

    /// Bytes of rows held in memory; events are few and not counted.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.samples.memory_bytes() + self.collectives.memory_bytes() + self.digests.memory_bytes()
    }

    pub(crate) fn spill(&mut self) -> Result<(), IngestError> {
        self.samples.spill()?;
        self.collectives.spill()?;
        self.digests.spill()
    }

    /// True when nothing but its ranks and groups was told of the run.
    pub(crate) fn is_empty(&self) -> bool {
        self.samples.is_empty() && self.collectives.is_empty() && self.digests.is_empty() && self.events.is_empty()
    }

    /// Every attempt that has a row.
    pub(crate) fn attempts(&self) -> BTreeSet<u32> {
        let mut attempts = self.samples.attempts.clone();
        attempts.extend(&self.collectives.attempts);
        attempts.extend(&self.digests.attempts);
        attempts.extend(self.events.iter().map(|(_, event)| event.attempt.0));
        attempts
    }

    /// Fixes every row's log time, now that all are known.
    pub(crate) fn place(
        mut self,
        shared: &Arc<[TimedEvent]>,
        memory_bytes_max: usize,
    ) -> Result<(LogClock, Self), IngestError> {
        self.shared = Arc::clone(shared);
        let is_untimed = !self.samples.untimed.is_empty()
            || !self.collectives.untimed.is_empty()
            || !self.digests.untimed.is_empty();
        let is_timed =
            !self.samples.timed.is_empty() || !self.collectives.timed.is_empty() || !self.digests.timed.is_empty();
        let clock = if is_untimed && !is_timed { LogClock::Steps } else { LogClock::Nanoseconds };
        let placed = match (is_untimed, clock) {
            (false, _) => self,
            (true, LogClock::Nanoseconds) => {
                let index = self.time_index()?;
                self.place_by(|attempt, step| index.log_time(attempt, step), memory_bytes_max)?
            }
            (true, LogClock::Steps) => {
                let steps = self.step_clock()?;
                let mut placed = self.place_by(|attempt, step| steps.log_time(attempt, step), memory_bytes_max)?;
                steps.place_events(&mut placed.events);
                placed
            }
        };
        Ok((clock, placed.with_sorted_events()))
    }

    /// The rows in log order; of equal log times events come first, then samples, digests and collectives.
    pub fn into_records(self, clock: LogClock) -> Records {
        Records {
            events: self.events.into_iter().peekable(),
            shared: self.shared,
            shared_position: 0,
            shared_clock: clock,
            samples: self.samples.timed.into_rows().peekable(),
            digests: self.digests.timed.into_rows().peekable(),
            collectives: self.collectives.timed.into_rows().peekable(),
            is_done: false,
        }
    }

    fn place_by(self, log_time: impl Fn(u32, u64) -> i64, memory_bytes_max: usize) -> Result<Self, IngestError> {
        Ok(Self {
            samples: self.samples.place(&log_time, memory_bytes_max)?,
            collectives: self.collectives.place(&log_time, memory_bytes_max)?,
            digests: self.digests.place(&log_time, memory_bytes_max)?,
            ..self
        })
    }

    fn time_index(&self) -> Result<TimeIndex, IngestError> {
        let mut index = TimeIndex::default();
        self.samples.timed.for_each(|row| index.note(row.attempt, row.step, row.log_time))?;
        self.collectives.timed.for_each(|row| index.note(row.attempt, row.step, row.log_time))?;
        self.digests.timed.for_each(|row| index.note(row.attempt, row.step, row.log_time))?;
        index.close();
        Ok(index)
    }

    fn step_clock(&self) -> Result<StepClock, IngestError> {
        let mut last: BTreeMap<u32, u64> = BTreeMap::new();
        self.samples.untimed.for_each(|row| StepClock::note(&mut last, row.attempt, row.step))?;
        self.collectives.untimed.for_each(|row| StepClock::note(&mut last, row.attempt, row.step))?;
        self.digests.untimed.for_each(|row| StepClock::note(&mut last, row.attempt, row.step))?;
        Ok(StepClock::new(&last))
    }

    fn with_sorted_events(mut self) -> Self {
        self.events.sort();
        self
    }
}

/// The rows of one run in log order.
#[derive(Debug)]
pub struct Records {
    events: Peekable<std::vec::IntoIter<TimedEvent>>,
    shared: Arc<[TimedEvent]>,
    shared_position: usize,
    shared_clock: LogClock,
    samples: Peekable<Merge<SampleRow, i64>>,
    digests: Peekable<Merge<DigestRow, i64>>,
    collectives: Peekable<Merge<CollectiveRow, i64>>,
    is_done: bool,
}

/// Log time of the row that comes next; a failure is told at once.
fn next_time<T: LogRow>(rows: &mut Peekable<Merge<T, i64>>) -> Option<i64> {
    rows.peek().map(|row| row.as_ref().map_or(i64::MIN, LogRow::log_time))
}

/// The next row as a record.
fn next_row<T: LogRow>(rows: &mut Peekable<Merge<T, i64>>, row: fn(T) -> Row) -> Option<Result<Record, IngestError>> {
    rows.next().map(|next| next.map(|next| Record { log_time: next.log_time(), row: row(next) }))
}

impl Records {
    fn next_shared(&self) -> Option<(i64, &Arc<Event>)> {
        let (time, event) = self.shared.get(self.shared_position)?;
        // Where the log counts steps no time can be placed: what belongs to all runs comes before everything.
        Some((if self.shared_clock == LogClock::Steps { 0 } else { *time }, event))
    }

    fn next_record(&mut self) -> Option<Result<Record, IngestError>> {
        let shared = self.next_shared().map(|(time, event)| (time, Arc::clone(event)));
        let times = [
            self.events.peek().map(|(time, _)| *time),
            shared.as_ref().map(|(time, _)| *time),
            next_time(&mut self.samples),
            next_time(&mut self.digests),
            next_time(&mut self.collectives),
        ];
        let (_, stream) = times.iter().zip(0..).filter_map(|(time, stream)| Some(((*time)?, stream))).min()?;
        match stream {
            0 => self.events.next().map(|(log_time, event)| Ok(Record { log_time, row: Row::Event(event) })),
            1 => {
                self.shared_position += 1;
                shared.map(|(log_time, event)| Ok(Record { log_time, row: Row::Event(event) }))
            }
            2 => next_row(&mut self.samples, Row::Sample),
            3 => next_row(&mut self.digests, Row::Digest),
            _ => next_row(&mut self.collectives, Row::Collective),
        }
    }
}

impl Iterator for Records {
    type Item = Result<Record, IngestError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_done {
            return None;
        }
        let next = self.next_record();
        // After a failure the order of what is left cannot be known.
        self.is_done = !matches!(next, Some(Ok(_)));
        next
    }
}
