//! One partition: its segments, oldest first, and where the next record goes.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::segment::{Found, Segment, SegmentReader, encode};
use super::{EmbeddedOptions, disk};
use crate::SourceError;

/// A partition that is open for appending. Only what is synced counts.
#[derive(Debug)]
pub(super) struct Partition {
    dir: PathBuf,
    options: EmbeddedOptions,
    segments: Vec<Segment>,
    file: File,
    end: u64,
    append_time: i64,
    /// What is durable with each reader: everything before.
    consumed: BTreeMap<u64, u64>,
}

impl Partition {
    pub(super) fn open(log: &Path, index: u32, options: EmbeddedOptions) -> Result<Self, SourceError> {
        let dir = log.join(format!("partition-{index}"));
        fs::create_dir_all(&dir).map_err(|source| disk("create", &dir, source))?;
        let mut segments = find(&dir)?;
        if segments.is_empty() {
            segments.push(Segment { path: Segment::path_of(&dir, 0), first: 0, bytes: 0 });
        }
        let last = segments.last_mut().expect("one was added");
        let file = OpenOptions::new().create(true).write(true).truncate(false).open(&last.path);
        let mut file = file.map_err(|source| disk("open", &last.path, source))?;
        let (end, append_time) = recover(last).map_err(|source| disk("read", &last.path, source))?;
        // A crash leaves a torn tail; nobody was told that it is durable.
        file.set_len(last.bytes).map_err(|source| disk("cut", &last.path, source))?;
        file.seek(SeekFrom::End(0)).map_err(|source| disk("open", &last.path, source))?;
        Ok(Self { dir, options, segments, file, end, append_time, consumed: BTreeMap::new() })
    }

    /// The next offset.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// The oldest offset that is there.
    pub(super) fn start(&self) -> u64 {
        self.segments.first().map_or(self.end, |segment| segment.first)
    }

    /// The segment in which an offset stands, or the first one after it.
    pub(super) fn segment_of(&self, offset: u64) -> Option<&Segment> {
        let after = self.segments.partition_point(|segment| segment.first <= offset);
        self.segments.get(after.saturating_sub(1))
    }

    /// The segment that follows one.
    pub(super) fn segment_after(&self, first: u64) -> Option<&Segment> {
        self.segments.iter().find(|segment| segment.first > first)
    }

    /// Appends records and syncs them; either all are durable, or none is in the log.
    ///
    /// Returns the offset of the first one.
    pub(super) fn append(&mut self, values: &[&[u8]], now: i64) -> Result<u64, SourceError> {
        if self.active().bytes >= self.options.segment_bytes {
            self.roll()?;
        }
        let append_time = now.max(self.append_time);
        let mut bytes = Vec::with_capacity(values.iter().map(|value| value.len() + 64).sum());
        for (offset, value) in (self.end..).zip(values) {
            encode(offset, append_time, value, &mut bytes);
        }
        let written = self.file.write_all(&bytes).and_then(|()| self.file.sync_data());
        if let Err(source) = written {
            self.undo();
            return Err(disk("append to", &self.active().path, source));
        }
        let first = self.end;
        self.active_mut().bytes += bytes.len() as u64;
        self.end += values.len() as u64;
        self.append_time = append_time;
        Ok(first)
    }

    /// Lets a reader in: what it has not consumed is kept.
    pub(super) fn join(&mut self, reader: u64) {
        self.consumed.insert(reader, 0);
    }

    /// A reader has gone.
    pub(super) fn leave(&mut self, reader: u64) {
        self.consumed.remove(&reader);
    }

    /// Notes that everything before an offset is durable with a reader, and removes segments that all have consumed.
    pub(super) fn consume(&mut self, reader: u64, offset: u64) {
        let known = self.consumed.entry(reader).or_default();
        *known = (*known).max(offset);
        let consumed = self.consumed.values().copied().min().unwrap_or(0);
        let mut kept: u64 = self.segments.iter().map(|segment| segment.bytes).sum();
        while self.segments.len() > 1
            && self.segments[1].first <= consumed
            && kept - self.segments[0].bytes >= self.options.kept_bytes
        {
            // A segment that cannot be removed now is tried again with the next one.
            if fs::remove_file(&self.segments[0].path).is_err() {
                return;
            }
            kept -= self.segments.remove(0).bytes;
        }
    }

    fn active(&self) -> &Segment {
        self.segments.last().expect("there is always one")
    }

    fn active_mut(&mut self) -> &mut Segment {
        self.segments.last_mut().expect("there is always one")
    }

    fn roll(&mut self) -> Result<(), SourceError> {
        let path = Segment::path_of(&self.dir, self.end);
        let file = OpenOptions::new().create(true).write(true).truncate(true).open(&path);
        self.file = file.map_err(|source| disk("create", &path, source))?;
        // The name must be durable before a record in it is.
        let synced = File::open(&self.dir).and_then(|dir| dir.sync_all());
        synced.map_err(|source| disk("sync", &self.dir, source))?;
        self.segments.push(Segment { path, first: self.end, bytes: 0 });
        Ok(())
    }

    /// Takes half-written bytes back, as far as the disk lets us; what stays is cut off at the next opening, and
    /// overwritten before.
    fn undo(&mut self) {
        let bytes = self.active().bytes;
        let _ = self.file.set_len(bytes);
        let _ = self.file.seek(SeekFrom::Start(bytes));
    }
}

/// The segments in a folder, oldest first.
fn find(dir: &Path) -> Result<Vec<Segment>, SourceError> {
    let failed = |source| disk("list", dir, source);
    let mut segments = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let Some(first) = Segment::first_of(&path) else { continue };
        let bytes = fs::metadata(&path).map_err(|source| disk("read", &path, source))?.len();
        segments.push(Segment { path, first, bytes });
    }
    segments.sort_by_key(|segment| segment.first);
    Ok(segments)
}

/// Finds the end of the newest segment; gives the next offset and the newest append time.
fn recover(segment: &mut Segment) -> std::io::Result<(u64, i64)> {
    let mut reader = SegmentReader::open(&segment.path, 0)?;
    let (mut end, mut append_time, mut good) = (segment.first, i64::MIN, 0);
    loop {
        match reader.next(segment.bytes)? {
            Found::Record(record) => {
                end = record.offset + 1;
                append_time = append_time.max(record.append_time);
                good = reader.position();
            }
            // A record behind it is good, so this one was durable once: it stays, and readers skip it.
            Found::Damaged { .. } => {}
            Found::End => break,
        }
    }
    segment.bytes = good;
    Ok((end, append_time))
}
