//! Elementary functions made of additions and multiplications alone, so that every machine gives the same bits.
//!
//! `mul_add` is one rounding on every machine; where a set of instructions has none, the library's is exact too.

use crate::simd::Lanes;

/// `1 / sqrt(x)` for normal positive `x`; relative error at most 3e-7. Of zero a large finite number.
///
/// A first guess from the exponent, then two steps of third order. Source: Moroz et al., "Fast calculation of inverse
/// square root with the use of magic constant", arXiv 1603.04483 (2016); Halley's method.
#[inline(always)]
pub(crate) fn rsqrt<L: Lanes>(l: L, x: L::F) -> L::F {
    let mut y = l.float(l.sub_words(l.splat_word(0x5f37_5a86), l.shift_right::<1>(l.bits(x))));
    for _ in 0..2 {
        // 1 - x y^2, as a fused product with the sign turned.
        let h = l.mul_add(l.mul(x, y), l.sub(l.splat(0.0), y), l.splat(1.0));
        let step = l.mul_add(h, l.splat(0.375), l.splat(0.5));
        y = l.mul_add(l.mul(y, h), step, y);
    }
    y
}

/// Natural logarithm of `1 + q` for `q` at least zero; relative error at most 2e-7 for finite `q`.
///
/// Coefficients: Moshier, Cephes library, `logf` (1992).
#[inline(always)]
pub(crate) fn log1p<L: Lanes>(l: L, q: L::F) -> L::F {
    const SQRT_HALF_BITS: u32 = 0x3f35_04f3;
    const COEFFICIENTS: [f32; 9] = [
        7.037_683_6e-2,
        -1.151_461e-1,
        1.167_699_9e-1,
        -1.242_014_1e-1,
        1.424_932_3e-1,
        -1.666_805_8e-1,
        2.000_071_4e-1,
        -2.499_999_4e-1,
        3.333_333e-1,
    ];
    let t = l.bits(l.add(q, l.splat(1.0)));
    let exponent = l.shift_signed::<23>(l.sub_words(t, l.splat_word(SQRT_HALF_BITS)));
    let mantissa = l.float(l.sub_words(t, l.shift_left::<23>(exponent)));
    // With exponent zero `q` itself is the exact fraction; `t - 1` would have lost its low bits.
    let is_near = l.eq_words(exponent, l.splat_word(0));
    let f = l.select(is_near, q, l.sub(mantissa, l.splat(1.0)));
    let mut polynomial = l.splat(COEFFICIENTS[0]);
    for coefficient in &COEFFICIENTS[1..] {
        polynomial = l.mul_add(polynomial, f, l.splat(*coefficient));
    }
    let square = l.mul(f, f);
    let correction = l.mul_add(l.mul(f, square), polynomial, l.mul(l.splat(-0.5), square));
    l.mul_add(l.signed_to_float(exponent), l.splat(std::f32::consts::LN_2), l.add(f, correction))
}

/// `2^v` for `v` at most zero; relative error at most 2e-7; below 2^-125, and of NaN, it is zero.
///
/// Coefficients: Moshier, Cephes library, `exp2f` (1992).
#[inline(always)]
pub(crate) fn exp2_negative<L: Lanes>(l: L, v: L::F) -> L::F {
    const COEFFICIENTS: [f32; 6] =
        [1.535_336_2e-4, 1.339_887_4e-3, 9.618_437e-3, 5.550_332_4e-2, 2.402_264_8e-1, 6.931_472e-1];
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to a whole number in the low bits
    let is_usual = l.lt(l.splat(-125.0), v);
    let v = l.select(is_usual, v, l.splat(-125.0));
    let shifted = l.add(v, l.splat(ROUND));
    let f = l.sub(v, l.sub(shifted, l.splat(ROUND)));
    let mut polynomial = l.splat(COEFFICIENTS[0]);
    for coefficient in &COEFFICIENTS[1..] {
        polynomial = l.mul_add(polynomial, f, l.splat(*coefficient));
    }
    let fraction = l.mul_add(polynomial, f, l.splat(1.0));
    let scaled = l.float(l.add_words(l.bits(fraction), l.shift_left::<23>(l.bits(shifted))));
    l.select(is_usual, scaled, l.splat(0.0))
}

#[cfg(test)]
mod tests {
    use crate::simd::lanes::Plain;

    fn rsqrt(x: f32) -> f32 {
        super::rsqrt(Plain, [x; 16])[0]
    }

    fn log1p(q: f32) -> f32 {
        super::log1p(Plain, [q; 16])[0]
    }

    fn exp2_negative(v: f32) -> f32 {
        super::exp2_negative(Plain, [v; 16])[0]
    }

    fn relative(ours: f32, theirs: f64) -> f64 {
        (f64::from(ours) / theirs - 1.0).abs()
    }

    #[test]
    fn the_reciprocal_root_is_within_its_error() {
        for at in 0..40_000_u32 {
            let x = f32::from_bits(0x0080_0000 + at * 52_810);
            assert!(relative(rsqrt(x), 1.0 / f64::from(x).sqrt()) < 3e-7, "{x}: {}", rsqrt(x));
        }
        assert!(rsqrt(0.0).is_finite());
    }

    #[test]
    fn the_logarithm_is_within_its_error() {
        for at in 0..40_000_u32 {
            let q = f32::from_bits(0x2000_0000 + at * 35_000);
            assert!(relative(log1p(q), f64::from(q).ln_1p()) < 2e-7, "{q}: {}", log1p(q));
        }
        assert_eq!(log1p(0.0), 0.0);
    }

    #[test]
    fn the_power_is_within_its_error() {
        for at in 0..40_000 {
            let v = -124.9 * (at as f32 / 40_000.0);
            assert!(relative(exp2_negative(v), f64::from(v).exp2()) < 2e-7, "{v}: {}", exp2_negative(v));
        }
        assert_eq!(exp2_negative(0.0), 1.0);
        assert_eq!(exp2_negative(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp2_negative(f32::NAN), 0.0);
    }
}
