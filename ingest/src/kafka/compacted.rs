//! A topic of latest values: the state of the workers, and the incidents.

use std::collections::BTreeMap;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::follower::Follower;
use super::options::KafkaOptions;
use super::writer::{Outgoing, Writer};
use crate::limits::TOPIC_SEEN_WAIT;
use crate::source::SourceError;

/// The latest value of each key of each partition.
pub type Latest = BTreeMap<(u32, String), Vec<u8>>;

/// A compacted topic: the brokers keep the latest value of each key of a partition, and may drop the earlier ones.
pub struct Compacted {
    writer: Writer,
    options: KafkaOptions,
    topic: String,
    partitions: u32,
}

impl Compacted {
    /// Opens a topic, which must exist: see [`create_topics`](super::create_topics).
    ///
    /// # Errors
    /// [`SourceError::Unreachable`] when no broker answers; [`SourceError::Refused`] when there is no such topic.
    pub fn open(options: &KafkaOptions, topic: &str) -> Result<Self, SourceError> {
        let writer = Writer::open(options)?;
        let partitions = writer.partitions(topic, TOPIC_SEEN_WAIT)?;
        Ok(Self { writer, options: options.clone(), topic: topic.to_owned(), partitions })
    }

    /// How many partitions it has.
    #[must_use]
    pub fn partitions(&self) -> u32 {
        self.partitions
    }

    /// Writes pairs into a partition, in order, and waits until all are durable; a pair without a value removes its key.
    ///
    /// # Errors
    /// That of the first pair that is not known to be durable; others may be. Writing all of them again is right.
    pub fn write(&self, partition: u32, pairs: &[(&str, Option<&[u8]>)]) -> Result<(), SourceError> {
        let (report, reports) = mpsc::channel();
        for (key, value) in pairs {
            let report = report.clone();
            let outgoing = Outgoing { topic: &self.topic, partition, key: Some(key), value: *value };
            // The receiver outlives the sends: it is read to its end below.
            self.writer.send(outgoing, Box::new(move |outcome| drop(report.send(outcome))));
        }
        drop(report);
        let mut first = Ok(());
        for outcome in reports {
            first = first.and(outcome.map(|_| ()));
        }
        first
    }

    /// The latest value of each key of some partitions, as of now.
    ///
    /// # Errors
    /// [`SourceError::Unreachable`] when their end is not reached within `wait`.
    pub fn read(&self, partitions: &[u32], wait: Duration) -> Result<Latest, SourceError> {
        let deadline = Instant::now() + wait;
        let mut follower = self.follow(partitions)?;
        let mut latest = Latest::new();
        while !follower.is_at_end() {
            if Instant::now() >= deadline {
                let reason = format!("topic `{}` was not read to its end within {wait:?}", self.topic);
                return Err(SourceError::Unreachable { log: self.options.brokers.clone(), reason });
            }
            // A broker that is away for a moment is waited for until the deadline.
            let Ok(Some(change)) = follower.next(Duration::from_millis(10)) else { continue };
            let key = (change.partition, change.key);
            match change.value {
                Some(value) => drop(latest.insert(key, value)),
                None => drop(latest.remove(&key)),
            }
        }
        Ok(latest)
    }

    /// Reads some partitions from the beginning and goes on with what is written later.
    ///
    /// # Errors
    /// As [`Follower::open`].
    pub fn follow(&self, partitions: &[u32]) -> Result<Follower, SourceError> {
        let starts: Vec<(u32, u64)> = partitions.iter().map(|partition| (*partition, 0)).collect();
        Follower::open(&self.options, &self.topic, &starts)
    }
}
