//! Detects a gradient norm that leaves its range.
//!
//! # What it finds
//! A gradient norm (of the whole run, after all-reduce) many times its recent level, for several rows:
//! `divergence.gradient`, a warning; critical from a factor of [`ENORMOUS`] on.
//!
//! # Why it matters
//! The gradient norm leads the loss: in the first loss spike of BLOOM it went from 0.24 to 960 in the five steps before
//! the loss peaked.
//!
//! # How it decides
//! Against the past, on logarithms. The level is the median of the last [`LEVEL_ROWS`] accepted rows, the spread their
//! MAD. A row is high at [`HIGH`] times the level and [`SPREAD_MULTIPLE`] spreads above it, or at [`ENORMOUS`] times
//! the level whatever the spread. Four high rows, or two of ten times the level, raise a case; a single one is left to
//! the trainer's clipping. The level is frozen while rows are high; two calm rows end the case. The first 100 steps of
//! a training from scratch are not judged.
//!
//! # Parameters
//! The constants named above.
//!
//! # Blind spots
//! Norms logged after clipping never exceed the clip. A norm that falls to nothing (a dead optimizer) is not judged
//! here.
//!
//! # Source
//! bigscience chronicles (BLOOM 176B, 2022-04-12); ZClip, arXiv 2504.02507.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use trainwarden_kernels::{Backend, MAD_TO_SIGMA, heavy_tail_log10_e};
use trainwarden_telemetry::{
    Attempt, Evidence, Kind, Label, Metric, Observation, Onset, Panel, Phase, Severity, Step, Verdict, Working,
};

use crate::series::{Recent, whole_run_value};
use crate::{Against, DetectError, Judge, Scene, Spec};

const SPEC: Spec = Spec {
    name: "gradient_explosion",
    against: Against::Past,
    watches: &["samples: grad_norm"],
    kinds: &[Kind::Gradient],
};
const VERSION: u8 = 1;
/// Rows the level is the median of.
const LEVEL_ROWS: usize = 32;
/// Ratio to the level from which a row is high: healthy norms vary by half.
const HIGH: f64 = 3.0;
/// ... and distance in spreads of the logarithm.
const SPREAD_MULTIPLE: f64 = 6.0;
/// Relative spread assumed at least: a norm is never steadier than that for long.
const SPREAD_MIN: f64 = 0.05;
/// Ratio that convicts with half the rows.
const VERY_HIGH: f64 = 10.0;
/// Ratio that is out of range whatever the history was.
const ENORMOUS: f64 = 30.0;
/// High rows that raise a case.
const ROWS: u32 = 4;
/// Very high rows that do.
const ROWS_VERY_HIGH: u32 = 2;
/// Rows below the root of [`HIGH`] that end a case.
const CALM_ROWS: u32 = 2;
/// Rows after which the new level is the normal one.
const LASTING_ROWS: u32 = 100;

/// How a verdict follows from its figures, which are natural logarithms.
const RULES: [&str; 3] = [
    "level = median of the logarithms of the last 32 rows in order before the first high one, then frozen",
    "observed = e^peak; expected = e^level; high = 3 e^level",
    "log10_e = sum over the rows above level + ln(3) / 2 of that of (log - level) / spread under Student's t with 4 \
     degrees of freedom",
];

/// See the module's page.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct GradientExplosion {
    series: BTreeMap<(Attempt, Metric), Series>,
    cases: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Series {
    recent: Recent,
    excursion: Option<Excursion>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Excursion {
    first: Label,
    last_high: Label,
    /// Natural logarithm of the level.
    level: f64,
    spread: f64,
    rows: u32,
    very_high_rows: u32,
    calm_rows: u32,
    peak: f64,
    log10_e: f64,
    raised: Option<Verdict>,
}

impl GradientExplosion {
    fn judge_row(&mut self, panel: &Panel, row: usize) -> Option<Verdict> {
        let norm = whole_run_value(panel, row).filter(|norm| norm.is_finite() && *norm > 0.0)?;
        let label = panel.labels[row];
        let series = self.series.entry((panel.attempt, panel.metric.clone())).or_default();
        series.recent.see(label);
        let Some(mut excursion) = series.excursion.take() else {
            series.excursion = series.begin(label, norm.ln());
            if series.excursion.is_none() {
                series.recent.accept(norm.ln());
            }
            return None;
        };
        excursion.take(label, norm.ln());
        let mut verdict = None;
        if excursion.raised.is_none() && (excursion.rows >= ROWS || excursion.very_high_rows >= ROWS_VERY_HIGH) {
            excursion.raised = Some(excursion.verdict(panel, self.cases, label));
            self.cases += 1;
            verdict.clone_from(&excursion.raised);
        }
        if excursion.calm_rows >= CALM_ROWS {
            series.recent.accept(norm.ln());
            let cleared = |raised| Verdict { phase: Phase::Cleared, last: excursion.last_high, ..raised };
            return excursion.raised.map(cleared);
        }
        match excursion.rows >= LASTING_ROWS {
            true => series.recent.settle_at(&[norm.ln()]),
            false => series.excursion = Some(excursion),
        }
        verdict
    }
}

impl Series {
    fn begin(&self, label: Label, log_norm: f64) -> Option<Excursion> {
        let expected = self.recent.expected(LEVEL_ROWS)?;
        let spread = self.recent.spread(LEVEL_ROWS, expected.level)?.max(SPREAD_MIN);
        let distance = log_norm - expected.level;
        let is_high = distance > HIGH.ln() && distance > SPREAD_MULTIPLE * spread || distance > ENORMOUS.ln();
        let mut excursion = Excursion {
            first: label,
            last_high: label,
            level: expected.level,
            spread,
            rows: 0,
            very_high_rows: 0,
            calm_rows: 0,
            peak: log_norm,
            log10_e: 0.0,
            raised: None,
        };
        excursion.take(label, log_norm);
        is_high.then_some(excursion)
    }
}

impl Excursion {
    fn take(&mut self, label: Label, log_norm: f64) {
        let distance = log_norm - self.level;
        if distance <= 0.5 * HIGH.ln() {
            self.calm_rows += 1;
            return;
        }
        self.calm_rows = 0;
        self.rows += 1;
        self.very_high_rows += u32::from(distance > VERY_HIGH.ln());
        self.last_high = label;
        self.peak = self.peak.max(log_norm);
        self.log10_e += heavy_tail_log10_e(distance / self.spread);
    }

    fn verdict(&self, panel: &Panel, case: u64, last: Label) -> Verdict {
        let (level, peak) = (self.level.exp(), self.peak.exp());
        let ratio = peak / level;
        let since = self.first.step.map_or(String::new(), |step| format!(" since {step}"));
        let evidence = Evidence {
            step: self.last_high.step,
            observed: Some(peak),
            expected: Some(level),
            high: Some(level * HIGH),
            log10_e: Some(self.log10_e),
            working: Working::new(&RULES)
                .with("level", self.level)
                .with("spread", self.spread)
                .with("peak", self.peak)
                .with("high_rows", self.rows)
                .with("very_high_rows", self.very_high_rows),
            ..Evidence::new(SPEC.name, &panel.metric)
        };
        Verdict {
            detector: SPEC.name.to_owned(),
            case,
            phase: Phase::Raised,
            attempt: panel.attempt,
            kind: Kind::Gradient,
            severity: if ratio >= ENORMOUS { Severity::Critical } else { Severity::Warning },
            suspects: Vec::new(),
            subject: panel.metric.to_string(),
            onset: self.first.step.map(|step| Onset { step, low: Step(step.0.saturating_sub(1)), high: step }),
            first: self.first,
            last,
            summary: format!("`{}` rose to {peak:.3}, {ratio:.0} times its level{since}", panel.metric),
            evidence: vec![evidence],
        }
    }
}

impl Recent {
    /// Standard deviation of the last accepted values about `center`, robustly; `None` of none.
    fn spread(&self, rows: usize, center: f64) -> Option<f64> {
        let values = self.last_values(rows);
        trainwarden_kernels::mad(&values, center).map(|mad| mad * MAD_TO_SIGMA)
    }
}

impl Judge for GradientExplosion {
    const SPEC: Spec = SPEC;
    const VERSION: u8 = VERSION;

    fn judge(
        &mut self,
        seen: &Observation,
        _scene: &Scene,
        _backend: &mut dyn Backend,
    ) -> Result<Vec<Verdict>, DetectError> {
        let Observation::Panel(panel) = seen else { return Ok(Vec::new()) };
        if panel.metric.as_str() != "grad_norm" {
            return Ok(Vec::new());
        }
        Ok((0..panel.rows()).filter_map(|row| self.judge_row(panel, row)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detectors::testing::{assert_restores, bare_scene, judge_all, row_by_row, run_panel};

    fn norms(change: impl Fn(usize) -> f32) -> Vec<Observation> {
        let healthy = |row: usize| 0.25 * (1.0 + 0.2 * ((row * 7919 % 13) as f32 - 6.0) / 6.0);
        let values: Vec<f32> = (0..300).map(|row| healthy(row) * change(row)).collect();
        row_by_row(&run_panel("grad_norm", 0, &values))
    }

    #[test]
    fn an_exploding_norm_is_found_at_its_second_very_high_row() {
        let explode = |row: usize| if (200..206).contains(&row) { 4.0_f32.powi(row as i32 - 199) } else { 1.0 };
        let rows = norms(explode);
        let verdicts = judge_all(&mut GradientExplosion::default(), &mut bare_scene(), &rows);
        let phases: Vec<Phase> = verdicts.iter().map(|verdict| verdict.phase).collect();
        assert_eq!(phases, [Phase::Raised, Phase::Cleared]);
        assert_eq!((verdicts[0].first.step, verdicts[0].last.step), (Some(Step(200)), Some(Step(202))));
        assert_eq!(verdicts[0].severity, Severity::Critical);
        assert_restores(|| Box::new(GradientExplosion::default()), &rows);
    }

    #[test]
    fn healthy_norms_a_single_peak_and_a_slow_rise_say_nothing() {
        for change in [|_| 1.0, |row| if row == 200 { 50.0 } else { 1.0 }, |row: usize| 1.0 + row as f32 / 100.0] {
            assert_eq!(judge_all(&mut GradientExplosion::default(), &mut bare_scene(), &norms(change)), []);
        }
    }

    #[test]
    fn a_late_log_with_three_rows_knows_what_is_enormous() {
        let panel = run_panel("grad_norm", 31_214, &[0.242, 0.947, 2.39, 15.886, 145.119, 960.351, 353.201]);
        let verdicts = judge_all(&mut GradientExplosion::default(), &mut bare_scene(), &row_by_row(&panel));
        assert_eq!(verdicts.len(), 1);
        assert_eq!(verdicts[0].last.step, Some(Step(31_219)));
    }
}
