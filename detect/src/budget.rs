//! The false-alarm budget: one number a user sets, split over detectors and series by fixed weights.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use trainwarden_telemetry::{Attempt, Label, Timestamp};

use crate::DetectError;

/// Seconds in a week.
const WEEK_S: f64 = 604_800.0;
/// A step of unknown length is taken as one second, the fast end of large runs, so that the budget errs to quiet.
const STEP_S_UNKNOWN: f64 = 1.0;

/// The part of the budget that one detector may spend, and over how much it spreads it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Share {
    /// Its name, as in its [`Spec`](crate::Spec).
    detector: &'static str,
    /// Of the whole budget, 0 to 1.
    part: f64,
    /// Metrics or communicators it watches side by side, each with an equal part. What comes beyond is not judged, and
    /// counted: the promise holds, whatever a log sends.
    watched_max: usize,
}

/// Own work is split into a handful of times; twelve leave room for a site's own.
pub(crate) const STRAGGLER: Share = Share { detector: "straggler", part: 0.24, watched_max: 12 };
/// The same metrics as the straggler's, rarer faults.
pub(crate) const WANDERING_SLEEP: Share = Share { detector: "wandering_sleep", part: 0.12, watched_max: 12 };
/// There are two such metrics.
pub(crate) const GRADIENT_OUTLIER: Share = Share { detector: "gradient_outlier", part: 0.06, watched_max: 2 };
/// There is one local loss.
pub(crate) const DATA_SHIFT: Share = Share { detector: "data_shift", part: 0.06, watched_max: 1 };
/// A device counts errors of its memory and of its bus.
pub(crate) const DEVICE_ERRORS: Share = Share { detector: "device_errors", part: 0.04, watched_max: 2 };
/// A device has two clocks.
pub(crate) const THROTTLE: Share = Share { detector: "throttle", part: 0.06, watched_max: 2 };
/// Whatever else ranks log: a GPU has some forty gauges.
pub(crate) const RANK_OUTLIER: Share = Share { detector: "rank_outlier", part: 0.16, watched_max: 64 };
/// Eight thousand ranks have one to three thousand communicators.
pub(crate) const LATE_ARRIVAL: Share = Share { detector: "late_arrival", part: 0.25, watched_max: 4_096 };

impl Share {
    /// Holds that there is room to watch `key` beside what is watched of its attempt.
    ///
    /// # Errors
    /// When as much is watched as the share was split for.
    pub(crate) fn admit<K: Ord, V>(
        &self,
        watched: &BTreeMap<(Attempt, K), V>,
        key: &(Attempt, K),
    ) -> Result<(), DetectError> {
        let beside = || watched.keys().filter(|(attempt, _)| *attempt == key.0).count();
        if watched.len() < self.watched_max || watched.contains_key(key) || beside() < self.watched_max {
            return Ok(());
        }
        Err(DetectError::Full { detector: self.detector, watched_max: self.watched_max })
    }

    fn each(&self) -> f64 {
        self.part / self.watched_max as f64
    }
}

/// How fast the rows of one series come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cadence {
    /// Rows that had a time.
    rows: u32,
    first: Option<Timestamp>,
    last: Option<Timestamp>,
}

impl Cadence {
    /// A row came.
    pub(crate) fn see(&mut self, label: Label) {
        let Some(time) = label.time else { return };
        self.rows = self.rows.saturating_add(1);
        self.first.get_or_insert(time);
        self.last = Some(time);
    }

    /// Mean seconds between rows so far; `None` while unknown.
    pub(crate) fn row_s(&self) -> Option<f64> {
        let gaps = self.rows.checked_sub(1).filter(|gaps| *gaps > 0)?;
        Some(self.last?.seconds_since(self.first?) / f64::from(gaps))
    }
}

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
    /// * `share`: the detector's fixed share; one metric or communicator of those it may watch gets an equal part.
    /// * `series`: how many ranks are judged side by side in it; each gets an equal part of that.
    /// * `row_s`: seconds between rows; `None` = unknown.
    ///
    /// An e-process that restarts after each alarm has a mean time between false alarms of at least its threshold, in
    /// rows (Shin, Ramdas, Rinaldo, "E-detectors", 2022, theorem 2.3): rows a week times series, over the share of the
    /// budget.
    #[must_use]
    pub(crate) fn log10_e(&self, share: &Share, series: usize, row_s: Option<f64>) -> f64 {
        let rows_a_week = WEEK_S / row_s.filter(|seconds| *seconds > 0.0).unwrap_or(STEP_S_UNKNOWN);
        (rows_a_week.max(1.0) * series.max(1) as f64 / (self.false_alarms_per_week * share.each())).log10()
    }
}

#[cfg(test)]
mod tests {
    use trainwarden_telemetry::Metric;

    use super::*;

    const HALF: Share = Share { detector: "test", part: 0.5, watched_max: 1 };
    const ALL: [Share; 8] =
        [STRAGGLER, WANDERING_SLEEP, GRADIENT_OUTLIER, DATA_SHIFT, DEVICE_ERRORS, THROTTLE, RANK_OUTLIER, LATE_ARRIVAL];

    #[test]
    fn all_shares_together_are_no_more_than_the_budget() {
        assert!(ALL.iter().map(|share| share.part).sum::<f64>() <= 1.0);
        let names: Vec<&str> = crate::DetectorKind::ALL.iter().map(|kind| kind.build().spec().name).collect();
        assert!(ALL.iter().all(|share| names.contains(&share.detector) && share.watched_max > 0));
    }

    #[test]
    fn what_is_watched_beyond_the_share_is_refused_and_what_was_watched_goes_on() {
        let key = |attempt, name: &str| (Attempt(attempt), Metric::new(name));
        let watched = BTreeMap::from([(key(0, "a"), ())]);
        assert!(HALF.admit(&watched, &key(0, "a")).is_ok());
        assert!(HALF.admit(&watched, &key(0, "b")).is_err());
        assert!(HALF.admit(&watched, &key(1, "b")).is_ok(), "another launch");
    }

    #[test]
    fn a_cadence_is_the_mean_time_between_rows() {
        let mut cadence = Cadence::default();
        for (time, expected) in [(Some(0), None), (None, None), (Some(4), Some(4.0)), (Some(5), Some(2.5))] {
            cadence.see(Label { step: None, time: time.map(|seconds: i64| Timestamp(seconds * 1_000_000_000)) });
            assert_eq!(cadence.row_s(), expected);
        }
    }

    #[test]
    fn more_series_and_shorter_steps_ask_for_more_evidence() {
        let budget = Budget::default();
        let one = budget.log10_e(&HALF, 1, Some(1.0));
        assert!((one - (604_800.0_f64 * 2.0).log10()).abs() < 1e-12);
        assert!((budget.log10_e(&HALF, 10, Some(1.0)) - one - 1.0).abs() < 1e-12);
        assert!((budget.log10_e(&HALF, 1, Some(0.1)) - one - 1.0).abs() < 1e-12);
        assert_eq!(budget.log10_e(&HALF, 1, None), one);
    }
}
