//! Detects an evaluation score that falls to nearly nothing.
//!
//! # What it finds
//! `divergence.drift`: a score between 0 and 1 that was good and is below a tenth of its best. One row is a warning,
//! a second one is critical.
//!
//! # Why it matters
//! A model can collapse between two evaluations while nothing else is logged, or while the loss looks plausible: a
//! network that answers the same to every question. All that is trained after it is lost.
//!
//! # How it decides
//! Against the past. A score is a whole-run metric named as one ([`NAMES`]) all of whose values lie in 0 to 1. It is
//! good when the median of its last [`ROWS_MIN`] rows is at least [`GOOD_FRACTION`] of its best value. A row below
//! [`COLLAPSE_FRACTION`] of the best is a collapse; the rows of a collapse do not enter the past. The case ends when a
//! row is above half the best.
//!
//! # Parameters
//! The constants named above.
//!
//! # Blind spots
//! A run whose first evaluations are already bad; scores where small is good; a fall to a fifth.
//!
//! # Source
//! In healthy runs of the corpus the worst dip of a score keeps two thirds of it.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use trainwarden_kernels::{Backend, MAD_TO_SIGMA, heavy_tail_log10_e, mad, median};
use trainwarden_telemetry::{
    Attempt, Evidence, Kind, Label, Metric, Observation, Onset, Panel, Phase, Severity, Step, Verdict,
};

use crate::series::{push, whole_run_value};
use crate::{Against, DetectError, Judge, Scene, Spec};

const SPEC: Spec = Spec {
    name: "evaluation_collapse",
    against: Against::Past,
    watches: &[
        "samples: whole-run scores between 0 and 1: eval_*, val_*, and names with accuracy, dice, iou, f1 or auc",
    ],
    kinds: &[Kind::Drift],
};
const VERSION: u8 = 1;
/// What the names of scores hold.
const NAMES: &[&str] = &["eval", "val_", "accuracy", "dice", "iou", "f1", "auc"];
/// Rows that make a past.
const ROWS_MIN: usize = 5;
/// A score is good from this part of its best on.
const GOOD_FRACTION: f64 = 0.5;
/// ... and has collapsed below this part.
const COLLAPSE_FRACTION: f64 = 0.1;
/// Less than this is no score that could collapse.
const BEST_MIN: f64 = 0.1;

/// See the module's page.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct EvaluationCollapse {
    series: BTreeMap<(Attempt, Metric), Series>,
    cases: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Series {
    /// True once a value was outside 0 to 1.
    is_no_score: bool,
    best: f64,
    recent: VecDeque<f64>,
    last_good: Option<Label>,
    open: Option<Verdict>,
}

fn is_score(panel: &Panel) -> bool {
    let name = panel.metric.as_str();
    panel.is_whole_run() && NAMES.iter().any(|part| name.contains(part)) && !name.contains("loss")
}

impl EvaluationCollapse {
    fn judge_row(&mut self, panel: &Panel, row: usize) -> Option<Verdict> {
        let score = whole_run_value(panel, row).filter(|value| value.is_finite())?;
        let label = panel.labels[row];
        let series = self.series.entry((panel.attempt, panel.metric.clone())).or_default();
        series.is_no_score |= !(0.0..=1.0).contains(&score);
        if series.is_no_score {
            return None;
        }
        if series.open.is_some() {
            return series.follow(label, score);
        }
        if !series.has_collapsed(score) {
            series.best = series.best.max(score);
            series.last_good = Some(label);
            push(&mut series.recent, score, ROWS_MIN);
            return None;
        }
        let verdict = series.verdict(panel, label, score, self.cases);
        self.cases += 1;
        series.open = Some(verdict.clone());
        Some(verdict)
    }
}

impl Series {
    fn has_collapsed(&mut self, score: f64) -> bool {
        let is_known = self.recent.len() == ROWS_MIN && self.best >= BEST_MIN;
        let level = median(self.recent.make_contiguous()).unwrap_or(0.0);
        is_known && level >= GOOD_FRACTION * self.best && score < COLLAPSE_FRACTION * self.best
    }

    fn follow(&mut self, label: Label, score: f64) -> Option<Verdict> {
        if score > GOOD_FRACTION * self.best {
            let raised = self.open.take()?;
            return Some(Verdict { phase: Phase::Cleared, ..raised });
        }
        let open = self.open.as_mut()?;
        open.last = label;
        if open.severity == Severity::Critical {
            return None;
        }
        open.severity = Severity::Critical;
        open.phase = Phase::Updated;
        open.summary += " and stays there";
        Some(open.clone())
    }

    fn verdict(&self, panel: &Panel, label: Label, score: f64, case: u64) -> Verdict {
        let recent: Vec<f64> = self.recent.iter().copied().collect();
        let level = median(&recent).unwrap_or(self.best);
        let noise = (MAD_TO_SIGMA * mad(&recent, level).unwrap_or(0.0)).max(0.02 * self.best);
        let evidence = Evidence {
            step: label.step,
            observed: Some(score),
            expected: Some(level),
            low: Some(COLLAPSE_FRACTION * self.best),
            log10_e: Some(heavy_tail_log10_e((level - score) / noise)),
            ..Evidence::new(SPEC.name, &panel.metric)
        };
        // It happened anywhere since the last good evaluation.
        let low = self.last_good.and_then(|label| label.step).map(|Step(step)| Step(step + 1));
        let onset = label.step.map(|step| Onset { step, low: low.unwrap_or(step).min(step), high: step });
        let at = label.step.map_or(String::new(), |step| format!(" at {step}"));
        Verdict {
            detector: SPEC.name.to_owned(),
            case,
            phase: Phase::Raised,
            attempt: panel.attempt,
            kind: Kind::Drift,
            severity: Severity::Warning,
            suspects: Vec::new(),
            subject: panel.metric.to_string(),
            onset,
            first: label,
            last: label,
            summary: format!("`{}` fell from {level:.3} to {score:.3}{at}", panel.metric),
            evidence: vec![evidence],
        }
    }
}

impl Judge for EvaluationCollapse {
    const SPEC: Spec = SPEC;
    const VERSION: u8 = VERSION;

    fn judge(
        &mut self,
        seen: &Observation,
        _scene: &Scene,
        _backend: &mut dyn Backend,
    ) -> Result<Vec<Verdict>, DetectError> {
        match seen {
            Observation::Panel(panel) if is_score(panel) => {
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

    fn judge(scores: &[f32]) -> Vec<Verdict> {
        judge_all(
            &mut EvaluationCollapse::default(),
            &mut bare_scene(),
            &row_by_row(&run_panel("eval_dice", 0, scores)),
        )
    }

    #[test]
    fn a_score_that_falls_to_nothing_is_a_warning_then_critical_and_cleared_when_it_is_back() {
        let scores = [0.6, 0.8, 0.85, 0.87, 0.86, 0.88, 0.0, 0.0, 0.0, 0.8];
        let verdicts = judge(&scores);
        let told: Vec<(Phase, Severity)> = verdicts.iter().map(|verdict| (verdict.phase, verdict.severity)).collect();
        let expected = [
            (Phase::Raised, Severity::Warning),
            (Phase::Updated, Severity::Critical),
            (Phase::Cleared, Severity::Critical),
        ];
        assert_eq!(told, expected);
        assert_eq!(verdicts[0].first.step, Some(Step(6)));
        let seen = row_by_row(&run_panel("eval_dice", 0, &scores));
        assert_restores(|| Box::new(EvaluationCollapse::default()), &seen);
    }

    #[test]
    fn a_score_that_begins_at_nothing_a_dip_and_a_perplexity_say_nothing() {
        assert_eq!(judge(&[0.0, 0.0, 0.0, 0.0, 0.0, 0.1, 0.3, 0.0, 0.6]), []);
        assert_eq!(judge(&[0.6, 0.8, 0.85, 0.87, 0.86, 0.88, 0.55, 0.87]), []);
        assert_eq!(judge(&[60.0, 40.0, 30.0, 20.0, 18.0, 17.0, 1.0]), []);
    }
}
