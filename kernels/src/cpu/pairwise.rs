//! How far each point is from all others.

use crate::simd::lanes::{LANES, Lanes};
use crate::simd::{Isa, vectored};

/// Points of one tile: distances inside a tile are summed in single precision, tiles in double.
const TILE: usize = 64;

/// Buffers of [`row_sums`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Buffers {
    /// `[dimensions, padded points]`.
    padded: Vec<f32>,
}

/// Sum of the Euclidean distances of each point to all others.
///
/// * `points`: `[dimensions, points]` in one piece, one unit for all dimensions, finite.
/// * `sums`: `[points]`, same unit; replaced. Relative error at most 1e-5.
///
/// A distance is computed once for both of its points: `points^2 / 2` times `2 dimensions + 3` operations. Sums have one
/// order: over the points of a tile of 64 in single precision, over tiles, ascending, in double.
///
/// Source: Deng et al., "Minder: Faulty machine detection for large-scale distributed model training", NSDI (2025), 4.4.
pub(crate) fn row_sums(isa: Isa, points: &[f32], count: usize, buffers: &mut Buffers, sums: &mut [f64]) {
    sums.fill(0.0);
    if count == 0 {
        return;
    }
    let dimensions = points.len() / count;
    let padded = count.next_multiple_of(TILE);
    buffers.padded.clear();
    buffers.padded.resize(dimensions * padded, 0.0);
    for (row, values) in buffers.padded.chunks_exact_mut(padded).zip(points.chunks_exact(count)) {
        row[..count].copy_from_slice(values);
    }
    match dimensions {
        8 => all_tiles_8(isa, &buffers.padded, count, padded, sums),
        _ => all_tiles(isa, &buffers.padded, dimensions, count, padded, sums),
    }
}

vectored! {
    fn all_tiles(l; points: &'a [f32], dimensions: usize, count: usize, padded: usize, sums: &'a mut [f64]) {
        tiles(l, points, dimensions, count, padded, sums);
    }

    fn all_tiles_8(l; points: &'a [f32], count: usize, padded: usize, sums: &'a mut [f64]) {
        tiles(l, points, 8, count, padded, sums);
    }
}

#[inline(always)]
fn tiles<L: Lanes>(l: L, points: &[f32], dimensions: usize, count: usize, padded: usize, sums: &mut [f64]) {
    for first in (0..count).step_by(TILE) {
        let rows = TILE.min(count - first);
        // Distances to the points of the own tile and of those behind it; the sums go to both sides.
        for other in (first..count).step_by(TILE) {
            let columns = TILE.min(count - other);
            let mut row_sums = [l.splat(0.0); TILE];
            let mut column_sums = [0.0_f32; TILE];
            for column in (0..columns).step_by(LANES) {
                let strip =
                    Strip { points, dimensions, padded, first, rows, at: other + column, width: columns - column };
                let sum = strip.add(l, &mut row_sums);
                l.store(sum, column_sums[column..].first_chunk_mut().expect("a tile is whole vectors"));
            }
            for row in 0..rows {
                let mut lanes = [0.0; LANES];
                l.store(row_sums[row], &mut lanes);
                sums[first + row] += f64::from(tree(&lanes));
            }
            if other != first {
                for column in 0..columns {
                    sums[other + column] += f64::from(column_sums[column]);
                }
            }
        }
    }
}

/// Distances of `rows` points, from `first` on, to 16 others, from `at` on, of which the first `width` count.
struct Strip<'a> {
    points: &'a [f32],
    dimensions: usize,
    padded: usize,
    first: usize,
    rows: usize,
    at: usize,
    width: usize,
}

impl Strip<'_> {
    /// Adds to the sums of each row; returns those of each of the 16.
    #[inline(always)]
    fn add<L: Lanes>(&self, l: L, row_sums: &mut [L::F; TILE]) -> L::F {
        let counts = l.load(&std::array::from_fn(|lane| if lane < self.width { 1.0 } else { 0.0 }));
        let mut column_sum = l.splat(0.0);
        if self.dimensions == 8 {
            let others: [L::F; 8] = std::array::from_fn(|dimension| self.others(l, dimension));
            for row in 0..self.rows {
                let mut square = l.splat(0.0);
                for dimension in 0..8 {
                    square = self.add_square(l, dimension, row, others[dimension], square);
                }
                let distance = l.mul(l.sqrt(square), counts);
                row_sums[row] = l.add(row_sums[row], distance);
                column_sum = l.add(column_sum, distance);
            }
            return column_sum;
        }
        for row in 0..self.rows {
            let mut square = l.splat(0.0);
            for dimension in 0..self.dimensions {
                square = self.add_square(l, dimension, row, self.others(l, dimension), square);
            }
            let distance = l.mul(l.sqrt(square), counts);
            row_sums[row] = l.add(row_sums[row], distance);
            column_sum = l.add(column_sum, distance);
        }
        column_sum
    }

    #[inline(always)]
    fn others<L: Lanes>(&self, l: L, dimension: usize) -> L::F {
        let place = dimension * self.padded + self.at;
        l.load(self.points[place..].first_chunk().expect("points are padded to whole tiles"))
    }

    #[inline(always)]
    fn add_square<L: Lanes>(&self, l: L, dimension: usize, row: usize, other: L::F, square: L::F) -> L::F {
        let own = l.splat(self.points[dimension * self.padded + self.first + row]);
        let difference = l.sub(other, own);
        l.mul_add(difference, difference, square)
    }
}

/// Sum of 16 lanes, halves onto each other.
#[inline(always)]
fn tree(lanes: &[f32; LANES]) -> f32 {
    let mut sums = *lanes;
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            sums[lane] += sums[lane + half];
        }
    }
    sums[0]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn oracle(points: &[f32], count: usize) -> Vec<f64> {
        let square = |one: usize, other: usize| -> f64 {
            points.chunks(count).map(|row| (f64::from(row[one]) - f64::from(row[other])).powi(2)).sum()
        };
        (0..count).map(|one| (0..count).map(|other| square(one, other).sqrt()).sum()).collect()
    }

    #[test]
    fn three_points_on_a_line() {
        let mut sums = [0.0; 3];
        row_sums(Isa::best(), &[0.0, 1.0, 5.0], 3, &mut Buffers::default(), &mut sums);
        assert_eq!(sums, [6.0, 5.0, 9.0]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn every_set_gives_the_same_bits_and_the_sums_of_the_oracle(
            count in 1_usize..220, dimensions in 1_usize..12, seed: u64,
        ) {
            let mut noise = crate::testing::Noise::new(seed);
            let points: Vec<f32> = (0..count * dimensions).map(|_| noise.normal()).collect();
            let mut plain = vec![0.0; count];
            row_sums(Isa::plain(), &points, count, &mut Buffers::default(), &mut plain);
            for (ours, theirs) in plain.iter().zip(oracle(&points, count)) {
                prop_assert!((ours - theirs).abs() <= 1e-5 * theirs, "{} against {}", ours, theirs);
            }
            for isa in Isa::all() {
                let mut sums = vec![0.0; count];
                row_sums(isa, &points, count, &mut Buffers::default(), &mut sums);
                prop_assert_eq!(&sums, &plain);
            }
        }
    }
}
