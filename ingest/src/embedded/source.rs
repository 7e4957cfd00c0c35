//! Reads the embedded log.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::segment::{Found, SegmentReader};
use super::{Shared, disk};
use crate::{Delivery, LogRecord, Source, SourceError};

/// Reads every partition of an embedded log, in turns.
pub struct EmbeddedSource {
    shared: Arc<Shared>,
    ready: VecDeque<Delivery>,
    cursors: BTreeMap<u32, Cursor>,
    /// The partition that was read last.
    turn: u32,
    reader: u64,
}

impl Drop for EmbeddedSource {
    fn drop(&mut self) {
        self.shared.state().partitions.iter_mut().for_each(|partition| partition.leave(self.reader));
    }
}

/// Where a partition is read.
struct Cursor {
    /// The next offset wanted.
    next: u64,
    /// The segment in hand, by its first offset.
    open: Option<(u64, SegmentReader)>,
}

impl std::fmt::Debug for EmbeddedSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedSource").field("dir", &self.shared.dir).finish_non_exhaustive()
    }
}

impl EmbeddedSource {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        static READERS: AtomicU64 = AtomicU64::new(0);
        let reader = READERS.fetch_add(1, Ordering::Relaxed);
        let mut state = shared.state();
        state.partitions.iter_mut().for_each(|partition| partition.join(reader));
        let count = state.partitions.len();
        drop(state);
        let ready = (0..u32::try_from(count).expect("their number was a u32")).map(Delivery::Assigned).collect();
        Self { shared, ready, cursors: BTreeMap::new(), turn: 0, reader }
    }

    /// The next delivery of any partition, in turns.
    fn read(&mut self) -> Result<Option<Delivery>, SourceError> {
        let after = self.cursors.range(self.turn + 1..).map(|(partition, _)| *partition);
        let before = self.cursors.range(..=self.turn).map(|(partition, _)| *partition);
        let order: Vec<u32> = after.chain(before).collect();
        for partition in order {
            let cursor = self.cursors.get_mut(&partition).expect("its key was just read");
            if let Some(delivery) = cursor.read(&self.shared, partition)? {
                self.turn = partition;
                return Ok(Some(delivery));
            }
        }
        Ok(None)
    }

    fn has_more(&self) -> bool {
        let state = self.shared.state();
        self.cursors.iter().any(|(partition, cursor)| cursor.next < state.partitions[*partition as usize].end())
    }
}

impl Cursor {
    fn read(&mut self, shared: &Shared, partition: u32) -> Result<Option<Delivery>, SourceError> {
        loop {
            let (end, place) = {
                let state = shared.state();
                let known = &state.partitions[partition as usize];
                if self.next >= known.end() {
                    return Ok(None);
                }
                let segment = known.segment_of(self.next).expect("a partition has a segment").clone();
                let after = known.segment_after(segment.first).map(|after| after.first);
                (after.unwrap_or(known.end()), segment)
            };
            if self.open.as_ref().is_none_or(|(first, _)| *first != place.first) {
                let reader = SegmentReader::open(&place.path, 0).map_err(|source| disk("read", &place.path, source))?;
                self.open = Some((place.first, reader));
            }
            let (_, reader) = self.open.as_mut().expect("opened above");
            match reader.next(place.bytes).map_err(|source| disk("read", &place.path, source))? {
                Found::Record(record) if record.offset < self.next => {}
                Found::Record(record) if record.offset > self.next => {
                    let (first, next) = (self.next, record.offset);
                    self.next = next;
                    // The reader is past the record already: it is found again from the beginning of the segment.
                    self.open = None;
                    return Ok(Some(skipped(partition, first, next)));
                }
                Found::Record(record) => {
                    self.next += 1;
                    let (offset, append_time, value) = (record.offset, record.append_time, record.value);
                    return Ok(Some(Delivery::Record(LogRecord { partition, offset, append_time, value })));
                }
                Found::Damaged { .. } => {}
                Found::End => {
                    let first = self.next;
                    self.next = end;
                    self.open = None;
                    return Ok(Some(skipped(partition, first, end)));
                }
            }
        }
    }
}

fn skipped(partition: u32, first: u64, next: u64) -> Delivery {
    let reason = "the file is damaged: a checksum is wrong".to_owned();
    Delivery::Skipped { partition, first, next, reason }
}

impl Source for EmbeddedSource {
    fn next(&mut self, wait: Duration) -> Result<Option<Delivery>, SourceError> {
        let deadline = Instant::now() + wait;
        loop {
            if let Some(delivery) = self.ready.pop_front() {
                return Ok(Some(delivery));
            }
            if let Some(delivery) = self.read()? {
                return Ok(Some(delivery));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let state = self.shared.state();
            if left.is_zero() || state.is_closed {
                return Ok(None);
            }
            let grown = |state: &super::State| {
                self.cursors.iter().any(|(partition, cursor)| cursor.next < state.partitions[*partition as usize].end())
            };
            let waited = self.shared.grown.wait_timeout_while(state, left, |state| !grown(state) && !state.is_closed);
            drop(waited);
            if !self.has_more() {
                return Ok(None);
            }
        }
    }

    fn begin(&mut self, partition: u32, offset: u64) -> Result<(), SourceError> {
        let state = self.shared.state();
        let Some(known) = state.partitions.get(partition as usize) else {
            return Err(SourceError::Refused {
                log: self.shared.dir.display().to_string(),
                act: "read",
                reason: format!("it has no partition {partition}"),
            });
        };
        let next = offset.max(known.start());
        drop(state);
        self.cursors.insert(partition, Cursor { next, open: None });
        Ok(())
    }

    fn commit(&mut self, partition: u32, offset: u64) -> Result<(), SourceError> {
        if let Some(known) = self.shared.state().partitions.get_mut(partition as usize) {
            known.consume(self.reader, offset);
        }
        Ok(())
    }
}
