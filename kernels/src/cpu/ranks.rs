//! Where values stand among others.

use crate::simd::{Isa, stamped};

/// How many of a row are above, and how many equal to, each of some values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tail {
    /// Number of values of the row that are larger.
    pub above: u32,
    /// Number of values of the row that are equal, zeros of both signs being one.
    pub equal: u32,
}

impl Tail {
    /// The rank-based p-value of the value against `others` peers: the part of them, itself counted, that is at least as
    /// large. Never zero, and valid in finite samples.
    ///
    /// Source: Phipson and Smyth, "Permutation p-values should never be zero", SAGMB 9 (2010).
    #[must_use]
    pub fn p_value(self, others: u32) -> f64 {
        f64::from(self.above + self.equal + 1) / (f64::from(others) + 1.0)
    }
}

/// Counts the row against each query. Exact; NaN is neither above nor equal to anything.
///
/// * `row`: any unit. `queries`: same unit. `tails`: as long as `queries`; replaced.
///
/// Cost: the row is read once for eight queries, two comparisons a value and query.
pub(crate) fn tails(isa: Isa, row: &[f32], queries: &[f32], tails: &mut [Tail]) {
    assert_eq!(queries.len(), tails.len(), "one tail a query");
    for (queries, tails) in queries.chunks(8).zip(tails.chunks_mut(8)) {
        let mut eight = [f32::NAN; 8];
        eight[..queries.len()].copy_from_slice(queries);
        let counts = eight_tails(isa, row, &eight);
        tails.copy_from_slice(&counts[..tails.len()]);
    }
}

stamped! {
    fn eight_tails(row: &'a [f32], queries: &'a [f32; 8]) -> [Tail; 8] {
        let mut tails = [Tail::default(); 8];
        // A row that fits the first cache is read eight times at no cost.
        for part in row.chunks(4_096) {
            for (tail, query) in tails.iter_mut().zip(queries) {
                for value in part {
                    tail.above += u32::from(value > query);
                    tail.equal += u32::from(value == query);
                }
            }
        }
        tails
    }
}

/// Mid-ranks of all values of a row: one more than the number of smaller ones, plus half of the other equal ones.
///
/// * `ranks`: as long as `row`; replaced; NaN where the row is NaN. `order`: buffer.
///
/// Cost: one sort of 8-byte keys. Source: Lehmann, "Nonparametrics: Statistical methods based on ranks" (1975), 1.4.
pub(crate) fn mid_ranks(row: &[f32], order: &mut Vec<u64>, ranks: &mut [f32]) {
    assert_eq!(row.len(), ranks.len(), "one rank a value");
    order.clear();
    for (at, value) in row.iter().enumerate() {
        if value.is_nan() {
            ranks[at] = f32::NAN;
            continue;
        }
        // Adding zero makes the zeros one; then the order of the bits, signs turned, is that of the values.
        let bits = (value + 0.0).to_bits();
        let key = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
        order.push(u64::from(key) << 32 | at as u64);
    }
    order.sort_unstable();
    let mut first = 0;
    for ties in order.chunk_by(|one, other| one >> 32 == other >> 32) {
        let rank = first as f32 + 0.5 * (ties.len() as f32 + 1.0);
        for key in ties {
            ranks[(key & 0xffff_ffff) as usize] = rank;
        }
        first += ties.len();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ties_share_their_rank_and_nan_has_none() {
        let mut ranks = [0.0; 6];
        mid_ranks(&[5.0, -1.0, 5.0, f32::NAN, -0.0, 0.0], &mut Vec::new(), &mut ranks);
        assert_eq!([ranks[0], ranks[1], ranks[2], ranks[4], ranks[5]], [4.5, 1.0, 4.5, 2.5, 2.5]);
        assert!(ranks[3].is_nan());
    }

    #[test]
    fn the_largest_of_nine_peers_has_a_p_value_of_a_tenth() {
        assert_eq!(Tail { above: 0, equal: 0 }.p_value(9), 0.1);
    }

    proptest! {
        #[test]
        fn every_set_counts_as_a_filter_does(
            row in prop::collection::vec(prop_oneof![-9.0_f32..9.0, (0_u8..5).prop_map(f32::from), Just(f32::NAN)], 0..300),
            queries in prop::collection::vec(prop_oneof![-9.0_f32..9.0, (0_u8..5).prop_map(f32::from)], 0..20),
        ) {
            for isa in Isa::all() {
                let mut counts = vec![Tail::default(); queries.len()];
                tails(isa, &row, &queries, &mut counts);
                for (query, tail) in queries.iter().zip(&counts) {
                    prop_assert_eq!(tail.above as usize, row.iter().filter(|value| *value > query).count());
                    prop_assert_eq!(tail.equal as usize, row.iter().filter(|value| *value == query).count());
                }
            }
        }
    }
}
