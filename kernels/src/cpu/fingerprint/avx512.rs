//! Blocks of bf16 and f32 in one pass, with AVX-512: the sums, shapes and order of the plain block.

#![expect(unsafe_code, reason = "vector instructions on arrays of fixed length")]

use std::arch::x86_64::*;

use crate::cpu::fingerprint::{Block, BlockBytes, FingerprintKey, Format, ROW_BYTES, ROWS, tree};
use crate::simd::{Isa, Set};

/// Columns of 64 bytes in a row of a block.
const COLUMNS: usize = ROW_BYTES / 64;

/// The block, where its format has a pass of its own.
#[inline]
pub(super) fn block(isa: Isa, bytes: &BlockBytes, format: Format, key: &FingerprintKey) -> Option<Block> {
    assert!(isa.0 == Set::Avx512, "only an `Isa` of this set proves its instructions");
    match format {
        // SAFETY: `Isa` proves the instructions.
        Format::Bf16 => Some(unsafe { pass::<true>(bytes, key.words()) }),
        // SAFETY: as above.
        Format::F32 => Some(unsafe { pass::<false>(bytes, key.words()) }),
        _ => None,
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,bmi1,bmi2,lzcnt,popcnt")]
fn pass<const HALVES: bool>(bytes: &BlockBytes, key: &[u32; 4096]) -> Block {
    let high_half = _mm512_set1_epi32(0xffff_0000_u32 as i32);
    let size_mask = _mm512_set1_epi32(if HALVES { 0x7fff_7fff } else { 0x7fff_ffff });
    let zero = _mm512_setzero_si512();
    let mut products = [zero; 2];
    let mut words = zero;
    let (mut max, mut min) = (zero, _mm512_set1_epi32(-1));
    let mut squares = [[_mm512_setzero_ps(); COLUMNS]; 2];
    for row in 0..ROWS {
        for column in 0..COLUMNS {
            let at = row * ROW_BYTES + column * 64;
            // SAFETY: `at + 64` is at most the length of a block, and the key has one word for each four bytes of it.
            let (data, keys) = unsafe {
                _mm_prefetch::<_MM_HINT_T0>(bytes.as_ptr().wrapping_add(at + 16384).cast());
                (_mm512_loadu_si512(bytes.as_ptr().add(at).cast()), _mm512_loadu_si512(key.as_ptr().add(at / 4).cast()))
            };
            let keyed = _mm512_add_epi32(data, keys);
            let product = _mm512_mul_epu32(keyed, _mm512_srli_epi64::<32>(keyed));
            products[column % 2] = _mm512_add_epi64(products[column % 2], product);
            words = _mm512_add_epi64(words, data);
            let size = _mm512_and_si512(data, size_mask);
            if HALVES {
                max = _mm512_max_epu16(max, size);
                min = _mm512_min_epu16(min, size);
                let low = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(data));
                let high = _mm512_castsi512_ps(_mm512_and_si512(data, high_half));
                squares[0][column] = _mm512_add_ps(squares[0][column], _mm512_mul_ps(low, low));
                squares[1][column] = _mm512_add_ps(squares[1][column], _mm512_mul_ps(high, high));
            } else {
                max = _mm512_max_epu32(max, size);
                min = _mm512_min_epu32(min, size);
                let number = _mm512_castsi512_ps(data);
                squares[0][column] = _mm512_add_ps(squares[0][column], _mm512_mul_ps(number, number));
            }
        }
    }
    let mut lanes = [_mm512_setzero_pd(); 2];
    for column in 0..COLUMNS {
        for part in &squares[..if HALVES { 2 } else { 1 }] {
            let low = _mm512_cvtps_pd(_mm512_castps512_ps256(part[column]));
            let high = _mm512_cvtps_pd(_mm512_extractf32x8_ps::<1>(part[column]));
            lanes[0] = _mm512_add_pd(lanes[0], low);
            lanes[1] = _mm512_add_pd(lanes[1], high);
        }
    }
    let mut spread = [0.0_f64; 16];
    // SAFETY: 16 places take two vectors of eight.
    unsafe {
        _mm512_storeu_pd(spread.as_mut_ptr(), lanes[0]);
        _mm512_storeu_pd(spread.as_mut_ptr().add(8), lanes[1]);
    }
    let (max_bits, min_bits) = if HALVES {
        let low = _mm512_set1_epi32(0xffff);
        let most = _mm512_max_epu32(_mm512_and_si512(max, low), _mm512_srli_epi32::<16>(max));
        let least = _mm512_min_epu32(_mm512_and_si512(min, low), _mm512_srli_epi32::<16>(min));
        (_mm512_reduce_max_epu32(most), _mm512_reduce_min_epu32(least))
    } else {
        (_mm512_reduce_max_epu32(max), _mm512_reduce_min_epu32(min))
    };
    Block {
        products: _mm512_reduce_add_epi64(_mm512_add_epi64(products[0], products[1])) as u64,
        words: _mm512_reduce_add_epi64(words) as u64,
        sum_of_squares: tree(spread),
        max_bits,
        min_bits,
    }
}
