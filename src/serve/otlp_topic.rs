//! Metrics in by OTLP from a topic of Kafka, as the OpenTelemetry Collector writes it: a record is one
//! `ExportMetricsServiceRequest`. A record that is read twice makes the same frames, and counts once.

use std::sync::Arc;

use prost::Message;
use tracing::warn;
use trainwarden_ingest::otlp::OtlpFrames;
use trainwarden_ingest::{LogRecord, SourceError};
use trainwarden_proto::otlp::collector::ExportMetricsServiceRequest;

use super::desk::Desk;
use super::otlp::OtlpIntake;
use super::side_topic::Taker;

/// Makes frames of the requests of a topic.
pub(super) struct OtlpTaker {
    topic: String,
    intake: Arc<OtlpIntake>,
    desk: Arc<Desk>,
    taken: Vec<OtlpFrames>,
}

impl OtlpTaker {
    /// A taker that has taken nothing.
    pub(super) fn new(topic: &str, intake: Arc<OtlpIntake>, desk: Arc<Desk>) -> Self {
        Self { topic: topic.to_owned(), intake, desk, taken: Vec::new() }
    }
}

impl Taker for OtlpTaker {
    fn take(&mut self, record: &LogRecord) {
        let (partition, offset) = (record.partition, record.offset);
        match ExportMetricsServiceRequest::decode(&record.value[..]) {
            Ok(request) => {
                let frames = self.intake.frames(&request);
                if frames.refused.count() > 0 {
                    warn!(topic = self.topic, partition, offset, why = frames.refused.message(), "points set aside");
                }
                self.taken.push(frames);
            }
            Err(error) => {
                let hint = "is the exporter's `encoding` set to `otlp_proto`?";
                warn!(topic = self.topic, partition, offset, %error, hint, "a record that is no metrics was set aside");
                self.desk.count_otlp_unread(1);
            }
        }
    }

    fn pass(&mut self, records: u64) {
        self.desk.count_otlp_unread(records);
    }

    fn append(&mut self) -> Result<(), SourceError> {
        self.intake.append(&self.taken)?;
        self.taken.clear();
        Ok(())
    }
}
