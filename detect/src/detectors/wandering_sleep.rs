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
//! it is a case: the waiting of a row is the largest excess in it. Ranks with [`SUSPECT_SHARE`] of the pauses or more
//! are suspects; of pauses that wander over all of them there are none. A case ends after [`CLEAR_ROWS`] rows without
//! pause.
//!
//! # Parameters
//! `WANDERING_SLEEP` in `budget.rs`, [`PAUSE_RATIO`], [`PAUSE_SPREADS`], [`LEARN_ROWS`], [`FACTOR`], [`RANKS_MIN`],
//! [`COST_MIN`], [`SUSPECT_SHARE`], [`CLEAR_ROWS`].
//!
//! # Blind spots
//! Pauses from the first row on, at a constant rate; synchronous `step_time_s`, where all ranks show the pause; groups
//! below four.
//!
//! # Source
//! Poisson counts with an e-value; blame that is spread over ranks, Binomial(n, 1/group) for each.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use trainwarden_kernels::{Backend, MAD_TO_SIGMA, Middle, count_evidence, quantile_in_place};
use trainwarden_telemetry::{
    Attempt, Evidence, Kind, Label, Metric, Observation, Onset, Panel, Phase, Rank, Severity, Suspect, Verdict,
};

use super::straggler::is_own_work;
use crate::budget::{self, Cadence};
use crate::{Against, DetectError, Judge, Scene, Spec};

const SPEC: Spec = Spec {
    name: "wandering_sleep",
    against: Against::Peers,
    watches: &["samples: *_time_s of own work by rank"],
    kinds: &[Kind::Intermittent],
};
const VERSION: u8 = 1;
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
/// Part of the pauses that makes a rank a suspect.
const SUSPECT_SHARE: f64 = 0.2;
/// Rows without a pause that end a case.
const CLEAR_ROWS: u32 = 256;
/// Ranks whose pauses are counted.
const RANKS_MAX: usize = 4_096;
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
    /// Since the evidence was last zero: rows, time waited in rows, pauses of each rank, first row.
    since: u32,
    cost: f64,
    pauses: BTreeMap<Rank, u32>,
    first: Label,
    open: Option<OpenCase>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct OpenCase {
    said: Verdict,
    calm_rows: u32,
    last: Label,
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

    /// The usual rate of rows with a pause, at its upper end.
    fn usual_rate(&self) -> f64 {
        let count = f64::from(self.learned);
        (count + 2.0 * count.sqrt() + 1.0) / f64::from(LEARN_ROWS)
    }

    /// Takes in a row and says whether the pauses are a case now.
    fn weigh(&mut self, paused: &[(usize, f32)], label: Label, threshold: f64) -> bool {
        self.rows += 1;
        if self.rows <= LEARN_ROWS {
            self.learned += u32::from(!paused.is_empty());
            return false;
        }
        let hit = f64::from(u8::from(!paused.is_empty()));
        self.log_e = (self.log_e + count_evidence(hit, self.usual_rate(), FACTOR)).clamp(0.0, 2.0 * threshold);
        if self.log_e <= 0.0 {
            (self.since, self.cost) = (0, 0.0);
            self.pauses.clear();
            return false;
        }
        if self.since == 0 {
            self.first = label;
        }
        self.since += 1;
        self.cost += paused.iter().map(|(_, ratio)| f64::from(ratio - 1.0)).fold(0.0, f64::max);
        for (column, _) in paused {
            let rank = self.ranks[*column];
            if self.pauses.len() < RANKS_MAX || self.pauses.contains_key(&rank) {
                *self.pauses.entry(rank).or_default() += 1;
            }
        }
        self.log_e >= threshold && self.pauses.len() >= RANKS_MIN && self.loss() >= COST_MIN
    }

    /// Part of the time that was waited.
    fn loss(&self) -> f64 {
        self.cost / (f64::from(self.since) + self.cost)
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
        if let Some(case) = &mut watched.open {
            (case.calm_rows, case.last) = if paused.is_empty() { (case.calm_rows + 1, case.last) } else { (0, label) };
            if case.calm_rows < CLEAR_ROWS {
                return None;
            }
            let case = watched.open.take()?;
            watched.log_e = 0.0;
            return Some(Verdict { phase: Phase::Cleared, last: case.last, ..case.said });
        }
        if !is_case {
            return None;
        }
        let said = raise(watched, panel, label, self.cases);
        watched.open = Some(OpenCase { said: said.clone(), calm_rows: 0, last: label });
        self.cases += 1;
        Some(said)
    }
}

fn raise(watched: &Watched, panel: &Panel, label: Label, case: u64) -> Verdict {
    let total: u32 = watched.pauses.values().sum();
    let mut blamed: Vec<(Rank, u32)> = watched.pauses.iter().map(|(rank, count)| (*rank, *count)).collect();
    blamed.sort_by(|one, other| other.1.cmp(&one.1).then(one.0.cmp(&other.0)));
    let share = |count: u32| f64::from(count) / f64::from(total);
    let suspects = blamed.iter().filter(|(_, count)| *count > 1 && share(*count) >= SUSPECT_SHARE);
    let evidence = blamed.iter().take(EVIDENCE_MAX).map(|(rank, count)| Evidence {
        step: label.step,
        rank: Some(*rank),
        log10_e: Some(watched.log_e * std::f64::consts::LOG10_E),
        note: Some(format!("paused in {count} of {} rows", watched.since)),
        ..Evidence::new(SPEC.name, &panel.metric)
    });
    let (percent, ranks, rows) = (100.0 * watched.loss(), watched.pauses.len(), watched.since);
    Verdict {
        detector: SPEC.name.to_owned(),
        case,
        phase: Phase::Raised,
        attempt: panel.attempt,
        kind: Kind::Intermittent,
        severity: Severity::of_throughput_loss(watched.loss()),
        suspects: suspects.map(|(rank, count)| Suspect { rank: *rank, share: share(*count) }).collect(),
        subject: panel.metric.to_string(),
        onset: watched.first.step.zip(label.step).map(|(step, high)| Onset { step, low: step, high }),
        first: watched.first,
        last: label,
        summary: format!("{total} pauses on {ranks} ranks in {rows} rows of `{}` cost {percent:.1} %", panel.metric),
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

    /// One rank pauses in every `every`th row, another one each time.
    fn sleep(row: u64, rank: usize, every: u64) -> f64 {
        if row.is_multiple_of(every) && (row / every * 5) % 16 == rank as u64 { 1.6 } else { 1.0 }
    }

    #[test]
    fn pauses_that_begin_and_wander_are_one_case_without_suspects() {
        let panel = noisy_panel("forward_time_s", 900, 16, |row, rank| match row {
            300..500 => sleep(row, rank, 5),
            _ => 1.0,
        });
        let verdicts = verdicts_of(&panel);
        assert_eq!(verdicts.iter().map(|verdict| verdict.phase).collect::<Vec<_>>(), [Phase::Raised, Phase::Cleared]);
        assert_eq!((verdicts[0].kind, verdicts[0].suspects.len()), (Kind::Intermittent, 0));
        assert_eq!(verdicts[0].severity, Severity::Critical);
        assert!(verdicts[0].first.step.is_some_and(|step| step.0 >= 299 && step.0 <= 305));
        assert_restores(|| Box::new(WanderingSleep::default()), &row_by_row(&panel));
    }

    #[test]
    fn a_constant_low_rate_from_the_start_and_a_single_hard_batch_are_usual() {
        assert_eq!(verdicts_of(&noisy_panel("forward_time_s", 900, 16, |row, rank| sleep(row, rank, 12))), []);
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
