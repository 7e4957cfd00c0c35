//! Metrics in by OTLP from a topic of Kafka, as the OpenTelemetry Collector writes it.
//!
//! A record is one `ExportMetricsServiceRequest`. What was read is committed when its frames are durable in the log of
//! telemetry; what is read again after a crash makes the same frames, and counts once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use prost::Message;
use tracing::{info, warn};
use trainwarden_ingest::kafka::{KafkaOptions, KafkaSource, committed};
use trainwarden_ingest::otlp::OtlpFrames;
use trainwarden_ingest::{Delivery, LogRecord, Source};
use trainwarden_proto::otlp::collector::ExportMetricsServiceRequest;

use super::desk::Desk;
use super::otlp::OtlpIntake;

/// How long the topic may be quiet before it is looked whether the service stops.
const WAIT: Duration = Duration::from_millis(200);
/// Pause before something outside that failed is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Records that become durable together: one at a time would wait for the brokers once each.
const RECORDS_AT_ONCE: usize = 256;
/// ... and bytes of them: their frames are held until they are durable.
const BYTES_AT_ONCE: usize = 16 << 20;

/// A topic, and where what it holds goes.
pub(super) struct OtlpTopic {
    topic: String,
    options: KafkaOptions,
    source: KafkaSource,
    intake: Arc<OtlpIntake>,
    desk: Arc<Desk>,
    stop: Arc<AtomicBool>,
}

impl OtlpTopic {
    /// Joins the group that reads the topic: every `serve` of one group shares its partitions.
    pub(super) fn open(
        options: &KafkaOptions,
        topic: &str,
        intake: Arc<OtlpIntake>,
        desk: Arc<Desk>,
        stop: Arc<AtomicBool>,
    ) -> Result<Self> {
        let options = KafkaOptions { group: format!("{}-{topic}", options.group), ..options.clone() };
        let source = KafkaSource::open_topic(&options, topic)?;
        Ok(Self { topic: topic.to_owned(), options, source, intake, desk, stop })
    }

    /// Works until the service stops.
    pub(super) fn run(mut self) {
        while !self.has_stopped() {
            let (frames, positions) = self.gather();
            if positions.is_empty() || !self.append(&frames) {
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

    /// What has come: frames, and by partition the next offset.
    fn gather(&mut self) -> (Vec<OtlpFrames>, BTreeMap<u32, u64>) {
        let (mut frames, mut positions) = (Vec::new(), BTreeMap::new());
        let (mut wait, mut bytes) = (WAIT, 0);
        while positions.is_empty() || (frames.len() < RECORDS_AT_ONCE && bytes < BYTES_AT_ONCE) {
            match self.source.next(wait) {
                Ok(Some(Delivery::Record(record))) => {
                    bytes += record.value.len();
                    positions.insert(record.partition, record.offset + 1);
                    frames.extend(self.decode(&record));
                }
                Ok(Some(Delivery::Assigned(partition))) => self.begin(partition),
                Ok(Some(Delivery::Revoked(partition))) => _ = positions.remove(&partition),
                Ok(Some(Delivery::Skipped { partition, first, next, reason })) => {
                    warn!(
                        topic = self.topic,
                        partition, first, next, reason, "records that cannot be read were passed"
                    );
                    self.desk.count_otlp_unread(next.saturating_sub(first));
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
        (frames, positions)
    }

    /// Goes on where the group has come to; a new group begins with the oldest record.
    fn begin(&mut self, partition: u32) {
        while !self.has_stopped() {
            let begun = committed(&self.options, &self.topic, partition).and_then(|offset| {
                info!(topic = self.topic, partition, offset, "reading metrics");
                self.source.begin(partition, offset)
            });
            match begun {
                Ok(()) => return,
                Err(error) => warn!(topic = self.topic, partition, %error, "cannot begin; trying again"),
            }
            std::thread::sleep(RETRY_AFTER);
        }
    }

    fn decode(&self, record: &LogRecord) -> Option<OtlpFrames> {
        match ExportMetricsServiceRequest::decode(&record.value[..]) {
            Ok(request) => {
                let frames = self.intake.frames(&request);
                if frames.refused.count() > 0 {
                    let (partition, offset) = (record.partition, record.offset);
                    warn!(topic = self.topic, partition, offset, why = frames.refused.message(), "points set aside");
                }
                Some(frames)
            }
            Err(error) => {
                let (partition, offset) = (record.partition, record.offset);
                let hint = "is the exporter's `encoding` set to `otlp_proto`?";
                warn!(topic = self.topic, partition, offset, %error, hint, "a record that is no metrics was set aside");
                self.desk.count_otlp_unread(1);
                None
            }
        }
    }

    /// Appends until it is durable, or the service stops: nothing more is read meanwhile, so nothing is lost.
    fn append(&self, frames: &[OtlpFrames]) -> bool {
        while !self.has_stopped() {
            match self.intake.append(frames) {
                Ok(()) => return true,
                Err(error) => warn!(topic = self.topic, %error, "metrics cannot be appended to the log; trying again"),
            }
            std::thread::sleep(RETRY_AFTER);
        }
        false
    }
}
