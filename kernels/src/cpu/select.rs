//! Exact order statistics by repeated sifting.

use std::cmp::Ordering;

use crate::cpu::sift::{Measure, sift_open};
use crate::simd::lanes::LANES;
use crate::simd::{Isa, vectored};

/// Up to so many values are sorted outright: one vector.
const SORTED_MAX: usize = LANES;
/// A pass whose guess holds neither rank is repeated beside it; after so many passes the standard library selects, so
/// that no input, however made, costs more than a fixed multiple.
const PASSES_MAX: usize = 12;

/// How many values to look at, and how many of them to leave between the guess and the rank on either side: one and a half
/// to two standard deviations of a rank in a sample of that size.
fn sample_of(count: usize) -> (usize, usize) {
    match count {
        ..512 => (16, 3),
        512..65_536 => (64, 8),
        _ => (512, 24),
    }
}

/// The values of two neighbouring ranks among `measure` of `source`: `ranks[0]` and `ranks[1]`, equal or one more.
///
/// * `source`: without NaN. `guess`: ends between which the ranks may lie; a wrong guess costs time only.
/// * `buffers`: two, at least as long as `source`; overwritten.
/// * Zeros come out with either sign.
///
/// Cost: about 1.5 passes over `source` typically; bounded by a fixed number of passes and one introselect.
pub(crate) fn select_pair(
    isa: Isa,
    source: &[f32],
    measure: Measure,
    guess: Option<[f32; 2]>,
    buffers: [&mut [f32]; 2],
    mut ranks: [usize; 2],
) -> [f32; 2] {
    let [mut next, mut now] = buffers;
    let mut guess = guess;
    let mut count = source.len();
    let mut is_source = true;
    let mut range = [f32::NEG_INFINITY, f32::INFINITY];
    let mut is_even = true;
    for _ in 0..PASSES_MAX {
        if count <= SORTED_MAX {
            break;
        }
        let (values, of) = if is_source { (source, measure) } else { (&now[..count], Measure::Value) };
        let between = || if is_even { even_guess(range, count, ranks) } else { None };
        let ends = guess.take().or_else(between).unwrap_or_else(|| bracket(isa, values, of, ranks));
        let sifted = sift_open(isa, values, of, ends, next);
        let first_inside = sifted.below + sifted.at_low;
        let first_high = first_inside + sifted.inside;
        let place = |rank: usize| match rank {
            _ if rank < sifted.below => Place::Below,
            _ if rank < first_inside => Place::Value(ends[0]),
            _ if rank < first_high => Place::Inside,
            _ if rank < first_high + sifted.at_high => Place::Value(ends[1]),
            _ => Place::Above,
        };
        match (place(ranks[0]), place(ranks[1])) {
            (Place::Value(lower), Place::Value(upper)) => return [lower, upper],
            (Place::Inside, Place::Inside) => {
                ranks = ranks.map(|rank| rank - first_inside);
                count = sifted.inside;
                range = ends;
                is_source = false;
                std::mem::swap(&mut now, &mut next);
            }
            (Place::Value(lower), Place::Inside) => return [lower, least(&next[..sifted.inside])],
            (Place::Inside, Place::Value(upper)) => return [greatest(&next[..sifted.inside]), upper],
            // The guess was beside the ranks: the values on that side are sifted next. An end that is itself wanted is
            // kept inside the open interval by the next float beyond it.
            (lower, upper) => {
                is_even = false;
                guess = Some(match (lower, upper) {
                    (Place::Below, Place::Below | Place::Value(_)) => [range[0], ends[0].next_up()],
                    (Place::Value(_) | Place::Above, Place::Above) => [ends[1].next_down(), range[1]],
                    (Place::Below, _) => [range[0], ends[1].next_up()],
                    (_, Place::Above) => [ends[0].next_down(), range[1]],
                    _ => unreachable!("ranks ascend"),
                });
            }
        }
    }
    if is_source {
        for (place, value) in now.iter_mut().zip(source) {
            *place = measure.of(*value);
        }
    }
    by_sorting(isa, &mut now[..count], ranks)
}

/// Where the ranks lie among `count` values that are spread evenly over `range`, with two standard deviations of a rank
/// on either side. Between close ends nearly all data are so; others are found out by a miss.
pub(crate) fn even_guess([low, high]: [f32; 2], count: usize, ranks: [usize; 2]) -> Option<[f32; 2]> {
    let margin = (count as f32).sqrt() + 1.0;
    let step = (high - low) / count as f32;
    let ends = [low + step * (ranks[0] as f32 - margin), low + step * (ranks[1] as f32 + 1.0 + margin)];
    let is_narrower = step > 0.0 && ends[0] < ends[1] && ends[1].is_finite();
    is_narrower.then(|| [ends[0].max(low), ends[1].min(high)])
}

enum Place {
    Below,
    Value(f32),
    Inside,
    Above,
}

fn least(values: &[f32]) -> f32 {
    values.iter().copied().fold(f32::INFINITY, |least, value| if value < least { value } else { least })
}

fn greatest(values: &[f32]) -> f32 {
    values.iter().copied().fold(f32::NEG_INFINITY, |most, value| if value > most { value } else { most })
}

/// Two values of a small sample, between which the ranks lie most of the time.
fn bracket(isa: Isa, values: &[f32], measure: Measure, ranks: [usize; 2]) -> [f32; 2] {
    let (size, margin) = sample_of(values.len());
    // Off the grid by a little, so that a period in the data does not choose the sample.
    let stride = values.len() / size;
    let place = |at: usize| measure.of(values[at * stride + (at * 7) % stride]);
    let low = (ranks[0] * size / values.len()).checked_sub(margin);
    let high = Some(ranks[1] * size / values.len() + margin).filter(|high| *high < size);
    let [low_value, high_value] = match size {
        16 => ranked(isa, &mut std::array::from_fn::<f32, 16, _>(place), [low, high]),
        64 => ranked(isa, &mut std::array::from_fn::<f32, 64, _>(place), [low, high]),
        _ => {
            let mut sample: [f32; 512] = std::array::from_fn(place);
            sample.sort_unstable_by(f32::total_cmp);
            [low, high].map(|at| sample[at.unwrap_or(0)])
        }
    };
    [if low.is_some() { low_value } else { f32::NEG_INFINITY }, if high.is_some() { high_value } else { f32::INFINITY }]
}

fn ranked(isa: Isa, sample: &mut [f32], ranks: [Option<usize>; 2]) -> [f32; 2] {
    sort_vectors(isa, sample.as_chunks_mut::<LANES>().0);
    ranks.map(|rank| sample[rank.unwrap_or(0)])
}

vectored! {
    /// Sorts up to four vectors, without a branch that depends on the values: the place of each is the number of smaller
    /// ones, and of equal ones before it.
    fn sort_vectors(l; vectors: &'a mut [[f32; LANES]]) {
        let mut sorted = [0.0; 4 * LANES];
        for at in 0..vectors.len() {
            for lane in 0..LANES {
                let value = l.splat(vectors[at][lane]);
                let mut place = 0;
                for (other_at, others) in vectors.iter().enumerate() {
                    let others = l.load(others);
                    let (less, equal) = (l.mask_bits(l.lt(others, value)), l.mask_bits(l.eq(others, value)));
                    let before = match other_at.cmp(&at) {
                        Ordering::Less => equal,
                        Ordering::Equal => equal & ((1 << lane) - 1),
                        Ordering::Greater => 0,
                    };
                    place += (less.count_ones() + before.count_ones()) as usize;
                }
                sorted[place] = vectors[at][lane];
            }
        }
        let vectors = vectors.as_flattened_mut();
        vectors.copy_from_slice(&sorted[..vectors.len()]);
    }
}

fn by_sorting(isa: Isa, values: &mut [f32], ranks: [usize; 2]) -> [f32; 2] {
    if values.len() <= SORTED_MAX {
        let mut padded = [[f32::INFINITY; LANES]];
        padded[0][..values.len()].copy_from_slice(values);
        sort_vectors(isa, &mut padded);
        return ranks.map(|rank| padded[0][rank]);
    }
    let (_, lower, above) = values.select_nth_unstable_by(ranks[0], f32::total_cmp);
    let lower = *lower;
    [lower, if ranks[1] == ranks[0] { lower } else { least(above) }]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(values: &[f32]) {
        let mut sorted = values.to_vec();
        sorted.sort_by(f32::total_cmp);
        let last = values.len() - 1;
        for rank in [0, values.len() / 3, values.len() / 2, last].map(|rank| rank.min(last)) {
            let ranks = [rank.saturating_sub(1), rank];
            for isa in Isa::all() {
                let (mut one, mut other) = (vec![0.0; values.len()], vec![0.0; values.len()]);
                let pair = select_pair(isa, values, Measure::Value, None, [&mut one, &mut other], ranks);
                assert_eq!(pair, ranks.map(|rank| sorted[rank]), "{isa}: ranks {ranks:?} of {}", values.len());
            }
        }
    }

    #[test]
    fn hostile_orders_and_ties_are_selected_right() {
        for count in [1, 2, 25, 100, 511, 512, 3_000, 9_000, 70_000] {
            check(&vec![3.0; count]);
            check(&(0..count).map(|at| at as f32).collect::<Vec<_>>());
            check(&(0..count).map(|at| (count - at) as f32).collect::<Vec<_>>());
            check(&(0..count).map(|at| (at % 2) as f32).collect::<Vec<_>>());
            check(&(0..count).map(|at| ((at * 7_919) % 13) as f32).collect::<Vec<_>>());
            check(&(0..count).map(|at| if at % 3 == 0 { f32::INFINITY } else { at as f32 }).collect::<Vec<_>>());
            check(&(0..count).map(|at| if at % 5 < 3 { f32::NEG_INFINITY } else { -0.0 }).collect::<Vec<_>>());
        }
    }

    proptest! {
        #[test]
        fn selection_is_what_sorting_gives(
            values in prop::collection::vec(prop_oneof![-1e3_f32..1e3, (0_u8..9).prop_map(f32::from)], 1..1_500),
        ) {
            check(&values);
        }
    }
}
