//! The numbers of one step, brought together from the metrics that tell them, in whatever order those come.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use trainwarden_telemetry::{Label, Metric, Step};

use super::WAIT_ROWS;

/// What is brought together: product, norm of the update, norm of the gradient, learning rate.
pub(super) const METRICS: [&str; 4] = ["update_dot_grad", "update_norm", "grad_norm", "learning_rate"];

/// The numbers of one step; `None` = not told; a value that is not finite was told.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) step: Step,
    pub(super) label: Label,
    values: [Option<f64>; 4],
}

impl Row {
    /// Product of update and gradient.
    pub(super) fn product(&self) -> Option<f64> {
        self.values[0].filter(|product| product.is_finite())
    }

    /// Norm of the update, zero included.
    pub(super) fn update(&self) -> Option<f64> {
        self.values[1].filter(|norm| norm.is_finite() && *norm >= 0.0)
    }

    /// Norm of the gradient where it is above zero.
    pub(super) fn gradient(&self) -> Option<f64> {
        self.values[2].filter(|norm| norm.is_finite() && *norm > 0.0)
    }

    /// Learning rate where it is above zero.
    pub(super) fn rate(&self) -> Option<f64> {
        self.values[3].filter(|rate| rate.is_finite() && *rate > 0.0)
    }
}

/// Rows that wait for their numbers.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Rows {
    waiting: VecDeque<Row>,
    /// Whether the first series of each metric is of the whole run; `None` = the metric was not seen.
    sources: [Option<bool>; 4],
    released: Option<Step>,
}

impl Rows {
    /// Takes in a value; gives the rows that are complete now or have waited enough, in the order of their steps.
    pub(super) fn take(&mut self, metric: &Metric, is_whole_run: bool, label: Label, value: f64) -> Vec<Row> {
        let place = METRICS.iter().position(|name| *name == metric.as_str());
        let (Some(place), Some(step)) = (place, label.step) else { return Vec::new() };
        if *self.sources[place].get_or_insert(is_whole_run) != is_whole_run || self.released >= Some(step) {
            return Vec::new();
        }
        let at = self.waiting.partition_point(|row| row.step < step);
        if self.waiting.get(at).is_none_or(|row| row.step != step) {
            self.waiting.insert(at, Row { step, label, values: [None; 4] });
        }
        self.waiting[at].values[place] = Some(value);
        let mut ready = Vec::new();
        if self.released.is_none() && self.waiting.len() == 1 {
            // What else the run logs is known once a second row has begun.
            return ready;
        }
        while let Some(row) = self.waiting.pop_front_if(|row| is_complete(row, &self.sources)) {
            ready.push(row);
        }
        if self.waiting.len() > WAIT_ROWS {
            ready.extend(self.waiting.pop_front());
        }
        self.released = ready.last().map(|row| row.step).or(self.released);
        ready
    }
}

fn is_complete(row: &Row, sources: &[Option<bool>; 4]) -> bool {
    row.values.iter().zip(sources).all(|(value, source)| value.is_some() || source.is_none())
}
