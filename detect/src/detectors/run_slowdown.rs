//! Detects a whole run that became slower.
//!
//! # What it finds
//! A lasting rise of the step time of the whole run, `slowdown.run`: critical where a tenth of the throughput is lost,
//! else a warning. A rise that is more likely a schedule of the work (a longer sequence, a larger batch) is `info`.
//!
//! # Why it matters
//! A throttled rack, a noisy neighbour or a process that takes its share makes every rank wait alike: no rank stands
//! out against its peers, and each step costs money until somebody looks.
//!
//! # How it decides
//! Against the past, on the logarithm of `step_time_s`. The mean of the middle half of the last [`RECENT_ROWS`] rows is
//! held against that of up to [`REFERENCE_ROWS`] rows before them; single stalls and heavy steps in a rhythm that was
//! always there move neither. A shift must exceed [`SHIFT_MIN`] and [`NOISE_MULTIPLE`] times what such shifts usually
//! are in this run, hold for [`HIGH_ROWS`] rows and show in both halves of the recent rows. The reference of an open
//! case is frozen, so that patience does not help; the case ends when the recent level is back within
//! [`CLEARED_FRACTION`] of the shift, and is updated when it grows by half again.
//! Where the growth of `samples_total` or `tokens_total`, or `tokens` of each step, is known, the step time is divided
//! by the work of the step, and creep is judged as well: a level over [`REFERENCE_ROWS`] rows that stands
//! [`CREEP_MIN`] above the lowest before. Where it is not known, shifts of [`SCHEDULE_MIN`] and more are
//! `info`, and so are all later ones above [`SCHEDULE_STEP_MIN`]: a run with one jump by plan has more, and only the
//! work could tell. Rows that overlap an announced pause are not judged. Where only ranks log it, their median is.
//!
//! # Parameters
//! The constants named above; none is a user's to set.
//!
//! # Blind spots
//! Slowdowns below 3 %; slow creep and a slowdown by half or more where the work per step is not logged; the first 50
//! rows; anything shorter than about 13 rows.
//!
//! # Source
//! Fail-slow detection by change of level: Greyhound (USENIX ATC 2025), which filters below 10 %. The constants were
//! measured on the clean runs of the corpus.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use trainwarden_kernels::{Backend, heavy_tail_log10_e};
use trainwarden_telemetry::{
    Attempt, Evidence, Kind, Label, Metric, Observation, Onset, Panel, Phase, Severity, Step, Timestamp, Verdict,
    Working,
};

use crate::detectors::work::{Cost, Work};
use crate::series::{push, whole_run_value};
use crate::{Against, DetectError, Judge, Scene, Spec};

const SPEC: Spec = Spec {
    name: "run_slowdown",
    against: Against::Past,
    watches: &["samples: step_time_s", "samples: samples_total, tokens_total and tokens"],
    kinds: &[Kind::SlowRun],
};
const VERSION: u8 = 1;
/// First rows, in which a run compiles, allocates and fills its caches.
const WARM_UP_ROWS: u64 = 10;
/// Rows of the present level: the shortest that a mean of the middle half holds steady.
const RECENT_ROWS: usize = 16;
/// Rows of the level before.
const REFERENCE_ROWS: usize = 64;
/// ... and the fewest that make one.
const REFERENCE_ROWS_MIN: usize = 24;
/// Smaller shifts, as logarithms of the ratio, come and go in healthy runs.
const SHIFT_MIN: f64 = 0.03;
/// A shift is so many times the fourth quintile of the shifts of this run.
const NOISE_MULTIPLE: f64 = 3.0;
/// Shifts remembered for that, one every [`RECENT_ROWS`] rows.
const SHIFTS_MAX: usize = 32;
/// ... and the fewest that tell anything.
const SHIFTS_MIN: usize = 4;
/// Until then: so many standard deviations of a row.
const ROW_NOISE_MULTIPLE: f64 = 2.0;
/// The third quartile of the distances of normal rows, in standard deviations.
const QUARTILE_TO_SIGMA: f64 = 1.15;
/// Rows a shift must hold.
const HIGH_ROWS: u32 = 8;
/// A step time that grows by so much at once, for good, is rather more work in each step (a ratio of 1.5).
const SCHEDULE_MIN: f64 = 0.4;
/// After such a jump, further ones from here on are taken for the same schedule (a ratio of 1.15).
const SCHEDULE_STEP_MIN: f64 = 0.14;
/// Back within this part of the shift, for [`CLEARED_ROWS`] rows, ends a case.
const CLEARED_FRACTION: f64 = 1.0 / 3.0;
const CLEARED_ROWS: u32 = 10;
/// A case that grew by so much is told again.
const GROWN: f64 = 1.5;
/// Creep against the first level that counts, where the work is known.
const CREEP_MIN: f64 = 0.05;
/// ... and in thresholds of a shift, because the lowest level of a long run is a little too low.
const CREEP_NOISE: f64 = 1.75;
/// Rows for which it must hold.
const CREEP_ROWS: u32 = 32;

/// See the module's page.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct RunSlowdown {
    series: BTreeMap<(Attempt, bool), Series>,
    work: BTreeMap<Attempt, Work>,
    cases: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Series {
    rows: u64,
    recent: VecDeque<(Label, f64)>,
    reference: VecDeque<f64>,
    shifts: VecDeque<f64>,
    /// First settled level of the run, the reference of creep.
    first_level: Option<(f64, Label)>,
    creep_rows: u32,
    /// Rows for which the present shift holds, and the reference and threshold at its first.
    high: Option<(u32, f64, f64)>,
    has_schedule: bool,
    open: Option<Open>,
}

/// A case that is not over.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Open {
    reference: f64,
    shift: f64,
    calm_rows: u32,
    verdict: Verdict,
}

/// A shift that was found: logarithms of seconds.
struct Found {
    reference: f64,
    shift: f64,
    /// The shift of the newest rows alone: noisier, and free of rows from before.
    newest: f64,
    threshold: f64,
    onset: (Label, Option<Onset>),
    is_creep: bool,
}

impl RunSlowdown {
    fn judge_times(&mut self, panel: &Panel, scene: &Scene) -> Vec<Verdict> {
        let is_whole_run = panel.is_whole_run();
        let work = self.work.entry(panel.attempt).or_default();
        let mut ready = Vec::new();
        for row in 0..panel.rows() {
            let Some(time_s) = whole_run_value(panel, row).filter(|time| time.is_finite() && *time > 0.0) else {
                continue;
            };
            let label = panel.labels[row];
            if !is_paused(scene, panel.attempt, label, time_s) {
                ready.extend(work.cost(label, is_whole_run, time_s.ln()));
            }
        }
        ready.into_iter().flat_map(|cost| self.judge_row(panel.attempt, cost)).collect()
    }

    fn judge_work(&mut self, panel: &Panel) -> Vec<Verdict> {
        let work = self.work.entry(panel.attempt).or_default();
        let mut ready = Vec::new();
        for row in 0..panel.rows() {
            let Some(value) = whole_run_value(panel, row) else { continue };
            ready.extend(work.done(&panel.metric, panel.labels[row], value));
        }
        ready.into_iter().flat_map(|cost| self.judge_row(panel.attempt, cost)).collect()
    }

    fn judge_row(&mut self, attempt: Attempt, (label, is_whole_run, cost): Cost) -> Vec<Verdict> {
        let is_work_known = self.work.get(&attempt).is_some_and(Work::is_known);
        let series = self.series.entry((attempt, is_whole_run)).or_default();
        let Some(verdict) = series.take(label, cost, is_work_known) else { return Vec::new() };
        if verdict.phase != Phase::Raised {
            return vec![verdict];
        }
        let raised = Verdict { attempt, case: self.cases, ..verdict };
        self.cases += 1;
        match &mut series.open {
            Some(open) => {
                open.verdict = raised.clone();
                vec![raised]
            }
            // A note is not followed up.
            None => vec![raised.clone(), Verdict { phase: Phase::Cleared, ..raised }],
        }
    }
}

/// True when the step that ended at `label` overlaps an announced pause.
pub(crate) fn is_paused(scene: &Scene, attempt: Attempt, label: Label, time_s: f64) -> bool {
    let Some(Timestamp(end)) = label.time else { return false };
    let began = end.saturating_sub((time_s * 1e9) as i64);
    scene.pause_during(attempt, Timestamp(began), Timestamp(end)).is_some()
}

impl Series {
    fn take(&mut self, label: Label, cost: f64, is_work_known: bool) -> Option<Verdict> {
        self.rows += 1;
        if self.rows <= WARM_UP_ROWS {
            return None;
        }
        if self.recent.len() == RECENT_ROWS {
            let (_, old) = self.recent.pop_front().expect("the queue is full");
            // Rows of a slow phase are no reference.
            if self.open.is_none() {
                push(&mut self.reference, old, REFERENCE_ROWS);
            }
        }
        self.recent.push_back((label, cost));
        if self.recent.len() < RECENT_ROWS || self.reference.len() < REFERENCE_ROWS_MIN {
            return None;
        }
        let recent: Vec<f64> = self.recent.iter().map(|(_, cost)| *cost).collect();
        if self.open.is_some() {
            return self.follow(label, middle_mean(&recent));
        }
        let found = self.find_shift(&recent).or_else(|| self.find_creep(is_work_known))?;
        Some(self.raise(&found, label, is_work_known))
    }

    fn find_shift(&mut self, recent: &[f64]) -> Option<Found> {
        let before: Vec<f64> = self.reference.iter().copied().collect();
        let reference = middle_mean(&before);
        let shift = middle_mean(recent) - reference;
        let threshold = self.threshold(&before, reference);
        if shift <= threshold {
            self.high = None;
            if self.rows.is_multiple_of(RECENT_ROWS as u64) {
                push(&mut self.shifts, shift.abs(), SHIFTS_MAX);
            }
            return None;
        }
        let (rows, reference, _) = *self.high.get_or_insert((0, reference, threshold));
        self.high = Some((rows + 1, reference, threshold));
        let (old, new) = recent.split_at(RECENT_ROWS / 2);
        let is_even = middle_mean(old).min(middle_mean(new)) - reference > threshold;
        if rows + 1 < HIGH_ROWS || !is_even {
            return None;
        }
        let shift = middle_mean(recent) - reference;
        let newest = middle_mean(new) - reference;
        Some(Found { reference, shift, newest, threshold, onset: self.onset(reference, shift), is_creep: false })
    }

    fn threshold(&self, before: &[f64], reference: f64) -> f64 {
        let (values, multiple): (Vec<f64>, f64) = if self.shifts.len() < SHIFTS_MIN {
            let distances = before.iter().map(|cost| (cost - reference).abs() / QUARTILE_TO_SIGMA).collect();
            (distances, ROW_NOISE_MULTIPLE)
        } else {
            (self.shifts.iter().copied().collect(), NOISE_MULTIPLE)
        };
        let fraction = if self.shifts.len() < SHIFTS_MIN { 0.75 } else { 0.8 };
        SHIFT_MIN.max(multiple * trainwarden_kernels::quantile(&values, fraction).unwrap_or(0.0))
    }

    /// The level of the last rows against the first level, where more work cannot explain it.
    fn find_creep(&mut self, is_work_known: bool) -> Option<Found> {
        if self.reference.len() < REFERENCE_ROWS || self.high.is_some() {
            return None;
        }
        let before: Vec<f64> = self.reference.iter().copied().collect();
        let level = middle_mean(&before);
        let label = self.recent.front().map_or(Label::default(), |(label, _)| *label);
        let (first, since) = *self.first_level.get_or_insert((level, label));
        if level < first {
            // A run that became faster is held against its better level.
            self.first_level = Some((level, label));
        }
        let threshold = CREEP_MIN.max(CREEP_NOISE * self.threshold(&before, level));
        self.creep_rows = if is_work_known && level - first > threshold { self.creep_rows + 1 } else { 0 };
        if self.creep_rows < CREEP_ROWS {
            return None;
        }
        self.creep_rows = 0;
        // It began somewhere between the two levels.
        let onset = match (since.step, label.step) {
            (Some(Step(low)), Some(high)) => Some(Onset { step: Step(low + (high.0 - low) / 2), low: Step(low), high }),
            _ => None,
        };
        let shift = level - first;
        Some(Found { reference: first, shift, newest: shift, threshold, onset: (label, onset), is_creep: true })
    }

    /// The row from which on the rows stand above the middle of the shift, and the rows next to it.
    fn onset(&self, reference: f64, shift: f64) -> (Label, Option<Onset>) {
        let gain = |cost: f64| (cost - reference).clamp(0.0, shift) - 0.5 * shift;
        let (mut sum, mut best, mut at) = (0.0, f64::NEG_INFINITY, 0);
        for (place, (_, cost)) in self.recent.iter().enumerate().rev() {
            sum += gain(*cost);
            if sum >= best {
                (best, at) = (sum, place);
            }
        }
        let step = |place: usize| self.recent.get(place).and_then(|(label, _)| label.step);
        let first = self.recent[at].0;
        let after = |Step(step)| Step(step + 1);
        let onset = first.step.map(|first| Onset {
            step: first,
            low: step(at.saturating_sub(2)).map_or(first, after).min(first),
            high: step((at + 1).min(RECENT_ROWS - 1)).unwrap_or(first).max(first),
        });
        (first, onset)
    }

    fn raise(&mut self, found: &Found, label: Label, is_work_known: bool) -> Verdict {
        let mut verdict = found.verdict(label);
        let least = if self.has_schedule { SCHEDULE_STEP_MIN } else { SCHEDULE_MIN };
        self.high = None;
        if !is_work_known && found.newest >= least {
            self.has_schedule = true;
            verdict.severity = Severity::Info;
            verdict.summary += "; more work in each step would look the same: log `tokens` to tell";
            // The new level is the work's: it becomes the reference, without the rows of the way there.
            self.reference.clear();
            self.recent.clear();
        } else {
            let calm_rows = 0;
            let (reference, shift) = (found.reference, found.shift);
            self.open = Some(Open { reference, shift, calm_rows, verdict: verdict.clone() });
        }
        verdict
    }

    fn follow(&mut self, label: Label, level: f64) -> Option<Verdict> {
        let open = self.open.as_mut()?;
        let shift = level - open.reference;
        if shift < CLEARED_FRACTION * open.shift {
            open.calm_rows += 1;
            if open.calm_rows >= CLEARED_ROWS {
                let open = self.open.take()?;
                return Some(Verdict { phase: Phase::Cleared, ..open.verdict });
            }
            return None;
        }
        open.calm_rows = 0;
        open.verdict.last = label;
        if shift < GROWN * open.shift {
            return None;
        }
        open.shift = shift;
        open.verdict.severity = severity(shift).max(open.verdict.severity);
        open.verdict.summary = summary(shift, open.verdict.onset);
        open.verdict.evidence[0].observed = Some(level.exp());
        open.verdict.evidence[0].working = working(open.reference, shift);
        open.verdict.evidence[0].step = label.step;
        open.verdict.phase = Phase::Updated;
        Some(open.verdict.clone())
    }
}

/// Mean of the middle half.
fn middle_mean(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let quarter = sorted.len() / 4;
    let middle = &sorted[quarter..sorted.len() - quarter];
    middle.iter().sum::<f64>() / middle.len().max(1) as f64
}

fn severity(shift: f64) -> Severity {
    Severity::of_throughput_loss(1.0 - (-shift).exp())
}

/// How a level follows from what was measured: logarithms of seconds, or of seconds a unit of work.
fn working(reference: f64, shift: f64) -> Working {
    const RULES: [&str; 3] = [
        "a level is the mean of the middle half of the logarithms of the rows: the last 16, and up to 64 before them",
        "shift = level now - reference; observed = e^(reference + shift); expected = e^reference; \
         high = e^(reference + threshold)",
        "log10_e is that of shift / threshold x the noise multiple under Student's t with 4 degrees of freedom",
    ];
    Working::new(&RULES).with("reference", reference).with("shift", shift).with("loss", 1.0 - (-shift).exp())
}

fn summary(shift: f64, onset: Option<Onset>) -> String {
    let since = onset.map_or(String::new(), |onset| format!(" since {}", onset.step));
    format!("steps of the whole run take {:.0} % longer{since}", 100.0 * (shift.exp() - 1.0))
}

impl Found {
    fn verdict(&self, last: Label) -> Verdict {
        let metric = Metric::new("step_time_s");
        let (first, onset) = self.onset;
        let evidence = Evidence {
            step: last.step,
            observed: Some((self.reference + self.shift).exp()),
            expected: Some(self.reference.exp()),
            high: Some((self.reference + self.threshold).exp()),
            log10_e: Some(heavy_tail_log10_e(NOISE_MULTIPLE * self.shift / self.threshold)),
            working: working(self.reference, self.shift).with("threshold", self.threshold),
            ..Evidence::new(SPEC.name, &metric)
        };
        let crept = if self.is_creep { "; it crept up" } else { "" };
        Verdict {
            detector: SPEC.name.to_owned(),
            case: 0,
            phase: Phase::Raised,
            attempt: Attempt(0),
            kind: Kind::SlowRun,
            severity: severity(self.shift),
            suspects: Vec::new(),
            subject: metric.to_string(),
            onset,
            first,
            last,
            summary: summary(self.shift, onset) + crept,
            evidence: vec![evidence],
        }
    }
}

impl Judge for RunSlowdown {
    const SPEC: Spec = SPEC;
    const VERSION: u8 = VERSION;

    fn judge(
        &mut self,
        seen: &Observation,
        scene: &Scene,
        _backend: &mut dyn Backend,
    ) -> Result<Vec<Verdict>, DetectError> {
        let Observation::Panel(panel) = seen else { return Ok(Vec::new()) };
        Ok(match panel.metric.as_str() {
            "step_time_s" => self.judge_times(panel, scene),
            "samples_total" | "tokens_total" | "tokens" => self.judge_work(panel),
            _ => Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use trainwarden_telemetry::Event;

    use super::*;
    use crate::detectors::testing::{ROW_NS, assert_restores, bare_scene, judge_all, row_by_row, run_panel};

    fn times(rows: usize, factor: impl Fn(usize) -> f32) -> Vec<Observation> {
        let noise = |row: usize| 1.0 + 0.01 * ((row * 7919 % 13) as f32 - 6.0) / 6.0;
        let values: Vec<f32> = (0..rows).map(|row| 0.4 * noise(row) * factor(row)).collect();
        row_by_row(&run_panel("step_time_s", 0, &values))
    }

    fn judge(seen: &[Observation]) -> Vec<Verdict> {
        judge_all(&mut RunSlowdown::default(), &mut bare_scene(), seen)
    }

    #[test]
    fn a_run_that_slows_down_by_a_fifth_is_critical_and_cleared_when_it_is_back() {
        let slow = times(500, |row| if (200..300).contains(&row) { 1.2 } else { 1.0 });
        let verdicts = judge(&slow);
        let phases: Vec<Phase> = verdicts.iter().map(|verdict| verdict.phase).collect();
        assert_eq!(phases, [Phase::Raised, Phase::Cleared]);
        assert_eq!(verdicts[0].severity, Severity::Critical);
        let onset = verdicts[0].onset.expect("the rows have steps");
        assert!((199..=201).contains(&onset.step.0) && onset.low.0 <= 200 && onset.high.0 >= 200, "{onset:?}");
        assert!(verdicts[0].last.step.expect("the rows have steps").0 < 220);
        assert_restores(|| Box::new(RunSlowdown::default()), &slow);
    }

    #[test]
    fn warm_up_stalls_and_heavy_steps_in_a_rhythm_say_nothing() {
        assert_eq!(judge(&times(600, |row| if row < 8 { 9.0 } else { 1.0 })), []);
        assert_eq!(judge(&times(600, |row| if row % 97 == 50 { 6.0 } else { 1.0 })), []);
        assert_eq!(judge(&times(600, |row| if row % 10 == 0 { 5.0 } else { 1.0 })), []);
    }

    #[test]
    fn jumps_of_a_schedule_are_information() {
        let jumps = |row: usize| [1.0, 1.8, 2.2][row / 200];
        let severities: Vec<Severity> = judge(&times(600, jumps)).iter().map(|verdict| verdict.severity).collect();
        assert_eq!(severities, [Severity::Info; 4], "two notes, each over at once");
    }

    fn with_work(times: Vec<Observation>, work: impl Fn(usize) -> f32, is_first: bool) -> Vec<Observation> {
        let values: Vec<f32> = (0..times.len()).map(work).collect();
        let work = row_by_row(&run_panel("samples_total", 0, &values));
        let pair = |(time, work)| if is_first { [work, time] } else { [time, work] };
        times.into_iter().zip(work).flat_map(pair).collect()
    }

    #[test]
    fn work_that_grows_explains_the_time_whichever_comes_first_and_work_that_does_not_convicts_it() {
        let factor = |row: usize| if row < 300 { 1.0 } else { 1.8 };
        for is_first in [true, false] {
            let explained = with_work(times(600, factor), |row| 512.0 * factor(row), is_first);
            assert_eq!(judge(&explained), []);
            let convicted = with_work(times(600, factor), |_| 512.0, is_first);
            let verdicts = judge(&convicted);
            assert_eq!((verdicts.len(), verdicts[0].severity), (1, Severity::Critical));
            assert_restores(|| Box::new(RunSlowdown::default()), &convicted);
        }
    }

    #[test]
    fn slow_rows_in_an_announced_pause_are_not_judged() {
        let slow = |row: usize| if (200..260).contains(&row) { 1.3 } else { 1.0 };
        assert_eq!(judge(&times(500, slow)).len(), 2);
        let mark = |kind: &str, row: i64| {
            Observation::Event(Event {
                time: Timestamp(row * ROW_NS),
                source: "trainer".to_owned(),
                kind: kind.to_owned(),
                actor: None,
                run: None,
                attempt: Attempt(0),
                node: None,
                rank: None,
                subject: None,
                detail: Some("evaluation".to_owned()),
            })
        };
        let mut seen = times(500, slow);
        seen.insert(260, mark("pause_end", 260));
        seen.insert(200, mark("pause_begin", 200));
        assert_eq!(judge(&seen), []);
    }

    #[test]
    fn creep_is_found_where_the_work_is_known() {
        let creep = |row: usize| 1.0 + 0.0001 * row as f32;
        assert_eq!(judge(&times(2000, creep)), []);
        let verdicts = judge(&with_work(times(2000, creep), |_| 512.0, true));
        assert_eq!(verdicts[0].severity, Severity::Warning);
        assert!(verdicts[0].summary.contains("crept"), "{}", verdicts[0].summary);
    }

    #[test]
    fn a_case_that_grows_is_updated() {
        let grows = |row: usize| [1.0, 1.08, 1.25][row / 200];
        let verdicts = judge(&times(600, grows));
        let phases: Vec<Phase> = verdicts.iter().map(|verdict| verdict.phase).collect();
        assert!(phases.starts_with(&[Phase::Raised, Phase::Updated]), "{phases:?}");
        assert_eq!(verdicts.last().expect("just seen").severity, Severity::Critical);
    }
}
