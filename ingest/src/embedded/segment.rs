//! One file of a partition: records one after the other, each with its checksum.
//!
//! A record is: CRC-32C of what follows (u32), bytes of the value (u32), offset (u64), append time in nanoseconds (i64),
//! value; numbers are little-endian.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::limits::RECORD_BYTES_MAX_IN_LOG;

/// Bytes before the value.
pub(super) const HEADER_BYTES: usize = 24;

/// Where a segment stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) path: PathBuf,
    /// Offset of its first record.
    pub(super) first: u64,
    /// Bytes that are durable.
    pub(super) bytes: u64,
}

impl Segment {
    pub(super) fn path_of(dir: &Path, first: u64) -> PathBuf {
        dir.join(format!("{first:020}.log"))
    }

    /// The first offset, from the file's name.
    pub(super) fn first_of(path: &Path) -> Option<u64> {
        if path.extension()? != "log" {
            return None;
        }
        path.file_stem()?.to_str()?.parse().ok()
    }
}

/// One record as it is read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct StoredRecord {
    pub(super) offset: u64,
    pub(super) append_time: i64,
    pub(super) value: Vec<u8>,
}

/// What stands at a place of a segment.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    Record(StoredRecord),
    /// The bytes up to the next record are damaged, but where they end is known.
    Damaged {
        bytes: u64,
    },
    /// Nothing that can be read follows.
    End,
}

/// Appends a record to a buffer.
pub(super) fn encode(offset: u64, append_time: i64, value: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    let length = u32::try_from(value.len()).expect("larger records are refused before");
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&offset.to_le_bytes());
    out.extend_from_slice(&append_time.to_le_bytes());
    out.extend_from_slice(value);
    let checksum = crc32c::crc32c(&out[start + 4..]);
    out[start..start + 4].copy_from_slice(&checksum.to_le_bytes());
}

/// Append time of the newest record in a folder of segments that can be read.
pub(super) fn newest_time(dir: &Path) -> Option<i64> {
    let paths = std::fs::read_dir(dir).ok()?.flatten().map(|entry| entry.path());
    let (_, path) = paths.filter_map(|path| Some((Segment::first_of(&path)?, path))).max()?;
    let bytes = path.metadata().ok()?.len();
    let (mut reader, mut newest) = (SegmentReader::open(&path, 0).ok()?, None);
    // What is being appended at this moment may be half there: it ends the reading.
    while let Ok(found) = reader.next(bytes) {
        match found {
            Found::Record(record) => newest = newest.max(Some(record.append_time)),
            Found::Damaged { .. } => {}
            Found::End => break,
        }
    }
    newest
}

/// Reads a segment from a place on.
#[derive(Debug)]
pub(super) struct SegmentReader {
    file: BufReader<File>,
    position: u64,
}

impl SegmentReader {
    pub(super) fn open(path: &Path, position: u64) -> std::io::Result<Self> {
        let mut file = BufReader::with_capacity(1 << 18, File::open(path)?);
        file.seek(SeekFrom::Start(position))?;
        Ok(Self { file, position })
    }

    /// Bytes read so far, from the beginning of the segment.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// What comes next, up to `end` bytes from the beginning.
    pub(super) fn next(&mut self, end: u64) -> std::io::Result<Found> {
        let left = end.saturating_sub(self.position);
        if left < HEADER_BYTES as u64 {
            return Ok(Found::End);
        }
        let mut header = [0; HEADER_BYTES];
        self.file.read_exact(&mut header)?;
        let length = u32::from_le_bytes(header[4..8].try_into().expect("four bytes")) as usize;
        let bytes = (HEADER_BYTES + length) as u64;
        if length > RECORD_BYTES_MAX_IN_LOG || bytes > left {
            return Ok(Found::End);
        }
        let mut value = vec![0; length];
        self.file.read_exact(&mut value)?;
        self.position += bytes;
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&header[4..]), &value);
        if checksum.to_le_bytes() != header[..4] {
            return Ok(Found::Damaged { bytes });
        }
        let offset = u64::from_le_bytes(header[8..16].try_into().expect("eight bytes"));
        let append_time = i64::from_le_bytes(header[16..24].try_into().expect("eight bytes"));
        Ok(Found::Record(StoredRecord { offset, append_time, value }))
    }
}
