//! The slope of a window that no minority of its values can bend.

use crate::cpu::select::select_pair;
use crate::cpu::sift::Measure;
use crate::simd::{Isa, stamped};

/// Buffers of [`slope`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Buffers {
    slopes: Vec<f32>,
    one: Vec<f32>,
    other: Vec<f32>,
    /// `1 / distance`, from distance zero (unused) on.
    reciprocals: Vec<f32>,
}

/// Median of the slopes between all pairs of values of a window of equal steps, unit of the values a step.
///
/// * `window`: oldest first, finite. A window of fewer than two has the slope zero.
/// * Each slope is the difference times the rounded reciprocal of the distance: relative error at most 1.2e-7; the
///   selection among them is exact, of an even number the mean of the two middle ones.
///
/// Cost: `w (w - 1) / 2` slopes, each written once and sifted about 1.5 times: about 1,400 cycles at `w` = 64.
///
/// Source: Sen, "Estimates of the regression coefficient based on Kendall's tau", JASA 63 (1968).
pub(crate) fn slope(isa: Isa, window: &[f32], buffers: &mut Buffers) -> f32 {
    let count = window.len();
    if count < 2 {
        return 0.0;
    }
    let pairs = count * (count - 1) / 2;
    for buffer in [&mut buffers.slopes, &mut buffers.one, &mut buffers.other] {
        if buffer.len() < pairs {
            buffer.resize(pairs, 0.0);
        }
    }
    while buffers.reciprocals.len() < count {
        buffers.reciprocals.push(1.0 / buffers.reciprocals.len() as f32);
    }
    let slopes = &mut buffers.slopes[..pairs];
    fill(isa, window, &buffers.reciprocals, slopes);
    let ranks = [(pairs - 1) / 2, pairs / 2];
    let [lower, upper] = select_pair(isa, slopes, Measure::Value, None, [&mut buffers.one, &mut buffers.other], ranks);
    // Adding zero makes the zeros one.
    if lower == upper { lower + 0.0 } else { 0.5 * lower + 0.5 * upper }
}

stamped! {
    /// Slopes by distance: all pairs one step apart, then two, so that each run is a difference of two slices.
    fn fill(window: &'a [f32], reciprocals: &'a [f32], slopes: &'a mut [f32]) {
        let mut slopes = slopes;
        for distance in 1..window.len() {
            let reciprocal = reciprocals[distance];
            let (run, rest) = slopes.split_at_mut(window.len() - distance);
            for ((slope, early), late) in run.iter_mut().zip(window).zip(&window[distance..]) {
                *slope = (late - early) * reciprocal;
            }
            slopes = rest;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn oracle(window: &[f32]) -> f64 {
        let mut slopes: Vec<f64> = Vec::new();
        for late in 0..window.len() {
            for early in 0..late {
                slopes.push((f64::from(window[late]) - f64::from(window[early])) / (late - early) as f64);
            }
        }
        crate::robust::median(&slopes).unwrap_or(0.0)
    }

    #[test]
    fn a_line_keeps_its_slope_whatever_a_quarter_of_its_points_does() {
        let mut window: Vec<f32> = (0..64).map(|at| at as f32 * 0.5).collect();
        for at in (0..64).step_by(5) {
            window[at] = 1e6;
        }
        assert_eq!(slope(Isa::best(), &window, &mut Buffers::default()), 0.5);
        assert_eq!(slope(Isa::best(), &[1.0], &mut Buffers::default()), 0.0);
    }

    proptest! {
        #[test]
        fn every_set_gives_the_same_bits_and_the_median_of_all_slopes(
            window in prop::collection::vec(prop_oneof![-50.0_f32..50.0, (0_u8..5).prop_map(f32::from)], 0..90),
        ) {
            let plain = slope(Isa::plain(), &window, &mut Buffers::default());
            let expected = oracle(&window);
            prop_assert!((f64::from(plain) - expected).abs() <= 1e-6 * expected.abs() + 1e-5, "{} {}", plain, expected);
            for isa in Isa::all() {
                prop_assert_eq!(slope(isa, &window, &mut Buffers::default()).to_bits(), plain.to_bits());
            }
        }
    }
}
