//! Robust statistics of one series in double precision.

/// Median of the values that are not NaN; `None` of none. Of an even count, the mean of the two middle values.
#[must_use]
pub fn median(values: &[f64]) -> Option<f64> {
    median_in_place(&mut values.to_vec())
}

/// As [`median`], reordering its argument and allocating nothing.
#[must_use]
pub fn median_in_place(values: &mut [f64]) -> Option<f64> {
    let mut count = values.len();
    let mut at = 0;
    while at < count {
        if values[at].is_nan() {
            count -= 1;
            values.swap(at, count);
        } else {
            at += 1;
        }
    }
    let values = &mut values[..count];
    if values.is_empty() {
        return None;
    }
    let half = count / 2;
    let (below, upper, _) = values.select_nth_unstable_by(half, f64::total_cmp);
    if count % 2 == 1 {
        return Some(*upper);
    }
    let lower = below.iter().copied().max_by(f64::total_cmp)?;
    Some(if lower == *upper { lower } else { 0.5 * lower + 0.5 * *upper })
}

/// Unscaled median absolute deviation of `values` from `center`, in their unit; `None` of none.
#[must_use]
pub fn mad(values: &[f64], center: f64) -> Option<f64> {
    let mut distances: Vec<f64> = values.iter().map(|value| (value - center).abs()).collect();
    median_in_place(&mut distances)
}

/// The value below which the fraction `q` (0 to 1) lies, linearly interpolated; NaN is skipped; `None` of none.
///
/// Source: Hyndman and Fan, "Sample Quantiles in Statistical Packages", type 7 (1996).
#[must_use]
pub fn quantile(values: &[f64], q: f64) -> Option<f64> {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|value| !value.is_nan()).collect();
    sorted.sort_unstable_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    let place = q.clamp(0.0, 1.0) * last as f64;
    let (low, high) = (place.floor() as usize, place.ceil() as usize);
    Some(sorted[low] + (place - low as f64) * (sorted[high] - sorted[low]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_skip_nan_and_average_the_middle_of_an_even_count() {
        assert_eq!(median(&[3.0, f64::NAN, 1.0]), Some(2.0));
        assert_eq!(median(&[5.0, 1.0, 9.0]), Some(5.0));
        assert_eq!(median(&[f64::NAN]), None);
        assert_eq!(mad(&[1.0, 2.0, 4.0], 2.0), Some(1.0));
    }

    #[test]
    fn quantiles_interpolate_between_neighbours() {
        assert_eq!(quantile(&[4.0, 1.0, 2.0, 3.0], 0.5), Some(2.5));
        assert_eq!(quantile(&[4.0, 1.0], 1.0), Some(4.0));
        assert_eq!(quantile(&[], 0.5), None);
    }
}
