//! One pass over values that counts what lies below an interval and gathers what lies inside it.
//!
//! Every selection in this crate is made of such passes: a good guess leaves few values inside, and those are sifted
//! again. Cost: one read, about 0.3 cycles a value with AVX-512.

#![expect(unsafe_code, reason = "vector instructions on slices whose lengths were checked")]

use crate::simd::{Isa, Set};

/// What to compare: a value itself, or its distance from a center.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Measure {
    Value,
    /// Absolute difference from a finite center.
    DistanceFrom(f32),
}

impl Measure {
    #[inline(always)]
    pub(crate) fn of(self, value: f32) -> f32 {
        match self {
            Self::Value => value,
            Self::DistanceFrom(center) => (value - center).abs(),
        }
    }
}

/// Counts of a pass. Zeros of both signs are equal here; NaN lies nowhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sifted {
    /// Number of values below the interval.
    pub(crate) below: usize,
    /// Number of values equal to its low end; of a closed pass zero.
    pub(crate) at_low: usize,
    /// Number of values gathered.
    pub(crate) inside: usize,
    /// Number of values equal to its high end; of a closed pass zero.
    pub(crate) at_high: usize,
    /// A closed pass sets this where there may be a NaN (the sum of all values is one).
    pub(crate) may_have_nan: bool,
}

/// Gathers `low <= value <= high`, in order, into `out`, which must be at least as long as `values`.
#[inline]
pub(crate) fn sift_closed(isa: Isa, values: &[f32], measure: Measure, range: [f32; 2], out: &mut [f32]) -> Sifted {
    sift::<true>(isa, values, measure, range, out)
}

/// Gathers `low < value < high`, in order, into `out`, and counts the ends apart: ties cannot fill the buffer.
#[inline]
pub(crate) fn sift_open(isa: Isa, values: &[f32], measure: Measure, range: [f32; 2], out: &mut [f32]) -> Sifted {
    sift::<false>(isa, values, measure, range, out)
}

/// Gathers what lies in the range; with its ends where it is closed.
#[inline]
fn sift<const CLOSED: bool>(
    isa: Isa,
    values: &[f32],
    measure: Measure,
    [low, high]: [f32; 2],
    out: &mut [f32],
) -> Sifted {
    assert!(out.len() >= values.len(), "{} places for {} values", out.len(), values.len());
    match (isa.0, measure) {
        (Set::Plain, _) => plain::<CLOSED>(values, measure, low, high, out),
        // SAFETY: `Isa` proves the instructions; `out` is long enough, checked above.
        #[cfg(target_arch = "x86_64")]
        (Set::Avx2, Measure::Value) => unsafe { avx2::sift::<CLOSED, false>(values, 0.0, low, high, out) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        (Set::Avx2, Measure::DistanceFrom(center)) => unsafe {
            avx2::sift::<CLOSED, true>(values, center, low, high, out)
        },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        (Set::Avx512, Measure::Value) => unsafe { avx512::sift::<CLOSED, false>(values, 0.0, low, high, out) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        (Set::Avx512, Measure::DistanceFrom(center)) => unsafe {
            avx512::sift::<CLOSED, true>(values, center, low, high, out)
        },
    }
}

/// Gathers the values that are present and not NaN into `out`; returns their number.
#[inline]
pub(crate) fn gather_present(isa: Isa, values: &[f32], present: &[bool], out: &mut [f32]) -> usize {
    assert!(out.len() >= values.len() && present.len() == values.len(), "lengths differ");
    match isa.0 {
        // SAFETY: `Isa` proves the instructions; lengths were checked.
        #[cfg(target_arch = "x86_64")]
        Set::Avx512 => unsafe { avx512::gather_present(values, present, out) },
        _ => gather_present_plain(values, present, out),
    }
}

fn gather_present_plain(values: &[f32], present: &[bool], out: &mut [f32]) -> usize {
    let mut count = 0;
    for (value, present) in values.iter().zip(present) {
        out[count] = *value;
        count += usize::from(*present && !value.is_nan());
    }
    count
}

fn plain<const CLOSED: bool>(values: &[f32], measure: Measure, low: f32, high: f32, out: &mut [f32]) -> Sifted {
    let mut sifted = Sifted::default();
    tail::<CLOSED>(values, measure, low, high, out, &mut sifted);
    sifted
}

/// One value after the other; `sifted` may hold what came before.
#[inline(always)]
fn tail<const CLOSED: bool>(
    values: &[f32],
    measure: Measure,
    low: f32,
    high: f32,
    out: &mut [f32],
    sifted: &mut Sifted,
) {
    for value in values {
        let value = measure.of(*value);
        sifted.below += usize::from(value < low);
        // Written always and counted only if inside: no branch to guess. `inside` is below the number of values seen.
        out[sifted.inside] = value;
        if CLOSED {
            sifted.inside += usize::from(value >= low && value <= high);
            sifted.may_have_nan |= value.is_nan();
        } else {
            sifted.at_low += usize::from(value == low);
            sifted.at_high += usize::from(value == high && low != high);
            sifted.inside += usize::from(value > low && value < high);
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;

    use super::{Measure, Sifted, tail};
    use crate::simd::lanes::AHEAD;

    /// # Safety
    /// `out` must be at least as long as `values`.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi1,bmi2,lzcnt,popcnt")]
    pub(super) unsafe fn sift<const CLOSED: bool, const DISTANCE: bool>(
        values: &[f32],
        center: f32,
        low: f32,
        high: f32,
        out: &mut [f32],
    ) -> Sifted {
        let mut sifted = Sifted::default();
        let (lows, highs, centers) = (_mm512_set1_ps(low), _mm512_set1_ps(high), _mm512_set1_ps(center));
        let mut sum = _mm512_setzero_ps();
        let (chunks, rest) = values.as_chunks::<16>();
        let out_at = out.as_mut_ptr();
        let (mut below, mut inside, mut at_low, mut at_high) = (0_u32, 0_usize, 0_u32, 0_u32);
        for chunk in chunks {
            // SAFETY: a chunk is 16 values long; to prefetch what is not there does nothing.
            let mut value = unsafe {
                _mm_prefetch::<_MM_HINT_T0>(chunk.as_ptr().wrapping_byte_add(AHEAD).cast());
                _mm512_loadu_ps(chunk.as_ptr())
            };
            if DISTANCE {
                value = _mm512_abs_ps(_mm512_sub_ps(value, centers));
            }
            let is_below = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(value, lows);
            let keep = if CLOSED {
                sum = _mm512_add_ps(sum, value);
                _mm512_cmp_ps_mask::<_CMP_LE_OQ>(value, highs) & !is_below
            } else {
                let is_low = _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(value, lows);
                let is_high = _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(value, highs) & !is_low;
                at_low += is_low.count_ones();
                at_high += is_high.count_ones();
                _mm512_cmp_ps_mask::<_CMP_LT_OQ>(value, highs) & !(is_below | is_low)
            };
            below += is_below.count_ones();
            // SAFETY: `inside` is at most the number of values read before this chunk, so 16 places follow in `out`. A
            // full store of the compressed register is faster than a compressing store on most machines.
            unsafe { _mm512_storeu_ps(out_at.add(inside), _mm512_maskz_compress_ps(keep, value)) };
            inside += keep.count_ones() as usize;
            // At most 2^32 - 1 values go into one pass: rows are ranks or slopes.
        }
        sifted.below = below as usize;
        sifted.at_low = at_low as usize;
        sifted.at_high = at_high as usize;
        sifted.inside = inside;
        sifted.may_have_nan = CLOSED && _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(sum, sum) != 0;
        let measure = if DISTANCE { Measure::DistanceFrom(center) } else { Measure::Value };
        tail::<CLOSED>(rest, measure, low, high, out, &mut sifted);
        sifted
    }

    /// # Safety
    /// `present` must be as long as `values`, and `out` at least as long.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi1,bmi2,lzcnt,popcnt")]
    pub(super) unsafe fn gather_present(values: &[f32], present: &[bool], out: &mut [f32]) -> usize {
        let mut count = 0_usize;
        let (chunks, rest) = values.as_chunks::<16>();
        for (at, chunk) in chunks.iter().enumerate() {
            // SAFETY: a chunk is 16 values long, and `present` is as long as `values`; a `bool` is a byte, 0 or 1.
            let (value, mask) = unsafe {
                let bytes = _mm_loadu_si128(present.as_ptr().add(16 * at).cast());
                (_mm512_loadu_ps(chunk.as_ptr()), _mm_test_epi8_mask(bytes, bytes))
            };
            let keep = _mm512_mask_cmp_ps_mask::<_CMP_ORD_Q>(mask, value, value);
            // SAFETY: `count` is at most the number of values read before this chunk.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr().add(count), _mm512_maskz_compress_ps(keep, value)) };
            count += keep.count_ones() as usize;
        }
        for (value, present) in rest.iter().zip(&present[values.len() - rest.len()..]) {
            out[count] = *value;
            count += usize::from(*present && !value.is_nan());
        }
        count
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::{Measure, Sifted, tail};

    /// For each mask of eight lanes, where its set lanes are, in order.
    static PLACES: [[u32; 8]; 256] = {
        let mut table = [[0_u32; 8]; 256];
        let mut mask = 0;
        while mask < 256 {
            let (mut lane, mut at) = (0, 0);
            while lane < 8 {
                if mask >> lane & 1 == 1 {
                    table[mask][at] = lane as u32;
                    at += 1;
                }
                lane += 1;
            }
            mask += 1;
        }
        table
    };

    /// # Safety
    /// `out` must be at least as long as `values`.
    #[target_feature(enable = "avx2,fma,bmi1,bmi2,lzcnt,popcnt")]
    pub(super) unsafe fn sift<const CLOSED: bool, const DISTANCE: bool>(
        values: &[f32],
        center: f32,
        low: f32,
        high: f32,
        out: &mut [f32],
    ) -> Sifted {
        let mut sifted = Sifted::default();
        let (lows, highs, centers) = (_mm256_set1_ps(low), _mm256_set1_ps(high), _mm256_set1_ps(center));
        let sign = _mm256_set1_ps(-0.0);
        let mut sum = _mm256_setzero_ps();
        let (chunks, rest) = values.as_chunks::<8>();
        for chunk in chunks {
            // SAFETY: a chunk is 8 values long.
            let mut value = unsafe { _mm256_loadu_ps(chunk.as_ptr()) };
            if DISTANCE {
                value = _mm256_andnot_ps(sign, _mm256_sub_ps(value, centers));
            }
            let is_below = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(value, lows));
            let keep = if CLOSED {
                sum = _mm256_add_ps(sum, value);
                _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_LE_OQ>(value, highs)) & !is_below
            } else {
                let is_low = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_EQ_OQ>(value, lows));
                let is_high = _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_EQ_OQ>(value, highs)) & !is_low;
                sifted.at_low += is_low.count_ones() as usize;
                sifted.at_high += is_high.count_ones() as usize;
                _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(value, highs)) & !(is_below | is_low)
            };
            sifted.below += is_below.count_ones() as usize;
            // SAFETY: a row of the table is 8 words long; `inside` is at most the number of values read before this
            // chunk, so 8 places follow in `out`.
            unsafe {
                let places = _mm256_loadu_si256(PLACES[(keep & 255) as usize].as_ptr().cast());
                let packed = _mm256_permutevar8x32_ps(value, places);
                _mm256_storeu_ps(out.as_mut_ptr().add(sifted.inside), packed);
            }
            sifted.inside += keep.count_ones() as usize;
        }
        sifted.may_have_nan = CLOSED && _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_UNORD_Q>(sum, sum)) != 0;
        let measure = if DISTANCE { Measure::DistanceFrom(center) } else { Measure::Value };
        tail::<CLOSED>(rest, measure, low, high, out, &mut sifted);
        sifted
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn awkward() -> impl Strategy<Value = f32> {
        prop_oneof![
            4 => (-20_i8..20).prop_map(f32::from),
            4 => -30.0_f32..30.0,
            1 => prop::sample::select(vec![f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, 1e-42, f32::MAX]),
        ]
    }

    /// Ends are numbers: whoever guesses one tests that.
    fn end() -> impl Strategy<Value = f32> {
        awkward().prop_filter("a number", |value| !value.is_nan())
    }

    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|value| value.to_bits()).collect()
    }

    proptest! {
        #[test]
        fn every_set_sifts_as_a_loop_does(
            values in prop::collection::vec(awkward(), 0..150),
            low in end(), high in end(), center in -9.0_f32..9.0, is_distance: bool,
        ) {
            let measure = if is_distance { Measure::DistanceFrom(center) } else { Measure::Value };
            let seen: Vec<f32> = values.iter().map(|value| measure.of(*value)).collect();
            let closed: Vec<f32> = seen.iter().copied().filter(|value| *value >= low && *value <= high).collect();
            let open: Vec<f32> = seen.iter().copied().filter(|value| *value > low && *value < high).collect();
            let below = seen.iter().filter(|value| **value < low).count();
            for isa in Isa::all() {
                let mut out = vec![0.0; values.len()];
                let sifted = sift_closed(isa, &values, measure, [low, high], &mut out);
                prop_assert_eq!(sifted.below, below);
                prop_assert_eq!(bits(&out[..sifted.inside]), bits(&closed));
                prop_assert!(sifted.may_have_nan || !seen.iter().any(|value| value.is_nan()));
                let sifted = sift_open(isa, &values, measure, [low, high], &mut out);
                prop_assert_eq!(sifted.below, below);
                prop_assert_eq!(sifted.at_low, seen.iter().filter(|value| **value == low).count());
                let at_high = seen.iter().filter(|value| **value == high && low != high).count();
                prop_assert_eq!(sifted.at_high, at_high);
                prop_assert_eq!(bits(&out[..sifted.inside]), bits(&open));
            }
        }

        #[test]
        fn every_set_gathers_what_is_present(cells in prop::collection::vec((awkward(), any::<bool>()), 0..150)) {
            let (values, present): (Vec<f32>, Vec<bool>) = cells.into_iter().unzip();
            let counted = values.iter().zip(&present).filter(|(value, present)| **present && !value.is_nan());
            let expected: Vec<f32> = counted.map(|(value, _)| *value).collect();
            for isa in Isa::all() {
                let mut out = vec![0.0; values.len()];
                let count = gather_present(isa, &values, &present, &mut out);
                prop_assert_eq!(bits(&out[..count]), bits(&expected));
            }
        }
    }
}
