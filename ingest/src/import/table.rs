//! A CSV file with a header, read row by row; what cannot be read is set aside.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use super::{ImportError, ImportReport};

/// First bytes of a gzip file, and of a Zstandard file: a file is what it holds, not what it is called.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The bytes of a file, decompressed.
pub(super) fn open(path: &Path) -> Result<Box<dyn Read>, ImportError> {
    let failed = |source| ImportError::OpenFile { path: path.to_owned(), source };
    let mut magic = Vec::new();
    File::open(path).map_err(failed)?.take(4).read_to_end(&mut magic).map_err(failed)?;
    let file = BufReader::new(File::open(path).map_err(failed)?);
    if magic.starts_with(&GZIP_MAGIC) {
        Ok(Box::new(BufReader::new(MultiGzDecoder::new(file))))
    } else if magic.starts_with(&ZSTD_MAGIC) {
        Ok(Box::new(zstd::Decoder::with_buffer(file).map_err(failed)?))
    } else {
        Ok(Box::new(file))
    }
}

/// A CSV file with a header.
pub(super) struct CsvFile {
    pub(super) path: PathBuf,
    pub(super) header: Vec<String>,
    reader: csv::Reader<Box<dyn Read>>,
    record: csv::StringRecord,
    is_ended: bool,
}

impl CsvFile {
    /// Opens `path` and reads its header; an empty or unreadable one is set aside and gives `None`.
    pub(super) fn open(path: &Path, report: &mut ImportReport) -> Result<Option<Self>, ImportError> {
        // Short and long rows are ours to judge, so the reader lets them through.
        let reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(open(path)?);
        let record = csv::StringRecord::new();
        let mut file = Self { path: path.to_owned(), header: Vec::new(), reader, record, is_ended: false };
        match file.reader.read_record(&mut file.record) {
            Ok(true) => {}
            Ok(false) => {
                report.set_row_aside(path, "line 1".to_owned(), "the file is empty".to_owned());
                return Ok(None);
            }
            Err(error) => {
                report.set_row_aside(path, "line 1".to_owned(), format!("the header cannot be read: {error}"));
                return Ok(None);
            }
        }
        // Spreadsheets put a byte order mark before the first name.
        file.header = file.record.iter().map(|name| name.trim_start_matches('\u{feff}').trim().to_owned()).collect();
        Ok(Some(file))
    }

    /// Goes to the next good row; its line, or `None` at the end. Broken rows are set aside on the way.
    pub(super) fn next_line(&mut self, report: &mut ImportReport) -> Option<u64> {
        while !self.is_ended {
            let line = self.reader.position().line();
            match self.reader.read_record(&mut self.record) {
                Ok(false) => self.is_ended = true,
                Ok(true) if self.record.len() == self.header.len() => {
                    report.rows_read += 1;
                    return Some(self.record.position().map_or(line, csv::Position::line));
                }
                Ok(true) => {
                    report.rows_read += 1;
                    let (cells, names) = (self.record.len(), self.header.len());
                    let line = self.record.position().map_or(line, csv::Position::line);
                    let reason = format!("{cells} cells where the header has {names}");
                    report.set_row_aside(&self.path, format!("line {line}"), reason);
                }
                Err(error) => self.set_broken_aside(line, &error, report),
            }
        }
        None
    }

    fn set_broken_aside(&mut self, line: u64, error: &csv::Error, report: &mut ImportReport) {
        let reason = match error.kind() {
            csv::ErrorKind::Io(cause) => {
                self.is_ended = true;
                format!("the file breaks off here: {cause}")
            }
            csv::ErrorKind::Utf8 { .. } => "the row is no UTF-8 text".to_owned(),
            _ => error.to_string(),
        };
        report.rows_read += 1;
        report.set_row_aside(&self.path, format!("line {line}"), reason);
    }

    /// The text of a cell of the present row, without surrounding space.
    pub(super) fn cell(&self, column: usize) -> &str {
        self.record.get(column).unwrap_or_default().trim()
    }

    /// The column of exactly this name.
    pub(super) fn column(&self, name: &str) -> Option<usize> {
        self.header.iter().position(|column| column == name)
    }

    /// The header for an error message.
    pub(super) fn columns_quoted(&self) -> String {
        quoted(&self.header)
    }
}

/// Names for an error message: `` `a`, `b` ``.
pub(super) fn quoted<S: AsRef<str>>(names: &[S]) -> String {
    names.iter().map(|name| format!("`{}`", name.as_ref())).collect::<Vec<_>>().join(", ")
}

/// True for the ways to write that there is no value.
pub(super) fn is_missing(text: &str) -> bool {
    text.is_empty() || ["null", "none", "na", "n/a"].iter().any(|missing| text.eq_ignore_ascii_case(missing))
}

/// A number; `nan` and `inf` are logged values, an empty cell is `Ok(None)`.
pub(super) fn number(text: &str) -> Result<Option<f64>, String> {
    if is_missing(text) {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| format!("`{text}` is no number"))
}

/// A whole number from 0, also when it is written as `100.0`; an empty cell is `Ok(None)`.
pub(super) fn whole(text: &str) -> Result<Option<u64>, String> {
    /// From here on a float no longer tells neighbouring whole numbers apart.
    const EXACT_BELOW: f64 = 9_007_199_254_740_992.0;
    if is_missing(text) {
        return Ok(None);
    }
    if let Ok(number) = text.parse() {
        return Ok(Some(number));
    }
    match text.parse::<f64>() {
        Ok(number) if number.fract() == 0.0 && (0.0..EXACT_BELOW).contains(&number) => Ok(Some(number as u64)),
        _ => Err(format!("`{text}` is no whole number from 0")),
    }
}

/// A whole number that fits a rank or an index.
pub(super) fn index(text: &str) -> Result<Option<u32>, String> {
    match whole(text)? {
        None => Ok(None),
        Some(number) => u32::try_from(number).map(Some).map_err(|_| format!("`{text}` is too large for a rank")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_may_be_written_with_a_point_but_not_with_a_fraction() {
        assert_eq!(whole("100.0"), Ok(Some(100)));
        assert_eq!(whole("18446744073709551615"), Ok(Some(u64::MAX)));
        assert_eq!(whole(""), Ok(None));
        for text in ["1.5", "-1", "nan", "1e300", "x"] {
            assert!(whole(text).is_err(), "{text}");
        }
    }
}
