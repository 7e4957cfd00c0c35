//! Medians of the last values of many series.

use crate::simd::lanes::{LANES, Lanes};
use crate::simd::{Isa, vectored};

/// The last `window` values of many series, in order of time and in order of size.
///
/// A value is replaced in the sorted window by one pass over it: what is above the value that leaves moves down, what is
/// above the value that comes moves up. The passes of 16 series go side by side in vectors.
#[derive(Clone, Debug, PartialEq)]
pub struct RollingMedian {
    window: usize,
    series: usize,
    /// Next place in the rings, the same for all series.
    at: usize,
    /// `[blocks, window]` vectors: the values in order of arrival. A missing one is infinity.
    rings: Vec<[f32; LANES]>,
    /// `[blocks, window]` vectors: the same, each lane ascending.
    sorted: Vec<[f32; LANES]>,
    /// `[blocks]` vectors: number of values that are not missing.
    counts: Vec<[u32; LANES]>,
    /// `[blocks, window]` vectors of bits: which ring values are missing (1).
    missing: Vec<u16>,
}

impl RollingMedian {
    /// Empty windows.
    ///
    /// # Panics
    /// If `window` is zero.
    #[must_use]
    pub fn new(series: usize, window: usize) -> Self {
        assert!(window > 0, "a window has at least one value");
        let blocks = series.div_ceil(LANES);
        Self {
            window,
            series,
            at: 0,
            rings: vec![[f32::INFINITY; LANES]; blocks * window],
            sorted: vec![[f32::INFINITY; LANES]; blocks * window],
            counts: vec![[0; LANES]; blocks],
            missing: vec![u16::MAX; blocks * window],
        }
    }

    /// Number of series.
    #[must_use]
    pub fn series(&self) -> usize {
        self.series
    }

    /// The arrays, for another backend.
    pub(crate) fn parts(&self) -> WindowParts<'_> {
        let Self { window, at, rings, sorted, counts, missing, .. } = self;
        WindowParts { window: *window, at: *at, rings, sorted, counts, missing }
    }

    /// Takes over what another backend made of the arrays in so many ticks.
    pub(crate) fn advance(
        &mut self,
        ticks: usize,
        rings: Vec<[f32; LANES]>,
        sorted: Vec<[f32; LANES]>,
        counts: Vec<[u32; LANES]>,
        missing: Vec<u16>,
    ) {
        self.at = (self.at + ticks) % self.window;
        (self.rings, self.sorted, self.counts, self.missing) = (rings, sorted, counts, missing);
    }
}

/// The arrays of a [`RollingMedian`], shaped as its fields are.
pub(crate) struct WindowParts<'a> {
    pub(crate) window: usize,
    pub(crate) at: usize,
    pub(crate) rings: &'a [[f32; LANES]],
    pub(crate) sorted: &'a [[f32; LANES]],
    pub(crate) counts: &'a [[u32; LANES]],
    pub(crate) missing: &'a [u16],
}

/// Pushes `ticks` values of every series and writes the median of each window after each.
///
/// * `values`, `medians`: `[ticks, series]` in one piece, any unit. A NaN takes a place in the window and is not counted;
///   the median of none is NaN, of an even count the mean of the two middle ones. Negative zero counts as zero.
///
/// Cost: exact; four operations a place of the window and value: about `window / 8` cycles a value with AVX-512, out of
/// 8 bytes of state a place.
pub(crate) fn push(isa: Isa, state: &mut RollingMedian, values: &[f32], medians: &mut [f32]) {
    if state.series == 0 {
        return;
    }
    let RollingMedian { window, series, at, rings, sorted, counts, missing } = state;
    push_all(isa, *window, *series, *at, values, medians, rings, sorted, counts, missing);
    *at = (*at + values.len() / *series) % *window;
}

vectored! {
    fn push_all(
        l;
        window: usize,
        series: usize,
        at: usize,
        values: &'a [f32],
        medians: &'a mut [f32],
        rings: &'a mut [[f32; LANES]],
        sorted: &'a mut [[f32; LANES]],
        counts: &'a mut [[u32; LANES]],
        missing: &'a mut [u16],
    ) {
        let ticks = values.len() / series;
        for (block, counts) in counts.iter_mut().enumerate() {
            let ring = &mut rings[block * window..][..window];
            let sorted = &mut sorted[block * window..][..window];
            let missing = &mut missing[block * window..][..window];
            let first = block * LANES;
            let width = LANES.min(series - first);
            let mut at = at;
            for tick in 0..ticks {
                let row = tick * series + first;
                let mut comes = [f32::NAN; LANES];
                comes[..width].copy_from_slice(&values[row..][..width]);
                let mut is_missing = 0_u16;
                for lane in 0..LANES {
                    is_missing |= u16::from(comes[lane].is_nan()) << lane;
                    counts[lane] += u32::from(missing[at] >> lane & 1);
                    counts[lane] -= u32::from(comes[lane].is_nan());
                    // Adding zero makes the zeros one.
                    comes[lane] = if comes[lane].is_nan() { f32::INFINITY } else { comes[lane] + 0.0 };
                }
                replace(l, sorted, &ring[at], &comes);
                ring[at] = comes;
                missing[at] = is_missing;
                let out = &mut medians[row..][..width];
                let count = counts[0];
                if width == LANES && count > 0 && counts.iter().all(|other| *other == count) {
                    // Nothing is missing, or everywhere as much: the middle is one row of the window.
                    let (lower, upper) = (&sorted[(count as usize - 1) / 2], &sorted[count as usize / 2]);
                    for lane in 0..LANES {
                        let mean = 0.5 * lower[lane] + 0.5 * upper[lane];
                        out[lane] = if lower[lane] == upper[lane] { lower[lane] } else { mean };
                    }
                } else {
                    for (lane, out) in out.iter_mut().enumerate() {
                        *out = median(sorted, lane, counts[lane] as usize);
                    }
                }
                at = if at + 1 == window { 0 } else { at + 1 };
            }
        }
    }
}

/// In every lane of an ascending window replaces one occurrence of `leaves` by `comes`.
#[inline(always)]
fn replace<L: Lanes>(l: L, sorted: &mut [[f32; LANES]], leaves: &[f32; LANES], comes: &[f32; LANES]) {
    let (leaves, comes) = (l.load(leaves), l.load(comes));
    let last = sorted.len() - 1;
    let mut lower = l.splat(f32::NEG_INFINITY);
    let mut here = l.load(&sorted[0]);
    for place in 0..=last {
        // Behind the last value lies infinity, which is where the value that comes may go.
        let above = if place < last { l.load(&sorted[place + 1]) } else { l.splat(f32::INFINITY) };
        // Without the value that leaves, this place holds itself or the next one ...
        let rest = l.select(l.lt(here, leaves), here, above);
        // ... and with the one that comes, the middle of that, the place before, and it.
        l.store(l.larger(lower, l.smaller(rest, comes)), &mut sorted[place]);
        lower = rest;
        here = above;
    }
}

#[inline(always)]
fn median(sorted: &[[f32; LANES]], lane: usize, count: usize) -> f32 {
    if count == 0 {
        return f32::NAN;
    }
    let (lower, upper) = (sorted[(count - 1) / 2][lane], sorted[count / 2][lane]);
    if lower == upper { lower } else { 0.5 * lower + 0.5 * upper }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn oracle(window: &[f32]) -> f32 {
        let mut sorted: Vec<f32> = window.iter().copied().filter(|value| !value.is_nan()).collect();
        sorted.sort_by(f32::total_cmp);
        match sorted.len() {
            0 => f32::NAN,
            count if count % 2 == 1 => sorted[count / 2] + 0.0,
            count if sorted[count / 2 - 1] == sorted[count / 2] => sorted[count / 2] + 0.0,
            count => 0.5 * sorted[count / 2 - 1] + 0.5 * sorted[count / 2],
        }
    }

    #[test]
    fn the_median_of_the_last_three_is_computed_by_hand() {
        let mut state = RollingMedian::new(1, 3);
        let mut medians = [0.0; 6];
        push(Isa::best(), &mut state, &[5.0, 1.0, 3.0, 3.0, 9.0, f32::NAN], &mut medians);
        assert_eq!(medians, [5.0, 3.0, 3.0, 3.0, 3.0, 6.0]);
    }

    proptest! {
        #[test]
        fn the_median_is_that_of_the_sorted_window(
            series in 1_usize..40, window in 1_usize..20, ticks in 0_usize..50, seed: u64,
        ) {
            let mut noise = crate::testing::Noise::new(seed);
            let value = |noise: &mut crate::testing::Noise| match noise.below(20) {
                0 => f32::NAN,
                1 => f32::INFINITY,
                2 => f32::NEG_INFINITY,
                3 => -0.0,
                4..12 => noise.below(4) as f32,
                _ => noise.normal(),
            };
            let values: Vec<f32> = (0..series * ticks).map(|_| value(&mut noise)).collect();
            for isa in Isa::all() {
                let mut state = RollingMedian::new(series, window);
                let mut medians = vec![0.0; values.len()];
                let cut = ticks / 2 * series;
                push(isa, &mut state, &values[..cut], &mut medians[..cut]);
                push(isa, &mut state, &values[cut..], &mut medians[cut..]);
                for tick in 0..ticks {
                    for one in 0..series {
                        let seen = (tick + 1).saturating_sub(window)..=tick;
                        let last: Vec<f32> = seen.map(|tick| values[tick * series + one]).collect();
                        let ours = medians[tick * series + one];
                        prop_assert_eq!(ours.to_bits(), oracle(&last).to_bits(), "{} {}", isa, ours);
                    }
                }
            }
        }
    }
}
