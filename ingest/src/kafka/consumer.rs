//! A topic read as a member of a group.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::error::source_error;
use super::options::KafkaOptions;
use super::queue::{Command, Queue};
use super::reader::Reader;
use crate::source::{Delivery, Source, SourceError};

/// A topic of a Kafka cluster, read as a member of a consumer group.
///
/// Keeps what [`Source`] asks. A thread of its own polls all the time, so that a slow caller stays a member; it holds
/// at most `SOURCE_BYTES_MAX` of records for the caller, and pauses the partitions beyond that. An assigned partition
/// is not fetched until it is begun. A batch that librdkafka cannot read is passed, and told as
/// [`Delivery::Skipped`]: so is what retention removed before it was read.
///
/// The append time is that of the broker, in whole milliseconds. It does not descend from one record to the next that
/// this source hands on; between a run of the source and the next one, it is as good as the brokers' clocks.
pub struct KafkaSource {
    queue: Arc<Queue>,
    log: String,
    thread: Option<JoinHandle<()>>,
}

impl KafkaSource {
    /// Joins the group of the options and reads the telemetry topic.
    ///
    /// # Errors
    /// [`SourceError::Refused`] for options that librdkafka does not take; an unreachable broker is told by
    /// [`Source::next`].
    pub fn open(options: &KafkaOptions) -> Result<Self, SourceError> {
        Self::open_topic(options, &options.topics.telemetry)
    }

    /// Joins the group of the options and reads another topic.
    ///
    /// # Errors
    /// As [`KafkaSource::open`].
    pub fn open_topic(options: &KafkaOptions, topic: &str) -> Result<Self, SourceError> {
        let queue = Arc::new(Queue::default());
        let log = options.brokers.clone();
        let mut reader = Reader::open(options, topic, Arc::clone(&queue))
            .map_err(|error| error.unwrap_or_else(|error| source_error(&log, "join the group", &error)))?;
        let thread = thread::Builder::new().name("kafka-reader".to_owned()).spawn(move || reader.run());
        let thread =
            thread.map_err(|source| SourceError::Disk { act: "start a thread for", path: topic.into(), source })?;
        Ok(Self { queue, log, thread: Some(thread) })
    }
}

impl Source for KafkaSource {
    fn next(&mut self, wait: Duration) -> Result<Option<Delivery>, SourceError> {
        let next = self.queue.next(wait)?;
        let ended = next.is_none() && self.thread.as_ref().is_none_or(JoinHandle::is_finished);
        if ended {
            return Err(SourceError::Unreachable { log: self.log.clone(), reason: "its reader ended".to_owned() });
        }
        Ok(next)
    }

    fn begin(&mut self, partition: u32, offset: u64) -> Result<(), SourceError> {
        self.queue.begin(partition, offset);
        Ok(())
    }

    fn commit(&mut self, partition: u32, offset: u64) -> Result<(), SourceError> {
        self.queue.command(Command::Commit { partition, offset });
        Ok(())
    }
}

impl Drop for KafkaSource {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was told by `next` already, and a second one here would end the process.
            let _ = thread.join();
        }
    }
}
