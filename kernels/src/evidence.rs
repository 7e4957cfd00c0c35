//! Sequential evidence: e-processes in natural logarithms.

/// One step of the log-likelihood ratio of "shifted by `shift`" against "not shifted", for a value in units of its
/// standard deviation; for Gaussian `z` with mean at most zero its exponential has an expected value of at most one.
///
/// * `z`: deviation from the edge of what is allowed, in standard deviations.
/// * `shift`: size of the alternative, in the same unit, above zero.
/// * Returns nats.
///
/// Source: Wald, "Sequential Analysis" (1947).
#[must_use]
#[inline]
pub fn shift_evidence(z: f32, shift: f32) -> f32 {
    shift * z - 0.5 * shift * shift
}

/// One step of the log-likelihood ratio of a Bernoulli trial: rate `alternative` against rate `null`, both in (0, 1).
///
/// Returns nats. Its exponential has an expected value of one at the null rate, and at most one below it where
/// `alternative` is above `null`.
#[must_use]
pub fn trial_evidence(hit: bool, null: f64, alternative: f64) -> f64 {
    if hit { (alternative / null).ln() } else { ((1.0 - alternative) / (1.0 - null)).ln() }
}

/// The log-likelihood ratio of `count` events of a Poisson process where `expected` were expected, against `factor`
/// times as many. Returns nats.
#[must_use]
pub fn count_evidence(count: f64, expected: f64, factor: f64) -> f64 {
    count * factor.ln() - expected * (factor - 1.0)
}

/// The chance of `count` or more events of a Poisson process where `expected` are expected, at most: Chernoff's bound.
/// 1 where so many are no surprise (`count` is not above `expected`).
///
/// Source: Mitzenmacher and Upfal, "Probability and Computing" (2005), theorem 5.4.
#[must_use]
pub fn count_tail(count: u64, expected: f64) -> f64 {
    let count = count as f64;
    if count <= expected {
        return 1.0;
    }
    (count - expected - count * (count / expected).ln()).exp()
}

/// Decimal logarithm of the e-value of one departure `size`, where nine of ten are below `q90` and 99 of 100 below
/// `q99` with nothing wrong: beyond them the tail is taken as exponential, and the p-value `p` is turned into the
/// e-value `0.5 / sqrt(p)`, whose expected value is at most one.
///
/// Source: Vovk and Wang, "E-values: Calibration, combination and applications", Annals of Statistics 49 (2021).
#[must_use]
pub fn tail_evidence(size: f32, q90: f32, q99: f32) -> f64 {
    let decade = f64::from(q99 - q90);
    if size <= q99 || decade <= 0.0 {
        return 0.0;
    }
    0.5 * (2.0 + f64::from(size - q99) / decade) + 0.5_f64.log10()
}

/// Lag-one correlation of a series about its own mean, corrected for the bias of a short one, 0 to 0.95.
///
/// NaN cells break the chain. Source: Kendall, "Note on bias in the estimation of autocorrelation", Biometrika 41 (1954).
#[must_use]
pub fn lag_one_correlation(series: &[f32]) -> f32 {
    let present: Vec<f64> = series.iter().filter(|value| !value.is_nan()).map(|value| f64::from(*value)).collect();
    if present.len() < 4 {
        return 0.0;
    }
    let count = present.len() as f64;
    let mean = present.iter().sum::<f64>() / count;
    let power: f64 = present.iter().map(|value| (value - mean) * (value - mean)).sum();
    let chain: f64 = series
        .windows(2)
        .map(|pair| (f64::from(pair[0]) - mean) * (f64::from(pair[1]) - mean))
        .filter(|product| !product.is_nan())
        .sum();
    if power <= 0.0 {
        return 0.0;
    }
    let raw = chain / power;
    (raw + (1.0 + 3.0 * raw) / count).clamp(0.0, 0.95) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shift_of_its_own_size_is_evidence_and_none_is_counter_evidence() {
        assert_eq!(shift_evidence(3.0, 3.0), 4.5);
        assert_eq!(shift_evidence(0.0, 1.0), -0.5);
    }

    #[test]
    fn evidence_expects_one_under_the_null() {
        let expected = 0.2 * trial_evidence(true, 0.2, 0.6).exp() + 0.8 * trial_evidence(false, 0.2, 0.6).exp();
        assert!((expected - 1.0).abs() < 1e-12);
        let mut expected = 0.0;
        let mut probability = (-2.0_f64).exp();
        for count in 0..100 {
            expected += probability * count_evidence(f64::from(count), 2.0, 3.0).exp();
            probability *= 2.0 / f64::from(count + 1);
        }
        assert!((expected - 1.0).abs() < 1e-9, "{expected}");
    }

    #[test]
    fn the_tail_of_a_count_is_bounded_from_above_and_no_surprise_is_none() {
        // Poisson: P(X >= 1 | 0.1), P(X >= 3 | 1), P(X >= 10 | 4), P(X >= 130 | 100).
        for (count, expected, chance) in
            [(1, 0.1, 0.095_163), (3, 1.0, 0.080_301), (10, 4.0, 0.008_132), (130, 100.0, 0.002_282)]
        {
            let bound = count_tail(count, expected);
            assert!(bound >= chance && bound < 8.0 * chance, "{count} of {expected}: {bound}");
        }
        assert_eq!((count_tail(0, 0.0), count_tail(1, 0.0), count_tail(3, 3.0)), (1.0, 0.0, 1.0));
        assert_eq!(count_tail(1_000_000, 10.0), 0.0);
    }

    #[test]
    fn a_departure_is_evidence_by_the_decades_of_its_tail() {
        assert_eq!(tail_evidence(1.0, 0.5, 1.0), 0.0);
        let log10_p = -6.0;
        assert!((tail_evidence(3.0, 0.5, 1.0) - (0.5 * -log10_p + 0.5_f64.log10())).abs() < 1e-9);
        assert_eq!(tail_evidence(3.0, 1.0, 1.0), 0.0);
    }

    #[test]
    fn correlation_sees_a_slow_wave_and_none_in_alternation() {
        let wave: Vec<f32> = (0..64).map(|at| (at as f32 / 6.0).sin()).collect();
        assert!(lag_one_correlation(&wave) > 0.9);
        let alternating: Vec<f32> = (0..64).map(|at| if at % 2 == 0 { 1.0 } else { -1.0 }).collect();
        assert_eq!(lag_one_correlation(&alternating), 0.0);
        assert_eq!(lag_one_correlation(&[1.0; 8]), 0.0);
        assert_eq!(lag_one_correlation(&[]), 0.0);
    }
}
