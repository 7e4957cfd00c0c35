//! Detects rare pauses that wander over the ranks.
//!
//! # What it finds
//! Single rows in which one rank's own work takes far longer than its peers', now here, now there, more often than
//! before: `slowdown.intermittent`.
//!
//! # Why it matters
//! Everybody waits for whoever pauses. A sleep on a random rank costs the whole job and shows in no rank's own mean.
//!
//! # How it decides
//! Against peers, then against the past. A cell is a pause when it is more than [`PAUSE_RATIO`] times the median of its
//! peers and [`PAUSE_SPREADS`] robust deviations of its row beyond it, the rank did not pause in the row before (else
//! it is a straggler), and no more than a quarter of the group pauses with it. Rows with a pause are counted. Their
//! rate in the first [`LEARN_ROWS`] rows is frozen, with two standard errors added: garbage collection and hard batches
//! have a rate of their own from the start. An e-CUSUM weighs [`FACTOR`] times that rate against it. At the threshold
//! of the budget, and when at least [`RANKS_MIN`] ranks paused and the waiting since then is 2 % of the time or more,
//! it is a case: the waiting of a row is the largest excess in it. A case ends after [`CLEAR_ROWS`] rows without pause.
//! Who is named is a question of its own, asked again at every pause. Where pauses come back to the same ranks no more
//! than if each fell on any rank at random (pairs of pauses on one rank, chance above `EVEN_CHANCE_MIN`), the run is
//! meant, and nobody is named. Else the ranks are named that paused more often than the usual rate of a rank explains,
//! its own rate where it had a habit of pausing, so that of the named at most `FALSE_PART_MAX` are there by chance; a
//! single pause is seldom enough. Most of the ranks are the run again. Suspects carry their part of the waiting; one
//! that joins later is told when it joins.
//!
//! # Parameters
//! `WANDERING_SLEEP` in `budget.rs`, [`PAUSE_RATIO`], [`PAUSE_SPREADS`], [`LEARN_ROWS`], [`FACTOR`], [`RANKS_MIN`],
//! [`COST_MIN`], [`CLEAR_ROWS`]; in `wandering_sleep/blame.rs`: `FALSE_PART_MAX`, `EVEN_CHANCE_MIN`,
//! `HABIT_CHANCE_MAX`, `RANKS_MAX`, `SUSPECTS_MAX`.
//!
//! # Blind spots
//! Pauses from the first row on, at a constant rate; synchronous `step_time_s`, where all ranks show the pause; groups
//! below four.
//!
//! # Source
//! Poisson counts with an e-value; for the names Benjamini and Hochberg, "Controlling the False Discovery Rate" (1995).

mod blame;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use trainwarden_kernels::{Backend, MAD_TO_SIGMA, Middle, count_evidence, quantile_in_place};
use trainwarden_telemetry::{
    Attempt, Evidence, Kind, Label, Metric, Observation, Onset, Panel, Phase, Rank, Severity, Verdict,
};

use super::open_case::OpenCase;
use super::straggler::is_own_work;
use crate::budget::{self, Cadence};
use crate::{Against, DetectError, Judge, Scene, Spec};
use blame::{Blame, upper};

const SPEC: Spec = Spec {
    name: "wandering_sleep",
    against: Against::Peers,
    watches: &["samples: *_time_s of own work by rank"],
    kinds: &[Kind::Intermittent],
};
const VERSION: u8 = 2;
/// Times the peers' work that make a pause.
const PAUSE_RATIO: f32 = 1.2;
/// Robust deviations of the row that make a pause.
const PAUSE_SPREADS: f32 = 8.0;
/// Rows from which the usual rate is learned.
const LEARN_ROWS: u32 = 256;
/// The alternative: so many times the usual rate.
const FACTOR: f64 = 3.0;
/// Fewer ranks than these are stragglers, not wandering.
const RANKS_MIN: usize = 3;
/// Part of the time waited that is worth a case.
const COST_MIN: f64 = 0.02;
/// Rows without a pause that end a case.
const CLEAR_ROWS: u32 = 256;
/// Groups below this size name nobody.
const GROUP_MIN: usize = 4;
/// Ranks listed in the evidence.
const EVIDENCE_MAX: usize = 8;

/// See the module's page.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct WanderingSleep {
    metrics: BTreeMap<(Attempt, Metric), Watched>,
    cases: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Watched {
    ranks: Vec<Rank>,
    groups: Vec<Vec<usize>>,
    rows: u32,
    cadence: Cadence,
    /// Columns slow in the row before, ascending.
    before: Vec<usize>,
    learned: u32,
    log_e: f64,
    /// Since the evidence was last zero: rows, time waited in rows, first row.
    since: u32,
    cost: f64,
    first: Label,
    blame: Blame,
    open: Option<OpenCase>,
}

impl Watched {
    /// Columns that pause in this row, with their ratio.
    fn pauses_of(&mut self, panel: &Panel, row: usize) -> Vec<(usize, f32)> {
        let mut slow = Vec::new();
        for columns in self.groups.iter().filter(|columns| columns.len() >= GROUP_MIN) {
            let usable = |column: &usize| panel.value(row, *column).filter(|value| value.is_finite() && *value > 0.0);
            let mut values: Vec<f32> = columns.iter().filter_map(usable).collect();
            let Some(center) = Middle::of(&mut values).map(|middle| middle.median()) else { continue };
            if values.len() < GROUP_MIN || values.iter().all(|value| *value <= PAUSE_RATIO * center) {
                continue;
            }
            values.iter_mut().for_each(|value| *value = (*value - center).abs());
            let spread = quantile_in_place(&mut values, 0.5).unwrap_or(0.0) * MAD_TO_SIGMA as f32;
            let least = (PAUSE_RATIO * center).max(center + PAUSE_SPREADS * spread);
            let over = columns.iter().filter_map(|column| Some((*column, usable(column)?)));
            let over: Vec<_> = over.filter(|(_, value)| *value > least).map(|(c, value)| (c, value / center)).collect();
            if over.len() <= (columns.len() / 4).max(1) {
                slow.extend(over);
            }
        }
        let before = std::mem::replace(&mut self.before, slow.iter().map(|(column, _)| *column).collect());
        slow.retain(|(column, _)| !before.contains(column));
        slow
    }

    /// Takes in a row and says whether the pauses are a case now.
    fn weigh(&mut self, paused: &[(usize, f32)], label: Label, threshold: f64) -> bool {
        self.rows += 1;
        if self.rows <= LEARN_ROWS {
            self.learned += u32::from(!paused.is_empty());
            paused.iter().for_each(|(column, _)| self.blame.learn(self.ranks[*column]));
            return false;
        }
        let hit = f64::from(u8::from(!paused.is_empty()));
        let usual_rate = upper(self.learned) / f64::from(LEARN_ROWS);
        self.log_e = (self.log_e + count_evidence(hit, usual_rate, FACTOR)).clamp(0.0, 2.0 * threshold);
        if self.log_e <= 0.0 && self.open.is_none() {
            self.forget();
            return false;
        }
        if self.since == 0 {
            self.first = label;
        }
        self.since += 1;
        self.cost += paused.iter().map(|(_, ratio)| f64::from(ratio - 1.0)).fold(0.0, f64::max);
        for (column, ratio) in paused {
            self.blame.add(self.ranks[*column], f64::from(ratio - 1.0));
        }
        self.log_e >= threshold && self.blame.paused() >= RANKS_MIN && self.loss() >= COST_MIN
    }

    fn forget(&mut self) {
        (self.since, self.cost, self.log_e) = (0, 0.0, 0.0);
        self.blame.forget();
    }

    /// Part of the time that was waited.
    fn loss(&self) -> f64 {
        self.cost / (f64::from(self.since) + self.cost)
    }

    /// How many ranks are judged.
    fn judged(&self) -> usize {
        self.groups.iter().map(Vec::len).filter(|count| *count >= GROUP_MIN).sum()
    }

    /// Brings an open case up to date with a row: who joined the suspects, or that it is over.
    fn follow(&mut self, mut case: OpenCase, paused: bool, panel: &Panel, label: Label) -> Option<Verdict> {
        if let Some(cleared) = case.follow(paused, label, CLEAR_ROWS) {
            self.forget();
            return Some(cleared);
        }
        let mut news = None;
        if paused {
            let now = said(self, panel, label, case.said.case);
            if now.suspects.len() != case.said.suspects.len() {
                let Verdict { first, onset, severity, .. } = case.said;
                case.said =
                    Verdict { phase: Phase::Updated, first, onset, severity: severity.max(now.severity), ..now };
                news = Some(case.said.clone());
            }
        }
        self.open = Some(case);
        news
    }
}

impl WanderingSleep {
    fn judge_row(&mut self, panel: &Panel, row: usize, scene: &Scene) -> Option<Verdict> {
        let watched = self.metrics.entry((panel.attempt, panel.metric.clone())).or_default();
        if *watched.ranks != *panel.ranks {
            watched.ranks = panel.ranks.to_vec();
            watched.groups = scene.peer_groups(panel.attempt, &panel.ranks);
            watched.before.clear();
        }
        let label = panel.labels[row];
        watched.cadence.see(label);
        let row_s = watched.cadence.row_s();
        let threshold = scene.budget.log10_e(&budget::WANDERING_SLEEP, 1, row_s) * std::f64::consts::LN_10;
        let paused = watched.pauses_of(panel, row);
        let is_case = watched.weigh(&paused, label, threshold);
        if let Some(case) = watched.open.take() {
            return watched.follow(case, !paused.is_empty(), panel, label);
        }
        if !is_case {
            return None;
        }
        let said = said(watched, panel, label, self.cases);
        watched.open = Some(OpenCase::new(said.clone(), label));
        self.cases += 1;
        Some(said)
    }
}

/// What is to be said of the pauses so far.
fn said(watched: &mut Watched, panel: &Panel, label: Label, case: u64) -> Verdict {
    let ranks = watched.judged();
    watched.blame.name(watched.since, ranks);
    let blamed = watched.blame.worst_first();
    let evidence = blamed.iter().take(EVIDENCE_MAX).map(|(rank, pauses)| Evidence {
        step: label.step,
        rank: Some(*rank),
        log10_e: Some(watched.log_e * std::f64::consts::LOG10_E),
        note: Some(format!("paused in {} of {} rows", pauses.count, watched.since)),
        ..Evidence::new(SPEC.name, &panel.metric)
    });
    let (total, percent, rows) = (watched.blame.total(), 100.0 * watched.loss(), watched.since);
    let paused = blamed.len();
    Verdict {
        detector: SPEC.name.to_owned(),
        case,
        phase: Phase::Raised,
        attempt: panel.attempt,
        kind: Kind::Intermittent,
        severity: Severity::of_throughput_loss(watched.loss()),
        suspects: watched.blame.suspects(ranks),
        subject: panel.metric.to_string(),
        onset: watched.first.step.zip(label.step).map(|(step, high)| Onset { step, low: step, high }),
        first: watched.first,
        last: label,
        summary: format!("{total} pauses on {paused} ranks in {rows} rows of `{}` cost {percent:.1} %", panel.metric),
        evidence: evidence.collect(),
    }
}

impl Judge for WanderingSleep {
    const SPEC: Spec = SPEC;
    const VERSION: u8 = VERSION;

    fn judge(
        &mut self,
        seen: &Observation,
        scene: &Scene,
        _backend: &mut dyn Backend,
    ) -> Result<Vec<Verdict>, DetectError> {
        match seen {
            Observation::Attempt(start) => self.metrics.retain(|(attempt, _), _| *attempt >= start.attempt),
            Observation::Panel(panel) if !panel.is_whole_run() && is_own_work(&panel.metric) => {
                budget::WANDERING_SLEEP.admit(&self.metrics, &(panel.attempt, panel.metric.clone()))?;
                return Ok((0..panel.rows()).filter_map(|row| self.judge_row(panel, row, scene)).collect());
            }
            _ => {}
        }
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detectors::testing::{assert_restores, bare_scene, judge_all, noisy_panel, row_by_row};

    fn verdicts_of(panel: &Panel) -> Vec<Verdict> {
        judge_all(&mut WanderingSleep::default(), &mut bare_scene(), &row_by_row(panel))
    }

    /// One rank of the first `among` pauses in every `every`th row, another one each time.
    fn sleep(row: u64, rank: usize, every: u64, among: u64) -> f64 {
        if row.is_multiple_of(every) && (row / every * 5) % among == rank as u64 { 1.6 } else { 1.0 }
    }

    fn phases(verdicts: &[Verdict]) -> Vec<Phase> {
        verdicts.iter().map(|verdict| verdict.phase).collect()
    }

    #[test]
    fn pauses_that_begin_and_wander_are_one_case_without_suspects() {
        let panel = noisy_panel("forward_time_s", 900, 16, |row, rank| match row {
            300..500 => sleep(row, rank, 5, 16),
            _ => 1.0,
        });
        let verdicts = verdicts_of(&panel);
        assert_eq!(phases(&verdicts), [Phase::Raised, Phase::Cleared]);
        assert_eq!((verdicts[0].kind, verdicts[0].suspects.len()), (Kind::Intermittent, 0));
        assert_eq!(verdicts[0].severity, Severity::Critical);
        assert!(verdicts[0].first.step.is_some_and(|step| step.0 >= 299 && step.0 <= 305));
        assert_restores(|| Box::new(WanderingSleep::default()), &row_by_row(&panel));
    }

    #[test]
    fn pauses_that_wander_over_a_few_of_many_ranks_name_these_and_tell_who_joins() {
        let panel = noisy_panel("forward_time_s", 900, 96, |row, rank| match row {
            300..500 => sleep(row, rank, 5, 8),
            _ => 1.0,
        });
        let verdicts = verdicts_of(&panel);
        let before_end = &verdicts[..verdicts.len() - 1];
        assert_eq!((before_end[0].phase, verdicts[before_end.len()].phase), (Phase::Raised, Phase::Cleared));
        assert!(before_end.iter().skip(1).all(|verdict| verdict.phase == Phase::Updated && verdict.case == 0));
        let mut named: Vec<u32> = before_end[before_end.len() - 1].ranks().map(|rank| rank.0).collect();
        named.sort_unstable();
        assert_eq!(named, [0, 1, 2, 3, 4, 5, 6, 7]);
        let shares: f64 = verdicts[0].suspects.iter().map(|suspect| suspect.share).sum();
        assert!(shares <= 1.0 + 1e-9);
        assert_restores(|| Box::new(WanderingSleep::default()), &row_by_row(&panel));
    }

    #[test]
    fn a_constant_low_rate_from_the_start_and_a_single_hard_batch_are_usual() {
        assert_eq!(verdicts_of(&noisy_panel("forward_time_s", 900, 16, |row, rank| sleep(row, rank, 12, 16))), []);
        let one = |row, rank| if (row, rank) == (400, 3) { 4.0 } else { 1.0 };
        assert_eq!(verdicts_of(&noisy_panel("forward_time_s", 900, 16, one)), []);
    }

    #[test]
    fn a_lasting_straggler_a_pause_of_all_and_a_lone_rank_are_none() {
        let lasting = |row, rank| if rank == 4 && row > 300 { 1.5 } else { 1.0 };
        assert_eq!(verdicts_of(&noisy_panel("forward_time_s", 600, 16, lasting)), []);
        let all = |row: u64, _| if row > 300 && row.is_multiple_of(5) { 2.0 } else { 1.0 };
        assert_eq!(verdicts_of(&noisy_panel("forward_time_s", 600, 16, all)), []);
        assert_eq!(verdicts_of(&noisy_panel("forward_time_s", 600, 1, all)), []);
    }
}
