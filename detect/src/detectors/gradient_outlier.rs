//! Detects a rank whose gradient stands apart from its data-parallel peers'.
//!
//! # What it finds
//! `grad_norm_local` (before all-reduce) or `grad_cosine_local` of one rank, far from its peers':
//! `gradient.outlier_rank`. Where its loss stands apart too, its data is strange: `data_shift` tells, and this is part
//! of it.
//!
//! # Why it matters
//! A device that computes wrongly, or a rank that is fed or scales wrongly, enters every weight through the all-reduce.
//!
//! # How it decides
//! Against peers, ranks of one role. A cell is compared with the median of the others (as a ratio; cosines as a
//! difference). Offsets and the tail of the departures are learned in the first 32 rows; a departure beyond the tail is
//! an e-value by its decades. Two departures in the same direction within three rows must together reach the budget;
//! one row convicts when it is [`ENORMOUS`] times the peers' or a hundredth, also while the tail is learned. A cosine
//! below zero in [`OPPOSED_ROWS`] rows in a row, while the peers' is above [`ALIGNED`], convicts at once. A case ends
//! after [`CLEAR_ROWS`] rows without departure. Critical when enormous or opposed; a warning otherwise.
//!
//! # Parameters
//! `GRADIENT_OUTLIER` in `budget.rs`, [`ENORMOUS`], [`OPPOSED_ROWS`], [`ALIGNED`], [`CLEAR_ROWS`], and those of
//! `departures.rs`.
//!
//! # Blind spots
//! Groups below four. Wrong values of normal size: see the replica digests. A quarter of the group at once.
//!
//! # Source
//! AEGIS-SDC (OSDI 2026), local gradient norms across data-parallel ranks before the all-reduce.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use trainwarden_kernels::Backend;
use trainwarden_telemetry::{
    Attempt, Evidence, Kind, Label, Metric, Observation, Onset, Panel, Phase, Severity, Suspect, Verdict,
};

use super::departures::{Compare, Departure, Departures};
use super::measured::measured;
use super::open_case::OpenCase;
use crate::budget::{self, Cadence};
use crate::{Against, DetectError, Judge, Scene, Spec};

const SPEC: Spec = Spec {
    name: "gradient_outlier",
    against: Against::Peers,
    watches: &["samples: grad_norm_local", "samples: grad_cosine_local"],
    kinds: &[Kind::GradientRank],
};
const VERSION: u8 = 2;
/// Times the peers' value that convicts in one row.
const ENORMOUS: f32 = 100.0;
/// Rows with a negative cosine that convict.
const OPPOSED_ROWS: u32 = 3;
/// Least cosine of the peers that makes a negative one strange.
const ALIGNED: f32 = 0.05;
/// Rows without departure that end a case.
const CLEAR_ROWS: u32 = 20;
const COSINE: &str = "grad_cosine_local";

/// True for metrics this detector judges.
pub(crate) fn is_gradient(metric: &Metric) -> bool {
    ["grad_norm_local", COSINE].contains(&metric.as_str())
}

/// See the module's page.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct GradientOutlier {
    metrics: BTreeMap<(Attempt, Metric), Watched>,
    cases: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Watched {
    departures: Departures,
    cadence: Cadence,
    /// Per column, the last three rows: signed e-values, newest first; and the rows with a negative cosine in a row.
    recent: Vec<[f64; 3]>,
    opposed: Vec<u32>,
    labels: [Label; 3],
    open: BTreeMap<usize, OpenCase>,
}

impl Watched {
    /// Adds a cell to what is known of its column; gives severity, evidence and rows it took when it convicts.
    fn weigh(&mut self, cell: &Departure, is_cosine: bool, threshold: f64) -> Option<(Severity, Option<f64>, usize)> {
        let recent = &mut self.recent[cell.column];
        *recent = [cell.log10_e * f64::from(cell.size.signum()), recent[0], recent[1]];
        let is_opposed = is_cosine && cell.value < 0.0 && cell.expected > ALIGNED;
        let opposed = &mut self.opposed[cell.column];
        *opposed = if is_opposed { *opposed + 1 } else { 0 };
        let ratio = (cell.value / cell.expected).abs();
        let is_enormous = !is_cosine && (ratio >= ENORMOUS || ratio <= 1.0 / ENORMOUS);
        if is_enormous {
            return Some((Severity::Critical, (cell.log10_e > 0.0).then_some(cell.log10_e), 1));
        }
        if *opposed >= OPPOSED_ROWS {
            return Some((Severity::Critical, None, OPPOSED_ROWS as usize));
        }
        let same = recent.iter().filter(|e| e.signum() == recent[0].signum() && e.abs() > 1.0);
        let (count, sum) = same.fold((0, 0.0), |(count, sum), e| (count + 1, sum + e.abs()));
        let oldest = recent.iter().rposition(|e| e.abs() > 1.0).unwrap_or(0);
        (recent[0] != 0.0 && count >= 2 && sum >= threshold).then_some((Severity::Warning, Some(sum), oldest + 1))
    }
}

impl GradientOutlier {
    fn judge_row(&mut self, panel: &Panel, row: usize, scene: &Scene) -> Vec<Verdict> {
        let watched = self.metrics.entry((panel.attempt, panel.metric.clone())).or_default();
        let is_cosine = panel.metric.as_str() == COSINE;
        let compare = if is_cosine { Compare::Difference } else { Compare::Ratio };
        if watched.departures.follow(compare, panel, scene) {
            let width = panel.ranks.len();
            let (departures, cadence) = (std::mem::take(&mut watched.departures), watched.cadence);
            *watched = Watched { departures, cadence, ..Watched::default() };
            (watched.recent, watched.opposed) = (vec![[0.0; 3]; width], vec![0; width]);
        }
        let label = panel.labels[row];
        watched.labels = [label, watched.labels[0], watched.labels[1]];
        watched.cadence.see(label);
        let row_s = watched.cadence.row_s();
        let threshold = scene.budget.log10_e(&budget::GRADIENT_OUTLIER, panel.ranks.len(), row_s);
        let mut verdicts = Vec::new();
        for cell in watched.departures.observe(panel, row) {
            let found = watched.weigh(&cell, is_cosine, threshold);
            let departs = cell.log10_e > 1.0 || found.is_some();
            if let Some(case) = watched.open.get_mut(&cell.column) {
                if let Some(cleared) = case.follow(departs, label, CLEAR_ROWS) {
                    verdicts.push(cleared);
                    watched.open.remove(&cell.column);
                }
            } else if let Some(found) = found {
                let said = raise(panel, row, &cell, Raising { case: self.cases, found, labels: watched.labels, scene });
                verdicts.push(said.clone());
                watched.open.insert(cell.column, OpenCase::new(said, label));
                self.cases += 1;
            }
        }
        verdicts
    }
}

struct Raising<'a> {
    case: u64,
    found: (Severity, Option<f64>, usize),
    labels: [Label; 3],
    scene: &'a Scene,
}

fn raise(panel: &Panel, row: usize, cell: &Departure, raising: Raising<'_>) -> Verdict {
    let (severity, log10_e, rows) = raising.found;
    let label = panel.labels[row];
    let first = raising.labels[rows - 1];
    let rank = panel.ranks[cell.column];
    let who = raising.scene.describe(panel.attempt, rank);
    let when = label.step.map_or(String::new(), |step| format!(" at {step}"));
    Verdict {
        detector: SPEC.name.to_owned(),
        case: raising.case,
        phase: Phase::Raised,
        attempt: panel.attempt,
        kind: Kind::GradientRank,
        severity,
        suspects: vec![Suspect { rank, share: 1.0 }],
        subject: panel.metric.to_string(),
        onset: first.step.zip(label.step).map(|(step, high)| Onset { step, low: step, high }),
        first,
        last: label,
        summary: format!("`{}` of {who} is {:.4}, its peers' {:.4}{when}", panel.metric, cell.value, cell.expected),
        evidence: vec![Evidence {
            step: label.step,
            rank: Some(rank),
            observed: Some(f64::from(cell.value)),
            expected: Some(f64::from(cell.expected)),
            log10_e,
            working: cell.working().after(measured((panel, row), cell.column, raising.scene)),
            ..Evidence::new(SPEC.name, &panel.metric)
        }],
    }
}

impl Judge for GradientOutlier {
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
            Observation::Panel(panel) if !panel.is_whole_run() && is_gradient(&panel.metric) => {
                budget::GRADIENT_OUTLIER.admit(&self.metrics, &(panel.attempt, panel.metric.clone()))?;
                return Ok((0..panel.rows()).flat_map(|row| self.judge_row(panel, row, scene)).collect());
            }
            _ => {}
        }
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use trainwarden_telemetry::{Rank, Step};

    use super::*;
    use crate::detectors::testing::{assert_restores, bare_scene, judge_all, noisy_panel, row_by_row};

    fn verdicts_of(panel: &Panel) -> Vec<Verdict> {
        judge_all(&mut GradientOutlier::default(), &mut bare_scene(), &row_by_row(panel))
    }

    #[test]
    fn a_rank_with_twice_the_gradient_of_its_peers_is_named_within_three_rows_and_cleared() {
        let wrong = |row, rank| if rank == 5 && (60..80).contains(&row) { 2.0 } else { 1.0 };
        let panel = noisy_panel("grad_norm_local", 120, 8, wrong);
        let verdicts = verdicts_of(&panel);
        assert_eq!(verdicts.iter().map(|verdict| verdict.phase).collect::<Vec<_>>(), [Phase::Raised, Phase::Cleared]);
        assert_eq!(verdicts[0].ranks().collect::<Vec<_>>(), [Rank(5)]);
        assert_eq!(verdicts[0].severity, Severity::Warning);
        assert!(verdicts[0].last.step <= Some(Step(62)));
        assert_restores(|| Box::new(GradientOutlier::default()), &row_by_row(&panel));
    }

    #[test]
    fn one_enormous_row_is_critical_even_while_the_tail_is_learned() {
        let verdicts =
            verdicts_of(&noisy_panel(
                "grad_norm_local",
                40,
                4,
                |row, rank| if (row, rank) == (3, 1) { 200.0 } else { 1.0 },
            ));
        assert_eq!((verdicts[0].severity, verdicts[0].ranks().next()), (Severity::Critical, Some(Rank(1))));
    }

    #[test]
    fn a_gradient_against_the_others_is_critical_and_cosines_near_zero_are_not() {
        let opposed = |row, rank| if rank == 2 && row >= 50 { -1.0 } else { 1.0 };
        let verdicts = verdicts_of(&noisy_panel(COSINE, 80, 8, opposed));
        assert_eq!((verdicts[0].ranks().next(), verdicts[0].kind), (Some(Rank(2)), Kind::GradientRank));
        let tiny = verdicts_of(&noisy_panel(COSINE, 80, 8, |row, _| if row % 2 == 0 { 0.01 } else { -0.01 }));
        assert_eq!(tiny, []);
    }

    #[test]
    fn a_hard_batch_a_spike_of_all_and_lasting_offsets_name_nobody() {
        let hard = |row, rank| if (row, rank) == (70, 3) { 1.6 } else { 1.0 };
        let all = |row: u64| if row == 90 { 30.0 } else { 1.0 };
        let offset = |rank: usize| 1.0 + 0.1 * rank as f64;
        let panel = noisy_panel("grad_norm_local", 200, 8, |row, rank| hard(row, rank) * all(row) * offset(rank));
        assert_eq!(verdicts_of(&panel), []);
        assert_eq!(verdicts_of(&noisy_panel("grad_norm_local", 100, 1, |row, _| 1.0 + row as f64)), []);
        assert_eq!(verdicts_of(&noisy_panel("grad_norm_local", 0, 4, |_, _| 1.0)), []);
    }
}
