//! Detects a loss that jumps up: a spike that comes back, a divergence that does not, a single hard batch.
//!
//! # What it finds
//! Rows of a loss far above its recent level. One or two rows of a per-step log are a hard batch: `info`. Three rows
//! (two where a row stands for several steps, one if it is a nat or half the level; one in any log if the loss doubles)
//! are `divergence.loss_spike`, a warning. An excursion that stays near its peak is `divergence.drift`, critical.
//!
//! # Why it matters
//! A spike costs the steps until it has recovered, and may leave the optimizer state damaged; a divergence costs
//! everything since the last good checkpoint.
//!
//! # How it decides
//! Against the past. The level is the median of the last [`LEVEL_ROWS`] accepted rows, or of [`LEVEL_ROWS_SHORT`] where
//! lower, the noise that of neighbouring rows ([`Recent`]). A row is high when it exceeds the level by
//! [`NOISE_MULTIPLE`] times the noise and by [`LEVEL_FRACTION`] of the level. From the first high row on the level is
//! frozen, so that the spike does not become its own normal; two rows below half the threshold end the excursion. While
//! a log has too few rows to know its noise, the threshold is [`NOISE_MULTIPLE_UNSETTLED`] times the largest difference
//! and [`LEVEL_FRACTION_UNSETTLED`] of the level. Drift: the excursion lasts [`DRIFT_STEPS`] steps; in a log where a
//! row stands for several, [`DRIFT_ROWS`] rows and [`DRIFT_STEPS_SPARSE`] steps with the last four rows above
//! [`DRIFT_FRACTION`] of the peak are enough. The first steps of a training from scratch are not judged. Where each
//! rank logs its own loss, their median is judged. The e-value multiplies those of the high rows under a heavy tail.
//!
//! # Parameters
//! The constants named above; none is a user's to set.
//!
//! # Blind spots
//! Excursions below 6 % of the level; a rise slower than the level follows (see `loss_drift`); the first 100 steps.
//! A change of batch size or data mixture that moves the loss up looks like a divergence.
//!
//! # Source
//! Spikes at 7 sigma of a rolling window (OLMo 2); the rule that a spike must not
//! poison its baseline (ZClip, arXiv 2504.02507).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use trainwarden_kernels::{Backend, heavy_tail_log10_e, median};
use trainwarden_telemetry::{
    Attempt, Evidence, Kind, Label, Metric, Observation, Onset, Panel, Phase, Severity, Step, Verdict, Working,
};

use crate::series::{Expected, Recent, whole_run_value};
use crate::{Against, DetectError, Judge, Scene, Spec};

const SPEC: Spec = Spec {
    name: "loss_excursion",
    against: Against::Past,
    watches: &["samples: loss and every metric with `loss` in its name, but not loss_scale"],
    kinds: &[Kind::LossSpike, Kind::Drift],
};
const VERSION: u8 = 1;
/// Rows the level is the median of: short enough to follow the decay of a loss.
const LEVEL_ROWS: usize = 9;
/// ... or of so many, where that is lower.
const LEVEL_ROWS_SHORT: usize = 5;
/// A row of a healthy loss lies within so many standard deviations, hard batches apart.
const NOISE_MULTIPLE: f64 = 7.0;
/// Smaller excursions cost less than a person's look at them.
const LEVEL_FRACTION: f64 = 0.06;
/// With a handful of rows the largest difference is all that is known of the noise.
const NOISE_MULTIPLE_UNSETTLED: f64 = 10.0;
/// ... and only a jump that no curve makes counts.
const LEVEL_FRACTION_UNSETTLED: f64 = 0.2;
/// Rows of an excursion kept: what ends it is accepted from them, and what stays becomes the new level.
const TAIL_ROWS: usize = 16;
/// High rows that make a spike in a log of (nearly) every step; single hard batches have one or two.
const SPIKE_ROWS: u32 = 3;
/// ... and in a log where a row stands for this many steps or more.
const SPIKE_ROWS_SPARSE: u32 = 2;
const SPARSE_STEPS: u64 = 5;
/// A peak of so many thresholds needs one row less of full height: its shoulder at half the threshold counts.
const TOWERING: f64 = 4.0;
/// In a sparse log a single row convicts from this excess on, in units of the loss or half its level: a mean over many
/// steps does not jump so by one batch.
const SINGLE_ROW_EXCESS: f64 = 1.0;
/// In a dense log a single row convicts when the loss more than doubles: hard batches of public runs reach 0.8.
const DOUBLING: f64 = 1.0;
/// ... and in both by this many times the noise.
const SINGLE_ROW_NOISE: f64 = 20.0;
/// Steps after which an excursion is a divergence: spikes of public runs recover in 30 to 100 steps.
const DRIFT_STEPS: u64 = 150;
/// In a sparse log, rows after which an excursion that stays near its peak is one.
const DRIFT_ROWS: u32 = 5;
/// ... and steps.
const DRIFT_STEPS_SPARSE: u64 = 40;
/// ... where near means this fraction of the peak.
const DRIFT_FRACTION: f64 = 0.6;
/// Rows after which the new level is taken for the normal one.
const LASTING_ROWS: u32 = 200;
/// Rows below half the threshold that end an excursion.
const CALM_ROWS: u32 = 2;

/// How a verdict follows from its figures.
const RULES: [&str; 4] = [
    "level = the lower of the medians of the last 9 and the last 5 rows in order before the first high one, then frozen",
    "noise = 1.4826 / sqrt(2) x the median size of the last 128 differences between neighbouring rows in order",
    "threshold = max(7 noise, 0.06 |level|); max(10 noise, 0.2 |level|) with fewer than 8 differences; \
     low, high = level -+ threshold; a row is high when value - level > threshold",
    "log10_e = sum over the high rows of e((value - level) / max(noise, threshold / 10)), with \
     e(z) = max(0, log10(0.5 / sqrt(p))), p = (1 - u)^2 (2 + u) / 4, u = z / sqrt(z^2 + 4)",
];

/// See the module's page.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct LossExcursion {
    series: BTreeMap<(Attempt, Metric, bool), Series>,
    cases: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Series {
    recent: Recent,
    excursion: Option<Excursion>,
    last_calm: Option<Step>,
}

/// Rows since the first high one.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Excursion {
    first: Label,
    last_high: Label,
    not_before: Option<Step>,
    level: f64,
    noise: f64,
    threshold: f64,
    interval: u64,
    rows: u32,
    high_rows: u32,
    shoulder_rows: u32,
    calm_rows: u32,
    peak: f64,
    peak_step: Option<Step>,
    /// The last rows, newest last.
    tail: Vec<f64>,
    log10_e: f64,
    spike: Option<u64>,
    drift: Option<u64>,
}

/// True for the metrics this and the sibling detectors of losses judge.
pub(crate) fn is_loss(metric: &Metric) -> bool {
    let name = metric.as_str();
    name.contains("loss") && !name.contains("loss_scale") && !metric.is_counter()
}

impl LossExcursion {
    fn judge_row(&mut self, panel: &Panel, row: usize) -> Vec<Verdict> {
        let Some(value) = whole_run_value(panel, row).filter(|value| value.is_finite()) else { return Vec::new() };
        let label = panel.labels[row];
        let key = (panel.attempt, panel.metric.clone(), panel.is_whole_run());
        let series = self.series.entry(key).or_default();
        series.recent.see(label);
        let Some(mut excursion) = series.continued_or_begun(label, value) else {
            series.recent.accept(value);
            series.last_calm = label.step.or(series.last_calm);
            return Vec::new();
        };
        let mut verdicts = Vec::new();
        if excursion.spike.is_none() && excursion.is_spike() {
            excursion.spike = Some(self.cases);
            verdicts.push(excursion.verdict(panel, self.cases, Kind::LossSpike, label));
            self.cases += 1;
        }
        if excursion.drift.is_none() && excursion.spike.is_some() && excursion.is_drift(label) {
            excursion.drift = Some(self.cases);
            verdicts.push(excursion.verdict(panel, self.cases, Kind::Drift, label));
            self.cases += 1;
        }
        verdicts.extend(series.end_or_keep(excursion, panel, &mut self.cases));
        verdicts
    }
}

/// Level, noise and threshold of a first high row.
struct Begin {
    level: f64,
    noise: f64,
    threshold: f64,
}

fn high_row(value: f64, expected: Expected) -> Option<Begin> {
    let Expected { level, noise, is_settled } = expected;
    let threshold = match is_settled {
        true => (NOISE_MULTIPLE * noise).max(LEVEL_FRACTION * level.abs()),
        false => (NOISE_MULTIPLE_UNSETTLED * noise).max(LEVEL_FRACTION_UNSETTLED * level.abs()),
    };
    (value - level > threshold && threshold > 0.0).then_some(Begin { level, noise, threshold })
}

impl Series {
    /// The excursion this row belongs to; `None` for a row in order.
    fn continued_or_begun(&mut self, label: Label, value: f64) -> Option<Excursion> {
        if let Some(mut excursion) = self.excursion.take() {
            excursion.take(label, value);
            return Some(excursion);
        }
        let expected = self.recent.expected(LEVEL_ROWS)?;
        // In a decay the shorter median is nearer to the next row; after a bump the longer one is.
        let level = median(&self.recent.last_values(LEVEL_ROWS_SHORT))?.min(expected.level);
        let begin = high_row(value, Expected { level, ..expected })?;
        Some(self.begin(label, value, begin))
    }

    fn begin(&self, label: Label, value: f64, begin: Begin) -> Excursion {
        let mut excursion = Excursion {
            first: label,
            last_high: label,
            not_before: self.last_calm,
            level: begin.level,
            noise: begin.noise,
            threshold: begin.threshold,
            interval: self.recent.interval(),
            rows: 0,
            high_rows: 0,
            shoulder_rows: 0,
            calm_rows: 0,
            peak: value,
            peak_step: label.step,
            tail: Vec::new(),
            log10_e: 0.0,
            spike: None,
            drift: None,
        };
        excursion.take(label, value);
        excursion
    }

    /// Ends an excursion that has calmed down or lasts for good; keeps it otherwise.
    fn end_or_keep(&mut self, excursion: Excursion, panel: &Panel, cases: &mut u64) -> Vec<Verdict> {
        let is_calm = excursion.calm_rows >= CALM_ROWS;
        let is_lasting = excursion.rows >= LASTING_ROWS;
        if !is_calm && !is_lasting {
            self.excursion = Some(excursion);
            return Vec::new();
        }
        let mut verdicts = Vec::new();
        if is_calm {
            let calm = excursion.tail.len() - CALM_ROWS as usize;
            excursion.tail[calm..].iter().for_each(|value| self.recent.accept(*value));
            for (case, kind) in [(excursion.drift, Kind::Drift), (excursion.spike, Kind::LossSpike)] {
                let cleared = |case| Verdict {
                    phase: Phase::Cleared,
                    ..excursion.verdict(panel, case, kind, excursion.last_high)
                };
                verdicts.extend(case.map(cleared));
            }
            if excursion.spike.is_none() {
                let note = excursion.verdict(panel, *cases, Kind::LossSpike, excursion.last_high);
                let note = Verdict { severity: Severity::Info, summary: excursion.batch_summary(panel), ..note };
                verdicts.push(note.clone());
                verdicts.push(Verdict { phase: Phase::Cleared, ..note });
                *cases += 1;
            }
        } else {
            // It is the new normal: later rows are held against it, and the case stays open.
            self.recent.settle_at(&excursion.tail);
        }
        verdicts
    }
}

impl Excursion {
    fn take(&mut self, label: Label, value: f64) {
        let excess = value - self.level;
        self.rows += 1;
        if self.tail.len() == TAIL_ROWS {
            self.tail.remove(0);
        }
        self.tail.push(value);
        if excess > self.threshold {
            self.high_rows += 1;
            self.log10_e += heavy_tail_log10_e(excess / self.noise.max(self.threshold / NOISE_MULTIPLE_UNSETTLED));
        }
        if excess > 0.5 * self.threshold {
            self.shoulder_rows += 1;
            self.calm_rows = 0;
            self.last_high = label;
        } else {
            self.calm_rows += 1;
        }
        if value > self.peak {
            self.peak = value;
            self.peak_step = label.step;
        }
    }

    fn is_spike(&self) -> bool {
        let least = if self.interval >= SPARSE_STEPS { SPIKE_ROWS_SPARSE } else { SPIKE_ROWS };
        let is_towering = self.peak - self.level > TOWERING * self.threshold;
        let excess = self.peak - self.level;
        let least_excess = match self.interval >= SPARSE_STEPS {
            true => SINGLE_ROW_EXCESS.min(0.5 * self.level.abs()),
            false => DOUBLING * self.level.abs(),
        };
        let is_single = excess >= least_excess && excess >= SINGLE_ROW_NOISE * self.noise;
        is_single
            || self.high_rows >= least
            || is_towering && self.shoulder_rows >= least && self.high_rows + 1 >= least
    }

    fn is_drift(&self, label: Label) -> bool {
        let steps = match (label.step, self.first.step) {
            (Some(now), Some(first)) => now.0.saturating_sub(first.0),
            _ => u64::from(self.rows),
        };
        let floor = self.level + DRIFT_FRACTION * (self.peak - self.level);
        let stays = || self.tail.iter().rev().take(4).all(|value| *value > floor);
        let is_sparse = self.interval >= SPARSE_STEPS && self.rows >= DRIFT_ROWS;
        is_sparse && steps >= DRIFT_STEPS_SPARSE && stays() || self.rows >= DRIFT_ROWS && steps >= DRIFT_STEPS
    }

    fn verdict(&self, panel: &Panel, case: u64, kind: Kind, last: Label) -> Verdict {
        let since = self.first.step.map_or(String::new(), |step| format!(" since {step}"));
        let excess = self.peak - self.level;
        let summary = match kind {
            Kind::Drift => format!(
                "`{}` left its level of {:.3} by {excess:.3} and does not come back{since}",
                panel.metric, self.level
            ),
            _ => format!("`{}` rose by {excess:.3} over its level of {:.3}{since}", panel.metric, self.level),
        };
        let not_before = self.not_before.map(|calm| Step(calm.0 + 1));
        let onset = self.first.step.map(|step| Onset { step, low: not_before.unwrap_or(step).min(step), high: step });
        let evidence = Evidence {
            step: self.peak_step,
            observed: Some(self.peak),
            expected: Some(self.level),
            low: Some(self.level - self.threshold),
            high: Some(self.level + self.threshold),
            log10_e: Some(self.log10_e),
            working: self.working(),
            ..Evidence::new(SPEC.name, &panel.metric)
        };
        Verdict {
            detector: SPEC.name.to_owned(),
            case,
            phase: Phase::Raised,
            attempt: panel.attempt,
            kind,
            severity: if kind == Kind::Drift { Severity::Critical } else { Severity::Warning },
            suspects: Vec::new(),
            subject: panel.metric.to_string(),
            onset,
            first: self.first,
            last,
            summary,
            evidence: vec![evidence],
        }
    }

    fn working(&self) -> Working {
        Working::new(&RULES)
            .with("level", self.level)
            .with("noise", self.noise)
            .with("threshold", self.threshold)
            .with("peak", self.peak)
            .with("steps_a_row", self.interval)
            .with("rows", self.rows)
            .with("high_rows", self.high_rows)
            .with("last_rows", self.tail.clone())
    }

    fn batch_summary(&self, panel: &Panel) -> String {
        let at = self.peak_step.map_or(String::new(), |step| format!(" at {step}"));
        let (peak, rows) = (self.peak, self.shoulder_rows);
        let rows = if rows == 1 { "one row".to_owned() } else { format!("{rows} rows") };
        format!("`{}` was {peak:.3} for {rows}{at}, over a level of {:.3}: a hard batch", panel.metric, self.level)
    }
}

impl Judge for LossExcursion {
    const SPEC: Spec = SPEC;
    const VERSION: u8 = VERSION;

    fn judge(
        &mut self,
        seen: &Observation,
        _scene: &Scene,
        _backend: &mut dyn Backend,
    ) -> Result<Vec<Verdict>, DetectError> {
        let Observation::Panel(panel) = seen else { return Ok(Vec::new()) };
        if !is_loss(&panel.metric) {
            return Ok(Vec::new());
        }
        Ok((0..panel.rows()).flat_map(|row| self.judge_row(panel, row)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detectors::testing::{assert_restores, bare_scene, judge_all, row_by_row, run_panel};

    /// A decaying loss with some noise, and what `change` makes of it.
    fn losses(rows: usize, change: impl Fn(usize, f32) -> f32) -> Vec<f32> {
        let healthy =
            |row: usize| 3.0 + 4.0 / (1.0 + row as f32 / 20.0) + 0.02 * ((row * 7919 % 13) as f32 - 6.0) / 6.0;
        (0..rows).map(|row| change(row, healthy(row))).collect()
    }

    fn judge(values: &[f32]) -> Vec<Verdict> {
        judge_all(&mut LossExcursion::default(), &mut bare_scene(), &row_by_row(&run_panel("loss", 0, values)))
    }

    #[test]
    fn a_jump_of_three_rows_that_comes_back_is_one_spike() {
        let verdicts =
            judge(&losses(
                400,
                |row, loss| if (200..230).contains(&row) { loss + 1.5 - 0.04 * (row - 200) as f32 } else { loss },
            ));
        let said: Vec<_> = verdicts.iter().map(|verdict| (verdict.kind, verdict.phase)).collect();
        assert_eq!(said, [(Kind::LossSpike, Phase::Raised), (Kind::LossSpike, Phase::Cleared)]);
        assert_eq!((verdicts[0].first.step, verdicts[0].last.step), (Some(Step(200)), Some(Step(202))));
        assert_eq!(verdicts[0].severity, Severity::Warning);
    }

    #[test]
    fn a_healthy_loss_its_warm_up_and_a_fall_say_nothing() {
        assert_eq!(judge(&losses(600, |_, loss| loss)), []);
        assert_eq!(judge(&losses(300, |row, loss| if row < 60 { loss + (row % 5) as f32 * 3.0 } else { loss })), []);
        assert_eq!(judge(&losses(300, |row, loss| if row > 150 { loss - 1.0 } else { loss })), []);
    }

    #[test]
    fn a_single_hard_batch_is_a_note_and_no_alarm() {
        let verdicts = judge(&losses(300, |row, loss| if row == 200 { loss + 2.0 } else { loss }));
        assert!(verdicts.iter().all(|verdict| verdict.severity == Severity::Info), "{verdicts:?}");
        assert_eq!(verdicts.len(), 2);
        assert!(verdicts[0].summary.ends_with("a hard batch"), "{}", verdicts[0].summary);
    }

    #[test]
    fn a_loss_that_stays_up_is_a_divergence() {
        let verdicts = judge(&losses(400, |row, loss| if row >= 200 { loss + 3.0 } else { loss }));
        let said: Vec<_> = verdicts.iter().map(|verdict| (verdict.kind, verdict.phase)).collect();
        assert_eq!(said, [(Kind::LossSpike, Phase::Raised), (Kind::Drift, Phase::Raised)]);
        assert_eq!((verdicts[1].last.step, verdicts[1].severity), (Some(Step(350)), Severity::Critical));
    }

    #[test]
    fn a_log_that_begins_late_needs_three_rows_before_its_jump() {
        let panel = run_panel("loss", 29_020, &[2.776, 2.773, 2.768, 7.344, 8.716, 7.654]);
        let verdicts = judge_all(&mut LossExcursion::default(), &mut bare_scene(), &row_by_row(&panel));
        assert_eq!(verdicts.first().map(|verdict| verdict.kind), Some(Kind::LossSpike));
        let scratch = run_panel("loss", 0, &[2.776, 2.773, 2.768, 7.344, 8.716, 7.654]);
        assert_eq!(judge_all(&mut LossExcursion::default(), &mut bare_scene(), &row_by_row(&scratch)), []);
    }

    #[test]
    fn a_restart_in_the_middle_changes_nothing() {
        let values = losses(300, |row, loss| if (200..260).contains(&row) { loss + 2.0 } else { loss });
        assert_restores(|| Box::new(LossExcursion::default()), &row_by_row(&run_panel("loss", 0, &values)));
    }
}
