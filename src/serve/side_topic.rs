//! A topic beside the log, whose records go into the log in another form.
//!
//! What was read is committed when what was made of it is durable in the log; it may be made again after a crash, so it
//! must be made so that it counts once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use tracing::{info, warn};
use trainwarden_ingest::kafka::{KafkaOptions, KafkaSource, committed};
use trainwarden_ingest::{Delivery, LogRecord, Source, SourceError};

/// How long the topic may be quiet before it is looked whether the service stops.
const WAIT: Duration = Duration::from_millis(200);
/// Pause before something outside that failed is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Records that become durable together: one at a time would wait for the brokers once each.
const RECORDS_AT_ONCE: usize = 256;
/// ... and bytes of them: what is made of them is held until it is durable.
const BYTES_AT_ONCE: usize = 16 << 20;

/// Makes something of the records of a topic.
pub(super) trait Taker: Send {
    /// Takes a record in.
    fn take(&mut self, record: &LogRecord);

    /// So many records could not be read.
    fn pass(&mut self, records: u64);

    /// Makes everything that was taken durable in the log. After an error it is called again.
    ///
    /// # Errors
    /// That of the first record that is not known to be durable.
    fn append(&mut self) -> Result<(), SourceError>;
}

/// A topic beside the log.
pub(super) struct SideTopic {
    topic: String,
    options: KafkaOptions,
    source: KafkaSource,
    taker: Box<dyn Taker>,
    stop: Arc<AtomicBool>,
}

impl SideTopic {
    /// Joins the group that reads the topic: every `serve` of one group shares its partitions.
    pub(super) fn open(
        options: &KafkaOptions,
        topic: &str,
        taker: Box<dyn Taker>,
        stop: Arc<AtomicBool>,
    ) -> Result<Self> {
        let options = KafkaOptions { group: format!("{}-{topic}", options.group), ..options.clone() };
        let source = KafkaSource::open_topic(&options, topic)?;
        Ok(Self { topic: topic.to_owned(), options, source, taker, stop })
    }

    /// Works until the service stops.
    pub(super) fn run(mut self) {
        while !self.has_stopped() {
            let positions = self.gather();
            if positions.is_empty() || !self.append() {
                continue;
            }
            for (partition, position) in positions {
                // Not committed means read again, and counted once.
                if let Err(error) = self.source.commit(partition, position) {
                    warn!(topic = self.topic, partition, %error, "the position was not committed");
                }
            }
        }
    }

    fn has_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Takes what has come; gives by partition the next offset.
    fn gather(&mut self) -> BTreeMap<u32, u64> {
        let mut positions = BTreeMap::new();
        let (mut wait, mut records, mut bytes) = (WAIT, 0, 0);
        while records < RECORDS_AT_ONCE && bytes < BYTES_AT_ONCE {
            match self.source.next(wait) {
                Ok(Some(Delivery::Record(record))) => {
                    (records, bytes) = (records + 1, bytes + record.value.len());
                    positions.insert(record.partition, record.offset + 1);
                    self.taker.take(&record);
                }
                Ok(Some(Delivery::Assigned(partition))) => self.begin(partition),
                Ok(Some(Delivery::Revoked(partition))) => _ = positions.remove(&partition),
                Ok(Some(Delivery::Skipped { partition, first, next, reason })) => {
                    warn!(
                        topic = self.topic,
                        partition, first, next, reason, "records that cannot be read were passed"
                    );
                    self.taker.pass(next.saturating_sub(first));
                }
                Ok(None) => break,
                Err(error) => {
                    warn!(topic = self.topic, %error, "the topic cannot be read; trying again");
                    std::thread::sleep(RETRY_AFTER);
                    break;
                }
            }
            wait = Duration::ZERO;
        }
        positions
    }

    /// Goes on where the group has come to; a new group begins with the oldest record.
    fn begin(&mut self, partition: u32) {
        while !self.has_stopped() {
            let begun = committed(&self.options, &self.topic, partition).and_then(|offset| {
                info!(topic = self.topic, partition, offset, "reading a topic beside the log");
                self.source.begin(partition, offset)
            });
            match begun {
                Ok(()) => return,
                Err(error) => warn!(topic = self.topic, partition, %error, "cannot begin; trying again"),
            }
            std::thread::sleep(RETRY_AFTER);
        }
    }

    /// Appends until it is durable, or the service stops: nothing more is read meanwhile, so nothing is lost.
    fn append(&mut self) -> bool {
        while !self.has_stopped() {
            match self.taker.append() {
                Ok(()) => return true,
                Err(error) => warn!(topic = self.topic, %error, "the log does not take what came; trying again"),
            }
            std::thread::sleep(RETRY_AFTER);
        }
        false
    }
}
