//! Lines of a text file, plain or compressed, each of bounded length.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;

use crate::cell::Refusal;
use crate::folder::TableSource;
use crate::limits::LINE_BYTES_MAX;
use crate::reject::reason;
use crate::{Format, IngestError, Place, Reject, Rejects};

/// Bytes asked of the disk and of the decompressor at once.
const BUFFER_BYTES: usize = 64 << 10;
/// The byte-order mark that some programs write before text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A line without its end, and its number from 1.
#[derive(Clone, Debug, Default)]
pub(crate) struct Line {
    pub(crate) number: u64,
    pub(crate) bytes: Vec<u8>,
}

impl TableSource {
    /// A line that was refused.
    pub(crate) fn refused(&self, line: &Line, refusal: Refusal) -> Reject {
        let row = Some(String::from_utf8_lossy(&line.bytes).into_owned());
        let reject = self.reject(Place::Line(line.number), refusal.reason, refusal.detail);
        Reject { column: refusal.column, row, ..reject }
    }
}

/// Hands out the lines of a file. What cannot be read is counted, and everything before it is good.
pub(crate) struct Lines<'a> {
    source: &'a TableSource,
    input: Box<dyn BufRead>,
    returned: VecDeque<Line>,
    spare: Vec<Vec<u8>>,
    /// Lines read so far.
    count: u64,
    /// Bytes read so far, after decompression.
    bytes: u64,
    is_at_end: bool,
    /// The stream broke, and is read again byte by byte up to the damage.
    is_careful: bool,
}

impl<'a> Lines<'a> {
    /// # Errors
    /// [`IngestError::ReadFile`] when the file cannot be opened.
    pub(crate) fn open(source: &'a TableSource) -> Result<Self, IngestError> {
        let input = open(source, 0, BUFFER_BYTES)
            .map_err(|cause| IngestError::ReadFile { path: source.path.clone(), source: cause })?;
        let (returned, spare) = (VecDeque::new(), Vec::new());
        Ok(Self { source, input, returned, spare, count: 0, bytes: 0, is_at_end: false, is_careful: false })
    }

    /// The next line; `None` at the end of the file, or where it breaks off.
    ///
    /// # Errors
    /// [`IngestError::ReadFile`] when the disk fails.
    pub(crate) fn next(&mut self, rejects: &mut Rejects) -> Result<Option<Line>, IngestError> {
        if let Some(line) = self.returned.pop_front() {
            return Ok(Some(line));
        }
        while !self.is_at_end {
            let mut bytes = self.spare.pop().unwrap_or_default();
            bytes.clear();
            match self.read_line(&mut bytes) {
                Ok(Read1::Line) => return Ok(Some(Line { number: self.count, bytes })),
                Ok(Read1::TooLong) => {
                    let detail = format!("more than {} MiB", LINE_BYTES_MAX >> 20);
                    rejects.add(&self.source.reject(Place::Line(self.count), reason::LINE_TOO_LONG, detail));
                }
                Ok(Read1::End) => self.is_at_end = true,
                Err(cause) => {
                    self.is_at_end = true;
                    self.broke_off(cause, rejects)?;
                    return Ok(None);
                }
            }
        }
        if self.bytes == 0 && self.count == 0 {
            self.bytes = 1; // Told once.
            rejects.add(&self.source.reject(Place::File, reason::EMPTY_FILE, ""));
        }
        Ok(None)
    }

    /// Hands lines back, to be handed out again next.
    pub(crate) fn give_back(&mut self, lines: impl DoubleEndedIterator<Item = Line>) {
        lines.rev().for_each(|line| self.returned.push_front(line));
    }

    /// Takes the memory of a line that is done with.
    pub(crate) fn reuse(&mut self, line: Line) {
        self.spare.push(line.bytes);
    }

    fn broke_off(&mut self, cause: std::io::Error, rejects: &mut Rejects) -> Result<(), IngestError> {
        self.bytes = self.bytes.max(1); // Damaged, not empty.
        if cause.raw_os_error().is_some() {
            return Err(IngestError::ReadFile { path: self.source.path.clone(), source: cause });
        }
        // A line cut by the damage may look whole (`1.25` of `1.2578`), so it is not read.
        let detail = format!("after {} bytes of text: {cause}", self.bytes);
        rejects.add(&self.source.reject(Place::Line(self.count + 1), reason::BROKEN_STREAM, detail));
        Ok(())
    }

    fn read_line(&mut self, line: &mut Vec<u8>) -> std::io::Result<Read1> {
        let mut is_too_long = false;
        loop {
            let available = match self.input.fill_buf() {
                Ok(available) => available,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                // A decompressor that fails keeps back what it had decoded in this call: asked for single bytes it
                // gives all of them.
                Err(error) if error.raw_os_error().is_none() && !self.is_careful => {
                    self.is_careful = true;
                    self.input = open(self.source, self.bytes, 1)?;
                    continue;
                }
                Err(error) => return Err(error),
            };
            if available.is_empty() && line.is_empty() && !is_too_long {
                return Ok(Read1::End);
            }
            let end = available.iter().position(|&byte| byte == b'\n');
            let taken = end.unwrap_or(available.len());
            is_too_long |= line.len() + taken > LINE_BYTES_MAX;
            if is_too_long {
                *line = Vec::new();
            } else {
                line.extend_from_slice(&available[..taken]);
            }
            let is_done = end.is_some() || available.is_empty();
            let used = taken + usize::from(end.is_some());
            self.input.consume(used);
            self.bytes += used as u64;
            if is_done {
                self.count += 1;
                self.clean(line);
                return Ok(if is_too_long { Read1::TooLong } else { Read1::Line });
            }
        }
    }

    fn clean(&self, line: &mut Vec<u8>) {
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        if self.count == 1 && line.starts_with(BYTE_ORDER_MARK) {
            line.drain(..BYTE_ORDER_MARK.len());
        }
    }
}

enum Read1 {
    Line,
    TooLong,
    End,
}

/// The text of a file from a byte on, asked for in pieces of a size.
fn open(source: &TableSource, skipped: u64, piece_bytes: usize) -> std::io::Result<Box<dyn BufRead>> {
    let file = BufReader::with_capacity(BUFFER_BYTES, File::open(&source.path)?);
    let mut decoded: Box<dyn Read> = match source.format {
        Format::Csv | Format::Jsonl | Format::Parquet => return Ok(Box::new(file)),
        Format::CsvGz | Format::JsonlGz => Box::new(MultiGzDecoder::new(file)),
        Format::CsvZst | Format::JsonlZst => Box::new(zstd::Decoder::with_buffer(file)?),
    };
    std::io::copy(&mut decoded.by_ref().take(skipped), &mut std::io::sink())?;
    Ok(Box::new(BufReader::with_capacity(piece_bytes, decoded)))
}
