//! The ranks of one work-time metric against their peers: what is learned of them, and the evidence against each.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use trainwarden_kernels::{Middle, lag_one_correlation, quantile_in_place, shift_evidence};
use trainwarden_telemetry::{Rank, Working};

/// Rows from which offsets and noise are learned.
pub(crate) const WARM_ROWS: u32 = 32;
/// Rows a rank must have been slow before offsets are known, to be named.
const EARLY_ROWS: u32 = 8;
/// Nothing is wrong within this much of the peers, once a rank's own offset is known.
pub(crate) const TOLERANCE: f32 = 0.01;
/// Nothing is wrong within this much of the peers before that.
const EARLY_TOLERANCE: f32 = 0.10;
/// Offsets are made more exact over this many rows, while nothing speaks against the rank, and are frozen then.
const OFFSET_ROWS: u16 = 256;
/// Nats against a rank from which its offset learns no more.
const LEARNING_EVIDENCE_MAX: f32 = 1.0;
/// Standard errors of the offset that the tolerance covers; where they are more, they take its place.
const OFFSET_ERRORS: f32 = 3.0;
/// Alternatives, in standard deviations: small ones find what is small and lasts, large ones what is large and new.
const SHIFTS: [f32; 3] = [0.25, 1.0, 3.0];
/// A row counts for no more than this many deviations, so that one wild row convicts nobody.
const ROW_DEVIATIONS_MAX: f32 = 4.0;
/// Evidence is kept up to this many times the threshold, so that a long fault is not believed in for ever.
const EVIDENCE_CAP: f32 = 2.0;
/// Rows a finding must have lasted.
const PERSISTENCE_ROWS: u32 = 3;
/// A suspect stands this many robust spreads of its peers away from them.
const GAP_SPREADS: f32 = 5.0;
/// Before offsets are known a suspect stands this many times as far from its peers as 95 % of them stand.
const EARLY_GAP: f32 = 3.0;
/// Noise that is never believed to be less: an eighth of the tolerance; times are quantised.
const NOISE_MIN: f32 = TOLERANCE / 8.0;
/// Weights of the newest row in the running means: short, middle and long.
const MEAN_WEIGHTS: [f32; 3] = [0.25, 0.0625, 0.015_625];
/// A finding is measured by the short mean; from so many rows on by the middle one, and by the long one.
const MEAN_ROWS: [u32; 3] = [0, 12, 64];
/// Weight of the newest row among those in which suddenly extreme cells are counted, and how many it takes to count.
const SUDDEN_WEIGHT: f32 = 1.0 / 256.0;
const SUDDEN_MIN: f32 = 1.5;
/// Groups below this size cannot outvote one of theirs; a rank must there have left its own past too.
const SMALL_GROUP: usize = 4;
/// Normal quantiles of |z| at 50, 90 and 99 %: the widest of the three measures the noise, so that tails count.
const NOISE_QUANTILES: [(f64, f32); 3] = [(0.50, 0.674_5), (0.90, 1.644_9), (0.99, 2.575_8)];

/// A rank that stands apart, with its numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Finding {
    pub(crate) column: usize,
    /// Work time over that of its peers, its own offset taken out.
    pub(crate) ratio: f32,
    /// Half-width of what is normal for that ratio.
    pub(crate) band: f32,
    /// Standard error of that ratio.
    pub(crate) error: f32,
    pub(crate) log10_e: f64,
    /// Rows since it began, this one included.
    pub(crate) age: u32,
    /// Rows by which the beginning is uncertain.
    pub(crate) blur: u32,
    pub(crate) peers: usize,
    pub(crate) basis: Basis,
}

/// What a finding was decided by, for whoever wants to compute it again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Basis {
    /// Before there were offsets.
    Early {
        /// Evidence so far, in nats.
        nats: f32,
        /// Nats it had to reach.
        threshold: f32,
        /// Standard deviation of a row's ratio.
        deviation: f32,
        /// Rows since it began in which the rank was slow.
        slow_rows: u32,
    },
    /// With offsets.
    Offset {
        /// The rank's own usual ratio, and the rows it rests on.
        offset: f32,
        learned: u16,
        /// Long-run standard deviation of a row's excess.
        deviation: f32,
        /// The strongest e-CUSUM, its alternative in deviations, and the nats it had to reach.
        nats: f32,
        shift: f32,
        threshold: f32,
        /// Running mean of the excess, the weight of its newest row, and where its peers' means lie.
        mean: f32,
        weight: f32,
        center: f32,
        spread: f32,
    },
}

impl Finding {
    /// How ratio, band and e-value follow from what was measured.
    pub(crate) fn working(&self) -> Working {
        match self.basis {
            Basis::Early { nats, threshold, deviation, slow_rows } => Working::new(&EARLY_RULES)
                .with("rows", self.age)
                .with("slow_rows", slow_rows)
                .with("ratio", self.ratio)
                .with("row_deviation", deviation)
                .with("tolerance", self.band)
                .with("nats", nats)
                .with("threshold_nats", threshold),
            Basis::Offset { offset, learned, deviation, nats, shift, threshold, mean, weight, center, spread } => {
                Working::new(&OFFSET_RULES)
                    .with("offset", offset)
                    .with("offset_rows", u32::from(learned))
                    .with("row_deviation", deviation)
                    .with("tolerance", self.band)
                    .with("rows", self.age)
                    .with("mean", mean)
                    .with("mean_weight", weight)
                    .with("ratio", self.ratio)
                    .with("peers_mean", center)
                    .with("peers_spread", spread)
                    .with("shift", shift)
                    .with("nats", nats)
                    .with("threshold_nats", threshold)
            }
        }
    }
}

/// How an early finding follows from its figures.
const EARLY_RULES: [&str; 3] = [
    "ratio = median of value / peers_median over the last `rows` rows",
    "nats = sum over these rows of 3 z - 4.5, never below 0, with z = (row ratio - 1.1) / row_deviation held in -8..4",
    "log10_e = nats / ln 10; found when nats >= threshold_nats and slow_rows >= 0.9 rows >= 7.2",
];
/// How a finding with offsets follows from its figures.
const OFFSET_RULES: [&str; 6] = [
    "row excess = (value / peers_median) / offset - 1; offset = the rank's usual ratio, learned from offset_rows rows; in \
     groups of two and three no more than over the rank's own past",
    "mean = mean + mean_weight (row excess - mean), row by row",
    "ratio = 1 + mean / (1 - (1 - mean_weight)^rows)",
    "tolerance = max(0.01, 3 row_deviation / sqrt(offset_rows)), or max(0.10, ...) below 8 offset_rows",
    "nats = sum over the rows of shift z - shift^2 / 2, never below 0, with z = (row excess - tolerance) / row_deviation \
     held in -8..4; where sudden rows are common among the peers, one adds no more than they are rare",
    "log10_e = (nats - ln 3) / ln 10; found when nats >= threshold_nats and mean - peers_mean >= 5 peers_spread",
];

/// The state of one metric: one entry a column in every vector.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Series {
    pub(crate) ranks: Vec<Rank>,
    pub(crate) rows: u32,
    groups: Vec<Group>,
    /// [rows, ranks] of the first rows, raw; NaN = absent. Emptied when offsets are frozen.
    warm: Vec<f32>,
    offset: Vec<f32>,
    /// Rows each offset rests on; zero = unknown.
    learned: Vec<u16>,
    own_past: Vec<f32>,
    sums: Vec<[f32; 3]>,
    ages: Vec<[u32; 3]>,
    means: Vec<[f32; 3]>,
    /// Columns already named and not yet cleared.
    pub(crate) named: Vec<bool>,
    /// Work time of a typical rank in the last row.
    pub(crate) level: f32,
    #[serde(skip)]
    scratch: Vec<f32>,
    #[serde(skip)]
    ratios: Vec<f32>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Group {
    columns: Vec<usize>,
    /// Noise of one row, learned; and how much more a mean of many rows wanders than if rows were independent.
    noise: f32,
    inflation: f32,
    noise_now: f32,
    /// Cells that were suddenly extreme, and cells in all, of late.
    sudden: f32,
    cells: f32,
}

impl Group {
    /// Long-run standard deviation of one row's deviation.
    fn deviation(&self) -> f32 {
        self.noise.max(self.noise_now) * self.inflation
    }

    fn hot_max(&self) -> usize {
        (self.columns.len() / 4).max(1)
    }

    /// Nats that one extreme cell may carry: where pauses wander over the ranks it is no surprise that one falls on this
    /// rank, and by chance on the same one twice.
    fn surprise(&self) -> f32 {
        match self.sudden {
            sudden if sudden < SUDDEN_MIN => f32::INFINITY,
            sudden => (self.cells / sudden).ln(),
        }
    }

    /// A row of so many cells came, of which so many were suddenly extreme.
    fn count(&mut self, cells: usize, sudden: usize) {
        self.cells += cells as f32 - SUDDEN_WEIGHT * self.cells;
        self.sudden += sudden as f32 - SUDDEN_WEIGHT * self.sudden;
    }
}

impl Series {
    pub(crate) fn new(ranks: &[Rank], groups: Vec<Vec<usize>>) -> Self {
        let count = ranks.len();
        let group = |columns| Group { columns, ..Group::default() };
        Self {
            ranks: ranks.to_vec(),
            groups: groups.into_iter().filter(|columns| columns.len() > 1).map(group).collect(),
            offset: vec![1.0; count],
            learned: vec![0; count],
            own_past: vec![f32::NAN; count],
            sums: vec![[0.0; 3]; count],
            ages: vec![[0; 3]; count],
            means: vec![[0.0; 3]; count],
            named: vec![false; count],
            ..Self::default()
        }
    }

    /// Takes in a row (absent or unusable cells NaN) and gives the ranks that stand apart from now on, by column.
    ///
    /// * `threshold`: nats a finding needs.
    pub(crate) fn observe(&mut self, values: &[f32], threshold: f32) -> Vec<Finding> {
        self.rows += 1;
        self.scratch.clear();
        self.scratch.extend(values.iter().filter(|value| !value.is_nan()));
        if let Some(middle) = Middle::of(&mut self.scratch) {
            self.level = middle.median();
        }
        let mut groups = std::mem::take(&mut self.groups);
        let mut findings = Vec::new();
        if self.rows <= WARM_ROWS {
            self.warm.extend_from_slice(values);
            if self.rows >= EARLY_ROWS {
                groups.iter_mut().for_each(|group| findings.extend(self.judge_early(group, threshold)));
            }
        } else {
            groups.iter_mut().for_each(|group| findings.extend(self.judge(group, values, threshold)));
        }
        self.groups = groups;
        if self.rows == WARM_ROWS {
            self.warm = Vec::new();
        }
        findings
    }

    /// Fills `ratios` with each column's value over the median of its peers' and says whether there are peers.
    fn compare(&mut self, group: &Group, values: &[f32]) -> bool {
        self.ratios.resize(values.len(), f32::NAN);
        self.scratch.clear();
        self.scratch.extend(group.columns.iter().map(|column| values[*column]).filter(|value| !value.is_nan()));
        let Some(middle) = Middle::of(&mut self.scratch) else { return false };
        for column in &group.columns {
            let value = values[*column];
            let ratio = value / middle.without(value);
            self.ratios[*column] = if ratio.is_finite() { ratio } else { f32::NAN };
        }
        true
    }

    /// By column of the group, then by row: the ratios of the rows kept so far.
    fn warm_ratios(&mut self, group: &Group) -> Vec<Vec<f32>> {
        let width = self.ranks.len();
        let warm = std::mem::take(&mut self.warm);
        let mut histories = vec![Vec::with_capacity(WARM_ROWS as usize); group.columns.len()];
        for values in warm.chunks_exact(width) {
            let has_peers = self.compare(group, values);
            for (history, column) in histories.iter_mut().zip(&group.columns) {
                history.push(if has_peers { self.ratios[*column] } else { f32::NAN });
            }
        }
        self.warm = warm;
        histories
    }

    /// Ranks that are slow before offsets exist, and the freezing of offsets after the last of these rows.
    fn judge_early(&mut self, group: &mut Group, threshold: f32) -> Vec<Finding> {
        let is_last = self.rows == WARM_ROWS;
        // One row tells cheaply whether anybody can be a candidate at all.
        let width = self.ranks.len();
        let newest: Vec<f32> = self.warm[self.warm.len() - width..].to_vec();
        let any = self.compare(group, &newest)
            && group.columns.iter().any(|column| self.ratios[*column] > 1.0 + EARLY_TOLERANCE);
        if !is_last && !any {
            return Vec::new();
        }
        let histories = self.warm_ratios(group);
        let noise = early_noise(&histories);
        let suspicions: Vec<Suspicion> = histories.iter().map(|history| Suspicion::of(history, noise)).collect();
        let mut findings = Vec::new();
        // Who stands apart, by the rows over which that is asked; ranks that became slow together share them.
        let mut apart: BTreeMap<usize, Vec<bool>> = BTreeMap::new();
        for (place, column) in group.columns.iter().copied().enumerate() {
            let suspicion = &suspicions[place];
            if !suspicion.is_sure(threshold) || self.named[column] || group.columns.len() < SMALL_GROUP - 1 {
                continue;
            }
            let apart = apart
                .entry(suspicion.begin)
                .or_insert_with(|| stand_apart(&typical_since(&histories, suspicion.begin)));
            if !apart[place] {
                continue;
            }
            let ratio = middle_of(&histories[place][suspicion.begin..]);
            let age = (histories[place].len() - suspicion.begin) as u32;
            findings.push(Finding {
                column,
                ratio,
                band: EARLY_TOLERANCE,
                error: noise / (age as f32).sqrt(),
                log10_e: f64::from(suspicion.log_e) * std::f64::consts::LOG10_E,
                age,
                blur: 0,
                peers: group.columns.len() - 1,
                basis: Basis::Early { nats: suspicion.log_e, threshold, deviation: noise, slow_rows: suspicion.slow },
            });
            self.named[column] = true;
            self.means[column] = [ratio - 1.0; 3];
        }
        if is_last {
            self.freeze(group, &histories, &suspicions);
        }
        findings
    }

    fn freeze(&mut self, group: &mut Group, histories: &[Vec<f32>], suspicions: &[Suspicion]) {
        let typical = typical_since(histories, 0);
        let apart = stand_apart(&typical);
        let (mut residuals, mut correlations) = (Vec::new(), Vec::new());
        let width = self.ranks.len();
        for (place, column) in group.columns.iter().copied().enumerate() {
            let rows = histories[place].iter().filter(|ratio| !ratio.is_nan()).count();
            if rows < EARLY_ROWS as usize {
                continue;
            }
            // Who changed its pace in these rows would teach that change as noise of all.
            if !(self.named[column] || apart[place] || suspicions[place].log_e > LEARNING_EVIDENCE_MAX) {
                let residual: Vec<f32> = histories[place].iter().map(|ratio| ratio / typical[place] - 1.0).collect();
                residuals.extend(residual.iter().filter(|value| !value.is_nan()).map(|value| value.abs()));
                correlations.push(lag_one_correlation(&residual));
            }
            let own: Vec<f32> = self.warm.iter().skip(column).step_by(width).copied().collect();
            self.own_past[column] = middle_of(&own);
            self.learned[column] = rows as u16;
            // A rank that was named keeps no offset, and one that only stands apart hides no more than the tolerance.
            self.offset[column] = match (self.named[column], apart[place]) {
                (true, _) => 1.0,
                (false, true) => typical[place].min(1.0 + EARLY_TOLERANCE),
                (false, false) => typical[place],
            };
        }
        group.noise = widest_noise(&mut residuals).max(NOISE_MIN);
        let correlation = quantile_in_place(&mut correlations, 0.5).unwrap_or(0.0);
        group.inflation = ((1.0 + correlation) / (1.0 - correlation)).sqrt();
        group.noise_now = group.noise;
    }

    fn judge(&mut self, group: &mut Group, values: &[f32], threshold: f32) -> Vec<Finding> {
        if !self.compare(group, values) {
            return Vec::new();
        }
        let deviation = group.deviation().max(NOISE_MIN);
        let is_small = group.columns.len() < SMALL_GROUP;
        let mut magnitudes = std::mem::take(&mut self.scratch);
        magnitudes.clear();
        let (mut sudden, mut is_new) = (0, false);
        let most_nats = group.surprise();
        for column in group.columns.iter().copied() {
            let ratio = self.ratios[column];
            if ratio.is_nan() {
                continue;
            }
            let mut excess = ratio / self.offset[column] - 1.0;
            if is_small {
                excess = excess.min(values[column] / self.own_past[column] - 1.0);
            }
            if excess.is_nan() {
                continue;
            }
            magnitudes.push(excess.abs());
            let is_calm = self.sums[column][SHIFTS.len() - 1] <= 0.0;
            let evidence = self.step(column, excess, deviation, (threshold, most_nats));
            sudden += usize::from(is_calm && excess >= ROW_DEVIATIONS_MAX * deviation);
            is_new |= evidence >= threshold && !self.named[column];
        }
        group.count(magnitudes.len(), sudden);
        if !is_small {
            let now = quantile_in_place(&mut magnitudes, 0.5).unwrap_or(0.0) / NOISE_QUANTILES[0].1;
            group.noise_now += MEAN_WEIGHTS[1] * (now - group.noise_now);
        }
        self.scratch = magnitudes;
        if is_new { self.verify(group, deviation, threshold) } else { Vec::new() }
    }

    /// Adds a row to the evidence against a column and to what is learned of it; gives the most nats.
    ///
    /// * `limits`: the nats that convict, and those that one row may add.
    #[inline]
    fn step(&mut self, column: usize, excess: f32, deviation: f32, limits: (f32, f32)) -> f32 {
        let (threshold, most_nats) = limits;
        let z = (excess - self.allowance(column, deviation)) / deviation;
        let z = z.clamp(-2.0 * ROW_DEVIATIONS_MAX, ROW_DEVIATIONS_MAX);
        let mut most = 0.0_f32;
        for (place, shift) in SHIFTS.into_iter().enumerate() {
            let nats = shift_evidence(z, shift).min(most_nats);
            let sum = (self.sums[column][place] + nats).clamp(0.0, EVIDENCE_CAP * threshold);
            self.ages[column][place] = if sum > 0.0 { self.ages[column][place] + 1 } else { 0 };
            self.sums[column][place] = sum;
            most = most.max(sum);
        }
        for (mean, weight) in self.means[column].iter_mut().zip(MEAN_WEIGHTS) {
            *mean += weight * (excess - *mean);
        }
        let learned = self.learned[column];
        if learned < OFFSET_ROWS && most < LEARNING_EVIDENCE_MAX && !self.named[column] {
            let part = excess.clamp(-2.5 * deviation, 2.5 * deviation) / f32::from(learned + 1);
            let limit = self.offset[column].max(1.0 + EARLY_TOLERANCE);
            self.offset[column] = (self.offset[column] * (1.0 + part)).min(limit);
            self.learned[column] = learned + 1;
        }
        most
    }

    /// How slow a column may be with nothing wrong: the tolerance, or what is not known of its offset if that is more.
    #[inline]
    fn allowance(&self, column: usize, deviation: f32) -> f32 {
        let learned = self.learned[column];
        let tolerance = if u32::from(learned) < EARLY_ROWS { EARLY_TOLERANCE } else { TOLERANCE };
        tolerance.max(OFFSET_ERRORS * self.offset_error(column, deviation))
    }

    fn offset_error(&self, column: usize, deviation: f32) -> f32 {
        deviation / f32::from(self.learned[column].max(1)).sqrt()
    }

    /// Who of the columns over the threshold has lasted, is large, and stands apart from what others wander.
    fn verify(&mut self, group: &Group, deviation: f32, threshold: f32) -> Vec<Finding> {
        let is_hot = |sums: &[f32; 3]| sums.iter().any(|sum| *sum >= threshold);
        let is_small = group.columns.len() < SMALL_GROUP;
        let spread = |which: usize| {
            let cool = group.columns.iter().filter(|column| !is_hot(&self.sums[**column]));
            let mut means: Vec<f32> = cool.map(|column| self.means[*column][which]).collect();
            let center = quantile_in_place(&mut means, 0.5).unwrap_or(0.0);
            means.iter_mut().for_each(|mean| *mean = (*mean - center).abs());
            let wander = quantile_in_place(&mut means, 0.5).unwrap_or(0.0) / NOISE_QUANTILES[0].1;
            let least = deviation * mean_error(which);
            (center, if is_small { least } else { wander.max(least) })
        };
        let spreads: [(f32, f32); 3] = std::array::from_fn(spread);
        // Who is half convicted counts among the many too: of a slow half of the job some are over first.
        let is_half_hot = |column: &&usize| self.sums[**column].iter().any(|sum| *sum >= 0.5 * threshold);
        let half_hot: Vec<usize> = group.columns.iter().filter(is_half_hot).copied().collect();
        let mut findings = Vec::new();
        for column in group.columns.iter().copied().filter(|column| is_hot(&self.sums[*column])) {
            let (best, log_e) = largest(&self.sums[column]);
            let age = self.ages[column][best];
            if self.named[column] || age < PERSISTENCE_ROWS || self.means[column][0] < TOLERANCE {
                continue;
            }
            let band = self.allowance(column, deviation);
            let is_apart = |which: &usize| {
                let (center, spread) = spreads[*which];
                let mean = self.means[column][*which];
                mean - center >= GAP_SPREADS * spread && mean / filled(*which, age) >= band
            };
            let Some(which) = means_of(age).find(is_apart) else { continue };
            let least = 0.5 * self.means[column][which];
            if half_hot.iter().filter(|other| self.means[**other][which] >= least).count() > group.hot_max() {
                continue;
            }
            let (excess, error) = self.excess_by(column, which, age, deviation);
            self.named[column] = true;
            findings.push(Finding {
                column,
                ratio: 1.0 + excess,
                band,
                error,
                log10_e: f64::from(log_e - (SHIFTS.len() as f32).ln()) * std::f64::consts::LOG10_E,
                age,
                blur: (4.0 * (deviation / excess).powi(2)).ceil().min(1e6) as u32,
                peers: group.columns.len() - 1,
                basis: Basis::Offset {
                    offset: self.offset[column],
                    learned: self.learned[column],
                    deviation,
                    nats: log_e,
                    shift: SHIFTS[best],
                    threshold,
                    mean: self.means[column][which],
                    weight: MEAN_WEIGHTS[which],
                    center: spreads[which].0,
                    spread: spreads[which].1,
                },
            });
        }
        findings
    }

    /// By how much a column is slow by one of its running means, over the last `age` rows, and the standard error.
    fn excess_by(&self, column: usize, which: usize, age: u32, deviation: f32) -> (f32, f32) {
        let filled = filled(which, age);
        let error = (deviation * mean_error(which) / filled).hypot(self.offset_error(column, deviation));
        (self.means[column][which] / filled, error)
    }

    /// By how much a rank was slow over the last `age` rows, and the standard error; `None` while that is not known.
    pub(crate) fn excess(&self, rank: Rank, age: u32) -> Option<(f32, f32)> {
        let column = self.ranks.binary_search(&rank).ok()?;
        let group = self.groups.iter().find(|group| group.columns.contains(&column))?;
        let which = means_of(age).last()?;
        (group.noise > 0.0).then(|| self.excess_by(column, which, age, group.deviation()))
    }

    /// A column's ratio now: the larger of its short and its long running mean, so that a case neither ends with one
    /// quick row nor before the long mean has heard of it.
    pub(crate) fn ratio_now(&self, column: usize) -> f32 {
        1.0 + self.means[column][0].max(self.means[column][1])
    }

    /// How [`ratio_now`](Self::ratio_now) follows from the running means.
    pub(crate) fn working_now(&self, column: usize) -> Working {
        Working::new(&["ratio = 1 + the larger of short_mean and middle_mean, the running means of the row excess"])
            .with("offset", self.offset[column])
            .with("short_mean", self.means[column][0])
            .with("short_weight", MEAN_WEIGHTS[0])
            .with("middle_mean", self.means[column][1])
            .with("middle_weight", MEAN_WEIGHTS[1])
    }

    /// Forgets the evidence against a column whose finding is over.
    pub(crate) fn acquit(&mut self, column: usize) {
        self.named[column] = false;
        self.sums[column] = [0.0; 3];
        self.ages[column] = [0; 3];
    }

    /// The same knowledge for other columns: ranks that stay keep what was learned, new ones start with nothing.
    pub(crate) fn onto(&self, ranks: &[Rank], groups: Vec<Vec<usize>>) -> Self {
        let mut moved = Self::new(ranks, groups);
        moved.rows = self.rows;
        moved.level = self.level;
        let width = self.ranks.len();
        let from: Vec<Option<usize>> = ranks.iter().map(|rank| self.ranks.binary_search(rank).ok()).collect();
        for row in self.warm.chunks_exact(width.max(1)) {
            moved.warm.extend(from.iter().map(|old| old.map_or(f32::NAN, |old| row[old])));
        }
        for (new, old) in from.iter().enumerate().filter_map(|(new, old)| Some((new, (*old)?))) {
            moved.offset[new] = self.offset[old];
            moved.learned[new] = self.learned[old];
            moved.own_past[new] = self.own_past[old];
            moved.sums[new] = self.sums[old];
            moved.ages[new] = self.ages[old];
            moved.means[new] = self.means[old];
            moved.named[new] = self.named[old];
        }
        for group in &mut moved.groups {
            let held = |old: &&Group| group.columns.iter().any(|c| from[*c].is_some_and(|c| old.columns.contains(&c)));
            if let Some(old) = self.groups.iter().find(held) {
                (group.noise, group.inflation, group.noise_now) = (old.noise, old.inflation, old.noise_now);
                (group.sudden, group.cells) = (old.sudden, old.cells);
            }
        }
        moved
    }
}

fn largest(sums: &[f32; 3]) -> (usize, f32) {
    let mut best = (0, sums[0]);
    for (place, sum) in sums.iter().enumerate() {
        if *sum > best.1 {
            best = (place, *sum);
        }
    }
    best
}

/// The median of what is present; one where nothing is.
fn middle_of(history: &[f32]) -> f32 {
    let mut present: Vec<f32> = history.iter().copied().filter(|value| !value.is_nan()).collect();
    match present.as_slice() {
        [] => 1.0,
        [one] => *one,
        _ => Middle::of(&mut present).map_or(1.0, |middle| middle.median()),
    }
}

/// Which ranks are outside all that could be design: beyond the tolerance, few, and far from where the others stand.
fn stand_apart(typical: &[f32]) -> Vec<bool> {
    let is_slow: Vec<bool> = typical.iter().map(|ratio| *ratio > 1.0 + EARLY_TOLERANCE).collect();
    let slow = is_slow.iter().filter(|slow| **slow).count();
    let others = typical.iter().zip(&is_slow).filter(|(_, slow)| !**slow);
    let mut distances: Vec<f32> = others.map(|(ratio, _)| (ratio - 1.0).abs()).collect();
    let reach = quantile_in_place(&mut distances, 0.95).unwrap_or(0.0);
    let few = slow <= (typical.len() / 4).max(1);
    typical.iter().map(|ratio| few && ratio - 1.0 > EARLY_TOLERANCE.max(EARLY_GAP * reach)).collect()
}

/// Noise of a row from differences of neighbouring rows, which no offset enters.
fn early_noise(histories: &[Vec<f32>]) -> f32 {
    let steps = histories.iter().flat_map(|history| history.windows(2).map(|pair| (pair[1] - pair[0]).abs()));
    let mut steps: Vec<f32> = steps.filter(|step| !step.is_nan()).collect();
    (widest_noise(&mut steps) / std::f32::consts::SQRT_2).max(TOLERANCE)
}

/// What speaks against a rank before offsets exist: an e-CUSUM against "no more than 10 % slower than its peers".
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Suspicion {
    log_e: f32,
    /// Place of the row since which it is positive.
    begin: usize,
    /// Rows since then, and those in which the rank was slow.
    rows: u32,
    slow: u32,
}

impl Suspicion {
    fn of(history: &[f32], noise: f32) -> Self {
        let mut suspicion = Self::default();
        for (at, ratio) in history.iter().enumerate().filter(|(_, ratio)| !ratio.is_nan()) {
            if suspicion.log_e <= 0.0 {
                suspicion = Self { begin: at, ..Self::default() };
            }
            let z = ((ratio - 1.0 - EARLY_TOLERANCE) / noise).clamp(-2.0 * ROW_DEVIATIONS_MAX, ROW_DEVIATIONS_MAX);
            suspicion.log_e = (suspicion.log_e + shift_evidence(z, SHIFTS[2])).max(0.0);
            suspicion.rows += 1;
            suspicion.slow += u32::from(*ratio > 1.0 + EARLY_TOLERANCE);
        }
        suspicion
    }

    fn is_sure(&self, threshold: f32) -> bool {
        self.log_e >= threshold && self.slow >= EARLY_ROWS && self.slow * 10 >= self.rows * 9
    }
}

/// The median ratio of each rank from the row at `begin` on.
fn typical_since(histories: &[Vec<f32>], begin: usize) -> Vec<f32> {
    histories.iter().map(|history| middle_of(&history[begin..])).collect()
}

/// Standard error of a running mean of long standing, in standard deviations of a row.
fn mean_error(which: usize) -> f32 {
    let weight = MEAN_WEIGHTS[which];
    (weight / (2.0 - weight)).sqrt()
}

/// The part of a running mean that rests on the last `age` rows.
fn filled(which: usize, age: u32) -> f32 {
    1.0 - (1.0 - MEAN_WEIGHTS[which]).powi(age.clamp(1, 1_000) as i32)
}

/// The running means by which a finding of this age is measured, in the order in which they are asked.
fn means_of(age: u32) -> impl Iterator<Item = usize> {
    let first = usize::from(age >= MEAN_ROWS[1]);
    (first..MEAN_ROWS.len()).filter(move |which| age >= MEAN_ROWS[*which])
}

fn widest_noise(magnitudes: &mut [f32]) -> f32 {
    let measure = |magnitudes: &mut [f32], (q, z): (f64, f32)| quantile_in_place(magnitudes, q).unwrap_or(0.0) / z;
    NOISE_QUANTILES.into_iter().fold(0.0, |widest, quantile| measure(magnitudes, quantile).max(widest))
}
