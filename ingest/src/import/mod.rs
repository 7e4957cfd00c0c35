//! What people have becomes a run folder: wide CSV logs, rank traces, flight-recorder dumps, time series.
//!
//! A broken row, cell or part never stops the rest: it is counted and kept in the [`ImportReport`] with its place and
//! the reason. What was guessed (the layout, the step column, numbers given to rows) is in the report's notes.

mod civil;
mod error;
mod flight_entry;
mod flight_recorder;
mod flight_status;
mod preset;
mod series;
mod sums;
mod table;
#[cfg(test)]
mod testing;
mod trace;
mod wide;

use std::path::{Path, PathBuf};

pub use civil::TimeUnit;
pub use error::ImportError;
pub use preset::Preset;
pub use series::SeriesOptions;
pub use wide::WideOptions;

use crate::{CollectiveOut, FolderWriter, MemberOut, PlacementOut, SampleOut};

/// Reasons kept in full; the rest is counted only, so that a file of nothing but broken rows does not fill the memory.
const ASIDE_KEPT_MAX: usize = 10_000;

/// What kind of files is read.
#[derive(Clone, Debug, PartialEq)]
pub enum ImportSource {
    /// CSV with a row a step and a column a metric.
    Wide(WideOptions),
    /// Per-operation traces of ranks, their sums a rank and step, and mini-batch tables.
    Trace,
    /// PyTorch NCCL flight recorder dumps, as JSON.
    FlightRecorder,
    /// CSV of `timestamp,value`.
    Series(SeriesOptions),
}

/// Something that could not be read, and was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    /// File it is in.
    pub path: PathBuf,
    /// Where in the file, such as `line 17` or `rank 3, entry 5`.
    pub place: String,
    /// Why.
    pub reason: String,
}

/// What an import did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImportReport {
    /// Files read.
    pub files: u64,
    /// Rows (entries of a dump) read, good and broken.
    pub rows_read: u64,
    /// Rows of the run folder written, over all its tables.
    pub rows_written: u64,
    /// Whole rows, or files, that were left out.
    pub rows_aside: u64,
    /// Cells that were left out of a row that was kept.
    pub cells_aside: u64,
    /// The first 10,000 of what was left out, in the order of reading.
    pub aside: Vec<SetAside>,
    /// What was guessed, a sentence each, without repetition.
    pub notes: Vec<String>,
}

impl ImportReport {
    fn set_row_aside(&mut self, path: &Path, place: String, reason: String) {
        self.rows_aside += 1;
        self.keep(path, place, reason);
    }

    fn set_cell_aside(&mut self, path: &Path, place: String, reason: String) {
        self.cells_aside += 1;
        self.keep(path, place, reason);
    }

    fn keep(&mut self, path: &Path, place: String, reason: String) {
        if self.aside.len() < ASIDE_KEPT_MAX {
            self.aside.push(SetAside { path: path.to_owned(), place, reason });
        }
    }

    fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }
}

/// A civil time (`2014-02-14 14:30:00`, RFC 3339; without a zone it is UTC) or an epoch number, in nanoseconds since
/// the epoch; `None` for anything else.
#[must_use]
pub fn parse_timestamp(text: &str) -> Option<i64> {
    civil::nanoseconds(text, None)
}

/// Reads `files` and writes their rows.
///
/// * `run`: name of the run; without it each file is a run, named after the file (`a/b.csv.gz` is run `b`), or the
///   file's own run column names it. With it, all files are one run, and steps that fall back count up its attempts.
/// * `writer`: not finished here, so that several kinds may go to one folder.
/// * Returns what was read, written, left out and guessed.
///
/// # Errors
/// [`ImportError`] when a file cannot be opened, has not the columns asked for, or the folder cannot be written. The
/// writer should then be dropped, which leaves nothing.
pub fn import(
    source: &ImportSource,
    files: &[PathBuf],
    run: Option<&str>,
    writer: &mut FolderWriter,
) -> Result<ImportReport, ImportError> {
    let mut sink = Sink { writer, report: ImportReport::default() };
    match source {
        ImportSource::Wide(options) => wide::read(options, files, run, &mut sink)?,
        ImportSource::Trace => trace::read(files, run, &mut sink)?,
        ImportSource::FlightRecorder => flight_recorder::read(files, run, &mut sink)?,
        ImportSource::Series(options) => series::read(options, files, run, &mut sink)?,
    }
    sink.report.files = files.len() as u64;
    Ok(sink.report)
}

/// The writer, with the report that goes along.
struct Sink<'a> {
    writer: &'a mut FolderWriter,
    report: ImportReport,
}

impl Sink<'_> {
    fn sample(&mut self, row: &SampleOut<'_>) -> Result<(), ImportError> {
        self.report.rows_written += 1;
        Ok(self.writer.sample(row)?)
    }

    fn collective(&mut self, row: &CollectiveOut<'_>) -> Result<(), ImportError> {
        self.report.rows_written += 1;
        Ok(self.writer.collective(row)?)
    }

    fn placement(&mut self, row: &PlacementOut<'_>) -> Result<(), ImportError> {
        self.report.rows_written += 1;
        Ok(self.writer.placement(row)?)
    }

    fn member(&mut self, row: &MemberOut<'_>) -> Result<(), ImportError> {
        self.report.rows_written += 1;
        Ok(self.writer.member(row)?)
    }
}

/// The file's name without its folder and without `.csv`, `.json` and the like, compressed or not.
fn stem(path: &Path) -> String {
    const ENDINGS: [&str; 6] = [".gz", ".zst", ".csv", ".tsv", ".txt", ".json"];
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut stem = name.as_str();
    // From the outside in: the form of compression first, then the form of text.
    for ending in ENDINGS {
        stem = stem.strip_suffix(ending).unwrap_or(stem);
    }
    stem.to_owned()
}

/// `name` as a metric: lower case, and one underscore for whatever is neither a letter nor a digit.
fn metric_name(name: &str) -> String {
    let mut clean = String::with_capacity(name.len());
    for letter in name.chars() {
        if letter.is_alphanumeric() {
            clean.extend(letter.to_lowercase());
        } else if !clean.ends_with('_') {
            clean.push('_');
        }
    }
    clean.trim_matches('_').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stem_loses_its_folder_and_its_endings_and_keeps_its_dots() {
        assert_eq!(stem(Path::new("a/sft_opt1.3b.csv.gz")), "sft_opt1.3b");
        assert_eq!(stem(Path::new("b.json")), "b");
        assert_eq!(stem(Path::new("_dump_3")), "_dump_3");
    }

    #[test]
    fn a_metric_name_is_lower_case_with_single_underscores() {
        assert_eq!(metric_name("elapsed time per iteration (ms)"), "elapsed_time_per_iteration_ms");
        assert_eq!(metric_name("Train/Loss"), "train_loss");
    }

    const HEADERS: [&str; 6] = [
        "step,t_s,rank,loss,lr",
        "run,time,worker,a,b",
        "step,rank,op,start_s,duration_s",
        "step,rank,forward_s,backward_s,step_span_s",
        "time,worker,x,y,z",
        "timestamp,value,c,d,e",
    ];
    const CELLS: [&str; 14] = [
        "",
        "0",
        "1",
        "7.0",
        "-3",
        "1e300",
        "-1e18",
        "999999999",
        "nan",
        "inf",
        "x",
        "18446744073709551615",
        "\"",
        "4294967295",
    ];

    fn sources() -> [ImportSource; 4] {
        [
            ImportSource::Wide(WideOptions::default()),
            ImportSource::Trace,
            ImportSource::FlightRecorder,
            ImportSource::Series(SeriesOptions::default()),
        ]
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_an_import_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let text = String::from_utf8_lossy(&bytes);
            for source in sources() {
                // A header that is not known is an error, and that is right.
                let _ = testing::try_import(&source, &[("a", &text)], None);
            }
        }

        #[test]
        fn every_row_of_nasty_cells_is_read_or_set_aside(
            header in proptest::sample::select(HEADERS.to_vec()),
            rows in proptest::collection::vec(proptest::collection::vec(proptest::sample::select(CELLS.to_vec()), 4..6), 0..20),
        ) {
            let rows: Vec<String> = rows.iter().map(|row| row.join(",")).collect();
            let text = format!("{header}\n{}\n", rows.join("\n"));
            for source in sources() {
                if let Ok(folder) = testing::try_import(&source, &[("a", &text)], None) {
                    let report = folder.report;
                    proptest::prop_assert!(report.rows_aside <= report.rows_read.max(1));
                    let is_table = source != ImportSource::FlightRecorder;
                    proptest::prop_assert!(!is_table || report.rows_read == rows.len() as u64);
                }
            }
        }
    }
}
