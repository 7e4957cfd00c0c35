//! What else is known of the devices: temperature, power, and why the driver says that it lowers their clocks.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use trainwarden_kernels::Middle;
use trainwarden_telemetry::{Label, Panel, Rank};

use super::{MASK_ROWS, POWER_LOSS};

/// Rows from which the usual power and the usual masks of a run are learned.
const WARM_ROWS: usize = 32;
/// Rows a counter of slow rows remembers at most, so that it comes down soon.
const SLOW_ROWS_MAX: u8 = 2 * MASK_ROWS;
/// `nvmlClocksEventReason...`: slowdown by hardware, by software for heat, by hardware for heat, by the power brake.
const SLOWDOWN: u32 = 0x08 | 0x20 | 0x40 | 0x80;
/// ... and the power cap.
const POWER_CAP: u32 = 0x04;
/// Reasons in words, the telling ones first.
const REASONS: [(u32, &str); 9] = [
    (0x40, "thermal slowdown"),
    (0x20, "thermal slowdown by software"),
    (0x80, "power brake"),
    (0x08, "hardware slowdown"),
    (0x04, "power cap"),
    (0x02, "clocks set by a user"),
    (0x10, "synchronised boost"),
    (0x100, "display clocks"),
    (0x01, "idle"),
];

/// The newest value of each rank in one metric.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Newest {
    ranks: Vec<Rank>,
    values: Vec<f32>,
}

impl Newest {
    /// Takes in the cells of a row; gives whether the ranks are others than before.
    pub(super) fn take(&mut self, panel: &Panel, row: usize) -> bool {
        let are_new = *self.ranks != *panel.ranks;
        if are_new {
            self.ranks = panel.ranks.to_vec();
            self.values = vec![f32::NAN; self.ranks.len()];
        }
        for (column, newest) in self.values.iter_mut().enumerate() {
            if let Some(value) = panel.value(row, column) {
                *newest = value;
            }
        }
        are_new
    }

    /// The newest value of a rank.
    pub(super) fn of(&self, rank: Rank) -> Option<f32> {
        let column = self.ranks.binary_search(&rank).ok()?;
        self.values.get(column).copied().filter(|value| value.is_finite())
    }

    fn median(&self) -> Option<f32> {
        let mut values: Vec<f32> = self.values.iter().copied().filter(|value| value.is_finite()).collect();
        match values.as_slice() {
            [one] => Some(*one),
            _ => Some(Middle::of(&mut values)?.median()),
        }
    }
}

/// A number of the whole run: what it usually was, learned in the first rows and frozen, and what it is.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Usual {
    warm: Vec<f32>,
    usual: Option<f32>,
    now: f32,
}

impl Usual {
    fn take(&mut self, now: f32) {
        self.now = now;
        if self.usual.is_none() {
            self.warm.push(now);
        }
        if self.warm.len() == WARM_ROWS {
            self.usual = Middle::of(&mut std::mem::take(&mut self.warm)).map(|middle| middle.median());
        }
    }
}

/// What else speaks for a cap of the whole run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Support {
    /// Power or masks say that the devices are held back.
    Yes,
    /// They say that they are not.
    No,
    /// Neither is logged.
    Unknown,
}

/// The context of one attempt.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Context {
    temperature: Newest,
    power: Newest,
    masks: Newest,
    /// Per column of `masks`: rows with a slowdown, less rows without.
    slow_rows: Vec<u8>,
    /// Since when, of the columns with slow rows.
    since: BTreeMap<usize, Label>,
    named: Vec<bool>,
    run_power: Usual,
    /// Part of the ranks that are slowed down or capped.
    run_held: Usual,
}

impl Context {
    /// Takes in a row of temperature or power.
    pub(super) fn take_gauge(&mut self, panel: &Panel, row: usize) {
        if panel.metric.as_str() == "gpu_temp_c" {
            self.temperature.take(panel, row);
            return;
        }
        self.power.take(panel, row);
        if let Some(median) = self.power.median() {
            self.run_power.take(median);
        }
    }

    /// Takes in a row of masks; gives the ranks that are slowed down lastingly from now on, and since when.
    pub(super) fn take_mask(&mut self, panel: &Panel, row: usize) -> Vec<(Rank, Label)> {
        if self.masks.take(panel, row) {
            let width = panel.ranks.len();
            (self.slow_rows, self.named, self.since) = (vec![0; width], vec![false; width], BTreeMap::new());
        }
        let (mut present, mut held) = (0_usize, 0_usize);
        for column in 0..panel.ranks.len() {
            let Some(mask) = panel.value(row, column).and_then(as_mask) else { continue };
            present += 1;
            held += usize::from(mask & (SLOWDOWN | POWER_CAP) != 0);
            self.count(column, mask & SLOWDOWN != 0, panel.labels[row]);
        }
        if present > 0 {
            self.run_held.take(held as f32 / present as f32);
        }
        let lasting = self.slow_rows.iter().filter(|rows| **rows >= MASK_ROWS).count();
        if 2 * lasting > present {
            return Vec::new();
        }
        let mut found = Vec::new();
        for (column, since) in &self.since {
            if self.slow_rows[*column] >= MASK_ROWS && !self.named[*column] {
                self.named[*column] = true;
                found.push((panel.ranks[*column], *since));
            }
        }
        found
    }

    fn count(&mut self, column: usize, is_slow: bool, label: Label) {
        let rows = &mut self.slow_rows[column];
        if !is_slow {
            *rows = rows.saturating_sub(1);
            if *rows == 0 && !self.since.is_empty() {
                self.since.remove(&column);
            }
            return;
        }
        if *rows == 0 {
            self.since.insert(column, label);
        }
        *rows = (*rows + 1).min(SLOW_ROWS_MAX);
    }

    /// True while the mask of a rank shows a slowdown.
    pub(super) fn is_slow(&self, rank: Rank) -> bool {
        self.mask(rank).is_some_and(|mask| mask & SLOWDOWN != 0)
    }

    /// The newest mask of a rank.
    pub(super) fn mask(&self, rank: Rank) -> Option<u32> {
        self.masks.of(rank).and_then(as_mask)
    }

    /// Their case is over: they may be found again.
    pub(super) fn acquit(&mut self, ranks: &[Rank]) {
        for column in ranks.iter().filter_map(|rank| self.masks.ranks.binary_search(rank).ok()) {
            (self.named[column], self.slow_rows[column]) = (false, 0);
            self.since.remove(&column);
        }
    }

    /// Reasons and temperature of a rank in words, as far as they are known.
    pub(super) fn words(&self, rank: Rank) -> Option<String> {
        let mask = self.mask(rank).unwrap_or(0);
        let mut words: Vec<String> =
            REASONS.iter().filter(|(bit, _)| mask & bit != 0).map(|(_, reason)| (*reason).to_owned()).collect();
        words.truncate(2);
        let mut words = vec![words.join(", ")];
        words.extend(self.temperature.of(rank).map(|celsius| format!("{celsius:.0} °C")));
        words.retain(|word| !word.is_empty());
        (!words.is_empty()).then(|| words.join("; "))
    }

    /// What power and masks say of a whole run whose clocks fell.
    pub(super) fn support(&self) -> Support {
        let has_fallen = self.run_power.usual.map(|usual| self.run_power.now < (1.0 - POWER_LOSS) * usual);
        let is_held = self.run_held.usual.map(|usual| self.run_held.now > 0.5 && usual <= 0.5);
        match (has_fallen, is_held) {
            (Some(true), _) | (_, Some(true)) => Support::Yes,
            (None, None) => Support::Unknown,
            _ => Support::No,
        }
    }
}

/// A logged mask as its bits.
fn as_mask(value: f32) -> Option<u32> {
    (value.is_finite() && value >= 0.0).then_some(value as u32)
}
