//! Rows and files that were set aside: counted with reason and first place, and kept whole where somebody asks.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use trainwarden_telemetry::Table;

use crate::IngestError;
use crate::limits::REJECT_ROW_BYTES_MAX;

/// Why something was set aside: short, stable codes that callers may match on.
pub mod reason {
    /// A pipe, a socket or a device.
    pub const NOT_A_FILE: &str = "not a regular file";
    /// A file of no bytes; one with only a header is good.
    pub const EMPTY_FILE: &str = "empty file";
    /// A required column is not in the file.
    pub const NO_COLUMN: &str = "no column";
    /// A column of a Parquet file has a type that cannot hold what the table needs.
    pub const WRONG_TYPE: &str = "wrong type";
    /// A file given by name that is no table.
    pub const NOT_A_TABLE: &str = "not a table";
    /// A row group or file that cannot be decoded.
    pub const DAMAGED: &str = "damaged";
    /// A compressed stream that ends or breaks before its end.
    pub const BROKEN_STREAM: &str = "stream broken off";
    /// A line longer than the limit.
    pub const LINE_TOO_LONG: &str = "line too long";
    /// A CSV row with more or fewer fields than the header.
    pub const FIELD_COUNT: &str = "wrong number of fields";
    /// A quoted CSV field that does not end.
    pub const OPEN_QUOTE: &str = "quote not closed";
    /// Text that is not UTF-8.
    pub const INVALID_UTF8: &str = "invalid UTF-8";
    /// A line that is not JSON.
    pub const INVALID_JSON: &str = "invalid JSON";
    /// A line of JSON that is not an object.
    pub const NOT_AN_OBJECT: &str = "not an object";
    /// A required cell is empty.
    pub const MISSING: &str = "missing value";
    /// A cell that should be a number.
    pub const NOT_A_NUMBER: &str = "not a number";
    /// A cell that should be a whole number.
    pub const NOT_AN_INTEGER: &str = "not an integer";
    /// A cell that should be text.
    pub const NOT_TEXT: &str = "not text";
    /// A negative number where none can be.
    pub const NEGATIVE: &str = "negative";
    /// A number beyond what the column can hold.
    pub const OUT_OF_RANGE: &str = "out of range";
    /// A second, different row of `ranks` for one rank.
    pub const CONFLICTING: &str = "conflicting row";
}

/// Where in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The file as a whole.
    File,
    /// Line of a text file, from 1.
    Line(u64),
    /// Row of a Parquet file, from 1.
    Row(u64),
    /// Row group of a Parquet file, from 1.
    RowGroup(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File => f.write_str("file"),
            Self::Line(number) => write!(f, "line {number}"),
            Self::Row(number) => write!(f, "row {number}"),
            Self::RowGroup(number) => write!(f, "row group {number}"),
        }
    }
}

/// One row, row group or file that was set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// The file, as found.
    pub file: PathBuf,
    /// Where in the file.
    pub place: Place,
    /// The table it would have belonged to, if known.
    pub table: Option<Table>,
    /// The column at fault, where one is.
    pub column: Option<&'static str>,
    /// One of [`reason`].
    pub reason: &'static str,
    /// What was found.
    pub detail: String,
    /// The row as it stood in the file, where there is one; cut at 4 KiB when it is kept.
    pub row: Option<String>,
}

impl Reject {
    /// Reason and column in words, such as "value: not a number".
    fn what(&self) -> String {
        match self.column {
            Some(column) if self.reason == reason::NO_COLUMN => format!("no column `{column}`"),
            Some(column) => format!("{column}: {}", self.reason),
            None => self.reason.to_owned(),
        }
    }
}

#[derive(Debug)]
struct Tally {
    count: u64,
    place: Place,
    detail: String,
}

/// Counts what is set aside by file and reason, and writes each to a file where asked to.
///
/// Memory grows with files and kinds of damage, not with rows.
#[derive(Debug, Default)]
pub struct Rejects {
    tallies: BTreeMap<(PathBuf, String), Tally>,
    path: Option<PathBuf>,
    file: Option<BufWriter<File>>,
    failure: Option<std::io::Error>,
}

impl Rejects {
    /// Counts only.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts, and writes each to `rejects.jsonl` in `dir`; folder and file are made at the first one.
    #[must_use]
    pub fn keep_in(dir: &Path) -> Self {
        Self { path: Some(dir.join("rejects.jsonl")), ..Self::default() }
    }

    /// Counts one, and writes it down where asked to.
    pub fn add(&mut self, reject: &Reject) {
        if self.failure.is_none() {
            // A full disk must not stop the reading of good rows; `finish` tells of it.
            self.failure = self.write(reject).err();
        }
        self.tallies.entry((reject.file.clone(), reject.what())).and_modify(|tally| tally.count += 1).or_insert_with(
            || Tally { count: 1, place: reject.place, detail: cut(&reject.detail, DETAIL_BYTES_MAX).to_owned() },
        );
    }

    /// How many were set aside.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.tallies.values().map(|tally| tally.count).sum()
    }

    /// One line a file and reason: `samples.csv: 3 rows set aside: value: not a number (first at line 17: "abc")`.
    #[must_use]
    pub fn summary(&self) -> Vec<String> {
        self.tallies
            .iter()
            .map(|((file, what), tally)| {
                let Tally { count, place, detail } = tally;
                let separator = if detail.is_empty() { "" } else { ": " };
                let file = file.display();
                match place {
                    Place::File if detail.is_empty() => format!("{file}: set aside: {what}"),
                    Place::File => format!("{file}: set aside: {what} ({detail})"),
                    Place::RowGroup(_) => {
                        let groups = if *count == 1 { "row group" } else { "row groups" };
                        format!("{file}: {count} {groups} set aside: {what} (first at {place}{separator}{detail})")
                    }
                    Place::Line(_) | Place::Row(_) => {
                        let rows = if *count == 1 { "row" } else { "rows" };
                        format!("{file}: {count} {rows} set aside: {what} (first at {place}{separator}{detail})")
                    }
                }
            })
            .collect()
    }

    /// Writes what is buffered.
    ///
    /// # Errors
    /// [`IngestError::WriteFile`] when anything could not be written since the beginning.
    pub fn finish(&mut self) -> Result<(), IngestError> {
        let flushed = self.file.as_mut().map_or(Ok(()), Write::flush);
        let failure = self.failure.take().map_or(flushed, Err);
        failure.map_err(|source| IngestError::WriteFile { path: self.path.clone().unwrap_or_default(), source })
    }

    fn write(&mut self, reject: &Reject) -> std::io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        if self.file.is_none() {
            path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
            self.file = Some(BufWriter::new(File::create(path)?));
        }
        let out = self.file.as_mut().expect("opened above");
        serde_json::to_writer(&mut *out, &Line::from(reject))?;
        out.write_all(b"\n")
    }
}

/// Detail kept for the summary: one line on a terminal.
const DETAIL_BYTES_MAX: usize = 120;

/// One line of `rejects.jsonl`.
#[derive(Serialize)]
struct Line<'a> {
    file: String,
    place: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    table: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    column: Option<&'static str>,
    reason: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    row: Option<&'a str>,
}

impl<'a> From<&'a Reject> for Line<'a> {
    fn from(reject: &'a Reject) -> Self {
        Self {
            file: reject.file.display().to_string(),
            place: reject.place.to_string(),
            table: reject.table.map(Table::as_str),
            column: reject.column,
            reason: reject.reason,
            detail: cut(&reject.detail, REJECT_ROW_BYTES_MAX),
            row: reject.row.as_deref().map(|row| cut(row, REJECT_ROW_BYTES_MAX)),
        }
    }
}

/// The beginning of `text`, at most `bytes` long.
pub(crate) fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reject(line: u64, reason: &'static str) -> Reject {
        Reject {
            file: PathBuf::from("samples.csv"),
            place: Place::Line(line),
            table: Some(Table::Samples),
            column: Some("value"),
            reason,
            detail: "\"abc\"".to_owned(),
            row: Some("é".repeat(REJECT_ROW_BYTES_MAX)),
        }
    }

    #[test]
    fn rejects_are_counted_by_file_and_reason_with_their_first_place() {
        let mut rejects = Rejects::new();
        rejects.add(&reject(17, reason::NOT_A_NUMBER));
        rejects.add(&reject(18, reason::NOT_A_NUMBER));
        rejects.add(&reject(19, reason::MISSING));
        assert_eq!(rejects.count(), 3);
        assert_eq!(
            rejects.summary(),
            [
                "samples.csv: 1 row set aside: value: missing value (first at line 19: \"abc\")",
                "samples.csv: 2 rows set aside: value: not a number (first at line 17: \"abc\")",
            ]
        );
    }

    #[test]
    fn rejects_are_kept_only_where_there_are_some_and_their_rows_are_cut() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let dir = folder.path().join("kept");
        let mut rejects = Rejects::keep_in(&dir);
        rejects.finish().expect("nothing to write");
        assert!(!dir.exists());
        rejects.add(&reject(17, reason::NOT_A_NUMBER));
        rejects.finish().expect("written");
        let text = std::fs::read_to_string(dir.join("rejects.jsonl")).expect("kept");
        let line: serde_json::Value = serde_json::from_str(&text).expect("one line of JSON");
        assert_eq!(line["place"], "line 17");
        assert_eq!(line["row"].as_str().map(str::len), Some(REJECT_ROW_BYTES_MAX));
    }
}
