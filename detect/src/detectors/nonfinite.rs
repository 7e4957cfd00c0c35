//! Detects a NaN or an infinity that was logged.
//!
//! # What it finds
//! A value that is NaN or infinite in any metric: `divergence.nonfinite`.
//!
//! # Why it matters
//! A NaN loss or gradient never heals by itself: every step after it is lost, and so is every checkpoint saved since.
//!
//! # How it decides
//! By law: a logged value is finite. One row convicts. Ranks that logged it first are the suspects when they are at
//! most half of those present; a row where most ranks carry it says nothing of who began. A case ends after
//! [`CLEAR_ROWS`] finite rows of its metric in a row, so that a loss scaler's skipped step is one case and not one a
//! step. Critical for the loss, norms of gradients and weights, and every metric of their families; a warning
//! otherwise.
//!
//! # Parameters
//! [`CLEAR_ROWS`].
//!
//! # Blind spots
//! A trainer that skips non-finite steps before logging them hides them; a run that ends at its NaN without logging it.
//!
//! # Source
//! A law of arithmetic; hardware corruptions show as NaN in about 1 % of injections (TrainSDC, arXiv 2608.30769).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use trainwarden_kernels::Backend;
use trainwarden_telemetry::{
    Attempt, Evidence, Kind, Label, Metric, Observation, Onset, Panel, Phase, Severity, Step, Suspect, Verdict, Working,
};

use crate::{Against, DetectError, Judge, Scene, Spec};

const SPEC: Spec =
    Spec { name: "nonfinite", against: Against::Law, watches: &["samples: every metric"], kinds: &[Kind::Nonfinite] };
const VERSION: u8 = 1;
/// Finite rows that end a case.
const CLEAR_ROWS: u32 = 20;
/// Ranks named at most; with more the panel itself is the suspect.
const SUSPECTS_MAX: usize = 16;
/// Metrics that hold the model itself: a non-finite value in them means that weights cannot be trusted.
const MODEL_METRICS: [&str; 4] = ["loss", "grad", "norm", "update"];

/// See the module's page.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Nonfinite {
    series: BTreeMap<(Attempt, Metric), Series>,
    cases: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Series {
    last_finite: Option<Step>,
    open: Option<OpenCase>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct OpenCase {
    raised: Verdict,
    finite_rows: u32,
    last_bad: Label,
}

impl Nonfinite {
    fn judge_row(&mut self, panel: &Panel, row: usize, scene: &Scene) -> Option<Verdict> {
        let label = panel.labels[row];
        let bad: Vec<usize> = (0..panel.values.ncols())
            .filter(|column| panel.value(row, *column).is_some_and(|v| !v.is_finite()))
            .collect();
        let series = self.series.entry((panel.attempt, panel.metric.clone())).or_default();
        if bad.is_empty() {
            series.last_finite = label.step.or(series.last_finite);
            let case = series.open.as_mut()?;
            case.finite_rows += 1;
            if case.finite_rows < CLEAR_ROWS {
                return None;
            }
            let case = series.open.take()?;
            return Some(Verdict { phase: Phase::Cleared, last: case.last_bad, ..case.raised });
        }
        if let Some(case) = &mut series.open {
            case.finite_rows = 0;
            case.last_bad = label;
            return None;
        }
        let verdict = raise(panel, row, &bad, Raising { case: self.cases, last_finite: series.last_finite, scene });
        series.open = Some(OpenCase { raised: verdict.clone(), finite_rows: 0, last_bad: label });
        self.cases += 1;
        Some(verdict)
    }
}

struct Raising<'a> {
    case: u64,
    last_finite: Option<Step>,
    scene: &'a Scene,
}

fn raise(panel: &Panel, row: usize, bad: &[usize], raising: Raising<'_>) -> Verdict {
    let label = panel.labels[row];
    let present = panel.present.row(row).iter().filter(|present| **present).count();
    let are_few = !panel.is_whole_run() && bad.len() * 2 <= present && bad.len() <= SUSPECTS_MAX;
    let share = 1.0 / bad.len() as f64;
    let suspects: Vec<Suspect> = match are_few {
        true => bad.iter().filter_map(|column| panel.rank(*column)).map(|rank| Suspect { rank, share }).collect(),
        false => Vec::new(),
    };
    let evidence = bad.iter().take(SUSPECTS_MAX).map(|column| Evidence {
        step: label.step,
        rank: panel.rank(*column),
        note: Some(format!("logged {}", panel.values[[row, *column]])),
        working: Working::new(&["a logged value is finite; one that is not convicts by itself"])
            .with("value", panel.values[[row, *column]])
            .with("cells", present)
            .with("cells_not_finite", bad.len()),
        ..Evidence::new(SPEC.name, &panel.metric)
    });
    let who = match suspects.as_slice() {
        [] => String::new(),
        [one] => format!(" on {}", raising.scene.describe(panel.attempt, one.rank)),
        many => format!(" on {} of {present} ranks, first {}", many.len(), many[0].rank),
    };
    let when = label.step.map_or(String::new(), |step| format!(" at {step}"));
    let onset = label.step.map(|step| {
        let low = raising.last_finite.map_or(step, |last| Step(last.0 + 1).min(step));
        Onset { step, low, high: step }
    });
    let is_model = MODEL_METRICS.iter().any(|part| panel.metric.as_str().contains(part));
    Verdict {
        detector: SPEC.name.to_owned(),
        case: raising.case,
        phase: Phase::Raised,
        attempt: panel.attempt,
        kind: Kind::Nonfinite,
        severity: if is_model { Severity::Critical } else { Severity::Warning },
        suspects,
        subject: panel.metric.to_string(),
        onset,
        first: label,
        last: label,
        summary: format!("`{}` is {}{who}{when}", panel.metric, panel.values[[row, bad[0]]]),
        evidence: evidence.collect(),
    }
}

impl Judge for Nonfinite {
    const SPEC: Spec = SPEC;
    const VERSION: u8 = VERSION;

    fn judge(
        &mut self,
        seen: &Observation,
        scene: &Scene,
        _backend: &mut dyn Backend,
    ) -> Result<Vec<Verdict>, DetectError> {
        let Observation::Panel(panel) = seen else { return Ok(Vec::new()) };
        Ok((0..panel.rows()).filter_map(|row| self.judge_row(panel, row, scene)).collect())
    }
}

#[cfg(test)]
mod tests {
    use trainwarden_telemetry::Rank;

    use super::*;
    use crate::detectors::testing::{assert_restores, bare_scene, judge_all, rank_panel, row_by_row, run_panel};

    #[test]
    fn the_first_nan_of_the_loss_opens_one_critical_case() {
        let rows = row_by_row(&run_panel("loss", 10, &[2.0, 1.9, f32::NAN, f32::NAN, f32::INFINITY]));
        let verdicts = judge_all(&mut Nonfinite::default(), &mut bare_scene(), &rows);
        assert_eq!(verdicts.len(), 1);
        assert_eq!(verdicts[0].severity, Severity::Critical);
        assert_eq!(verdicts[0].onset, Some(Onset { step: Step(12), low: Step(12), high: Step(12) }));
        assert_eq!(verdicts[0].summary, "`loss` is NaN at step 12");
    }

    #[test]
    fn finite_values_say_nothing_and_an_absent_cell_is_no_nan() {
        let rows = row_by_row(&rank_panel("loss_local", 0, &[vec![Some(1.0), None], vec![Some(-0.0), Some(f32::MAX)]]));
        assert_eq!(judge_all(&mut Nonfinite::default(), &mut bare_scene(), &rows), []);
    }

    #[test]
    fn a_single_rank_with_nan_is_the_suspect_and_a_majority_is_none() {
        let one = row_by_row(&rank_panel("grad_norm_local", 5, &[vec![Some(1.0), Some(f32::NAN), Some(1.0)]]));
        let verdicts = judge_all(&mut Nonfinite::default(), &mut bare_scene(), &one);
        assert_eq!(verdicts[0].ranks().collect::<Vec<_>>(), [Rank(1)]);
        let most = row_by_row(&rank_panel("grad_norm_local", 5, &[vec![Some(f32::NAN), Some(f32::NAN), Some(1.0)]]));
        assert_eq!(judge_all(&mut Nonfinite::default(), &mut bare_scene(), &most)[0].suspects, []);
    }

    #[test]
    fn a_case_clears_after_finite_rows_and_the_next_nan_is_a_new_case() {
        let mut values = vec![1.0, f32::NAN];
        values.extend([1.0; CLEAR_ROWS as usize]);
        values.push(f32::NAN);
        let rows = row_by_row(&run_panel("loss", 0, &values));
        let verdicts = judge_all(&mut Nonfinite::default(), &mut bare_scene(), &rows);
        let phases: Vec<Phase> = verdicts.iter().map(|verdict| verdict.phase).collect();
        assert_eq!(phases, [Phase::Raised, Phase::Cleared, Phase::Raised]);
        assert_eq!(verdicts[1].last.step, Some(Step(1)));
        assert_ne!(verdicts[0].case, verdicts[2].case);
        assert_restores(|| Box::new(Nonfinite::default()), &rows);
    }
}
