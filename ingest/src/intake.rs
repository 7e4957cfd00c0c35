//! Decoded rows to the runs they belong to, in compact form.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use trainwarden_telemetry::{Communicators, Placement, Rank, RunId};

use crate::batch::{Batch, Sink, TextColumn};
use crate::folder::TableSource;
use crate::reject::reason;
use crate::run_part::{RunPart, Runs, take_rows};
use crate::run_rows::{RunRows, TimedEvent};
use crate::sorter::SpillFile;
use crate::{CollectiveRow, DigestRow, IngestError, NameId, Names, Reject, Rejects, SampleRow};

/// What one run has said so far.
#[derive(Debug)]
pub(crate) struct RunIntake {
    pub(crate) names: Names,
    pub(crate) rows: RunRows,
    pub(crate) placements: BTreeMap<u32, BTreeMap<Rank, Placement>>,
    pub(crate) communicators: BTreeMap<u32, Communicators>,
}

/// Takes batches of every table and keeps their rows by run; too many rows for the memory go to disk.
#[derive(Debug)]
pub(crate) struct Intake {
    ids: HashMap<Arc<str>, u32>,
    runs: Vec<RunIntake>,
    /// Events that name no run, with their log times.
    events: Vec<TimedEvent>,
    spill: Arc<SpillFile>,
    memory_bytes_max: usize,
}

impl Intake {
    pub(crate) fn new(memory_bytes_max: usize) -> Self {
        Self { ids: HashMap::new(), runs: Vec::new(), events: Vec::new(), spill: Arc::default(), memory_bytes_max }
    }

    /// The runs, by name, and the events that belong to all.
    pub(crate) fn finish(self) -> (BTreeMap<RunId, RunIntake>, Vec<TimedEvent>) {
        let mut runs: Vec<Option<RunIntake>> = self.runs.into_iter().map(Some).collect();
        let by_name = self.ids.into_iter().map(|(id, index)| {
            let run = runs[index as usize].take().expect("each number belongs to one name");
            (RunId(id), run)
        });
        (by_name.collect(), self.events)
    }

    /// The number of a row's run.
    fn run_of(&mut self, runs: &mut TextColumn, row: usize) -> u32 {
        let number = runs.lookup(row, 0, |name| {
            let known = self.ids.get(name).copied();
            NameId(known.unwrap_or_else(|| self.add_run(name)))
        });
        number.expect("decoders set rows without a run aside").0
    }

    fn add_run(&mut self, name: &str) -> u32 {
        let number = u32::try_from(self.runs.len()).expect("fewer than 2^32 runs: memory ends before");
        self.ids.insert(Arc::from(name), number);
        self.runs.push(RunIntake {
            names: Names::default(),
            rows: RunRows::new(&self.spill),
            placements: BTreeMap::new(),
            communicators: BTreeMap::new(),
        });
        number
    }

    /// Puts the largest tables on disk when memory is full.
    fn make_room(&mut self) -> Result<(), IngestError> {
        let used: usize = self.runs.iter().map(|run| run.rows.memory_bytes()).sum();
        if used <= self.memory_bytes_max {
            return Ok(());
        }
        let mut order: Vec<(usize, usize)> =
            self.runs.iter().enumerate().map(|(index, run)| (run.rows.memory_bytes(), index)).collect();
        order.sort_unstable_by(|left, right| right.cmp(left));
        let mut left = used;
        for (bytes, index) in order {
            // Half is emptied at once, so that many small runs do not go to disk one after the other.
            if left <= self.memory_bytes_max / 2 {
                break;
            }
            self.runs[index].rows.spill()?;
            left -= bytes;
        }
        Ok(())
    }
}

impl Runs for Intake {
    type Part = RunIntake;

    fn part(&mut self, runs: &mut TextColumn, row: usize) -> (u32, &mut RunIntake) {
        let number = self.run_of(runs, row);
        (number, &mut self.runs[number as usize])
    }

    fn shared_event(&mut self, event: TimedEvent) {
        self.events.push(event);
    }
}

impl RunPart for RunIntake {
    fn names(&mut self) -> &mut Names {
        &mut self.names
    }

    fn sample(&mut self, row: SampleRow) {
        self.rows.samples.push(row);
    }

    fn collective(&mut self, row: CollectiveRow) {
        self.rows.collectives.push(row);
    }

    fn digest(&mut self, row: DigestRow) {
        self.rows.digests.push(row);
    }

    fn event(&mut self, event: TimedEvent) {
        self.rows.events.push(event);
    }

    fn placements(&mut self, attempt: u32) -> &mut BTreeMap<Rank, Placement> {
        self.placements.entry(attempt).or_default()
    }

    fn communicators(&mut self, attempt: u32) -> &mut Communicators {
        self.communicators.entry(attempt).or_default()
    }
}

impl Sink for Intake {
    fn take(&mut self, batch: Batch, source: &TableSource, rejects: &mut Rejects) -> Result<(), IngestError> {
        take_rows(batch, self, &mut |place, detail| {
            let reject = source.reject(place, reason::CONFLICTING, detail);
            rejects.add(&Reject { column: Some("rank"), ..reject });
        });
        self.make_room()
    }
}
