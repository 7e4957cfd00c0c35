//! Sorts more rows than fit in memory: sorted chunks, spilled to one temporary file, merged while read.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::{Arc, Mutex, PoisonError};

use bytemuck::Pod;

use crate::IngestError;
use crate::limits::{SORT_CHUNK_ROWS, SPILL_BLOCK_BYTES};

/// Where all sorters put rows that do not fit; the file has no name and is gone with the last of them.
#[derive(Debug, Default)]
pub(crate) struct SpillFile(Mutex<SpillState>);

#[derive(Debug, Default)]
struct SpillState {
    file: Option<File>,
    end: u64,
}

impl SpillFile {
    fn append(&self, bytes: &[u8]) -> Result<u64, IngestError> {
        let spill = |source| IngestError::Spill { source };
        // The state is consistent between calls: a panic elsewhere cannot have broken it.
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.file.is_none() {
            state.file = Some(tempfile::tempfile().map_err(spill)?);
        }
        let offset = state.end;
        let file = state.file.as_mut().expect("opened above");
        file.seek(SeekFrom::Start(offset)).and_then(|_| file.write_all(bytes)).map_err(spill)?;
        state.end += bytes.len() as u64;
        Ok(offset)
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), IngestError> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let file = state.file.as_mut().expect("an offset comes from `append`, which opened the file");
        file.seek(SeekFrom::Start(offset))
            .and_then(|_| file.read_exact(bytes))
            .map_err(|source| IngestError::Spill { source })
    }
}

/// Collects rows and gives them back in the order of their keys; equal keys keep no particular order.
///
/// Input that is sorted already stays one run of chunks and is neither sorted nor merged.
#[derive(Debug)]
pub(crate) struct Sorter<T, K> {
    key: fn(&T) -> K,
    chunk: Vec<T>,
    chunk_rows: usize,
    memory: Vec<Run<T, K>>,
    disk: Vec<Run<T, K>>,
    rows_in_memory: usize,
    rows: usize,
    spill: Arc<SpillFile>,
}

/// Chunks in order: none begins before the one before it ends.
#[derive(Debug)]
struct Run<T, K> {
    segments: Vec<Segment<T>>,
    last: K,
}

#[derive(Clone, Debug)]
enum Segment<T> {
    Memory(Vec<T>),
    Disk { offset: u64, rows: usize },
}

impl<T: Pod, K: Ord + Copy> Sorter<T, K> {
    pub(crate) fn new(key: fn(&T) -> K, spill: Arc<SpillFile>) -> Self {
        Self::with_chunk_rows(key, spill, SORT_CHUNK_ROWS)
    }

    fn with_chunk_rows(key: fn(&T) -> K, spill: Arc<SpillFile>, chunk_rows: usize) -> Self {
        let (memory, disk) = (Vec::new(), Vec::new());
        Self { key, chunk: Vec::new(), chunk_rows, memory, disk, rows_in_memory: 0, rows: 0, spill }
    }

    /// A sorter of the same kind without rows.
    pub(crate) fn emptied(&self) -> Self {
        Self::with_chunk_rows(self.key, Arc::clone(&self.spill), self.chunk_rows)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Bytes of rows held in memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.rows_in_memory * size_of::<T>()
    }

    pub(crate) fn push(&mut self, row: T) {
        self.chunk.push(row);
        self.rows_in_memory += 1;
        self.rows += 1;
        if self.chunk.len() >= self.chunk_rows {
            self.close_chunk();
            self.chunk.reserve_exact(self.chunk_rows);
        }
    }

    /// Puts all rows held in memory on disk, as one sorted run.
    ///
    /// # Errors
    /// [`IngestError::Spill`]
    pub(crate) fn spill(&mut self) -> Result<(), IngestError> {
        self.close_chunk();
        let Some(first) = self.memory.iter().filter_map(|run| run.first(self.key)).min() else { return Ok(()) };
        let last = self.memory.iter().map(|run| run.last).max().expect("there is a run");
        let mut segments = Vec::new();
        let mut block = Vec::with_capacity(self.chunk_rows);
        let write = |block: &mut Vec<T>, segments: &mut Vec<Segment<T>>| {
            let offset = self.spill.append(bytemuck::cast_slice(block))?;
            segments.push(Segment::Disk { offset, rows: block.len() });
            block.clear();
            Ok(())
        };
        for row in Merge::new(std::mem::take(&mut self.memory), self.key, &self.spill) {
            block.push(row?);
            if block.len() >= self.chunk_rows {
                write(&mut block, &mut segments)?;
            }
        }
        if !block.is_empty() {
            write(&mut block, &mut segments)?;
        }
        add_run(&mut self.disk, first, Run { segments, last });
        self.rows_in_memory = 0;
        Ok(())
    }

    /// Calls `each` on every row, in no particular order, and keeps them.
    ///
    /// # Errors
    /// [`IngestError::Spill`]
    pub(crate) fn for_each(&self, mut each: impl FnMut(&T)) -> Result<(), IngestError> {
        self.chunk.iter().for_each(&mut each);
        let mut block = Vec::new();
        for segment in self.memory.iter().chain(&self.disk).flat_map(|run| &run.segments) {
            match segment {
                Segment::Memory(rows) => rows.iter().for_each(&mut each),
                Segment::Disk { offset, rows } => {
                    block.resize(*rows, T::zeroed());
                    self.spill.read(*offset, bytemuck::cast_slice_mut(&mut block))?;
                    block.iter().for_each(&mut each);
                }
            }
        }
        Ok(())
    }

    /// The rows in order; memory is freed as they are taken.
    pub(crate) fn into_rows(mut self) -> Merge<T, K> {
        self.close_chunk();
        self.disk.append(&mut self.memory);
        Merge::new(self.disk, self.key, &self.spill)
    }

    fn close_chunk(&mut self) {
        let chunk = std::mem::take(&mut self.chunk);
        let chunk = if chunk.is_sorted_by_key(self.key) { chunk } else { sorted(&chunk, self.key) };
        let (Some(first), Some(last)) = (chunk.first().map(self.key), chunk.last().map(self.key)) else { return };
        add_run(&mut self.memory, first, Run { segments: vec![Segment::Memory(chunk)], last });
    }
}

/// Sorts keys with places, which are smaller than rows, and then moves every row once.
fn sorted<T: Pod, K: Ord + Copy>(rows: &[T], key: fn(&T) -> K) -> Vec<T> {
    let mut order: Vec<(K, u32)> = rows.iter().zip(0..).map(|(row, place)| (key(row), place)).collect();
    order.sort_by_key(|&(key, _)| key);
    order.iter().map(|&(_, place)| rows[place as usize]).collect()
}

/// Adds a run, at the end of one that it continues where there is one.
fn add_run<T, K: Ord>(runs: &mut Vec<Run<T, K>>, first: K, mut run: Run<T, K>) {
    match runs.iter_mut().rev().find(|known| known.last <= first) {
        Some(known) => {
            known.segments.append(&mut run.segments);
            known.last = run.last;
        }
        None => runs.push(run),
    }
}

impl<T: Pod, K> Run<T, K> {
    /// The first key of a run in memory.
    fn first(&self, key: fn(&T) -> K) -> Option<K> {
        match self.segments.first()? {
            Segment::Memory(rows) => rows.first().map(key),
            Segment::Disk { .. } => None,
        }
    }
}

/// Rows of sorted runs, in order.
#[derive(Debug)]
pub(crate) struct Merge<T, K> {
    key: fn(&T) -> K,
    cursors: Vec<Cursor<T>>,
    heap: BinaryHeap<Reverse<(K, usize)>>,
    /// What went wrong at the beginning, to be told first.
    failure: Option<IngestError>,
}

impl<T: Pod, K: Ord + Copy> Merge<T, K> {
    fn new(runs: Vec<Run<T, K>>, key: fn(&T) -> K, spill: &Arc<SpillFile>) -> Self {
        let mut cursors: Vec<Cursor<T>> = Vec::new();
        let (mut heap, mut failure) = (BinaryHeap::new(), None);
        for run in runs {
            let mut cursor = Cursor {
                segments: run.segments.into_iter(),
                block: Vec::new(),
                position: 0,
                offset: 0,
                rows: 0,
                spill: Arc::clone(spill),
            };
            match cursor.head() {
                Ok(Some(row)) => {
                    heap.push(Reverse((key(row), cursors.len())));
                    cursors.push(cursor);
                }
                Ok(None) => {}
                Err(error) => failure = Some(error),
            }
        }
        Self { key, cursors, heap, failure }
    }
}

impl<T: Pod, K: Ord + Copy> Iterator for Merge<T, K> {
    type Item = Result<T, IngestError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(failure) = self.failure.take() {
            return Some(Err(failure));
        }
        let mut top = self.heap.peek_mut()?;
        let cursor = &mut self.cursors[top.0.1];
        let row = cursor.block[cursor.position];
        cursor.position += 1;
        match cursor.head() {
            Ok(Some(head)) => top.0.0 = (self.key)(head),
            Ok(None) => _ = PeekMut::pop(top),
            Err(error) => {
                PeekMut::pop(top);
                return Some(Err(error));
            }
        }
        Some(Ok(row))
    }
}

/// Walks one run.
#[derive(Debug)]
struct Cursor<T> {
    segments: std::vec::IntoIter<Segment<T>>,
    block: Vec<T>,
    position: usize,
    /// What is left on disk of the segment begun.
    offset: u64,
    rows: usize,
    spill: Arc<SpillFile>,
}

impl<T: Pod> Cursor<T> {
    /// The row the cursor stands on; `None` at the end.
    fn head(&mut self) -> Result<Option<&T>, IngestError> {
        while self.position >= self.block.len() {
            self.position = 0;
            if self.rows == 0 {
                match self.segments.next() {
                    Some(Segment::Memory(rows)) => self.block = rows,
                    Some(Segment::Disk { offset, rows }) => (self.offset, self.rows) = (offset, rows),
                    None => {
                        self.block = Vec::new();
                        return Ok(None);
                    }
                }
            }
            if self.rows > 0 {
                let rows = self.rows.min((SPILL_BLOCK_BYTES / size_of::<T>()).max(1));
                self.block.resize(rows, T::zeroed());
                self.spill.read(self.offset, bytemuck::cast_slice_mut(&mut self.block))?;
                self.offset += (rows * size_of::<T>()) as u64;
                self.rows -= rows;
            }
        }
        Ok(self.block.get(self.position))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sorter(chunk_rows: usize) -> Sorter<[u64; 2], u64> {
        Sorter::with_chunk_rows(|row| row[0], Arc::default(), chunk_rows)
    }

    fn drain(sorter: Sorter<[u64; 2], u64>) -> Vec<[u64; 2]> {
        sorter.into_rows().map(|row| row.expect("read back")).collect()
    }

    proptest! {
        #[test]
        fn rows_come_back_in_order_and_none_is_lost_when_they_spill(
            keys in prop::collection::vec(0_u64..50, 0..400),
            spills in prop::collection::vec(0_usize..400, 0..5),
            chunk_rows in 1_usize..20,
        ) {
            let mut sorter = sorter(chunk_rows);
            let mut expected: Vec<[u64; 2]> = Vec::new();
            for (index, &key) in keys.iter().enumerate() {
                sorter.push([key, index as u64]);
                expected.push([key, index as u64]);
                if spills.contains(&index) {
                    sorter.spill().expect("spilled");
                    prop_assert_eq!(sorter.memory_bytes(), 0);
                }
            }
            let mut walked = Vec::new();
            sorter.for_each(|row| walked.push(*row)).expect("walked");
            let mut rows = drain(sorter);
            prop_assert!(rows.is_sorted_by_key(|row| row[0]));
            rows.sort_unstable();
            walked.sort_unstable();
            expected.sort_unstable();
            prop_assert_eq!(&rows, &expected);
            prop_assert_eq!(&walked, &expected);
        }
    }

    #[test]
    fn sorted_input_stays_one_run_on_disk_and_in_memory() {
        let mut sorter = sorter(10);
        for key in 0..100 {
            sorter.push([key, 0]);
            if key == 40 || key == 70 {
                sorter.spill().expect("spilled");
            }
        }
        assert_eq!((sorter.disk.len(), sorter.memory.len()), (1, 1));
        let keys: Vec<u64> = drain(sorter).iter().map(|row| row[0]).collect();
        assert_eq!(keys, (0..100).collect::<Vec<_>>());
    }
}
