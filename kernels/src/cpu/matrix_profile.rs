//! For each stretch of a series, the most similar other stretch of it.

use crate::simd::lanes::Lanes;
use crate::simd::{Isa, vectored};

/// Diagonals that are followed together: four vectors.
const WIDTH: usize = 4 * LANES;
const LANES: usize = crate::simd::lanes::LANES;
/// Rows after which covariances are computed anew, so that rounding does not add up along a diagonal.
const TILE: usize = 256;

/// Matrix profile of a series.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MatrixProfile {
    /// `[stretches]`: z-normalised Euclidean distance to the nearest stretch outside the exclusion zone; infinite if none.
    pub distance: Vec<f32>,
    /// `[stretches]`: where that stretch begins; `u32::MAX` if there is none.
    pub nearest: Vec<u32>,
}

/// Arrays of the computation, kept from call to call.
#[derive(Clone, Debug, Default)]
pub(crate) struct Buffers {
    series: Vec<f32>,
    mean: Vec<f32>,
    /// One over the root of the sum of squared deviations; zero of a constant stretch; NaN beyond the end.
    norm: Vec<f32>,
    /// Half the difference of what comes and what leaves.
    half: Vec<f32>,
    /// What comes and what leaves, less their means.
    both: Vec<f32>,
    best: Vec<f32>,
    best_at: Vec<u32>,
    row_best: Vec<[f32; LANES]>,
    row_best_at: Vec<[u32; LANES]>,
}

/// Matrix profile with stretches of `length` values; stretches closer than `length / 4` (rounded up) are not compared.
///
/// * `series`: finite, any unit, at least `length` long. A constant stretch has correlation zero with every other.
/// * `profile`: replaced, `[series - length + 1]`.
///
/// Values are correlations in single precision with an error of at most 2e-5, turned into distances at the end: a
/// distance `d` has an error of `2e-5 length / d`. Of equally near ones the nearest in the order of the computation is
/// told: tiles of 256 rows, ascending, diagonals outwards.
///
/// Cost: `stretches^2 / 2` cells of about 12 operations; memory 40 bytes a stretch.
///
/// Source: Zhu et al., "Matrix Profile II", ICDM (2016); Zimmerman et al., "Matrix Profile XIV: scaling time series motif
/// discovery with GPUs", SoCC (2019), for the streaming of covariances.
pub(crate) fn matrix_profile(
    isa: Isa,
    series: &[f32],
    length: usize,
    buffers: &mut Buffers,
    profile: &mut MatrixProfile,
) {
    profile.distance.clear();
    profile.nearest.clear();
    if length == 0 || series.len() < length {
        return;
    }
    let count = series.len() - length + 1;
    buffers.prepare(series, length, count);
    let Buffers { series, mean, norm, half, both, best, best_at, row_best, row_best_at } = buffers;
    let zone = length.div_ceil(4) + 1;
    all_tiles(isa, series, [length, count, zone], mean, norm, half, both, best, best_at, row_best, row_best_at);
    for (correlation, at) in best.iter().zip(best_at.iter()).take(count) {
        let away = 2.0 * length as f32 * (1.0 - correlation);
        profile.distance.push(if *at == u32::MAX { f32::INFINITY } else { away.max(0.0).sqrt() });
        profile.nearest.push(*at);
    }
}

impl Buffers {
    fn prepare(&mut self, series: &[f32], length: usize, count: usize) {
        let padded = count + WIDTH + TILE;
        // What is added to all values changes no correlation; without it differences keep their bits.
        let center = series.iter().map(|value| f64::from(*value)).sum::<f64>() / series.len() as f64;
        self.series.clear();
        self.series.extend(series.iter().map(|value| (f64::from(*value) - center) as f32));
        self.series.resize(padded + length, 0.0);
        for array in [&mut self.mean, &mut self.half, &mut self.both] {
            array.clear();
            array.resize(padded, 0.0);
        }
        self.norm.clear();
        self.norm.resize(padded, f32::NAN);
        self.best.clear();
        self.best.resize(padded, -2.0);
        self.best_at.clear();
        self.best_at.resize(padded, u32::MAX);
        self.row_best.resize(TILE, [0.0; LANES]);
        self.row_best_at.resize(TILE, [0; LANES]);
        let value = |at: usize| f64::from(self.series[at]);
        let mut before = 0.0;
        for first in 0..count {
            let stretch = first..first + length;
            let mean = stretch.clone().map(value).sum::<f64>() / length as f64;
            let power: f64 = stretch.map(|at| (value(at) - mean).powi(2)).sum();
            // A spread of nothing but rounding is none.
            self.norm[first] = if power > 1e-12 * length as f64 { (1.0 / power.sqrt()) as f32 } else { 0.0 };
            if first > 0 {
                let (comes, leaves) = (value(first + length - 1), value(first - 1));
                self.half[first] = (0.5 * (comes - leaves)) as f32;
                self.both[first] = ((comes - mean) + (leaves - before)) as f32;
            }
            self.mean[first] = mean as f32;
            before = mean;
        }
    }
}

vectored! {
    fn all_tiles(
        l;
        series: &'a [f32],
        shape: [usize; 3],
        mean: &'a [f32],
        norm: &'a [f32],
        half: &'a [f32],
        both: &'a [f32],
        best: &'a mut [f32],
        best_at: &'a mut [u32],
        row_best: &'a mut [[f32; LANES]],
        row_best_at: &'a mut [[u32; LANES]],
    ) {
        let [length, count, zone] = shape;
        for first in (0..count).step_by(TILE) {
            row_best.fill([-2.0; LANES]);
            row_best_at.fill([u32::MAX; LANES]);
            let mut diagonal = zone;
            while first + diagonal < count {
                let mut covariance = start(l, series, mean, length, first, first + diagonal);
                // Rows whose first diagonal is inside; lanes beyond the end have no norm and lose every comparison.
                let rows = TILE.min(count - first - diagonal);
                for row in 0..rows {
                    let (i, j) = (first + row, first + row + diagonal);
                    let (half_j, both_j, norm_j) = (four(half, j), four(both, j), four(norm, j));
                    let (half_i, both_i, norm_i) = (l.splat(half[i]), l.splat(both[i]), l.splat(norm[i]));
                    let (column, _) = best[j..][..WIDTH].as_chunks_mut::<LANES>();
                    let (column_at, _) = best_at[j..][..WIDTH].as_chunks_mut::<LANES>();
                    let here = l.splat_word(i as u32);
                    let mut most = l.load(&row_best[row]);
                    let mut most_at = l.load_words(&row_best_at[row]);
                    for part in 0..4 {
                        if row > 0 {
                            let sum = l.mul_add(half_i, l.load(&both_j[part]), covariance[part]);
                            covariance[part] = l.mul_add(l.load(&half_j[part]), both_i, sum);
                        }
                        let correlation = l.mul(covariance[part], l.mul(norm_i, l.load(&norm_j[part])));
                        let old = l.load(&column[part]);
                        let is_better = l.lt(old, correlation);
                        l.store(l.select(is_better, correlation, old), &mut column[part]);
                        let old_at = l.load_words(&column_at[part]);
                        l.store_words(l.select_words(is_better, here, old_at), &mut column_at[part]);
                        let is_better = l.lt(most, correlation);
                        most = l.select(is_better, correlation, most);
                        // Which of four is enough: the lane and the row give the rest.
                        let there = l.splat_word((diagonal + LANES * part) as u32);
                        most_at = l.select_words(is_better, there, most_at);
                    }
                    l.store(most, &mut row_best[row]);
                    l.store_words(most_at, &mut row_best_at[row]);
                }
                diagonal += WIDTH;
            }
            for row in 0..TILE.min(count - first) {
                for lane in 0..LANES {
                    if row_best[row][lane] > best[first + row] {
                        best[first + row] = row_best[row][lane];
                        best_at[first + row] = row_best_at[row][lane] + (first + row + lane) as u32;
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn four(values: &[f32], first: usize) -> &[[f32; LANES]] {
    values[first..][..WIDTH].as_chunks::<LANES>().0
}

/// Covariances of the stretch at `i` with those at `j` and the next 63.
#[inline(always)]
fn start<L: Lanes>(l: L, series: &[f32], mean: &[f32], length: usize, i: usize, j: usize) -> [L::F; 4] {
    let mean_j = four(mean, j);
    let mut covariance = [l.splat(0.0); 4];
    for at in 0..length {
        let own = l.splat(series[i + at] - mean[i]);
        let others = four(series, j + at);
        for part in 0..4 {
            let other = l.sub(l.load(&others[part]), l.load(&mean_j[part]));
            covariance[part] = l.mul_add(own, other, covariance[part]);
        }
    }
    covariance
}

#[cfg(test)]
mod tests {
    use super::*;

    fn oracle(series: &[f32], length: usize) -> Vec<f64> {
        let count = series.len() - length + 1;
        let normal = |first: usize| -> Vec<f64> {
            let stretch: Vec<f64> = series[first..first + length].iter().map(|value| f64::from(*value)).collect();
            let mean = stretch.iter().sum::<f64>() / length as f64;
            let power: f64 = stretch.iter().map(|value| (value - mean).powi(2)).sum();
            stretch.iter().map(|value| if power > 1e-10 { (value - mean) / power.sqrt() } else { 0.0 }).collect()
        };
        let all: Vec<Vec<f64>> = (0..count).map(normal).collect();
        let correlation =
            |i: usize, j: usize| -> f64 { all[i].iter().zip(&all[j]).map(|(one, other)| one * other).sum() };
        let others = |i: usize| (0..count).filter(move |j| i.abs_diff(*j) > length.div_ceil(4));
        (0..count).map(|i| others(i).map(|j| correlation(i, j)).fold(f64::NEG_INFINITY, f64::max)).collect()
    }

    fn check(series: &[f32], length: usize) {
        let mut plain = MatrixProfile::default();
        matrix_profile(Isa::plain(), series, length, &mut Buffers::default(), &mut plain);
        for (at, expected) in oracle(series, length).into_iter().enumerate() {
            if expected == f64::NEG_INFINITY {
                assert_eq!((plain.distance[at], plain.nearest[at]), (f32::INFINITY, u32::MAX));
                continue;
            }
            let ours = 1.0 - f64::from(plain.distance[at]).powi(2) / (2.0 * length as f64);
            assert!((ours - expected).abs() < 2e-5, "{at} of {}: {ours} against {expected}", series.len());
        }
        for isa in Isa::all() {
            let mut profile = MatrixProfile::default();
            matrix_profile(isa, series, length, &mut Buffers::default(), &mut profile);
            assert!(profile == plain, "{isa}");
        }
    }

    #[test]
    fn the_profile_is_that_of_all_pairs_and_equal_for_all_sets() {
        let mut noise = crate::testing::Noise::new(5);
        let walk: Vec<f32> = (0..700)
            .scan(100.0, |level, _| {
                *level += noise.normal();
                Some(*level)
            })
            .collect();
        check(&walk, 50);
        check(&walk[..333], 7);
        check(&walk[..60], 50);
        check(&walk[..50], 50);
    }

    #[test]
    fn a_repeated_pattern_is_found_where_it_is() {
        let mut noise = crate::testing::Noise::new(6);
        let mut series: Vec<f32> = (0..500).map(|_| noise.normal()).collect();
        let pattern: Vec<f32> = series[100..140].to_vec();
        series[350..390].copy_from_slice(&pattern);
        let mut profile = MatrixProfile::default();
        matrix_profile(Isa::best(), &series, 40, &mut Buffers::default(), &mut profile);
        assert_eq!((profile.nearest[100], profile.nearest[350]), (350, 100));
        assert!(profile.distance[100] < 0.05);
    }

    #[test]
    fn constant_stretches_and_short_series_are_no_trouble() {
        check(&[3.0; 200], 20);
        let mut profile = MatrixProfile::default();
        matrix_profile(Isa::best(), &[1.0; 5], 6, &mut Buffers::default(), &mut profile);
        assert_eq!(profile, MatrixProfile::default());
    }
}
