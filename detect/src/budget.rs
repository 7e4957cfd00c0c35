//! The false-alarm budget: one number a user sets, split over detectors and series by fixed weights.

use serde::{Deserialize, Serialize};

/// Seconds in a week.
const WEEK_S: f64 = 604_800.0;
/// A step of unknown length is taken as one second, the fast end of large runs, so that the budget errs to quiet.
const STEP_S_UNKNOWN: f64 = 1.0;

/// How many incidents of `warning` and above a run may give in a week with nothing wrong.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Budget {
    /// Per run, over all its series; default 1.
    pub false_alarms_per_week: f64,
}

impl Default for Budget {
    fn default() -> Self {
        Self { false_alarms_per_week: 1.0 }
    }
}

impl Budget {
    /// Decimal logarithm of the e-value a sequential test must reach before it may alarm.
    ///
    /// * `weight`: this detector's fixed share of the budget, 0 to 1; all shares of a run sum to at most one.
    /// * `series`: how many series the detector watches side by side; each gets an equal part.
    /// * `row_s`: seconds between rows; `None` = unknown.
    ///
    /// An e-process that restarts after each alarm has a mean time between false alarms of at least its threshold, in
    /// rows (Shin, Ramdas, Rinaldo, "E-detectors", 2022, theorem 2.3): rows a week times series, over the share of the
    /// budget.
    #[must_use]
    pub fn log10_e(&self, weight: f64, series: usize, row_s: Option<f64>) -> f64 {
        let rows_a_week = WEEK_S / row_s.filter(|seconds| *seconds > 0.0).unwrap_or(STEP_S_UNKNOWN);
        (rows_a_week.max(1.0) * series.max(1) as f64 / (self.false_alarms_per_week * weight)).log10()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_series_and_shorter_steps_ask_for_more_evidence() {
        let budget = Budget::default();
        let one = budget.log10_e(0.5, 1, Some(1.0));
        assert!((one - (604_800.0_f64 * 2.0).log10()).abs() < 1e-12);
        assert!((budget.log10_e(0.5, 10, Some(1.0)) - one - 1.0).abs() < 1e-12);
        assert!((budget.log10_e(0.5, 1, Some(0.1)) - one - 1.0).abs() < 1e-12);
        assert_eq!(budget.log10_e(0.5, 1, None), one);
    }
}
