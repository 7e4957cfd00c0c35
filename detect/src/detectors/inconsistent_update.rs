//! Detects weight updates that do not follow from gradient and learning rate.
//!
//! # What it finds
//! `optimizer.inconsistent_update`, critical, of the whole run: updates that go with the gradient where they went
//! against it; updates many times as large or as small as learning rate and gradient explain; no update at all.
//!
//! # Why it matters
//! An optimizer that was edited on all ranks alike keeps replicas equal and every machine healthy. Only the update itself
//! tells, and each such step spoils the weights.
//!
//! # How it decides
//! Values of one step are brought together from `update_dot_grad`, `update_norm`, `grad_norm` and `learning_rate`; where
//! each rank logs its own, their median is taken. A row waits for what the run logs, for [`WAIT_ROWS`] rows at most.
//!
//! *Direction.* The product of update and gradient over their norms is a cosine, below zero in a descent. Its sign is
//! learned from the first [`SIGN_ROWS`] rows of the run, and stays so over its launches. A row is against it from
//! [`AGAINST`] of the usual size on. How often that happens by itself (momentum overshoots) is learned from the last
//! [`CHANCE_ROWS`] rows; rows against the sign add up to evidence, and [`DIRECTION_NATS`] convict: eight rows in a row
//! where it never happened, 35 where it is a coin.
//!
//! *Size.* Two ratios to the recent past, each a median of [`LEVEL_ROWS`] rows: update over learning rate, which is
//! constant for Adam and its kin, and the same over the gradient norm, constant for plain descent. Only what both say is
//! believed. [`SIZE_FACTOR`] times the level, or less than its inverse, in [`SIZE_ROWS`] more rows than not convicts, and
//! so does [`SLOW_FACTOR`] against the level after [`SETTLE_ROWS`] rows, which is frozen. After a gradient [`SPIKE`]
//! times its level nothing new is begun for [`SPIKE_ROWS`] rows, since the moments of the optimizer remember it.
//!
//! *Standstill.* A norm of exactly zero, while gradient and learning rate are above it, in [`STILL_ROWS`] rows in a row
//! after [`MOVING_ROWS`] that moved; in [`STILL_ROWS_FIRST`] rows where none has.
//!
//! A case ends after [`CLEAR_ROWS`] rows as before; for the size that is the ratio which varied less, within
//! [`BACK_FACTOR`] of its level.
//!
//! # Parameters
//! The constants named above; none is a user's to set.
//!
//! # Blind spots
//! A product above zero from the first row of the run on is taken for the logger's sign, not for an ascent: the loss
//! tells. Updates in a wrong direction across the gradient, with a product still below zero. A size wrong by less than
//! [`SIZE_FACTOR`], from the first row on, or within [`SPIKE_ROWS`] rows after a spike of the gradient. Slow changes in
//! which update over gradient stays the same. What is not logged; without the learning rate only the direction is judged.
//!
//! # Source
//! First-order descent, and the AdamW update (Loshchilov and Hutter, arXiv 1711.05101); TrainCheck (OSDI 2025): a step
//! must change the parameters.

mod direction;
mod rows;
mod size;
mod standstill;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use trainwarden_kernels::Backend;
use trainwarden_telemetry::{
    Attempt, Evidence, Kind, Label, Metric, Observation, Onset, Panel, Phase, Severity, Step, Verdict,
};

use self::direction::Direction;
use self::rows::{METRICS, Row, Rows};
use self::size::Size;
use self::standstill::Standstill;
use crate::series::whole_run_value;
use crate::{Against, DetectError, Judge, Scene, Spec};

const SPEC: Spec = Spec {
    name: "inconsistent_update",
    against: Against::Past,
    watches: &["samples: update_dot_grad", "samples: update_norm", "samples: grad_norm", "samples: learning_rate"],
    kinds: &[Kind::InconsistentUpdate],
};
const VERSION: u8 = 1;
/// Rows that a row waits for what is still to come of it.
const WAIT_ROWS: usize = 4;
/// Rows from which the sign of the product is learned; three of four must agree.
const SIGN_ROWS: usize = 8;
/// Part of the usual product from which one of the other sign counts: around zero signs are noise.
const AGAINST: f64 = 0.5;
/// Rows from which it is learned how often the sign turns by itself.
const CHANCE_ROWS: usize = 64;
/// It is never believed to be rarer, since the rows are few.
const CHANCE_MIN: f64 = 0.05;
/// ... nor more often: a coin.
const CHANCE_MAX: f64 = 0.5;
/// How often rows are against the sign when the direction is wrong.
const WRONG: f64 = 0.9;
/// Nats that convict: one in a billion.
const DIRECTION_NATS: f64 = 20.7;
/// Rows of a level.
const LEVEL_ROWS: usize = 32;
/// ... and least of it.
const LEVEL_ROWS_MIN: usize = 16;
/// Times the level, or its inverse.
const SIZE_FACTOR: f64 = 2.5;
/// ... and so many spreads of the row.
const SIZE_SPREADS: f64 = 6.0;
/// Rows, more than rows without.
const SIZE_ROWS: u32 = 6;
/// Times the frozen level, or its inverse: ratios of healthy runs drift by four.
const SLOW_FACTOR: f64 = 8.0;
/// Rows after which the level is frozen beside the recent one.
const SETTLE_ROWS: u32 = 128;
/// A case is calm below this factor.
const BACK_FACTOR: f64 = 2.0;
/// Times its level from which a gradient is a spike.
const SPIKE: f64 = 3.0;
/// Rows for which the second moment (0.95 to 0.99 a row) remembers it.
const SPIKE_ROWS: u32 = 100;
/// Rows without any update that convict.
const STILL_ROWS: u32 = 5;
/// Rows in a row with one before.
const MOVING_ROWS: u32 = 8;
/// Rows without any where there never were so many.
const STILL_ROWS_FIRST: u32 = 16;
/// Rows as before that end a case.
const CLEAR_ROWS: u32 = 10;

/// See the module's page.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct InconsistentUpdate {
    attempts: BTreeMap<Attempt, Training>,
    /// Sign of the product in this run, as its logger computes it.
    sign: Option<f64>,
    cases: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Training {
    rows: Rows,
    direction: Direction,
    size: Size,
    standstill: Standstill,
    last: Option<Step>,
    open: BTreeMap<Rule, Verdict>,
}

/// What can be wrong with an update.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Rule {
    Direction,
    Size,
    Standstill,
}

/// What a rule says of a row.
#[derive(Clone, Debug, PartialEq)]
enum Word {
    /// It is wrong, since the row told.
    Wrong(Box<Break>),
    /// It is as before again, since so many rows.
    Back,
}

/// An update that is wrong.
#[derive(Clone, Debug, PartialEq)]
struct Break {
    /// First row that is wrong, and the last one before it.
    first: Label,
    before: Option<Step>,
    observed: f64,
    expected: Option<f64>,
    summary: String,
}

impl Training {
    fn judge(&mut self, row: &Row, sign: &mut Option<f64>) -> Vec<(Rule, Word)> {
        let before = self.last.replace(row.step);
        let words = [
            (Rule::Direction, self.direction.judge(row, before, sign)),
            (Rule::Size, self.size.judge(row, before)),
            (Rule::Standstill, self.standstill.judge(row, before)),
        ];
        words.into_iter().filter_map(|(rule, word)| Some((rule, word?))).collect()
    }
}

impl InconsistentUpdate {
    fn judge_row(&mut self, panel: &Panel, row: usize) -> Vec<Verdict> {
        let label = panel.labels[row];
        let Some(value) = whole_run_value(panel, row) else { return Vec::new() };
        let training = self.attempts.entry(panel.attempt).or_default();
        let mut verdicts = Vec::new();
        for row in training.rows.take(&panel.metric, panel.is_whole_run(), label, value) {
            for (rule, word) in training.judge(&row, &mut self.sign) {
                match (word, training.open.contains_key(&rule)) {
                    (Word::Wrong(found), false) => {
                        let verdict = found.verdict(rule, panel.attempt, self.cases, row.label);
                        training.open.insert(rule, verdict.clone());
                        self.cases += 1;
                        verdicts.push(verdict);
                    }
                    (Word::Back, true) => {
                        let said = training.open.remove(&rule).expect("it is open: just looked up");
                        verdicts.push(Verdict { phase: Phase::Cleared, last: row.label, ..said });
                    }
                    _ => {}
                }
            }
        }
        verdicts
    }
}

impl Break {
    fn verdict(&self, rule: Rule, attempt: Attempt, case: u64, last: Label) -> Verdict {
        let metric = Metric::new(if rule == Rule::Direction { METRICS[0] } else { METRICS[1] });
        let since = self.first.step.map_or(String::new(), |step| format!(" since {step}"));
        let low = self.before.map(|step| Step(step.0.saturating_add(1)));
        let evidence = Evidence {
            step: last.step,
            observed: Some(self.observed),
            expected: self.expected,
            ..Evidence::new(SPEC.name, &metric)
        };
        Verdict {
            detector: SPEC.name.to_owned(),
            case,
            phase: Phase::Raised,
            attempt,
            kind: Kind::InconsistentUpdate,
            severity: Severity::Critical,
            suspects: Vec::new(),
            subject: metric.to_string(),
            onset: self.first.step.map(|step| Onset { step, low: low.unwrap_or(step).min(step), high: step }),
            first: self.first,
            last,
            summary: format!("{}{since}", self.summary),
            evidence: vec![evidence],
        }
    }
}

impl Judge for InconsistentUpdate {
    const SPEC: Spec = SPEC;
    const VERSION: u8 = VERSION;

    fn judge(
        &mut self,
        seen: &Observation,
        _scene: &Scene,
        _backend: &mut dyn Backend,
    ) -> Result<Vec<Verdict>, DetectError> {
        match seen {
            Observation::Attempt(start) => self.attempts.retain(|attempt, _| *attempt >= start.attempt),
            Observation::Panel(panel) if METRICS.contains(&panel.metric.as_str()) => {
                return Ok((0..panel.rows()).flat_map(|row| self.judge_row(panel, row)).collect());
            }
            _ => {}
        }
        Ok(Vec::new())
    }
}
