//! Detects a single value far from all the recent ones, in a metric that has no detector of its own.
//!
//! # What it finds
//! `metric.outlier`, always `info`: one row of a whole-run metric that stands apart from the last day of them.
//!
//! # Why it matters
//! Nobody knows what the metric means here, so it wakes nobody; beside an incident it is a line that may explain it.
//!
//! # How it decides
//! Against the past. The row must differ from the median of the last [`LOCAL_ROWS`] rows by [`NOISE_MULTIPLE`] times
//! the noise of neighbouring rows and by [`LEVEL_FRACTION`] of that level, and stand [`EXTREME_RATIO`] times as far
//! from the median of the last [`WINDOW_ROWS`] rows as any of these. The last makes it quiet: bursts and daily periods
//! are in the window, and so is each outlier once it was told.
//!
//! # Parameters
//! The constants named above; none is a user's to set.
//!
//! # Blind spots
//! The first [`ROWS_MIN`] rows; outliers inside the usual range, such as a burst at the wrong time of day; metrics of
//! single ranks.
//!
//! # Source
//! Measured on the Numenta Anomaly Benchmark's machine metrics.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use trainwarden_kernels::{Backend, MAD_TO_SIGMA, heavy_tail_log10_e, mad, median};
use trainwarden_telemetry::{
    Attempt, Evidence, Kind, Label, Metric, Observation, Onset, Panel, Phase, Severity, Verdict, Working,
};

use crate::detectors::loss_excursion::is_loss;
use crate::series::{push, whole_run_value};
use crate::{Against, DetectError, Judge, Scene, Spec};

const SPEC: Spec = Spec {
    name: "metric_outlier",
    against: Against::Past,
    watches: &["samples: every whole-run metric without a detector of its own"],
    kinds: &[Kind::MetricOutlier],
};
const VERSION: u8 = 1;
/// Rows that show what is usual: a day of rows every five minutes.
pub(crate) const WINDOW_ROWS: usize = 288;
/// Rows before anything is told.
pub(crate) const ROWS_MIN: usize = 64;
/// Rows of the present level.
const LOCAL_ROWS: usize = 16;
/// Machine metrics have heavy tails: a row in a thousand exceeds eight.
const NOISE_MULTIPLE: f64 = 12.0;
/// Smaller changes of a metric nobody knows are not worth a line.
pub(crate) const LEVEL_FRACTION: f64 = 0.2;
/// An outlier exceeds all the recent distances by so much.
const EXTREME_RATIO: f64 = 1.5;
/// A metric that never moves has at least this noise, as a part of its level.
pub(crate) const NOISE_FRACTION_MIN: f64 = 1e-3;

/// How an outlier follows from its figures.
const RULES: [&str; 2] = [
    "level = median of the last 16 rows; low, high = level -+ 12 noise",
    "log10_e is that of |value - level| / noise under Student's t with 4 degrees of freedom",
];

/// See the module's page.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct MetricOutlier {
    series: BTreeMap<(Attempt, Metric), VecDeque<f64>>,
    cases: u64,
}

/// True for a whole-run metric that no other detector against the past judges.
pub(crate) fn is_unknown(panel: &Panel) -> bool {
    let name = panel.metric.as_str();
    let is_work = ["tokens", "tokens_total", "samples_total", "loss_scale"].contains(&name) || name.contains("batch");
    let has_own = ["learning_rate", "step_time_s", "heartbeat"].contains(&name) || name.starts_with("grad_norm");
    panel.is_whole_run() && !is_work && !has_own && !is_loss(&panel.metric)
}

/// Standard deviation of a row about its neighbours, or the least that is believed.
pub(crate) fn row_noise(values: &[f64], level: f64) -> f64 {
    let differences: Vec<f64> = values.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let noise = mad(&differences, 0.0).unwrap_or(0.0) * MAD_TO_SIGMA;
    noise.max(NOISE_FRACTION_MIN * level.abs()).max(f64::MIN_POSITIVE)
}

impl MetricOutlier {
    fn judge_row(&mut self, panel: &Panel, row: usize) -> Vec<Verdict> {
        let Some(value) = whole_run_value(panel, row).filter(|value| value.is_finite()) else { return Vec::new() };
        let window = self.series.entry((panel.attempt, panel.metric.clone())).or_default();
        let found = find(window.make_contiguous(), value);
        push(window, value, WINDOW_ROWS);
        let Some(found) = found else { return Vec::new() };
        let raised = found.verdict(panel, panel.labels[row], self.cases);
        self.cases += 1;
        vec![raised.clone(), Verdict { phase: Phase::Cleared, ..raised }]
    }
}

/// A value that stands apart.
struct Found {
    value: f64,
    level: f64,
    noise: f64,
}

fn find(window: &[f64], value: f64) -> Option<Found> {
    if window.len() < ROWS_MIN {
        return None;
    }
    let level = median(&window[window.len() - LOCAL_ROWS..])?;
    let distance = (value - level).abs();
    // Most rows end here, before anything is sorted.
    if distance <= LEVEL_FRACTION * level.abs() {
        return None;
    }
    let noise = row_noise(window, level);
    let middle = median(window)?;
    let farthest = window.iter().map(|value| (value - middle).abs()).fold(0.0, f64::max);
    let is_outlier = distance > NOISE_MULTIPLE * noise && (value - middle).abs() > EXTREME_RATIO * farthest;
    is_outlier.then_some(Found { value, level, noise })
}

impl Found {
    fn verdict(&self, panel: &Panel, label: Label, case: u64) -> Verdict {
        let (value, level) = (self.value, self.level);
        let evidence = Evidence {
            step: label.step,
            observed: Some(value),
            expected: Some(level),
            low: Some(level - NOISE_MULTIPLE * self.noise),
            high: Some(level + NOISE_MULTIPLE * self.noise),
            log10_e: Some(heavy_tail_log10_e((value - level).abs() / self.noise)),
            working: Working::new(&RULES).with("value", value).with("level", level).with("noise", self.noise),
            ..Evidence::new(SPEC.name, &panel.metric)
        };
        let at = label.step.map_or(String::new(), |step| format!(" at {step}"));
        Verdict {
            detector: SPEC.name.to_owned(),
            case,
            phase: Phase::Raised,
            attempt: panel.attempt,
            kind: Kind::MetricOutlier,
            severity: Severity::Info,
            suspects: Vec::new(),
            subject: panel.metric.to_string(),
            onset: label.step.map(|step| Onset { step, low: step, high: step }),
            first: label,
            last: label,
            summary: format!("`{}` was {value:.4}{at}, where {level:.4} is usual", panel.metric),
            evidence: vec![evidence],
        }
    }
}

impl Judge for MetricOutlier {
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
                Ok((0..panel.rows()).flat_map(|row| self.judge_row(panel, row)).collect())
            }
            _ => Ok(Vec::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detectors::testing::{assert_restores, bare_scene, judge_all, row_by_row, run_panel};

    fn rows(metric: &str, change: impl Fn(usize) -> f32) -> Vec<Observation> {
        let values: Vec<f32> = (0..600).map(|row| 50.0 + (row * 7919 % 13) as f32 + change(row)).collect();
        row_by_row(&run_panel(metric, 0, &values))
    }

    fn judge(seen: &[Observation]) -> Vec<Verdict> {
        judge_all(&mut MetricOutlier::default(), &mut bare_scene(), seen)
    }

    #[test]
    fn one_value_far_from_all_others_is_one_note() {
        let seen = rows("queue_length", |row| if row == 300 { 400.0 } else { 0.0 });
        let verdicts = judge(&seen);
        let phases: Vec<Phase> = verdicts.iter().map(|verdict| verdict.phase).collect();
        assert_eq!(phases, [Phase::Raised, Phase::Cleared]);
        assert_eq!(verdicts[0].severity, Severity::Info);
        assert_restores(|| Box::new(MetricOutlier::default()), &seen);
    }

    #[test]
    fn bursts_that_were_always_there_and_metrics_with_their_own_detector_say_nothing() {
        assert_eq!(judge(&rows("queue_length", |row| if row % 50 == 0 { 400.0 } else { 0.0 })), []);
        assert_eq!(judge(&rows("loss", |row| if row == 300 { 400.0 } else { 0.0 })), []);
    }
}
