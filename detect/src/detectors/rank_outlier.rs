//! Detects a rank that stands apart in a metric that has no detector of its own.
//!
//! # What it finds
//! In any other series by rank (`gpu_*`, names of the user's own): one cell far outside, `metric.outlier`, as
//! information; one rank far outside for long, `metric.shift`, as a warning.
//!
//! # Why it matters
//! A fan that fails, a link that retries, a counter of the user's own: the cause often shows before its effect.
//!
//! # How it decides
//! Against peers, ranks of one role, and quiet by design. A cell is compared with the median of the others as a
//! difference. Offsets (temperatures differ by place, for ever) and the tail of the differences are learned in the
//! first 32 rows and frozen. A cell whose e-value alone reaches the budget is an outlier. A rank is shifted when for
//! [`SHIFT_ROWS`] rows in a row it departs in one direction by more than [`SHIFT_SIZE`] of its peers' value and more
//! than [`SHIFT_SPREADS`] robust deviations. When more than a quarter of the group departs it is no rank's own. A case
//! ends after [`CLEAR_ROWS`] rows without departure.
//!
//! # Parameters
//! `RANK_OUTLIER` in `budget.rs`, [`SHIFT_ROWS`], [`SHIFT_SIZE`], [`SHIFT_SPREADS`], [`CLEAR_ROWS`], `OWN`, and those
//! of `departures.rs`.
//!
//! # Blind spots
//! Groups below four; metrics that are constant over ranks and rows while learned (they have no tail); a rank that is
//! apart from the first row on.
//!
//! # Source
//! Iglewicz and Hoaglin, "How to Detect and Handle Outliers" (1993).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use trainwarden_kernels::Backend;
use trainwarden_telemetry::{
    Attempt, Evidence, Kind, Label, Metric, Observation, Onset, Panel, Phase, Severity, Suspect, Verdict,
};

use super::departures::{Compare, Departure, Departures};
use super::measured::measured;
use super::open_case::OpenCase;
use super::{data_shift::is_local_loss, gradient_outlier::is_gradient, straggler::is_own_work};
use crate::budget::{self, Cadence};
use crate::{Against, DetectError, Judge, Scene, Spec};

const SPEC: Spec = Spec {
    name: "rank_outlier",
    against: Against::Peers,
    watches: &["samples: every metric by rank without a detector of its own"],
    kinds: &[Kind::MetricOutlier, Kind::MetricShift],
};
const VERSION: u8 = 2;
/// Rows in a row that make a shift.
const SHIFT_ROWS: u32 = 32;
/// Part of the peers' value by which a shifted rank departs.
const SHIFT_SIZE: f32 = 0.10;
/// Robust deviations by which a shifted rank departs.
const SHIFT_SPREADS: f32 = 12.0;
/// Normal quantile of |z| at 99 %.
const Z99: f32 = 2.575_8;
/// Rows without departure that end a case.
const CLEAR_ROWS: u32 = 20;
/// Metrics with detectors of their own, or unequal over ranks by design.
const OWN: [&str; 18] = [
    "loss",
    "grad_norm",
    "param_norm",
    "update_norm",
    "update_dot_grad",
    "learning_rate",
    "loss_scale",
    "tokens",
    "heartbeat",
    "comm_time_s",
    "checkpoint_time_s",
    "checkpoint_bytes",
    "gpu_xid",
    "gpu_ecc_errors_total",
    "gpu_throttle_mask",
    "gpu_sm_clock_hz",
    "gpu_mem_clock_hz",
    "pcie_replays_total",
];

/// See the module's page.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct RankOutlier {
    metrics: BTreeMap<(Attempt, Metric), Watched>,
    cases: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Watched {
    departures: Departures,
    cadence: Cadence,
    /// Columns that depart now, and for how long; the others are not kept.
    runs: BTreeMap<usize, Run>,
    open: BTreeMap<(usize, bool), OpenCase>,
}

/// Rows in a row in which a column departed far enough for a shift.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Run {
    sign: f32,
    rows: u32,
    log10_e: f64,
    first: Label,
}

impl Watched {
    /// What a cell amounts to: a shift, an outlier, or nothing; with its evidence and first row.
    fn weigh(&mut self, cell: &Departure, label: Label, threshold: f64) -> Option<(Kind, f64, Label)> {
        let spread = cell.q99 / Z99;
        let is_far = cell.log10_e > 0.0
            && cell.size.abs() > SHIFT_SIZE * cell.expected.abs()
            && cell.size.abs() > SHIFT_SPREADS * spread;
        if !is_far {
            self.runs.remove(&cell.column);
        } else {
            let sign = cell.size.signum();
            let fresh = Run { sign, rows: 0, log10_e: 0.0, first: label };
            let run = self.runs.entry(cell.column).or_insert_with(|| fresh.clone());
            if run.sign != sign {
                *run = fresh;
            }
            run.rows += 1;
            run.log10_e += cell.log10_e;
            if run.rows >= SHIFT_ROWS && run.log10_e >= threshold {
                return Some((Kind::MetricShift, run.log10_e, run.first));
            }
        }
        (cell.log10_e >= threshold).then_some((Kind::MetricOutlier, cell.log10_e, label))
    }

    /// Brings the cases of a column up to date.
    fn age(&mut self, cell: &Departure, label: Label) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        for key in [(cell.column, false), (cell.column, true)] {
            let Some(case) = self.open.get_mut(&key) else { continue };
            if let Some(cleared) = case.follow(cell.log10_e > 1.0, label, CLEAR_ROWS) {
                verdicts.push(cleared);
                self.open.remove(&key);
            }
        }
        verdicts
    }
}

impl RankOutlier {
    fn judge_row(&mut self, panel: &Panel, row: usize, scene: &Scene) -> Vec<Verdict> {
        let watched = self.metrics.entry((panel.attempt, panel.metric.clone())).or_default();
        if watched.departures.follow(Compare::Difference, panel, scene) {
            let (departures, cadence) = (std::mem::take(&mut watched.departures), watched.cadence);
            *watched = Watched { departures, cadence, ..Watched::default() };
        }
        let label = panel.labels[row];
        watched.cadence.see(label);
        let row_s = watched.cadence.row_s();
        let threshold = scene.budget.log10_e(&budget::RANK_OUTLIER, panel.ranks.len(), row_s);
        let mut verdicts = Vec::new();
        for cell in watched.departures.observe(panel, row) {
            if !watched.open.is_empty() {
                verdicts.extend(watched.age(&cell, label));
            }
            let Some((kind, log10_e, first)) = watched.weigh(&cell, label, threshold) else { continue };
            let key = (cell.column, kind == Kind::MetricShift);
            let is_told = watched.open.contains_key(&key) || watched.open.contains_key(&(cell.column, true));
            if !is_told {
                let said = raise(panel, row, &cell, Raising { case: self.cases, kind, log10_e, first, scene });
                verdicts.push(said.clone());
                watched.open.insert(key, OpenCase::new(said, label));
                self.cases += 1;
            }
        }
        verdicts
    }
}

struct Raising<'a> {
    case: u64,
    kind: Kind,
    log10_e: f64,
    first: Label,
    scene: &'a Scene,
}

fn raise(panel: &Panel, row: usize, cell: &Departure, raising: Raising<'_>) -> Verdict {
    let label = panel.labels[row];
    let rank = panel.ranks[cell.column];
    let is_shift = raising.kind == Kind::MetricShift;
    let who = raising.scene.describe(panel.attempt, rank);
    let when = raising.first.step.map_or(String::new(), |step| match is_shift {
        true => format!(" since {step}"),
        false => format!(" at {step}"),
    });
    let numbers = format!("is {}, its peers' {}", cell.value, cell.expected);
    Verdict {
        detector: SPEC.name.to_owned(),
        case: raising.case,
        phase: Phase::Raised,
        attempt: panel.attempt,
        kind: raising.kind,
        severity: if is_shift { Severity::Warning } else { Severity::Info },
        suspects: vec![Suspect { rank, share: 1.0 }],
        subject: panel.metric.to_string(),
        onset: raising.first.step.map(|step| Onset { step, low: step, high: step }),
        first: raising.first,
        last: label,
        summary: format!("`{}` of {who} {numbers}{when}", panel.metric),
        evidence: vec![Evidence {
            step: label.step,
            rank: Some(rank),
            observed: Some(f64::from(cell.value)),
            expected: Some(f64::from(cell.expected)),
            log10_e: Some(raising.log10_e),
            working: cell.working().after(measured((panel, row), cell.column, raising.scene)),
            ..Evidence::new(SPEC.name, &panel.metric)
        }],
    }
}

impl Judge for RankOutlier {
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
            Observation::Panel(panel) if !panel.is_whole_run() => {
                let metric = &panel.metric;
                let is_known = is_own_work(metric) || is_gradient(metric) || is_local_loss(metric);
                if is_known || OWN.contains(&metric.as_str()) {
                    return Ok(Vec::new());
                }
                budget::RANK_OUTLIER.admit(&self.metrics, &(panel.attempt, metric.clone()))?;
                return Ok((0..panel.rows()).flat_map(|row| self.judge_row(panel, row, scene)).collect());
            }
            _ => {}
        }
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use trainwarden_telemetry::Rank;

    use super::*;
    use crate::detectors::testing::{assert_restores, bare_scene, judge_all, noisy_panel, row_by_row};

    fn verdicts_of(panel: &Panel) -> Vec<Verdict> {
        judge_all(&mut RankOutlier::default(), &mut bare_scene(), &row_by_row(panel))
    }

    #[test]
    fn a_gauge_that_fell_on_one_rank_is_a_shift_after_many_rows() {
        let fell = |row, rank| if rank == 6 && (60..120).contains(&row) { 0.6 } else { 1.0 };
        let panel = noisy_panel("gpu_fan_ratio", 200, 8, fell);
        let verdicts = verdicts_of(&panel);
        let shift = verdicts.iter().find(|verdict| verdict.kind == Kind::MetricShift).expect("it lasted");
        assert_eq!((shift.ranks().next(), shift.severity), (Some(Rank(6)), Severity::Warning));
        assert_eq!(shift.first.step.map(|step| step.0), Some(60));
        assert!(verdicts.iter().any(|verdict| verdict.phase == Phase::Cleared));
        assert_restores(|| Box::new(RankOutlier::default()), &row_by_row(&panel));
    }

    #[test]
    fn a_single_wild_cell_is_information() {
        let verdicts =
            verdicts_of(&noisy_panel("widgets", 80, 8, |row, rank| if (row, rank) == (50, 2) { 5.0 } else { 1.0 }));
        assert_eq!((verdicts[0].kind, verdicts[0].severity), (Kind::MetricOutlier, Severity::Info));
        assert!(verdicts.iter().all(|verdict| verdict.case == 0));
    }

    #[test]
    fn lasting_offsets_waves_of_all_and_known_metrics_say_nothing() {
        let place = |rank: usize| 1.0 + 0.05 * rank as f64;
        let wave = |row: u64| if row > 90 { 1.3 } else { 1.0 + 0.001 * row as f64 };
        assert_eq!(verdicts_of(&noisy_panel("gpu_temp_c", 200, 8, |row, rank| place(rank) + wave(row))), []);
        let slow = |row, rank| if rank == 3 && row > 60 { 9.0 } else { 1.0 };
        for metric in ["comm_time_s", "step_time_s", "grad_norm_local", "tokens", "gpu_sm_clock_hz"] {
            assert_eq!(verdicts_of(&noisy_panel(metric, 120, 8, slow)), [], "{metric}");
        }
        assert_eq!(verdicts_of(&noisy_panel("widgets", 120, 1, |row, _| row as f64)), []);
        assert_eq!(verdicts_of(&noisy_panel("widgets", 120, 8, |_, _| 0.0)), []);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn neither_the_names_of_ranks_nor_the_unit_change_who_stands_apart(
            turn in 0_usize..8, slow in 0_usize..8, exponent in -6_i32..7,
        ) {
            let panel = noisy_panel("widgets", 110, 8, |row, rank| if rank == slow && row >= 50 { 1.5 } else { 1.0 });
            let mut turned = panel.clone();
            for column in 0..8 {
                turned.values.column_mut(column).assign(&panel.values.column((column + turn) % 8));
            }
            turned.values.mapv_inplace(|value| value * 2.0_f32.powi(exponent));
            let facts = |verdict: &Verdict, by: u32| {
                let ranks: Vec<u32> = verdict.ranks().map(|rank| (rank.0 + by) % 8).collect();
                (verdict.phase, verdict.kind, ranks, verdict.first, verdict.last, verdict.evidence[0].log10_e)
            };
            let straight: Vec<_> = verdicts_of(&panel).iter().map(|verdict| facts(verdict, 0)).collect();
            let renamed: Vec<_> = verdicts_of(&turned).iter().map(|verdict| facts(verdict, turn as u32)).collect();
            prop_assert!(!straight.is_empty());
            prop_assert_eq!(straight, renamed);
        }
    }
}
