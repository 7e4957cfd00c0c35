//! Writes a run folder: what importers and tests make, and what `Log::read` reads.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use trainwarden_telemetry::Table;

use crate::write_file::{Cell, TableFile};
use crate::{IngestError, RowSink};

/// Form of the files of a run folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// `.csv`
    Csv,
    /// `.csv.gz`
    CsvGz,
    /// `.csv.zst`
    CsvZst,
    /// `.jsonl`
    Jsonl,
    /// `.jsonl.gz`
    JsonlGz,
    /// `.jsonl.zst`
    JsonlZst,
    /// `.parquet`
    Parquet,
}

impl Format {
    /// Every form.
    pub const ALL: [Self; 7] =
        [Self::Csv, Self::CsvGz, Self::CsvZst, Self::Jsonl, Self::JsonlGz, Self::JsonlZst, Self::Parquet];

    /// What follows the table's name in a file name, without the dot.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::CsvGz => "csv.gz",
            Self::CsvZst => "csv.zst",
            Self::Jsonl => "jsonl",
            Self::JsonlGz => "jsonl.gz",
            Self::JsonlZst => "jsonl.zst",
            Self::Parquet => "parquet",
        }
    }
}

/// A row of `samples` to write.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampleOut<'a> {
    /// Run.
    pub run: &'a str,
    /// Launch.
    pub attempt: u32,
    /// Rank; `None` for the whole run.
    pub rank: Option<u32>,
    /// Step.
    pub step: Option<u64>,
    /// Nanoseconds since the epoch.
    pub time: Option<i64>,
    /// Metric.
    pub metric: &'a str,
    /// The number; NaN and infinities are logged values.
    pub value: f64,
}

/// A row of `collectives` to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CollectiveOut<'a> {
    /// Run.
    pub run: &'a str,
    /// Launch.
    pub attempt: u32,
    /// Rank.
    pub rank: u32,
    /// Communicator.
    pub comm: &'a str,
    /// Sequence number in the communicator.
    pub seq: u64,
    /// Operation.
    pub op: &'a str,
    /// Payload.
    pub bytes: Option<u64>,
    /// Type and shape.
    pub signature: Option<&'a str>,
    /// Host time of issue, in nanoseconds since the epoch.
    pub enqueued: Option<i64>,
    /// Device time of begin; `None` = never started.
    pub start: Option<i64>,
    /// Device time of end; `None` = not finished.
    pub end: Option<i64>,
    /// Step.
    pub step: Option<u64>,
    /// Other side of a point-to-point call.
    pub peer: Option<u32>,
}

/// A row of `digests` to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DigestOut<'a> {
    /// Run.
    pub run: &'a str,
    /// Launch.
    pub attempt: u32,
    /// Rank; `None` for the whole run.
    pub rank: Option<u32>,
    /// Step.
    pub step: Option<u64>,
    /// Nanoseconds since the epoch.
    pub time: Option<i64>,
    /// What was fingerprinted.
    pub kind: &'a str,
    /// Which one.
    pub name: &'a str,
    /// Hexadecimal digest.
    pub digest: &'a str,
    /// Comparison group.
    pub group: Option<&'a str>,
}

/// A row of `events` to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventOut<'a> {
    /// Nanoseconds since the epoch.
    pub time: i64,
    /// Where it was recorded.
    pub source: &'a str,
    /// What it was.
    pub kind: &'a str,
    /// Who.
    pub actor: Option<&'a str>,
    /// Run; `None` = joined to every run by time.
    pub run: Option<&'a str>,
    /// Launch.
    pub attempt: Option<u32>,
    /// Host.
    pub node: Option<&'a str>,
    /// Rank.
    pub rank: Option<u32>,
    /// What it was done to.
    pub subject: Option<&'a str>,
    /// Further facts as JSON text.
    pub detail: Option<&'a str>,
}

/// A row of `ranks` to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlacementOut<'a> {
    /// Run.
    pub run: &'a str,
    /// Launch.
    pub attempt: u32,
    /// Rank.
    pub rank: u32,
    /// Host.
    pub node: Option<&'a str>,
    /// GPU UUID.
    pub device: Option<&'a str>,
    /// Index of the rank on its node.
    pub local_rank: Option<u32>,
    /// Data-parallel index.
    pub dp: Option<u32>,
    /// Tensor-parallel index.
    pub tp: Option<u32>,
    /// Pipeline stage.
    pub pp: Option<u32>,
    /// Expert-parallel index.
    pub ep: Option<u32>,
    /// Context-parallel index.
    pub cp: Option<u32>,
}

/// A row of `groups` to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemberOut<'a> {
    /// Run.
    pub run: &'a str,
    /// Launch.
    pub attempt: u32,
    /// Communicator.
    pub comm: &'a str,
    /// Member.
    pub rank: u32,
}

/// Writes the tables of one run folder, each as one file.
///
/// A table's file appears at [`FolderWriter::finish`] under its final name, whole, and only if it has rows; it replaces
/// an older one. A writer that is dropped before leaves nothing. An empty text is written as no text, because CSV
/// cannot tell the two apart.
#[derive(Debug)]
pub struct FolderWriter {
    dir: PathBuf,
    format: Format,
    files: BTreeMap<Table, TableFile>,
}

impl FolderWriter {
    /// A writer into `dir`, which is created when it does not exist.
    ///
    /// # Errors
    /// [`IngestError::WriteFile`] when the folder cannot be created.
    pub fn create(dir: &Path, format: Format) -> Result<Self, IngestError> {
        std::fs::create_dir_all(dir).map_err(|source| IngestError::WriteFile { path: dir.to_owned(), source })?;
        Ok(Self { dir: dir.to_owned(), format, files: BTreeMap::new() })
    }

    /// Adds a row of `samples`.
    ///
    /// # Errors
    /// [`IngestError::WriteFile`] and [`IngestError::WriteParquet`], as for all tables.
    pub fn sample(&mut self, row: &SampleOut<'_>) -> Result<(), IngestError> {
        self.row(
            Table::Samples,
            &[
                row.run.into(),
                row.attempt.into(),
                row.rank.into(),
                row.step.into(),
                row.time.into(),
                row.metric.into(),
                Cell::Float(row.value),
            ],
        )
    }

    /// Adds a row of `collectives`.
    ///
    /// # Errors
    /// See [`FolderWriter::sample`].
    pub fn collective(&mut self, row: &CollectiveOut<'_>) -> Result<(), IngestError> {
        self.row(
            Table::Collectives,
            &[
                row.run.into(),
                row.attempt.into(),
                row.rank.into(),
                row.comm.into(),
                row.seq.into(),
                row.op.into(),
                row.bytes.into(),
                row.signature.into(),
                row.enqueued.into(),
                row.start.into(),
                row.end.into(),
                row.step.into(),
                row.peer.into(),
            ],
        )
    }

    /// Adds a row of `digests`.
    ///
    /// # Errors
    /// See [`FolderWriter::sample`].
    pub fn digest(&mut self, row: &DigestOut<'_>) -> Result<(), IngestError> {
        self.row(
            Table::Digests,
            &[
                row.run.into(),
                row.attempt.into(),
                row.rank.into(),
                row.step.into(),
                row.time.into(),
                row.kind.into(),
                row.name.into(),
                row.digest.into(),
                row.group.into(),
            ],
        )
    }

    /// Adds a row of `events`.
    ///
    /// # Errors
    /// See [`FolderWriter::sample`].
    pub fn event(&mut self, row: &EventOut<'_>) -> Result<(), IngestError> {
        self.row(
            Table::Events,
            &[
                row.time.into(),
                row.source.into(),
                row.kind.into(),
                row.actor.into(),
                row.run.into(),
                row.attempt.into(),
                row.node.into(),
                row.rank.into(),
                row.subject.into(),
                row.detail.into(),
            ],
        )
    }

    /// Adds a row of `ranks`.
    ///
    /// # Errors
    /// See [`FolderWriter::sample`].
    pub fn placement(&mut self, row: &PlacementOut<'_>) -> Result<(), IngestError> {
        self.row(
            Table::Ranks,
            &[
                row.run.into(),
                row.attempt.into(),
                row.rank.into(),
                row.node.into(),
                row.device.into(),
                row.local_rank.into(),
                row.dp.into(),
                row.tp.into(),
                row.pp.into(),
                row.ep.into(),
                row.cp.into(),
            ],
        )
    }

    /// Adds a row of `groups`.
    ///
    /// # Errors
    /// See [`FolderWriter::sample`].
    pub fn member(&mut self, row: &MemberOut<'_>) -> Result<(), IngestError> {
        self.row(Table::Groups, &[row.run.into(), row.attempt.into(), row.comm.into(), row.rank.into()])
    }

    /// Writes what is left and gives every file its name.
    ///
    /// # Errors
    /// See [`FolderWriter::sample`].
    pub fn finish(self) -> Result<(), IngestError> {
        self.files.into_values().try_for_each(TableFile::finish)
    }

    fn row(&mut self, table: Table, cells: &[Cell<'_>]) -> Result<(), IngestError> {
        if !self.files.contains_key(&table) {
            self.files.insert(table, TableFile::create(&self.dir, table, self.format)?);
        }
        self.files.get_mut(&table).expect("inserted above").write(cells)
    }
}

impl RowSink for FolderWriter {
    fn sample(&mut self, row: &SampleOut<'_>) -> Result<(), IngestError> {
        Self::sample(self, row)
    }

    fn collective(&mut self, row: &CollectiveOut<'_>) -> Result<(), IngestError> {
        Self::collective(self, row)
    }

    fn digest(&mut self, row: &DigestOut<'_>) -> Result<(), IngestError> {
        Self::digest(self, row)
    }

    fn event(&mut self, row: &EventOut<'_>) -> Result<(), IngestError> {
        Self::event(self, row)
    }

    fn placement(&mut self, row: &PlacementOut<'_>) -> Result<(), IngestError> {
        Self::placement(self, row)
    }

    fn member(&mut self, row: &MemberOut<'_>) -> Result<(), IngestError> {
        Self::member(self, row)
    }
}
