//! Detects a data-parallel index that reads other data than its peers.
//!
//! # What it finds
//! `loss_local` of one rank lastingly above or below that of its peers: `data.shift`, a warning that names the ranks of
//! its data-parallel index, those that logged it first. Poisoned, corrupted and mislabelled data cost more; trivial or
//! repeated data cost less.
//!
//! # Why it matters
//! Replicas hold equal weights, so only their data can make their losses differ for long; and every gradient of strange
//! data enters all weights.
//!
//! # How it decides
//! Against peers, ranks of one role. A cell is compared with the median of the others as a difference, so that the
//! course of the training cancels; its lasting offset is learned in the first 32 rows, made more exact over 256 rows
//! while nothing speaks against the rank, and frozen. The spread of a row is pooled over the peers and follows them,
//! because it changes by an order as a training goes on: as wide as its 50, 90 and 99 % quantiles ask, without those
//! under suspicion, and inflated by the correlation from row to row. For each rank and direction three e-CUSUMs weigh
//! shifts of a half, one and three spreads against "apart by no more than [`TOLERANCE`] spreads and three standard
//! errors of the offset". A row counts for four spreads at most, so that a hard batch convicts nobody.
//!
//! At the threshold of the budget a finding is verified: it lasted [`ROWS_MIN`] rows, its mean is [`SIZE_MIN`] spreads
//! or more, it stands [`GAP_SPREADS`] robust spreads outside what its peers wander in the same time, and no more than a
//! quarter of them does so with it. Ranks of one data-parallel index are one case. It ends after [`CLEAR_ROWS`] rows in
//! which the mean was below half of what it was and below [`SIZE_MIN`]. Gradients that stand apart with the loss are its
//! effect; a gradient apart alone is told by `gradient_outlier`.
//!
//! # Parameters
//! `DATA_SHIFT` in `budget.rs`, the constants named above and those of `data_shift/series.rs`.
//!
//! # Blind spots
//! Data that is strange from the first row on; groups below four; all indices at once; less than a spread of a row.
//! Poison that costs no more than other data. Shards that are read one after the other, each of another kind, look the
//! same. A forward pass that computes wrongly does so too.
//!
//! # Source
//! E-detectors: Shin, Ramdas, Rinaldo (2022). In synchronous data parallelism replicas differ in their data alone: Li et
//! al., "PyTorch Distributed", VLDB (2020).

mod series;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use trainwarden_kernels::Backend;
use trainwarden_telemetry::{
    Attempt, Evidence, Kind, Label, Metric, Observation, Onset, Panel, Phase, Rank, Severity, Suspect, Verdict,
};

use self::series::{Finding, Series};
use super::label_history::LabelHistory;
use super::measured::measured;
use super::open_case::OpenCase;
use crate::budget::{self, Cadence};
use crate::{Against, DetectError, Judge, Scene, Spec};

const SPEC: Spec = Spec {
    name: "data_shift",
    against: Against::Peers,
    watches: &["samples: loss_local by rank"],
    kinds: &[Kind::DataShift],
};
const VERSION: u8 = 1;
/// Spreads of a row within which nothing is wrong: no two shards are quite alike.
const TOLERANCE: f32 = 0.4;
/// Rows a finding must have lasted.
const ROWS_MIN: u32 = 5;
/// Spreads of a row that its mean must have.
const SIZE_MIN: f32 = 1.0;
/// Robust spreads of the means of the peers outside of which it must stand.
const GAP_SPREADS: f32 = 5.0;
/// Rows below half of its size and `SIZE_MIN` that end a case.
const CLEAR_ROWS: u32 = 20;
/// Labels kept to tell when something began.
const LABELS_MAX: usize = 512;
/// Ranks named at most.
const SUSPECTS_MAX: usize = 16;
const LOSS: &str = "loss_local";

/// True for the metric this detector judges.
pub(crate) fn is_local_loss(metric: &Metric) -> bool {
    metric.as_str() == LOSS
}

/// See the module's page.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct DataShift {
    attempts: BTreeMap<Attempt, Watched>,
    cases: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Watched {
    series: Series,
    labels: LabelHistory,
    cadence: Cadence,
    open: BTreeMap<Reader, Apart>,
}

/// Who reads data: a data-parallel index, or a rank where indices are not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Reader {
    Index(u32),
    Rank(u32),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Apart {
    case: OpenCase,
    /// Columns found, with the mean of each, signed, in spreads of a row.
    members: Vec<(usize, f32)>,
}

impl Watched {
    /// Brings the open cases up to date: those are over whose members are all back.
    fn follow(&mut self, label: Label) -> Vec<Verdict> {
        let (mut verdicts, mut over) = (Vec::new(), Vec::new());
        let series = &self.series;
        self.open.retain(|_, apart| {
            // What lessens as the training goes on is not over: a spread is still far from what peers wander.
            let is_apart = |(column, was): &(usize, f32)| {
                series.spreads_apart(*column) * was.signum() > (0.5 * was.abs()).min(SIZE_MIN)
            };
            let goes_on = apart.members.iter().any(is_apart);
            let Some(cleared) = apart.case.follow(goes_on, label, CLEAR_ROWS) else { return true };
            verdicts.push(cleared);
            over.extend(apart.members.iter().map(|(column, _)| *column));
            false
        });
        over.into_iter().for_each(|column| self.series.acquit(column));
        verdicts
    }

    /// Other ranks log than before: what was learned of them does not hold, and their cases are not followed up.
    fn restart(&mut self, panel: &Panel, scene: &Scene) {
        self.series = Series::new(&panel.ranks, scene.peer_groups(panel.attempt, &panel.ranks));
        self.open.clear();
    }
}

impl DataShift {
    fn judge_row(&mut self, panel: &Panel, row: usize, scene: &Scene) -> Vec<Verdict> {
        let watched = self.attempts.entry(panel.attempt).or_default();
        let label = panel.labels[row];
        if *watched.series.ranks != *panel.ranks {
            watched.restart(panel, scene);
        }
        watched.labels.push(label, LABELS_MAX);
        watched.cadence.see(label);
        let log10_e = scene.budget.log10_e(&budget::DATA_SHIFT, panel.ranks.len(), watched.cadence.row_s());
        let findings = watched.series.observe(panel, row, (log10_e * std::f64::consts::LN_10) as f32);
        let mut verdicts = watched.follow(label);
        for finding in findings {
            let reader = reader(scene, panel, finding.column);
            let member = (finding.column, finding.mean / finding.spread);
            if let Some(apart) = watched.open.get_mut(&reader) {
                apart.members.push(member);
                continue;
            }
            let begin = watched.labels.back(finding.age);
            let said = raise(&finding, reader, begin, Told { panel, row, scene, case: self.cases });
            verdicts.push(said.clone());
            watched.open.insert(reader, Apart { case: OpenCase::new(said, label), members: vec![member] });
            self.cases += 1;
        }
        verdicts
    }
}

fn reader(scene: &Scene, panel: &Panel, column: usize) -> Reader {
    let rank = panel.ranks[column];
    let placement = scene.roster(panel.attempt).and_then(|roster| roster.placements.get(&rank));
    placement.and_then(|placement| placement.dp).map_or(Reader::Rank(rank.0), Reader::Index)
}

/// Who reads the data of an index: first who logged its loss.
fn suspects(reader: Reader, logged: Rank, told: &Told<'_>) -> Vec<Suspect> {
    let mut ranks = vec![logged];
    if let (Reader::Index(index), Some(roster)) = (reader, told.scene.roster(told.panel.attempt)) {
        let of_index = roster.placements.iter().filter(|(_, placement)| placement.dp == Some(index));
        ranks.extend(of_index.map(|(rank, _)| *rank).filter(|rank| *rank != logged));
    }
    let share = 1.0 / ranks.len() as f64;
    ranks.into_iter().take(SUSPECTS_MAX).map(|rank| Suspect { rank, share }).collect()
}

/// What words are made of.
#[derive(Clone, Copy)]
struct Told<'a> {
    panel: &'a Panel,
    row: usize,
    scene: &'a Scene,
    case: u64,
}

fn raise(finding: &Finding, reader: Reader, first: Label, told: Told<'_>) -> Verdict {
    let (panel, label) = (told.panel, told.panel.labels[told.row]);
    let rank = panel.ranks[finding.column];
    let named = told.scene.describe(panel.attempt, rank);
    let who = match reader {
        Reader::Index(index) => format!("data-parallel index {index}, {named},"),
        Reader::Rank(_) => named,
    };
    let side = if finding.mean > 0.0 { "above" } else { "below" };
    let since = first.step.map_or(String::new(), |step| format!(" since {step}"));
    let (size, spreads, peers) = (finding.mean.abs(), (finding.mean / finding.spread).abs(), finding.peers);
    let evidence = Evidence {
        step: label.step,
        rank: Some(rank),
        observed: Some(f64::from(finding.expected + finding.mean)),
        expected: Some(f64::from(finding.expected)),
        low: Some(f64::from(finding.expected - finding.band)),
        high: Some(f64::from(finding.expected + finding.band)),
        log10_e: Some(finding.log10_e),
        working: finding.working().after(measured((panel, told.row), finding.column, told.scene)),
        ..Evidence::new(SPEC.name, &panel.metric)
    };
    Verdict {
        detector: SPEC.name.to_owned(),
        case: told.case,
        phase: Phase::Raised,
        attempt: panel.attempt,
        kind: Kind::DataShift,
        severity: Severity::Warning,
        suspects: suspects(reader, rank, &told),
        subject: panel.metric.to_string(),
        onset: first.step.map(|step| Onset { step, low: step, high: step }),
        first,
        last: label,
        summary: format!(
            "the loss of {who} is {size:.3} {side} that of its {peers} peers{since}: {spreads:.1} times what a batch varies"
        ),
        evidence: vec![evidence],
    }
}

impl Judge for DataShift {
    const SPEC: Spec = SPEC;
    const VERSION: u8 = VERSION;

    fn judge(
        &mut self,
        seen: &Observation,
        scene: &Scene,
        _backend: &mut dyn Backend,
    ) -> Result<Vec<Verdict>, DetectError> {
        match seen {
            Observation::Attempt(start) => self.attempts.retain(|attempt, _| *attempt >= start.attempt),
            Observation::Panel(panel) if !panel.is_whole_run() && is_local_loss(&panel.metric) => {
                return Ok((0..panel.rows()).flat_map(|row| self.judge_row(panel, row, scene)).collect());
            }
            _ => {}
        }
        Ok(Vec::new())
    }
}
