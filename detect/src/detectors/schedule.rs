//! Detects a learning rate that leaves its law.
//!
//! # What it finds
//! `optimizer.schedule`, a warning: a learning rate that jumps up, that leaves its curve for a few rows and comes back,
//! that falls to nearly nothing at once, or that changes its sign. A return to the peak is a restart: `info`.
//!
//! # Why it matters
//! The learning rate is the one number that spoils weights without a trace in the telemetry of the machines: doubled
//! for a hundred steps it undoes days, set to nothing it burns them.
//!
//! # How it decides
//! Against the past: the line through the last two rows predicts the next. Every common law (constant, linear, cosine,
//! square root, exponential, steps downwards) stays near that line or below it, and its kinks, the end of the warm-up
//! and the begin of the decay, bend downwards. So what must not be is upwards: a row above the line and above the last
//! row by [`JUMP_FRACTION`] of it and [`PEAK_FRACTION`] of the peak, after the warm-up; in the warm-up, a row
//! [`WARM_UP_JUMP`] times the line. The warm-up is over after a plateau of [`PLATEAU_ROWS`] rows or a fall by
//! [`FALL_FRACTION`]. From then on the peak is frozen, and no row may exceed it by [`JUMP_FRACTION`]. A jump to within
//! [`RESTART_FRACTION`] of the peak is a restart. A fall is a milestone, unless the rate is back within
//! [`EXCURSION_ROWS`] rows, or fell below one part in [`STOP_RATIO`]. A case ends when the rate is back where it left.
//! Where each rank logs its own, their median is judged.
//!
//! # Parameters
//! The constants named above; none is a user's to set.
//!
//! # Blind spots
//! A milestone nobody planned; a wrong rate from the first row on; jumps below a tenth; a rate that is not logged.
//! A warm-up in steps of many rows looks like jumps; so does a cycle of few rows.
//!
//! # Source
//! No row of the 29 learning rates of the corpus is out of law.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use trainwarden_kernels::Backend;
use trainwarden_telemetry::{
    Attempt, Evidence, Kind, Label, Metric, Observation, Onset, Panel, Phase, Severity, Step, Verdict,
};

use crate::series::whole_run_value;
use crate::{Against, DetectError, Judge, Scene, Spec};

const SPEC: Spec =
    Spec { name: "schedule", against: Against::Past, watches: &["samples: learning_rate"], kinds: &[Kind::Schedule] };
const VERSION: u8 = 1;
/// A rise by this part of the last row is a jump: no law but a restart rises so fast after its warm-up.
const JUMP_FRACTION: f64 = 0.10;
/// ... and it is this part of the peak at least, because logs round the small rates at the end of a decay.
const PEAK_FRACTION: f64 = 0.02;
/// In the warm-up a row stays below this multiple of the line: an exponential one grows by half a row at most.
const WARM_UP_JUMP: f64 = 1.5;
/// Rows that make a line before the warm-up can be judged.
const WARM_UP_ROWS: u32 = 4;
/// Rows without change after which the warm-up is over.
const PLATEAU_ROWS: u32 = 8;
/// A change below this part is none.
const EQUAL_FRACTION: f64 = 1e-3;
/// A fall below the peak by this part ends the warm-up.
const FALL_FRACTION: f64 = 0.05;
/// A row so near to the peak is a restart.
const RESTART_FRACTION: f64 = 0.05;
/// A rate that comes back within so many rows had left its law.
const EXCURSION_ROWS: u32 = 8;
/// ... and may have risen by so much meanwhile, in a warm-up.
const BACK_RISE: f64 = 0.25;
/// Milestones divide by ten at most; what divides by more has stopped the training.
const STOP_RATIO: f64 = 20.0;
/// Back within this part of the value before ends a case.
const BACK_FRACTION: f64 = 0.05;

/// See the module's page.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Schedule {
    series: BTreeMap<(Attempt, bool), Series>,
    cases: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Series {
    /// The last two rows in law.
    last: Option<Row>,
    before: Option<Row>,
    /// Rows since the last break.
    rows: u32,
    peak: f64,
    plateau_rows: u32,
    is_warm: bool,
    /// The last row before a fall, and the rows since.
    fall: Option<(Row, Label, u32)>,
    open: Option<Open>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Row {
    label: Label,
    rate: f64,
}

/// A case that is not over.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Open {
    before: f64,
    told: f64,
    verdict: Verdict,
}

/// A row out of law.
struct Break {
    severity: Severity,
    first: Label,
    before: Row,
    expected: f64,
    rate: f64,
    what: &'static str,
    /// True when the rate is back already.
    is_over: bool,
}

impl Schedule {
    fn judge_row(&mut self, panel: &Panel, row: usize) -> Vec<Verdict> {
        let Some(rate) = whole_run_value(panel, row).filter(|rate| rate.is_finite()) else { return Vec::new() };
        let now = Row { label: panel.labels[row], rate };
        let series = self.series.entry((panel.attempt, panel.is_whole_run())).or_default();
        let mut verdicts: Vec<Verdict> = series.follow(now).into_iter().collect();
        let Some(found) = series.take(now) else { return verdicts };
        if series.open.is_some() && found.severity >= Severity::Warning {
            verdicts.extend(series.grow(&found, now));
            return verdicts;
        }
        let verdict = found.verdict(panel, self.cases, now.label);
        self.cases += 1;
        verdicts.push(verdict.clone());
        if found.is_over || found.severity == Severity::Info {
            verdicts.push(Verdict { phase: Phase::Cleared, ..verdict });
        } else {
            series.open = Some(Open { before: found.before.rate, told: found.rate, verdict });
        }
        verdicts
    }
}

impl Series {
    /// Follows the open case: it ends when the rate is back where it left.
    fn follow(&mut self, now: Row) -> Option<Verdict> {
        let open = self.open.as_ref()?;
        let is_high = open.told > open.before;
        let is_back = match is_high {
            true => now.rate >= 0.0 && now.rate <= (1.0 + BACK_FRACTION) * open.before,
            false => now.rate >= (1.0 - BACK_FRACTION) * open.before,
        };
        if !is_back {
            return None;
        }
        let open = self.open.take()?;
        // The way back is part of the case, not a jump or a fall of its own.
        self.restart_at(now);
        Some(Verdict { phase: Phase::Cleared, last: now.label, ..open.verdict })
    }

    /// The open case grew by half again.
    fn grow(&mut self, found: &Break, now: Row) -> Option<Verdict> {
        let open = self.open.as_mut()?;
        if found.rate < WARM_UP_JUMP * open.told {
            return None;
        }
        open.told = found.rate;
        open.verdict.phase = Phase::Updated;
        open.verdict.last = now.label;
        open.verdict.evidence[0].observed = Some(found.rate);
        open.verdict.evidence[0].step = now.label.step;
        open.verdict.summary = format!("learning rate went on to {:.3e}; {}", found.rate, open.verdict.summary);
        Some(open.verdict.clone())
    }

    fn take(&mut self, now: Row) -> Option<Break> {
        let Some(last) = self.last else {
            self.accept(now);
            return None;
        };
        let expected = self.line(now.label);
        let found = self.find(now, last, expected);
        match &found {
            Some(_) => self.restart_at(now),
            None => self.accept(now),
        }
        found
    }

    fn find(&mut self, now: Row, last: Row, expected: f64) -> Option<Break> {
        let broke = |severity, what| Break {
            severity,
            first: now.label,
            before: last,
            expected,
            rate: now.rate,
            what,
            is_over: false,
        };
        if now.rate < 0.0 && last.rate >= 0.0 {
            return Some(broke(Severity::Warning, "changed its sign"));
        }
        let rise = now.rate - last.rate;
        let is_rise = rise > JUMP_FRACTION * last.rate && rise > PEAK_FRACTION * self.peak && now.rate > expected;
        if let Some((before, first, rows)) = self.fall {
            let is_back = is_rise
                && now.rate >= (1.0 - 2.0 * BACK_FRACTION) * before.rate
                && now.rate <= (1.0 + BACK_RISE) * before.rate;
            self.fall = (rows < EXCURSION_ROWS && !is_back).then_some((before, first, rows + 1));
            if is_back {
                let left = broke(Severity::Warning, "left its law and came back");
                return Some(Break { first, before, expected: before.rate, rate: last.rate, is_over: true, ..left });
            }
        }
        let fall = expected - now.rate;
        if fall > JUMP_FRACTION * last.rate && last.rate - now.rate > PEAK_FRACTION * self.peak {
            self.fall = Some((last, now.label, 0));
            let has_stopped = now.rate * STOP_RATIO < last.rate && expected > 0.5 * last.rate;
            if has_stopped {
                return Some(broke(Severity::Warning, "fell to nearly nothing"));
            }
        }
        if !self.is_warm {
            let is_jump = self.rows >= WARM_UP_ROWS && is_rise && now.rate > WARM_UP_JUMP * expected.max(last.rate);
            return is_jump.then(|| broke(Severity::Warning, "jumped up in its warm-up"));
        }
        if is_rise && now.rate > expected + JUMP_FRACTION * last.rate {
            let is_restart = (now.rate - self.peak).abs() <= RESTART_FRACTION * self.peak;
            let (severity, what) =
                if is_restart { (Severity::Info, "restarted at its peak") } else { (Severity::Warning, "jumped up") };
            return Some(broke(severity, what));
        }
        let ceiling = (1.0 + JUMP_FRACTION) * self.peak;
        if now.rate > ceiling && last.rate <= ceiling {
            return Some(broke(Severity::Warning, "rose above its peak"));
        }
        None
    }

    /// Where the line through the last two rows is at a label; never below zero.
    fn line(&self, label: Label) -> f64 {
        let (Some(last), Some(before)) = (self.last, self.before) else { return self.last.map_or(0.0, |row| row.rate) };
        let steps = |from: Label, to: Label| match (from.step, to.step) {
            (Some(Step(from)), Some(Step(to))) => to.saturating_sub(from).max(1) as f64,
            _ => 1.0,
        };
        let slope = (last.rate - before.rate) / steps(before.label, last.label);
        (last.rate + slope * steps(last.label, label)).max(0.0)
    }

    fn accept(&mut self, now: Row) {
        self.rows += 1;
        let is_equal = self.last.is_some_and(|last| (now.rate - last.rate).abs() <= EQUAL_FRACTION * last.rate.abs());
        self.plateau_rows = if is_equal { self.plateau_rows + 1 } else { 0 };
        // A rate that waits at zero has not begun.
        let has_plateau = self.plateau_rows >= PLATEAU_ROWS && now.rate > 0.0;
        let has_fallen = now.rate < (1.0 - FALL_FRACTION) * self.peak;
        if !self.is_warm {
            self.peak = self.peak.max(now.rate);
            self.is_warm = has_plateau || has_fallen;
        }
        self.before = self.last.replace(now);
    }

    fn restart_at(&mut self, now: Row) {
        (self.last, self.before) = (Some(now), None);
        (self.rows, self.plateau_rows, self.fall) = (1, 0, None);
    }
}

impl Break {
    fn verdict(&self, panel: &Panel, case: u64, last: Label) -> Verdict {
        let evidence = Evidence {
            step: self.first.step,
            observed: Some(self.rate),
            expected: Some(self.expected),
            ..Evidence::new(SPEC.name, &Metric::new("learning_rate"))
        };
        let at = self.first.step.map_or(String::new(), |step| format!(" at {step}"));
        let low = self.before.label.step.map(|Step(step)| Step(step + 1));
        let onset = self.first.step.map(|step| Onset { step, low: low.unwrap_or(step).min(step), high: step });
        let (before, rate, what) = (self.before.rate, self.rate, self.what);
        Verdict {
            detector: SPEC.name.to_owned(),
            case,
            phase: Phase::Raised,
            attempt: panel.attempt,
            kind: Kind::Schedule,
            severity: self.severity,
            suspects: Vec::new(),
            subject: panel.metric.to_string(),
            onset,
            first: self.first,
            last,
            summary: format!("learning rate {what}{at}: {before:.3e} became {rate:.3e}"),
            evidence: vec![evidence],
        }
    }
}

impl Judge for Schedule {
    const SPEC: Spec = SPEC;
    const VERSION: u8 = VERSION;

    fn judge(
        &mut self,
        seen: &Observation,
        _scene: &Scene,
        _backend: &mut dyn Backend,
    ) -> Result<Vec<Verdict>, DetectError> {
        let Observation::Panel(panel) = seen else { return Ok(Vec::new()) };
        if panel.metric.as_str() != "learning_rate" {
            return Ok(Vec::new());
        }
        Ok((0..panel.rows()).flat_map(|row| self.judge_row(panel, row)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detectors::testing::{assert_restores, bare_scene, judge_all, row_by_row, run_panel};

    /// Laws of 400 rows with a warm-up of 40, all with a peak of 3e-4.
    const LAWS: [fn(f32) -> f32; 6] = [
        |_| 1.0,
        |part| 1.0 - part,
        |part| 0.5 + 0.5 * (std::f32::consts::PI * part).cos(),
        |part| 1.0 - part.sqrt(),
        |part| (-5.0 * part).exp(),
        |part| [1.0, 0.1, 0.01][(part * 3.0) as usize % 3],
    ];

    fn rates(law: fn(f32) -> f32, change: impl Fn(usize, f32) -> f32) -> Vec<Observation> {
        let rate = |row: usize| match row {
            0..40 => 3e-4 * (row + 1) as f32 / 40.0,
            _ => 3e-4 * law((row - 40) as f32 / 360.0),
        };
        let values: Vec<f32> = (0..400).map(|row| change(row, rate(row))).collect();
        row_by_row(&run_panel("learning_rate", 0, &values))
    }

    fn judge(seen: &[Observation]) -> Vec<Verdict> {
        judge_all(&mut Schedule::default(), &mut bare_scene(), seen)
    }

    #[test]
    fn no_common_law_is_broken() {
        for (index, law) in LAWS.into_iter().enumerate() {
            assert_eq!(judge(&rates(law, |_, rate| rate)), [], "law {index}");
        }
    }

    #[test]
    fn a_rate_that_doubles_is_found_under_every_law_and_cleared_when_it_is_back() {
        for (index, law) in LAWS.into_iter().enumerate() {
            let doubled = rates(law, |row, rate| if (100..130).contains(&row) { 2.0 * rate } else { rate });
            let verdicts = judge(&doubled);
            let phases: Vec<Phase> = verdicts.iter().map(|verdict| verdict.phase).collect();
            assert_eq!(phases, [Phase::Raised, Phase::Cleared], "law {index}: {verdicts:?}");
            assert_eq!((verdicts[0].severity, verdicts[0].first.step), (Severity::Warning, Some(Step(100))));
            assert_restores(|| Box::new(Schedule::default()), &doubled);
        }
    }

    #[test]
    fn a_fall_of_a_few_rows_is_found_and_a_milestone_is_not() {
        let fall = |rows: std::ops::Range<usize>| {
            move |row: usize, rate: f32| if rows.contains(&row) { 0.3 * rate } else { rate }
        };
        for rows in [200..203, 20..23] {
            let verdicts = judge(&rates(LAWS[2], fall(rows)));
            assert!(verdicts[0].summary.contains("came back"), "{verdicts:?}");
        }
        assert_eq!(judge(&rates(LAWS[2], fall(200..400))), []);
    }

    #[test]
    fn a_negative_rate_and_a_rate_of_nothing_are_found() {
        let negative = judge(&rates(LAWS[0], |row, rate| if row >= 200 { -rate } else { rate }));
        assert!(negative[0].summary.contains("sign"), "{negative:?}");
        let stopped = judge(&rates(LAWS[0], |row, rate| if row >= 200 { 0.0 } else { rate }));
        assert!(stopped[0].summary.contains("nothing"), "{stopped:?}");
    }

    #[test]
    fn a_restart_at_the_peak_is_information() {
        let verdicts = judge(&rates(|part| 1.0 - 3.0 * part % 1.0, |_, rate| rate));
        assert!(!verdicts.is_empty() && verdicts.iter().all(|verdict| verdict.severity == Severity::Info));
    }
}
