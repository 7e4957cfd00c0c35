//! Live runs: what is told by the time of the log alone, with every append time given.

#![expect(unused_crate_dependencies, reason = "what this target does not use serves another one of the package")]

use std::sync::Arc;

use trainwarden::partition_judge::{Admission, PartitionJudge};
use trainwarden_ingest::wire::{BatchWriter, FrameWriter};
use trainwarden_ingest::{CollectiveRow, LogRecord, NO_TIME, NO_U32, NO_U64, NameId, Names, Record, Row, SampleRow};
use trainwarden_telemetry::{Attempt, Event, Incident, RunId, Severity, Timestamp};

const SECOND_NS: i64 = 1_000_000_000;
const RANKS: u32 = 8;

/// The log of one partition, judged as it grows.
struct Live {
    judge: PartitionJudge,
    names: Names,
    writer: FrameWriter,
    offset: u64,
    now: i64,
    incidents: Vec<Incident>,
    /// When an incident was first told, in seconds of log time.
    told_at: Vec<(String, i64)>,
}

impl Live {
    fn new() -> Self {
        Self {
            judge: PartitionJudge::new(0),
            names: Names::default(),
            writer: FrameWriter::new("node0", "run", None),
            offset: 0,
            now: 0,
            incidents: Vec::new(),
            told_at: Vec::new(),
        }
    }

    fn append(&mut self, value: Vec<u8>) {
        let record = LogRecord { partition: 0, offset: self.offset, append_time: self.now, value };
        self.offset += 1;
        self.judge.take(&record, &Admission::default());
        let Some(commit) = self.judge.take_news() else { return };
        assert!(commit.rejects.is_empty(), "{:?}", commit.rejects);
        for row in commit.incidents {
            let incident: Incident = serde_json::from_str(&row.json).expect("an incident");
            if self.incidents.iter().all(|known| known.id != incident.id) {
                self.told_at.push((incident.kind.to_string(), self.now / SECOND_NS));
            }
            self.incidents.retain(|known| known.id != incident.id);
            self.incidents.push(incident);
        }
    }

    fn send(&mut self, rows: Vec<Row>) {
        let mut batch = BatchWriter::default();
        rows.into_iter().for_each(|row| batch.push(&Record { log_time: NO_TIME, row }, &self.names));
        for (table, rows) in batch.finish() {
            let frame = self.writer.rows(table, &rows, 0);
            self.append(frame);
        }
    }

    /// One step a second, in which every rank but the silent ones speaks and all-reduces; `hung` does not come.
    fn step(&mut self, step: u64, silent: Option<u32>, hung: Option<u32>) {
        let metric = self.names.intern("step_time_s");
        let (comm, op) = (self.names.intern("dp"), self.names.intern("all_reduce"));
        let (log_time, time, reserved, attempt) = (NO_TIME, NO_TIME, 0, 0);
        let mut rows = Vec::new();
        for rank in (0..RANKS).filter(|rank| Some(*rank) != silent) {
            let value = 1.0 + f64::from((rank * 7 + step as u32 * 3) % 11) * 1e-3;
            if hung.is_none() {
                rows.push(Row::Sample(SampleRow { log_time, step, time, value, attempt, rank, metric, reserved }));
            }
            let at = Some(self.now).filter(|_| hung != Some(rank)).unwrap_or(NO_TIME);
            rows.push(Row::Collective(CollectiveRow {
                log_time,
                seq: step,
                bytes: NO_U64,
                step,
                enqueued: at,
                start: at,
                end: if hung.is_some() { NO_TIME } else { at },
                attempt,
                rank,
                peer: NO_U32,
                comm,
                op,
                signature: NameId::NONE,
            }));
        }
        self.send(rows);
        self.pass(1);
    }

    fn event(&mut self, kind: &str) {
        self.send(vec![Row::Event(Arc::new(Event {
            time: Timestamp(self.now),
            source: "trainer".to_owned(),
            kind: kind.to_owned(),
            actor: None,
            run: Some(RunId::new("run")),
            attempt: Attempt(0),
            node: None,
            rank: None,
            subject: None,
            detail: None,
        }))]);
    }

    /// Seconds pass in which nothing comes but ticks, four a second.
    fn pass(&mut self, seconds: i64) {
        for _ in 0..4 * seconds {
            self.now += SECOND_NS / 4;
            self.append(FrameWriter::tick("serve", self.now));
        }
    }
}

fn trained(steps: u64) -> Live {
    let mut live = Live::new();
    (0..steps).for_each(|step| live.step(step, None, None));
    assert_eq!(live.incidents, [], "nothing is wrong yet");
    live
}

#[test]
fn a_run_that_stops_is_told_after_300_s_and_one_that_ended_or_pauses_is_not() {
    let mut live = trained(60);
    live.pass(298);
    assert_eq!(live.told_at, []);
    live.pass(3);
    assert_eq!(live.told_at, [("telemetry.silence".to_owned(), 359)]);
    assert_eq!((live.incidents[0].severity, live.incidents[0].suspects.len()), (Severity::Critical, 0));
    // It goes on: the incident ends.
    (60..80).for_each(|step| live.step(step, None, None));
    live.pass(20);
    assert_eq!(serde_json::to_value(live.incidents[0].state).expect("a word"), "resolved");
    for kind in ["run_end", "pause_begin"] {
        let mut quiet = trained(60);
        quiet.event(kind);
        quiet.pass(1_000);
        assert_eq!(quiet.told_at, [], "after {kind}");
    }
}

#[test]
fn a_silent_rank_is_told_within_its_deadline() {
    let mut live = trained(60);
    (60..90).for_each(|step| live.step(step, Some(5), None));
    let (kind, at) = live.told_at.first().expect("it is told").clone();
    assert_eq!(kind, "telemetry.silence");
    assert_eq!(live.incidents[0].suspects.iter().map(|suspect| suspect.rank.0).collect::<Vec<_>>(), [5]);
    // Three rows without it, each closed 10 s after its first cell.
    assert!((60..=60 + 3 + 10 + 1).contains(&at), "told at {at} s");
}

#[test]
fn a_hang_is_told_within_its_deadline_though_nothing_comes_any_more() {
    let mut live = trained(60);
    live.step(60, None, Some(3));
    live.pass(40);
    let (kind, at) = live.told_at.first().expect("it is told").clone();
    assert_eq!(kind, "stall.hang", "{:?}", live.incidents.iter().map(|one| &one.summary).collect::<Vec<_>>());
    assert!((61..=61 + 20).contains(&at), "told at {at} s");
    assert_eq!(live.incidents[0].suspects[0].rank.0, 3);
}

/// A frame that concerns every run, with one audit record in it.
fn of_every_run(time: i64, run: Option<&str>, sequence: u64) -> Vec<u8> {
    let event = Event {
        time: Timestamp(time),
        source: "sudo".to_owned(),
        kind: "exec".to_owned(),
        actor: None,
        run: run.map(RunId::new),
        attempt: Attempt(0),
        node: None,
        rank: None,
        subject: None,
        detail: None,
    };
    let mut batch = BatchWriter::default();
    batch.push(&Record { log_time: NO_TIME, row: Row::Event(Arc::new(event)) }, &Names::default());
    let (table, rows) = batch.finish().remove(0);
    let mut writer = FrameWriter::new("audit", "", None);
    (0..sequence).for_each(|_| drop(writer.end(0)));
    writer.rows(table, &rows, 0)
}

#[test]
fn an_event_of_every_run_is_known_to_a_live_one_once_and_does_not_keep_it_alive() {
    let mut live = trained(60);
    let frame = of_every_run(live.now - SECOND_NS / 2, None, 0);
    live.append(frame.clone());
    live.append(frame);
    // What names a run does not concern every run.
    live.append(of_every_run(live.now - SECOND_NS / 2, Some("other"), 1));
    live.step(60, None, Some(3));
    live.pass(40);
    let changes: Vec<&str> = live.incidents[0].changes.iter().map(|change| change.kind.as_str()).collect();
    assert_eq!(changes, ["exec"]);
    let mut quiet = trained(60);
    for minute in 0..4 {
        quiet.append(of_every_run(quiet.now, None, minute));
        quiet.pass(60);
    }
    quiet.append(of_every_run(quiet.now, None, 4));
    quiet.pass(61);
    assert_eq!(quiet.told_at.first().map(|(kind, _)| kind.as_str()), Some("telemetry.silence"));
}
