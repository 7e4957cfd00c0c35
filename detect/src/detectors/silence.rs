//! Detects a rank that stopped speaking while its peers go on, and a run that stopped as a whole.
//!
//! # What it finds
//! Ranks whose cells stay away from row after row, in everything they used to send, and runs of which nothing comes any
//! more: `telemetry.silence`.
//!
//! # Why it matters
//! Who is silent cannot be judged. It is the first thing a dead process, a cut network or a hand on the agent shows.
//!
//! # How it decides
//! By law: a rank that delivered its rows goes on delivering them. It convicts when a rank with [`REGULAR_ROWS`] rows
//! of a metric, and at most one in [`ROWS_PER_MISS`] missed, is absent from [`ABSENT_ROWS`] closed rows in a row, at
//! least half of its peers are present in each, and no other metric heard of it since. Ranks that fall silent together
//! are one case; it ends when all spoke again, or with the attempt. It begins at the rank's last row plus the deadline.
//! Quiet: ranks whose process exited, announced pauses, after `run_end`, the end of the input. A warning; critical from
//! more than [`CRITICAL_SHARE`] of the ranks on. A whole run is silent when the clock of a live log goes on for 300 s
//! without a row of it; that is critical, and ends with its next row. A recorded log has no such clock.
//!
//! # Parameters
//! [`REGULAR_ROWS`], [`ROWS_PER_MISS`], [`ABSENT_ROWS`], [`CRITICAL_SHARE`].
//!
//! # Blind spots
//! Metrics without a rank; a rank that never spoke; most ranks falling silent at one moment (a hang shows that); a run
//! that stops as a whole in a recorded log: the end of an input is not silence.
//!
//! # Source
//! Missing data is not "resolved" (prometheus/prometheus#14085): a rank is silent while others of its run still speak.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use trainwarden_kernels::Backend;
use trainwarden_telemetry::{
    Attempt, Evidence, Kind, Label, Metric, Observation, Onset, Panel, Phase, Quiet, Rank, Severity, Step, Suspect,
    Timestamp, Verdict,
};

use crate::{Against, DetectError, Judge, Scene, Spec};

const SPEC: Spec = Spec {
    name: "silence",
    against: Against::Law,
    watches: &["samples: every metric of ranks"],
    kinds: &[Kind::Silence],
};
const VERSION: u8 = 3;
/// Rows after which a rank's habit is known.
const REGULAR_ROWS: u32 = 8;
/// A rank may lose one row in so many and still count as regular: networks drop some.
const ROWS_PER_MISS: u32 = 50;
/// Absent rows that convict: one row late or lost is common, three of a regular rank are not.
const ABSENT_ROWS: u32 = 3;
/// Share of silent ranks above which the evidence of the run cannot be trusted.
const CRITICAL_SHARE: f64 = 0.10;
/// Ranks named at most.
const SUSPECTS_MAX: usize = 16;
/// Metrics watched: one would do, more shorten the wait when they have more rows.
const METRICS_MAX: usize = 64;
/// Cases open side by side.
const CASES_MAX: usize = 64;
/// Steps between the last rows of ranks that fell silent together, where there are no times.
const TOGETHER_STEPS: u64 = 16;

/// See the module's page.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Silence {
    attempt: Attempt,
    has_ended: bool,
    /// Every rank that spoke, ascending; the vectors below run along it.
    ranks: Vec<Rank>,
    heard: Vec<Label>,
    metrics: BTreeMap<Metric, Habits>,
    open: Vec<OpenCase>,
    /// The whole run is silent.
    quiet: Option<Verdict>,
    cases: u64,
}

/// How ranks deliver one metric.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Habits {
    /// Of each rank that spoke.
    of: Vec<Habit>,
    /// Ranks whose last rows are absent: few, as a rule.
    absences: BTreeMap<Rank, Absence>,
}

/// How one rank delivers one metric.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Habit {
    rows: u32,
    missed: u32,
}

/// Rows of a rank that are absent, without one between them.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Absence {
    rows: u32,
    /// The first of them.
    since: Label,
}

impl Habit {
    fn is_regular(&self) -> bool {
        self.rows >= REGULAR_ROWS && self.missed.saturating_mul(ROWS_PER_MISS) <= self.rows
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct OpenCase {
    told: Verdict,
    silent: BTreeSet<Rank>,
    /// Last word of the first rank.
    last_word: Label,
}

impl Silence {
    fn begin(&mut self, attempt: Attempt) -> Vec<Verdict> {
        let open = std::mem::take(&mut self.open);
        let quiet = self.quiet.take();
        *self = Self { attempt, cases: self.cases, ..Self::default() };
        open.into_iter().map(|case| case.told).chain(quiet).map(cleared).collect()
    }

    /// Index in `ranks` of each column; unknown ranks are let in.
    fn indices(&mut self, panel: &Panel) -> Vec<usize> {
        if self.ranks[..] == panel.ranks[..] {
            return (0..self.ranks.len()).collect();
        }
        for rank in panel.ranks.iter() {
            if let Err(at) = self.ranks.binary_search(rank) {
                self.ranks.insert(at, *rank);
                self.heard.insert(at, Label::default());
                self.metrics.values_mut().for_each(|habits| habits.of.insert(at, Habit::default()));
            }
        }
        let index = |rank| self.ranks.binary_search(rank).expect("every rank of the panel was let in");
        panel.ranks.iter().map(index).collect()
    }

    fn judge_panel(&mut self, panel: &Panel, scene: &Scene) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        if panel.attempt > self.attempt {
            verdicts.extend(self.begin(panel.attempt));
        }
        if panel.attempt == self.attempt {
            verdicts.extend(self.quiet.take().map(cleared));
        }
        if panel.is_whole_run() || panel.attempt < self.attempt || self.has_ended {
            return verdicts;
        }
        let indices = self.indices(panel);
        if !self.metrics.contains_key(&panel.metric) {
            if self.metrics.len() == METRICS_MAX {
                return verdicts;
            }
            let of = vec![Habit::default(); self.ranks.len()];
            self.metrics.insert(panel.metric.clone(), Habits { of, absences: BTreeMap::new() });
        }
        for row in 0..panel.rows() {
            let convicted = self.read_row(panel, row, &indices, scene);
            verdicts.extend(self.clear(panel.labels[row]));
            verdicts.extend(self.raise(panel, row, &convicted, scene));
        }
        verdicts
    }

    /// Takes in one row; returns the indices of ranks whose absence became silence in it.
    fn read_row(&mut self, panel: &Panel, row: usize, indices: &[usize], scene: &Scene) -> Vec<usize> {
        let label = panel.labels[row];
        let present = panel.present.row(row).iter().filter(|present| **present).count();
        let in_pause = label.time.is_some_and(|time| scene.pause_during(panel.attempt, time, time).is_some());
        let is_witnessed = present * 2 >= panel.ranks.len().saturating_sub(1) && present > 0 && !in_pause;
        let habits = self.metrics.get_mut(&panel.metric).expect("the metric was let in");
        let mut convicted = Vec::new();
        for (column, (&index, &is_present)) in indices.iter().zip(panel.present.row(row)).enumerate() {
            let (habit, rank) = (&mut habits.of[index], panel.ranks[column]);
            if is_present {
                habit.rows = habit.rows.saturating_add(1);
                let was_absent = !habits.absences.is_empty() && habits.absences.remove(&rank).is_some();
                habit.missed = habit.missed.saturating_add(was_absent.into());
                let time = panel.clock(row, column).or(label.time);
                self.heard[index] = later(self.heard[index], Label { step: label.step, time });
            } else if is_witnessed {
                let absence = habits.absences.entry(rank).or_insert(Absence { rows: 0, since: label });
                absence.rows = absence.rows.saturating_add(1);
                let has_left = scene.exit_of(panel.attempt, rank).is_some();
                let is_gone = absence.rows >= ABSENT_ROWS && habit.is_regular() && !has_left;
                if is_gone && is_before(self.heard[index], absence.since) {
                    convicted.push(index);
                }
            }
        }
        convicted
    }

    /// Ends the cases whose ranks have all spoken again.
    fn clear(&mut self, label: Label) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        for case in &mut self.open {
            case.silent.retain(|rank| {
                let index = self.ranks.binary_search(rank).expect("a silent rank spoke before");
                case.told.onset.map(|onset| onset.step) > self.heard[index].step
                    || (case.told.onset.is_none() && case.told.first.time >= self.heard[index].time)
            });
            if case.silent.is_empty() {
                verdicts.push(Verdict { phase: Phase::Cleared, last: label, ..case.told.clone() });
            }
        }
        self.open.retain(|case| !case.silent.is_empty());
        verdicts
    }

    fn raise(&mut self, panel: &Panel, row: usize, convicted: &[usize], scene: &Scene) -> Vec<Verdict> {
        let label = panel.labels[row];
        let mut touched: BTreeSet<usize> = BTreeSet::new();
        for &index in convicted {
            let rank = self.ranks[index];
            if self.open.iter().any(|case| case.silent.contains(&rank)) {
                continue;
            }
            let last_word = self.heard[index];
            let joins = |case: &OpenCase| are_together(case.last_word, last_word, panel.deadline_ns);
            let at = match self.open.iter().position(joins) {
                Some(at) => at,
                None if self.open.len() == CASES_MAX => continue,
                None => {
                    let since = self.metrics[&panel.metric].absences[&rank].since;
                    let told = raised(panel, since, last_word, self.cases);
                    self.cases += 1;
                    self.open.push(OpenCase { told, silent: BTreeSet::new(), last_word });
                    self.open.len() - 1
                }
            };
            self.open[at].silent.insert(rank);
            touched.insert(at);
        }
        touched.into_iter().map(|at| self.tell(at, panel, label, scene)).collect()
    }

    /// Nothing has come of the run for a long time.
    fn judge_quiet(&mut self, quiet: &Quiet, scene: &Scene) -> Vec<Verdict> {
        let since = quiet.last.time.unwrap_or(quiet.overdue);
        let is_announced = scene.pause_during(quiet.attempt, since, quiet.overdue).is_some();
        if self.has_ended || self.quiet.is_some() || quiet.attempt < self.attempt || is_announced {
            return Vec::new();
        }
        let seconds = quiet.overdue.0.saturating_sub(since.0) as f64 / 1e9;
        let after = quiet.last.step.map_or(String::new(), |step| format!(" after {step}"));
        let evidence = Evidence {
            step: quiet.last.step,
            observed: Some(seconds),
            expected: Some(0.0),
            note: Some("seconds without a row of the run, while the log goes on".to_owned()),
            ..Evidence::new(SPEC.name, &Metric::new("heartbeat"))
        };
        let first = Label { step: quiet.last.step, time: Some(quiet.overdue) };
        let told = Verdict {
            detector: SPEC.name.to_owned(),
            case: self.cases,
            phase: Phase::Raised,
            attempt: quiet.attempt,
            kind: Kind::Silence,
            severity: Severity::Critical,
            suspects: Vec::new(),
            subject: "run".to_owned(),
            onset: quiet.last.step.map(|step| Onset { step, low: step, high: step }),
            first,
            last: first,
            summary: format!("nothing has come of the run for {seconds:.0} s{after}, and it has not ended"),
            evidence: vec![evidence],
        };
        self.cases += 1;
        self.quiet = Some(told.clone());
        vec![told]
    }

    fn tell(&mut self, at: usize, panel: &Panel, label: Label, scene: &Scene) -> Verdict {
        let case = &mut self.open[at];
        let count = case.silent.len();
        let share = 1.0 / count as f64;
        let named = || case.silent.iter().take(SUSPECTS_MAX).copied();
        let first = named().next().expect("a case that is told has a silent rank");
        let who = match count {
            1 => scene.describe(panel.attempt, first),
            count => format!("{count} of {} ranks, first {}", self.ranks.len(), scene.describe(panel.attempt, first)),
        };
        let since = case.last_word.step.map_or(String::new(), |step| format!(" after {step}"));
        let evidence = named().map(|rank| Evidence {
            step: label.step,
            rank: Some(rank),
            observed: Some(f64::from(ABSENT_ROWS)),
            expected: Some(0.0),
            note: Some("absent rows in a row, no other metric heard of it".to_owned()),
            ..Evidence::new(SPEC.name, &panel.metric)
        });
        let is_critical = count as f64 > CRITICAL_SHARE * self.ranks.len() as f64;
        let is_first = case.told.evidence.is_empty();
        let told = Verdict {
            phase: if is_first { Phase::Raised } else { Phase::Updated },
            severity: if is_critical { Severity::Critical } else { Severity::Warning },
            suspects: named().map(|rank| Suspect { rank, share }).collect(),
            last: label,
            summary: format!("{who} fell silent{since} while the others go on"),
            evidence: evidence.collect(),
            ..case.told.clone()
        };
        case.told = told.clone();
        told
    }
}

fn cleared(told: Verdict) -> Verdict {
    Verdict { phase: Phase::Cleared, ..told }
}

fn raised(panel: &Panel, since: Label, last_word: Label, case: u64) -> Verdict {
    let overdue = |time: Timestamp| Timestamp(time.0.saturating_add(panel.deadline_ns.unwrap_or(0)));
    let first = Label { step: since.step, time: last_word.time.map(overdue) };
    Verdict {
        detector: SPEC.name.to_owned(),
        case,
        phase: Phase::Raised,
        attempt: panel.attempt,
        kind: Kind::Silence,
        severity: Severity::Warning,
        suspects: Vec::new(),
        subject: panel.metric.to_string(),
        onset: since.step.map(|step| {
            let low = last_word.step.map_or(step, |last| Step(last.0.saturating_add(1)).min(step));
            Onset { step, low, high: step }
        }),
        first,
        last: since,
        summary: String::new(),
        evidence: Vec::new(),
    }
}

/// Each part of a label grows by itself, because a metric may lack one.
fn later(one: Label, other: Label) -> Label {
    Label { step: one.step.max(other.step), time: one.time.max(other.time) }
}

/// By step where both have one, else by time.
fn is_before(one: Label, other: Label) -> bool {
    match (one.step, other.step) {
        (Some(one), Some(other)) => one < other,
        _ => one.time < other.time,
    }
}

fn are_together(one: Label, other: Label, deadline_ns: Option<i64>) -> bool {
    match (one.time, other.time, deadline_ns) {
        (Some(one), Some(other), Some(deadline_ns)) => one.0.abs_diff(other.0) <= deadline_ns.unsigned_abs(),
        _ => match (one.step, other.step) {
            (Some(one), Some(other)) => one.0.abs_diff(other.0) <= TOGETHER_STEPS,
            _ => one == other,
        },
    }
}

impl Judge for Silence {
    const SPEC: Spec = SPEC;
    const VERSION: u8 = VERSION;

    fn judge(
        &mut self,
        seen: &Observation,
        scene: &Scene,
        _backend: &mut dyn Backend,
    ) -> Result<Vec<Verdict>, DetectError> {
        Ok(match seen {
            Observation::Panel(panel) => self.judge_panel(panel, scene),
            Observation::Attempt(start) if start.attempt > self.attempt => self.begin(start.attempt),
            Observation::Quiet(quiet) => self.judge_quiet(quiet, scene),
            Observation::Event(event) if event.kind == "run_end" && event.attempt >= self.attempt => {
                self.has_ended = true;
                Vec::new()
            }
            _ => Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use trainwarden_telemetry::Event;

    use super::*;
    use crate::detectors::testing::{ROW_NS, assert_restores, bare_scene, event, judge_all, rank_panel, row_by_row};

    /// Rows of `count` ranks of which `speaks` tells who delivers at which step.
    fn rows(metric: &str, count: u32, steps: u64, speaks: impl Fn(u32, u64) -> bool) -> Vec<Observation> {
        let cell = |rank, step| speaks(rank, step).then_some(1.0);
        let rows: Vec<_> = (0..steps).map(|step| (0..count).map(|rank| cell(rank, step)).collect()).collect();
        row_by_row(&rank_panel(metric, 0, &rows))
    }

    fn judge(seen: &[Observation]) -> Vec<Verdict> {
        judge_all(&mut Silence::default(), &mut bare_scene(), seen)
    }

    #[test]
    fn a_rank_that_stops_while_its_peers_go_on_is_named_once_from_its_last_row_plus_the_deadline() {
        let seen = rows("step_time_s", 16, 30, |rank, step| rank != 5 || step < 10);
        let verdicts = judge(&seen);
        assert_eq!(verdicts.len(), 1);
        assert_eq!(verdicts[0].ranks().collect::<Vec<_>>(), [Rank(5)]);
        assert_eq!(verdicts[0].severity, Severity::Warning);
        assert_eq!(verdicts[0].first.time, Some(Timestamp(9 * ROW_NS + 10 * ROW_NS)));
        assert_eq!((verdicts[0].first.step, verdicts[0].last.step), (Some(Step(10)), Some(Step(12))));
        assert_restores(|| Box::new(Silence::default()), &seen);
    }

    #[test]
    fn a_node_that_falls_silent_is_one_critical_case_and_ends_when_it_speaks_again() {
        let seen = rows("step_time_s", 16, 40, |rank, step| rank < 12 || !(10..20).contains(&step));
        let verdicts = judge(&seen);
        assert_eq!(verdicts.iter().map(|verdict| verdict.phase).collect::<Vec<_>>(), [Phase::Raised, Phase::Cleared]);
        assert_eq!((verdicts[0].suspects.len(), verdicts[0].severity), (4, Severity::Critical));
        assert_eq!(verdicts[1].last.step, Some(Step(20)));
        assert_restores(|| Box::new(Silence::default()), &seen);
    }

    #[test]
    fn lost_rows_sparse_senders_and_a_run_where_most_stop_are_quiet() {
        assert_eq!(judge(&rows("loss_local", 8, 60, |rank, step| rank != 2 || step % 10 != 9)), []);
        assert_eq!(judge(&rows("loss_local", 8, 60, |rank, step| rank == 0 || step % 10 == 0)), []);
        assert_eq!(judge(&rows("loss_local", 8, 60, |rank, step| rank < 3 || step < 20)), []);
        assert_eq!(judge(&rows("loss_local", 1, 60, |_, step| step < 20)), []);
        assert_eq!(judge(&rows("loss_local", 0, 3, |_, _| true)), []);
    }

    #[test]
    fn a_rank_that_still_sends_another_metric_is_not_silent() {
        let stopped = rows("gpu_temp_c", 8, 30, |rank, step| rank != 2 || step < 10);
        let speaking = rows("step_time_s", 8, 30, |_, _| true);
        let seen: Vec<Observation> = speaking.into_iter().zip(stopped).flat_map(|(one, two)| [one, two]).collect();
        assert_eq!(judge(&seen), []);
    }

    #[test]
    fn an_exit_run_end_and_a_pause_explain_the_silence() {
        let gone = rows("step_time_s", 16, 30, |rank, step| rank != 5 || step < 10);
        for kind in ["process_exit", "run_end", "pause_begin"] {
            let Observation::Event(mark) = event(kind, 9) else { unreachable!("`event` builds an event") };
            let mut seen = gone.clone();
            seen.insert(10, Observation::Event(Event { rank: Some(Rank(5)), ..mark }));
            assert_eq!(judge(&seen), [], "{kind}");
        }
    }

    fn quiet_at(step: u64) -> Observation {
        let time = |after: i64| Some(Timestamp(step as i64 * ROW_NS + after));
        let last = Label { step: Some(Step(step)), time: time(0) };
        let overdue = time(300_000_000_000).expect("it was just made");
        Observation::Quiet(Quiet { attempt: Attempt(0), last, overdue })
    }

    #[test]
    fn a_run_that_stops_is_told_and_clears_with_its_next_row() {
        let mut seen = rows("step_time_s", 4, 20, |_, _| true);
        let next = seen.pop().expect("twenty rows");
        seen.extend([quiet_at(18), quiet_at(18), next]);
        let verdicts = judge(&seen);
        let phases: Vec<Phase> = verdicts.iter().map(|verdict| verdict.phase).collect();
        assert_eq!(phases, [Phase::Raised, Phase::Cleared]);
        assert_eq!((verdicts[0].severity, verdicts[0].suspects.len()), (Severity::Critical, 0));
        assert!(verdicts[0].summary.contains("300 s"), "{}", verdicts[0].summary);
    }

    #[test]
    fn a_run_that_has_ended_or_pauses_is_not_silent() {
        for kind in ["run_end", "pause_begin"] {
            let mut seen = rows("step_time_s", 4, 20, |_, _| true);
            seen.extend([event(kind, 19), quiet_at(19)]);
            let verdicts = judge(&seen);
            assert_eq!(verdicts, [], "after {kind}");
        }
    }
}
