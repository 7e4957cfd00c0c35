//! Sixteen numbers side by side: one source of a kernel for every set of instructions.
//!
//! The compiler does not vectorise every body that it could; a kernel written with these operations it need not. Each
//! operation is the one of the same name on every single lane, with its rounding: [`Plain`] is the definition.

#![expect(unsafe_code, reason = "vector instructions; the tokens that offer them are made where they were found")]

/// Lanes of a vector.
pub(crate) const LANES: usize = 16;

/// Operations on 16 lanes of 32 bits. `F` holds floats, `U` words, `M` one bit a lane.
pub(crate) trait Lanes: Copy {
    type F: Copy;
    type U: Copy;
    type M: Copy;

    fn splat(self, value: f32) -> Self::F;
    fn load(self, values: &[f32; LANES]) -> Self::F;
    fn store(self, values: Self::F, out: &mut [f32; LANES]);
    fn add(self, one: Self::F, other: Self::F) -> Self::F;
    fn sub(self, one: Self::F, other: Self::F) -> Self::F;
    fn mul(self, one: Self::F, other: Self::F) -> Self::F;
    /// `one * other + more`, rounded once.
    fn mul_add(self, one: Self::F, other: Self::F, more: Self::F) -> Self::F;
    fn sqrt(self, values: Self::F) -> Self::F;
    /// `one < other`; false where either is NaN.
    fn lt(self, one: Self::F, other: Self::F) -> Self::M;
    fn eq(self, one: Self::F, other: Self::F) -> Self::M;
    fn select(self, mask: Self::M, yes: Self::F, no: Self::F) -> Self::F;
    fn bits(self, values: Self::F) -> Self::U;
    fn float(self, words: Self::U) -> Self::F;
    /// The float nearest to a word taken as a signed number.
    fn signed_to_float(self, words: Self::U) -> Self::F;

    fn splat_word(self, word: u32) -> Self::U;
    fn load_words(self, words: &[u32; LANES]) -> Self::U;
    fn store_words(self, words: Self::U, out: &mut [u32; LANES]);
    fn add_words(self, one: Self::U, other: Self::U) -> Self::U;
    fn sub_words(self, one: Self::U, other: Self::U) -> Self::U;
    fn and(self, one: Self::U, other: Self::U) -> Self::U;
    fn shift_left<const BY: u32>(self, words: Self::U) -> Self::U;
    fn shift_right<const BY: u32>(self, words: Self::U) -> Self::U;
    /// As `shift_right`, with copies of the sign.
    fn shift_signed<const BY: u32>(self, words: Self::U) -> Self::U;
    fn eq_words(self, one: Self::U, other: Self::U) -> Self::M;
    fn select_words(self, mask: Self::M, yes: Self::U, no: Self::U) -> Self::U;

    /// `one` where it is larger, else (equal, or either is NaN) `other`.
    fn larger(self, one: Self::F, other: Self::F) -> Self::F;
    /// `one` where it is smaller, else (equal, or either is NaN) `other`.
    fn smaller(self, one: Self::F, other: Self::F) -> Self::F;
    /// Bit `n` is lane `n`.
    fn mask_bits(self, mask: Self::M) -> u16;

    /// Fetches what lies so many bytes behind `place` into the cache, where the set can; changes nothing.
    fn fetch(self, place: &[f32; LANES], ahead: usize);
}

/// Bytes that a stream out of memory is fetched ahead of its turn: the processor's own fetching ends at each page.
pub(crate) const AHEAD: usize = 8 << 10;

/// What every machine can do.
#[derive(Clone, Copy)]
pub(crate) struct Plain;

#[inline(always)]
fn each<A: Copy, B: Copy, C>(one: [A; LANES], other: [B; LANES], of: impl Fn(A, B) -> C) -> [C; LANES] {
    std::array::from_fn(|lane| of(one[lane], other[lane]))
}

impl Lanes for Plain {
    type F = [f32; LANES];
    type U = [u32; LANES];
    type M = [bool; LANES];

    #[inline(always)]
    fn splat(self, value: f32) -> Self::F {
        [value; LANES]
    }

    #[inline(always)]
    fn load(self, values: &[f32; LANES]) -> Self::F {
        *values
    }

    #[inline(always)]
    fn store(self, values: Self::F, out: &mut [f32; LANES]) {
        *out = values;
    }

    #[inline(always)]
    fn add(self, one: Self::F, other: Self::F) -> Self::F {
        each(one, other, |one, other| one + other)
    }

    #[inline(always)]
    fn sub(self, one: Self::F, other: Self::F) -> Self::F {
        each(one, other, |one, other| one - other)
    }

    #[inline(always)]
    fn mul(self, one: Self::F, other: Self::F) -> Self::F {
        each(one, other, |one, other| one * other)
    }

    #[inline(always)]
    fn mul_add(self, one: Self::F, other: Self::F, more: Self::F) -> Self::F {
        std::array::from_fn(|lane| one[lane].mul_add(other[lane], more[lane]))
    }

    #[inline(always)]
    fn sqrt(self, values: Self::F) -> Self::F {
        values.map(f32::sqrt)
    }

    #[inline(always)]
    fn lt(self, one: Self::F, other: Self::F) -> Self::M {
        each(one, other, |one, other| one < other)
    }

    #[inline(always)]
    fn eq(self, one: Self::F, other: Self::F) -> Self::M {
        each(one, other, |one, other| one == other)
    }

    #[inline(always)]
    fn select(self, mask: Self::M, yes: Self::F, no: Self::F) -> Self::F {
        std::array::from_fn(|lane| if mask[lane] { yes[lane] } else { no[lane] })
    }

    #[inline(always)]
    fn bits(self, values: Self::F) -> Self::U {
        values.map(f32::to_bits)
    }

    #[inline(always)]
    fn float(self, words: Self::U) -> Self::F {
        words.map(f32::from_bits)
    }

    #[inline(always)]
    fn signed_to_float(self, words: Self::U) -> Self::F {
        words.map(|word| word as i32 as f32)
    }

    #[inline(always)]
    fn splat_word(self, word: u32) -> Self::U {
        [word; LANES]
    }

    #[inline(always)]
    fn load_words(self, words: &[u32; LANES]) -> Self::U {
        *words
    }

    #[inline(always)]
    fn store_words(self, words: Self::U, out: &mut [u32; LANES]) {
        *out = words;
    }

    #[inline(always)]
    fn add_words(self, one: Self::U, other: Self::U) -> Self::U {
        each(one, other, u32::wrapping_add)
    }

    #[inline(always)]
    fn sub_words(self, one: Self::U, other: Self::U) -> Self::U {
        each(one, other, u32::wrapping_sub)
    }

    #[inline(always)]
    fn and(self, one: Self::U, other: Self::U) -> Self::U {
        each(one, other, |one, other| one & other)
    }

    #[inline(always)]
    fn shift_left<const BY: u32>(self, words: Self::U) -> Self::U {
        words.map(|word| word << BY)
    }

    #[inline(always)]
    fn shift_right<const BY: u32>(self, words: Self::U) -> Self::U {
        words.map(|word| word >> BY)
    }

    #[inline(always)]
    fn shift_signed<const BY: u32>(self, words: Self::U) -> Self::U {
        words.map(|word| (word as i32 >> BY) as u32)
    }

    #[inline(always)]
    fn eq_words(self, one: Self::U, other: Self::U) -> Self::M {
        each(one, other, |one, other| one == other)
    }

    #[inline(always)]
    fn select_words(self, mask: Self::M, yes: Self::U, no: Self::U) -> Self::U {
        std::array::from_fn(|lane| if mask[lane] { yes[lane] } else { no[lane] })
    }

    #[inline(always)]
    fn larger(self, one: Self::F, other: Self::F) -> Self::F {
        each(one, other, |one, other| if one > other { one } else { other })
    }

    #[inline(always)]
    fn smaller(self, one: Self::F, other: Self::F) -> Self::F {
        each(one, other, |one, other| if one < other { one } else { other })
    }

    #[inline(always)]
    fn mask_bits(self, mask: Self::M) -> u16 {
        mask.iter().enumerate().fold(0, |bits, (lane, is_set)| bits | u16::from(*is_set) << lane)
    }

    #[inline(always)]
    fn fetch(self, _: &[f32; LANES], _: usize) {}
}

/// AVX-512: one register.
#[cfg(target_arch = "x86_64")]
pub(crate) use avx512::Avx512;

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::*;

    use super::{LANES, Lanes};

    /// A proof: made only where the processor was asked.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx512(());

    impl Avx512 {
        /// # Safety
        /// The processor must have the instructions of this set.
        #[inline(always)]
        pub(crate) const unsafe fn new() -> Self {
            Self(())
        }
    }

    impl Lanes for Avx512 {
        type F = __m512;
        type U = __m512i;
        type M = __mmask16;

        #[inline(always)]
        fn splat(self, value: f32) -> Self::F {
            // SAFETY: the token proves the instructions; arrays are as long as a vector.
            unsafe { _mm512_set1_ps(value) }
        }

        #[inline(always)]
        fn load(self, values: &[f32; LANES]) -> Self::F {
            // SAFETY: the token proves the instructions; arrays are as long as a vector.
            unsafe { _mm512_loadu_ps(values.as_ptr()) }
        }

        #[inline(always)]
        fn store(self, values: Self::F, out: &mut [f32; LANES]) {
            // SAFETY: the token proves the instructions; arrays are as long as a vector.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), values) }
        }

        #[inline(always)]
        fn add(self, one: Self::F, other: Self::F) -> Self::F {
            // SAFETY: the token proves the instructions; arrays are as long as a vector.
            unsafe { _mm512_add_ps(one, other) }
        }

        #[inline(always)]
        fn sub(self, one: Self::F, other: Self::F) -> Self::F {
            // SAFETY: the token proves the instructions; arrays are as long as a vector.
            unsafe { _mm512_sub_ps(one, other) }
        }

        #[inline(always)]
        fn mul(self, one: Self::F, other: Self::F) -> Self::F {
            // SAFETY: the token proves the instructions; arrays are as long as a vector.
            unsafe { _mm512_mul_ps(one, other) }
        }

        #[inline(always)]
        fn mul_add(self, one: Self::F, other: Self::F, more: Self::F) -> Self::F {
            // SAFETY: the token proves the instructions; arrays are as long as a vector.
            unsafe { _mm512_fmadd_ps(one, other, more) }
        }

        #[inline(always)]
        fn sqrt(self, values: Self::F) -> Self::F {
            // SAFETY: the token proves the instructions; arrays are as long as a vector.
            unsafe { _mm512_sqrt_ps(values) }
        }

        #[inline(always)]
        fn lt(self, one: Self::F, other: Self::F) -> Self::M {
            // SAFETY: the token proves the instructions; arrays are as long as a vector.
            unsafe { _mm512_cmp_ps_mask::<_CMP_LT_OQ>(one, other) }
        }

        #[inline(always)]
        fn eq(self, one: Self::F, other: Self::F) -> Self::M {
            // SAFETY: the token proves the instructions; arrays are as long as a vector.
            unsafe { _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(one, other) }
        }

        #[inline(always)]
        fn select(self, mask: Self::M, yes: Self::F, no: Self::F) -> Self::F {
            // SAFETY: the token proves the instructions; arrays are as long as a vector.
            unsafe { _mm512_mask_blend_ps(mask, no, yes) }
        }

        #[inline(always)]
        fn bits(self, values: Self::F) -> Self::U {
            // SAFETY: the token proves the instructions; arrays are as long as a vector.
            unsafe { _mm512_castps_si512(values) }
        }

        #[inline(always)]
        fn float(self, words: Self::U) -> Self::F {
            // SAFETY: the token proves the instructions; arrays are as long as a vector.
            unsafe { _mm512_castsi512_ps(words) }
        }

        #[inline(always)]
        fn signed_to_float(self, words: Self::U) -> Self::F {
            // SAFETY: the token proves the instructions; arrays are as long as a vector.
            unsafe { _mm512_cvtepi32_ps(words) }
        }

        #[inline(always)]
        fn splat_word(self, word: u32) -> Self::U {
            // SAFETY: the token proves the instructions; arrays are as long as a vector.
            unsafe { _mm512_set1_epi32(word as i32) }
        }

        #[inline(always)]
        fn load_words(self, words: &[u32; LANES]) -> Self::U {
            // SAFETY: the token proves the instructions; arrays are as long as a vector.
            unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
        }

        #[inline(always)]
        fn store_words(self, words: Self::U, out: &mut [u32; LANES]) {
            // SAFETY: the token proves the instructions; arrays are as long as a vector.
            unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), words) }
        }

        #[inline(always)]
        fn add_words(self, one: Self::U, other: Self::U) -> Self::U {
            // SAFETY: the token proves the instructions; arrays are as long as a vector.
            unsafe { _mm512_add_epi32(one, other) }
        }

        #[inline(always)]
        fn sub_words(self, one: Self::U, other: Self::U) -> Self::U {
            // SAFETY: the token proves the instructions; arrays are as long as a vector.
            unsafe { _mm512_sub_epi32(one, other) }
        }

        #[inline(always)]
        fn and(self, one: Self::U, other: Self::U) -> Self::U {
            // SAFETY: the token proves the instructions; arrays are as long as a vector.
            unsafe { _mm512_and_si512(one, other) }
        }

        #[inline(always)]
        fn shift_left<const BY: u32>(self, words: Self::U) -> Self::U {
            // SAFETY: the token proves the instructions; arrays are as long as a vector.
            unsafe { _mm512_slli_epi32::<BY>(words) }
        }

        #[inline(always)]
        fn shift_right<const BY: u32>(self, words: Self::U) -> Self::U {
            // SAFETY: the token proves the instructions; arrays are as long as a vector.
            unsafe { _mm512_srli_epi32::<BY>(words) }
        }

        #[inline(always)]
        fn shift_signed<const BY: u32>(self, words: Self::U) -> Self::U {
            // SAFETY: the token proves the instructions; arrays are as long as a vector.
            unsafe { _mm512_srai_epi32::<BY>(words) }
        }

        #[inline(always)]
        fn eq_words(self, one: Self::U, other: Self::U) -> Self::M {
            // SAFETY: the token proves the instructions; arrays are as long as a vector.
            unsafe { _mm512_cmpeq_epi32_mask(one, other) }
        }

        #[inline(always)]
        fn select_words(self, mask: Self::M, yes: Self::U, no: Self::U) -> Self::U {
            // SAFETY: the token proves the instructions; arrays are as long as a vector.
            unsafe { _mm512_mask_blend_epi32(mask, no, yes) }
        }

        #[inline(always)]
        fn larger(self, one: Self::F, other: Self::F) -> Self::F {
            // SAFETY: the token proves the instructions; arrays are as long as a vector.
            unsafe { _mm512_max_ps(one, other) }
        }

        #[inline(always)]
        fn smaller(self, one: Self::F, other: Self::F) -> Self::F {
            // SAFETY: the token proves the instructions; arrays are as long as a vector.
            unsafe { _mm512_min_ps(one, other) }
        }

        #[inline(always)]
        fn mask_bits(self, mask: Self::M) -> u16 {
            mask
        }

        #[inline(always)]
        fn fetch(self, place: &[f32; LANES], ahead: usize) {
            // SAFETY: to fetch what is not there does nothing.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(place.as_ptr().wrapping_byte_add(ahead).cast()) }
        }
    }
}

/// AVX2 with fused multiply-add: two registers.
#[cfg(target_arch = "x86_64")]
pub(crate) use avx2::Avx2;

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::{LANES, Lanes};

    /// A proof: made only where the processor was asked.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx2(());

    impl Avx2 {
        /// # Safety
        /// The processor must have the instructions of this set.
        #[inline(always)]
        pub(crate) const unsafe fn new() -> Self {
            Self(())
        }
    }

    impl Lanes for Avx2 {
        type F = [__m256; 2];
        type U = [__m256i; 2];
        type M = [__m256; 2];

        #[inline(always)]
        fn splat(self, value: f32) -> Self::F {
            // SAFETY: the token proves the instructions; arrays are as long as a vector.
            unsafe { [_mm256_set1_ps(value); 2] }
        }

        #[inline(always)]
        fn load(self, values: &[f32; LANES]) -> Self::F {
            // SAFETY: the token proves the instructions; arrays are as long as a vector.
            unsafe { [_mm256_loadu_ps(values.as_ptr()), _mm256_loadu_ps(values.as_ptr().add(8))] }
        }

        #[inline(always)]
        fn store(self, values: Self::F, out: &mut [f32; LANES]) {
            // SAFETY: the token proves the instructions; arrays are as long as a vector.
            unsafe {
                _mm256_storeu_ps(out.as_mut_ptr(), values[0]);
                _mm256_storeu_ps(out.as_mut_ptr().add(8), values[1])
            }
        }

        #[inline(always)]
        fn add(self, one: Self::F, other: Self::F) -> Self::F {
            // SAFETY: the token proves the instructions; arrays are as long as a vector.
            unsafe { [_mm256_add_ps(one[0], other[0]), _mm256_add_ps(one[1], other[1])] }
        }

        #[inline(always)]
        fn sub(self, one: Self::F, other: Self::F) -> Self::F {
            // SAFETY: the token proves the instructions; arrays are as long as a vector.
            unsafe { [_mm256_sub_ps(one[0], other[0]), _mm256_sub_ps(one[1], other[1])] }
        }

        #[inline(always)]
        fn mul(self, one: Self::F, other: Self::F) -> Self::F {
            // SAFETY: the token proves the instructions; arrays are as long as a vector.
            unsafe { [_mm256_mul_ps(one[0], other[0]), _mm256_mul_ps(one[1], other[1])] }
        }

        #[inline(always)]
        fn mul_add(self, one: Self::F, other: Self::F, more: Self::F) -> Self::F {
            // SAFETY: the token proves the instructions; arrays are as long as a vector.
            unsafe { [_mm256_fmadd_ps(one[0], other[0], more[0]), _mm256_fmadd_ps(one[1], other[1], more[1])] }
        }

        #[inline(always)]
        fn sqrt(self, values: Self::F) -> Self::F {
            // SAFETY: the token proves the instructions; arrays are as long as a vector.
            unsafe { [_mm256_sqrt_ps(values[0]), _mm256_sqrt_ps(values[1])] }
        }

        #[inline(always)]
        fn lt(self, one: Self::F, other: Self::F) -> Self::M {
            // SAFETY: the token proves the instructions; arrays are as long as a vector.
            unsafe { [_mm256_cmp_ps::<_CMP_LT_OQ>(one[0], other[0]), _mm256_cmp_ps::<_CMP_LT_OQ>(one[1], other[1])] }
        }

        #[inline(always)]
        fn eq(self, one: Self::F, other: Self::F) -> Self::M {
            // SAFETY: the token proves the instructions; arrays are as long as a vector.
            unsafe { [_mm256_cmp_ps::<_CMP_EQ_OQ>(one[0], other[0]), _mm256_cmp_ps::<_CMP_EQ_OQ>(one[1], other[1])] }
        }

        #[inline(always)]
        fn select(self, mask: Self::M, yes: Self::F, no: Self::F) -> Self::F {
            // SAFETY: the token proves the instructions; arrays are as long as a vector.
            unsafe { [_mm256_blendv_ps(no[0], yes[0], mask[0]), _mm256_blendv_ps(no[1], yes[1], mask[1])] }
        }

        #[inline(always)]
        fn bits(self, values: Self::F) -> Self::U {
            // SAFETY: the token proves the instructions; arrays are as long as a vector.
            unsafe { [_mm256_castps_si256(values[0]), _mm256_castps_si256(values[1])] }
        }

        #[inline(always)]
        fn float(self, words: Self::U) -> Self::F {
            // SAFETY: the token proves the instructions; arrays are as long as a vector.
            unsafe { [_mm256_castsi256_ps(words[0]), _mm256_castsi256_ps(words[1])] }
        }

        #[inline(always)]
        fn signed_to_float(self, words: Self::U) -> Self::F {
            // SAFETY: the token proves the instructions; arrays are as long as a vector.
            unsafe { [_mm256_cvtepi32_ps(words[0]), _mm256_cvtepi32_ps(words[1])] }
        }

        #[inline(always)]
        fn splat_word(self, word: u32) -> Self::U {
            // SAFETY: the token proves the instructions; arrays are as long as a vector.
            unsafe { [_mm256_set1_epi32(word as i32); 2] }
        }

        #[inline(always)]
        fn load_words(self, words: &[u32; LANES]) -> Self::U {
            // SAFETY: the token proves the instructions; arrays are as long as a vector.
            unsafe { [_mm256_loadu_si256(words.as_ptr().cast()), _mm256_loadu_si256(words.as_ptr().add(8).cast())] }
        }

        #[inline(always)]
        fn store_words(self, words: Self::U, out: &mut [u32; LANES]) {
            // SAFETY: the token proves the instructions; arrays are as long as a vector.
            unsafe {
                _mm256_storeu_si256(out.as_mut_ptr().cast(), words[0]);
                _mm256_storeu_si256(out.as_mut_ptr().add(8).cast(), words[1])
            }
        }

        #[inline(always)]
        fn add_words(self, one: Self::U, other: Self::U) -> Self::U {
            // SAFETY: the token proves the instructions; arrays are as long as a vector.
            unsafe { [_mm256_add_epi32(one[0], other[0]), _mm256_add_epi32(one[1], other[1])] }
        }

        #[inline(always)]
        fn sub_words(self, one: Self::U, other: Self::U) -> Self::U {
            // SAFETY: the token proves the instructions; arrays are as long as a vector.
            unsafe { [_mm256_sub_epi32(one[0], other[0]), _mm256_sub_epi32(one[1], other[1])] }
        }

        #[inline(always)]
        fn and(self, one: Self::U, other: Self::U) -> Self::U {
            // SAFETY: the token proves the instructions; arrays are as long as a vector.
            unsafe { [_mm256_and_si256(one[0], other[0]), _mm256_and_si256(one[1], other[1])] }
        }

        #[inline(always)]
        fn shift_left<const BY: u32>(self, words: Self::U) -> Self::U {
            // SAFETY: the token proves the instructions; arrays are as long as a vector.
            unsafe {
                [
                    _mm256_sll_epi32(words[0], _mm_cvtsi32_si128(BY as i32)),
                    _mm256_sll_epi32(words[1], _mm_cvtsi32_si128(BY as i32)),
                ]
            }
        }

        #[inline(always)]
        fn shift_right<const BY: u32>(self, words: Self::U) -> Self::U {
            // SAFETY: the token proves the instructions; arrays are as long as a vector.
            unsafe {
                [
                    _mm256_srl_epi32(words[0], _mm_cvtsi32_si128(BY as i32)),
                    _mm256_srl_epi32(words[1], _mm_cvtsi32_si128(BY as i32)),
                ]
            }
        }

        #[inline(always)]
        fn shift_signed<const BY: u32>(self, words: Self::U) -> Self::U {
            // SAFETY: the token proves the instructions; arrays are as long as a vector.
            unsafe {
                [
                    _mm256_sra_epi32(words[0], _mm_cvtsi32_si128(BY as i32)),
                    _mm256_sra_epi32(words[1], _mm_cvtsi32_si128(BY as i32)),
                ]
            }
        }

        #[inline(always)]
        fn eq_words(self, one: Self::U, other: Self::U) -> Self::M {
            // SAFETY: the token proves the instructions; arrays are as long as a vector.
            unsafe {
                [
                    _mm256_castsi256_ps(_mm256_cmpeq_epi32(one[0], other[0])),
                    _mm256_castsi256_ps(_mm256_cmpeq_epi32(one[1], other[1])),
                ]
            }
        }

        #[inline(always)]
        fn select_words(self, mask: Self::M, yes: Self::U, no: Self::U) -> Self::U {
            // SAFETY: the token proves the instructions; arrays are as long as a vector.
            unsafe {
                [
                    _mm256_blendv_epi8(no[0], yes[0], _mm256_castps_si256(mask[0])),
                    _mm256_blendv_epi8(no[1], yes[1], _mm256_castps_si256(mask[1])),
                ]
            }
        }

        #[inline(always)]
        fn larger(self, one: Self::F, other: Self::F) -> Self::F {
            // SAFETY: the token proves the instructions; arrays are as long as a vector.
            unsafe { [_mm256_max_ps(one[0], other[0]), _mm256_max_ps(one[1], other[1])] }
        }

        #[inline(always)]
        fn smaller(self, one: Self::F, other: Self::F) -> Self::F {
            // SAFETY: the token proves the instructions; arrays are as long as a vector.
            unsafe { [_mm256_min_ps(one[0], other[0]), _mm256_min_ps(one[1], other[1])] }
        }

        #[inline(always)]
        fn mask_bits(self, mask: Self::M) -> u16 {
            // SAFETY: the token proves the instructions; arrays are as long as a vector.
            unsafe { (_mm256_movemask_ps(mask[0]) | _mm256_movemask_ps(mask[1]) << 8) as u16 }
        }

        #[inline(always)]
        fn fetch(self, place: &[f32; LANES], ahead: usize) {
            // SAFETY: to fetch what is not there does nothing.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(place.as_ptr().wrapping_byte_add(ahead).cast()) }
        }
    }
}
