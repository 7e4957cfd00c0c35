//! The work of each step beside its time, whichever of the two arrives first.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use trainwarden_telemetry::{Label, Metric, Step};

use crate::series::push;

/// Rows that wait for their work, and rows of work kept for their times. Both come row by row in step order, so a few
/// suffice; a log that tells the work every fiftieth row is served too.
const ROWS_MAX: usize = 64;

/// Growth of a total, as a part of it, that single precision still tells to a percent.
const GROWTH_MIN: f64 = 1e-5;

/// A row's label, whether it is of the whole run, and the logarithm of its time over the relative work.
pub(crate) type Cost = (Label, bool, f64);

/// The work of an attempt, relative to its first.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Work {
    /// The metric that tells; the first one seen.
    metric: Option<Metric>,
    last_step: Option<Step>,
    last_value: Option<f64>,
    /// True once a row was not above the row before: the metric is the work of a step and not a running total.
    is_of_a_step: bool,
    /// Logarithm of the first work of a step.
    first: Option<f64>,
    /// Step and logarithm of the work relative to the first.
    known: VecDeque<(Step, f64)>,
    waiting: VecDeque<Cost>,
}

impl Work {
    /// True when the work of some step was told.
    pub(crate) fn is_known(&self) -> bool {
        !self.known.is_empty()
    }

    /// Takes the logarithm of a step's time; returns the rows whose work is now known or given up.
    pub(crate) fn cost(&mut self, label: Label, is_whole_run: bool, time: f64) -> Vec<Cost> {
        let Some(step) = label.step.filter(|_| self.is_known()) else { return vec![(label, is_whole_run, time)] };
        self.waiting.push_back((label, is_whole_run, time));
        let limit = if self.waiting.len() > ROWS_MAX { step } else { self.last_step.unwrap_or(Step(0)) };
        self.release(limit)
    }

    /// Takes the work done: in one step, or since the row before for a counter.
    pub(crate) fn done(&mut self, metric: &Metric, label: Label, value: f64) -> Vec<Cost> {
        let Some(step) = label.step else { return Vec::new() };
        if self.metric.get_or_insert_with(|| metric.clone()) != metric {
            return Vec::new();
        }
        let steps = self.last_step.replace(step).map(|Step(last)| step.0.saturating_sub(last));
        let done = if metric.is_counter() { Some(value) } else { self.done_since(value) };
        let Some(done) = done else { return Vec::new() };
        // The first growth of a total spans an interval that is not known: the next row tells.
        let steps = if self.is_of_a_step { 1 } else { steps.unwrap_or(0) };
        let work = (done / steps as f64).ln();
        if work.is_finite() {
            let first = *self.first.get_or_insert(work);
            push(&mut self.known, (step, work - first), ROWS_MAX);
        }
        if self.is_known() { self.release(step) } else { Vec::new() }
    }

    /// The work told by a metric that is no counter by name: some log the tokens of the step, some all tokens so far.
    fn done_since(&mut self, value: f64) -> Option<f64> {
        if self.is_of_a_step {
            return Some(value);
        }
        let last = self.last_value.replace(value)?;
        if value > last {
            // Panels round to single precision: a small growth of a large total is mostly rounding.
            return Some(value - last).filter(|growth| *growth > GROWTH_MIN * value);
        }
        self.is_of_a_step = true;
        self.first = None;
        self.known.clear();
        Some(value)
    }

    fn release(&mut self, until: Step) -> Vec<Cost> {
        let mut ready = Vec::new();
        while let Some((label, is_whole_run, time)) = self.waiting.pop_front_if(|row| row.0.step <= Some(until)) {
            let told = self.known.iter().rev().find(|(step, _)| Some(*step) <= label.step);
            let work = told.or(self.known.front()).map_or(0.0, |(_, work)| *work);
            ready.push((label, is_whole_run, time - work));
        }
        ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detectors::testing::label;

    #[test]
    fn tokens_of_each_step_and_tokens_so_far_tell_the_same_work() {
        let tokens = Metric::new("tokens");
        let (mut each, mut total) = (Work::default(), Work::default());
        let mut sum = 0.0;
        for step in 1..20 {
            let count = if step < 10 { 512.0 } else { 1024.0 };
            sum += count;
            each.done(&tokens, label(step), count);
            total.done(&tokens, label(step), sum);
        }
        assert_eq!(each.known.back(), total.known.back());
        let (_, work) = each.known.back().expect("twenty steps were told");
        assert!((work - 2.0_f64.ln()).abs() < 1e-12, "{work}");
    }

    #[test]
    fn a_counter_is_divided_by_the_steps_between_and_a_time_waits_for_its_work() {
        let mut work = Work::default();
        let total = Metric::new("samples_total");
        assert_eq!(work.done(&total, label(32), 320.0), []);
        assert_eq!(work.cost(label(64), true, 1.0), [(label(64), true, 1.0)]);
        assert_eq!(work.done(&total, label(64), 320.0), []);
        assert_eq!(work.cost(label(96), true, 1.0), []);
        let ready = work.done(&total, label(96), 640.0);
        assert_eq!((ready.len(), ready[0].0), (1, label(96)));
        assert!((ready[0].2 - (1.0 - 2.0_f64.ln())).abs() < 1e-12, "{ready:?}");
        assert_eq!(work.done(&Metric::new("tokens"), label(96), 1.0), []);
    }
}
