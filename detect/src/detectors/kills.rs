//! Detects processes that were killed.
//!
//! # What it finds
//! Ranks ended by a signal with nothing that explains it, one by one and as a series: `process.kills`.
//!
//! # Why it matters
//! A kill costs the whole run a restart. Hardware does it at a known rate; a hand or a script does it more often, and
//! each time on another rank, so that no single kill looks like intent.
//!
//! # How it decides
//! By law and by rate, on `process_exit` events. A kill is an exit by a signal, told as `signal`, as a negative `code`
//! or as 128 plus the signal. Explained, and quiet: after `run_end`, in a pause or after a mark of preemption or
//! maintenance, and in the wake of an earlier failure of the attempt ([`COLLATERAL_S`], until the same rank dies
//! again), because the abort of one takes all. A kill by itself is a warning. From [`SERIES_MIN`] on, the last ones are
//! held against the hazard of large clusters with a Poisson test: below [`P_CRITICAL`] the case becomes critical. The
//! rank or node with most of the kills is named; of rotating kills nobody is. [`QUIET_S`] without a kill ends the case.
//!
//! # Parameters
//! [`COLLATERAL_S`], [`ANNOUNCED_S`], [`SERIES_MIN`], [`P_CRITICAL`], [`QUIET_S`], [`HOURS_BETWEEN_PER_RANK`],
//! [`HOURS_BETWEEN_MAX`].
//!
//! # Blind spots
//! The kernel's out-of-memory killer sends the same signal as a hand. A process made to exit by itself.
//!
//! # Source
//! Mean time to failure by scale: 7.9 h at 1,024 GPUs, 1.8 h at 16,384 (ResiHP and Llama 3 figures).

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};
use trainwarden_kernels::Backend;
use trainwarden_telemetry::{
    Attempt, Event, Evidence, Kind, Label, Metric, Observation, Phase, Rank, Severity, Suspect, Timestamp, Verdict,
};

use super::exit::{Exit, exit_of};
use crate::{Against, DetectError, Judge, Scene, Spec};

const SPEC: Spec =
    Spec { name: "kills", against: Against::Law, watches: &["events: process_exit"], kinds: &[Kind::Kills] };
const VERSION: u8 = 1;
/// Exits this long after a failure are its wake: the communication library gives up after 600 s, launchers add grace.
const COLLATERAL_S: f64 = 900.0;
/// A mark of preemption explains the exits this long after it: schedulers give minutes of grace.
const ANNOUNCED_S: f64 = 900.0;
/// Kills a series has at least: two may be one event and its repeat.
const SERIES_MIN: usize = 3;
/// Probability of such a series by hardware alone from which on a person is woken.
const P_CRITICAL: f64 = 0.01;
/// Hours between interruptions of one rank: 7.9 h at 1,024 GPUs.
const HOURS_BETWEEN_PER_RANK: f64 = 7.9 * 1024.0;
/// Hours between interruptions of a small run: people and schedulers stop those more often than hardware.
const HOURS_BETWEEN_MAX: f64 = 24.0;
/// Without a kill for a day, the next one is a new case.
const QUIET_S: f64 = 86_400.0;
/// Kills remembered: a series that long is critical many times over.
const KILLS_MAX: usize = 64;
/// Words that mark an announced stop.
const ANNOUNCEMENTS: [&str; 3] = ["preempt", "maintenance", "drain"];

/// See the module's page.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Kills {
    attempt: Attempt,
    has_ended: bool,
    announced: Option<Timestamp>,
    failure: Option<Failure>,
    kills: VecDeque<Kill>,
    ranks_seen: u32,
    open: Option<Verdict>,
    cases: u64,
}

/// The failure whose wake is not counted.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Failure {
    time: Timestamp,
    ranks: BTreeSet<Option<Rank>>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Kill {
    time: Timestamp,
    rank: Option<Rank>,
    node: Option<String>,
}

impl Kills {
    fn begin(&mut self, attempt: Attempt) {
        if attempt > self.attempt {
            self.attempt = attempt;
            self.has_ended = false;
            self.failure = None;
        }
    }

    fn judge_event(&mut self, event: &Event, scene: &Scene) -> Option<Verdict> {
        let kind = event.kind.to_ascii_lowercase();
        if ANNOUNCEMENTS.iter().any(|word| kind.contains(word)) {
            self.announced = Some(event.time);
            return None;
        }
        self.begin(event.attempt);
        match event.kind.as_str() {
            "run_end" if event.attempt == self.attempt => self.has_ended = true,
            "process_exit" => return self.judge_exit(event, scene),
            _ => {}
        }
        None
    }

    fn judge_exit(&mut self, event: &Event, scene: &Scene) -> Option<Verdict> {
        self.ranks_seen = self.ranks_seen.max(event.rank.map_or(0, |rank| rank.0.saturating_add(1)));
        let exit = exit_of(event.detail.as_deref());
        let is_over = self.has_ended || event.attempt < self.attempt;
        if exit == Exit::Clean || is_over || self.is_announced(event, scene) || self.is_collateral(event) {
            return None;
        }
        self.failure = Some(Failure { time: event.time, ranks: BTreeSet::from([event.rank]) });
        let Exit::Signal(signal) = exit else { return None };
        if self.kills.len() == KILLS_MAX {
            self.kills.pop_front();
        }
        let node = event.node.clone().or_else(|| {
            let roster = scene.roster(event.attempt)?;
            roster.node(event.rank?).map(str::to_owned)
        });
        self.kills.push_back(Kill { time: event.time, rank: event.rank, node });
        Some(self.tell(event, signal, scene))
    }

    fn is_announced(&self, event: &Event, scene: &Scene) -> bool {
        let is_marked = self.announced.is_some_and(|mark| {
            let lag_s = event.time.seconds_since(mark);
            (0.0..=ANNOUNCED_S).contains(&lag_s)
        });
        let pause = scene.pause_during(event.attempt, event.time, event.time);
        let reason = pause.and_then(|pause| pause.reason.as_deref()).unwrap_or("").to_ascii_lowercase();
        is_marked || ANNOUNCEMENTS.iter().any(|word| reason.contains(word))
    }

    /// True in the wake of a failure; a rank that dies a second time was restarted, which ends the wake.
    fn is_collateral(&mut self, event: &Event) -> bool {
        let Some(failure) = &mut self.failure else { return false };
        let is_in_wake = event.time.seconds_since(failure.time) <= COLLATERAL_S;
        is_in_wake && failure.ranks.insert(event.rank)
    }

    fn tell(&mut self, event: &Event, signal: u8, scene: &Scene) -> Verdict {
        let p_value = self.p_value(self.world(event.attempt, scene));
        let is_series = p_value.is_some_and(|p| p < P_CRITICAL);
        let label = Label { step: None, time: Some(event.time) };
        let who = event.rank.map_or("a process".to_owned(), |rank| scene.describe(event.attempt, rank));
        let summary = match self.kills.len() {
            1 => format!("{who} was killed by signal {signal}"),
            count => format!("{count} kills that nothing explains, the last of {who} by signal {signal}"),
        };
        let evidence = Evidence {
            rank: event.rank,
            observed: Some(self.kills.len() as f64),
            // A p-value p bounds an e-value of 0.5 / sqrt(p) (Vovk and Wang, "E-values", 2021).
            log10_e: p_value.map(|p| (0.5 / p.sqrt()).log10()),
            note: Some(format!("signal {signal}")),
            ..Evidence::new(SPEC.name, &Metric::new("process_exit"))
        };
        let (phase, base) = match self.open.take() {
            Some(open) => (Phase::Updated, open),
            None => {
                self.cases += 1;
                (Phase::Raised, opened(self.cases - 1, event.attempt, label))
            }
        };
        let severity = if is_series { Severity::Critical } else { Severity::Warning.max(base.severity) };
        let suspects = self.suspects();
        let verdict = Verdict { phase, severity, suspects, last: label, summary, evidence: vec![evidence], ..base };
        self.open = Some(verdict.clone());
        verdict
    }

    /// Ranks that were killed, when most kills hit one rank or one node.
    fn suspects(&self) -> Vec<Suspect> {
        let mut by_rank: BTreeMap<Rank, usize> = BTreeMap::new();
        let mut by_node: BTreeMap<&str, usize> = BTreeMap::new();
        for kill in &self.kills {
            if let Some(rank) = kill.rank {
                *by_rank.entry(rank).or_default() += 1;
            }
            if let Some(node) = &kill.node {
                *by_node.entry(node).or_default() += 1;
            }
        }
        let total = self.kills.len();
        let main_rank = by_rank.iter().find(|(_, count)| **count * 2 > total);
        if let Some((rank, count)) = main_rank {
            return vec![Suspect { rank: *rank, share: *count as f64 / total as f64 }];
        }
        let Some((node, _)) = by_node.iter().find(|(_, count)| **count * 2 > total) else { return Vec::new() };
        let on_node: BTreeSet<Rank> =
            self.kills.iter().filter(|kill| kill.node.as_deref() == Some(*node)).filter_map(|kill| kill.rank).collect();
        on_node.into_iter().map(|rank| Suspect { rank, share: by_rank[&rank] as f64 / total as f64 }).collect()
    }

    /// Smallest Poisson probability over the last 3, 4, ... kills, times the number of looks; `None` without a series.
    fn p_value(&self, world: u32) -> Option<f64> {
        let hours_between = (HOURS_BETWEEN_PER_RANK / f64::from(world.max(1))).min(HOURS_BETWEEN_MAX);
        let last = self.kills.back()?.time;
        let count = self.kills.len();
        let tails = (SERIES_MIN..=count).map(|recent| {
            let hours = last.seconds_since(self.kills[count - recent].time) / 3600.0;
            poisson_tail(hours / hours_between, recent - 1)
        });
        let smallest = tails.min_by(f64::total_cmp)?;
        Some((smallest * (count + 1 - SERIES_MIN) as f64).min(1.0))
    }

    fn world(&self, attempt: Attempt, scene: &Scene) -> u32 {
        let placed = scene.roster(attempt).map_or(0, |roster| roster.placements.len());
        let members = scene
            .communicators(attempt)
            .map_or(0, |communicators| communicators.members.values().map(BTreeSet::len).max().unwrap_or(0));
        u32::try_from(placed.max(members)).unwrap_or(u32::MAX).max(self.ranks_seen)
    }

    /// Ends the case when nothing was killed for long.
    fn clear(&mut self, now: Timestamp) -> Option<Verdict> {
        let last = self.kills.back()?.time;
        if now.seconds_since(last) <= QUIET_S {
            return None;
        }
        self.kills.clear();
        self.open.take().map(|open| Verdict { phase: Phase::Cleared, ..open })
    }
}

fn opened(case: u64, attempt: Attempt, label: Label) -> Verdict {
    Verdict {
        detector: SPEC.name.to_owned(),
        case,
        phase: Phase::Raised,
        attempt,
        kind: Kind::Kills,
        severity: Severity::Warning,
        suspects: Vec::new(),
        subject: "process_exit".to_owned(),
        onset: None,
        first: label,
        last: label,
        summary: String::new(),
        evidence: Vec::new(),
    }
}

/// Probability of at least `count` events where `mean` are expected; at least the smallest normal number.
fn poisson_tail(mean: f64, count: usize) -> f64 {
    // Summed from the small end, because one minus the head loses what is below the precision of one.
    let mean = mean.max(f64::MIN_POSITIVE);
    let mut term = -mean;
    for index in 1..=count {
        term += mean.ln() - (index as f64).ln();
    }
    let mut term = term.exp();
    let mut sum = 0.0;
    let mut index = count;
    while term > sum * f64::EPSILON && index < count + 10_000 {
        sum += term;
        index += 1;
        term *= mean / index as f64;
    }
    if sum > 0.0 { sum.min(1.0) } else { f64::MIN_POSITIVE }
}

impl Judge for Kills {
    const SPEC: Spec = SPEC;
    const VERSION: u8 = VERSION;

    fn judge(
        &mut self,
        seen: &Observation,
        scene: &Scene,
        _backend: &mut dyn Backend,
    ) -> Result<Vec<Verdict>, DetectError> {
        let mut verdicts = Vec::new();
        match seen {
            Observation::Event(event) => {
                verdicts.extend(self.clear(event.time));
                verdicts.extend(self.judge_event(event, scene));
            }
            Observation::Attempt(start) => self.begin(start.attempt),
            Observation::Panel(panel) if self.open.is_some() => {
                // Row by row, so that a split of panels changes nothing.
                verdicts.extend(panel.labels.iter().filter_map(|label| self.clear(label.time?)));
            }
            _ => {}
        }
        Ok(verdicts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detectors::testing::{assert_restores, bare_scene, event, judge_all};

    fn exit(attempt: u32, rank: u32, time_s: i64, detail: &str) -> Observation {
        let Observation::Event(mark) = event("process_exit", time_s) else { unreachable!("`event` builds an event") };
        let detail = Some(detail.to_owned());
        Observation::Event(Event { attempt: Attempt(attempt), rank: Some(Rank(rank)), detail, ..mark })
    }

    fn judge(seen: &[Observation]) -> Vec<Verdict> {
        judge_all(&mut Kills::default(), &mut bare_scene(), seen)
    }

    const KILL: &str = r#"{"code": null, "signal": "SIGKILL"}"#;

    #[test]
    fn one_kill_is_a_warning_that_names_its_rank_and_its_wake_is_not_counted() {
        let mut seen = vec![exit(0, 3, 100, KILL)];
        seen.extend([0, 1, 2].map(|rank| exit(0, rank, 105, r#"{"code": -6}"#)));
        let verdicts = judge(&seen);
        assert_eq!(verdicts.len(), 1);
        assert_eq!(verdicts[0].severity, Severity::Warning);
        assert_eq!(verdicts[0].ranks().collect::<Vec<_>>(), [Rank(3)]);
        assert_restores(|| Box::new(Kills::default()), &seen);
    }

    #[test]
    fn kills_that_rotate_over_ranks_at_a_rate_no_hardware_has_become_critical_and_name_nobody() {
        let seen: Vec<Observation> = (0..4).map(|n| exit(n, 7 * n, 1_000 * i64::from(n), KILL)).collect();
        let verdicts = judge(&seen);
        assert_eq!(verdicts.iter().map(|verdict| verdict.case).collect::<Vec<_>>(), [0; 4]);
        assert_eq!((verdicts[2].severity, verdicts[2].phase), (Severity::Critical, Phase::Updated));
        assert_eq!(verdicts[3].suspects, []);
        assert_restores(|| Box::new(Kills::default()), &seen);
    }

    #[test]
    fn kills_at_the_rate_of_hardware_stay_warnings() {
        let seen: Vec<Observation> = (0..6).map(|n| exit(n, 500 + n, 28_000 * i64::from(n), KILL)).collect();
        assert!(judge(&seen).iter().all(|verdict| verdict.severity == Severity::Warning));
    }

    #[test]
    fn clean_exits_the_end_of_the_run_and_what_a_crash_drags_along_are_quiet() {
        let clean = [exit(0, 0, 1, r#"{"code": 0, "signal": null}"#), exit(0, 1, 2, r#"{"code":0}"#)];
        assert_eq!(judge(&clean), []);
        assert_eq!(judge(&[event("run_end", 5), exit(0, 0, 6, KILL)]), []);
        assert_eq!(judge(&[exit(0, 0, 1, r#"{"code": 1}"#), exit(0, 1, 31, r#"{"code": 143}"#)]), []);
    }

    #[test]
    fn an_announced_preemption_explains_and_an_evaluation_pause_does_not() {
        assert_eq!(judge(&[event("preemption_notice", 5), exit(0, 0, 60, KILL)]), []);
        let Observation::Event(mark) = event("pause_begin", 5) else { unreachable!("`event` builds an event") };
        let pause = |reason: &str| Observation::Event(Event { detail: Some(reason.to_owned()), ..mark.clone() });
        assert_eq!(judge(&[pause("maintenance"), exit(0, 0, 60, KILL)]), []);
        assert_eq!(judge(&[pause("evaluation"), exit(0, 0, 60, KILL)]).len(), 1);
    }

    #[test]
    fn a_day_without_a_kill_ends_the_case() {
        let seen = [exit(0, 0, 0, KILL), event("checkpoint", 90_000), exit(1, 1, 90_001, KILL)];
        let phases: Vec<(Phase, u64)> = judge(&seen).iter().map(|verdict| (verdict.phase, verdict.case)).collect();
        assert_eq!(phases, [(Phase::Raised, 0), (Phase::Cleared, 0), (Phase::Raised, 1)]);
    }

    #[test]
    fn the_poisson_tail_is_right_at_hand_computed_points() {
        assert!((poisson_tail(1.0, 1) - (1.0 - (-1.0_f64).exp())).abs() < 1e-12);
        assert!((poisson_tail(0.1, 2) - 0.004_678_840_160_444_47).abs() < 1e-12);
        assert!(poisson_tail(0.0, 2) > 0.0 && poisson_tail(50.0, 2) <= 1.0);
    }
}
