//! Small hand-made observations for the tests of detectors.

use std::sync::Arc;

use ndarray::Array2;
use trainwarden_kernels::Cpu;
use trainwarden_telemetry::{
    Attempt, CollectiveCall, CollectiveEntry, Event, Label, Metric, Observation, Panel, Rank, RunId, Step, Timestamp,
    Verdict,
};

use crate::{Budget, Detector, Scene};

/// Nanoseconds between the rows of hand-made panels: one second.
pub(crate) const ROW_NS: i64 = 1_000_000_000;

/// A scene that knows nothing.
pub(crate) fn bare_scene() -> Scene {
    Scene::new(RunId::new("run"), Budget::default())
}

/// Rows of a metric from `first_step` on; `None` = the cell did not arrive. Columns are ranks 0, 1, ...
pub(crate) fn rank_panel(metric: &str, first_step: u64, rows: &[Vec<Option<f32>>]) -> Panel {
    let columns = rows.first().map_or(0, Vec::len);
    let cells = rows.iter().flatten();
    let values = cells.clone().map(|cell| cell.unwrap_or(f32::NAN)).collect();
    let present = cells.map(Option::is_some).collect();
    let labels: Vec<Label> = (0..rows.len() as u64).map(|row| label(first_step + row)).collect();
    let clocks = labels.iter().flat_map(|label| vec![label.time.map_or(i64::MIN, |time| time.0); columns]).collect();
    let shape = (rows.len(), columns);
    Panel {
        attempt: Attempt(0),
        metric: Metric::new(metric),
        labels,
        ranks: (0..columns as u32).map(Rank).collect::<Vec<_>>().into(),
        values: Array2::from_shape_vec(shape, values).expect("every row has the same number of columns"),
        present: Array2::from_shape_vec(shape, present).expect("every row has the same number of columns"),
        clocks: Array2::from_shape_vec(shape, clocks).expect("every row has the same number of columns"),
        deadline_ns: Some(10 * ROW_NS),
    }
}

/// Repeatable Gaussian noise: a congruential generator (Knuth, MMIX) and the sum of twelve.
pub(crate) struct Noise(pub(crate) u64);

impl Noise {
    fn uniform(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub(crate) fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }
}

/// A metric of `ranks` around 0.25 with 1 % noise, times what `factor` says of (row, rank).
pub(crate) fn noisy_panel(metric: &str, rows: u64, ranks: usize, factor: impl Fn(u64, usize) -> f64) -> Panel {
    let mut noise = Noise(7);
    let cell = |row, rank, noise: &mut Noise| Some((0.25 * (1.0 + 0.01 * noise.normal()) * factor(row, rank)) as f32);
    let rows: Vec<Vec<Option<f32>>> =
        (0..rows).map(|row| (0..ranks).map(|rank| cell(row, rank, &mut noise)).collect()).collect();
    rank_panel(metric, 0, &rows)
}

/// Rows of a whole-run metric from `first_step` on.
pub(crate) fn run_panel(metric: &str, first_step: u64, values: &[f32]) -> Panel {
    let rows: Vec<Vec<Option<f32>>> = values.iter().map(|value| vec![Some(*value)]).collect();
    Panel { ranks: Arc::from([]), ..rank_panel(metric, first_step, &rows) }
}

/// The label of a step: its time is the step in seconds.
pub(crate) fn label(step: u64) -> Label {
    Label { step: Some(Step(step)), time: Some(Timestamp(step as i64 * ROW_NS)) }
}

/// Lets a detector judge observations one after the other, with the scene kept as the pipeline does.
pub(crate) fn judge_all(detector: &mut dyn Detector, scene: &mut Scene, seen: &[Observation]) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for observation in seen {
        scene.observe(observation);
        verdicts
            .extend(detector.judge(observation, scene, &mut Cpu::new()).expect("hand-made panels have good shapes"));
    }
    verdicts
}

/// Splits a panel into one panel a row, as alignment sends them.
pub(crate) fn row_by_row(panel: &Panel) -> Vec<Observation> {
    let row = |index: usize| Panel {
        labels: vec![panel.labels[index]],
        values: panel.values.slice(ndarray::s![index..=index, ..]).to_owned(),
        present: panel.present.slice(ndarray::s![index..=index, ..]).to_owned(),
        clocks: panel.clocks.slice(ndarray::s![index..=index, ..]).to_owned(),
        ..panel.clone()
    };
    (0..panel.rows()).map(|index| Observation::Panel(row(index))).collect()
}

/// Holds that a detector restored from a snapshot in the middle says the same as one that ran through.
pub(crate) fn assert_restores(build: impl Fn() -> Box<dyn Detector>, seen: &[Observation]) {
    let whole = judge_all(build().as_mut(), &mut bare_scene(), seen);
    for cut in [1, seen.len() / 2, seen.len().saturating_sub(1)] {
        let mut scene = bare_scene();
        let mut first = build();
        let mut verdicts = judge_all(first.as_mut(), &mut scene, &seen[..cut]);
        let snapshot = first.snapshot().expect("state serialises");
        let mut second = build();
        second.restore(&snapshot).expect("the snapshot was just taken");
        assert_eq!(second.snapshot().expect("state serialises"), snapshot);
        verdicts.extend(judge_all(second.as_mut(), &mut scene, &seen[cut..]));
        assert_eq!(verdicts, whole, "restored after {cut} observations");
        assert!(build().restore(&[]).is_err(), "no bytes are no snapshot");
    }
}

/// A finished call part: issued and started `seq` seconds after the epoch, finished then too.
pub(crate) fn entry(rank: u32, op: &str, seq: u64) -> CollectiveEntry {
    let time = Some(Timestamp(seq as i64 * ROW_NS));
    CollectiveEntry {
        rank: Rank(rank),
        op: op.to_owned(),
        bytes: Some(64),
        signature: None,
        enqueued: time,
        start: time,
        end: time,
        step: None,
        peer: None,
    }
}

/// A closed call of attempt 0 with nobody missing.
pub(crate) fn call(comm: &str, seq: u64, entries: Vec<CollectiveEntry>) -> CollectiveCall {
    let comm = comm.to_owned();
    CollectiveCall { attempt: Attempt(0), comm, seq, entries, missing: Vec::new(), deadline_ns: Some(10 * ROW_NS) }
}

/// A mark in the life of attempt 0, some seconds after the epoch.
pub(crate) fn event(kind: &str, time_s: i64) -> Observation {
    Observation::Event(Event {
        time: Timestamp(time_s * ROW_NS),
        source: "trainer".to_owned(),
        kind: kind.to_owned(),
        actor: None,
        run: None,
        attempt: Attempt(0),
        node: None,
        rank: None,
        subject: None,
        detail: None,
    })
}
