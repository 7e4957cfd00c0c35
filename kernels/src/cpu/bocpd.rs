//! Bayesian online change-point detection: how long each series has been as it is.

use crate::cpu::math::{exp2_negative, log1p, rsqrt, side_by_side};
use crate::simd::lanes::{LANES, Lanes};
use crate::simd::{Isa, vectored};

/// What is believed before the first value, and how often things change.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BocpdSettings {
    /// Probability that a value begins a new regime, 0 to 1.
    pub hazard: f64,
    /// Expected mean of a new regime.
    pub mean: f64,
    /// Number of values that the expectation of the mean is worth.
    pub mean_weight: f64,
    /// Shape of the gamma distribution of the precision.
    pub shape: f64,
    /// Rate of the gamma distribution of the precision.
    pub rate: f64,
}

impl Default for BocpdSettings {
    fn default() -> Self {
        Self { hazard: 1.0 / 250.0, mean: 0.0, mean_weight: 1.0, shape: 1.0, rate: 1.0 }
    }
}

/// Numbers that depend on the run length alone.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct OfLength {
    /// Normalisation of Student's t, without the rate.
    norm: f32,
    /// `kappa / (2 (kappa + 1))`.
    spread: f32,
    /// `1 / (kappa + 1)`.
    gain: f32,
    /// `-(alpha + 1/2) log2(e)`.
    power: f32,
}

/// Posterior of the run length of many series, cut at a longest length.
///
/// Observations of a regime are normal with unknown mean and precision (Normal-Gamma prior). Lengths from 0 to
/// `lengths - 1` are kept; the last one stands for itself and all longer ones, and forgets: mean and rate go on as
/// exponential averages over about `lengths` values.
///
/// Values should be standardised (residuals in standard deviations), because means are kept in single precision: the
/// posterior differs from one in double precision by at most 1e-5 (tested on values within 8 standard deviations).
///
/// Source: Adams and MacKay, "Bayesian online changepoint detection", arXiv 0710.3742 (2007), section 2; Murphy,
/// "Conjugate Bayesian analysis of the Gaussian distribution" (2007), section 3.
#[derive(Clone, Debug, PartialEq)]
pub struct Bocpd {
    series: usize,
    lengths: usize,
    hazard: f32,
    prior_mean: f32,
    prior_rate: f32,
    /// What the rate of the last length is multiplied with: its shape does not grow any more.
    forget: f32,
    table: Vec<OfLength>,
    /// `[blocks, lengths]` vectors: probability, not yet divided by `totals`.
    weights: Vec<[f32; LANES]>,
    means: Vec<[f32; LANES]>,
    rates: Vec<[f32; LANES]>,
    /// `[blocks]` vectors: what the weights sum to.
    totals: Vec<[f32; LANES]>,
}

impl Bocpd {
    /// Series that have not begun: run length zero for sure.
    ///
    /// # Panics
    /// If `lengths` is less than two.
    #[must_use]
    pub fn new(series: usize, lengths: usize, settings: &BocpdSettings) -> Self {
        assert!(lengths >= 2, "a posterior over {lengths} lengths says nothing");
        let blocks = series.div_ceil(LANES);
        let mut weights = vec![[0.0; LANES]; blocks * lengths];
        for block in 0..blocks {
            weights[block * lengths] = [1.0; LANES];
        }
        let mut norm = gamma_ratio(settings.shape);
        let table = (0..lengths).map(|length| {
            let alpha = settings.shape + 0.5 * length as f64;
            let kappa = settings.mean_weight + length as f64;
            if length > 0 {
                // Γ(a + 1) / Γ(a + 1/2) from Γ(a + 1/2) / Γ(a): the ratios of neighbours multiply to a.
                norm = (alpha - 0.5) / norm;
            }
            OfLength {
                norm: (norm * (kappa / (std::f64::consts::TAU * (kappa + 1.0))).sqrt()) as f32,
                spread: (0.5 * kappa / (kappa + 1.0)) as f32,
                gain: (1.0 / (kappa + 1.0)) as f32,
                power: (-(alpha + 0.5) * std::f64::consts::LOG2_E) as f32,
            }
        });
        let alpha_last = settings.shape + 0.5 * (lengths - 1) as f64;
        Self {
            series,
            lengths,
            hazard: settings.hazard as f32,
            prior_mean: settings.mean as f32,
            prior_rate: settings.rate as f32,
            forget: (alpha_last / (alpha_last + 0.5)) as f32,
            table: table.collect(),
            weights,
            means: vec![[settings.mean as f32; LANES]; blocks * lengths],
            rates: vec![[settings.rate as f32; LANES]; blocks * lengths],
            totals: vec![[1.0; LANES]; blocks],
        }
    }

    /// The arrays, for another backend.
    pub(crate) fn parts_mut(&mut self) -> BocpdParts<'_> {
        let of_length = |of: &OfLength| [of.norm, of.spread, of.gain, of.power];
        BocpdParts {
            lengths: self.lengths,
            constants: [self.hazard, self.prior_mean, self.prior_rate, self.forget],
            table: self.table.iter().map(of_length).collect(),
            weights: &mut self.weights,
            means: &mut self.means,
            rates: &mut self.rates,
            totals: &mut self.totals,
        }
    }

    /// Number of series.
    #[must_use]
    pub fn series(&self) -> usize {
        self.series
    }

    /// Probability that the current regime of `series` is `length` values long, the longest standing for all longer ones.
    #[must_use]
    pub fn probability(&self, series: usize, length: usize) -> f32 {
        let (block, lane) = (series / LANES, series % LANES);
        self.weights[block * self.lengths + length][lane] / self.totals[block][lane]
    }

    /// Probability that the current regime of `series` is shorter than `length` values.
    #[must_use]
    pub fn probability_shorter(&self, series: usize, length: usize) -> f32 {
        (0..length.min(self.lengths)).map(|length| self.probability(series, length)).sum()
    }
}

/// The arrays of a [`Bocpd`], shaped as its fields are.
pub(crate) struct BocpdParts<'a> {
    pub(crate) lengths: usize,
    /// Hazard, prior mean, prior rate, and what the last length forgets.
    pub(crate) constants: [f32; 4],
    /// `[lengths]`: norm, spread, gain, power.
    pub(crate) table: Vec<[f32; 4]>,
    pub(crate) weights: &'a mut [[f32; LANES]],
    pub(crate) means: &'a mut [[f32; LANES]],
    pub(crate) rates: &'a mut [[f32; LANES]],
    pub(crate) totals: &'a mut [[f32; LANES]],
}

/// Γ(a + 1/2) / Γ(a), by recurrence from where the asymptotic series is exact to double precision.
fn gamma_ratio(a: f64) -> f64 {
    let mut factor = 1.0;
    let mut high = a;
    while high < 60.0 {
        // Γ(a + 1/2) / Γ(a) = Γ(a + 3/2) / Γ(a + 1) * a / (a + 1/2)
        factor *= high / (high + 0.5);
        high += 1.0;
    }
    let inverse = 1.0 / high;
    let series = 1.0
        + inverse
            * (-1.0 / 8.0
                + inverse
                    * (1.0 / 128.0
                        + inverse * (5.0 / 1024.0 + inverse * (-21.0 / 32_768.0 - inverse * 399.0 / 262_144.0))));
    factor * high.sqrt() * series
}

/// Takes one value of every series into the posteriors.
///
/// * `values`: `[series]`, finite; a NaN leaves its series as it was.
///
/// Cost: 12 bytes of state read and written a length and series, about 55 operations; linear in `lengths`. Sums over
/// lengths have one order, longest first.
pub(crate) fn update(isa: Isa, state: &mut Bocpd, values: &[f32]) {
    let Bocpd { lengths, hazard, prior_mean, prior_rate, forget, table, weights, means, rates, totals, .. } = state;
    let constants = [*hazard, *prior_mean, *prior_rate, *forget];
    update_all(isa, values, *lengths, constants, table, weights, means, rates, totals);
}

vectored! {
    fn update_all(
        l;
        values: &'a [f32],
        lengths: usize,
        constants: [f32; 4],
        table: &'a [OfLength],
        weights: &'a mut [[f32; LANES]],
        means: &'a mut [[f32; LANES]],
        rates: &'a mut [[f32; LANES]],
        totals: &'a mut [[f32; LANES]],
    ) {
        for (block, total) in totals.iter_mut().enumerate() {
            let first = block * LANES;
            let width = LANES.min(values.len() - first);
            let mut x = [f32::NAN; LANES];
            x[..width].copy_from_slice(&values[first..][..width]);
            let range = block * lengths..(block + 1) * lengths;
            let block = Block {
                table,
                weights: &mut weights[range.clone()],
                means: &mut means[range.clone()],
                rates: &mut rates[range],
            };
            if x.iter().all(|x| !x.is_nan()) {
                block.update(l, &x, constants, total);
            } else {
                block.update_some(l, &x, constants, total);
            }
        }
    }
}

/// Lengths whose arithmetic goes side by side.
const SIDE_BY_SIDE: usize = 4;

struct Block<'a> {
    table: &'a [OfLength],
    weights: &'a mut [[f32; LANES]],
    means: &'a mut [[f32; LANES]],
    rates: &'a mut [[f32; LANES]],
}

/// One length of 16 series after one more value: what it weighs, and what is known of mean and rate.
#[derive(Clone, Copy)]
struct Grown<L: Lanes> {
    weight: L::F,
    mean: L::F,
    rate: L::F,
}

impl Block<'_> {
    /// The lengths `oldest`, `oldest - 1` and so on, `N` of them.
    #[inline(always)]
    fn grow<L: Lanes, const N: usize>(&self, l: L, oldest: usize, x: L::F, scale: L::F) -> [Grown<L>; N] {
        let zero = l.splat(0.0);
        let mean = side_by_side!(n: zero, l.load(&self.means[oldest - n]));
        let rate = side_by_side!(n: zero, l.load(&self.rates[oldest - n]));
        let difference = side_by_side!(n: zero, l.sub(x, mean[n]));
        let spread = side_by_side!(n: zero, l.splat(self.table[oldest - n].spread));
        let square = side_by_side!(n: zero, l.mul(l.mul(difference[n], difference[n]), spread[n]));
        let root = rsqrt(l, rate);
        let logarithm = log1p(l, side_by_side!(n: zero, l.mul(square[n], l.mul(root[n], root[n]))));
        let exponent = side_by_side!(n: zero, l.mul(l.splat(self.table[oldest - n].power), logarithm[n]));
        let power = exp2_negative(l, exponent);
        let mut grown = [Grown { weight: zero, mean: zero, rate: zero }; N];
        for n in 0..N {
            let OfLength { norm, gain, .. } = self.table[oldest - n];
            let likelihood = l.mul(l.mul(l.splat(norm), root[n]), power[n]);
            grown[n].weight = l.mul(l.mul(l.load(&self.weights[oldest - n]), scale), likelihood);
            grown[n].mean = l.mul_add(difference[n], l.splat(gain), mean[n]);
            grown[n].rate = l.add(rate[n], square[n]);
        }
        grown
    }

    #[inline(always)]
    fn set<L: Lanes>(&mut self, l: L, length: usize, grown: &Grown<L>, stay: L::F) {
        l.store(l.mul(stay, grown.weight), &mut self.weights[length]);
        l.store(grown.mean, &mut self.means[length]);
        l.store(grown.rate, &mut self.rates[length]);
    }

    #[inline(always)]
    fn update<L: Lanes>(mut self, l: L, x: &[f32; LANES], constants: [f32; 4], total: &mut [f32; LANES]) {
        let [hazard, prior_mean, prior_rate, forget] = constants;
        let last = self.weights.len() - 1;
        let stay = l.splat(1.0 - hazard);
        let scale = l.load(&total.map(|total| 1.0 / total));
        let x = l.load(x);
        // The last length keeps what it has, forgetting a little, and takes in what grows into it.
        let [oldest, grown] = self.grow(l, last, x, scale);
        let mut mass = l.add(oldest.weight, grown.weight);
        let is_lighter = l.lt(oldest.weight, grown.weight);
        l.store(l.mul(stay, l.add(oldest.weight, grown.weight)), &mut self.weights[last]);
        l.store(l.select(is_lighter, grown.mean, oldest.mean), &mut self.means[last]);
        let forgotten = l.mul(oldest.rate, l.splat(forget));
        l.store(l.select(is_lighter, grown.rate, forgotten), &mut self.rates[last]);
        let mut next = last - 1;
        while next >= SIDE_BY_SIDE {
            let grown: [Grown<L>; SIDE_BY_SIDE] = self.grow(l, next - 1, x, scale);
            for (n, grown) in grown.iter().enumerate() {
                mass = l.add(mass, grown.weight);
                self.set(l, next - n, grown, stay);
            }
            next -= SIDE_BY_SIDE;
        }
        while next > 0 {
            let [grown] = self.grow(l, next - 1, x, scale);
            mass = l.add(mass, grown.weight);
            self.set(l, next, &grown, stay);
            next -= 1;
        }
        l.store(l.mul(l.splat(hazard), mass), &mut self.weights[0]);
        l.store(mass, total);
        self.means[0] = [prior_mean; LANES];
        self.rates[0] = [prior_rate; LANES];
        for lane in 0..LANES {
            // A value that no length can explain (weights underflow, or it is infinite) begins anew.
            let is_explained = total[lane] > f32::MIN_POSITIVE;
            if !is_explained {
                self.weights.iter_mut().for_each(|weights| weights[lane] = 0.0);
                self.means.iter_mut().for_each(|means| means[lane] = prior_mean);
                self.rates.iter_mut().for_each(|rates| rates[lane] = prior_rate);
                (self.weights[0][lane], total[lane]) = (1.0, 1.0);
            }
        }
    }

    /// As [`Block::update`], where values are missing: their lanes are put back.
    #[inline(always)]
    fn update_some<L: Lanes>(self, l: L, x: &[f32; LANES], constants: [f32; 4], total: &mut [f32; LANES]) {
        let Self { table, weights, means, rates } = self;
        for lane in (0..LANES).filter(|lane| !x[*lane].is_nan()) {
            // One series at a time, in a block of its own: rare, and the same arithmetic.
            let column = |values: &[[f32; LANES]]| -> Vec<[f32; LANES]> {
                values.iter().map(|row| [row[lane]; LANES]).collect()
            };
            let (mut own_weights, mut own_means, mut own_rates) = (column(weights), column(means), column(rates));
            let mut own_total = [total[lane]; LANES];
            let block = Block { table, weights: &mut own_weights, means: &mut own_means, rates: &mut own_rates };
            block.update(l, &[x[lane]; LANES], constants, &mut own_total);
            total[lane] = own_total[lane];
            for length in 0..weights.len() {
                weights[length][lane] = own_weights[length][lane];
                means[length][lane] = own_means[length][lane];
                rates[length][lane] = own_rates[length][lane];
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The recursion of the type's page, one series, double precision, with the library's functions.
    struct Oracle {
        settings: BocpdSettings,
        weights: Vec<f64>,
        means: Vec<f64>,
        rates: Vec<f64>,
    }

    fn ln_gamma(x: f64) -> f64 {
        // Stirling from x + 20 on, and down by recurrence.
        let mut shift = 0.0;
        let mut x = x;
        while x < 30.0 {
            shift -= x.ln();
            x += 1.0;
        }
        shift + (x - 0.5) * x.ln() - x + 0.5 * std::f64::consts::TAU.ln() + 1.0 / (12.0 * x) - 1.0 / (360.0 * x.powi(3))
    }

    impl Oracle {
        fn new(lengths: usize, settings: BocpdSettings) -> Self {
            let mut weights = vec![0.0; lengths];
            weights[0] = 1.0;
            Self { settings, weights, means: vec![settings.mean; lengths], rates: vec![settings.rate; lengths] }
        }

        fn update(&mut self, x: f64) {
            let BocpdSettings { hazard, mean, mean_weight, shape, rate } = self.settings;
            let last = self.weights.len() - 1;
            let grow = |length: usize| {
                let (alpha, kappa) = (shape + 0.5 * length as f64, mean_weight + length as f64);
                let (mu, beta) = (self.means[length], self.rates[length]);
                let scale2 = beta * (kappa + 1.0) / (alpha * kappa);
                let ln_pdf = ln_gamma(alpha + 0.5)
                    - ln_gamma(alpha)
                    - 0.5 * (std::f64::consts::TAU * alpha * scale2).ln()
                    - (alpha + 0.5) * ((x - mu).powi(2) / (2.0 * alpha * scale2)).ln_1p();
                let grown_rate = beta + kappa * (x - mu).powi(2) / (2.0 * (kappa + 1.0));
                (self.weights[length] * ln_pdf.exp(), mu + (x - mu) / (kappa + 1.0), grown_rate)
            };
            let grown: Vec<(f64, f64, f64)> = (0..=last).map(grow).collect();
            let mass: f64 = grown.iter().map(|grown| grown.0).sum();
            let alpha_last = shape + 0.5 * last as f64;
            for length in 0..last {
                self.weights[length + 1] = (1.0 - hazard) * grown[length].0 / mass;
                self.means[length + 1] = grown[length].1;
                self.rates[length + 1] = grown[length].2;
            }
            if grown[last].0 >= grown[last - 1].0 {
                self.means[last] = grown[last].1;
                self.rates[last] = grown[last].2 * alpha_last / (alpha_last + 0.5);
            }
            self.weights[last] += (1.0 - hazard) * grown[last].0 / mass;
            (self.weights[0], self.means[0], self.rates[0]) = (hazard, mean, rate);
        }
    }

    fn check(series: usize, lengths: usize, ticks: usize, seed: u64) {
        let settings = BocpdSettings::default();
        let mut noise = crate::testing::Noise::new(seed);
        let mut oracles: Vec<Oracle> = (0..series).map(|_| Oracle::new(lengths, settings)).collect();
        let mut states: Vec<(Isa, Bocpd)> =
            Isa::all().into_iter().map(|isa| (isa, Bocpd::new(series, lengths, &settings))).collect();
        let mut worst = 0.0_f64;
        for tick in 0..ticks {
            let level = if tick % 70 < 35 { 0.0 } else { 4.0 };
            let mut values: Vec<f32> = (0..series).map(|_| level + noise.normal()).collect();
            if tick % 11 == 5 {
                values[tick % series] = f32::NAN;
            }
            for (isa, state) in &mut states {
                update(*isa, state, &values);
            }
            for (one, oracle) in oracles.iter_mut().enumerate() {
                if !values[one].is_nan() {
                    oracle.update(f64::from(values[one]));
                }
                for length in 0..lengths {
                    let ours = f64::from(states[0].1.probability(one, length));
                    worst = worst.max((ours - oracle.weights[length]).abs());
                }
            }
            for pair in states.windows(2) {
                assert!(pair[0].1 == pair[1].1, "{} differs from {} at tick {tick}", pair[1].0, pair[0].0);
            }
        }
        assert!(worst < 1e-5, "posterior off by {worst}");
    }

    #[test]
    fn the_posterior_is_that_of_double_precision_and_equal_for_all_sets() {
        check(5, 16, 200, 1);
        check(17, 64, 160, 2);
    }

    #[test]
    fn a_change_is_seen_a_few_values_after_it() {
        let mut state = Bocpd::new(1, 128, &BocpdSettings::default());
        let mut noise = crate::testing::Noise::new(3);
        for _ in 0..100 {
            update(Isa::best(), &mut state, &[noise.normal()]);
        }
        assert!(state.probability_shorter(0, 20) < 0.2);
        for _ in 0..8 {
            update(Isa::best(), &mut state, &[6.0 + noise.normal()]);
        }
        assert!(state.probability_shorter(0, 12) > 0.95, "{}", state.probability_shorter(0, 12));
    }

    #[test]
    fn a_value_beyond_all_reason_begins_anew() {
        let mut state = Bocpd::new(1, 8, &BocpdSettings::default());
        for value in [0.0, 1e30, 0.0, 0.1] {
            update(Isa::best(), &mut state, &[value]);
        }
        assert!((0..8).map(|length| state.probability(0, length)).sum::<f32>().is_finite());
    }

    #[test]
    fn the_ratio_of_gammas_is_right() {
        assert!((gamma_ratio(0.5) - 1.0 / std::f64::consts::PI.sqrt()).abs() < 1e-13);
        assert!((gamma_ratio(1.0) - std::f64::consts::PI.sqrt() / 2.0).abs() < 1e-13);
    }
}
