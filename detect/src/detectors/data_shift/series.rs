//! The losses of ranks against their peers': what is learned of them, and the evidence against each.

use serde::{Deserialize, Serialize};
use trainwarden_kernels::{Middle, quantile_in_place, shift_evidence};
use trainwarden_telemetry::{Panel, Rank, Working};

use super::{GAP_SPREADS, ROWS_MIN, SIZE_MIN, TOLERANCE};

/// Rows from which offsets and spreads are learned.
const WARM_ROWS: u32 = 32;
/// Of two neither can be the strange one, and of three the strange one moves the median of the others by half.
const GROUP_MIN: usize = 4;
/// Offsets are made more exact over this many rows.
const OFFSET_ROWS: u16 = 256;
/// Standard errors of the offset that are added to the tolerance.
const OFFSET_ERRORS: f32 = 3.0;
/// Nats against a rank from which neither offset nor spread learns of it.
const SUSPICION: f32 = 2.0;
/// Alternatives, in spreads of a row.
const SHIFTS: [f32; 3] = [0.5, 1.0, 3.0];
/// A row counts for no more than this many spreads.
const ROW_SPREADS_MAX: f32 = 4.0;
/// Evidence is kept up to this many times the threshold.
const EVIDENCE_CAP: f32 = 2.0;
/// Weight of the newest row in the running mean.
const MEAN_WEIGHT: f32 = 0.0625;
/// Normal quantiles of |z|; the widest of the three measures the spread, so that tails count.
const QUANTILES: [(f32, f32); 3] = [(0.50, 0.674_5), (0.90, 1.644_9), (0.99, 2.575_8)];
/// How fast each quantile follows: by a part of itself for each part of the ranks that is too many or too few above it.
const GAINS: [f32; 3] = [0.1, 0.25, 1.0];
/// ... of which so much counts, because in a small group one rank is a large part.
const GAIN_PART_MAX: f32 = 0.1;
/// Part of the loss below which no spread is believed: logs are rounded.
const SPREAD_MIN: f32 = 1e-4;

/// A rank that stands apart, with its numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Finding {
    pub(super) column: usize,
    /// By how much its loss is above that of its peers, its own offset taken out.
    pub(super) mean: f32,
    /// Spread of one row.
    pub(super) spread: f32,
    /// Half-width of what is normal for the mean.
    pub(super) band: f32,
    /// Loss of the peers in the newest row.
    pub(super) expected: f32,
    pub(super) log10_e: f64,
    /// Rows since it began, this one included.
    pub(super) age: u32,
    pub(super) peers: usize,
    basis: Basis,
}

/// What a finding was decided by.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Basis {
    offset: f32,
    learned: u16,
    /// Running mean as it stands, and what its peers' wander.
    running: f32,
    wander: f32,
    /// The strongest e-CUSUM and the nats it had to reach.
    nats: f32,
    threshold: f32,
}

impl Finding {
    /// How mean, band and e-value follow from what was measured.
    pub(super) fn working(&self) -> Working {
        let Basis { offset, learned, running, wander, nats, threshold } = self.basis;
        Working::new(&RULES)
            .with("peers_level", self.expected)
            .with("offset", offset)
            .with("offset_rows", u32::from(learned))
            .with("row_spread", self.spread)
            .with("rows", self.age)
            .with("running_mean", running)
            .with("mean", self.mean)
            .with("tolerance", self.band)
            .with("peers_wander", wander)
            .with("nats", nats)
            .with("threshold_nats", threshold)
    }
}

/// How a finding follows from its figures.
const RULES: [&str; 5] = [
    "row residual = value - peers_median - offset; offset = the rank's usual difference, frozen after 256 rows",
    "running_mean = running_mean + (row residual - running_mean) / 16, row by row; mean = running_mean / (1 - (15/16)^rows)",
    "observed = peers_level + mean; expected = peers_level; low, high = expected -+ tolerance; \
     tolerance = (0.4 + 3 / sqrt(offset_rows)) row_spread",
    "nats = sum over the rows of shift z - shift^2 / 2 for the strongest shift of 0.5, 1 and 3, never below 0, \
     z = +-row residual / row_spread - 0.4 - 3 / sqrt(offset_rows) held in -8..4",
    "log10_e = (nats - ln 6) / ln 10; found when nats >= threshold_nats, |mean| >= row_spread and \
     |running_mean| >= 5 peers_wander",
];

/// Evidence for one direction: a sum and its age for each alternative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Side {
    sums: [f32; 3],
    ages: [u32; 3],
}

impl Side {
    /// Adds a row; gives the largest sum.
    fn step(&mut self, z: f32, cap: f32) -> f32 {
        let z = z.clamp(-2.0 * ROW_SPREADS_MAX, ROW_SPREADS_MAX);
        for ((sum, age), shift) in self.sums.iter_mut().zip(&mut self.ages).zip(SHIFTS) {
            *sum = (*sum + shift_evidence(z, shift)).clamp(0.0, cap);
            *age = if *sum > 0.0 { *age + 1 } else { 0 };
        }
        self.most().0
    }

    /// The largest sum and its age.
    fn most(&self) -> (f32, u32) {
        let pairs = self.sums.into_iter().zip(self.ages);
        pairs.fold((0.0, 0), |most, pair| if pair.0 > most.0 { pair } else { most })
    }
}

/// One rank: offset and the rows it rests on, evidence above and below, the running mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Column {
    offset: f32,
    learned: u16,
    sides: [Side; 2],
    mean: f32,
    /// The spread of the newest row.
    spread: f32,
    is_named: bool,
}

impl Column {
    fn is_suspicious(&self) -> bool {
        self.is_named || self.sides.iter().any(|side| side.most().0 > SUSPICION)
    }

    /// How far apart it may be with nothing wrong, in spreads.
    fn allowance(&self) -> f32 {
        TOLERANCE + OFFSET_ERRORS / f32::from(self.learned.max(1)).sqrt()
    }

    /// Adds a row to evidence and mean; gives the most nats.
    fn step(&mut self, residual: f32, spread: f32, cap: f32) -> f32 {
        self.mean += MEAN_WEIGHT * (residual - self.mean);
        self.spread = spread;
        let allowance = self.allowance();
        let above = self.sides[0].step(residual / spread - allowance, cap);
        let below = self.sides[1].step(-residual / spread - allowance, cap);
        above.max(below)
    }

    fn learn(&mut self, residual: f32, spread: f32) {
        if self.learned < OFFSET_ROWS {
            self.learned += 1;
            self.offset += residual.clamp(-2.5 * spread, 2.5 * spread) / f32::from(self.learned);
        }
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Group {
    columns: Vec<usize>,
    /// Quantiles of what healthy ranks are apart in a row, each over its normal one.
    spreads: [f32; 3],
    /// How much more a sum of rows wanders than if they were independent.
    inflation: f32,
}

impl Group {
    fn spread(&self, level: f32) -> f32 {
        let widest = self.spreads.iter().copied().fold(0.0, f32::max);
        (widest * self.inflation).max(SPREAD_MIN * level.abs())
    }

    /// Lets the quantiles follow a row.
    fn follow(&mut self, magnitudes: &[f32]) {
        let count = magnitudes.len().max(1) as f32;
        for ((spread, (quantile, normal)), gain) in self.spreads.iter_mut().zip(QUANTILES).zip(GAINS) {
            let above = magnitudes.iter().filter(|size| **size > *spread * normal).count() as f32 / count;
            let too_many = (above - (1.0 - quantile)).min(GAIN_PART_MAX.max(1.0 - quantile));
            *spread = (*spread * (gain * too_many).exp()).max(f32::MIN_POSITIVE);
        }
    }
}

/// Pairs of rows of all columns, for one correlation from row to row.
#[derive(Clone, Copy, Debug, Default)]
struct Pairs {
    count: usize,
    chain: f64,
    power: f64,
}

impl Pairs {
    fn add(&mut self, residuals: &[f32]) {
        for pair in residuals.windows(2).filter(|pair| !(pair[0].is_nan() || pair[1].is_nan())) {
            let (one, next) = (f64::from(pair[0]), f64::from(pair[1]));
            self.count += 1;
            self.chain += one * next;
            self.power += 0.5 * (one * one + next * next);
        }
    }

    /// The correlation where it is more than two standard errors, up to 0.95; zero otherwise.
    fn correlation(&self) -> f32 {
        let correlation = if self.power > 0.0 { self.chain / self.power } else { 0.0 };
        let error = 1.0 / (self.count.max(1) as f64).sqrt();
        if correlation > 2.0 * error { correlation.min(0.95) as f32 } else { 0.0 }
    }
}

/// The state of one attempt.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Series {
    pub(super) ranks: Vec<Rank>,
    rows: u32,
    groups: Vec<Group>,
    columns: Vec<Column>,
    /// [rows, ranks] differences from the peers in the first rows, NaN = absent; emptied when they are learned.
    warm: Vec<f32>,
    #[serde(skip)]
    differences: Vec<f32>,
}

impl Series {
    pub(super) fn new(ranks: &[Rank], groups: Vec<Vec<usize>>) -> Self {
        let groups = groups.into_iter().filter(|columns| columns.len() >= GROUP_MIN);
        Self {
            ranks: ranks.to_vec(),
            groups: groups.map(|columns| Group { columns, ..Group::default() }).collect(),
            columns: vec![Column::default(); ranks.len()],
            ..Self::default()
        }
    }

    /// Takes in a row and gives the ranks that stand apart from now on.
    ///
    /// * `threshold`: nats a finding needs.
    pub(super) fn observe(&mut self, panel: &Panel, row: usize, threshold: f32) -> Vec<Finding> {
        self.rows += 1;
        let threshold = threshold + (2.0 * SHIFTS.len() as f32).ln();
        let mut groups = std::mem::take(&mut self.groups);
        self.differences.clear();
        self.differences.resize(self.ranks.len(), f32::NAN);
        let mut findings = Vec::new();
        for group in &mut groups {
            let Some(level) = self.compare(group, panel, row) else { continue };
            if self.rows > WARM_ROWS {
                findings.extend(self.judge(group, level, threshold));
            }
        }
        if self.rows <= WARM_ROWS {
            self.warm.extend_from_slice(&self.differences);
        }
        if self.rows == WARM_ROWS {
            groups.iter_mut().for_each(|group| self.learn(group));
            self.warm = Vec::new();
        }
        self.groups = groups;
        findings
    }

    /// Fills in by how much each column is above the median of its peers; gives the median of all.
    fn compare(&mut self, group: &Group, panel: &Panel, row: usize) -> Option<f32> {
        let usable = |column: usize| panel.value(row, column).filter(|value| value.is_finite());
        let mut values: Vec<f32> = group.columns.iter().filter_map(|column| usable(*column)).collect();
        if values.len() < GROUP_MIN {
            return None;
        }
        let middle = Middle::of(&mut values)?;
        for column in &group.columns {
            if let Some(value) = usable(*column) {
                self.differences[*column] = value - middle.without(value);
            }
        }
        Some(middle.median())
    }

    fn learn(&mut self, group: &mut Group) {
        let width = self.ranks.len();
        let mut magnitudes = Vec::new();
        let mut pairs = Pairs::default();
        for column in group.columns.iter().copied() {
            let history: Vec<f32> = self.warm.iter().skip(column).step_by(width).copied().collect();
            let mut present: Vec<f32> = history.iter().copied().filter(|size| !size.is_nan()).collect();
            let rows = present.len() as u16;
            let Some(middle) = Middle::of(&mut present) else { continue };
            let offset = middle.median();
            self.columns[column] = Column { offset, learned: rows, ..Column::default() };
            let residuals: Vec<f32> = history.iter().map(|size| size - offset).collect();
            pairs.add(&residuals);
            magnitudes.extend(residuals.into_iter().filter(|size| !size.is_nan()).map(f32::abs));
        }
        for (spread, (quantile, normal)) in group.spreads.iter_mut().zip(QUANTILES) {
            *spread = quantile_in_place(&mut magnitudes, f64::from(quantile)).unwrap_or(0.0) / normal;
            *spread = spread.max(f32::MIN_POSITIVE);
        }
        let correlation = pairs.correlation();
        group.inflation = ((1.0 + correlation) / (1.0 - correlation)).sqrt();
    }

    fn judge(&mut self, group: &mut Group, level: f32, threshold: f32) -> Vec<Finding> {
        let spread = group.spread(level);
        let hot_max = (group.columns.len() / 4).max(1);
        let suspicious = group.columns.iter().filter(|column| self.columns[**column].is_suspicious()).count();
        let (mut hot, mut is_new) = (0, false);
        let mut magnitudes = Vec::with_capacity(group.columns.len());
        for place in group.columns.iter().copied() {
            let column = &mut self.columns[place];
            let residual = self.differences[place] - column.offset;
            if residual.is_nan() {
                continue;
            }
            // Where many are suspicious it is the spread that grew.
            if !column.is_named && (!column.is_suspicious() || suspicious > hot_max) {
                magnitudes.push(residual.abs());
            }
            let nats = column.step(residual, spread, EVIDENCE_CAP * threshold);
            if !column.is_suspicious() {
                column.learn(residual, spread);
            }
            hot += usize::from(nats >= 0.5 * threshold);
            is_new |= nats >= threshold && !column.is_named;
        }
        group.follow(&magnitudes);
        if !is_new || hot > hot_max { Vec::new() } else { self.verify(group, (level, spread), threshold) }
    }

    /// Who of the columns over the threshold has lasted, is large, and stands apart from what others wander.
    fn verify(&mut self, group: &Group, (level, spread): (f32, f32), threshold: f32) -> Vec<Finding> {
        let is_hot = |column: &Column| column.sides.iter().any(|side| side.most().0 >= threshold);
        let cool = group.columns.iter().map(|place| &self.columns[*place]).filter(|column| !is_hot(column));
        let mut means: Vec<f32> = cool.map(|column| column.mean.abs()).collect();
        let wander = quantile_in_place(&mut means, 0.5).unwrap_or(0.0) / QUANTILES[0].1;
        let least = spread * (MEAN_WEIGHT / (2.0 - MEAN_WEIGHT)).sqrt();
        let mut findings = Vec::new();
        for place in group.columns.iter().copied() {
            let column = &mut self.columns[place];
            let which = usize::from(column.sides[1].most().0 > column.sides[0].most().0);
            let (nats, age) = column.sides[which].most();
            let filled = 1.0 - (1.0 - MEAN_WEIGHT).powi(age.min(1_000) as i32);
            let mean = column.mean / filled;
            let is_its_side = (column.mean > 0.0) == (which == 0);
            let is_large = column.mean.abs() >= GAP_SPREADS * wander.max(least) && mean.abs() >= SIZE_MIN * spread;
            if column.is_named || nats < threshold || age < ROWS_MIN || !(is_its_side && is_large) {
                continue;
            }
            column.is_named = true;
            findings.push(Finding {
                column: place,
                mean,
                spread,
                band: column.allowance() * spread,
                expected: level,
                log10_e: f64::from(nats - (2.0 * SHIFTS.len() as f32).ln()) * std::f64::consts::LOG10_E,
                age,
                peers: group.columns.len() - 1,
                basis: Basis {
                    offset: column.offset,
                    learned: column.learned,
                    running: column.mean,
                    wander: wander.max(least),
                    nats,
                    threshold,
                },
            });
        }
        findings
    }

    /// The running mean of a column, its offset taken out, in spreads of a row.
    pub(super) fn spreads_apart(&self, column: usize) -> f32 {
        self.columns.get(column).map_or(0.0, |column| column.mean / column.spread)
    }

    /// Forgets the evidence against a column whose finding is over.
    pub(super) fn acquit(&mut self, column: usize) {
        let column = &mut self.columns[column];
        (column.sides, column.is_named) = ([Side::default(); 2], false);
    }
}
