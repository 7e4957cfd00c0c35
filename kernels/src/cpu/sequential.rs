//! Sequential tests of many series at once: EWMA, CUSUM and Page-Hinkley.

use crate::cpu::math::rsqrt;
use crate::simd::lanes::{LANES, Lanes};
use crate::simd::{Isa, vectored};

/// How a [`SequentialBank`] weighs and when it alarms.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SequentialSettings {
    /// Weight of a new value in mean and variance, 0 to 1.
    pub weight: f32,
    /// What a CUSUM forgives each tick, in standard deviations.
    pub slack: f32,
    /// What Page-Hinkley forgives each tick, in standard deviations.
    pub tolerance: f32,
    /// A series alarms when any of its three statistics is above, in standard deviations; at least zero.
    pub threshold: f32,
    /// Added to the variance, in squared units, so that a constant series has a scale; above zero.
    pub variance_floor: f32,
}

impl Default for SequentialSettings {
    fn default() -> Self {
        Self { weight: 0.02, slack: 0.5, tolerance: 0.1, threshold: 25.0, variance_floor: 1e-12 }
    }
}

/// State of the tests of many series, 24 bytes a series, as separate arrays.
///
/// For each value `x` of a series, with `z = (x - mean) / sqrt(variance + floor)`:
/// * `above = max(0, above + (z - slack))`, `below = max(0, below - (z + slack))`: two-sided CUSUM;
/// * `drift += z - tolerance`, `drift_least = min(drift_least, drift)`: Page-Hinkley, whose statistic is their difference;
/// * `mean += weight (x - mean)`, `variance = (1 - weight) (variance + weight (x - mean)^2)`: EWMA, after the tests.
///
/// A NaN leaves its series as it was. The scale has a relative error of at most 3e-7 (see `rsqrt`); everything else is
/// single precision in the order written, so all sets of instructions give the same bits.
///
/// Source: Page, "Continuous inspection schemes", Biometrika 41 (1954); Roberts, "Control chart tests based on geometric
/// moving averages", Technometrics 1 (1959); Hinkley, "Inference about the change-point from cumulative sum tests",
/// Biometrika 58 (1971).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SequentialBank {
    /// `[series]`: exponentially weighted mean, unit of the values.
    pub mean: Vec<f32>,
    /// `[series]`: exponentially weighted variance, squared unit.
    pub variance: Vec<f32>,
    /// `[series]`: CUSUM of what is above the mean, standard deviations.
    pub above: Vec<f32>,
    /// `[series]`: CUSUM of what is below the mean, standard deviations.
    pub below: Vec<f32>,
    /// `[series]`: Page-Hinkley sum, standard deviations.
    pub drift: Vec<f32>,
    /// `[series]`: the least Page-Hinkley sum so far.
    pub drift_least: Vec<f32>,
}

impl SequentialBank {
    /// A bank of `series` series that are expected at `mean` with `variance`.
    #[must_use]
    pub fn new(series: usize, mean: f32, variance: f32) -> Self {
        let zeros = vec![0.0; series];
        Self {
            mean: vec![mean; series],
            variance: vec![variance; series],
            above: zeros.clone(),
            below: zeros.clone(),
            drift: zeros.clone(),
            drift_least: zeros,
        }
    }

    /// Number of series.
    #[must_use]
    pub fn len(&self) -> usize {
        self.mean.len()
    }

    /// Whether there is no series.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.mean.is_empty()
    }

    /// The largest of the three statistics of one series, standard deviations.
    #[must_use]
    pub fn statistic(&self, series: usize) -> f32 {
        let drift = self.drift[series] - self.drift_least[series];
        larger(larger(self.above[series], self.below[series]), drift)
    }
}

fn larger(one: f32, other: f32) -> f32 {
    if one > other { one } else { other }
}

/// Feeds `ticks` values of each series, oldest first; returns the number of series above the threshold after the last.
///
/// * `values`: `[ticks, series]` in one piece. `bank`: `ticks` times `series` must be the length of `values`.
///
/// Cost: 24 bytes of state read and written a series and call, 4 bytes read a value, about 35 operations a value.
pub(crate) fn update(isa: Isa, bank: &mut SequentialBank, values: &[f32], settings: &SequentialSettings) -> usize {
    let series = bank.len();
    if series == 0 {
        return 0;
    }
    let ticks = values.len() / series;
    let SequentialBank { mean, variance, above, below, drift, drift_least } = bank;
    update_all(isa, values, ticks, settings, mean, variance, above, below, drift, drift_least)
}

/// State of as many series as one vector holds, in registers over the ticks of one call.
struct State<L: Lanes> {
    mean: L::F,
    variance: L::F,
    above: L::F,
    below: L::F,
    drift: L::F,
    drift_least: L::F,
}

impl<L: Lanes> State<L> {
    #[inline(always)]
    fn update(&mut self, l: L, values: L::F, settings: &SequentialSettings) {
        let zero = l.splat(0.0);
        let is_present = l.eq(values, values);
        let keep = |new: L::F, old: L::F| l.select(is_present, new, old);
        let difference = l.sub(values, self.mean);
        let z = l.mul(difference, rsqrt(l, [l.add(self.variance, l.splat(settings.variance_floor))])[0]);
        let above = l.larger(l.add(self.above, l.sub(z, l.splat(settings.slack))), zero);
        let below = l.larger(l.sub(self.below, l.add(z, l.splat(settings.slack))), zero);
        let drift = l.add(self.drift, l.sub(z, l.splat(settings.tolerance)));
        let step = l.mul(l.splat(settings.weight), difference);
        let variance = l.mul(l.splat(1.0 - settings.weight), l.mul_add(step, difference, self.variance));
        self.above = keep(above, self.above);
        self.below = keep(below, self.below);
        self.drift = keep(drift, self.drift);
        self.drift_least = l.smaller(self.drift, self.drift_least);
        self.mean = keep(l.add(self.mean, step), self.mean);
        self.variance = keep(variance, self.variance);
    }

    #[inline(always)]
    fn alarms(&self, l: L, threshold: f32) -> usize {
        let most = l.larger(l.larger(self.above, self.below), l.sub(self.drift, self.drift_least));
        l.mask_bits(l.lt(l.splat(threshold), most)).count_ones() as usize
    }
}

vectored! {
    fn update_all(
        l;
        values: &'a [f32],
        ticks: usize,
        settings: &'a SequentialSettings,
        mean: &'a mut [f32],
        variance: &'a mut [f32],
        above: &'a mut [f32],
        below: &'a mut [f32],
        drift: &'a mut [f32],
        drift_least: &'a mut [f32],
    ) -> usize {
        let series = mean.len();
        let mut alarms = 0;
        let ((mean, mean_rest), (variance, variance_rest)) = (mean.as_chunks_mut::<LANES>(), variance.as_chunks_mut::<LANES>());
        let ((above, above_rest), (below, below_rest)) = (above.as_chunks_mut::<LANES>(), below.as_chunks_mut::<LANES>());
        let (drift, drift_rest) = drift.as_chunks_mut::<LANES>();
        let (least, least_rest) = drift_least.as_chunks_mut::<LANES>();
        for block in 0..mean.len() {
            let mut state = State::<L> {
                mean: l.load(&mean[block]),
                variance: l.load(&variance[block]),
                above: l.load(&above[block]),
                below: l.load(&below[block]),
                drift: l.load(&drift[block]),
                drift_least: l.load(&least[block]),
            };
            for tick in 0..ticks {
                let row = &values[tick * series + block * LANES..];
                state.update(l, l.load(row.first_chunk().expect("a whole block is left")), settings);
            }
            alarms += state.alarms(l, settings.threshold);
            l.store(state.mean, &mut mean[block]);
            l.store(state.variance, &mut variance[block]);
            l.store(state.above, &mut above[block]);
            l.store(state.below, &mut below[block]);
            l.store(state.drift, &mut drift[block]);
            l.store(state.drift_least, &mut least[block]);
        }
        // The last, narrower block is filled up with series that are never wrong.
        let width = mean_rest.len();
        if width > 0 {
            let wide = |rest: &[f32], fill: f32| -> [f32; LANES] { std::array::from_fn(|lane| rest.get(lane).copied().unwrap_or(fill)) };
            let mut state = State::<L> {
                mean: l.load(&wide(mean_rest, 0.0)),
                variance: l.load(&wide(variance_rest, 1.0)),
                above: l.load(&wide(above_rest, 0.0)),
                below: l.load(&wide(below_rest, 0.0)),
                drift: l.load(&wide(drift_rest, 0.0)),
                drift_least: l.load(&wide(least_rest, 0.0)),
            };
            for tick in 0..ticks {
                let row = &values[tick * series + series - width..][..width];
                state.update(l, l.load(&wide(row, f32::NAN)), settings);
            }
            alarms += state.alarms(l, settings.threshold);
            let State { mean, variance, above, below, drift, drift_least } = state;
            let states = [mean, variance, above, below, drift, drift_least];
            let rests = [mean_rest, variance_rest, above_rest, below_rest, drift_rest, least_rest];
            for (state, rest) in states.into_iter().zip(rests) {
                let mut lanes = [0.0; LANES];
                l.store(state, &mut lanes);
                rest.copy_from_slice(&lanes[..width]);
            }
        }
        alarms
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The formulas of the type's page, one series, double precision.
    fn oracle(values: &[f32], settings: &SequentialSettings, mean: f64, variance: f64) -> [f64; 6] {
        let [mut mean, mut variance, mut above, mut below, mut drift, mut least] = [mean, variance, 0.0, 0.0, 0.0, 0.0];
        for value in values.iter().filter(|value| !value.is_nan()).map(|value| f64::from(*value)) {
            let weight = f64::from(settings.weight);
            let z = (value - mean) / (variance + f64::from(settings.variance_floor)).sqrt();
            above = (above + z - f64::from(settings.slack)).max(0.0);
            below = (below - z - f64::from(settings.slack)).max(0.0);
            drift += z - f64::from(settings.tolerance);
            least = least.min(drift);
            let difference = value - mean;
            mean += weight * difference;
            variance = (1.0 - weight) * (variance + weight * difference * difference);
        }
        [mean, variance, above, below, drift, least]
    }

    fn state(bank: &SequentialBank, series: usize) -> [f32; 6] {
        let SequentialBank { mean, variance, above, below, drift, drift_least } = bank;
        [mean, variance, above, below, drift, drift_least].map(|values| values[series])
    }

    #[test]
    fn a_shift_raises_the_cusum_of_its_side_and_alarms() {
        let settings = SequentialSettings { weight: 0.0, ..SequentialSettings::default() };
        let mut bank = SequentialBank::new(2, 0.0, 1.0);
        let values: Vec<f32> = (0..20).flat_map(|_| [2.0, 0.0]).collect();
        assert_eq!(update(Isa::best(), &mut bank, &values, &settings), 1);
        assert!((bank.above[0] - 30.0).abs() < 1e-3, "{}", bank.above[0]);
        assert_eq!((bank.below[0], bank.above[1], bank.below[1]), (0.0, 0.0, 0.0));
        assert!((bank.statistic(0) - 38.0).abs() < 1e-3, "{}", bank.statistic(0));
    }

    #[test]
    fn a_missing_value_changes_nothing() {
        let mut bank = SequentialBank::new(3, 1.0, 4.0);
        let before = bank.clone();
        update(Isa::best(), &mut bank, &[f32::NAN; 3], &SequentialSettings::default());
        assert_eq!(bank, before);
    }

    proptest! {
        #[test]
        fn every_set_gives_the_bits_of_the_plain_one_and_the_values_of_the_oracle(
            series in 1_usize..50, ticks in 0_usize..20, seed: u64,
        ) {
            let mut noise = crate::testing::Noise::new(seed);
            let values: Vec<f32> = (0..series * ticks)
                .map(|at| if at % 17 == 3 { f32::NAN } else { noise.normal() * 3.0 + 10.0 })
                .collect();
            let settings = SequentialSettings::default();
            let mut plain = SequentialBank::new(series, 10.0, 9.0);
            let alarms = update(Isa::plain(), &mut plain, &values, &settings);
            for isa in Isa::all() {
                let mut bank = SequentialBank::new(series, 10.0, 9.0);
                prop_assert_eq!(update(isa, &mut bank, &values, &settings), alarms);
                prop_assert_eq!(&bank, &plain);
                // Tick by tick is the same as all ticks at once.
                let mut bank = SequentialBank::new(series, 10.0, 9.0);
                for tick in values.chunks(series) {
                    update(isa, &mut bank, tick, &settings);
                }
                prop_assert_eq!(&bank, &plain);
            }
            for one in 0..series {
                let column: Vec<f32> = values.iter().skip(one).step_by(series).copied().collect();
                let expected = oracle(&column, &settings, 10.0, 9.0);
                for (ours, theirs) in state(&plain, one).into_iter().zip(expected) {
                    prop_assert!((f64::from(ours) - theirs).abs() < 2e-4, "{} against {}", ours, theirs);
                }
            }
        }
    }
}
