//! One metric of one attempt, aligned: rows are steps, columns are ranks.

use std::sync::Arc;

use ndarray::Array2;
use serde::{Deserialize, Serialize};

use crate::{Attempt, Metric, Rank, Step, Timestamp};

/// What a row is called: its step, and the median over ranks of the senders' times. At least one is present.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Label {
    /// Optimizer step; `None` in a series that has times only.
    pub step: Option<Step>,
    /// Median over the present ranks of the rows' `time`; `None` where no row has one.
    pub time: Option<Timestamp>,
}

/// One metric of one attempt, aligned.
///
/// * `values`, `present`, `clocks`: [rows, ranks]; a whole-run metric has one column and no ranks.
/// * `present` says which cells arrived. A NaN that is present was logged.
/// * Counters (`_total`) hold the difference from the same rank's row before; the first has none and is absent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Panel {
    /// The launch all rows belong to.
    pub attempt: Attempt,
    /// What was measured; the unit is in the name.
    pub metric: Metric,
    /// Label of each row, steps never descending.
    pub labels: Vec<Label>,
    /// Label of each column, ascending; empty for a whole-run metric.
    pub ranks: Arc<[Rank]>,
    /// Measured values, rounded to single precision.
    pub values: Array2<f32>,
    /// Which cells arrived before the row was closed.
    pub present: Array2<bool>,
    /// The sender's time of each cell in nanoseconds; `i64::MIN` where it sent none.
    pub clocks: Array2<i64>,
    /// How long after its first cell a row was kept open, in nanoseconds; `None` where the log has no times.
    pub deadline_ns: Option<i64>,
}

impl Panel {
    /// True when the metric has no rank: one value a row for the whole run.
    #[must_use]
    pub fn is_whole_run(&self) -> bool {
        self.ranks.is_empty()
    }

    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.labels.len()
    }

    /// The rank a column stands for; `None` in a whole-run metric.
    #[must_use]
    pub fn rank(&self, column: usize) -> Option<Rank> {
        self.ranks.get(column).copied()
    }

    /// The value of a cell if it arrived.
    #[must_use]
    pub fn value(&self, row: usize, column: usize) -> Option<f32> {
        self.present[[row, column]].then(|| self.values[[row, column]])
    }

    /// The sender's time of a cell if it arrived with one.
    #[must_use]
    pub fn clock(&self, row: usize, column: usize) -> Option<Timestamp> {
        let clock = self.clocks[[row, column]];
        (clock != i64::MIN).then_some(Timestamp(clock))
    }
}
