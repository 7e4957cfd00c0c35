//! Small training runs, written as run folders: what a healthy one logs, and where a test may bend it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;

use tempfile::TempDir;
use trainwarden::replay::{Findings, replay};
use trainwarden_ingest::{CollectiveOut, DigestOut, EventOut, FolderWriter, Format, PlacementOut, SampleOut};
use trainwarden_telemetry::{Incident, Severity};

pub(crate) const SECOND_NS: i64 = 1_000_000_000;
pub(crate) const START_NS: i64 = 1_766_000_000_000_000_000;
const RUN: &str = "llm";

/// Deterministic noise for a cell, nearly normal with a deviation of one.
pub(crate) fn noise(rank: u32, step: u64, salt: u64) -> f64 {
    let mut state = step ^ (u64::from(rank) << 32) ^ salt.wrapping_mul(0xD134_2543_DE82_EF95);
    let mut sum = 0.0;
    for _ in 0..12 {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        sum += ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64;
    }
    sum - 6.0
}

/// A folder being written.
pub(crate) struct Folder {
    dir: TempDir,
    writer: FolderWriter,
    /// Numbers and fingerprints carry times.
    pub(crate) is_timed: bool,
}

impl Folder {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        let writer = FolderWriter::create(dir.path(), Format::Csv).expect("a temporary folder takes files");
        Self { dir, writer, is_timed: true }
    }

    pub(crate) fn sample(&mut self, at: At, rank: Option<u32>, metric: &str, value: f64) {
        let (attempt, step, time) = (at.attempt, Some(at.step), self.is_timed.then_some(at.time));
        let row = SampleOut { run: RUN, attempt, rank, step, time, metric, value };
        self.writer.sample(&row).expect("a temporary folder takes rows");
    }

    pub(crate) fn digest(&mut self, at: At, rank: Option<u32>, what: (&str, &str, Option<&str>), digest: &str) {
        let (attempt, step, time, (kind, name, group)) =
            (at.attempt, Some(at.step), self.is_timed.then_some(at.time), what);
        let row = DigestOut { run: RUN, attempt, rank, step, time, kind, name, digest, group };
        self.writer.digest(&row).expect("a temporary folder takes rows");
    }

    /// A call consists of times; a log without them has none.
    pub(crate) fn call(&mut self, at: At, rank: u32, start: i64, end: Option<i64>) {
        if !self.is_timed {
            return;
        }
        let row = CollectiveOut {
            run: RUN,
            attempt: at.attempt,
            rank,
            comm: "dp",
            seq: at.step,
            op: "all_reduce",
            bytes: Some(1 << 20),
            signature: None,
            enqueued: Some(start),
            start: Some(start),
            end,
            step: Some(at.step),
            peer: None,
        };
        self.writer.collective(&row).expect("a temporary folder takes rows");
    }

    pub(crate) fn event(&mut self, attempt: u32, time: i64, kind: &str, subject: &str) {
        let row = EventOut {
            time,
            source: "trainer",
            kind,
            actor: None,
            run: Some(RUN),
            attempt: Some(attempt),
            node: None,
            rank: None,
            subject: Some(subject),
            detail: None,
        };
        self.writer.event(&row).expect("a temporary folder takes rows");
    }

    pub(crate) fn place(&mut self, attempt: u32, rank: u32, stages: u32, ranks: u32) {
        let node = format!("n{:02}", rank / 4);
        let row = PlacementOut {
            run: RUN,
            attempt,
            rank,
            node: Some(&node),
            device: None,
            local_rank: Some(rank % 4),
            dp: Some(rank % (ranks / stages)),
            tp: None,
            pp: Some(rank / (ranks / stages)),
            ep: None,
            cp: None,
        };
        self.writer.placement(&row).expect("a temporary folder takes rows");
    }

    /// Replays what was written.
    pub(crate) fn replay(self) -> Findings {
        let Self { dir, writer, .. } = self;
        writer.finish().expect("a temporary folder takes files");
        let (findings, rejects) = replay(&[PathBuf::from(dir.path())], None).expect("the folder was just written");
        assert_eq!(rejects.count(), 0, "{:?}", rejects.summary());
        assert_eq!(findings.errors, BTreeMap::new());
        findings
    }
}

/// Where a row stands.
#[derive(Clone, Copy)]
pub(crate) struct At {
    pub(crate) attempt: u32,
    pub(crate) step: u64,
    pub(crate) time: i64,
}

/// A training: what each step costs and gives. Every field has a healthy default.
pub(crate) struct Training {
    pub(crate) attempt: u32,
    pub(crate) ranks: u32,
    pub(crate) stages: u32,
    pub(crate) steps: Range<u64>,
    /// When the first step begins.
    pub(crate) begin: i64,
    /// Times the usual work of a step (0.5 s), by rank.
    pub(crate) work: fn(u64, u32) -> f64,
    pub(crate) loss: fn(u64) -> f64,
    pub(crate) learning_rate: fn(u64) -> f64,
    /// Seconds between this step and the next.
    pub(crate) pause_s: fn(u64) -> f64,
    /// It is told where the ranks run.
    pub(crate) has_roster: bool,
    /// The pauses are announced.
    pub(crate) announces: bool,
    /// The epoch of a step, and which batch of it comes.
    pub(crate) batch: fn(u64) -> (u64, u64),
    /// The rank misses the call of this step, and so nobody ends it.
    pub(crate) hangs: fn(u64, u32) -> bool,
    /// The rank says nothing in this step.
    pub(crate) mute: fn(u64, u32) -> bool,
    /// The step whose numbers the rank sends, instead of this one's.
    pub(crate) numbers_of: fn(u64, u32) -> u64,
}

impl Default for Training {
    fn default() -> Self {
        Self {
            attempt: 0,
            ranks: 8,
            stages: 1,
            steps: 0..400,
            begin: START_NS,
            work: |_, _| 1.0,
            loss: |step| 2.0 + 8.0 / (1.0 + step as f64 / 20.0),
            learning_rate: |_| 3e-4,
            pause_s: |_| 0.0,
            has_roster: true,
            announces: false,
            batch: |step| (0, step),
            hangs: |_, _| false,
            mute: |_, _| false,
            numbers_of: |step, _| step,
        }
    }
}

impl Training {
    /// Writes the training; gives the time at which it ends.
    pub(crate) fn write(&self, folder: &mut Folder) -> i64 {
        if self.has_roster {
            (0..self.ranks).for_each(|rank| folder.place(self.attempt, rank, self.stages, self.ranks));
        }
        let mut begin = self.begin;
        for step in self.steps.clone() {
            begin = self.write_step(folder, step, begin);
            let pause_s = (self.pause_s)(step);
            if pause_s > 0.0 && self.announces {
                folder.event(self.attempt, begin, "pause_begin", "evaluation");
            }
            begin += (pause_s * 1e9) as i64;
            if pause_s > 0.0 && self.announces {
                folder.event(self.attempt, begin, "pause_end", "evaluation");
            }
        }
        begin
    }

    /// Seconds of own work in a step.
    fn work_s(&self, step: u64, rank: u32) -> f64 {
        0.5 * (self.work)(step, rank) * (1.0 + 0.01 * noise(rank, step, 1))
    }

    fn write_step(&self, folder: &mut Folder, step: u64, begin: i64) -> i64 {
        let attempt = self.attempt;
        let slowest_s = (0..self.ranks).map(|rank| self.work_s(step, rank)).fold(0.0, f64::max);
        let is_stuck = (0..self.ranks).any(|rank| (self.hangs)(step, rank));
        let whole_s = slowest_s + 0.1 * (1.0 + 0.01 * noise(0, step, 2));
        let end = begin + (whole_s * 1e9) as i64;
        let at = At { attempt, step, time: end };
        for rank in (0..self.ranks).filter(|rank| !(self.mute)(step, *rank)) {
            let told = (self.numbers_of)(step, rank);
            let skew = i64::from(rank) * 10_000;
            let at = At { time: end + skew, ..at };
            let work_s = self.work_s(told, rank);
            let is_stage_split = self.stages > 1;
            let stage = if is_stage_split { f64::from(rank / (self.ranks / self.stages)) } else { 0.0 };
            folder.sample(at, Some(rank), "forward_time_s", work_s * (0.3 + 0.15 * stage) * jitter(rank, told, 3));
            folder.sample(at, Some(rank), "backward_time_s", work_s * (0.6 + 0.3 * stage) * jitter(rank, told, 4));
            folder.sample(at, Some(rank), "step_time_s", whole_s * (1.0 + 1e-4 * noise(rank, told, 5)));
            let loss = (self.loss)(told);
            folder.sample(at, Some(rank), "loss_local", loss * (1.0 + 0.02 * noise(rank, told, 6)));
            let norm = 0.3 + 0.1 * loss;
            folder.sample(at, Some(rank), "grad_norm_local", norm * (1.0 + 0.05 * noise(rank, told, 7)));
            folder.sample(at, Some(rank), "gpu_power_w", 600.0 + 8.0 * noise(rank, told, 8));
            let dp = rank % (self.ranks / self.stages);
            let (epoch, batch) = (self.batch)(step);
            let group = format!("epoch-{epoch}");
            folder.digest(at, Some(rank), ("batch", "ids", Some(&group)), &format!("{batch:08x}{dp:08x}"));
            let stage = rank / (self.ranks / self.stages);
            folder.digest(at, Some(rank), ("weight", "layers", None), &format!("{step:08x}{stage:08x}"));
            let start = begin + skew + (work_s * 1e9) as i64;
            if !(self.hangs)(step, rank) {
                folder.call(at, rank, start.min(end), (!is_stuck).then_some(end));
            }
        }
        folder.sample(at, None, "loss", (self.loss)(step) * (1.0 + 0.005 * noise(0, step, 9)));
        folder.sample(at, None, "grad_norm", (0.3 + 0.1 * (self.loss)(step)) * (1.0 + 0.03 * noise(0, step, 10)));
        folder.sample(at, None, "learning_rate", (self.learning_rate)(step));
        end
    }
}

fn jitter(rank: u32, step: u64, salt: u64) -> f64 {
    1.0 + 0.01 * noise(rank, step, salt)
}

/// What a person is told of: incidents of warning and above that are no part of another.
pub(crate) fn alarms(findings: &Findings) -> Vec<&Incident> {
    let is_told = |incident: &&Incident| incident.severity >= Severity::Warning && incident.merged_into.is_none();
    findings.incidents.iter().filter(is_told).collect()
}

/// The alarms in words, for the message of a failed test.
pub(crate) fn words(findings: &Findings) -> Vec<String> {
    let word = |incident: &&Incident| {
        let ranks: Vec<u32> = incident.suspects.iter().map(|suspect| suspect.rank.0).collect();
        let (attempt, kind, state) = (incident.attempt.0, incident.kind, incident.state);
        format!("{attempt} {kind} {state:?} {ranks:?} {:?}: {}", incident.first_step, incident.summary)
    };
    alarms(findings).iter().map(word).collect()
}
