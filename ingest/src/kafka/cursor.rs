//! Where the reading of one partition stands.

use std::time::{Duration, Instant};

use super::membership::Trouble;
use super::queue::Turn;
use crate::limits::{STALL_DOUBLINGS_MAX, STALL_SILENT_MS, STALL_TROUBLED_MS};

/// What the reading thread does with a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Assigned; the caller has not begun it.
    Idle,
    /// To be read from an offset on, once the brokers answer.
    Seeking { offset: u64, not_before: Instant },
    /// Records come.
    Reading,
    /// A record came behind a gap that may be an unreadable batch: a prober looks at it, and nothing is handed on.
    Held,
}

/// Where the reading of one partition stands.
#[derive(Debug)]
pub(super) struct Cursor {
    pub(super) turn: Turn,
    pub(super) phase: Phase,
    /// The offset that comes next, unless the log has a mark of its own there.
    pub(super) expected: u64,
    /// Of the last record, in nanoseconds: a leader with an older clock must not turn it back.
    pub(super) append_time: i64,
    /// When the last record came, or reading began.
    pub(super) moved_at: Instant,
    /// A prober is at work.
    pub(super) probing: bool,
    /// Probes since the last record that found nothing wrong.
    pub(super) suspicions: u32,
}

impl Cursor {
    pub(super) fn new(assignment: u64, now: Instant) -> Self {
        Self {
            turn: Turn { assignment, beginning: 0 },
            phase: Phase::Idle,
            expected: 0,
            append_time: i64::MIN,
            moved_at: now,
            probing: false,
            suspicions: 0,
        }
    }

    /// Goes to an offset as soon as the brokers answer, and not before a time.
    pub(super) fn seek(&mut self, offset: u64, not_before: Instant) {
        self.expected = offset;
        self.phase = Phase::Seeking { offset, not_before };
    }

    /// Takes a record's place and time; returns the time that it counts as.
    pub(super) fn advance(&mut self, offset: u64, append_time: i64, now: Instant) -> i64 {
        self.expected = offset + 1;
        self.append_time = self.append_time.max(append_time);
        self.moved_at = now;
        self.suspicions = 0;
        self.append_time
    }

    /// True when something could not be read since the last record came.
    pub(super) fn is_troubled(&self, trouble: Option<&Trouble>) -> bool {
        trouble.is_some_and(|trouble| trouble.at >= self.moved_at)
    }

    /// True when nothing comes although something could not be read, or although the log goes on to `high`: a batch
    /// may be unreadable, without a word. After an error the end is not asked: librdkafka forgets it where a place is
    /// no longer in the log.
    pub(super) fn is_stalled(&self, high: Option<u64>, trouble: Option<&Trouble>, now: Instant) -> bool {
        if self.phase != Phase::Reading || self.probing {
            return false;
        }
        let is_troubled = self.is_troubled(trouble);
        let patience_ms = if is_troubled { STALL_TROUBLED_MS } else { STALL_SILENT_MS };
        let patience = Duration::from_millis(patience_ms << self.suspicions.min(STALL_DOUBLINGS_MAX));
        let is_behind = high.is_some_and(|high| high > self.expected);
        (is_troubled || is_behind) && now.duration_since(self.moved_at) >= patience
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(now: Instant) -> Cursor {
        let mut cursor = Cursor::new(1, now);
        cursor.phase = Phase::Reading;
        cursor.expected = 5;
        cursor
    }

    #[test]
    fn a_partition_at_its_end_is_not_stalled_and_one_behind_it_is() {
        let start = Instant::now();
        let cursor = reading(start);
        let later = start + Duration::from_millis(STALL_SILENT_MS);
        assert!(!cursor.is_stalled(Some(5), None, later));
        assert!(cursor.is_stalled(Some(6), None, later));
        assert!(!cursor.is_stalled(Some(6), None, later - Duration::from_millis(1)));
    }

    #[test]
    fn after_an_error_the_patience_is_shorter_and_doubles_with_each_false_alarm() {
        let start = Instant::now();
        let mut cursor = reading(start);
        let trouble = Trouble { at: start, reason: String::new() };
        let soon = start + Duration::from_millis(STALL_TROUBLED_MS);
        assert!(cursor.is_stalled(None, Some(&trouble), soon));
        cursor.suspicions = 1;
        assert!(!cursor.is_stalled(None, Some(&trouble), soon));
    }

    #[test]
    fn the_append_time_never_descends() {
        let now = Instant::now();
        let mut cursor = reading(now);
        assert_eq!(cursor.advance(5, 30, now), 30);
        assert_eq!(cursor.advance(6, 20, now), 30);
        assert_eq!(cursor.expected, 7);
    }
}
