//! Cells that depart from their peers: offsets and tails learned in the first rows, then evidence a cell.

use serde::{Deserialize, Serialize};
use trainwarden_kernels::{Middle, quantile_in_place, tail_evidence};
use trainwarden_telemetry::{Panel, Rank};

use crate::Scene;

/// Rows from which offsets and tails are learned.
pub(crate) const WARM_ROWS: u32 = 32;
/// Groups below this size name nobody.
pub(crate) const GROUP_MIN: usize = 4;

/// How a cell is compared with the median of its peers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Compare {
    /// Value over median, less one: for what is positive.
    #[default]
    Ratio,
    /// Value less median.
    Difference,
}

/// One cell against its peers in this row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Departure {
    pub(crate) column: usize,
    pub(crate) value: f32,
    /// Median of the peers.
    pub(crate) expected: f32,
    /// By how much it departs, the rank's own offset taken out: signed, in the unit of the comparison.
    pub(crate) size: f32,
    /// The size that one in a hundred healthy cells reaches; NaN while it is learned.
    pub(crate) q99: f32,
    pub(crate) log10_e: f64,
}

/// Learns one metric of one attempt.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Departures {
    compare: Compare,
    pub(crate) ranks: Vec<Rank>,
    pub(crate) rows: u32,
    groups: Vec<(Vec<usize>, [f32; 2])>,
    /// [rows, ranks] raw sizes of the first rows, NaN = absent; emptied when they are learned.
    warm: Vec<f32>,
    offset: Vec<f32>,
}

impl Departures {
    /// Learns `panel`'s columns with this comparison; other columns than before start learning again.
    pub(crate) fn follow(&mut self, compare: Compare, panel: &Panel, scene: &Scene) -> bool {
        if *self.ranks == *panel.ranks {
            return false;
        }
        let groups = scene.peer_groups(panel.attempt, &panel.ranks);
        let groups = groups.into_iter().filter(|columns| columns.len() >= GROUP_MIN);
        *self = Self {
            compare,
            ranks: panel.ranks.to_vec(),
            groups: groups.map(|columns| (columns, [f32::NAN; 2])).collect(),
            offset: vec![0.0; panel.ranks.len()],
            ..Self::default()
        };
        true
    }

    /// Takes in a row and gives every cell that has peers, by group; a group where more than a quarter departs gives
    /// none with evidence, for then it is no rank's own.
    pub(crate) fn observe(&mut self, panel: &Panel, row: usize) -> Vec<Departure> {
        self.rows += 1;
        let width = self.ranks.len();
        let mut sizes = vec![f32::NAN; width];
        let mut cells = Vec::with_capacity(width);
        for (columns, tail) in &self.groups {
            let usable = |column: &usize| panel.value(row, *column).filter(|value| value.is_finite());
            let mut values: Vec<f32> = columns.iter().filter_map(usable).collect();
            let Some(middle) = Middle::of(&mut values).filter(|_| values.len() >= GROUP_MIN) else { continue };
            let begin = cells.len();
            for (column, value) in columns.iter().filter_map(|column| Some((*column, usable(column)?))) {
                let expected = middle.without(value);
                sizes[column] = self.size(value, expected);
                let size = sizes[column] - self.offset[column];
                let log10_e = tail_evidence(size.abs(), tail[0], tail[1]);
                cells.push(Departure { column, value, expected, size, q99: tail[1], log10_e });
            }
            let group = &mut cells[begin..];
            let many = group.iter().filter(|cell| cell.log10_e > 1.0).count();
            if many > (columns.len() / 4).max(1) {
                group.iter_mut().for_each(|cell| cell.log10_e = 0.0);
            }
        }
        if self.rows <= WARM_ROWS {
            self.warm.extend_from_slice(&sizes);
        }
        if self.rows == WARM_ROWS {
            self.learn();
        }
        cells
    }

    fn size(&self, value: f32, expected: f32) -> f32 {
        match self.compare {
            Compare::Ratio => value / expected - 1.0,
            Compare::Difference => value - expected,
        }
    }

    fn learn(&mut self) {
        let width = self.ranks.len();
        for (columns, tail) in &mut self.groups {
            let mut residuals = Vec::new();
            for column in columns.iter().copied() {
                let history = self.warm.iter().skip(column).step_by(width).copied();
                let mut history: Vec<f32> = history.filter(|size| size.is_finite()).collect();
                let sizes = history.clone();
                self.offset[column] = Middle::of(&mut history).map_or(0.0, |middle| middle.median());
                residuals.extend(sizes.iter().map(|size| (size - self.offset[column]).abs()));
            }
            let q90 = quantile_in_place(&mut residuals, 0.90).unwrap_or(f32::NAN);
            let q99 = quantile_in_place(&mut residuals, 0.99).unwrap_or(f32::NAN);
            // A tail no shorter than that of normal data, whatever few cells happened to say.
            *tail = [q90, q99.max(1.57 * q90)];
        }
        self.warm = Vec::new();
    }
}
