//! A CSV file with a header, read row by row; what cannot be read is set aside.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use csv::StringRecord;
use flate2::read::MultiGzDecoder;

use super::{ImportError, ImportReport};

/// First bytes of a gzip file, and of a Zstandard file: a file is what it holds, not what it is called.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Names an error message shows: more than the widest layout known, less than a table of thousands of columns has.
const NAMES_SHOWN: usize = 40;

/// A line beyond this length is no row of a table, and would fill the memory.
const LINE_BYTES_MAX: u64 = 16 << 20;

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
///
/// A line is a row: a quote that is never closed spoils its own line and not the rest of the file. A quoted cell
/// therefore cannot hold a line break.
pub(super) struct CsvFile {
    pub(super) path: PathBuf,
    pub(super) header: Vec<String>,
    input: BufReader<Box<dyn Read>>,
    line: u64,
    record: StringRecord,
}

/// What the next line is.
enum Line {
    Cells,
    Broken(String),
    End,
}

impl CsvFile {
    /// Opens `path` and reads its header; an empty or unreadable one is set aside and gives `None`.
    pub(super) fn open(path: &Path, report: &mut ImportReport) -> Result<Option<Self>, ImportError> {
        let (input, record) = (BufReader::new(open(path)?), StringRecord::new());
        let mut file = Self { path: path.to_owned(), header: Vec::new(), input, line: 0, record };
        let reason = match file.read_line() {
            Ok(Line::Cells) => {
                // Spreadsheets put a byte order mark before the first name.
                let names = file.record.iter().map(|name| name.trim_start_matches('\u{feff}').trim().to_owned());
                file.header = names.collect();
                return Ok(Some(file));
            }
            Ok(Line::End) => "the file is empty".to_owned(),
            Ok(Line::Broken(reason)) => format!("the header cannot be read: {reason}"),
            Err(error) => format!("the header cannot be read: {error}"),
        };
        report.set_row_aside(path, "line 1".to_owned(), reason);
        Ok(None)
    }

    /// Goes to the next good row; its line, or `None` at the end. Broken rows are set aside on the way.
    pub(super) fn next_line(&mut self, report: &mut ImportReport) -> Option<u64> {
        loop {
            let (cells, names) = match self.read_line() {
                Ok(Line::End) => return None,
                Ok(Line::Cells) if self.record.len() == self.header.len() => {
                    report.rows_read += 1;
                    return Some(self.line);
                }
                Ok(Line::Cells) => (self.record.len(), self.header.len()),
                Ok(Line::Broken(reason)) => {
                    self.set_aside(reason, report);
                    continue;
                }
                Err(error) => {
                    self.set_aside(format!("the file breaks off here: {error}"), report);
                    self.input = BufReader::new(Box::new(std::io::empty()));
                    return None;
                }
            };
            self.set_aside(format!("{cells} cells where the header has {names}"), report);
        }
    }

    fn set_aside(&self, reason: String, report: &mut ImportReport) {
        report.rows_read += 1;
        report.set_row_aside(&self.path, format!("line {}", self.line), reason);
    }

    /// Reads the next line that is not empty into the record.
    fn read_line(&mut self) -> std::io::Result<Line> {
        loop {
            let mut bytes = Vec::new();
            self.line += 1;
            (&mut self.input).take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes)?;
            if bytes.is_empty() {
                return Ok(Line::End);
            }
            if bytes.len() as u64 == LINE_BYTES_MAX && !bytes.ends_with(b"\n") {
                self.input.skip_until(b'\n')?;
                return Ok(Line::Broken("the line is longer than 16 MiB".to_owned()));
            }
            let Ok(text) = std::str::from_utf8(&bytes) else {
                return Ok(Line::Broken("the row is no UTF-8 text".to_owned()));
            };
            let text = text.trim_end_matches(['\n', '\r']);
            if !text.trim().is_empty() {
                return Ok(self.split(text));
            }
        }
    }

    fn split(&mut self, text: &str) -> Line {
        self.record.clear();
        if !text.contains('"') {
            self.record.extend(text.split(','));
            return Line::Cells;
        }
        let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(text.as_bytes());
        match reader.read_record(&mut self.record) {
            Ok(_) => Line::Cells,
            Err(error) => Line::Broken(error.to_string()),
        }
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
    let shown: Vec<String> = names.iter().take(NAMES_SHOWN).map(|name| format!("`{}`", name.as_ref())).collect();
    let more =
        if names.len() > NAMES_SHOWN { format!(" and {} more", names.len() - NAMES_SHOWN) } else { String::new() };
    shown.join(", ") + &more
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

    fn rows(bytes: &[u8]) -> (Vec<String>, Vec<String>) {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), bytes).expect("the file is ours");
        let mut report = ImportReport::default();
        let mut rows = Vec::new();
        if let Some(mut table) = CsvFile::open(file.path(), &mut report).expect("the file is there") {
            while let Some(line) = table.next_line(&mut report) {
                rows.push(format!("{line}:{}|{}", table.cell(0), table.cell(1)));
            }
        }
        (rows, report.aside.iter().map(|aside| aside.place.clone()).collect())
    }

    #[test]
    fn a_broken_line_spoils_no_other() {
        let (rows, aside) = rows(b"\xef\xbb\xbfa,b\r\n1,2\r\n\n\"x,y\",3\n\"4,5\n\xff,6\n7,8\n9\n1,2,3");
        assert_eq!(rows, ["2:1|2", "4:x,y|3", "7:7|8"]);
        assert_eq!(aside, ["line 5", "line 6", "line 8", "line 9"]);
    }

    #[test]
    fn a_truncated_gzip_file_gives_what_it_still_holds() {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        // Numbers without a pattern, so that the cut leaves whole lines before it.
        let text: String = (0..5_000_u32).map(|row| format!("{row},{}\n", row.wrapping_mul(2_654_435_761))).collect();
        std::io::Write::write_all(&mut encoder, format!("a,b\n{text}").as_bytes()).expect("memory");
        let whole = encoder.finish().expect("memory");
        let (all, aside) = rows(&whole);
        assert_eq!((all.len(), aside.len()), (5_000, 0));
        let (cut, aside) = rows(&whole[..whole.len() / 2]);
        assert!(cut.len() > 1_000 && cut.len() < 4_000, "{}", cut.len());
        assert_eq!(aside, [format!("line {}", cut.len() + 2)]);
    }
}
