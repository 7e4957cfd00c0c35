//! Finds out how far a partition cannot be read.
//!
//! librdkafka fetches a batch that it cannot read again and again, and of some it does not say a word. A prober is a
//! client of its own: it asks for single places of the partition, further and further on until one can be read, then
//! back to the first of those.

use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::error::{is_unreadable, source_error};
use super::membership::Membership;
use super::options::KafkaOptions;
use super::queue::Found;
use crate::limits::{PROBE_LINEAR, PROBE_WAIT, SILENT_FETCHES};
use crate::source::SourceError;

/// What is to be seen at an offset.
#[derive(Debug, PartialEq, Eq)]
enum Sight {
    /// The next record is at this offset.
    Readable(u64),
    /// The batch there cannot be read.
    Unreadable(String),
    /// The partition ends there.
    End,
}

/// A client that looks at single places of a partition.
pub(super) struct Prober<'a> {
    consumer: BaseConsumer<Membership>,
    log: String,
    topic: String,
    partition: i32,
    stop: &'a dyn Fn() -> bool,
}

impl<'a> Prober<'a> {
    /// A prober of one partition, which gives up when it is told to `stop`.
    pub(super) fn open(
        options: &KafkaOptions,
        topic: &str,
        partition: i32,
        stop: &'a dyn Fn() -> bool,
    ) -> Result<Self, SourceError> {
        let log = options.brokers.clone();
        let mut config = options.client()?;
        config
            // Never joined: librdkafka asks for a name before partitions can be assigned by hand.
            .set("group.id", format!("{}-prober", options.group))
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_uncommitted")
            .set("check.crcs", "true")
            .set("queued.min.messages", "1")
            .set("fetch.error.backoff.ms", "20")
            .set("fetch.wait.max.ms", "100")
            .set("statistics.interval.ms", "50");
        let consumer = config
            .create_with_context(Membership::new(topic))
            .map_err(|error| source_error(&log, "look at a partition", &error))?;
        Ok(Self { consumer, log, topic: topic.to_owned(), partition, stop })
    }

    /// The first offset from `from` on that can be read; `from` itself when nothing is wrong with it.
    ///
    /// # Errors
    /// [`SourceError::Unreachable`] when the brokers do not answer, so that nothing can be said;
    /// [`SourceError::Refused`] when the log ends before `from`.
    pub(super) fn first_readable(&self, from: u64) -> Result<Found, SourceError> {
        let (low, high) = self.watermarks()?;
        if from < low {
            return Ok(Found { next: low, reason: "removed by retention".to_owned() });
        }
        if from > high {
            return Err(beyond_end(&self.log, from, high));
        }
        if from == high {
            return Ok(Found { next: from, reason: String::new() });
        }
        match self.look(from)? {
            Sight::Readable(next) => Ok(Found { next, reason: String::new() }),
            Sight::End => Ok(Found { next: from, reason: String::new() }),
            Sight::Unreadable(reason) => Ok(Found { next: self.gallop(from, high)?, reason }),
        }
    }

    /// From an unreadable offset to the first readable one behind it: step by step at first, so that a good batch
    /// between two bad ones is not passed over, then in doubling steps and back by halves.
    fn gallop(&self, mut unreadable: u64, high: u64) -> Result<u64, SourceError> {
        let begun = Instant::now();
        let mut step = 1;
        loop {
            let at = (unreadable + step).min(high);
            let readable = if at == high { Some(high) } else { self.readable_at(at)? };
            match readable {
                Some(next) if at - unreadable == 1 => return Ok(next),
                Some(next) => return self.halve(unreadable, at, next),
                None => unreadable = at,
            }
            if begun.elapsed() >= PROBE_LINEAR {
                step *= 2;
            }
        }
    }

    /// The first readable offset between an unreadable place and a readable one, whose next record is at `next`.
    fn halve(&self, mut unreadable: u64, mut readable: u64, mut next: u64) -> Result<u64, SourceError> {
        while readable - unreadable > 1 {
            let middle = unreadable + (readable - unreadable) / 2;
            match self.readable_at(middle)? {
                Some(record) => (readable, next) = (middle, record),
                None => unreadable = middle,
            }
        }
        Ok(next)
    }

    /// The record that is read when reading begins at an offset; `None` when it cannot be read.
    fn readable_at(&self, offset: u64) -> Result<Option<u64>, SourceError> {
        Ok(match self.look(offset)? {
            Sight::Readable(next) => Some(next),
            Sight::End => Some(offset),
            Sight::Unreadable(_) => None,
        })
    }

    fn watermarks(&self) -> Result<(u64, u64), SourceError> {
        let marks = self.consumer.fetch_watermarks(&self.topic, self.partition, PROBE_WAIT);
        let (low, high) = marks.map_err(|error| source_error(&self.log, "ask for the ends of a partition", &error))?;
        Ok((u64::try_from(low).unwrap_or(0), u64::try_from(high).unwrap_or(0)))
    }

    /// What is to be seen at an offset below the end.
    fn look(&self, offset: u64) -> Result<Sight, SourceError> {
        self.point_at(offset).map_err(|error| source_error(&self.log, "look at a partition", &error))?;
        let deadline = Instant::now() + PROBE_WAIT;
        let mut reason = "no answer".to_owned();
        let mut fetches_before = None;
        while Instant::now() < deadline && !(self.stop)() {
            match self.consumer.poll(Duration::from_millis(20)) {
                Some(Ok(record)) => {
                    if let Some(at) = u64::try_from(record.offset()).ok().filter(|at| *at >= offset) {
                        return Ok(Sight::Readable(at));
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => return Ok(Sight::End),
                Some(Err(error)) if error.rdkafka_error_code().is_some_and(is_unreadable) => {
                    let told = self.consumer.context().trouble().map(|trouble| trouble.reason);
                    return Ok(Sight::Unreadable(told.unwrap_or_else(|| error.to_string())));
                }
                Some(Err(error)) => reason = error.to_string(),
                None => {}
            }
            // Only an answered fetch is followed by another, so several in a row mean that the brokers gave the batch
            // and the client made nothing of it. A broker that is slow or gone cannot look like that.
            let Some(figures) = self.consumer.context().take_figures() else { continue };
            let before = *fetches_before.get_or_insert(figures.fetches);
            if figures.fetches - before >= SILENT_FETCHES {
                return Ok(Sight::Unreadable("the batch is fetched and nothing comes of it".to_owned()));
            }
        }
        Err(SourceError::Unreachable { log: self.log.clone(), reason })
    }

    fn point_at(&self, offset: u64) -> Result<(), KafkaError> {
        let mut list = TopicPartitionList::new();
        let offset = Offset::Offset(i64::try_from(offset).unwrap_or(i64::MAX));
        list.add_partition_offset(&self.topic, self.partition, offset)?;
        self.consumer.unassign()?;
        self.consumer.context().take_figures();
        self.consumer.assign(&list)
    }
}

/// The error of an offset that the log has not reached.
pub(super) fn beyond_end(log: &str, from: u64, high: u64) -> SourceError {
    SourceError::Refused {
        log: log.to_owned(),
        act: "read on",
        reason: format!("the partition ends at {high}, before {from}: it was cut or made anew"),
    }
}
