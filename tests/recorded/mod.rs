//! A log that tests take apart: its records in another order, cut at a step, and judged with restarts on the way.

#![allow(dead_code, reason = "each test target uses its part")]

use std::ops::Range;
use std::path::{Path, PathBuf};

use trainwarden::output;
use trainwarden::pipeline::Pipeline;
use trainwarden::replay::{Findings, replay};
use trainwarden_detect::Budget;
use trainwarden_ingest::{Counts, Log, LogClock, Membership, Names, Record, Rejects, Row};
use trainwarden_telemetry::{Change, Incident, RunId};

/// A deterministic number in -1..1 for a cell.
pub(crate) fn noise(rank: u32, step: u64, salt: u64) -> f64 {
    let mut state =
        step.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (u64::from(rank) << 32) ^ salt.wrapping_mul(0xD134_2543_DE82_EF95);
    state = (state ^ (state >> 31)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    state = (state ^ (state >> 29)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (state >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
}

/// A number drawn from a range by a seed; `turn` tells apart what is drawn from one seed.
pub(crate) fn drawn(range: &Range<usize>, seed: u64, turn: u32) -> usize {
    let share = (noise(turn, seed, 7) + 1.0) / 2.0;
    (range.start + (share * range.len() as f64) as usize).min(range.end.saturating_sub(1))
}

/// Items in another order, fixed by the seed.
pub(crate) fn shuffled<T: Clone>(items: &[T], seed: u64) -> Vec<T> {
    let mut items = items.to_vec();
    for last in (1..items.len()).rev() {
        items.swap(last, drawn(&(0..last + 1), seed, last as u32));
    }
    items
}

/// Changes as `--changes` prints them.
pub(crate) fn lines(changes: &[Change]) -> Vec<String> {
    changes.iter().map(|change| serde_json::to_string(change).expect("a change is JSON")).collect()
}

/// Incidents as `--json` prints them.
pub(crate) fn json<'a>(incidents: impl IntoIterator<Item = &'a Incident>) -> String {
    let mut bytes = Vec::new();
    output::write_json(&mut bytes, incidents).expect("memory takes bytes");
    String::from_utf8(bytes).expect("JSON is UTF-8")
}

/// The tables of a folder as text.
pub(crate) struct Tables(Vec<Table>);

struct Table {
    name: String,
    header: String,
    lines: Vec<String>,
}

impl Tables {
    /// Reads a folder that was written as CSV.
    pub(crate) fn read(dir: &Path) -> Self {
        let entries = std::fs::read_dir(dir).expect("the folder was just written");
        let paths = entries.map(|entry| entry.expect("the folder can be listed").path());
        let mut tables: Vec<Table> =
            paths.filter(|path| path.extension().is_some_and(|end| end == "csv")).map(table).collect();
        tables.sort_by(|one, other| one.name.cmp(&other.name));
        Self(tables)
    }

    /// Replays the tables after `change` has had its way with the header and the lines of each.
    pub(crate) fn replay(&self, change: impl Fn(&str, &[String]) -> Vec<String>) -> Findings {
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        for Table { name, header, lines } in &self.0 {
            // In two files, so that the order of files means nothing either.
            let lines = change(header, lines);
            let folder = dir.path().join(name);
            std::fs::create_dir(&folder).expect("a temporary folder takes folders");
            for (part, lines) in lines.chunks(lines.len().div_ceil(2).max(1)).enumerate() {
                let text = lines.iter().fold(format!("{header}\n"), |text, line| text + line + "\n");
                std::fs::write(folder.join(format!("{part}.csv")), text).expect("a temporary folder takes files");
            }
        }
        replay(&[dir.path().to_owned()], None).expect("the tables are good").0
    }
}

fn table(path: PathBuf) -> Table {
    let text = std::fs::read_to_string(&path).expect("a table is text");
    let mut lines = text.lines().map(str::to_owned);
    let header = lines.next().expect("a table has a header");
    let name = path.file_stem().expect("a table has a name").to_string_lossy().into_owned();
    Table { name, header, lines: lines.collect() }
}

/// What a pipeline says of a log.
#[derive(Debug, Default)]
pub(crate) struct Said {
    /// Every change, as it is printed.
    pub(crate) changes: Vec<String>,
    /// Incidents in their final state, in the order of printing.
    pub(crate) incidents: Vec<Incident>,
    pub(crate) counts: Counts,
}

impl Said {
    pub(crate) fn json(&self) -> String {
        json(&self.incidents)
    }

    fn end(&mut self, mut pipeline: Pipeline) {
        self.changes.extend(lines(&pipeline.finish()));
        self.incidents = pipeline.incidents().cloned().collect();
        self.incidents.sort_by(|one, other| {
            (one.attempt, one.started_at, &one.id).cmp(&(other.attempt, other.started_at, &other.id))
        });
        self.counts = pipeline.counts();
        assert!(pipeline.errors().is_empty(), "{:?}", pipeline.errors());
    }
}

/// A place in the log: the last step of a launch that belongs to what comes before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cut {
    pub(crate) attempt: u32,
    pub(crate) step: u64,
}

/// The log of one run, in log order.
pub(crate) struct Recording {
    run: RunId,
    names: Names,
    clock: LogClock,
    membership: Membership,
    pub(crate) records: Vec<Record>,
}

impl Recording {
    /// Reads folders that hold one run.
    pub(crate) fn read(paths: &[PathBuf]) -> Self {
        let mut rejects = Rejects::new();
        let log = Log::read(paths, &mut rejects).expect("the folders were just written");
        assert_eq!(rejects.count(), 0, "{:?}", rejects.summary());
        let (run, log) = log.runs.into_iter().next().expect("one run was written");
        let membership = Membership { rosters: log.rosters, communicators: log.communicators };
        let (names, clock) = (log.names, log.clock);
        let records = log.rows.into_records(clock).map(|record| record.expect("the folder is good")).collect();
        Self { run, names, clock, membership, records }
    }

    fn pipeline(&self) -> Pipeline {
        Pipeline::new(&self.run, self.clock, self.membership.clone(), Budget::default())
    }

    fn push<'a>(&self, pipeline: &mut Pipeline, records: impl IntoIterator<Item = &'a Record>, said: &mut Said) {
        for record in records {
            said.changes.extend(lines(&pipeline.push(record, &self.names)));
        }
    }

    /// What is said of records in an order of arrival.
    pub(crate) fn said_of(&self, records: &[Record]) -> Said {
        let (mut pipeline, mut said) = (self.pipeline(), Said::default());
        self.push(&mut pipeline, records, &mut said);
        said.end(pipeline);
        said
    }

    /// The records as a live log holds them: appended up to so many seconds after their own time, and in that order.
    pub(crate) fn appended_late(&self, most_s: f64, seed: u64) -> Vec<Record> {
        let late = |(index, record): (usize, &Record)| {
            let mut record = record.clone();
            let share = (noise(index as u32, seed, 11) + 1.0) / 2.0;
            let at = record.log_time + (share * most_s * 1e9) as i64;
            record.log_time = at;
            match &mut record.row {
                Row::Sample(row) => row.log_time = at,
                Row::Collective(row) => row.log_time = at,
                Row::Digest(row) => row.log_time = at,
                Row::Event(_) => {}
            }
            record
        };
        let mut records: Vec<Record> = self.records.iter().enumerate().map(late).collect();
        records.sort_by_key(|record| record.log_time);
        records
    }

    /// What is said with a snapshot and a restore before each of these records, given in order.
    pub(crate) fn said_with_restarts(&self, at: &[usize]) -> Said {
        let (mut pipeline, mut said, mut from) = (self.pipeline(), Said::default(), 0);
        for at in at {
            self.push(&mut pipeline, &self.records[from..*at], &mut said);
            from = *at;
            let snapshot = pipeline.snapshot().expect("state serialises");
            pipeline = Pipeline::restore(&snapshot).expect("the snapshot was just taken");
            assert_eq!(pipeline.snapshot().expect("state serialises"), snapshot, "{} before record {at}", self.run);
        }
        self.push(&mut pipeline, &self.records[from..], &mut said);
        said.end(pipeline);
        said
    }

    /// What is said of the log cut at each of these places, given in order.
    ///
    /// What comes before the first record that a cut takes away is judged once for all of them, and restored for each.
    pub(crate) fn said_when_cut(&self, cuts: &[Cut]) -> Vec<Vec<String>> {
        let (mut pipeline, mut before, mut from) = (self.pipeline(), Said::default(), 0);
        let mut all = Vec::new();
        for cut in cuts {
            let kept = self.kept(*cut);
            let upto = kept.iter().position(|is_kept| !is_kept).unwrap_or(kept.len()).max(from);
            self.push(&mut pipeline, &self.records[from..upto], &mut before);
            from = upto;
            let snapshot = pipeline.snapshot().expect("state serialises");
            let mut part = Pipeline::restore(&snapshot).expect("the snapshot was just taken");
            let mut said = Said { changes: before.changes.clone(), ..Said::default() };
            let rest = self.records.iter().zip(&kept).skip(upto).filter(|(_, is_kept)| **is_kept);
            self.push(&mut part, rest.map(|(record, _)| record), &mut said);
            said.end(part);
            all.push(said.changes);
        }
        all
    }

    /// Which records are left of the log cut at a place: rows up to its step, and events up to the last of them.
    fn kept(&self, cut: Cut) -> Vec<bool> {
        let is_before = |record: &Record| place(record).is_some_and(|place| place <= cut);
        let last = self.records.iter().filter(|record| is_before(record)).map(|record| record.log_time).max();
        let kept = |record: &Record| match place(record) {
            Some(place) => place <= cut,
            None => Some(record.log_time) <= last,
        };
        self.records.iter().map(kept).collect()
    }

    /// The launch and step of a record, or of the first one after it that has them.
    pub(crate) fn cut_at(&self, index: usize) -> Cut {
        self.records[index..].iter().find_map(place).unwrap_or(Cut { attempt: u32::MAX, step: u64::MAX })
    }
}

/// The launch and step a row belongs to; `None` for events and rows without a step.
fn place(record: &Record) -> Option<Cut> {
    record.step().map(|step| Cut { attempt: record.attempt(), step })
}
