//! Detects long steps that come now and then, or in a rhythm, where they did not before.
//!
//! # What it finds
//! Rare steps of the whole run that take half again their time or more and together cost a fiftieth of it:
//! `slowdown.periodic` where the gaps between them are equal, else `slowdown.intermittent`; a warning.
//!
//! # Why it matters
//! A job that wakes up every minute on each node, or a person who stops and continues a process, costs a few percent
//! without ever moving the usual step time.
//!
//! # How it decides
//! Against the past. A step is long when it exceeds the median of the last [`LEVEL_ROWS`] usual ones by [`LONG_RATIO`];
//! more than [`RUN_ROWS`] long steps in a row are no pause (`run_slowdown` judges those). The cost of the pauses is
//! their excess over the time of the last [`WINDOW_ROWS`] rows. It must reach [`COST_MIN`], and [`NEW_RATIO`] times the
//! highest cost of the first [`FIRST_WINDOWS`] windows: a run whose heavy steps were there from the start has them by
//! design. At least [`PAUSES_MIN`] pauses must share the cost, none of them more than half, in at least
//! [`QUARTERS_MIN`] quarters of the window; a stall, or a cluster of them, is no incident. They are a rhythm when
//! [`IN_RHYTHM`] of them have another one a gap away. The case ends when the cost is below half of the limit; a second
//! one must cost more. Rows that overlap an announced pause are not judged.
//!
//! # Parameters
//! The constants named above; none is a user's to set.
//!
//! # Blind spots
//! The first 522 rows; pauses shorter than half a step; logs in which a row is the mean of many steps.
//!
//! # Source
//! On the clean runs of the corpus only stalls of the machine's own come near.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use trainwarden_kernels::{Backend, heavy_tail_log10_e, median};
use trainwarden_telemetry::{
    Attempt, Evidence, Kind, Label, Metric, Observation, Onset, Panel, Phase, Severity, Step, Verdict, Working,
};

use crate::detectors::run_slowdown::is_paused;
use crate::series::{push, whole_run_value};
use crate::{Against, DetectError, Judge, Scene, Spec};

const SPEC: Spec = Spec {
    name: "run_pauses",
    against: Against::Past,
    watches: &["samples: step_time_s"],
    kinds: &[Kind::Intermittent, Kind::Periodic],
};
const VERSION: u8 = 1;
/// First rows, in which a run compiles, allocates and fills its caches.
const WARM_UP_ROWS: u64 = 10;
/// Usual rows whose median is the level.
const LEVEL_ROWS: usize = 32;
/// A long step takes so many times the level; ordinary noise stays below.
const LONG_RATIO: f64 = 1.5;
/// More long steps in a row are a slow phase.
const RUN_ROWS: usize = 3;
/// Rows over which the cost is summed.
const WINDOW_ROWS: usize = 256;
/// Windows that show what is by design.
const FIRST_WINDOWS: u64 = 2;
/// Cost from which on a loss of throughput is a warning.
const COST_MIN: f64 = 0.02;
/// ... and in units of the cost by design.
const NEW_RATIO: f64 = 2.5;
/// Pauses that make a habit.
const PAUSES_MIN: usize = 5;
/// ... in so many quarters of the window: a cluster is one event.
const QUARTERS_MIN: usize = 3;
/// No pause may make more of the cost.
const SHARE_MAX: f64 = 0.5;
/// Neighbouring long rows are one pause, and all gaps of a few rows look alike.
const GAP_MIN: u64 = 5;
/// Gaps within this part of each other, or one row, are equal.
const GAP_FRACTION: f64 = 0.05;
/// Pauses that must be in rhythm; chance ones may lie between.
const IN_RHYTHM: f64 = 0.7;

/// See the module's page.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct RunPauses {
    series: BTreeMap<(Attempt, bool), Series>,
    cases: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Series {
    rows: u64,
    usual: VecDeque<f64>,
    /// Long rows whose run has not ended.
    pending: Vec<Row>,
    window: VecDeque<Row>,
    by_design: f64,
    open: Option<Verdict>,
}

/// One judged row.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Row {
    number: u64,
    label: Label,
    time_s: f64,
    /// Seconds beyond the level, for a pause; 0 otherwise.
    excess_s: f64,
}

impl RunPauses {
    fn judge_row(&mut self, panel: &Panel, row: usize, scene: &Scene) -> Option<Verdict> {
        let time_s = whole_run_value(panel, row).filter(|time| time.is_finite() && *time > 0.0)?;
        let label = panel.labels[row];
        if is_paused(scene, panel.attempt, label, time_s) {
            return None;
        }
        let series = self.series.entry((panel.attempt, panel.is_whole_run())).or_default();
        series.take(label, time_s);
        let verdict = series.look(panel.attempt, label, self.cases)?;
        self.cases += u64::from(verdict.phase == Phase::Raised);
        Some(verdict)
    }
}

impl Series {
    fn take(&mut self, label: Label, time_s: f64) {
        self.rows += 1;
        if self.rows <= WARM_UP_ROWS {
            return;
        }
        let level = median(self.usual.make_contiguous()).unwrap_or(time_s);
        let row = Row { number: self.rows, label, time_s, excess_s: 0.0 };
        if time_s > LONG_RATIO * level && self.usual.len() == LEVEL_ROWS {
            self.pending.push(Row { excess_s: time_s - level, ..row });
            if self.pending.len() > RUN_ROWS {
                // The rows are the new level, or become it.
                for row in std::mem::take(&mut self.pending) {
                    self.settle(Row { excess_s: 0.0, ..row });
                    push(&mut self.usual, row.time_s, LEVEL_ROWS);
                }
            }
            return;
        }
        for row in std::mem::take(&mut self.pending) {
            self.settle(row);
        }
        self.settle(row);
        push(&mut self.usual, time_s, LEVEL_ROWS);
    }

    fn settle(&mut self, row: Row) {
        push(&mut self.window, row, WINDOW_ROWS);
        if self.rows <= WARM_UP_ROWS + FIRST_WINDOWS * WINDOW_ROWS as u64 && self.window.len() == WINDOW_ROWS {
            self.by_design = self.by_design.max(self.cost());
        }
    }

    /// Fraction of the window's time that the pauses took.
    fn cost(&self) -> f64 {
        let excess: f64 = self.window.iter().map(|row| row.excess_s).sum();
        excess / self.window.iter().map(|row| row.time_s).sum::<f64>()
    }

    /// True when the pauses are not all of one cluster.
    fn is_spread(&self) -> bool {
        let quarter = WINDOW_ROWS / 4;
        let has_pause =
            |place: usize| self.window.iter().skip(place * quarter).take(quarter).any(|row| row.excess_s > 0.0);
        (0..4).filter(|place| has_pause(*place)).count() >= QUARTERS_MIN
    }

    fn look(&mut self, attempt: Attempt, label: Label, case: u64) -> Option<Verdict> {
        if self.rows <= WARM_UP_ROWS + FIRST_WINDOWS * WINDOW_ROWS as u64 || !self.pending.is_empty() {
            return None;
        }
        let cost = self.cost();
        let limit = COST_MIN.max(NEW_RATIO * self.by_design);
        if self.open.is_some() {
            let raised = self.open.take_if(|_| cost < 0.5 * limit)?;
            // What came and went by itself is known: only more of it is news.
            self.by_design = self.by_design.max(COST_MIN);
            return Some(Verdict { phase: Phase::Cleared, last: label, ..raised });
        }
        let pauses: Vec<Row> = self.window.iter().filter(|row| row.excess_s > 0.0).copied().collect();
        let excess_s: f64 = pauses.iter().map(|row| row.excess_s).sum();
        let largest_s = pauses.iter().map(|row| row.excess_s).fold(0.0, f64::max);
        let is_habit = pauses.len() >= PAUSES_MIN && largest_s <= SHARE_MAX * excess_s && self.is_spread();
        if cost < limit || !is_habit {
            return None;
        }
        let found = Found { cost, limit, gap: rhythm(&pauses), first: pauses[0].label, pauses: pauses.len() };
        let verdict = found.verdict(attempt, label, case);
        self.open = Some(verdict.clone());
        Some(verdict)
    }
}

/// The rows from pause to pause, where most pauses have another one so many rows before or after.
fn rhythm(pauses: &[Row]) -> Option<u64> {
    let keeps_time = |pause: &&Row, gap: u64| {
        let tolerance = (GAP_FRACTION * gap as f64).max(1.0);
        pauses.iter().any(|other| (other.number.abs_diff(pause.number) as f64 - gap as f64).abs() <= tolerance)
    };
    let gaps = pauses.windows(2).map(|pair| pair[1].number - pair[0].number).filter(|gap| *gap >= GAP_MIN);
    let counted = gaps.map(|gap| (pauses.iter().filter(|pause| keeps_time(pause, gap)).count(), gap));
    let (count, gap) = counted.max()?;
    (count as f64 >= IN_RHYTHM * pauses.len() as f64).then_some(gap)
}

/// Pauses that cost too much.
struct Found {
    cost: f64,
    limit: f64,
    gap: Option<u64>,
    first: Label,
    pauses: usize,
}

impl Found {
    fn verdict(&self, attempt: Attempt, last: Label, case: u64) -> Verdict {
        let metric = Metric::new("step_time_s");
        let evidence = Evidence {
            step: last.step,
            observed: Some(self.cost),
            expected: Some(0.0),
            high: Some(self.limit),
            log10_e: Some(heavy_tail_log10_e(LONG_RATIO * self.pauses as f64)),
            working: Working::new(&["observed = cost, the part of the time that pauses took; high = limit"])
                .with("pauses", self.pauses as u64)
                .with("cost", self.cost)
                .with("limit", self.limit),
            note: Some("fraction of the time that pauses took".to_owned()),
            ..Evidence::new(SPEC.name, &metric)
        };
        let (percent, pauses) = (100.0 * self.cost, self.pauses);
        let rhythm = self.gap.map_or(String::new(), |gap| format!(", one every {gap} rows"));
        // The first pause may be a chance one before the others: nothing is known of what lies between.
        let onset = self.first.step.map(|step| Onset { step, low: step, high: last.step.unwrap_or(step).max(step) });
        let since = self.first.step.map_or(String::new(), |Step(step)| format!(" since step {step}"));
        Verdict {
            detector: SPEC.name.to_owned(),
            case,
            phase: Phase::Raised,
            attempt,
            kind: if self.gap.is_some() { Kind::Periodic } else { Kind::Intermittent },
            severity: Severity::Warning,
            suspects: Vec::new(),
            subject: metric.to_string(),
            onset,
            first: self.first,
            last,
            summary: format!("{pauses} long steps{since} cost {percent:.1} % of the time{rhythm}"),
            evidence: vec![evidence],
        }
    }
}

impl Judge for RunPauses {
    const SPEC: Spec = SPEC;
    const VERSION: u8 = VERSION;

    fn judge(
        &mut self,
        seen: &Observation,
        scene: &Scene,
        _backend: &mut dyn Backend,
    ) -> Result<Vec<Verdict>, DetectError> {
        let Observation::Panel(panel) = seen else { return Ok(Vec::new()) };
        if panel.metric.as_str() != "step_time_s" {
            return Ok(Vec::new());
        }
        Ok((0..panel.rows()).filter_map(|row| self.judge_row(panel, row, scene)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detectors::testing::{assert_restores, bare_scene, judge_all, row_by_row, run_panel};

    fn times(rows: usize, is_long: impl Fn(usize) -> bool) -> Vec<Observation> {
        let noise = |row: usize| 1.0 + 0.01 * ((row * 7919 % 13) as f32 - 6.0) / 6.0;
        let values: Vec<f32> = (0..rows).map(|row| 0.4 * noise(row) * if is_long(row) { 2.5 } else { 1.0 }).collect();
        row_by_row(&run_panel("step_time_s", 0, &values))
    }

    fn kinds(seen: &[Observation]) -> Vec<(Kind, Phase)> {
        let verdicts = judge_all(&mut RunPauses::default(), &mut bare_scene(), seen);
        verdicts.iter().map(|verdict| (verdict.kind, verdict.phase)).collect()
    }

    #[test]
    fn pauses_in_a_new_rhythm_are_periodic_and_cleared_when_they_stop() {
        let rhythm = times(1400, |row| (700..1000).contains(&row) && row % 20 == 0);
        assert_eq!(kinds(&rhythm), [(Kind::Periodic, Phase::Raised), (Kind::Periodic, Phase::Cleared)]);
        assert_restores(|| Box::new(RunPauses::default()), &rhythm);
    }

    #[test]
    fn new_pauses_without_a_rhythm_are_intermittent() {
        let chance = times(1100, |row| row > 700 && (row * row * row + 5 * row) % 1009 < 40);
        assert_eq!(kinds(&chance), [(Kind::Intermittent, Phase::Raised)]);
    }

    #[test]
    fn single_stalls_and_a_rhythm_from_the_start_and_a_slow_phase_say_nothing() {
        assert_eq!(kinds(&times(1400, |row| row == 700 || row == 1000)), []);
        assert_eq!(kinds(&times(1400, |row| row % 20 == 0)), []);
        assert_eq!(kinds(&times(1400, |row| (700..800).contains(&row))), []);
    }
}
