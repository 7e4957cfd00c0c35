//! The producer behind everything that we write: idempotent, acknowledged by all replicas in sync.

use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};

use super::error::source_error;
use super::options::KafkaOptions;
use super::publisher::PLACE_UNTOLD;
use crate::limits::{
    FLUSH_WAIT, METADATA_PAUSE, METADATA_WAIT, PUBLISH_BYTES_MAX, PUBLISH_QUEUE_KB, PUBLISH_QUEUE_RECORDS,
};
use crate::source::{Published, SourceError};

/// A waiting caller, which librdkafka keeps with its record.
type Ticket = Box<Mutex<Option<Published>>>;

/// Hands delivery reports to the callers that wait for them.
struct Reports {
    log: String,
}

/// One producer of a cluster, for any topic.
pub(super) struct Writer {
    producer: ThreadedProducer<Reports>,
    log: String,
}

/// One record to be written.
#[derive(Clone, Copy)]
pub(super) struct Outgoing<'a> {
    pub(super) topic: &'a str,
    pub(super) partition: u32,
    pub(super) key: Option<&'a str>,
    /// `None` is a tombstone.
    pub(super) value: Option<&'a [u8]>,
}

impl Writer {
    pub(super) fn open(options: &KafkaOptions) -> Result<Self, SourceError> {
        let log = options.brokers.clone();
        let mut config = options.client()?;
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("partitioner", "murmur2_random")
            // The payload is compressed as a whole already, and its digest is over those bytes.
            .set("compression.type", "none")
            .set("linger.ms", "2")
            .set("message.max.bytes", (PUBLISH_BYTES_MAX + (64 << 10)).to_string())
            .set("queue.buffering.max.messages", PUBLISH_QUEUE_RECORDS.to_string())
            .set("queue.buffering.max.kbytes", PUBLISH_QUEUE_KB.to_string())
            .set("message.timeout.ms", "120000")
            .set("request.timeout.ms", "10000")
            .set("retry.backoff.ms", "100");
        let producer = config
            .create_with_context(Reports { log: log.clone() })
            .map_err(|error| source_error(&log, "make a producer", &error))?;
        Ok(Self { producer, log })
    }

    /// How many partitions a topic has. One that was made just now is not known to every broker at once, so a topic
    /// that is missing is asked for again until `wait` is over.
    pub(super) fn partitions(&self, topic: &str, wait: Duration) -> Result<u32, SourceError> {
        let deadline = Instant::now() + wait;
        loop {
            let metadata = self.producer.client().fetch_metadata(Some(topic), METADATA_WAIT);
            let metadata = metadata.map_err(|error| source_error(&self.log, "describe a topic", &error))?;
            let found = metadata.topics().iter().find(|found| found.name() == topic && found.error().is_none());
            let count = found.map_or(0, |found| found.partitions().len());
            if count > 0 {
                return Ok(u32::try_from(count).unwrap_or(u32::MAX));
            }
            if Instant::now() >= deadline {
                let reason = format!("there is no topic `{topic}`");
                return Err(SourceError::Refused { log: self.log.clone(), act: "describe a topic", reason });
            }
            thread::sleep(METADATA_PAUSE);
        }
    }

    /// Sends a record; waits where the queue of the producer is full.
    pub(super) fn send(&self, outgoing: Outgoing<'_>, published: Published) {
        let bytes = outgoing.value.map_or(0, <[u8]>::len) + outgoing.key.map_or(0, str::len);
        if bytes > PUBLISH_BYTES_MAX {
            return published(Err(too_large(&self.log, bytes)));
        }
        let ticket: Ticket = Box::new(Mutex::new(Some(published)));
        let partition = i32::try_from(outgoing.partition).unwrap_or(i32::MAX);
        let mut record = BaseRecord::with_opaque_to(outgoing.topic, ticket).partition(partition);
        record.key = outgoing.key;
        record.payload = outgoing.value;
        while let Err((error, refused)) = self.producer.send::<str, [u8]>(record) {
            if error.rdkafka_error_code() != Some(RDKafkaErrorCode::QueueFull) {
                return tell(&refused.delivery_opaque, Err(source_error(&self.log, "write", &error)));
            }
            // It empties with each acknowledgement, and at the latest when records have waited for `message.timeout.ms`.
            thread::sleep(Duration::from_millis(2));
            record = refused;
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // What is not acknowledged by then is told to its callers as not known to be in the log.
        let _ = self.producer.flush(FLUSH_WAIT);
    }
}

impl ClientContext for Reports {
    fn log(&self, _level: RDKafkaLogLevel, _facility: &str, _message: &str) {
        // What matters comes with the report of a record, with a code.
    }

    fn error(&self, _error: KafkaError, _reason: &str) {
        // As above.
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Ticket;

    fn delivery(&self, report: &DeliveryResult<'_>, ticket: Ticket) {
        let outcome = match report {
            Ok(message) => {
                let partition = u32::try_from(message.partition()).unwrap_or(0);
                Ok((partition, u64::try_from(message.offset()).unwrap_or(PLACE_UNTOLD)))
            }
            Err((error, message)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge) => {
                Err(too_large(&self.log, message.payload_len()))
            }
            Err((error, _)) => Err(source_error(&self.log, "write", error)),
        };
        tell(&ticket, outcome);
    }
}

fn tell(ticket: &Ticket, outcome: Result<(u32, u64), SourceError>) {
    let published = ticket.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(published) = published {
        published(outcome);
    }
}

fn too_large(log: &str, bytes: usize) -> SourceError {
    SourceError::TooLarge { log: log.to_owned(), bytes, bytes_max: PUBLISH_BYTES_MAX }
}
