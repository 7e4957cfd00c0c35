//! Finds stretches of one metric that were seen before, in bounded memory.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use trainwarden_telemetry::{Label, Panel, Rank};

/// Values hashed together; long enough that full-precision noise convicts by one window.
pub(crate) const WINDOW: usize = 16;
/// One window in so many is kept and looked up, chosen by its content; fewer where there are many series.
pub(crate) const ANCHOR_EVERY: u64 = 16;
/// Rows a kept window is remembered.
pub(crate) const HISTORY_ROWS: u64 = 1_024;
/// Windows kept of all series together, about: eight megabytes a metric, however many ranks have it.
const ANCHORS_MAX: u64 = 1 << 17;
/// Bits of noise that must agree beyond what the number of comparisons explains.
pub(crate) const BITS_MIN: f64 = 64.0;
/// Rows in which a series moved after which it is known to be noisy or not.
pub(crate) const NOISY_ROWS: u32 = 64;
/// A series is noisy when it turns at least once in so many rows; independent noise turns in two of three.
const ROWS_PER_TURN: u32 = 4;
/// Windows a series must have looked up before its equality with another is news and not its nature.
const ALONE_MIN: u32 = 4;
/// Odd multiplier of the rolling hash (the golden ratio in 64 bits).
const BASE: u64 = 0x9E37_79B9_7F4A_7C15;

/// A stretch that was seen before.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Found {
    /// Whose; `None` for the whole run.
    pub(crate) rank: Option<Rank>,
    /// Whose it was and how many rows before; `None` when the series stands still.
    pub(crate) source: Option<(Option<Rank>, u64)>,
    /// Rows that agree.
    pub(crate) length: u64,
    /// Label of the first of them.
    pub(crate) first: Label,
    /// Bits of noise that agree.
    pub(crate) bits: f64,
    /// Bits that convict.
    pub(crate) bits_needed: f64,
}

/// What is remembered of one series.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Series {
    /// Bits of the last values, a ring indexed by `rows % WINDOW`.
    ring: [u32; WINDOW],
    hash: u64,
    rows: u32,
    whole_numbers: u32,
    turns: u32,
    is_rising: bool,
    /// Pairs of values that were equal: with each of the window before, and with the one before.
    equal_window: u32,
    equal_before: u32,
    low: f32,
    high: f32,
    still: u32,
    /// Rare: without one a series is a third smaller.
    run: Option<Box<Run>>,
    /// Windows looked up, and those that equalled no other series in the same row.
    lookups: u32,
    alone: u32,
}

/// Matches of one source and distance in a row.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Run {
    column: u32,
    lag: u64,
    first: u64,
    last: u64,
    covered: u64,
    /// Whether the series mostly differed from all others before.
    was_alone: bool,
}

/// A window that is kept.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Anchor {
    hash: u64,
    row: u64,
    column: u32,
}

/// Series of one metric and their kept windows.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(from = "Kept")]
pub(crate) struct Repeats {
    row: u64,
    ranks: Vec<Rank>,
    series: Vec<Series>,
    labels: VecDeque<Label>,
    /// In the order of their rows.
    anchors: VecDeque<Anchor>,
    /// The newest anchor of each hash: column and row.
    #[serde(skip)]
    newest: FxHashMap<u64, (u32, u64)>,
    /// Neighbouring columns that were equal in a row, and all compared.
    equal_neighbours: u64,
    neighbours: u64,
}

/// What of [`Repeats`] is written, field by field; the rest follows from it.
#[derive(Deserialize)]
struct Kept {
    row: u64,
    ranks: Vec<Rank>,
    series: Vec<Series>,
    labels: VecDeque<Label>,
    anchors: VecDeque<Anchor>,
    equal_neighbours: u64,
    neighbours: u64,
}

impl From<Kept> for Repeats {
    fn from(kept: Kept) -> Self {
        let Kept { row, ranks, series, labels, anchors, equal_neighbours, neighbours } = kept;
        let newest = anchors.iter().map(|anchor| (anchor.hash, (anchor.column, anchor.row))).collect();
        Self { row, ranks, series, labels, anchors, newest, equal_neighbours, neighbours }
    }
}

impl Repeats {
    /// Rows taken in.
    pub(crate) fn row(&self) -> u64 {
        self.row
    }

    /// Takes in one row; returns the series that are repeats as of now.
    pub(crate) fn observe(&mut self, panel: &Panel, row: usize) -> Vec<Found> {
        if self.ranks[..] != panel.ranks[..] || self.series.len() != panel.values.ncols() {
            // Ranks that come or go are rare: what was known of the series starts afresh.
            let (ranks, columns) = (panel.ranks.to_vec(), panel.values.ncols());
            *self = Self { row: self.row, ranks, series: vec![Series::default(); columns], ..Self::default() };
        }
        self.row += 1;
        self.forget();
        self.labels.push_back(panel.labels[row]);
        let mut found = Vec::new();
        let mut before: Option<f32> = None;
        let anchor_every = anchor_every(self.series.len());
        let cells = panel.values.row(row).into_iter().zip(panel.present.row(row));
        for (column, (value, is_present)) in cells.enumerate() {
            let value = Some(*value).filter(|value| *is_present && value.is_finite());
            if let (Some(value), Some(before)) = (value, before) {
                self.neighbours += 1;
                self.equal_neighbours += u64::from(value.to_bits() == before.to_bits());
            }
            before = value;
            match value {
                Some(value) => found.extend(self.take(column, value, anchor_every)),
                None => self.series[column].run = None,
            }
        }
        found
    }

    fn forget(&mut self) {
        while let Some(Anchor { hash, row, .. }) = self.anchors.front().copied()
            && row + HISTORY_ROWS < self.row
        {
            self.anchors.pop_front();
            if self.newest.get(&hash).is_some_and(|(_, last)| *last == row) {
                self.newest.remove(&hash);
            }
        }
        if self.labels.len() as u64 == HISTORY_ROWS {
            self.labels.pop_front();
        }
    }

    fn take(&mut self, column: usize, value: f32, anchor_every: u64) -> Option<Found> {
        let series = &mut self.series[column];
        series.push(value);
        if !series.is_noisy() {
            return None;
        }
        if let Some(found) = self.frozen(column, value) {
            return Some(found);
        }
        let series = &self.series[column];
        let hash = mix(series.hash);
        // While a value stands still every window is the same, which says nothing of the past.
        if hash & (anchor_every - 1) != 0 || series.still as usize >= WINDOW / 2 {
            return None;
        }
        let known = self.newest.insert(hash, (column as u32, self.row));
        self.anchors.push_back(Anchor { hash, row: self.row, column: column as u32 });
        let run = known.and_then(|known| self.extend(column, known));
        let series = &mut self.series[column];
        series.run = run.map(Box::new);
        series.lookups = series.lookups.saturating_add(1);
        series.alone = series.alone.saturating_add(u32::from(run.is_none_or(|run| run.lag > 0)));
        self.repeated(column, run?)
    }

    /// The run of matches with this one in it; `None` when the match overlaps itself.
    fn extend(&self, column: usize, (source, row): (u32, u64)) -> Option<Run> {
        let lag = self.row - row;
        if source as usize == column && lag < WINDOW as u64 {
            return None;
        }
        let window = WINDOW as u64;
        let series = &self.series[column];
        let was_alone = series.lookups >= ALONE_MIN && series.alone.saturating_mul(2) > series.lookups;
        let (first, last) = (self.row + 1 - window, self.row);
        let fresh = Run { column: source, lag, first, last, covered: window, was_alone };
        let before = series.run.as_deref().copied().filter(|run| run.column == source && run.lag == lag);
        Some(before.map_or(fresh, |run| {
            let covered = run.covered + (self.row - run.last).min(window);
            Run { last: self.row, covered, ..run }
        }))
    }

    fn repeated(&self, column: usize, run: Run) -> Option<Found> {
        if run.lag == 0 && !run.was_alone {
            return None;
        }
        let of_neighbours = (self.equal_neighbours + 1) as f64 / (self.neighbours + 2) as f64;
        let series = &self.series[column];
        let probability = match run.column as usize == column || self.neighbours == 0 {
            true => series.repeat_probability(),
            false => series.repeat_probability().max(of_neighbours),
        };
        let bits = run.covered as f64 * -probability.log2();
        let bits_needed = BITS_MIN + 2.0 * (self.anchors.len().max(1) as f64).log2();
        let source = self.ranks.get(run.column as usize).copied();
        let first = self.label(run.first);
        let found = Found {
            rank: self.rank(column),
            source: Some((source, run.lag)),
            length: run.covered,
            first,
            bits,
            bits_needed,
        };
        (bits > bits_needed).then_some(found)
    }

    fn frozen(&self, column: usize, value: f32) -> Option<Found> {
        let series = &self.series[column];
        let is_inside = series.low < value && value < series.high;
        if series.still == 0 || !is_inside {
            return None;
        }
        let moves = f64::from(series.rows - series.still);
        let probability = (f64::from(series.equal_before - series.still) + 1.0) / (moves + 2.0);
        let bits = f64::from(series.still) * -probability.log2();
        let bits_needed = BITS_MIN + ((self.series.len() as f64) * self.row as f64).log2();
        let length = u64::from(series.still) + 1;
        let first = self.label((self.row + 1).saturating_sub(length));
        let found = Found { rank: self.rank(column), source: None, length, first, bits, bits_needed };
        (bits > bits_needed).then_some(found)
    }

    fn rank(&self, column: usize) -> Option<Rank> {
        self.ranks.get(column).copied()
    }

    /// Label of a row; of the oldest kept when it is forgotten.
    fn label(&self, row: u64) -> Label {
        let age = (self.row - row) as usize;
        let at = self.labels.len().saturating_sub(1 + age);
        self.labels.get(at).copied().unwrap_or_default()
    }
}

impl Series {
    fn push(&mut self, value: f32) {
        let bits = value.to_bits();
        let at = self.rows as usize % WINDOW;
        let last = f32::from_bits(self.ring[(at + WINDOW - 1) % WINDOW]);
        if self.rows == 0 {
            (self.low, self.high) = (value, value);
        } else {
            self.compare(value, last);
        }
        if self.rows as usize >= WINDOW {
            let equal = self.ring.iter().filter(|word| **word == bits).count() as u32;
            self.equal_window = self.equal_window.saturating_add(equal);
        }
        let leaving = if self.rows as usize >= WINDOW { mix(u64::from(self.ring[at])) } else { 0 };
        const WEIGHT: u64 = BASE.wrapping_pow(WINDOW as u32);
        self.hash = self.hash.wrapping_mul(BASE).wrapping_add(mix(u64::from(bits)));
        self.hash = self.hash.wrapping_sub(leaving.wrapping_mul(WEIGHT));
        self.ring[at] = bits;
        self.rows = self.rows.saturating_add(1);
        self.whole_numbers += u32::from(value.fract() == 0.0);
        self.low = self.low.min(value);
        self.high = self.high.max(value);
    }

    fn compare(&mut self, value: f32, last: f32) {
        if value == last {
            self.equal_before += 1;
            self.still += 1;
            return;
        }
        self.still = 0;
        let is_rising = value > last;
        self.turns += u32::from(is_rising != self.is_rising);
        self.is_rising = is_rising;
    }

    /// Turns often for the rows in which it moved, and is not made of whole numbers.
    fn is_noisy(&self) -> bool {
        let moved = self.rows - self.equal_before;
        moved >= NOISY_ROWS && self.turns.saturating_mul(ROWS_PER_TURN) >= moved && self.whole_numbers * 2 < self.rows
    }

    /// How often a value equals one of the window before it.
    fn repeat_probability(&self) -> f64 {
        let compared = f64::from(self.rows) * WINDOW as f64;
        (f64::from(self.equal_window) + 1.0) / (compared + 2.0)
    }
}

/// One window in how many is kept of each of so many series: a power of two.
fn anchor_every(series: usize) -> u64 {
    let for_all = (series as u64 * HISTORY_ROWS).div_ceil(ANCHORS_MAX);
    ANCHOR_EVERY.max(for_all.next_power_of_two())
}

/// Spreads the bits of a word (the finaliser of splitmix64).
fn mix(word: u64) -> u64 {
    let word = (word.wrapping_add(BASE) ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_series_share_the_room_that_windows_have() {
        for (series, every) in [(1, 16), (2_048, 16), (2_049, 32), (8_192, 64), (100_000, 1_024)] {
            assert_eq!(anchor_every(series), every, "of {series} series");
            assert!(series as u64 * HISTORY_ROWS / every <= ANCHORS_MAX);
        }
    }
}
