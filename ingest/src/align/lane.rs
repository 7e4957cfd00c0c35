//! One lane: rows of one series that must be judged in the order of their keys, and when each closes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use trainwarden_telemetry::Observation;

/// What a closed row gives, and the log time of its first cell: its place in the order of judging.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Placed {
    pub(crate) at: i64,
    pub(crate) seen: Observation,
}

/// When a row was opened and how long it may stay open, in log time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wait {
    pub(crate) opened_at: i64,
    pub(crate) deadline: i64,
}

/// A row that still takes cells.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct OpenRow<T> {
    /// Log time of its first cell.
    pub(crate) opened_at: i64,
    /// Log time at which it closes whatever is missing.
    pub(crate) due: i64,
    /// How long that is after its first cell; told when it closes.
    pub(crate) waited: i64,
    /// Log time at which its last expected cell came; `None` while one is missing or nobody knows which are expected.
    pub(crate) complete_at: Option<i64>,
    /// What came so far.
    pub(crate) cells: T,
}

/// Rows by key (step, sequence number or time), and the rule by which they close.
///
/// A row closes at its deadline, or as soon as it is complete and follows the last closed row at the lane's usual
/// distance; a complete row after a gap waits, because what belongs into the gap may only be late. A closing row takes
/// all rows with smaller keys along, so keys never descend; what comes later for them is late.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Lane<T> {
    pub(crate) rows: BTreeMap<u64, OpenRow<T>>,
    last_closed: Option<u64>,
    interval: Option<u64>,
    closed_at: i64,
    earliest_due: i64,
    earliest_opening: i64,
    latest_opening: i64,
}

impl<T> Default for Lane<T> {
    fn default() -> Self {
        Self {
            rows: BTreeMap::new(),
            last_closed: None,
            interval: None,
            closed_at: i64::MIN,
            earliest_due: i64::MAX,
            earliest_opening: i64::MAX,
            latest_opening: i64::MIN,
        }
    }
}

impl<T> Lane<T> {
    /// True when the row of this key was judged already.
    pub(crate) fn is_closed(&self, key: u64) -> bool {
        self.last_closed.is_some_and(|last| key <= last)
    }

    /// Opens a row, or gives the open one.
    pub(crate) fn open(&mut self, key: u64, wait: Wait, cells: impl FnOnce() -> T) -> &mut OpenRow<T> {
        let due = wait.opened_at.saturating_add(wait.deadline);
        self.rows.entry(key).or_insert_with(|| {
            self.earliest_due = self.earliest_due.min(due);
            self.earliest_opening = self.earliest_opening.min(wait.opened_at);
            OpenRow { opened_at: wait.opened_at, due, waited: 0, complete_at: None, cells: cells() }
        })
    }

    /// Log time after which the next row closes; `None` when no row is open.
    pub(crate) fn closes_at(&self) -> Option<i64> {
        let (key, row) = self.rows.first_key_value()?;
        let complete = row.complete_at.filter(|_| self.follows(*key)).map(|at| at.max(self.closed_at));
        Some(complete.map_or(self.earliest_due, |at| at.min(self.earliest_due)))
    }

    fn follows(&self, key: u64) -> bool {
        match (self.last_closed, self.interval) {
            (Some(last), Some(interval)) => key - last <= interval,
            _ => false,
        }
    }

    /// Log time of the first cell of the row that was opened first; `None` when no row is open.
    pub(crate) fn opened_at(&self) -> Option<i64> {
        (!self.rows.is_empty()).then_some(self.earliest_opening)
    }

    /// Closes what [`closes_at`](Self::closes_at) announced; rows come in the order of their keys.
    pub(crate) fn close(&mut self) -> Vec<(u64, OpenRow<T>)> {
        let Some(at) = self.closes_at() else { return Vec::new() };
        let due = self.rows.iter().find(|(_, row)| row.due <= at).map(|(key, _)| *key);
        let through = match (due, self.rows.first_key_value()) {
            (Some(due), _) => due,
            (None, Some((first, _))) => *first,
            (None, None) => return Vec::new(),
        };
        self.close_through(through, at)
    }

    /// Closes the row of the smallest key, whatever its deadline.
    pub(crate) fn close_first(&mut self, at: i64) -> Vec<(u64, OpenRow<T>)> {
        let Some(first) = self.rows.first_key_value().map(|(key, _)| *key) else { return Vec::new() };
        self.close_through(first, at)
    }

    fn close_through(&mut self, through: u64, at: i64) -> Vec<(u64, OpenRow<T>)> {
        let later = through.checked_add(1).map(|next| self.rows.split_off(&next)).unwrap_or_default();
        let closing = std::mem::replace(&mut self.rows, later);
        let mut closed = Vec::with_capacity(closing.len());
        for (key, mut row) in closing {
            self.interval = self.last_closed.map(|last| key - last);
            self.last_closed = Some(key);
            // A row that came out of order is judged after the one before it, not at the time it was opened.
            self.latest_opening = self.latest_opening.max(row.opened_at);
            row.waited = row.due.saturating_sub(row.opened_at);
            row.opened_at = self.latest_opening;
            closed.push((key, row));
        }
        self.closed_at = self.closed_at.max(at);
        self.earliest_due = self.rows.values().map(|row| row.due).min().unwrap_or(i64::MAX);
        self.earliest_opening = self.rows.values().map(|row| row.opened_at).min().unwrap_or(i64::MAX);
        closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(due: i64) -> Wait {
        Wait { opened_at: 0, deadline: due }
    }

    fn keys(closed: &[(u64, OpenRow<()>)]) -> Vec<u64> {
        closed.iter().map(|(key, _)| *key).collect()
    }

    #[test]
    fn a_row_closes_at_its_deadline_and_takes_smaller_keys_along() {
        let mut lane = Lane::default();
        lane.open(7, wait(100), || ());
        lane.open(5, wait(120), || ());
        lane.open(9, wait(130), || ());
        assert_eq!(lane.closes_at(), Some(100));
        assert_eq!(keys(&lane.close()), [5, 7]);
        assert!(lane.is_closed(6) && !lane.is_closed(8));
        assert_eq!(lane.closes_at(), Some(130));
    }

    #[test]
    fn a_complete_row_closes_at_once_after_the_usual_interval_and_waits_after_a_gap() {
        let mut lane = Lane::default();
        for key in [1, 2] {
            lane.open(key, wait(50), || ()).complete_at = Some(10);
        }
        assert_eq!(lane.closes_at(), Some(50), "no interval is known yet");
        assert_eq!(keys(&lane.close()), [1]);
        assert_eq!(keys(&lane.close()), [2]);
        lane.open(3, wait(200), || ()).complete_at = Some(60);
        assert_eq!(lane.closes_at(), Some(60));
        assert_eq!(keys(&lane.close()), [3]);
        lane.open(5, wait(300), || ()).complete_at = Some(70);
        assert_eq!(lane.closes_at(), Some(300), "4 may only be late");
        lane.open(4, wait(310), || ()).complete_at = Some(75);
        assert_eq!(lane.closes_at(), Some(75));
        assert_eq!(keys(&lane.close()), [4]);
        assert_eq!(lane.closes_at(), Some(75), "5 follows now");
    }
}
