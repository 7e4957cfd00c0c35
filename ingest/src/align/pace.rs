//! How fast an attempt steps, and so how long a row may wait.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::limits::{DEADLINE_NS, DEADLINE_STEPS, STEP_DURATIONS_MAX};
use crate::row::LogClock;

/// Median step duration of an attempt in log time.
///
/// New steps take effect when log time moves on, so that rows of equal log time see the same pace in any order.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Pace {
    newest: Option<(u64, i64)>,
    coming: Option<u64>,
    durations: VecDeque<i64>,
    median: Option<i64>,
}

impl Pace {
    /// A row of this step came.
    pub(crate) fn see(&mut self, step: u64) {
        if self.newest.is_none_or(|(newest, _)| step > newest) {
            self.coming = self.coming.max(Some(step));
        }
    }

    /// Log time leaves `now`.
    pub(crate) fn leave(&mut self, now: i64) {
        let Some(step) = self.coming.take() else { return };
        if let Some((newest, at)) = self.newest {
            if self.durations.len() == STEP_DURATIONS_MAX {
                self.durations.pop_front();
            }
            let steps = i64::try_from(step - newest).unwrap_or(i64::MAX);
            self.durations.push_back(now.saturating_sub(at) / steps);
            let mut sorted: Vec<i64> = self.durations.iter().copied().collect();
            sorted.sort_unstable();
            self.median = Some(sorted[sorted.len() / 2]);
        }
        self.newest = Some((step, now));
    }

    /// How long a row is kept open after its first cell, in units of log time.
    pub(crate) fn deadline(&self, clock: LogClock) -> i64 {
        let steps = self.median.unwrap_or(0).saturating_mul(DEADLINE_STEPS);
        match clock {
            LogClock::Nanoseconds => steps.max(DEADLINE_NS),
            LogClock::Steps => steps.max(DEADLINE_STEPS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_run_waits_three_median_steps_and_a_fast_one_ten_seconds() {
        let mut pace = Pace::default();
        assert_eq!(pace.deadline(LogClock::Nanoseconds), DEADLINE_NS);
        for step in 0..5 {
            pace.see(step);
            pace.leave(step as i64 * 60_000_000_000);
        }
        assert_eq!(pace.deadline(LogClock::Nanoseconds), 180_000_000_000);
        assert_eq!(Pace::default().deadline(LogClock::Steps), 3);
    }
}
