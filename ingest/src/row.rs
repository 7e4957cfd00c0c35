//! Decoded rows of the tables, compact enough to sort tens of millions of them: text is held once, in [`Names`].

use std::collections::HashMap;
use std::sync::Arc;

use bytemuck::{Pod, Zeroable};
use serde::{Deserialize, Serialize};
use trainwarden_telemetry::Event;

/// A text held once in [`Names`]. Its number depends on the order of reading, so nothing may be ordered by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable, Serialize, Deserialize)]
#[serde(transparent)]
#[repr(transparent)]
pub struct NameId(pub u32);

impl NameId {
    /// No text: the column was empty.
    pub const NONE: Self = Self(u32::MAX);
}

/// The texts of one run (metrics, communicators, operations, digests), each held once.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(from = "Vec<Arc<str>>", into = "Vec<Arc<str>>")]
pub struct Names {
    texts: Vec<Arc<str>>,
    ids: HashMap<Arc<str>, u32>,
}

impl Names {
    /// The number of `text`, new or known.
    ///
    /// # Panics
    /// When a run has four billion different texts.
    pub fn intern(&mut self, text: &str) -> NameId {
        if let Some(&id) = self.ids.get(text) {
            return NameId(id);
        }
        let id = u32::try_from(self.texts.len()).expect("fewer than 2^32 texts: memory ends before");
        let text: Arc<str> = Arc::from(text);
        self.texts.push(Arc::clone(&text));
        self.ids.insert(text, id);
        NameId(id)
    }

    /// The text of a number; `None` for [`NameId::NONE`].
    #[must_use]
    pub fn get(&self, id: NameId) -> Option<&str> {
        self.texts.get(id.0 as usize).map(AsRef::as_ref)
    }

    /// Takes over the texts that follow those already here, in the order of their numbers.
    pub fn append(&mut self, texts: Vec<Arc<str>>) {
        self.ids.extend((self.texts.len() as u32..).zip(&texts).map(|(id, text)| (Arc::clone(text), id)));
        self.texts.extend(texts);
    }

    /// The texts from a number on, in the order of their numbers.
    pub(crate) fn since(&self, first: usize) -> &[Arc<str>] {
        &self.texts[first..]
    }

    /// How many texts there are; numbers are below.
    #[must_use]
    pub fn len(&self) -> usize {
        self.texts.len()
    }

    /// True when there is no text.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }
}

impl From<Vec<Arc<str>>> for Names {
    fn from(texts: Vec<Arc<str>>) -> Self {
        let mut names = Self::default();
        names.append(texts);
        names
    }
}

impl From<Names> for Vec<Arc<str>> {
    fn from(names: Names) -> Self {
        names.texts
    }
}

/// Value that stands for "no rank" and "no u32" in a compact row.
pub const NO_U32: u32 = u32::MAX;
/// Value that stands for "no step" and "no u64" in a compact row.
pub const NO_U64: u64 = u64::MAX;
/// Value that stands for "no time" in a compact row.
pub const NO_TIME: i64 = i64::MIN;

/// A row of `samples`. Absent numbers are [`NO_U32`], [`NO_U64`], [`NO_TIME`].
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable, Serialize, Deserialize)]
#[repr(C)]
pub struct SampleRow {
    /// Log time: see [`Record`].
    pub log_time: i64,
    /// Step or [`NO_U64`].
    pub step: u64,
    /// Sender's time or [`NO_TIME`].
    pub time: i64,
    /// The number; NaN and infinities are logged values.
    pub value: f64,
    /// Launch.
    pub attempt: u32,
    /// Rank or [`NO_U32`].
    pub rank: u32,
    /// Metric.
    pub metric: NameId,
    /// Keeps the row free of padding.
    pub reserved: u32,
}

/// A row of `collectives`.
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable, Serialize, Deserialize)]
#[repr(C)]
pub struct CollectiveRow {
    /// Log time: see [`Record`].
    pub log_time: i64,
    /// Sequence number in the communicator.
    pub seq: u64,
    /// Payload or [`NO_U64`].
    pub bytes: u64,
    /// Step or [`NO_U64`].
    pub step: u64,
    /// Host time of issue or [`NO_TIME`].
    pub enqueued: i64,
    /// Device time of begin or [`NO_TIME`].
    pub start: i64,
    /// Device time of end or [`NO_TIME`].
    pub end: i64,
    /// Launch.
    pub attempt: u32,
    /// Rank.
    pub rank: u32,
    /// Other side of a point-to-point call or [`NO_U32`].
    pub peer: u32,
    /// Communicator.
    pub comm: NameId,
    /// Operation.
    pub op: NameId,
    /// Type and shape or [`NameId::NONE`].
    pub signature: NameId,
}

/// A row of `digests`.
#[derive(Clone, Copy, Debug, PartialEq, Pod, Zeroable, Serialize, Deserialize)]
#[repr(C)]
pub struct DigestRow {
    /// Log time: see [`Record`].
    pub log_time: i64,
    /// Step or [`NO_U64`].
    pub step: u64,
    /// Sender's time or [`NO_TIME`].
    pub time: i64,
    /// Launch.
    pub attempt: u32,
    /// Rank or [`NO_U32`].
    pub rank: u32,
    /// What was fingerprinted.
    pub kind: NameId,
    /// Which one.
    pub name: NameId,
    /// Hexadecimal digest.
    pub digest: NameId,
    /// Comparison group or [`NameId::NONE`].
    pub group: NameId,
}

/// One row of one table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Row {
    /// Of `samples`.
    Sample(SampleRow),
    /// Of `collectives`.
    Collective(CollectiveRow),
    /// Of `digests`.
    Digest(DigestRow),
    /// Of `events`, shared because an event without a run belongs to all.
    Event(Arc<Event>),
}

/// One row with its place in the log of a run.
///
/// Log time is the row's `received`, else its `time` (of a collective: its end, else start, else issue), else derived
/// from its step: in a run with times, the latest time any row of the attempt up to that step carries; in a run
/// without a single time, the step itself, counted on over attempts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Nanoseconds since the epoch, or steps in a run without times (see [`LogClock`]).
    pub log_time: i64,
    /// The row.
    pub row: Row,
}

impl Record {
    /// The step it is about; `None` for events and for rows without one.
    #[must_use]
    pub fn step(&self) -> Option<u64> {
        let step = match &self.row {
            Row::Sample(row) => row.step,
            Row::Collective(row) => row.step,
            Row::Digest(row) => row.step,
            Row::Event(_) => NO_U64,
        };
        (step != NO_U64).then_some(step)
    }

    /// The launch it is of, from 0.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        match &self.row {
            Row::Sample(row) => row.attempt,
            Row::Collective(row) => row.attempt,
            Row::Digest(row) => row.attempt,
            Row::Event(event) => event.attempt.0,
        }
    }
}

/// What log time counts in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogClock {
    /// Nanoseconds since the epoch.
    Nanoseconds,
    /// Steps: no sample, collective or digest of the run has a time. What ends a launch (`run_end`, `process_exit`) stands
    /// behind its last step, its other events before its first, and events of all runs before everything.
    Steps,
}
