//! What must hold of every scenario: order, cuts and restarts of the program change no byte of what it says.

#![expect(unused_crate_dependencies, reason = "what this target does not use serves another one of the package")]

use std::path::Path;

use trainwarden::pipeline::Pipeline;
use trainwarden::simulation::{read_scenarios, write};
use trainwarden_detect::Budget;
use trainwarden_ingest::{Format, Log, LogClock, Membership, NO_U64, Names, Record, Rejects, Row};
use trainwarden_simulate::Scenario;
use trainwarden_telemetry::{Change, RunId};

/// Tests side by side; each takes the scenarios of its share.
const SHARES: usize = 2;
/// Cuts of each scenario.
const CUTS: u64 = 2;

/// The log of one scenario, read once.
struct Recorded {
    run: RunId,
    clock: LogClock,
    names: Names,
    membership: Membership,
    records: Vec<Record>,
}

impl Recorded {
    fn of(scenario: &Scenario) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        write(scenario, dir.path(), Format::Parquet).expect("a temporary folder takes files");
        let log = Log::read(&[dir.path().to_owned()], &mut Rejects::new()).expect("the folder was just written");
        let (run, log) = log.runs.into_iter().next().expect("one run was written");
        let membership = Membership { rosters: log.rosters, communicators: log.communicators };
        let records = log.rows.into_records(log.clock).map(|record| record.expect("the folder is good")).collect();
        Self { run, clock: log.clock, names: log.names, membership, records }
    }

    fn pipeline(&self) -> Pipeline {
        Pipeline::new(&self.run, self.clock, self.membership.clone(), Budget::default())
    }

    /// What is said of some records, with a snapshot and restore after `restart` of them.
    fn said<'a>(&self, records: impl IntoIterator<Item = &'a Record>, restart: Option<usize>) -> Vec<String> {
        let (mut pipeline, mut changes) = (self.pipeline(), Vec::new());
        for (index, record) in records.into_iter().enumerate() {
            if restart == Some(index) {
                let snapshot = pipeline.snapshot().expect("state serialises");
                pipeline = Pipeline::restore(&snapshot).expect("the snapshot was just taken");
                assert_eq!(pipeline.snapshot().expect("state serialises"), snapshot, "at record {index}");
            }
            changes.extend(pipeline.push(record, &self.names));
        }
        changes.extend(pipeline.finish());
        let line = |change: &Change| serde_json::to_string(change).expect("a change is JSON");
        changes.iter().map(line).collect()
    }

    /// The records up to the end of a step of a launch; what has no step is kept up to the same time.
    fn until(&self, last: (u32, u64)) -> Vec<&Record> {
        let is_before = |record: &&Record| place(record).is_some_and(|place| place <= last);
        let end = self.records.iter().filter(is_before).map(|record| record.log_time).max();
        let is_kept = |record: &&Record| match place(record) {
            Some(place) => place <= last,
            None => Some(record.log_time) <= end,
        };
        self.records.iter().filter(is_kept).collect()
    }
}

/// Launch and step of a record; `None` for events.
fn place(record: &Record) -> Option<(u32, u64)> {
    let (attempt, step) = match &record.row {
        Row::Sample(row) => (row.attempt, row.step),
        Row::Collective(row) => (row.attempt, row.step),
        Row::Digest(row) => (row.attempt, row.step),
        Row::Event(_) => return None,
    };
    (step != NO_U64).then_some((attempt, step))
}

/// A number below `end` for a place in a sequence (SplitMix64).
fn drawn(seed: u64, place: u64, end: u64) -> u64 {
    let mut word = (seed ^ place).wrapping_add(0x9E37_79B9_7F4A_7C15);
    word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (word ^ (word >> 31)) % end.max(1)
}

/// Calls `hold` with every scenario of a share.
fn each(share: usize, hold: impl Fn(&str, u64, &Recorded)) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let scenarios = read_scenarios(&folder).unwrap_or_else(|error| panic!("{error:#}"));
    for (name, scenario) in scenarios.iter().skip(share).step_by(SHARES) {
        hold(name, scenario.seed, &Recorded::of(scenario));
    }
}

/// Rows of equal log time have no order; a folder gives them in that of its files.
fn hold_laws(name: &str, seed: u64, log: &Recorded) {
    let whole = log.said(&log.records, None);
    let mut mixed: Vec<&Record> = log.records.iter().collect();
    for last in (1..mixed.len()).rev() {
        mixed.swap(last, drawn(seed, last as u64, last as u64 + 1) as usize);
    }
    mixed.sort_by_key(|record| record.log_time);
    let count = log.records.len();
    let restart = count / 4 + drawn(seed, 1, count as u64 / 2) as usize;
    assert_eq!(log.said(mixed, Some(restart)), whole, "{name} in another order, restored after {restart} records");
    let places: Vec<(u32, u64)> = log.records.iter().filter_map(place).collect();
    for cut in 0..CUTS {
        let last = places[drawn(seed, 2 + cut, places.len() as u64) as usize];
        let part = log.said(log.until(last), None);
        assert_eq!(part, whole[..part.len().min(whole.len())], "{name} cut after {last:?}");
    }
}

#[test]
fn order_cuts_and_restarts_change_no_byte_of_the_first_half() {
    each(0, hold_laws);
}

#[test]
fn order_cuts_and_restarts_change_no_byte_of_the_second_half() {
    each(1, hold_laws);
}
