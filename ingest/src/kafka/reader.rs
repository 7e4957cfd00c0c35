//! The thread that polls a consumer and fills the queue of its caller.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::cursor::{Cursor, Phase};
use super::error::{is_unreadable, source_error};
use super::membership::{Change, Membership};
use super::options::KafkaOptions;
use super::prober::{Prober, beyond_end};
use super::queue::{Command, Found, Queue, Turn};
use crate::limits::{ERROR_INTERVAL, FULL_WAIT, POLL_WAIT, PROBES_MAX, SEEK_PAUSE, SEEK_WAIT, SOURCE_FETCH_KB};
use crate::source::{Delivery, LogRecord, SourceError};

const NS_PER_MS: i64 = 1_000_000;

/// Polls a consumer and fills the queue of its caller.
pub(super) struct Reader {
    consumer: BaseConsumer<Membership>,
    queue: Arc<Queue>,
    options: KafkaOptions,
    topic: String,
    cursors: BTreeMap<u32, Cursor>,
    assignments: u64,
    /// All partitions are paused, because the caller takes nothing.
    paused: bool,
    complained_at: Option<Instant>,
    /// After brokers did not answer: a question to them holds up the polling.
    seek_not_before: Instant,
}

impl Reader {
    /// Joins the group of the options and subscribes to a topic.
    pub(super) fn open(
        options: &KafkaOptions,
        topic: &str,
        queue: Arc<Queue>,
    ) -> Result<Self, Result<SourceError, KafkaError>> {
        let mut config = options.client().map_err(Ok)?;
        config
            .set("group.id", &options.group)
            .set("session.timeout.ms", options.session_timeout_ms.to_string())
            .set("heartbeat.interval.ms", (options.session_timeout_ms / 5).to_string())
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // A place that is no longer in the log is told, not silently exchanged for another one.
            .set("auto.offset.reset", "error")
            // Else one open transaction of anybody would hold back what comes behind it. We write without any.
            .set("isolation.level", "read_uncommitted")
            .set("check.crcs", "true")
            .set("queued.max.messages.kbytes", SOURCE_FETCH_KB.to_string())
            .set("fetch.max.bytes", (SOURCE_FETCH_KB * 1024).to_string())
            .set("fetch.wait.max.ms", "100")
            .set("fetch.error.backoff.ms", "100")
            .set("topic.metadata.refresh.interval.ms", "30000")
            .set("statistics.interval.ms", "500");
        if let Some(member) = &options.member {
            config.set("group.instance.id", member);
        }
        let consumer: BaseConsumer<_> = config.create_with_context(Membership::new(topic)).map_err(Err)?;
        consumer.subscribe(&[topic]).map_err(Err)?;
        Ok(Self {
            consumer,
            queue,
            options: options.clone(),
            topic: topic.to_owned(),
            cursors: BTreeMap::new(),
            assignments: 0,
            paused: false,
            complained_at: None,
            seek_not_before: Instant::now(),
        })
    }

    /// Reads until the queue is closed.
    pub(super) fn run(&mut self) {
        while !self.queue.is_closed() {
            for command in self.queue.take_commands() {
                self.obey(command);
            }
            // Where partitions wait to be begun, a poll only looks.
            let poll_wait = if self.seek_next() { Duration::ZERO } else { POLL_WAIT };
            self.find_stalls();
            if self.has_room() {
                self.poll(poll_wait);
            }
        }
    }

    fn obey(&mut self, command: Command) {
        let now = Instant::now();
        match command {
            Command::Begin { partition, offset, turn } => {
                let cursor = self.cursors.get_mut(&partition);
                let Some(cursor) = cursor.filter(|cursor| cursor.turn.assignment == turn.assignment) else {
                    return;
                };
                *cursor = Cursor { turn, ..Cursor::new(turn.assignment, now) };
                cursor.seek(offset, now);
            }
            Command::Commit { partition, offset } => {
                // Advisory, and only for what is still ours: whoever has it now commits its own.
                if self.cursors.contains_key(&partition) {
                    let list = self.list(partition, Offset::Offset(i64::try_from(offset).unwrap_or(i64::MAX)));
                    let _ = self.consumer.commit(&list, CommitMode::Async);
                }
            }
            Command::Probed { partition, from, turn, found } => self.heed(partition, from, turn, found),
        }
    }

    /// Begins one of the partitions that wait for it; the others come with the next rounds, between polls. False when
    /// none was due.
    fn seek_next(&mut self) -> bool {
        let now = Instant::now();
        if now < self.seek_not_before {
            return false;
        }
        // The one that has waited longest: one without a leader must not keep back the others.
        let due = self.cursors.iter().filter_map(|(partition, cursor)| match cursor.phase {
            Phase::Seeking { offset, not_before } if not_before <= now => Some((not_before, *partition, offset)),
            _ => None,
        });
        let Some((_, partition, offset)) = due.min() else {
            return false;
        };
        let sought = self.seek(partition, offset);
        let paused = self.paused;
        let list = self.list(partition, Offset::Invalid);
        let Some(cursor) = self.cursors.get_mut(&partition) else {
            return false;
        };
        cursor.moved_at = Instant::now();
        match sought {
            Ok(start) => {
                cursor.expected = start;
                cursor.phase = Phase::Reading;
                if start > offset && offset > 0 {
                    let reason = "removed by retention".to_owned();
                    let skipped = Delivery::Skipped { partition, first: offset, next: start, reason };
                    self.queue.push_of(cursor.turn, partition, skipped);
                }
                if !paused {
                    let _ = self.consumer.resume(&list);
                }
            }
            Err(error) => {
                self.seek_not_before = Instant::now() + SEEK_PAUSE;
                cursor.phase = Phase::Seeking { offset, not_before: self.seek_not_before };
                self.complain(error);
            }
        }
        true
    }

    /// Points the consumer at an offset, or at the oldest record where that one is gone; returns where it points.
    fn seek(&self, partition: u32, offset: u64) -> Result<u64, SourceError> {
        let log = &self.options.brokers;
        let number = i32::try_from(partition).unwrap_or(i32::MAX);
        let marks = self.consumer.fetch_watermarks(&self.topic, number, SEEK_WAIT);
        let (low, high) = marks.map_err(|error| source_error(log, "ask for the ends of a partition", &error))?;
        let (low, high) = (u64::try_from(low).unwrap_or(0), u64::try_from(high).unwrap_or(0));
        if offset > high {
            return Err(beyond_end(log, offset, high));
        }
        let start = offset.max(low);
        self.fetch(partition, start).map_err(|error| source_error(log, "seek", &error))?;
        Ok(start)
    }

    /// Has a partition fetched from an offset on.
    fn fetch(&self, partition: u32, offset: u64) -> Result<(), KafkaError> {
        let list = self.list(partition, Offset::Offset(i64::try_from(offset).unwrap_or(i64::MAX)));
        if !self.consumer.context().fetch(partition) {
            let answer = self.consumer.seek_partitions(list.clone(), SEEK_WAIT)?;
            if answer.elements().iter().all(|element| element.error().is_ok()) {
                return Ok(());
            }
            // A partition whose place was no longer in the log has been stopped, and a seek does not start it again.
            let _ = self.consumer.incremental_unassign(&list);
        }
        self.consumer.incremental_assign(&list)?;
        if self.paused { self.consumer.pause(&list) } else { Ok(()) }
    }

    /// Sends a prober to each partition whose log goes on while nothing comes.
    fn find_stalls(&mut self) {
        let Some(figures) = self.consumer.context().take_figures() else {
            return;
        };
        if self.paused {
            return;
        }
        let trouble = self.consumer.context().trouble();
        let now = Instant::now();
        let stalled = self.cursors.iter().filter(|(partition, cursor)| {
            cursor.is_stalled(figures.high.get(partition).copied(), trouble.as_ref(), now)
        });
        let at_work = self.cursors.values().filter(|cursor| cursor.probing).count();
        let stalled: Vec<u32> = stalled.map(|(partition, _)| *partition).collect();
        for partition in stalled.into_iter().take(PROBES_MAX.saturating_sub(at_work)) {
            self.probe(partition);
        }
    }

    /// Finds out beside the reading what is the matter with a partition.
    fn probe(&mut self, partition: u32) {
        let Some(cursor) = self.cursors.get_mut(&partition) else {
            return;
        };
        cursor.probing = true;
        let (from, turn) = (cursor.expected, cursor.turn);
        let (options, topic, queue) = (self.options.clone(), self.topic.clone(), Arc::clone(&self.queue));
        let work = move || {
            let number = i32::try_from(partition).unwrap_or(i32::MAX);
            let stop = || queue.is_closed();
            let found = Prober::open(&options, &topic, number, &stop).and_then(|prober| prober.first_readable(from));
            queue.command(Command::Probed { partition, from, turn, found });
        };
        if thread::Builder::new().name("kafka-prober".to_owned()).spawn(work).is_err() {
            // Without a thread to look, reading again is all that can be done.
            cursor.probing = false;
            cursor.seek(from, Instant::now() + ERROR_INTERVAL);
        }
    }

    /// Goes where a prober found the next readable record, unless the reading went on by itself.
    fn heed(&mut self, partition: u32, from: u64, turn: Turn, found: Result<Found, SourceError>) {
        let trouble = self.consumer.context().trouble();
        let Some(cursor) = self.cursors.get_mut(&partition).filter(|cursor| cursor.turn == turn) else {
            return;
        };
        cursor.probing = false;
        if cursor.expected != from {
            // The reading went on meanwhile; where it has stopped again, another look is needed.
            if cursor.phase == Phase::Held {
                self.probe(partition);
            }
            return;
        }
        let now = Instant::now();
        match found {
            Ok(Found { next, reason }) => {
                let troubled = cursor.is_troubled(trouble.as_ref());
                cursor.suspicions += 1;
                cursor.moved_at = now;
                if !reason.is_empty() {
                    let skipped = Delivery::Skipped { partition, first: from, next, reason };
                    self.queue.push_of(turn, partition, skipped);
                    cursor.suspicions = 0;
                    cursor.seek(next, now);
                } else if troubled || cursor.phase == Phase::Held || cursor.suspicions > 1 {
                    // Nothing is wrong there, so the client itself has lost its way.
                    cursor.seek(next, now);
                }
            }
            Err(error) => {
                // Begun anew, which is tried until the brokers answer and the log has got there.
                cursor.seek(from, now + SEEK_PAUSE);
                self.complain(error);
            }
        }
    }

    /// True when the caller's queue takes more. Waits for that a while, then pauses the partitions and polls on, so
    /// that the group keeps us: a pause throws away what was fetched, so it is not for short waits.
    fn has_room(&mut self) -> bool {
        if self.paused {
            if self.queue.is_half_empty() {
                self.paused = false;
                let reading = self.reading();
                let _ = self.consumer.resume(&reading);
                let now = Instant::now();
                self.cursors.values_mut().for_each(|cursor| cursor.moved_at = now);
            }
            return true;
        }
        if self.queue.wait_for_room(Duration::ZERO) {
            return true;
        }
        let begun = Instant::now();
        if !self.queue.wait_for_room(FULL_WAIT) && begun.elapsed() >= FULL_WAIT {
            self.paused = true;
            let _ = self.consumer.pause(&self.reading());
            return true;
        }
        false
    }

    fn poll(&mut self, wait: Duration) {
        let polled = self.consumer.poll(wait).map(|polled| polled.map(|record| Polled::from(&record)));
        self.note_changes();
        match polled {
            Some(Ok(record)) => self.take(record),
            // What cannot be read is found out by a prober.
            Some(Err(error)) if error.rdkafka_error_code().is_some_and(is_unreadable) => {}
            Some(Err(error)) => self.complain(source_error(&self.options.brokers, "read", &error)),
            None => {}
        }
    }

    fn note_changes(&mut self) {
        for change in self.consumer.context().take_changes() {
            match change {
                Change::Assigned(partition) => {
                    self.assignments += 1;
                    self.cursors.insert(partition, Cursor::new(self.assignments, Instant::now()));
                    self.queue.push(self.assignments, Delivery::Assigned(partition));
                }
                Change::Revoked(partition) => {
                    if let Some(cursor) = self.cursors.remove(&partition) {
                        self.queue.push(cursor.turn.assignment, Delivery::Revoked(partition));
                    }
                }
            }
        }
    }

    fn take(&mut self, record: Polled) {
        let Polled { partition, offset, append_time, value } = record;
        let now = Instant::now();
        let Some(cursor) = self.cursors.get_mut(&partition).filter(|cursor| cursor.phase == Phase::Reading) else {
            return;
        };
        if offset < cursor.expected {
            return;
        }
        if offset > cursor.expected && cursor.is_troubled(self.consumer.context().trouble().as_ref()) {
            // The gap may be a batch that was given up, and after some errors librdkafka passes good ones as well.
            cursor.phase = Phase::Held;
            if !cursor.probing {
                self.probe(partition);
            }
            let list = self.list(partition, Offset::Invalid);
            let _ = self.consumer.pause(&list);
            return;
        }
        let append_time = cursor.advance(offset, append_time, now);
        let turn = cursor.turn;
        let record = LogRecord { partition, offset, append_time, value };
        self.queue.push_of(turn, partition, Delivery::Record(record));
    }

    /// Tells the caller of an error, not more often than it can be read.
    fn complain(&mut self, error: SourceError) {
        if self.complained_at.is_none_or(|at| at.elapsed() >= ERROR_INTERVAL) {
            self.complained_at = Some(Instant::now());
            self.queue.fail(error);
        }
    }

    /// The partitions that are being read.
    fn reading(&self) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        for (partition, _) in self.cursors.iter().filter(|(_, cursor)| cursor.phase == Phase::Reading) {
            list.add_partition(&self.topic, i32::try_from(*partition).unwrap_or(i32::MAX));
        }
        list
    }

    fn list(&self, partition: u32, offset: Offset) -> TopicPartitionList {
        let mut list = TopicPartitionList::new();
        let partition = i32::try_from(partition).unwrap_or(i32::MAX);
        list.add_partition_offset(&self.topic, partition, offset).expect("an offset is not negative");
        list
    }
}

/// A record that was polled, free of the consumer's memory.
struct Polled {
    partition: u32,
    offset: u64,
    append_time: i64,
    value: Vec<u8>,
}

impl From<&BorrowedMessage<'_>> for Polled {
    fn from(message: &BorrowedMessage<'_>) -> Self {
        Self {
            partition: u32::try_from(message.partition()).unwrap_or(0),
            offset: u64::try_from(message.offset()).unwrap_or(0),
            append_time: message.timestamp().to_millis().unwrap_or(0).saturating_mul(NS_PER_MS),
            value: message.payload().unwrap_or_default().to_vec(),
        }
    }
}
