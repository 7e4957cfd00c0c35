//! A topic that is written, partition by run.

use super::options::KafkaOptions;
use super::writer::{Outgoing, Writer};
use crate::limits::TOPIC_SEEN_WAIT;
use crate::source::{Published, Publisher, SourceError, partition_of};

/// The offset of a record that is durable at a place which the brokers did not tell: its first acknowledgement was
/// lost, and they answered the second attempt that they have it already.
pub const PLACE_UNTOLD: u64 = u64::MAX;

/// The telemetry topic of a Kafka cluster, written.
///
/// Idempotent and acknowledged by all replicas in sync. A record that is not acknowledged within two minutes is told
/// as [`SourceError::Unreachable`]. Dropping waits five seconds for what is on its way.
pub struct KafkaPublisher {
    writer: Writer,
    topic: String,
    partitions: u32,
}

impl KafkaPublisher {
    /// Opens the telemetry topic of the options, which must exist: see [`create_topics`](super::create_topics).
    ///
    /// # Errors
    /// [`SourceError::Unreachable`] when no broker answers; [`SourceError::Refused`] when there is no such topic.
    pub fn open(options: &KafkaOptions) -> Result<Self, SourceError> {
        Self::open_topic(options, &options.topics.telemetry)
    }

    /// Opens another topic.
    ///
    /// # Errors
    /// As [`KafkaPublisher::open`].
    pub fn open_topic(options: &KafkaOptions, topic: &str) -> Result<Self, SourceError> {
        let writer = Writer::open(options)?;
        let partitions = writer.partitions(topic, TOPIC_SEEN_WAIT)?;
        Ok(Self { writer, topic: topic.to_owned(), partitions })
    }

    fn send(&self, partition: u32, key: Option<&str>, value: &[u8], published: Published) {
        self.writer.send(Outgoing { topic: &self.topic, partition, key, value: Some(value) }, published);
    }
}

impl Publisher for KafkaPublisher {
    fn publish(&self, key: &str, value: &[u8], published: Published) {
        // Chosen here, not by librdkafka: the choice must fit `partitions`, also while a topic is being widened.
        self.send(partition_of(key, self.partitions), Some(key), value, published);
    }

    fn publish_to(&self, partition: u32, value: &[u8], published: Published) {
        self.send(partition, None, value, published);
    }

    fn partitions(&self) -> u32 {
        self.partitions
    }
}
