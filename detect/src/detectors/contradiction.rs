//! Detects telemetry that contradicts itself.
//!
//! # What it finds
//! `telemetry.inconsistent`, a warning: two unequal rows for one key; a clock that goes backwards; more time worked
//! than has passed; values that cannot be negative; ranks that disagree on a quantity that is equal by construction.
//!
//! # Why it matters
//! Whoever forges telemetry must forge all of it alike. What contradicts itself is a broken collector or a lie, and
//! judgements that rest on it are worth as much.
//!
//! # How it decides
//! By law, each on its own:
//!
//! - *Conflict*: alignment met unequal rows for one run, attempt, rank, step and metric (or digest).
//! - *Clock*: a rank's time falls by more than [`CLOCK_SLACK_NS`] while its steps go on.
//! - *Work*: over [`WORK_ROWS`] consecutive steps a rank reports a sum of `step_time_s` of more than [`WORK_RATIO`] of
//!   the time on its own clock, plus the longest of these steps and one second, in [`WORK_WINDOWS`] windows on end. The
//!   opposite, a clock that runs on during pauses, is normal. A window in which the clock stands is not judged: rows
//!   stamped when a buffer was written.
//! - *Negative*: times, bytes, rates, norms and `tokens` below zero; counters (`_total`) that fall inside an attempt.
//! - *Agreement*: `grad_norm`, `loss`, `learning_rate` and `param_norm` told by each rank are equal after the
//!   all-reduce. Where more than half of at least [`AGREE_RANKS_MIN`] ranks of one role lie within [`AGREE_TOLERANCE`]
//!   of their median, others do not tell the truth.
//!
//! When more than half of the ranks in a row break a law, the run is meant and nobody is named. One rank and law is one
//! case; beyond [`RANK_CASES_MAX`] of one law side by side, further ranks share one. A case ends after [`CLEAR_ROWS`]
//! good rows of each metric it touched.
//!
//! # Parameters
//! The constants named above; all are slack for honest rounding and clocks, not thresholds of a statistic.
//!
//! # Blind spots
//! Lies that agree with each other; a rank whose clock is wrong by a constant; `loss_local` and `grad_norm_local`,
//! which differ by design; conflicts of digests have no good rows and stay open.
//!
//! # Source
//! Laws of telemetry: time goes forward, nobody works longer than has passed, all see one value after an all-reduce.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use trainwarden_kernels::{Backend, median_in_place};
use trainwarden_telemetry::{
    Attempt, Conflict, Evidence, Kind, Label, Metric, Observation, Panel, Rank, Severity, Step, Verdict,
};

use super::breach::{Breaches, Break, SUSPECTS_MAX};
use crate::{Against, DetectError, Judge, Scene, Spec};

const SPEC: Spec = Spec {
    name: "contradiction",
    against: Against::Law,
    watches: &["samples: every metric", "conflicting rows of every table"],
    kinds: &[Kind::Inconsistent],
};
const VERSION: u8 = 1;
/// Good rows of a metric that end a case.
const CLEAR_ROWS: u32 = 20;
/// A clock may be set back this far by its time service.
const CLOCK_SLACK_NS: i64 = 1_000_000_000;
/// Consecutive steps of one window of work.
const WORK_ROWS: u32 = 32;
/// Reported over elapsed time: a tenth for rounding and for clocks that are read before the step is over.
const WORK_RATIO: f64 = 1.1;
/// One second for times that are whole seconds.
const WORK_SLACK_S: f64 = 1.0;
/// Windows on end: a collector that writes its buffer late stamps one window too tightly, not four.
const WORK_WINDOWS: u32 = 4;
/// Two ranks that differ have no majority.
const AGREE_RANKS_MIN: usize = 3;
/// Relative; single precision rounds at 6e-8, and values printed with six digits at 5e-7.
const AGREE_TOLERANCE: f64 = 1e-5;
/// Cases of single ranks open under one law; more at a time are a fault of the run.
const RANK_CASES_MAX: usize = 16;
/// Clocks remembered over all metrics and ranks, of the oldest attempt forgotten first: about 70 MB.
const CLOCKS_MAX: usize = 1 << 20;
/// Equal on all ranks after the all-reduce.
const REDUCED: [&str; 4] = ["grad_norm", "loss", "learning_rate", "param_norm"];
/// What cannot be below zero, by the end of its name.
const NOT_NEGATIVE: [&str; 8] =
    ["_time_s", "_bytes", "_total", "_hz", "_power_w", "grad_norm", "param_norm", "update_norm"];

/// See the module's page.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Contradiction {
    clocks: BTreeMap<(Attempt, Metric), Clocks>,
    clocks_held: usize,
    breaches: Breaches<(Attempt, Law, Option<Rank>)>,
}

/// Clocks of one metric, ascending by rank.
type Clocks = Vec<(Option<Rank>, Clock)>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Law {
    Conflict,
    Clock,
    Work,
    Negative,
    Agreement,
}

/// A rank's last row of one metric, and its open window of work.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Clock {
    step: Step,
    time_ns: i64,
    rows: u32,
    reported_s: f64,
    longest_s: f64,
    elapsed_s: f64,
    is_standing: bool,
    windows: u32,
}

/// One cell that breaks a law.
struct Offence {
    rank: Option<Rank>,
    observed: f64,
    expected: f64,
    note: Option<String>,
}

impl Clock {
    fn at(step: Step, time_ns: i64) -> Self {
        let (rows, windows, is_standing) = (0, 0, false);
        Self { step, time_ns, rows, reported_s: 0.0, longest_s: 0.0, elapsed_s: 0.0, is_standing, windows }
    }

    /// Adds one step of work; gives reported and elapsed seconds when windows on end hold more work than time.
    fn work(&mut self, elapsed_ns: i64, reported_s: f64) -> Option<(f64, f64)> {
        self.rows += 1;
        self.reported_s += reported_s;
        self.longest_s = self.longest_s.max(reported_s);
        self.elapsed_s += elapsed_ns as f64 / 1e9;
        self.is_standing |= elapsed_ns <= 0;
        if self.rows < WORK_ROWS {
            return None;
        }
        let (reported_s, elapsed_s) = (self.reported_s, self.elapsed_s);
        let is_impossible = reported_s > elapsed_s * WORK_RATIO + WORK_SLACK_S + self.longest_s;
        self.windows = if is_impossible && !self.is_standing { self.windows + 1 } else { 0 };
        let windows = self.windows;
        *self = Self { windows, ..Self::at(self.step, self.time_ns) };
        (windows >= WORK_WINDOWS).then_some((reported_s, elapsed_s))
    }
}

impl Contradiction {
    fn judge_row(&mut self, panel: &Panel, row: usize, scene: &Scene) -> Vec<Verdict> {
        let (clock, work) = self.clock_offences(panel, row);
        let laws = [
            (Law::Clock, clock),
            (Law::Work, work),
            (Law::Negative, negative(panel, row)),
            (Law::Agreement, disagreeing(panel, row, scene)),
        ];
        let mut verdicts = self.good(panel, row, &laws);
        for (law, offences) in laws {
            verdicts.extend(self.broken(panel, row, (law, &offences), scene));
        }
        verdicts
    }

    /// Compares each clock with the same rank's row before.
    fn clock_offences(&mut self, panel: &Panel, row: usize) -> (Vec<Offence>, Vec<Offence>) {
        let Some(step) = panel.labels[row].step else { return (Vec::new(), Vec::new()) };
        while self.clocks_held > CLOCKS_MAX && self.clocks.len() > 1 {
            let Some((_, forgotten)) = self.clocks.pop_first() else { break };
            self.clocks_held -= forgotten.len();
        }
        let is_work = panel.metric.as_str() == "step_time_s";
        let clocks = self.clocks.entry((panel.attempt, panel.metric.clone())).or_default();
        // Columns and clocks both ascend by rank: one walk over both, because a map costs a search a cell.
        let mut at = 0;
        let (mut backwards, mut work) = (Vec::new(), Vec::new());
        for column in 0..panel.values.ncols() {
            let (Some(value), Some(time)) = (panel.value(row, column), panel.clock(row, column)) else { continue };
            let rank = panel.rank(column);
            while clocks.get(at).is_some_and(|(known, _)| *known < rank) {
                at += 1;
            }
            if clocks.get(at).is_none_or(|(known, _)| *known != rank) {
                clocks.insert(at, (rank, Clock::at(step, time.0)));
                self.clocks_held += 1;
                continue;
            }
            let clock = &mut clocks[at].1;
            let elapsed_ns = time.0.saturating_sub(clock.time_ns);
            if step > clock.step && elapsed_ns < -CLOCK_SLACK_NS {
                let note = Some(format!("the clock went back {:.3} s after {}", -elapsed_ns as f64 / 1e9, clock.step));
                backwards.push(Offence { rank, observed: elapsed_ns as f64 / 1e9, expected: 0.0, note });
            }
            if !is_work || step.0 != clock.step.0.saturating_add(1) || !value.is_finite() {
                *clock = Clock::at(step, time.0);
                continue;
            }
            (clock.step, clock.time_ns) = (step, time.0);
            if let Some((observed, expected)) = clock.work(elapsed_ns, f64::from(value)) {
                let note = Some(format!("{observed:.3} s of work in {expected:.3} s over {WORK_ROWS} steps"));
                work.push(Offence { rank, observed, expected, note });
            }
        }
        (backwards, work)
    }

    /// Counts a good row for every open case of this metric whose rank kept its law.
    fn good(&mut self, panel: &Panel, row: usize, laws: &[(Law, Vec<Offence>); 4]) -> Vec<Verdict> {
        if self.breaches.is_empty() {
            return Vec::new();
        }
        let keys: Vec<_> = self.breaches.keys().filter(|key| key.0 == panel.attempt).copied().collect();
        let mut verdicts = Vec::new();
        for key in keys {
            let (_, law, rank) = key;
            let offences = laws.iter().find(|(other, _)| *other == law).map_or(&[][..], |(_, offences)| offences);
            let is_broken = match rank {
                Some(_) => offences.iter().any(|offence| offence.rank == rank),
                None => !offences.is_empty(),
            };
            let is_told = match rank {
                Some(rank) => panel.ranks.binary_search(&rank).is_ok_and(|column| panel.present[[row, column]]),
                None => true,
            };
            if is_told && !is_broken {
                verdicts.extend(self.breaches.holds(&key, panel.metric.as_str(), patience(law)));
            }
        }
        verdicts
    }

    fn broken(&mut self, panel: &Panel, row: usize, (law, offences): (Law, &[Offence]), scene: &Scene) -> Vec<Verdict> {
        if offences.is_empty() {
            return Vec::new();
        }
        let present = panel.present.row(row).iter().filter(|present| **present).count();
        let is_whole = offences.len() * 2 > present && offences.len() > 1;
        let about = (panel.attempt, panel.metric.as_str(), panel.labels[row]);
        if is_whole {
            let all: Vec<&Offence> = offences.iter().collect();
            return self.say(about, (law, None, &all), scene).into_iter().collect();
        }
        offences.iter().filter_map(|offence| self.say(about, (law, offence.rank, &[offence]), scene)).collect()
    }

    fn conflict(&mut self, conflict: &Conflict, scene: &Scene) -> Option<Verdict> {
        let (observed, expected) = conflict.values.map_or((f64::NAN, f64::NAN), |(judged, aside)| (aside, judged));
        let note = match conflict.values {
            Some((judged, aside)) => format!("told both {judged} and {aside}"),
            None => "told two different words".to_owned(),
        };
        let offence = Offence { rank: conflict.rank, observed, expected, note: Some(note) };
        let about = (conflict.attempt, &*conflict.subject, conflict.label);
        self.say(about, (Law::Conflict, conflict.rank, &[&offence]), scene)
    }

    fn say(
        &mut self,
        (attempt, name, label): (Attempt, &str, Label),
        (law, rank, offences): (Law, Option<Rank>, &[&Offence]),
        scene: &Scene,
    ) -> Option<Verdict> {
        let of_law = |key: &&(Attempt, Law, Option<Rank>)| key.0 == attempt && key.1 == law;
        let open: Vec<_> = self.breaches.keys().filter(of_law).collect();
        let is_flood = open.len() >= RANK_CASES_MAX && !open.contains(&&(attempt, law, rank));
        let rank = rank.filter(|_| !is_flood);
        let found = Break {
            detector: SPEC.name,
            attempt,
            kind: Kind::Inconsistent,
            severity: Severity::Warning,
            name: name.to_owned(),
            label,
            ranks: rank.into_iter().collect(),
            good_until: label.step.and_then(|step| step.0.checked_sub(1)).map(Step),
            evidence: offences.iter().take(SUSPECTS_MAX).map(|offence| evidence(name, label, offence)).collect(),
        };
        self.breaches.broke((attempt, law, rank), found, |breach| {
            let who = if breach.ranks().is_empty() { "the run".to_owned() } else { breach.who(scene) };
            format!("{who} {} {}{}", words(law), breach.names("series"), breach.when())
        })
    }
}

fn patience(law: Law) -> u32 {
    // Work is judged once a window: a case must outlast the rows between two judgements.
    if law == Law::Work { CLEAR_ROWS + WORK_ROWS } else { CLEAR_ROWS }
}

fn words(law: Law) -> &'static str {
    match law {
        Law::Conflict => "told unequal values for one row of",
        Law::Clock => "has a clock that goes backwards in",
        Law::Work => "reports more work than time has passed in",
        Law::Negative => "reports what cannot be negative, negative:",
        Law::Agreement => "disagrees with the other ranks on",
    }
}

fn evidence(name: &str, label: Label, offence: &Offence) -> Evidence {
    Evidence {
        step: label.step,
        rank: offence.rank,
        observed: Some(offence.observed).filter(|value| value.is_finite()),
        expected: Some(offence.expected).filter(|value| value.is_finite()),
        note: offence.note.clone(),
        ..Evidence::new(SPEC.name, &Metric::new(name))
    }
}

fn negative(panel: &Panel, row: usize) -> Vec<Offence> {
    let name = panel.metric.as_str();
    let name = name.strip_suffix("_local").unwrap_or(name);
    if name != "tokens" && !NOT_NEGATIVE.iter().any(|end| name.ends_with(end)) {
        return Vec::new();
    }
    let below = |column| panel.value(row, column).filter(|value| *value < 0.0).map(|value| (column, value));
    let offence = |(column, value): (usize, f32)| Offence {
        rank: panel.rank(column),
        observed: f64::from(value),
        expected: 0.0,
        note: panel.metric.is_counter().then(|| "the counter fell".to_owned()),
    };
    (0..panel.values.ncols()).filter_map(below).map(offence).collect()
}

/// Ranks that tell something else than the majority of their role.
fn disagreeing(panel: &Panel, row: usize, scene: &Scene) -> Vec<Offence> {
    if panel.ranks.len() < AGREE_RANKS_MIN || !REDUCED.contains(&panel.metric.as_str()) {
        return Vec::new();
    }
    let mut offences = Vec::new();
    for group in scene.peer_groups(panel.attempt, &panel.ranks) {
        let finite = |column: &usize| panel.value(row, *column).map(f64::from).filter(|value| value.is_finite());
        let told: Vec<(usize, f64)> = group.iter().filter_map(|column| Some((*column, finite(column)?))).collect();
        let mut values: Vec<f64> = told.iter().map(|(_, value)| *value).collect();
        let Some(median) = median_in_place(&mut values) else { continue };
        // Stages that have no loss log a zero: it is no word on the others.
        if told.len() < AGREE_RANKS_MIN || median == 0.0 {
            continue;
        }
        let differs = |value: f64| (value - median).abs() > AGREE_TOLERANCE * median.abs();
        let others: Vec<&(usize, f64)> = told.iter().filter(|(_, value)| differs(*value)).collect();
        if others.len() * 2 >= told.len() {
            continue;
        }
        offences.extend(others.into_iter().map(|(column, value)| Offence {
            rank: panel.rank(*column),
            observed: *value,
            expected: median,
            note: None,
        }));
    }
    offences
}

impl Judge for Contradiction {
    const SPEC: Spec = SPEC;
    const VERSION: u8 = VERSION;

    fn judge(
        &mut self,
        seen: &Observation,
        scene: &Scene,
        _backend: &mut dyn Backend,
    ) -> Result<Vec<Verdict>, DetectError> {
        Ok(match seen {
            Observation::Panel(panel) => (0..panel.rows()).flat_map(|row| self.judge_row(panel, row, scene)).collect(),
            Observation::Conflict(conflict) => self.conflict(conflict, scene).into_iter().collect(),
            _ => Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use trainwarden_telemetry::Phase;

    use super::*;
    use crate::detectors::breach::testing::{named, phases};
    use crate::detectors::testing::{
        ROW_NS, assert_restores, bare_scene, judge_all, label, rank_panel, row_by_row, run_panel,
    };

    fn judge(seen: &[Observation]) -> Vec<Verdict> {
        judge_all(&mut Contradiction::default(), &mut bare_scene(), seen)
    }

    /// Rows of equal cells, from step 0 on.
    fn even(metric: &str, rows: usize, cells: &[f32]) -> Panel {
        rank_panel(metric, 0, &vec![cells.iter().map(|cell| Some(*cell)).collect(); rows])
    }

    fn conflict(rank: u32, step: u64) -> Observation {
        Observation::Conflict(Conflict {
            attempt: Attempt(0),
            subject: "loss_local".to_owned(),
            label: label(step),
            rank: Some(Rank(rank)),
            values: Some((2.0, 3.0)),
        })
    }

    #[test]
    fn unequal_rows_of_one_rank_are_one_case_told_at_powers_of_two() {
        let mut seen: Vec<Observation> = (0..9).map(|step| conflict(3, step)).collect();
        seen.extend(row_by_row(&rank_panel("loss_local", 9, &vec![vec![Some(1.0); 4]; 30])));
        let verdicts = judge(&seen);
        let expected = [Phase::Raised, Phase::Updated, Phase::Updated, Phase::Updated, Phase::Cleared];
        assert_eq!(phases(&verdicts), expected);
        assert!(verdicts.iter().all(|verdict| named(verdict) == [3] && verdict.severity == Severity::Warning));
        assert_eq!(verdicts[0].summary, "rank 3 told unequal values for one row of `loss_local` at step 0");
        assert_eq!(verdicts[0].evidence[0].note.as_deref(), Some("told both 2 and 3"));
        assert_restores(|| Box::new(Contradiction::default()), &seen);
    }

    #[test]
    fn conflicts_on_all_of_many_ranks_do_not_flood() {
        let seen: Vec<Observation> = (0..500).map(|rank| conflict(rank, 0)).collect();
        let verdicts = judge(&seen);
        assert_eq!(verdicts.len(), RANK_CASES_MAX + 1);
        assert_eq!(named(&verdicts[RANK_CASES_MAX]), [] as [u32; 0]);
    }

    #[test]
    fn the_rank_whose_clock_goes_back_is_named_and_a_small_correction_is_not() {
        let mut panel = even("loss_local", 40, &[1.0, 1.0, 1.0]);
        panel.clocks[[5, 1]] = 0;
        let verdicts = judge(&row_by_row(&panel));
        assert_eq!(phases(&verdicts), [Phase::Raised, Phase::Cleared]);
        assert_eq!(named(&verdicts[0]), [1]);
        assert_eq!(verdicts[0].summary, "rank 1 has a clock that goes backwards in `loss_local` at step 5");
        let mut panel = even("loss_local", 40, &[1.0, 1.0, 1.0]);
        panel.clocks[[5, 1]] = 4 * ROW_NS - ROW_NS / 2;
        assert_eq!(judge(&row_by_row(&panel)), []);
    }

    #[test]
    fn a_rank_cannot_work_longer_than_time_has_passed() {
        let rows = row_by_row(&even("step_time_s", 160, &[0.9, 1.5, 0.9]));
        let verdicts = judge(&rows);
        assert_eq!(named(&verdicts[0]), [1]);
        assert_eq!(verdicts[0].summary, "rank 1 reports more work than time has passed in `step_time_s` at step 128");
        assert_restores(|| Box::new(Contradiction::default()), &rows);
    }

    #[test]
    fn pauses_rounding_and_clocks_that_stand_are_normal() {
        assert_eq!(judge(&row_by_row(&even("step_time_s", 300, &[0.1, 1.0, 1.05]))), []);
        let mut standing = even("step_time_s", 300, &[2.0, 2.0]);
        standing.clocks.fill(0);
        assert_eq!(judge(&row_by_row(&standing)), []);
    }

    #[test]
    fn ranks_that_join_later_and_skip_rows_keep_their_own_clocks() {
        let narrow = rank_panel("loss_local", 0, &[vec![Some(1.0), Some(1.0)]]);
        let wide = rank_panel("loss_local", 1, &vec![vec![Some(1.0), None, Some(1.0), Some(1.0)]; 3]);
        let mut detector = Contradiction::default();
        let seen = [row_by_row(&narrow), row_by_row(&wide)].concat();
        assert_eq!(judge_all(&mut detector, &mut bare_scene(), &seen), []);
        let held: Vec<Option<Rank>> = detector.clocks.values().flatten().map(|(rank, _)| *rank).collect();
        assert_eq!(held, [0, 1, 2, 3].map(|rank| Some(Rank(rank))));
        assert_eq!(detector.clocks_held, 4);
    }

    #[test]
    fn negative_times_and_falling_counters_are_found_and_negative_losses_are_not() {
        assert_eq!(named(&judge(&row_by_row(&even("data_time_s", 1, &[1.0, -1.0, 1.0])))[0]), [1]);
        let fell = judge(&row_by_row(&even("pcie_replays_total", 1, &[1.0, 0.0, -5.0])));
        assert_eq!(fell[0].evidence[0].note.as_deref(), Some("the counter fell"));
        assert_eq!(judge(&row_by_row(&even("loss_local", 1, &[1.0, -1.0, 1.0]))), []);
        assert_eq!(judge(&row_by_row(&even("tokens", 1, &[0.0, -0.0, 5.0]))), []);
    }

    #[test]
    fn a_rank_that_tells_another_reduced_norm_is_named() {
        let verdicts = judge(&row_by_row(&even("grad_norm", 1, &[0.5, 0.5, 0.51, 0.5])));
        assert_eq!(named(&verdicts[0]), [2]);
        assert_eq!(verdicts[0].summary, "rank 2 disagrees with the other ranks on `grad_norm` at step 0");
        assert_eq!(verdicts[0].evidence[0].expected, Some(0.5));
    }

    #[test]
    fn local_values_two_ranks_rounding_and_idle_stages_may_differ() {
        assert_eq!(judge(&row_by_row(&even("grad_norm_local", 5, &[0.5, 0.5, 0.51, 0.5]))), []);
        assert_eq!(judge(&row_by_row(&even("grad_norm", 5, &[0.5, 0.51]))), []);
        assert_eq!(judge(&row_by_row(&even("loss", 5, &[2.0, 2.000_001, 2.0]))), []);
        assert_eq!(judge(&row_by_row(&even("loss", 5, &[0.0, 0.0, 2.0]))), []);
        assert_eq!(judge(&row_by_row(&even("loss", 5, &[2.0, 2.1, 2.2, 2.3]))), []);
        assert_eq!(judge(&row_by_row(&run_panel("loss", 0, &[2.0, 1.0]))), []);
        assert_eq!(
            judge(&row_by_row(&rank_panel("loss", 0, &[vec![None, None, None], vec![Some(1.0), None, None]]))),
            []
        );
    }
}
