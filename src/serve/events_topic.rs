//! Events that concern every run, from their own topic into every partition of the log.
//!
//! Frames go on as the bytes that came, so that signatures hold. So what every run was told of, and when, is in the log of
//! each, and a log that is read again tells the same.

use std::sync::Arc;
use std::sync::mpsc::channel;

use trainwarden_ingest::wire::{OpenedFrame, TrustedKeys};
use trainwarden_ingest::{LogRecord, Publisher, SourceError};

use super::side_topic::Taker;

/// Hands frames on.
pub(super) struct EventsTaker {
    publisher: Arc<dyn Publisher>,
    taken: Vec<Vec<u8>>,
}

impl EventsTaker {
    /// A taker that has taken nothing.
    pub(super) fn new(publisher: Arc<dyn Publisher>) -> Self {
        Self { publisher, taken: Vec::new() }
    }
}

impl Taker for EventsTaker {
    fn take(&mut self, record: &LogRecord) {
        self.taken.push(record.value.clone());
    }

    /// They are not in the topic any more, or cannot be read there by anybody.
    fn pass(&mut self, _records: u64) {}

    fn append(&mut self) -> Result<(), SourceError> {
        let (report, reports) = channel();
        for value in &self.taken {
            // Whether it is signed is looked at where it is judged.
            let run = OpenedFrame::open(value, &TrustedKeys::default()).map(|frame| frame.envelope.run);
            let published = || {
                let report = report.clone();
                // The receiver outlives the sends: it is read to its end below.
                Box::new(move |outcome| drop(report.send(outcome)))
            };
            match run {
                Ok(run) if !run.is_empty() => self.publisher.publish(&run, value, published()),
                Ok(_) => (0..self.publisher.partitions())
                    .for_each(|partition| self.publisher.publish_to(partition, value, published())),
                // The judge of the first partition keeps it as evidence.
                Err(_) => self.publisher.publish_to(0, value, published()),
            }
        }
        drop(report);
        for outcome in reports {
            outcome?;
        }
        self.taken.clear();
        Ok(())
    }
}
