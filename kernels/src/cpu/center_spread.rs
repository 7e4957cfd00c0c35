//! Median and MAD of rows, exact, from a guess that the row before gives.

use crate::backend::CenterSpread;
use crate::cpu::select::{even_guess, select_pair};
use crate::cpu::sift::{Measure, gather_present, sift_closed};
use crate::simd::{Isa, stamped};

/// The part of the MAD that a guess reaches to either side, besides what the median moved lately. Measured: 0.02 to
/// 0.1 cost the same, below it misses, above it the buffers fill.
const REACH: f32 = 0.03;
/// A guess reaches so many times the move of the last row.
const MOVES: f32 = 1.5;
/// What remains of the largest move after each row.
const FADE: f32 = 0.75;

/// What one row leaves for the next: where its median and MAD may lie. Wrong guesses cost time, never exactness.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bracket {
    median: f32,
    mad: f32,
    median_move: f32,
    mad_move: f32,
}

impl Default for Bracket {
    fn default() -> Self {
        Self { median: f32::NAN, mad: f32::NAN, median_move: 0.0, mad_move: 0.0 }
    }
}

impl Bracket {
    fn median_ends(&self) -> Option<[f32; 2]> {
        Self::ends(self.median, REACH * self.mad + MOVES * self.median_move)
    }

    fn mad_ends(&self) -> Option<[f32; 2]> {
        Self::ends(self.mad, REACH * self.mad + MOVES * self.mad_move)
    }

    fn ends(middle: f32, reach: f32) -> Option<[f32; 2]> {
        let ends = [middle - reach, middle + reach];
        (ends[0].is_finite() && ends[1].is_finite()).then_some(ends)
    }

    /// Remembers where the median and MAD were.
    pub(crate) fn learn(&mut self, median: f32, mad: f32) {
        let faded = |moved: f32, by: f32| if by.is_finite() { by.abs().max(FADE * moved).min(mad) } else { 0.0 };
        self.median_move = faded(self.median_move, median - self.median);
        self.mad_move = faded(self.mad_move, mad - self.mad);
        (self.median, self.mad) = (median, mad);
    }
}

/// Buffers that a steady stream of rows reuses.
#[derive(Clone, Debug, Default)]
pub(crate) struct Buffers {
    clean: Vec<f32>,
    gathered: Vec<f32>,
    one: Vec<f32>,
    other: Vec<f32>,
}

struct Work<'a> {
    gathered: &'a mut [f32],
    one: &'a mut [f32],
    other: &'a mut [f32],
}

impl Buffers {
    fn reserve(&mut self, columns: usize) {
        if self.clean.len() < columns {
            for buffer in [&mut self.clean, &mut self.gathered, &mut self.one, &mut self.other] {
                buffer.resize(columns, 0.0);
            }
        }
    }
}

/// Appends median, MAD and count of one row to `statistics`. Absent and NaN cells are not counted.
pub(crate) fn push_row(
    isa: Isa,
    row: &[f32],
    present: Option<&[bool]>,
    buffers: &mut Buffers,
    bracket: &mut Bracket,
    statistics: &mut CenterSpread,
) {
    buffers.reserve(row.len());
    let Buffers { clean, gathered, one, other } = buffers;
    let mut work = Work { gathered, one, other };
    let outcome = match present {
        Some(present) => {
            let count = gather_present(isa, row, present, clean);
            row_of(isa, &clean[..count], true, &mut work, bracket)
        }
        None => row_of(isa, row, false, &mut work, bracket).or_else(|| {
            // Comparisons with NaN are false: the closed interval of all numbers leaves NaN out.
            let ends = [f32::NEG_INFINITY, f32::INFINITY];
            let count = sift_closed(isa, row, Measure::Value, ends, clean).inside;
            row_of(isa, &clean[..count], true, &mut work, bracket)
        }),
    };
    let (median, mad, count) = outcome.expect("a row known to be clean has an outcome");
    statistics.median.push(median);
    statistics.mad.push(mad);
    statistics.count.push(count as u32);
}

/// Median, MAD and count; `None` where `row` may hold a NaN and is not known not to.
fn row_of(
    isa: Isa,
    row: &[f32],
    is_clean: bool,
    buffers: &mut Work<'_>,
    bracket: &mut Bracket,
) -> Option<(f32, f32, usize)> {
    let count = row.len();
    if count == 0 {
        return Some((f32::NAN, f32::NAN, 0));
    }
    let ranks = [(count - 1) / 2, count / 2];
    let mut pair = pair_of(isa, row, Measure::Value, is_clean, bracket.median_ends(), buffers, ranks)?;
    if pair[0] == 0.0 && pair[1] == 0.0 {
        pair = signed_zeros(isa, row, ranks);
    }
    let median = middle(pair);
    let mad = if median.is_finite() {
        let measure = Measure::DistanceFrom(median);
        middle(pair_of(isa, row, measure, true, bracket.mad_ends(), buffers, ranks)?)
    } else {
        // Cells equal to an infinite median lie at distance zero, all others at infinity.
        let equal = row.iter().filter(|value| **value == median).count();
        middle(ranks.map(|rank| if rank < equal { 0.0 } else { f32::INFINITY }))
    };
    bracket.learn(median, mad);
    Some((median, mad, count))
}

fn pair_of(
    isa: Isa,
    row: &[f32],
    measure: Measure,
    is_clean: bool,
    guess: Option<[f32; 2]>,
    buffers: &mut Work<'_>,
    ranks: [usize; 2],
) -> Option<[f32; 2]> {
    let Work { gathered, one, other } = buffers;
    if let Some(ends) = guess {
        let sifted = sift_closed(isa, row, measure, ends, gathered);
        if sifted.may_have_nan && !is_clean {
            return None;
        }
        if sifted.below <= ranks[0] && ranks[1] < sifted.below + sifted.inside {
            let ranks = ranks.map(|rank| rank - sifted.below);
            let guess = even_guess(ends, sifted.inside, ranks);
            return Some(select_pair(isa, &gathered[..sifted.inside], Measure::Value, guess, [one, other], ranks));
        }
    } else if !is_clean && has_nan(isa, row) {
        return None;
    }
    Some(select_pair(isa, row, measure, None, [one, other], ranks))
}

/// The zeros of two ranks with their signs, negative ones first, as a total order of the bits has them.
fn signed_zeros(isa: Isa, row: &[f32], ranks: [usize; 2]) -> [f32; 2] {
    let first_positive = negatives(isa, row);
    ranks.map(|rank| if rank < first_positive { -0.0 } else { 0.0 })
}

/// The middle of a pair, itself where both are equal: halves are added, so that two large values do not overflow.
fn middle([lower, upper]: [f32; 2]) -> f32 {
    if lower == upper { lower } else { 0.5 * lower + 0.5 * upper }
}

stamped! {
    /// Number of values below zero, negative zeros included.
    fn negatives(values: &'a [f32]) -> usize {
        values.iter().map(|value| (value.to_bits() >> 31) as usize).sum()
    }

    fn has_nan(values: &'a [f32]) -> bool {
        let (chunks, rest) = values.as_chunks::<64>();
        let is_nan = |values: &[f32]| values.iter().fold(false, |nan, value| nan | value.is_nan());
        chunks.iter().any(|chunk| is_nan(chunk)) || is_nan(rest)
    }
}
