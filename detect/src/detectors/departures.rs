//! Cells that depart from their peers: offsets and tails learned in the first rows, then evidence a cell.
//!
//! A departure is measured in units of a *scale*: the spread of the peers now, taken as the median absolute departure
//! over the group. The scale is the median of the last rows' spreads, which also holds in groups too small for a spread
//! of a row; or half of the row's own, where that suddenly is far larger; or a part of the typical one while learned,
//! for rows of which more than half are equal. The tail is learned in that unit, so that noise which grows or falls as
//! the training goes on changes nothing.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use trainwarden_kernels::{Middle, quantile_in_place, tail_evidence};
use trainwarden_telemetry::{Panel, Rank, Working};

use crate::Scene;
use crate::series::push;

/// Rows from which offsets and tails are learned.
pub(crate) const WARM_ROWS: u32 = 32;
/// Groups below this size name nobody.
pub(crate) const GROUP_MIN: usize = 4;
/// Rows over which the usual spread is taken: some, so that one lucky row makes nobody stand out.
const SPREAD_ROWS: usize = 16;
/// Part of a row's own spread that the scale never falls below: half, since one row of few cells tells its own to a
/// third only, and what lasts must not be lost in a wide row.
const ROW_PART: f32 = 0.5;
/// Part of the spread while learned that the scale never falls below. Frozen offsets are known to a fifth of that
/// spread, so that their error stays below half of the scale.
const SPREAD_FLOOR: f32 = 0.5;

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
    /// The size that one in a hundred healthy cells reaches in this row; NaN while it is learned.
    pub(crate) q99: f32,
    /// ... and one in ten.
    pub(crate) q90: f32,
    pub(crate) log10_e: f64,
}

impl Departure {
    /// How the evidence of the cell follows from what was measured.
    pub(crate) fn working(&self) -> Working {
        Working::new(&RULES)
            .with("size", self.size)
            .with("q90", self.q90)
            .with("q99", self.q99)
            .with("log10_e_of_row", self.log10_e)
    }
}

/// How the evidence of a cell follows from its figures.
const RULES: [&str; 5] = [
    "size = value / peers_median - 1 - offset, or value - peers_median - offset for differences",
    "offset = the rank's median of that in the first 32 rows; q90, q99 = scale x what 90 and 99 of 100 healthy \
     sizes of those rows stayed below, in scales",
    "scale = max(median spread of the last 16 rows, half of this row's, half of the typical one of the first 32); \
     the spread of a row is the median size in it",
    "e of a row = 0.5 (2 + (|size| - q99) / (q99 - q90)) + log10(0.5) where |size| > q99, else 0",
    "log10_e = that of this row, or the sum over the rows that depart alike: of the last three for gradients, since it \
     began for shifts",
];

/// Columns whose ranks are peers, and how far they are apart.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Group {
    columns: Vec<usize>,
    /// Sizes in scales that nine of ten and 99 of 100 healthy cells stay below; `None` while they are learned.
    tail: Option<[f32; 2]>,
    /// Spreads of the last rows.
    spreads: VecDeque<f32>,
    /// Typical spread while learned.
    typical: f32,
}

impl Group {
    /// The scale of a row, from the departures in it, offsets taken out: see the module's page. Reorders its argument.
    fn scale(&mut self, sizes: &mut [f32]) -> f32 {
        let spread = median_in_place(sizes);
        push(&mut self.spreads, spread, SPREAD_ROWS);
        let mut recent: Vec<f32> = self.spreads.iter().copied().collect();
        median_in_place(&mut recent).max(ROW_PART * spread).max(SPREAD_FLOOR * self.typical)
    }

    /// Learns spread and tail from [rows, cells] absolute departures, offsets taken out.
    fn learn(&mut self, rows: &[Vec<f32>]) {
        let mut spreads: Vec<f32> = rows.iter().map(|sizes| median_in_place(&mut sizes.clone())).collect();
        self.typical = median_in_place(&mut spreads);
        if self.typical <= 0.0 {
            // Most cells of most rows are equal: what the others do is all there is.
            let cells: usize = rows.iter().map(Vec::len).sum();
            self.typical =
                (rows.iter().flatten().map(|size| f64::from(*size)).sum::<f64>() / cells.max(1) as f64) as f32;
        }
        let mut scaled = Vec::new();
        for sizes in rows.iter().filter(|sizes| sizes.len() >= GROUP_MIN) {
            let scale = self.scale(&mut sizes.clone());
            scaled.extend(sizes.iter().map(|size| size / scale).filter(|size| size.is_finite()));
        }
        let q90 = quantile_in_place(&mut scaled, 0.90);
        let q99 = quantile_in_place(&mut scaled, 0.99);
        // A tail no shorter than that of normal data, whatever few cells happened to say.
        self.tail = q90.zip(q99).map(|(q90, q99)| [q90, q99.max(1.57 * q90)]);
    }
}

/// The median, 0 of nothing. Reorders its argument.
fn median_in_place(values: &mut [f32]) -> f32 {
    match values {
        [] => 0.0,
        [only] => *only,
        many => Middle::of(many).map_or(0.0, |middle| middle.median()),
    }
}

/// Learns one metric of one attempt.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Departures {
    compare: Compare,
    pub(crate) ranks: Vec<Rank>,
    pub(crate) rows: u32,
    groups: Vec<Group>,
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
            groups: groups.map(|columns| Group { columns, ..Group::default() }).collect(),
            offset: vec![0.0; panel.ranks.len()],
            ..Self::default()
        };
        true
    }

    /// Takes in a row and gives every cell that has peers, by group; a group where more than a quarter departs gives
    /// none with evidence, for then it is no rank's own.
    pub(crate) fn observe(&mut self, panel: &Panel, row: usize) -> Vec<Departure> {
        self.rows += 1;
        let is_warming = self.rows <= WARM_ROWS;
        let mut sizes = vec![f32::NAN; if is_warming { self.ranks.len() } else { 0 }];
        let mut cells = Vec::with_capacity(self.ranks.len());
        let mut absolute = Vec::new();
        for group in &mut self.groups {
            let usable = |column: &usize| panel.value(row, *column).filter(|value| value.is_finite());
            let mut values: Vec<f32> = group.columns.iter().filter_map(usable).collect();
            let Some(middle) = Middle::of(&mut values).filter(|_| values.len() >= GROUP_MIN) else { continue };
            let begin = cells.len();
            for (column, value) in group.columns.iter().filter_map(|column| Some((*column, usable(column)?))) {
                let expected = middle.without(value);
                let size = self.compare.size(value, expected);
                if is_warming {
                    sizes[column] = size;
                }
                let size = size - self.offset[column];
                cells.push(Departure { column, value, expected, size, q99: f32::NAN, q90: f32::NAN, log10_e: 0.0 });
            }
            let Some([q90, q99]) = group.tail else { continue };
            absolute.clear();
            absolute.extend(cells[begin..].iter().map(|cell| cell.size.abs()).filter(|size| size.is_finite()));
            let scale = group.scale(&mut absolute);
            for cell in &mut cells[begin..] {
                (cell.q90, cell.q99) = (q90 * scale, q99 * scale);
                cell.log10_e = tail_evidence(cell.size.abs(), cell.q90, cell.q99);
            }
            let many = cells[begin..].iter().filter(|cell| cell.log10_e > 1.0).count();
            if many > (group.columns.len() / 4).max(1) {
                cells[begin..].iter_mut().for_each(|cell| cell.log10_e = 0.0);
            }
        }
        self.warm.extend_from_slice(&sizes);
        if self.rows == WARM_ROWS {
            self.learn();
        }
        cells
    }

    fn learn(&mut self) {
        let width = self.ranks.len();
        for group in &mut self.groups {
            for column in group.columns.iter().copied() {
                let history = self.warm.iter().skip(column).step_by(width).copied();
                let mut history: Vec<f32> = history.filter(|size| size.is_finite()).collect();
                self.offset[column] = median_in_place(&mut history);
            }
            let departures = |row: &[f32]| -> Vec<f32> {
                let sizes = group.columns.iter().map(|column| (row[*column] - self.offset[*column]).abs());
                sizes.filter(|size| size.is_finite()).collect()
            };
            let rows: Vec<Vec<f32>> = self.warm.chunks_exact(width).map(departures).collect();
            group.learn(&rows);
        }
        self.warm = Vec::new();
    }
}

impl Compare {
    fn size(self, value: f32, expected: f32) -> f32 {
        match self {
            Self::Ratio => value / expected - 1.0,
            Self::Difference => value - expected,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detectors::testing::{Noise, bare_scene, rank_panel};

    /// Evidence of every cell of rows of eight ranks whose noise is `sigma` of the row.
    fn evidence_of(compare: Compare, ranks: usize, cell: impl Fn(u64, usize, f64) -> f64) -> Vec<Departure> {
        let mut noise = Noise(11);
        let row = |row: u64| -> Vec<Option<f32>> {
            (0..ranks).map(|rank| Some(cell(row, rank, noise.normal()) as f32)).collect()
        };
        let panel = rank_panel("m", 0, &(0..1_000).map(row).collect::<Vec<_>>());
        let mut departures = Departures::default();
        departures.follow(compare, &panel, &bare_scene());
        (0..panel.rows()).flat_map(|row| departures.observe(&panel, row)).collect()
    }

    fn strongest(cells: &[Departure]) -> f64 {
        cells.iter().map(|cell| cell.log10_e).fold(0.0, f64::max)
    }

    #[test]
    fn noise_that_grows_or_falls_after_the_warm_up_gives_no_evidence() {
        for ranks in [4, 8, 16] {
            // The loss falls from 10 nats to 2, its noise stays.
            let level = |row: u64| 2.0 + 8.0 / (1.0 + row as f64 / 15.0);
            let falling = evidence_of(Compare::Ratio, ranks, |row, _, noise| level(row) + 0.02 * noise);
            assert!(strongest(&falling) < 4.0, "{ranks} ranks, {}", strongest(&falling));
            for last in [5.0, 0.2] {
                let sigma = |row: u64| if row < 64 { 1.0 } else { last };
                let other = evidence_of(Compare::Difference, ranks, |row, _, noise| 50.0 + sigma(row) * noise);
                assert!(strongest(&other[70 * ranks..]) < 4.0, "{ranks} ranks, {last}: {}", strongest(&other));
            }
        }
    }

    #[test]
    fn one_far_cell_is_as_strong_after_the_noise_grew_as_before_in_its_unit() {
        let is_far = |row: u64, rank: usize| rank == 3 && row >= 100 && row.is_multiple_of(10);
        let sigma = |row: u64| if row < 500 { 0.01 } else { 0.05 };
        let part = |row, rank, noise| if is_far(row, rank) { 12.0 } else { noise };
        let cells = evidence_of(Compare::Ratio, 16, |row, rank, noise| 1.0 + sigma(row) * part(row, rank, noise));
        let mean = |from: usize| (0..40).map(|row| cells[(from + 10 * row) * 16 + 3].log10_e).sum::<f64>() / 40.0;
        let (before, after) = (mean(100), mean(520));
        assert!(before > 3.0 && (before - after).abs() < 0.2 * before, "{before} {after}");
    }

    #[test]
    fn rows_of_equal_cells_divide_by_nothing() {
        let equal = evidence_of(Compare::Difference, 8, |_, _, _| 3.0);
        assert!(strongest(&equal) == 0.0 && equal.iter().all(|cell| cell.size == 0.0));
        let whole = evidence_of(Compare::Difference, 8, |_, _, noise| (0.4 * noise).round());
        assert!(strongest(&whole) < 4.0, "{}", strongest(&whole));
    }
}
