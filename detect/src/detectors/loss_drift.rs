//! Detects a loss that creeps up.
//!
//! # What it finds
//! A loss whose level over many rows lies well above the best level it has had: `divergence.drift`, critical.
//!
//! # Why it matters
//! A wrong data mixture, a corrupted shard, a creeping loss of precision or a small edit of the optimizer shows as a
//! curve that turns up a little, for thousands of steps, with no single row that stands out.
//!
//! # How it decides
//! Against the past. The level is the median of the last [`LEVEL_ROWS`] rows; the best level so far is the reference
//! and never follows a rise, so that patience does not help. Drift is a level above the best one by [`RISE_FRACTION`]
//! of it and by [`NOISE_MULTIPLE`] standard errors of such a median, for [`LASTING_ROWS`] rows. The case ends when the
//! level is back within half of the rise. Excursions that one row begins belong to `loss_excursion`; the correlator
//! makes one incident of both. On the clean runs of the corpus no level over 64 rows rises by more than 7 % or 8
//! standard errors.
//!
//! # Parameters
//! The constants named above.
//!
//! # Blind spots
//! A rise below 10 %; a loss that merely stops falling; runs shorter than [`LEVEL_ROWS`] rows after the warm-up.
//! Evaluation losses with few rows.
//!
//! # Source
//! Page-Hinkley test (1954) on the level; a frozen reference, because adaptive baselines learn the sabotage.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use trainwarden_kernels::{Backend, heavy_tail_log10_e, median};
use trainwarden_telemetry::{
    Attempt, Evidence, Kind, Label, Metric, Observation, Onset, Panel, Phase, Severity, Step, Verdict, Working,
};

use crate::detectors::loss_excursion::is_loss;
use crate::series::{Recent, push, whole_run_value};
use crate::{Against, DetectError, Judge, Scene, Spec};

const SPEC: Spec = Spec {
    name: "loss_drift",
    against: Against::Past,
    watches: &["samples: loss and every metric with `loss` in its name, but not loss_scale"],
    kinds: &[Kind::Drift],
};
const VERSION: u8 = 1;
/// Rows the level is the median of.
const LEVEL_ROWS: usize = 64;
/// The level is looked at every so many rows: it moves slowly, and a median of 64 costs.
const LOOK_ROWS: u32 = 8;
/// Relative rise above the best level that counts.
const RISE_FRACTION: f64 = 0.10;
/// ... and rise in standard errors of the median: sigma times 1.2533 over the root of the rows.
const NOISE_MULTIPLE: f64 = 12.0;
const MEDIAN_ERROR: f64 = 1.2533;
/// Rows for which it must hold: longer than a spike of a hundred rows, which lifts the level for as long as it lasts.
const LASTING_ROWS: u32 = 128;

/// How a drift follows from its figures.
const RULES: [&str; 3] = [
    "level = median of the last 64 rows; best_level = the lowest it has been; rise = level - best_level",
    "threshold = max(0.1 |best_level|, 12 errors); error = 1.2533 noise / sqrt(64); held for 128 rows",
    "log10_e is that of rise / error under Student's t with 4 degrees of freedom",
];

/// See the module's page.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct LossDrift {
    series: BTreeMap<(Attempt, Metric, bool), Series>,
    cases: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Series {
    recent: Recent,
    window: VecDeque<f64>,
    rows: u32,
    best: Option<Best>,
    /// First and last row of the present rise, and for how many rows it holds.
    rise: Option<(Label, u32)>,
    open: Option<(u64, Verdict)>,
}

/// The lowest level so far.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Best {
    level: f64,
    at: Label,
}

impl LossDrift {
    fn judge_row(&mut self, panel: &Panel, row: usize) -> Option<Verdict> {
        let value = whole_run_value(panel, row).filter(|value| value.is_finite())?;
        let label = panel.labels[row];
        let key = (panel.attempt, panel.metric.clone(), panel.is_whole_run());
        let series = self.series.entry(key).or_default();
        series.recent.see(label);
        series.recent.accept(value);
        series.recent.expected(LEVEL_ROWS)?;
        push(&mut series.window, value, LEVEL_ROWS);
        series.rows += 1;
        if series.window.len() < LEVEL_ROWS || !series.rows.is_multiple_of(LOOK_ROWS) {
            return None;
        }
        let verdict = series.look(panel, label, self.cases);
        self.cases += u64::from(verdict.as_ref().is_some_and(|verdict| verdict.phase == Phase::Raised));
        verdict
    }
}

impl Series {
    fn look(&mut self, panel: &Panel, label: Label, case: u64) -> Option<Verdict> {
        let level = median(self.window.make_contiguous())?;
        let noise = self.recent.expected(LEVEL_ROWS)?.noise;
        let best = *self.best.get_or_insert(Best { level, at: label });
        if level < best.level {
            self.best = Some(Best { level, at: label });
        }
        let error = noise * MEDIAN_ERROR / (LEVEL_ROWS as f64).sqrt();
        let threshold = (RISE_FRACTION * best.level.abs()).max(NOISE_MULTIPLE * error);
        let rise = level - best.level;
        if rise < 0.5 * threshold {
            self.rise = None;
            let (_, raised) = self.open.take()?;
            return Some(Verdict { phase: Phase::Cleared, last: label, ..raised });
        }
        if rise < threshold || self.open.is_some() {
            return None;
        }
        let (first, looks) = self.rise.unwrap_or((label, 0));
        self.rise = Some((first, looks + 1));
        if (looks + 1) * LOOK_ROWS < LASTING_ROWS {
            return None;
        }
        let found = Found { best, level, threshold, first, last: label, log10_e: heavy_tail_log10_e(rise / error) };
        let verdict = found.verdict(panel, case);
        self.open = Some((case, verdict.clone()));
        Some(verdict)
    }
}

/// A drift with its numbers.
struct Found {
    best: Best,
    level: f64,
    threshold: f64,
    first: Label,
    last: Label,
    log10_e: f64,
}

impl Found {
    fn verdict(&self, panel: &Panel, case: u64) -> Verdict {
        let (best, level) = (self.best, self.level);
        let since = best.at.step.map_or(String::new(), |step| format!(" since {step}"));
        let percent = 100.0 * (level - best.level) / best.level.abs().max(f64::MIN_POSITIVE);
        let evidence = Evidence {
            step: self.last.step,
            observed: Some(level),
            expected: Some(best.level),
            high: Some(best.level + self.threshold),
            log10_e: Some(self.log10_e),
            working: Working::new(&RULES)
                .with("level", level)
                .with("best_level", best.level)
                .with("rise", level - best.level)
                .with("threshold", self.threshold),
            ..Evidence::new(SPEC.name, &panel.metric)
        };
        let onset = match (best.at.step, self.first.step) {
            // The level lags: the rise is somewhere between the best level's last row and the first look above it.
            (Some(Step(low)), Some(high)) => Some(Onset { step: Step(low + (high.0 - low) / 2), low: Step(low), high }),
            _ => None,
        };
        Verdict {
            detector: SPEC.name.to_owned(),
            case,
            phase: Phase::Raised,
            attempt: panel.attempt,
            kind: Kind::Drift,
            severity: Severity::Critical,
            suspects: Vec::new(),
            subject: panel.metric.to_string(),
            onset,
            first: self.first,
            last: self.last,
            summary: format!(
                "`{}` crept up by {percent:.1} % from its best level of {:.3}{since}",
                panel.metric, best.level
            ),
            evidence: vec![evidence],
        }
    }
}

impl Judge for LossDrift {
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
        Ok((0..panel.rows()).filter_map(|row| self.judge_row(panel, row)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detectors::testing::{assert_restores, bare_scene, judge_all, row_by_row, run_panel};

    fn losses(rows: usize, change: impl Fn(usize) -> f32) -> Vec<Observation> {
        let noise = |row: usize| 0.1 * ((row * 7919 % 13) as f32 - 6.0) / 6.0;
        let values: Vec<f32> =
            (0..rows).map(|row| 3.0 + 4.0 / (1.0 + row as f32 / 20.0) + noise(row) + change(row)).collect();
        row_by_row(&run_panel("loss", 0, &values))
    }

    #[test]
    fn a_loss_that_creeps_up_is_found_once_and_cleared_when_it_is_back() {
        let creeping = |row: usize| match row {
            500..1000 => 0.001 * (row - 500) as f32,
            1000..1200 => 0.5,
            _ => 0.0,
        };
        let verdicts = judge_all(&mut LossDrift::default(), &mut bare_scene(), &losses(1500, creeping));
        let phases: Vec<Phase> = verdicts.iter().map(|verdict| verdict.phase).collect();
        assert_eq!(phases, [Phase::Raised, Phase::Cleared]);
        let onset = verdicts[0].onset.expect("the rows have steps");
        assert!(onset.low.0 <= 560 && onset.high.0 >= 700, "{onset:?}");
        assert_restores(|| Box::new(LossDrift::default()), &losses(700, creeping));
    }

    #[test]
    fn a_healthy_loss_and_a_plateau_say_nothing() {
        assert_eq!(judge_all(&mut LossDrift::default(), &mut bare_scene(), &losses(1500, |_| 0.0)), []);
    }
}
