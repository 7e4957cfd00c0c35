//! Where a group goes on, as the brokers keep it.

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::error::source_error;
use super::options::KafkaOptions;
use crate::limits::METADATA_WAIT;
use crate::source::SourceError;

/// The next offset of a partition, as the group of the options has committed it; 0 where it has not.
///
/// # Errors
/// [`SourceError::Unreachable`] when no broker answers; [`SourceError::Refused`] when we may not ask.
pub fn committed(options: &KafkaOptions, topic: &str, partition: u32) -> Result<u64, SourceError> {
    let refused = |error| source_error(&options.brokers, "ask for a position", &error);
    let mut config = options.client()?;
    // Asking is not joining: no member is made.
    let consumer: BaseConsumer = config.set("group.id", &options.group).create().map_err(refused)?;
    let number = i32::try_from(partition).unwrap_or(i32::MAX);
    let mut list = TopicPartitionList::new();
    list.add_partition(topic, number);
    let told = consumer.committed_offsets(list, METADATA_WAIT).map_err(refused)?;
    match told.find_partition(topic, number).map(|found| found.offset()) {
        Some(Offset::Offset(offset)) => Ok(u64::try_from(offset).unwrap_or(0)),
        _ => Ok(0),
    }
}
