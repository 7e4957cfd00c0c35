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

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use rdkafka::mocking::MockCluster;

    use super::super::publisher::KafkaPublisher;
    use super::*;
    use crate::source::Publisher;

    const PARTITIONS: u32 = 6;

    /// Slow brokers are the point, and real ones cannot be made slow: librdkafka's own imitation can.
    #[test]
    fn a_partition_is_read_from_where_it_is_begun_however_slow_the_brokers_are() {
        let brokers = MockCluster::new(1).unwrap();
        let options = KafkaOptions::new(brokers.bootstrap_servers());
        let topic = &options.topics.telemetry;
        brokers.create_topic(topic, i32::try_from(PARTITIONS).unwrap(), 1).unwrap();
        let publisher = KafkaPublisher::open(&options).unwrap();
        let (ack, acks) = std::sync::mpsc::channel();
        for partition in 0..PARTITIONS {
            let ack = ack.clone();
            publisher.publish_to(partition, b"x", Box::new(move |place| ack.send(place).unwrap()));
        }
        assert!((0..PARTITIONS).all(|_| acks.recv().unwrap().is_ok()));
        brokers.broker_round_trip_time(1, Duration::from_millis(150)).unwrap();

        let mut source = KafkaSource::open(&options).unwrap();
        let mut read = 0;
        // A client that has lost its way is put right by a prober, but only 15 s after it began: 26 s in all.
        let deadline = Instant::now() + Duration::from_secs(20);
        while read < PARTITIONS && Instant::now() < deadline {
            match source.next(Duration::from_millis(100)).unwrap() {
                Some(Delivery::Assigned(partition)) => source.begin(partition, 0).unwrap(),
                Some(Delivery::Record(_)) => read += 1,
                _ => {}
            }
        }
        assert_eq!(read, PARTITIONS);
    }
}
