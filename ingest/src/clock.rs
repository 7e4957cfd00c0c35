//! Where rows without a time stand in the log.

use std::collections::BTreeMap;

use crate::NO_U64;
use crate::run_rows::TimedEvent;

/// The times of a run by attempt and step, for its rows that have none.
#[derive(Debug, Default)]
pub(crate) struct TimeIndex {
    steps: BTreeMap<u32, BTreeMap<u64, i64>>,
    /// Earliest and latest time of each attempt.
    spans: BTreeMap<u32, (i64, i64)>,
}

impl TimeIndex {
    /// Learns of a row that has a time.
    pub(crate) fn note(&mut self, attempt: u32, step: u64, time: i64) {
        let span = self.spans.entry(attempt).or_insert((time, time));
        *span = (span.0.min(time), span.1.max(time));
        if step != NO_U64 {
            let latest = self.steps.entry(attempt).or_default().entry(step).or_insert(time);
            *latest = (*latest).max(time);
        }
    }

    /// Makes each step's time the latest up to it, once all rows are known.
    pub(crate) fn close(&mut self) {
        for steps in self.steps.values_mut() {
            let mut latest = i64::MIN;
            for time in steps.values_mut() {
                latest = latest.max(*time);
                *time = latest;
            }
        }
    }

    /// The latest time up to a step of an attempt; before its first one, and for rows without a step, its beginning.
    ///
    /// An attempt without a time stands at the end of the one before, or at the beginning of the run.
    pub(crate) fn log_time(&self, attempt: u32, step: u64) -> i64 {
        let known = || self.steps.get(&attempt)?.range(..=step).next_back().map(|(_, &time)| time);
        if step != NO_U64
            && let Some(time) = known()
        {
            return time;
        }
        if let Some(&(earliest, _)) = self.spans.get(&attempt) {
            return earliest;
        }
        let before = self.spans.range(..attempt).next_back().map(|(_, &(_, latest))| latest);
        before.or_else(|| self.spans.values().next().map(|&(earliest, _)| earliest)).unwrap_or(0)
    }
}

/// Log time of a run without times: steps, counted on over attempts.
#[derive(Debug)]
pub(crate) struct StepClock {
    /// First and last log time of each attempt.
    spans: BTreeMap<u32, (i64, i64)>,
}

impl StepClock {
    /// Learns of a row: `last` holds the last step of each attempt.
    pub(crate) fn note(last: &mut BTreeMap<u32, u64>, attempt: u32, step: u64) {
        let step = if step == NO_U64 { 0 } else { step };
        let known = last.entry(attempt).or_insert(step);
        *known = (*known).max(step);
    }

    /// A clock for attempts whose last steps are given.
    pub(crate) fn new(last: &BTreeMap<u32, u64>) -> Self {
        let mut begin = 0_i64;
        let mut spans = BTreeMap::new();
        for (&attempt, &step) in last {
            let end = begin.saturating_add(i64::try_from(step).unwrap_or(i64::MAX));
            spans.insert(attempt, (begin, end));
            begin = end.saturating_add(1);
        }
        Self { spans }
    }

    /// The place of a step; a row without one stands at the beginning of its attempt.
    pub(crate) fn log_time(&self, attempt: u32, step: u64) -> i64 {
        let begin = self.spans.get(&attempt).map_or(0, |&(begin, _)| begin);
        let step = if step == NO_U64 { 0 } else { step };
        begin.saturating_add(i64::try_from(step).unwrap_or(i64::MAX))
    }

    /// Places events, whose times mean nothing here: what ends a launch behind its last step, all else before its first.
    pub(crate) fn place_events(&self, events: &mut [TimedEvent]) {
        for (log_time, event) in events {
            let ends = matches!(event.kind.as_str(), "run_end" | "process_exit");
            let before = self.spans.range(..=event.attempt.0).next_back();
            let (begin, end) = before.map_or((0, 0), |(_, &span)| span);
            *log_time = if ends { end.saturating_add(1) } else { begin };
        }
    }
}
