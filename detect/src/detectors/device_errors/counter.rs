//! A counter of errors, rank by rank, against what the other ranks and healthy devices count.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use trainwarden_kernels::count_evidence;
use trainwarden_telemetry::{Label, Panel, Rank, Verdict};

use super::{PEER_FACTOR, QUIET_ROWS, ROW_COUNT_MAX, ROWS_MIN};
use crate::budget::Cadence;
use crate::detectors::open_case::OpenCase;

/// Alternatives: times what is expected.
const FACTORS: [f64; 3] = [10.0, 100.0, 1_000.0];
/// Evidence is kept up to this many times the threshold.
const EVIDENCE_CAP: f64 = 2.0;
/// Seconds between rows where they have no times.
const ROW_S_UNKNOWN: f64 = 1.0;

/// A rank that counts too many, with its numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Finding {
    pub(super) column: usize,
    pub(super) first: Label,
    /// Rows since then, what was counted in them, and what may have been.
    pub(super) rows: u32,
    pub(super) count: f64,
    pub(super) expected: f64,
    pub(super) log10_e: f64,
}

/// What speaks against one column since it last was in order.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Suspicion {
    sums: [f64; 3],
    first: Label,
    rows: u32,
    rows_with: u32,
    count: f64,
    expected: f64,
}

/// One counter of one attempt.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Counter {
    ranks: Vec<Rank>,
    cadence: Cadence,
    last: Label,
    /// Errors counted so far by each column, clipped, and by all; and for how many seconds each column spoke on average.
    own: Vec<f32>,
    total: f64,
    seconds: f64,
    /// Columns that counted something of late; the others are not kept.
    suspicions: BTreeMap<usize, Suspicion>,
    open: BTreeMap<usize, OpenCase>,
}

impl Counter {
    /// Takes in a row; gives the ranks that count too many from now on.
    ///
    /// * `floor`: errors a second of a healthy device.
    /// * `log10_e`: evidence needed, of the seconds between rows.
    pub(super) fn observe(
        &mut self,
        panel: &Panel,
        row: usize,
        floor: f64,
        log10_e: impl Fn(Option<f64>) -> f64,
    ) -> Vec<Finding> {
        let label = panel.labels[row];
        if *self.ranks != *panel.ranks {
            let ranks = panel.ranks.to_vec();
            *self = Self { own: vec![0.0; ranks.len()], ranks, cadence: self.cadence, ..Self::default() };
        }
        let row_s = self.row_s(label);
        self.cadence.see(label);
        let threshold = log10_e(self.cadence.row_s()) * std::f64::consts::LN_10 + (FACTORS.len() as f64).ln();
        let peers = (self.ranks.len() - 1).max(1) as f64;
        let mut findings = Vec::new();
        let mut counted = 0.0;
        for column in 0..self.ranks.len() {
            let Some(count) = panel.value(row, column).filter(|count| count.is_finite()) else { continue };
            let count = f64::from(count.max(0.0));
            if count == 0.0 && !self.suspicions.contains_key(&column) {
                continue;
            }
            let others = (self.total - f64::from(self.own[column])).max(0.0);
            let rate = if self.seconds > 0.0 { others / (peers * self.seconds) } else { 0.0 };
            let expected = (PEER_FACTOR * rate).max(floor) * row_s;
            let clipped = count.min(ROW_COUNT_MAX + ROW_COUNT_MAX * expected);
            findings.extend(self.weigh(column, label, (count, clipped, expected), threshold));
            // Who was named is no measure of what is normal.
            if !self.open.contains_key(&column) {
                self.own[column] += clipped as f32;
                counted += clipped;
            }
        }
        self.total += counted;
        self.seconds += row_s;
        findings
    }

    /// Seconds since the row before.
    fn row_s(&mut self, label: Label) -> f64 {
        let before = std::mem::replace(&mut self.last, label);
        let since = label.time.zip(before.time).map(|(now, before)| now.seconds_since(before));
        since.or(self.cadence.row_s()).filter(|seconds| *seconds > 0.0).unwrap_or(ROW_S_UNKNOWN)
    }

    /// Adds a row to what speaks against a column.
    fn weigh(
        &mut self,
        column: usize,
        label: Label,
        (count, clipped, expected): (f64, f64, f64),
        threshold: f64,
    ) -> Option<Finding> {
        let fresh = Suspicion { sums: [0.0; 3], first: label, rows: 0, rows_with: 0, count: 0.0, expected: 0.0 };
        let suspicion = self.suspicions.entry(column).or_insert(fresh);
        let mut most = 0.0_f64;
        for (sum, factor) in suspicion.sums.iter_mut().zip(FACTORS) {
            *sum = (*sum + count_evidence(clipped, expected, factor)).clamp(0.0, EVIDENCE_CAP * threshold);
            most = most.max(*sum);
        }
        suspicion.rows += 1;
        suspicion.rows_with += u32::from(count > 0.0);
        suspicion.count += count;
        suspicion.expected += expected;
        let found = *suspicion;
        if most == 0.0 {
            self.suspicions.remove(&column);
        }
        let is_found = most >= threshold && found.rows_with >= ROWS_MIN && !self.open.contains_key(&column);
        is_found.then(|| Finding {
            column,
            first: found.first,
            rows: found.rows,
            count: found.count,
            expected: found.expected,
            log10_e: (most - (FACTORS.len() as f64).ln()) * std::f64::consts::LOG10_E,
        })
    }

    /// Ends the cases whose rank counted nothing for long.
    pub(super) fn follow(&mut self, panel: &Panel, row: usize) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        let suspicions = &mut self.suspicions;
        self.open.retain(|column, case| {
            let Some(count) = panel.value(row, *column) else { return true };
            let Some(cleared) = case.follow(count > 0.0, panel.labels[row], QUIET_ROWS) else { return true };
            suspicions.remove(column);
            verdicts.push(cleared);
            false
        });
        verdicts
    }

    /// A finding was told.
    pub(super) fn open(&mut self, column: usize, said: Verdict) {
        let last = said.last;
        self.open.insert(column, OpenCase::new(said, last));
    }
}
