//! Detects a metric without a detector of its own that moves to another level and stays.
//!
//! # What it finds
//! `metric.shift`, a warning: a whole-run metric whose level over [`RECENT_ROWS`] rows left all it had been.
//!
//! # Why it matters
//! A throughput that drops, a cache that stops hitting, a temperature that stays high: whatever a team logs beside the
//! known metrics, it logs because it should not change for good unnoticed.
//!
//! # How it decides
//! Against the past. The median of the last [`RECENT_ROWS`] rows is held against that of up to `WINDOW_ROWS` rows
//! before. It must lie apart by [`NOISE_MULTIPLE`] standard deviations of a row, by `LEVEL_FRACTION` of the level, and
//! by [`SPREAD_MULTIPLE`] times the farthest that the median of as many rows had come: daily periods and bursts are in
//! that. The reference of an open case is frozen; the case ends when the level is back within [`CLEARED_FRACTION`] of
//! the shift, and is updated when it grows by half again. A metric that came back by itself may do so again: from then
//! on only larger shifts are told.
//!
//! # Parameters
//! The constants named above, and those of `metric_outlier`.
//!
//! # Blind spots
//! The first 100 rows; shifts below a fifth; slow drift; metrics of single ranks; series of few rows.
//!
//! # Source
//! Measured on the Numenta Anomaly Benchmark's machine metrics.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use trainwarden_kernels::{Backend, MAD_TO_SIGMA, heavy_tail_log10_e, mad, median};
use trainwarden_telemetry::{
    Attempt, Evidence, Kind, Label, Metric, Observation, Onset, Panel, Phase, Severity, Step, Verdict, Working,
};

use crate::detectors::metric_outlier::{LEVEL_FRACTION, NOISE_FRACTION_MIN, ROWS_MIN, WINDOW_ROWS, is_unknown};
use crate::series::{push, whole_run_value};
use crate::{Against, DetectError, Judge, Scene, Spec};

const SPEC: Spec = Spec {
    name: "metric_shift",
    against: Against::Past,
    watches: &["samples: every whole-run metric without a detector of its own"],
    kinds: &[Kind::MetricShift],
};
const VERSION: u8 = 1;
/// Rows of the present level, and so the shortest shift.
const RECENT_ROWS: usize = 20;
/// The level is looked at every so many rows: medians cost.
const LOOK_ROWS: u64 = 4;
/// Shifts in standard deviations of a row about the level.
const NOISE_MULTIPLE: f64 = 10.0;
/// ... and in units of the farthest the level has come.
const SPREAD_MULTIPLE: f64 = 2.0;
/// Back within this part of the shift ends a case.
const CLEARED_FRACTION: f64 = 1.0 / 3.0;
/// A case that grew by so much is told again.
const GROWN: f64 = 1.5;

/// How a shift follows from its figures.
const RULES: [&str; 3] = [
    "observed = level + shift; expected = level; a level is a median of rows",
    "low, high = level -+ limit, the larger of 10 noise, twice the farthest the level has come, and a part of the level",
    "log10_e is that of |shift| / noise under Student's t with 4 degrees of freedom",
];

/// See the module's page.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct MetricShift {
    series: BTreeMap<(Attempt, Metric), Series>,
    cases: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Series {
    rows: u64,
    reference: VecDeque<f64>,
    recent: VecDeque<(Label, f64)>,
    /// The largest shift that came and went.
    known_shift: f64,
    open: Option<Open>,
}

/// A case that is not over.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Open {
    level: f64,
    shift: f64,
    verdict: Verdict,
}

/// A shift that was found.
struct Found {
    level: f64,
    shift: f64,
    noise: f64,
    limit: f64,
    first: (Label, Label),
}

impl MetricShift {
    fn judge_row(&mut self, panel: &Panel, row: usize) -> Option<Verdict> {
        let value = whole_run_value(panel, row).filter(|value| value.is_finite())?;
        let label = panel.labels[row];
        let series = self.series.entry((panel.attempt, panel.metric.clone())).or_default();
        series.take(label, value);
        if !series.rows.is_multiple_of(LOOK_ROWS) || series.recent.len() < RECENT_ROWS {
            return None;
        }
        let values: Vec<f64> = series.recent.iter().map(|(_, value)| *value).collect();
        let recent = median(&values)?;
        if series.open.is_some() {
            return series.follow(panel, label, recent);
        }
        let found = series.find(recent)?;
        let verdict = found.verdict(panel, label, self.cases);
        self.cases += 1;
        series.open = Some(Open { level: found.level, shift: found.shift, verdict: verdict.clone() });
        Some(verdict)
    }
}

impl Series {
    fn take(&mut self, label: Label, value: f64) {
        self.rows += 1;
        if self.recent.len() == RECENT_ROWS {
            let (_, old) = self.recent.pop_front().expect("the queue is full");
            // The reference of an open case is frozen.
            if self.open.is_none() {
                push(&mut self.reference, old, WINDOW_ROWS);
            }
        }
        self.recent.push_back((label, value));
    }

    fn find(&mut self, recent: f64) -> Option<Found> {
        if self.reference.len() < ROWS_MIN {
            return None;
        }
        let before = self.reference.make_contiguous();
        let level = median(before)?;
        let shift = recent - level;
        // Most looks end here, before anything more is sorted.
        if shift.abs() < LEVEL_FRACTION * level.abs() || shift == 0.0 {
            return None;
        }
        let noise = (MAD_TO_SIGMA * mad(before, level)?).max(NOISE_FRACTION_MIN * level.abs()).max(f64::MIN_POSITIVE);
        let medians = before.rchunks_exact(RECENT_ROWS).filter_map(median);
        let spread = medians.map(|median| (median - level).abs()).fold(0.0, f64::max);
        let limit = (NOISE_MULTIPLE * noise).max(SPREAD_MULTIPLE * spread).max(GROWN * self.known_shift);
        if shift.abs() <= limit {
            return None;
        }
        let is_shifted = |value: f64| (value - level) / shift > 0.5;
        let at = self.recent.iter().position(|(_, value)| is_shifted(*value))?;
        let first = (self.recent[at.saturating_sub(1)].0, self.recent[at].0);
        Some(Found { level, shift, noise, limit, first })
    }

    fn follow(&mut self, panel: &Panel, label: Label, recent: f64) -> Option<Verdict> {
        let open = self.open.as_mut()?;
        let shift = recent - open.level;
        let part = shift / open.shift;
        if part < CLEARED_FRACTION {
            let open = self.open.take()?;
            self.known_shift = self.known_shift.max(open.shift.abs());
            return Some(Verdict { phase: Phase::Cleared, ..open.verdict });
        }
        open.verdict.last = label;
        if part < GROWN {
            return None;
        }
        open.shift = shift;
        open.verdict.phase = Phase::Updated;
        open.verdict.evidence[0].observed = Some(recent);
        open.verdict.evidence[0].working = Working::new(&RULES[..1]).with("level", open.level).with("shift", shift);
        open.verdict.evidence[0].step = label.step;
        open.verdict.summary = summary(panel, open.level, recent, open.verdict.onset);
        Some(open.verdict.clone())
    }
}

fn summary(panel: &Panel, level: f64, recent: f64, onset: Option<Onset>) -> String {
    let since = onset.map_or(String::new(), |onset| format!(" since {}", onset.step));
    format!("`{}` moved from {level:.4} to {recent:.4} and stays there{since}", panel.metric)
}

impl Found {
    fn verdict(&self, panel: &Panel, last: Label, case: u64) -> Verdict {
        let (level, shift, limit) = (self.level, self.shift, self.limit);
        let (calm, first) = self.first;
        let onset = first.step.map(|step| {
            let after_calm = calm.step.map_or(step, |Step(calm)| Step(calm + 1));
            Onset { step, low: after_calm.min(step), high: step }
        });
        let evidence = Evidence {
            step: last.step,
            observed: Some(level + shift),
            expected: Some(level),
            low: Some(level - limit),
            high: Some(level + limit),
            log10_e: Some(heavy_tail_log10_e(shift.abs() / self.noise)),
            working: Working::new(&RULES)
                .with("level", level)
                .with("shift", shift)
                .with("limit", limit)
                .with("noise", self.noise),
            ..Evidence::new(SPEC.name, &panel.metric)
        };
        Verdict {
            detector: SPEC.name.to_owned(),
            case,
            phase: Phase::Raised,
            attempt: panel.attempt,
            kind: Kind::MetricShift,
            severity: Severity::Warning,
            suspects: Vec::new(),
            subject: panel.metric.to_string(),
            onset,
            first,
            last,
            summary: summary(panel, level, level + shift, onset),
            evidence: vec![evidence],
        }
    }
}

impl Judge for MetricShift {
    const SPEC: Spec = SPEC;
    const VERSION: u8 = VERSION;

    fn judge(
        &mut self,
        seen: &Observation,
        _scene: &Scene,
        _backend: &mut dyn Backend,
    ) -> Result<Vec<Verdict>, DetectError> {
        match seen {
            Observation::Panel(panel) if is_unknown(panel) => {
                Ok((0..panel.rows()).filter_map(|row| self.judge_row(panel, row)).collect())
            }
            _ => Ok(Vec::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detectors::testing::{assert_restores, bare_scene, judge_all, row_by_row, run_panel};

    fn rows(change: impl Fn(usize) -> f32) -> Vec<Observation> {
        let values: Vec<f32> = (0..900).map(|row| 500.0 + (row * 7919 % 13) as f32 + change(row)).collect();
        row_by_row(&run_panel("tokens_per_s", 0, &values))
    }

    fn judge(seen: &[Observation]) -> Vec<Verdict> {
        judge_all(&mut MetricShift::default(), &mut bare_scene(), seen)
    }

    #[test]
    fn a_level_that_moves_is_one_warning_and_cleared_when_it_is_back() {
        let seen = rows(|row| if (400..600).contains(&row) { -200.0 } else { 0.0 });
        let verdicts = judge(&seen);
        let phases: Vec<Phase> = verdicts.iter().map(|verdict| verdict.phase).collect();
        assert_eq!(phases, [Phase::Raised, Phase::Cleared]);
        assert_eq!(verdicts[0].onset.expect("the rows have steps").step, Step(400));
        assert_restores(|| Box::new(MetricShift::default()), &seen);
    }

    #[test]
    fn bursts_periods_and_small_shifts_say_nothing() {
        assert_eq!(judge(&rows(|row| if row % 200 < 8 { 400.0 } else { 0.0 })), []);
        assert_eq!(judge(&rows(|row| 200.0 * (row as f32 / 30.0).sin())), []);
        assert_eq!(judge(&rows(|row| if row > 400 { 60.0 } else { 0.0 })), []);
    }
}
