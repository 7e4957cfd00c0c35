//! How fast a launch advances: the time of its last steps, without announced pauses.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use trainwarden_telemetry::{Label, Metric, Panel, Step, Timestamp};

use crate::limits::{PACE_ROWS_MAX, PAUSES_MAX};

/// First rows of a launch, in which it compiles, allocates and fills its caches.
const WARM_UP_ROWS: u64 = 10;
/// Rows of a block: its mean shows how the pace wanders, beyond the noise of single rows.
const BLOCK_ROWS: usize = 16;
/// Fewest blocks whose spread is told.
const BLOCKS_MIN: usize = 3;
/// A healthy pace wanders by so much over hours and days, whatever its last rows show: Llama 3 saw 1 to 2 % between day
/// and night (arXiv 2407.21783, section 3.3.4).
const WANDER: f64 = 0.01;
/// Fewest rows of a healthy pace.
const HEALTHY_ROWS_MIN: usize = 8;
/// Series of the own work of ranks, which has what all have in common and nothing of one that is slow.
const WORKS: [&str; 2] = ["forward_time_s", "backward_time_s"];
/// Steps whose work may come before the row that ends them, or after it.
const WORK_STEPS_MAX: usize = 64;
/// The series that says when steps end, the best first.
const CLOCKS: [&str; 2] = ["step_time_s", "loss"];

/// One row: some steps, and the time that they took together.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "PackedRow", into = "PackedRow")]
pub(crate) struct PaceRow {
    pub(crate) label: Label,
    /// Steps since the row before.
    pub(crate) steps: u64,
    /// Time of these steps, without announced pauses.
    pub(crate) seconds: f64,
    /// Own work of the middle rank in this step, in seconds, and of how many series it is the sum.
    pub(crate) work_s: f64,
    pub(crate) works: u8,
    /// Rows of the launch before this one.
    index: u64,
}

/// A row as it is written to a snapshot: hundreds of them with the names of their fields would be most of it.
type PackedRow = ((Option<u64>, Option<i64>), u64, f64, f64, u8, u64);

impl From<PaceRow> for PackedRow {
    fn from(row: PaceRow) -> Self {
        let place = (row.label.step.map(|step| step.0), row.label.time.map(|time| time.0));
        (place, row.steps, row.seconds, row.work_s, row.works, row.index)
    }
}

impl From<PackedRow> for PaceRow {
    fn from(((step, time), steps, seconds, work_s, works, index): PackedRow) -> Self {
        let label = Label { step: step.map(Step), time: time.map(Timestamp) };
        Self { label, steps, seconds, work_s, works, index }
    }
}

/// A level, and how far it wanders by itself.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Level {
    /// Seconds a step.
    pub(crate) step_s: f64,
    /// Standard deviation of the level, in seconds a step.
    pub(crate) spread_s: f64,
}

/// The pace of one launch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Pace {
    /// First and last row of any panel.
    first: Option<Label>,
    last: Option<Label>,
    /// Newest time of any panel.
    newest: Option<Timestamp>,
    /// The series whose rows are the steps.
    clock: Option<Metric>,
    first_row: Option<Label>,
    last_row: Option<Label>,
    rows: VecDeque<PaceRow>,
    count: u64,
    /// Work of steps that have not ended yet.
    works: BTreeMap<Step, (f64, u8)>,
    /// Announced pauses; without an end they last.
    pauses: VecDeque<(Timestamp, Option<Timestamp>)>,
}

impl Pace {
    /// Takes a panel in.
    ///
    /// * `evict`: is given each row that is not kept any longer.
    /// * Returns whether a step ended.
    pub(crate) fn observe(&mut self, panel: &Panel, mut evict: impl FnMut(PaceRow)) -> bool {
        self.first = self.first.or(panel.labels.first().copied());
        self.last = panel.labels.last().copied().or(self.last);
        let newest = panel.labels.iter().filter_map(|label| label.time).max();
        self.newest = self.newest.max(newest);
        if WORKS.contains(&panel.metric.as_str()) && !panel.is_whole_run() {
            self.take_work(panel);
        }
        if !self.is_clock(&panel.metric) {
            return false;
        }
        for (row, label) in panel.labels.iter().enumerate() {
            self.push(*label, || median(panel, row), &mut evict);
        }
        !panel.labels.is_empty()
    }

    fn take_work(&mut self, panel: &Panel) {
        for (row, label) in panel.labels.iter().enumerate() {
            let (Some(step), Some(work_s)) = (label.step, median(panel, row)) else { continue };
            let newest = self.rows.iter_mut().rev().take(WORK_STEPS_MAX);
            if let Some(row) = newest.into_iter().find(|row| row.label.step == Some(step)) {
                (row.work_s, row.works) = (row.work_s + work_s, row.works.saturating_add(1));
                continue;
            }
            let sum = self.works.entry(step).or_default();
            *sum = (sum.0 + work_s, sum.1.saturating_add(1));
            if self.works.len() > WORK_STEPS_MAX {
                self.works.pop_first();
            }
        }
    }

    /// A pause that is announced is no loss.
    pub(crate) fn pause(&mut self, begin: Timestamp) {
        if self.pauses.len() == PAUSES_MAX {
            self.pauses.pop_front();
        }
        self.pauses.push_back((begin, None));
    }

    pub(crate) fn resume(&mut self, end: Timestamp) {
        if let Some(open) = self.pauses.iter_mut().rev().find(|(_, end)| end.is_none()) {
            open.1 = Some(end);
        }
    }

    /// Takes the best series that there is: a better one that comes later begins anew.
    fn is_clock(&mut self, metric: &Metric) -> bool {
        let grade = |metric: &Metric| CLOCKS.iter().position(|name| *name == metric.as_str()).unwrap_or(CLOCKS.len());
        match &self.clock {
            Some(clock) if clock == metric => return true,
            Some(clock) if grade(clock) <= grade(metric) => return false,
            _ => {}
        }
        self.clock = Some(metric.clone());
        (self.first_row, self.last_row) = (None, None);
        self.rows.clear();
        self.count = 0;
        true
    }

    fn push(&mut self, label: Label, value: impl Fn() -> Option<f64>, evict: &mut impl FnMut(PaceRow)) {
        let before = self.last_row;
        self.first_row = self.first_row.or(Some(label));
        self.last_row = Some(label);
        let index = self.count;
        self.count += 1;
        let steps = match (before.and_then(|before| before.step), label.step) {
            (Some(before), Some(step)) if step > before => step.0 - before.0,
            _ => return,
        };
        let is_step_time = self.clock.as_ref().is_some_and(|clock| clock.as_str() == CLOCKS[0]);
        let wall = before.and_then(|before| self.wall_s(before.time?, label.time?));
        let told = || value().filter(|_| is_step_time && steps == 1);
        let Some(seconds) = wall.or_else(told).filter(|seconds| seconds.is_finite() && *seconds >= 0.0) else { return };
        if self.rows.len() == PACE_ROWS_MAX
            && let Some(old) = self.rows.pop_front()
        {
            evict(old);
        }
        let (work_s, works) = label.step.and_then(|step| self.works.remove(&step)).unwrap_or_default();
        self.rows.push_back(PaceRow { label, steps, seconds, work_s, works, index });
    }

    /// Seconds between two rows, without announced pauses.
    fn wall_s(&self, from: Timestamp, to: Timestamp) -> Option<f64> {
        let paused: i64 = self.pauses.iter().map(|(begin, end)| overlap(from, to, *begin, end.unwrap_or(to))).sum();
        (to > from).then(|| (to.0 - from.0 - paused).max(0) as f64 / 1e9)
    }

    /// Seconds a step from the first to the last row of any panel: a rough pace, for rates.
    pub(crate) fn rough_step_s(&self) -> Option<f64> {
        let (first, last) = (self.first?, self.last?);
        let steps = last.step?.0.checked_sub(first.step?.0).filter(|steps| *steps > 0)?;
        let seconds = last.time?.seconds_since(first.time?) / steps as f64;
        (seconds > 0.0).then_some(seconds)
    }

    /// The pace before a step, if enough of it is known: without the first rows of the launch.
    pub(crate) fn level_before(&self, step: Step) -> Option<Level> {
        let is_healthy = |row: &&PaceRow| row.index > WARM_UP_ROWS && row.label.step.is_some_and(|at| at < step);
        level(&self.rows.iter().filter(is_healthy).collect::<Vec<_>>())
    }

    /// The same of what steps take beyond the own work of the middle rank: a wave that all ranks have in common is in
    /// neither. `None` where work is not logged.
    ///
    /// * Returns the level, and of how many series the work is the sum.
    pub(crate) fn excess_before(&self, step: Step) -> Option<(Level, u8)> {
        let is_healthy = |row: &&PaceRow| row.index > WARM_UP_ROWS && row.label.step.is_some_and(|at| at < step);
        let works = self.rows.iter().filter(is_healthy).map(|row| row.works).max().filter(|works| *works > 0)?;
        let rows = self.rows.iter().filter(is_healthy).filter(|row| row.steps == 1 && row.works == works);
        let rows: Vec<PaceRow> = rows.map(|row| PaceRow { seconds: row.seconds - row.work_s, ..*row }).collect();
        Some((wandering_level(&rows.iter().collect::<Vec<_>>())?, works))
    }

    /// The pace of the rows that are kept.
    pub(crate) fn level(&self) -> Option<Level> {
        level(&self.rows.iter().filter(|row| row.index > WARM_UP_ROWS).collect::<Vec<_>>())
    }

    /// The rows that are kept, oldest first.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &PaceRow> {
        self.rows.iter()
    }

    /// When the first and the last step of the launch ended.
    pub(crate) fn steps(&self) -> Option<(Label, Label)> {
        self.first_row.zip(self.last_row)
    }

    /// First row of any panel.
    pub(crate) fn first(&self) -> Option<Label> {
        self.first
    }

    /// The newest time that any row of the launch has.
    pub(crate) fn newest(&self) -> Option<Timestamp> {
        self.newest
    }

    /// Ends what is of no more use when a later launch is under way: rows, not labels.
    pub(crate) fn settle(&mut self) {
        self.rows = VecDeque::new();
        self.pauses = VecDeque::new();
    }
}

fn overlap(from: Timestamp, to: Timestamp, begin: Timestamp, end: Timestamp) -> i64 {
    (to.min(end).0 - from.max(begin).0).max(0)
}

/// Median over ranks of a row.
fn median(panel: &Panel, row: usize) -> Option<f64> {
    let mut values: Vec<f32> = (0..panel.values.ncols())
        .filter_map(|column| panel.value(row, column))
        .filter(|value| value.is_finite())
        .collect();
    let middle = values.len().checked_sub(1)? / 2;
    Some(f64::from(*values.select_nth_unstable_by(middle, f32::total_cmp).1))
}

fn level(rows: &[&PaceRow]) -> Option<Level> {
    let level = wandering_level(rows)?;
    Some(Level { spread_s: level.spread_s.max(WANDER * level.step_s), ..level })
}

/// The level of rows, and how far it wanders among them.
fn wandering_level(rows: &[&PaceRow]) -> Option<Level> {
    if rows.len() < HEALTHY_ROWS_MIN {
        return None;
    }
    let step_s = mean_s(rows)?;
    let blocks: Vec<f64> = rows.rchunks_exact(BLOCK_ROWS).filter_map(mean_s).collect();
    let singles: Vec<f64> = rows.iter().map(|row| row.seconds / row.steps as f64).collect();
    // The mean of rows that are independent of each other is so uncertain; a pace that wanders is more so.
    let of_rows = deviation(&singles, step_s) / (rows.len() as f64).sqrt();
    let of_blocks = if blocks.len() >= BLOCKS_MIN { deviation(&blocks, step_s) } else { deviation(&singles, step_s) };
    Some(Level { step_s, spread_s: of_rows.max(of_blocks) })
}

fn mean_s(rows: &[&PaceRow]) -> Option<f64> {
    let steps: u64 = rows.iter().map(|row| row.steps).sum();
    (steps > 0).then(|| rows.iter().map(|row| row.seconds).sum::<f64>() / steps as f64)
}

fn deviation(values: &[f64], mean: f64) -> f64 {
    let sum: f64 = values.iter().map(|value| (value - mean) * (value - mean)).sum();
    (sum / values.len().max(1) as f64).sqrt()
}
