//! What every detector against the past needs of one series: rows of the whole run, its recent level and its noise.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use trainwarden_kernels::{MAD_TO_SIGMA, mad, median};
use trainwarden_telemetry::{Label, Panel, Step};

/// Accepted values kept: enough for a level that no single row moves.
const VALUES_MAX: usize = 48;
/// Differences kept for the noise: longer, so that a quiet stretch does not make the next rows look wild.
const DIFFERENCES_MAX: usize = 128;
/// With fewer differences than this, the noise is not known.
const DIFFERENCES_MIN: usize = 8;
/// A log that begins after this step began after its warm-up.
const LATE_START_STEP: u64 = 1_000;
/// Steps of a training from scratch in which the loss may do anything.
const WARM_UP_STEPS: u64 = 100;
/// Rows that must be known of a training from scratch before its past can be held against it.
const ROWS_MIN: u64 = 24;
/// ... and of a log that begins late: its level is settled.
const ROWS_MIN_LATE: u64 = 3;

/// One value of the whole run: the value itself, or the median over ranks where each rank logs its own.
pub(crate) fn whole_run_value(panel: &Panel, row: usize) -> Option<f64> {
    let columns = panel.values.ncols();
    if columns == 1 {
        return panel.value(row, 0).map(f64::from);
    }
    let present: Vec<f64> = (0..columns).filter_map(|column| panel.value(row, column)).map(f64::from).collect();
    median(&present)
}

/// The recent past of one series, without what was found to be out of order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Recent {
    values: VecDeque<f64>,
    differences: VecDeque<f64>,
    intervals: VecDeque<u64>,
    first_step: Option<Step>,
    last_step: Option<Step>,
    rows: u64,
}

/// What the recent past expects of the next row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Expected {
    /// Median of the last values, in the unit of the series.
    pub(crate) level: f64,
    /// Standard deviation of one row about its neighbours, in the unit of the series.
    pub(crate) noise: f64,
    /// False while too few rows are known for `noise` to mean much: it is then the largest difference seen.
    pub(crate) is_settled: bool,
}

impl Recent {
    /// A row came, in order or not.
    pub(crate) fn see(&mut self, label: Label) {
        let Some(step) = label.step else { return };
        self.first_step.get_or_insert(step);
        if let Some(last) = self.last_step {
            push(&mut self.intervals, step.0.saturating_sub(last.0), 16);
        }
        self.last_step = Some(step);
    }

    /// A row was found to be in order.
    pub(crate) fn accept(&mut self, value: f64) {
        if let Some(last) = self.values.back() {
            push(&mut self.differences, value - last, DIFFERENCES_MAX);
        }
        push(&mut self.values, value, VALUES_MAX);
        self.rows += 1;
    }

    /// Begins anew at another level: the noise stays.
    pub(crate) fn settle_at(&mut self, values: &[f64]) {
        self.values.clear();
        self.values.extend(values.iter().skip(values.len().saturating_sub(VALUES_MAX)));
    }

    /// The last accepted values, newest first.
    pub(crate) fn last_values(&self, rows: usize) -> Vec<f64> {
        self.values.iter().rev().take(rows).copied().collect()
    }

    /// True for a log whose first step lies so far in that its warm-up is over.
    pub(crate) fn is_late_start(&self) -> bool {
        self.first_step.is_some_and(|first| first.0 > LATE_START_STEP)
    }

    /// Median steps between rows; 1 while unknown.
    pub(crate) fn interval(&self) -> u64 {
        let mut intervals: Vec<u64> = self.intervals.iter().copied().collect();
        intervals.sort_unstable();
        intervals.get(intervals.len() / 2).copied().unwrap_or(1)
    }

    /// What is expected of the next row, once the warm-up is over and enough rows are known.
    ///
    /// * `level_rows`: over how many of the last rows the level is taken.
    pub(crate) fn expected(&self, level_rows: usize) -> Option<Expected> {
        let is_late = self.is_late_start();
        let is_warm = is_late || self.last_step.is_none_or(|step| step.0 >= WARM_UP_STEPS);
        let least = if is_late { ROWS_MIN_LATE } else { ROWS_MIN };
        if !is_warm || self.rows < least {
            return None;
        }
        let level = median(&self.last_values(level_rows))?;
        let differences: Vec<f64> = self.differences.iter().copied().collect();
        let is_settled = differences.len() >= DIFFERENCES_MIN;
        let noise = match is_settled {
            // Two independent rows: the difference has twice the variance.
            true => mad(&differences, 0.0)? * MAD_TO_SIGMA / std::f64::consts::SQRT_2,
            false => differences.iter().fold(0.0_f64, |largest, difference| largest.max(difference.abs())),
        };
        Some(Expected { level, noise, is_settled })
    }
}

/// Appends to a queue that keeps its newest `most`.
pub(crate) fn push<T>(queue: &mut VecDeque<T>, value: T, most: usize) {
    if queue.len() == most {
        queue.pop_front();
    }
    queue.push_back(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detectors::testing::label;

    fn recent(first_step: u64, values: &[f64]) -> Recent {
        let mut recent = Recent::default();
        for (step, value) in (first_step..).zip(values) {
            recent.see(label(step));
            recent.accept(*value);
        }
        recent
    }

    #[test]
    fn a_training_from_scratch_expects_nothing_in_its_warm_up_and_a_late_log_does_after_three_rows() {
        assert_eq!(recent(0, &[2.0; 90]).expected(16), None);
        assert!(recent(0, &[2.0; 110]).expected(16).is_some());
        assert_eq!(recent(29_020, &[2.0; 2]).expected(16), None);
        let expected = recent(29_020, &[2.0, 2.5, 2.1]).expected(16).expect("three rows of a late log");
        assert_eq!((expected.level, expected.is_settled), (2.1, false));
        assert!((expected.noise - 0.5).abs() < 1e-12);
    }

    #[test]
    fn the_noise_is_that_of_neighbours_and_not_of_the_trend() {
        let falling: Vec<f64> = (0..200).map(|row| 10.0 - 0.01 * f64::from(row) + 0.1 * f64::from(row % 2)).collect();
        let noise = recent(0, &falling).expected(16).expect("200 rows").noise;
        assert!(noise < 0.12, "{noise}: the trend spans 2.0");
    }
}
