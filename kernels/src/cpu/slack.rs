//! Who came last to a collective, and how long each of the others waited.

use crate::simd::lanes::{AHEAD, LANES, Lanes};
use crate::simd::{Isa, vectored};

/// Waiting times of ranks over the collectives that they took part in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Slack {
    /// `[ranks]`: sum over collectives of the time between a rank's arrival and the last one's, unit of the arrivals.
    /// The culprit waits least.
    pub waited: Vec<f64>,
    /// `[ranks]`: number of collectives to which the rank came last.
    pub blamed: Vec<u32>,
    /// `[collectives]` of the last call: the last arrival; NaN where nobody arrived.
    pub last_arrival: Vec<f32>,
    /// `[collectives]` of the last call: who came last, the lowest of equals; `u32::MAX` where nobody arrived.
    pub last_rank: Vec<u32>,
    partial: Vec<f32>,
}

impl Slack {
    /// Nothing waited yet, for a group of `ranks`.
    #[must_use]
    pub fn new(ranks: usize) -> Self {
        Self { waited: vec![0.0; ranks], blamed: vec![0; ranks], partial: vec![0.0; ranks], ..Self::default() }
    }
}

/// So many collectives are summed in single precision before the sum goes into double: an error of at most 64 roundings.
const BLOCK: usize = 64;

/// Adds collectives of one group to `slack`.
///
/// * `arrivals`: `[collectives, ranks]` in one piece, time of arrival relative to a common origin; NaN where a rank did
///   not arrive (it waits for nobody and is not blamed).
///
/// Cost: 4 bytes read an arrival, the second time from cache; 8 bytes of sums read and written in cache. Sums have one
/// order, whatever the instructions: collectives in blocks of 64 in single precision, blocks in double.
pub(crate) fn add(isa: Isa, arrivals: &[f32], slack: &mut Slack) {
    slack.last_arrival.clear();
    slack.last_rank.clear();
    let ranks = slack.waited.len();
    if ranks == 0 {
        return;
    }
    let Slack { waited, blamed, last_arrival, last_rank, partial } = slack;
    add_all(isa, arrivals, waited, blamed, last_arrival, last_rank, partial);
}

vectored! {
    fn add_all(
        l;
        arrivals: &'a [f32],
        waited: &'a mut [f64],
        blamed: &'a mut [u32],
        last_arrival: &'a mut Vec<f32>,
        last_rank: &'a mut Vec<u32>,
        partial: &'a mut [f32],
    ) {
        let ranks = waited.len();
        let partial = &mut partial[..ranks];
        for block in arrivals.chunks(BLOCK * ranks) {
            partial.fill(0.0);
            let mut calls = Calls { blamed, last_arrival, last_rank };
            match ranks {
                2 => add_narrow::<2>(block, partial, &mut calls),
                4 => add_narrow::<4>(block, partial, &mut calls),
                8 => add_narrow::<8>(block, partial, &mut calls),
                16 => add_narrow::<16>(block, partial, &mut calls),
                _ => add_wide(l, block, partial, &mut calls),
            }
            for (total, sum) in waited.iter_mut().zip(partial.iter()) {
                *total += f64::from(*sum);
            }
        }
    }
}

/// What is told of each collective.
struct Calls<'a> {
    blamed: &'a mut [u32],
    last_arrival: &'a mut Vec<f32>,
    last_rank: &'a mut Vec<u32>,
}

impl Calls<'_> {
    #[inline(always)]
    fn push(&mut self, last: f32, rank: Option<usize>) {
        // Adding zero makes the zeros one.
        self.last_arrival.push(if rank.is_some() { last + 0.0 } else { f32::NAN });
        self.last_rank.push(rank.map_or(u32::MAX, |rank| rank as u32));
        if let Some(rank) = rank {
            self.blamed[rank] += 1;
        }
    }
}

/// Groups that fit one vector: a row is a handful of numbers in registers.
#[inline(always)]
fn add_narrow<const RANKS: usize>(block: &[f32], partial: &mut [f32], calls: &mut Calls<'_>) {
    let mut sums = [0.0_f32; RANKS];
    for row in block.as_chunks::<RANKS>().0 {
        let mut most = row.map(|arrival| later(f32::NEG_INFINITY, arrival));
        let mut half = RANKS / 2;
        while half > 0 {
            for lane in 0..half {
                most[lane] = later(most[lane], most[lane + half]);
            }
            half /= 2;
        }
        let last = most[0];
        let mut found = 0_u32;
        for lane in 0..RANKS {
            found |= u32::from(row[lane] == last) << lane;
        }
        calls.push(last, (found != 0).then_some(found.trailing_zeros() as usize));
        for lane in 0..RANKS {
            let wait = last - row[lane];
            sums[lane] += if wait > 0.0 { wait } else { 0.0 };
        }
    }
    partial.copy_from_slice(&sums);
}

/// Two rows at a time, so that the sums go through the cache half as often; they are added in their order.
#[inline(always)]
fn add_wide<L: Lanes>(l: L, block: &[f32], partial: &mut [f32], calls: &mut Calls<'_>) {
    let ranks = partial.len();
    let (pairs, odd) = block.split_at(block.len() / (2 * ranks) * 2 * ranks);
    for pair in pairs.chunks_exact(2 * ranks) {
        let (first, second) = pair.split_at(ranks);
        let lasts = [call(l, first, calls), call(l, second, calls)];
        add_waits(l, [first, second], lasts, partial);
    }
    if !odd.is_empty() {
        add_waits(l, [odd], [call(l, odd, calls)], partial);
    }
}

/// The last arrival of a row, who it was being noted.
#[inline(always)]
fn call<L: Lanes>(l: L, row: &[f32], calls: &mut Calls<'_>) -> f32 {
    let last = latest(l, row);
    let rank = place_of(l, row, last);
    calls.push(last, (rank < row.len()).then_some(rank));
    last
}

/// Of a rank that did not arrive the wait is NaN and not counted; infinity minus itself likewise.
#[inline(always)]
fn add_waits<L: Lanes, const ROWS: usize>(l: L, rows: [&[f32]; ROWS], lasts: [f32; ROWS], sums: &mut [f32]) {
    let ranks = sums.len();
    let (sum_chunks, sum_rest) = sums.as_chunks_mut::<LANES>();
    let whole = LANES * sum_chunks.len();
    for (at, sum) in sum_chunks.iter_mut().enumerate() {
        let mut total = l.load(sum);
        for row in 0..ROWS {
            let chunk = rows[row][LANES * at..].first_chunk().expect("a row is as long as the sums");
            // The rows come out of the cache now; the next ones are fetched meanwhile.
            l.fetch(chunk, ROWS * ranks * size_of::<f32>());
            total = l.add(total, l.larger(l.sub(l.splat(lasts[row]), l.load(chunk)), l.splat(0.0)));
        }
        l.store(total, sum);
    }
    for (at, sum) in sum_rest.iter_mut().enumerate() {
        for row in 0..ROWS {
            let wait = lasts[row] - rows[row][whole + at];
            *sum += if wait > 0.0 { wait } else { 0.0 };
        }
    }
}

#[inline(always)]
fn later(one: f32, other: f32) -> f32 {
    if other > one { other } else { one }
}

/// The largest of the row that is a number; minus infinity of none.
#[inline(always)]
fn latest<L: Lanes>(l: L, row: &[f32]) -> f32 {
    let (fours, rest) = row.as_chunks::<{ 4 * LANES }>();
    let mut last = f32::NEG_INFINITY;
    if !fours.is_empty() {
        let mut most = [l.splat(f32::NEG_INFINITY); 4];
        for four in fours {
            for (most, chunk) in most.iter_mut().zip(four.as_chunks::<LANES>().0) {
                l.fetch(chunk, AHEAD);
                *most = l.larger(l.load(chunk), *most);
            }
        }
        let most = l.larger(l.larger(most[0], most[1]), l.larger(most[2], most[3]));
        last = latest_lane(l, most);
    }
    let (chunks, rest) = rest.as_chunks::<LANES>();
    for chunk in chunks {
        last = later(last, latest_lane(l, l.larger(l.load(chunk), l.splat(last))));
    }
    rest.iter().copied().fold(last, later)
}

/// The largest of 16 numbers, halves against each other.
#[inline(always)]
fn latest_lane<L: Lanes>(l: L, values: L::F) -> f32 {
    let mut lanes = [0.0; LANES];
    l.store(values, &mut lanes);
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            lanes[lane] = later(lanes[lane], lanes[lane + half]);
        }
    }
    lanes[0]
}

/// The first place of `value`; the length of the row where it has none.
#[inline(always)]
fn place_of<L: Lanes>(l: L, row: &[f32], value: f32) -> usize {
    let (chunks, rest) = row.as_chunks::<LANES>();
    let values = l.splat(value);
    for (at, chunk) in chunks.iter().enumerate() {
        let found = l.mask_bits(l.eq(l.load(chunk), values));
        if found != 0 {
            return LANES * at + found.trailing_zeros() as usize;
        }
    }
    let found = rest.iter().position(|other| *other == value);
    found.map_or(row.len(), |at| row.len() - rest.len() + at)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_last_is_blamed_and_the_others_have_waited_for_it() {
        let mut slack = Slack::new(3);
        add(Isa::best(), &[1.0, 5.0, 2.0, 4.0, 4.0, f32::NAN], &mut slack);
        assert_eq!(slack.last_arrival, [5.0, 4.0]);
        assert_eq!(slack.last_rank, [1, 0]);
        assert_eq!(slack.waited, [4.0, 0.0, 3.0]);
        assert_eq!(slack.blamed, [1, 1, 0]);
    }

    #[test]
    fn nobody_is_blamed_where_nobody_came() {
        let mut slack = Slack::new(2);
        add(Isa::best(), &[f32::NAN, f32::NAN], &mut slack);
        assert!(slack.last_arrival[0].is_nan());
        assert_eq!((slack.last_rank[0], slack.blamed[0], slack.waited[0]), (u32::MAX, 0, 0.0));
    }

    proptest! {
        #[test]
        fn every_set_gives_the_same_bits_and_a_plain_loop_the_same_answer(
            ranks in 1_usize..200, collectives in 0_usize..150, seed: u64,
        ) {
            let mut noise = crate::testing::Noise::new(seed);
            let arrivals: Vec<f32> = (0..ranks * collectives)
                .map(|at| if at % 29 == 7 { f32::NAN } else { noise.normal() * 20.0 })
                .collect();
            let mut plain = Slack::new(ranks);
            add(Isa::plain(), &arrivals, &mut plain);
            for (row, (last, rank)) in arrivals.chunks(ranks).zip(plain.last_arrival.iter().zip(&plain.last_rank)) {
                let expected = row.iter().copied().filter(|value| !value.is_nan()).reduce(f32::max);
                prop_assert_eq!(expected, (!last.is_nan()).then_some(*last));
                if let Some(expected) = expected {
                    prop_assert_eq!(row.iter().position(|value| *value == expected), Some(*rank as usize));
                }
            }
            for rank in 0..ranks {
                let waits = arrivals.chunks(ranks).zip(&plain.last_arrival).filter(|(row, _)| !row[rank].is_nan());
                let waited: f64 = waits.map(|(row, last)| f64::from(*last) - f64::from(row[rank])).sum();
                prop_assert!((waited - plain.waited[rank]).abs() <= 1e-5 * waited.abs().max(1.0));
            }
            for isa in Isa::all() {
                let mut slack = Slack::new(ranks);
                add(isa, &arrivals, &mut slack);
                prop_assert_eq!(&slack.waited, &plain.waited);
                prop_assert_eq!(&slack.blamed, &plain.blamed);
                prop_assert_eq!(&slack.last_rank, &plain.last_rank);
            }
        }
    }
}
