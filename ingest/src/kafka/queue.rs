//! The bounded queue between the thread that reads from Kafka and the caller.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::limits::{SOURCE_BYTES_MAX, SOURCE_RECORDS_MAX};
use crate::source::{Delivery, SourceError};

/// What the caller, or a prober, asks of the reading thread.
#[derive(Debug)]
pub(super) enum Command {
    /// Read a partition from an offset on.
    Begin { partition: u32, offset: u64, turn: Turn },
    /// Tell the group that everything before the offset is done.
    Commit { partition: u32, offset: u64 },
    /// What a prober found out.
    Probed { partition: u32, from: u64, turn: Turn, found: Result<Found, SourceError> },
}

/// The first offset that can be read, and why those before it cannot.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) next: u64,
    pub(super) reason: String,
}

/// Which assignment of a partition, and which beginning in it: what belongs to an earlier one is dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Turn {
    pub(super) assignment: u64,
    pub(super) beginning: u64,
}

#[derive(Default)]
struct State {
    /// Each delivery with the assignment that it belongs to.
    deliveries: VecDeque<(u64, Delivery)>,
    bytes: usize,
    commands: VecDeque<Command>,
    /// Assignments of each partition as the caller has seen them, with what it began.
    begun: BTreeMap<u32, Turn>,
    error: Option<SourceError>,
    closed: bool,
}

/// Deliveries one way, commands the other; all order between them is decided under one lock.
#[derive(Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    filled: Condvar,
    drained: Condvar,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves whole deliveries behind: each change under the lock is complete.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The caller's side: the next delivery, an error, or nothing within `wait`.
    pub(super) fn next(&self, wait: Duration) -> Result<Option<Delivery>, SourceError> {
        let deadline = Instant::now() + wait;
        let mut state = self.lock();
        loop {
            if let Some((assignment, delivery)) = state.deliveries.pop_front() {
                state.bytes -= bytes_of(&delivery);
                if let Delivery::Assigned(partition) = delivery {
                    state.begun.insert(partition, Turn { assignment, beginning: 0 });
                }
                self.drained.notify_one();
                return Ok(Some(delivery));
            }
            if let Some(error) = state.error.take() {
                return Err(error);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            state = self.filled.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The caller's side: begins a partition that it was told is assigned; what was read of it before is dropped.
    ///
    /// One that was never handed out is left alone, and so is one that was revoked meanwhile.
    pub(super) fn begin(&self, partition: u32, offset: u64) {
        let mut state = self.lock();
        let Some(turn) = state.begun.get_mut(&partition) else {
            return;
        };
        turn.beginning += 1;
        let turn = *turn;
        state.drop_records(partition, Some(turn.assignment));
        state.commands.push_back(Command::Begin { partition, offset, turn });
        self.drained.notify_one();
    }

    /// Leaves a command for the reading thread.
    pub(super) fn command(&self, command: Command) {
        self.lock().commands.push_back(command);
    }

    /// The thread's side: all commands that wait.
    pub(super) fn take_commands(&self) -> VecDeque<Command> {
        std::mem::take(&mut self.lock().commands)
    }

    /// The thread's side: hands on a delivery of an assignment.
    pub(super) fn push(&self, assignment: u64, delivery: Delivery) {
        let mut state = self.lock();
        if let Delivery::Revoked(partition) = delivery {
            state.drop_records(partition, None);
        }
        state.bytes += bytes_of(&delivery);
        state.deliveries.push_back((assignment, delivery));
        self.filled.notify_one();
    }

    /// The thread's side: as [`Queue::push`], unless the caller has begun the partition anew meanwhile.
    pub(super) fn push_of(&self, turn: Turn, partition: u32, delivery: Delivery) {
        let mut state = self.lock();
        if state.begun.get(&partition) != Some(&turn) {
            return;
        }
        state.bytes += bytes_of(&delivery);
        state.deliveries.push_back((turn.assignment, delivery));
        self.filled.notify_one();
    }

    /// The thread's side: an error for the caller; the latest one counts.
    pub(super) fn fail(&self, error: SourceError) {
        self.lock().error = Some(error);
        self.filled.notify_one();
    }

    /// The thread's side: waits until there is room, at most this long; true when there is.
    pub(super) fn wait_for_room(&self, wait: Duration) -> bool {
        let state = self.lock();
        let full = |state: &mut State| state.is_full(1) && state.commands.is_empty() && !state.closed;
        let (state, _) = self.drained.wait_timeout_while(state, wait, full).unwrap_or_else(PoisonError::into_inner);
        !state.is_full(1)
    }

    /// The thread's side: true when a paused thread may go on reading.
    pub(super) fn is_half_empty(&self) -> bool {
        !self.lock().is_full(2)
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.drained.notify_all();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }
}

impl State {
    fn is_full(&self, parts: usize) -> bool {
        self.deliveries.len() >= SOURCE_RECORDS_MAX / parts || self.bytes >= SOURCE_BYTES_MAX / parts
    }

    /// Takes out what waits of a partition, of one assignment or of all.
    fn drop_records(&mut self, partition: u32, of: Option<u64>) {
        let bytes = &mut self.bytes;
        self.deliveries.retain(|(assignment, delivery)| {
            let kept = partition_of(delivery) != Some(partition) || of.is_some_and(|of| of != *assignment);
            if !kept {
                *bytes -= bytes_of(delivery);
            }
            kept
        });
    }
}

/// The partition of what was read; none for a change of the assignment.
fn partition_of(delivery: &Delivery) -> Option<u32> {
    match delivery {
        Delivery::Record(record) => Some(record.partition),
        Delivery::Skipped { partition, .. } => Some(*partition),
        Delivery::Assigned(_) | Delivery::Revoked(_) => None,
    }
}

fn bytes_of(delivery: &Delivery) -> usize {
    match delivery {
        Delivery::Record(record) => record.value.len(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::LogRecord;

    fn record(partition: u32, offset: u64) -> Delivery {
        Delivery::Record(LogRecord { partition, offset, append_time: 0, value: vec![0; 8] })
    }

    fn next(queue: &Queue) -> Option<Delivery> {
        queue.next(Duration::ZERO).unwrap()
    }

    /// A queue whose caller was told of partition 1 and has begun it.
    fn begun() -> (Queue, Turn) {
        let queue = Queue::default();
        queue.push(1, Delivery::Assigned(1));
        assert_eq!(next(&queue), Some(Delivery::Assigned(1)));
        queue.begin(1, 0);
        (queue, Turn { assignment: 1, beginning: 1 })
    }

    #[test]
    fn after_revoked_no_record_comes_also_none_that_waited() {
        let (queue, turn) = begun();
        queue.push_of(turn, 1, record(1, 5));
        queue.push(1, Delivery::Revoked(1));
        assert_eq!(next(&queue), Some(Delivery::Revoked(1)));
        assert_eq!(next(&queue), None);
        assert_eq!(queue.lock().bytes, 0);
    }

    #[test]
    fn what_was_read_before_a_new_beginning_is_dropped() {
        let (queue, turn) = begun();
        queue.push_of(turn, 1, record(1, 5));
        queue.begin(1, 2);
        queue.push_of(turn, 1, record(1, 6));
        assert_eq!(next(&queue), None);
        queue.push_of(Turn { assignment: 1, beginning: 2 }, 1, record(1, 2));
        assert_eq!(next(&queue), Some(record(1, 2)));
    }

    #[test]
    fn a_beginning_belongs_to_the_assignment_that_the_caller_has_seen() {
        let (queue, _) = begun();
        queue.take_commands();
        queue.push(1, Delivery::Revoked(1));
        queue.push(2, Delivery::Assigned(1));
        queue.begin(1, 7);
        let commands = queue.take_commands();
        assert!(matches!(commands[0], Command::Begin { turn: Turn { assignment: 1, beginning: 2 }, .. }));
    }

    #[test]
    fn a_full_queue_has_room_again_when_the_caller_takes() {
        let (queue, turn) = begun();
        queue.take_commands();
        for offset in 0..SOURCE_RECORDS_MAX as u64 {
            queue.push_of(turn, 1, record(1, offset));
        }
        assert!(!queue.wait_for_room(Duration::ZERO));
        assert!(!queue.is_half_empty());
        assert_eq!(next(&queue), Some(record(1, 0)));
        assert!(queue.wait_for_room(Duration::ZERO));
    }
}
