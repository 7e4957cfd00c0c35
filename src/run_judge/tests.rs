//! What people do is in the log of a run, and is none of its telemetry.

use trainwarden_ingest::wire::{BatchWriter, FrameWriter, TrustedKeys};
use trainwarden_ingest::{NO_U32, Names, Record, Row, SampleRow};
use trainwarden_telemetry::{Attempt, ChangeKind, State, Timestamp};

use super::*;

/// Steps of the run, and the one whose loss is no number.
const STEPS: u64 = 75;
const BROKEN_STEP: u64 = 60;
/// When a person looks: long after the recorded rows.
const TODAY: i64 = 1_800_000_000_000_000_000;

struct Log {
    writer: FrameWriter,
    judge: RunJudge,
    offset: u64,
}

impl Log {
    fn new() -> Self {
        let writer = FrameWriter::new("n0", "r", Some(LogClock::Nanoseconds));
        Self { writer, judge: RunJudge::new(&RunId::new("r")), offset: 0 }
    }

    fn take(&mut self, frame: &[u8]) -> Vec<Change> {
        let frame = OpenedFrame::open(frame, &TrustedKeys::default()).expect("a good frame");
        self.offset += 1;
        self.judge.take(&frame, (self.offset, TODAY)).expect("good rows")
    }

    fn losses(&mut self, steps: std::ops::Range<u64>) -> Vec<Change> {
        let (mut batch, mut names) = (BatchWriter::default(), Names::default());
        let metric = names.intern("loss");
        for step in steps {
            let time = step as i64 * 1_000_000_000;
            let value = if step == BROKEN_STEP { f64::NAN } else { 2.0 + (step % 7) as f64 * 0.01 };
            let row = SampleRow { log_time: time, step, time, value, attempt: 0, rank: NO_U32, metric, reserved: 0 };
            batch.push(&Record { log_time: time, row: Row::Sample(row) }, &names);
        }
        let frames: Vec<_> = batch.finish().iter().map(|(table, rows)| self.writer.rows(*table, rows, 0)).collect();
        frames.iter().flat_map(|frame| self.take(frame)).collect()
    }

    fn end(&mut self) -> Vec<Change> {
        let frame = self.writer.end(0);
        self.take(&frame)
    }

    fn act(&mut self, kind: &str, subject: &str) -> Vec<Change> {
        let event = Event {
            time: Timestamp(TODAY),
            source: "trainwarden".to_owned(),
            kind: kind.to_owned(),
            actor: None,
            run: Some(RunId::new("r")),
            attempt: Attempt(0),
            node: None,
            rank: None,
            subject: Some(subject.to_owned()),
            detail: None,
        };
        let mut batch = BatchWriter::default();
        batch.push(&Record { log_time: TODAY, row: Row::Event(Arc::new(event)) }, &Names::default());
        let rows = batch.finish().into_iter().next().expect("one table").1;
        self.take(&FrameWriter::new("trainwarden", "r", None).act(&rows, TODAY))
    }

    fn only(&self) -> Incident {
        let incidents: Vec<&Incident> = self.judge.incidents().collect();
        assert_eq!(incidents.len(), 1, "{incidents:?}");
        incidents[0].clone()
    }
}

#[test]
fn an_incident_of_an_ended_run_is_acknowledged_and_the_run_stays_ended() {
    let mut log = Log::new();
    log.losses(0..STEPS);
    log.end();
    let found = log.only();
    let changes = log.act("ack", &found.id.0);
    assert_eq!(changes.iter().map(|change| change.change).collect::<Vec<_>>(), [ChangeKind::Acknowledged]);
    assert_eq!(log.only(), Incident { state: State::Acknowledged, ..found.clone() });
    assert!(log.act("ack", &found.id.0).is_empty(), "it is acknowledged once");
    assert!(log.act("ack", "inc_unknown").is_empty());
    let snapshot = log.judge.snapshot().expect("it serialises");
    log.judge = RunJudge::restore(&RunId::new("r"), &snapshot).expect("its own snapshot");
    assert_eq!(log.only().state, State::Acknowledged);
    // The input goes on after all: what a person did is not forgotten.
    log.losses(STEPS..STEPS + 2);
    log.end();
    let whole = log.only();
    assert_eq!((whole.id, whole.state), (found.id, State::Acknowledged));
}

#[test]
fn an_act_in_the_midst_of_a_recorded_run_makes_no_row_late() {
    let (mut acted, mut left_alone) = (Log::new(), Log::new());
    for log in [&mut acted, &mut left_alone] {
        log.losses(0..BROKEN_STEP + 10);
    }
    let id = acted.only().id;
    acted.act("ack", &id.0);
    for log in [&mut acted, &mut left_alone] {
        log.losses(BROKEN_STEP + 10..STEPS);
        log.end();
    }
    assert_eq!(acted.judge.counts().late, 0);
    assert_eq!(Incident { state: left_alone.only().state, ..acted.only() }, left_alone.only());
    assert!(acted.judge.log.before_end.is_some(), "the end was understood as the end");
}

#[test]
fn an_annotation_before_the_first_row_does_not_make_a_recorded_run_live() {
    let mut log = Log::new();
    assert!(log.act("annotate", "maintenance").is_empty());
    assert!(!log.judge.is_live());
    let snapshot = log.judge.snapshot().expect("it serialises");
    log.judge = RunJudge::restore(&RunId::new("r"), &snapshot).expect("its own snapshot");
    log.losses(0..STEPS);
    log.end();
    assert!(!log.judge.is_live());
    assert_eq!(log.only().kind.to_string(), "divergence.nonfinite");
}
