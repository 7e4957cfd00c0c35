//! A topic read from its beginning and then as it grows, by one reader alone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::error::{is_unreadable, source_error};
use super::membership::Membership;
use super::options::KafkaOptions;
use super::prober::Prober;
use crate::limits::{SEEK_WAIT, SOURCE_FETCH_KB, STALL_SILENT_MS};
use crate::source::{Delivery, SourceError};

const NS_PER_MS: i64 = 1_000_000;

/// One pair that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Where: partition,
    pub partition: u32,
    /// ... and offset in it.
    pub offset: u64,
    /// When the brokers took it, in nanoseconds since the epoch.
    pub append_time: i64,
    /// Key; empty where it has none.
    pub key: String,
    /// Value; `None` removes the key.
    pub value: Option<Vec<u8>>,
}

/// Partitions of a topic, read by one reader alone, outside of any group.
///
/// Every record from the start on comes once and in order inside its partition. What cannot be read is passed, and
/// kept for [`Follower::take_skipped`].
pub struct Follower {
    consumer: BaseConsumer<Membership>,
    options: KafkaOptions,
    topic: String,
    /// Next offset of each partition.
    expected: BTreeMap<u32, u64>,
    /// Partitions that were read to their end at least once.
    ended: BTreeSet<u32>,
    moved_at: Instant,
    skipped: Vec<Delivery>,
}

impl Follower {
    /// Reads partitions of a topic, each from an offset on; one that was removed begins at the oldest record.
    ///
    /// # Errors
    /// [`SourceError::Refused`] for options that librdkafka does not take.
    pub fn open(options: &KafkaOptions, topic: &str, starts: &[(u32, u64)]) -> Result<Self, SourceError> {
        let mut config = options.client()?;
        config
            // Never joined: librdkafka asks for a name before partitions can be assigned by hand.
            .set("group.id", format!("{}-follower", options.group))
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("auto.offset.reset", "earliest")
            .set("isolation.level", "read_uncommitted")
            .set("check.crcs", "true")
            .set("queued.max.messages.kbytes", SOURCE_FETCH_KB.to_string())
            .set("fetch.max.bytes", (SOURCE_FETCH_KB * 1024).to_string())
            .set("fetch.wait.max.ms", "100")
            .set("fetch.error.backoff.ms", "100");
        let log = &options.brokers;
        let consumer: BaseConsumer<_> = config
            .create_with_context(Membership::new(topic))
            .map_err(|error| source_error(log, "follow a topic", &error))?;
        let mut list = TopicPartitionList::new();
        for (partition, offset) in starts {
            let offset = Offset::Offset(i64::try_from(*offset).unwrap_or(i64::MAX));
            let added = list.add_partition_offset(topic, i32::try_from(*partition).unwrap_or(i32::MAX), offset);
            added.map_err(|error| source_error(log, "follow a topic", &error))?;
        }
        consumer.assign(&list).map_err(|error| source_error(log, "follow a topic", &error))?;
        Ok(Self {
            consumer,
            options: options.clone(),
            topic: topic.to_owned(),
            expected: starts.iter().copied().collect(),
            ended: BTreeSet::new(),
            moved_at: Instant::now(),
            skipped: Vec::new(),
        })
    }

    /// The next pair; `None` when nothing came within `wait`.
    ///
    /// # Errors
    /// [`SourceError::Unreachable`] while no broker answers; the call may be repeated.
    pub fn next(&mut self, wait: Duration) -> Result<Option<Change>, SourceError> {
        let deadline = Instant::now() + wait;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.consumer.poll(left) {
                Some(Ok(message)) => {
                    let change = Change::from(&message);
                    drop(message);
                    let expected = self.expected.entry(change.partition).or_default();
                    if change.offset >= *expected {
                        *expected = change.offset + 1;
                        self.moved_at = Instant::now();
                        return Ok(Some(change));
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => {
                    self.ended.extend(u32::try_from(partition));
                }
                Some(Err(error)) if error.rdkafka_error_code().is_some_and(is_unreadable) => self.pass_unreadable()?,
                Some(Err(error)) => return Err(source_error(&self.options.brokers, "follow a topic", &error)),
                None => {}
            }
            if !self.is_at_end() && self.moved_at.elapsed() >= Duration::from_millis(STALL_SILENT_MS) {
                self.pass_unreadable()?;
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
        }
    }

    /// True when every partition was read to the end that it had at some time since the opening.
    #[must_use]
    pub fn is_at_end(&self) -> bool {
        self.ended.len() >= self.expected.len()
    }

    /// What could not be read and was passed, since the last call: each a [`Delivery::Skipped`].
    pub fn take_skipped(&mut self) -> Vec<Delivery> {
        std::mem::take(&mut self.skipped)
    }

    /// Looks at each partition that has not ended, and goes on behind what cannot be read there.
    fn pass_unreadable(&mut self) -> Result<(), SourceError> {
        self.moved_at = Instant::now();
        for (partition, from) in self.expected.clone() {
            let number = i32::try_from(partition).unwrap_or(i32::MAX);
            let prober = Prober::open(&self.options, &self.topic, number, &|| false)?;
            let found = prober.first_readable(from)?;
            let mut list = TopicPartitionList::new();
            let offset = Offset::Offset(i64::try_from(found.next).unwrap_or(i64::MAX));
            let log = &self.options.brokers;
            list.add_partition_offset(&self.topic, number, offset)
                .map_err(|error| source_error(log, "seek", &error))?;
            self.consumer.seek_partitions(list, SEEK_WAIT).map_err(|error| source_error(log, "seek", &error))?;
            self.expected.insert(partition, found.next);
            if !found.reason.is_empty() {
                let (first, next, reason) = (from, found.next, found.reason);
                self.skipped.push(Delivery::Skipped { partition, first, next, reason });
            }
        }
        self.moved_at = Instant::now();
        Ok(())
    }
}

impl From<&BorrowedMessage<'_>> for Change {
    fn from(message: &BorrowedMessage<'_>) -> Self {
        Self {
            partition: u32::try_from(message.partition()).unwrap_or(0),
            offset: u64::try_from(message.offset()).unwrap_or(0),
            append_time: message.timestamp().to_millis().unwrap_or(0).saturating_mul(NS_PER_MS),
            key: String::from_utf8_lossy(message.key().unwrap_or_default()).into_owned(),
            value: message.payload().map(<[u8]>::to_vec),
        }
    }
}
