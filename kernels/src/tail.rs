//! Evidence of a deviation under a heavy tail.

/// Decimal logarithm of the e-value of a standardised deviation `z` (0 or more), against a heavy-tailed null.
///
/// The null is Student's t with 4 degrees of freedom, one-sided: real step times and losses have tails about so heavy,
/// and a normal tail would call every hard batch a miracle. Its p-value becomes an e-value by the calibrator
/// `e = 1 / (2 sqrt(p))`. A negative or NaN `z` gives no evidence (0).
///
/// Source: Vovk and Wang, "E-values: Calibration, Combination and Applications", Annals of Statistics 49 (2021).
#[must_use]
pub fn heavy_tail_log10_e(z: f64) -> f64 {
    if z.is_nan() || z <= 0.0 {
        return 0.0;
    }
    (-0.5 * heavy_tail_log10_p(z) - 2_f64.log10()).max(0.0)
}

/// Decimal logarithm of the upper tail of Student's t with 4 degrees of freedom at `z` >= 0.
fn heavy_tail_log10_p(z: f64) -> f64 {
    // P(T > z) = (1 - u)^2 (2 + u) / 4 with u = z / sqrt(z^2 + 4); 1 - u without cancellation.
    let root = z.hypot(2.0);
    let rest_log10 = 4_f64.log10() - root.log10() - (root + z).log10();
    2.0 * rest_log10 + ((3.0 - 10_f64.powf(rest_log10)) / 4.0).log10()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_that_of_the_table() {
        // Student's t, 4 degrees of freedom: P(T > 2.132) = 0.05, P(T > 4.604) = 0.005, P(T > 8.610) = 0.0005.
        for (z, p) in [(2.132, 0.05), (4.604, 0.005), (8.610, 0.0005), (0.0, 0.5)] {
            let ours = 10_f64.powf(heavy_tail_log10_p(z));
            assert!((ours / p - 1.0).abs() < 1e-3, "z {z}: {ours} against {p}");
        }
    }

    #[test]
    fn more_deviation_is_more_evidence_and_none_is_none() {
        assert_eq!(heavy_tail_log10_e(-3.0), 0.0);
        assert_eq!(heavy_tail_log10_e(f64::NAN), 0.0);
        assert!(heavy_tail_log10_e(10.0) < heavy_tail_log10_e(20.0));
        assert!(heavy_tail_log10_e(1e300).is_finite());
    }
}
