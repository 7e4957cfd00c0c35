//! The log: all rows of run folders, by run and in the order in which they would have arrived.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use trainwarden_telemetry::{Communicators, Placement, Rank, Roster, RunId};

use crate::batch::Sink;
use crate::folder::{TableSource, find};
use crate::intake::{Intake, RunIntake};
use crate::limits::SORT_MEMORY_BYTES;
use crate::read_csv::read_csv;
use crate::read_jsonl::read_jsonl;
use crate::read_parquet::read_parquet;
use crate::run_rows::TimedEvent;
use crate::{Format, IngestError, LogClock, Names, Place, Records, Rejects, RunRows, reason};

/// The log of one run.
#[derive(Debug)]
pub struct RunLog {
    /// The texts that rows refer to.
    pub names: Names,
    /// Ranks of each attempt that has rows; one without rows in the table `ranks` has those of the attempt before.
    pub rosters: BTreeMap<u32, Arc<Roster>>,
    /// Communicators of each attempt that has rows, as told for this attempt.
    pub communicators: BTreeMap<u32, Arc<Communicators>>,
    /// What log time counts.
    pub clock: LogClock,
    /// The rows.
    pub rows: RunRows,
}

impl RunLog {
    /// The rows in log order, for callers that need nothing else of the run.
    ///
    /// Rows of equal log time have no order among them: it may change when the same rows are stored otherwise.
    #[must_use]
    pub fn into_records(self) -> Records {
        self.rows.into_records(self.clock)
    }

    fn new(intake: RunIntake, shared: &Arc<[TimedEvent]>) -> Result<Self, IngestError> {
        let RunIntake { names, rows, placements, communicators } = intake;
        let mut attempts = rows.attempts();
        attempts.extend(placements.keys().chain(communicators.keys()));
        let rosters = rosters(&attempts, placements);
        let communicators = per_attempt(&attempts, communicators);
        let (clock, rows) = rows.place(shared, SORT_MEMORY_BYTES / 2)?;
        Ok(Self { names, rosters, communicators, clock, rows })
    }
}

fn rosters(
    attempts: &BTreeSet<u32>,
    mut placements: BTreeMap<u32, BTreeMap<Rank, Placement>>,
) -> BTreeMap<u32, Arc<Roster>> {
    let mut current = Arc::new(Roster::default());
    let mut rosters = BTreeMap::new();
    for &attempt in attempts {
        if let Some(placements) = placements.remove(&attempt) {
            current = Arc::new(Roster { placements });
        }
        rosters.insert(attempt, Arc::clone(&current));
    }
    rosters
}

fn per_attempt(attempts: &BTreeSet<u32>, mut told: BTreeMap<u32, Communicators>) -> BTreeMap<u32, Arc<Communicators>> {
    attempts.iter().map(|attempt| (*attempt, Arc::new(told.remove(attempt).unwrap_or_default()))).collect()
}

/// The logs of all runs found.
#[derive(Debug)]
pub struct Log {
    /// By name of the run.
    pub runs: BTreeMap<RunId, RunLog>,
}

impl Log {
    /// Reads run folders, folders of run folders, and table files.
    ///
    /// * `paths`: what to read; folders are walked.
    /// * `rejects`: takes every row and file that was set aside.
    /// * A run is made by its samples, collectives, digests and events; ranks and groups alone make none. An event
    ///   without a run is in the log of every run.
    /// * Memory stays at about 250 MiB for rows; the rest goes to a temporary file.
    ///   Texts (each once), events and ranks are held whole.
    ///
    /// # Errors
    /// [`IngestError::NoPath`] and [`IngestError::NoTables`] for the paths; [`IngestError::ListFolder`],
    /// [`IngestError::ReadFile`] and [`IngestError::Spill`] when the disk fails. Broken content is never an error.
    pub fn read(paths: &[PathBuf], rejects: &mut Rejects) -> Result<Self, IngestError> {
        Self::read_within(paths, rejects, SORT_MEMORY_BYTES)
    }

    pub(crate) fn read_within(
        paths: &[PathBuf],
        rejects: &mut Rejects,
        memory_bytes_max: usize,
    ) -> Result<Self, IngestError> {
        let mut intake = Intake::new(memory_bytes_max);
        for source in find(paths, rejects)? {
            read_table(&source, &mut intake, rejects)?;
        }
        let (runs, mut shared) = intake.finish();
        shared.sort();
        let shared: Arc<[TimedEvent]> = shared.into();
        let told = runs.into_iter().filter(|(_, run)| !run.rows.is_empty());
        let runs = told.map(|(id, run)| Ok((id, RunLog::new(run, &shared)?)));
        Ok(Self { runs: runs.collect::<Result<_, IngestError>>()? })
    }
}

fn read_table(source: &TableSource, sink: &mut dyn Sink, rejects: &mut Rejects) -> Result<(), IngestError> {
    let metadata = std::fs::metadata(&source.path);
    let metadata = metadata.map_err(|cause| IngestError::ReadFile { path: source.path.clone(), source: cause })?;
    if !metadata.is_file() {
        // A pipe or a device may never end, and some formats are read from their end.
        rejects.add(&source.reject(Place::File, reason::NOT_A_FILE, ""));
        return Ok(());
    }
    if metadata.len() == 0 {
        rejects.add(&source.reject(Place::File, reason::EMPTY_FILE, ""));
        return Ok(());
    }
    match source.format {
        Format::Csv | Format::CsvGz | Format::CsvZst => read_csv(source, sink, rejects),
        Format::Jsonl | Format::JsonlGz | Format::JsonlZst => read_jsonl(source, sink, rejects),
        Format::Parquet => read_parquet(source, sink, rejects),
    }
}

#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod tests;
