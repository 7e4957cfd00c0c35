//! Elementary functions made of additions and multiplications alone, so that every machine gives the same bits.
//!
//! `mul_add` is one rounding on every machine; where a set of instructions has none, the library's is exact too.

use crate::simd::Lanes;

/// The same operation on several vectors, side by side, so that one's arithmetic fills the waits of the others'. A loop,
/// because the library's functions on arrays are not compiled for the set of instructions.
macro_rules! side_by_side {
    ($n:ident: $first:expr, $value:expr) => {{
        let mut vectors = [$first; N];
        for $n in 0..N {
            vectors[$n] = $value;
        }
        vectors
    }};
}
pub(crate) use side_by_side;

/// `1 / sqrt(x)` for normal positive `x`; relative error at most 3e-7. Of zero a large finite number.
///
/// A first guess from the exponent, then two steps of third order. Source: Moroz et al., "Fast calculation of inverse
/// square root with the use of magic constant", arXiv 1603.04483 (2016); Halley's method.
#[inline(always)]
pub(crate) fn rsqrt<L: Lanes, const N: usize>(l: L, x: [L::F; N]) -> [L::F; N] {
    let zero = l.splat(0.0);
    let magic = l.splat_word(0x5f37_5a86);
    let mut y = side_by_side!(n: zero, l.float(l.sub_words(magic, l.shift_right::<1>(l.bits(x[n])))));
    for _ in 0..2 {
        // x y^2 - 1; both signs turned, the step is that of 1 - x y^2.
        let product = side_by_side!(n: zero, l.mul(x[n], y[n]));
        let h = side_by_side!(n: zero, l.mul_add(product[n], y[n], l.splat(-1.0)));
        let step = side_by_side!(n: zero, l.mul_add(h[n], l.splat(0.375), l.splat(-0.5)));
        let scaled = side_by_side!(n: zero, l.mul(y[n], h[n]));
        y = side_by_side!(n: zero, l.mul_add(scaled[n], step[n], y[n]));
    }
    y
}

/// `c[0] x^n + c[1] x^(n-1) + ...`, by Horner's rule.
#[inline(always)]
fn polynomial<L: Lanes, const N: usize>(l: L, x: [L::F; N], coefficients: &[f32]) -> [L::F; N] {
    let zero = l.splat(0.0);
    let mut sum = [l.splat(coefficients[0]); N];
    for coefficient in &coefficients[1..] {
        sum = side_by_side!(n: zero, l.mul_add(sum[n], x[n], l.splat(*coefficient)));
    }
    sum
}

/// Natural logarithm of `1 + q` for `q` at least zero; relative error at most 2e-7 for finite `q`.
///
/// Coefficients: Moshier, Cephes library, `logf` (1992).
#[inline(always)]
pub(crate) fn log1p<L: Lanes, const N: usize>(l: L, q: [L::F; N]) -> [L::F; N] {
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
    let (zero, none) = (l.splat(0.0), l.splat_word(0));
    let t = side_by_side!(n: none, l.bits(l.add(q[n], l.splat(1.0))));
    let exponent = side_by_side!(n: none, l.shift_signed::<23>(l.sub_words(t[n], l.splat_word(SQRT_HALF_BITS))));
    let mantissa = side_by_side!(n: zero, l.float(l.sub_words(t[n], l.shift_left::<23>(exponent[n]))));
    // With exponent zero `q` itself is the exact fraction; `t - 1` would have lost its low bits.
    let f = side_by_side!(n: zero, l.select(l.eq_words(exponent[n], none), q[n], l.sub(mantissa[n], l.splat(1.0))));
    let polynomial = polynomial(l, f, &COEFFICIENTS);
    let square = side_by_side!(n: zero, l.mul(f[n], f[n]));
    let cube = side_by_side!(n: zero, l.mul(f[n], square[n]));
    let correction = side_by_side!(n: zero, l.mul_add(cube[n], polynomial[n], l.mul(l.splat(-0.5), square[n])));
    let small = side_by_side!(n: zero, l.add(f[n], correction[n]));
    side_by_side!(n: zero, l.mul_add(l.signed_to_float(exponent[n]), l.splat(std::f32::consts::LN_2), small[n]))
}

/// `2^v` for `v` at most zero; relative error at most 2e-7; below 2^-125, and of NaN, it is zero.
///
/// Coefficients: Moshier, Cephes library, `exp2f` (1992).
#[inline(always)]
pub(crate) fn exp2_negative<L: Lanes, const N: usize>(l: L, v: [L::F; N]) -> [L::F; N] {
    const COEFFICIENTS: [f32; 6] =
        [1.535_336_2e-4, 1.339_887_4e-3, 9.618_437e-3, 5.550_332_4e-2, 2.402_264_8e-1, 6.931_472e-1];
    const ROUND: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to a whole number in the low bits
    let zero = l.splat(0.0);
    // What comes of any other `v` is thrown away at the end.
    let shifted = side_by_side!(n: zero, l.add(v[n], l.splat(ROUND)));
    let f = side_by_side!(n: zero, l.sub(v[n], l.sub(shifted[n], l.splat(ROUND))));
    let polynomial = polynomial(l, f, &COEFFICIENTS);
    let fraction = side_by_side!(n: zero, l.mul_add(polynomial[n], f[n], l.splat(1.0)));
    let scaled =
        side_by_side!(n: zero, l.float(l.add_words(l.bits(fraction[n]), l.shift_left::<23>(l.bits(shifted[n])))));
    side_by_side!(n: zero, l.select(l.lt(l.splat(-125.0), v[n]), scaled[n], l.splat(0.0)))
}

#[cfg(test)]
mod tests {
    use crate::simd::lanes::Plain;

    fn rsqrt(x: f32) -> f32 {
        super::rsqrt(Plain, [[x; 16]])[0][0]
    }

    fn log1p(q: f32) -> f32 {
        super::log1p(Plain, [[q; 16]])[0][0]
    }

    fn exp2_negative(v: f32) -> f32 {
        super::exp2_negative(Plain, [[v; 16]])[0][0]
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
