//! A cluster as it looks from here: for whoever wants to know what is wrong with it.

use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::metadata::Metadata;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::error::source_error;
use super::options::KafkaOptions;
use super::topics::{LATEST, RECORDS, wait_for};
use crate::limits::METADATA_WAIT;
use crate::source::SourceError;

const NS_PER_MS: i64 = 1_000_000;
/// The newest records of all partitions come within this, or are left out.
const NEWEST_WAIT: Duration = Duration::from_secs(3);

/// A cluster as it looks from here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterView {
    /// Nodes that are there, as `host:port`.
    pub nodes: Vec<String>,
    /// Our topics, and those that were asked for beside them.
    pub topics: Vec<TopicView>,
    /// Append time of the newest record of the telemetry topic, in nanoseconds since the epoch.
    pub newest: Option<i64>,
}

/// A topic as it is, and as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicView {
    /// Its name.
    pub name: String,
    /// How many partitions it has; 0 = there is no such topic.
    pub partitions: u32,
    /// How many it must have; 0 = any number.
    pub partitions_wanted: u32,
    /// Partitions without a leader: nothing is read or written there.
    pub partitions_down: u32,
    /// Settings that are otherwise than they must be: name, as it is, as it must be.
    pub settings_wrong: Vec<(String, String, String)>,
    /// False where its settings could not be looked at.
    pub is_described: bool,
}

impl ClusterView {
    /// Looks at a cluster, and changes nothing.
    ///
    /// * `others`: topics of which it only matters that they are there.
    ///
    /// # Errors
    /// [`SourceError::Unreachable`] when no broker answers; [`SourceError::Refused`] for settings that librdkafka or
    /// the brokers do not take.
    pub fn look(options: &KafkaOptions, others: &[String]) -> Result<Self, SourceError> {
        let refused = |error| source_error(&options.brokers, "look at the cluster", &error);
        let mut config = options.client()?;
        let consumer: BaseConsumer = config
            .set("group.id", format!("{}-follower", options.group))
            .set("enable.auto.commit", "false")
            .create()
            .map_err(refused)?;
        // All topics are asked for: to ask for one by name could make it.
        let metadata = consumer.fetch_metadata(None, METADATA_WAIT).map_err(refused)?;
        let admin: AdminClient<DefaultClientContext> = options.client()?.create().map_err(refused)?;
        let names = &options.topics;
        let telemetry = partitions_of(&metadata, &names.telemetry).0;
        let ours = [
            (&names.telemetry, 0, RECORDS),
            (&names.events, 1, RECORDS),
            (&names.state, telemetry, LATEST),
            (&names.incidents, telemetry, LATEST),
        ];
        let nothing: &[(&str, &str)] = &[];
        let all = ours.into_iter().chain(others.iter().map(|name| (name, 0, nothing)));
        let topics = all.map(|(name, wanted, settings)| topic(&admin, &metadata, (name, wanted), settings)).collect();
        let nodes = metadata.brokers().iter().map(|node| format!("{}:{}", node.host(), node.port())).collect();
        Ok(Self { nodes, topics, newest: newest(&consumer, &names.telemetry, telemetry) })
    }
}

/// Partitions of a topic, and those without a leader.
fn partitions_of(metadata: &Metadata, name: &str) -> (u32, u32) {
    let found = metadata.topics().iter().find(|topic| topic.name() == name && topic.error().is_none());
    let partitions = found.map(|topic| topic.partitions()).unwrap_or_default();
    let down = partitions.iter().filter(|partition| partition.leader() < 0).count();
    (u32::try_from(partitions.len()).unwrap_or(u32::MAX), u32::try_from(down).unwrap_or(u32::MAX))
}

fn topic(
    admin: &AdminClient<DefaultClientContext>,
    metadata: &Metadata,
    (name, partitions_wanted): (&str, u32),
    settings: &[(&str, &str)],
) -> TopicView {
    let (partitions, partitions_down) = partitions_of(metadata, name);
    let mut view = TopicView {
        name: name.to_owned(),
        partitions,
        partitions_wanted,
        partitions_down,
        settings_wrong: Vec::new(),
        is_described: true,
    };
    if partitions == 0 || settings.is_empty() {
        return view;
    }
    let limits = AdminOptions::new().request_timeout(Some(METADATA_WAIT));
    let answers = wait_for(admin.describe_configs([&ResourceSpecifier::Topic(name)], &limits));
    let Some(described) = answers.ok().and_then(|answers| answers.into_iter().find_map(Result::ok)) else {
        view.is_described = false;
        return view;
    };
    for (key, wanted) in settings {
        let found = described.get(key).and_then(|entry| entry.value.clone()).unwrap_or_default();
        let is_enough = match *key {
            // More is as good.
            "max.message.bytes" => found.parse::<u64>().ok() >= wanted.parse::<u64>().ok(),
            _ => found == *wanted,
        };
        if !is_enough {
            view.settings_wrong.push(((*key).to_owned(), found, (*wanted).to_owned()));
        }
    }
    view
}

/// Append time of the newest record of a topic, as far as it comes in time.
fn newest(consumer: &BaseConsumer, topic: &str, partitions: u32) -> Option<i64> {
    let deadline = Instant::now() + NEWEST_WAIT;
    let mut list = TopicPartitionList::new();
    for partition in 0..i32::try_from(partitions).unwrap_or(0) {
        let Ok((low, high)) = consumer.fetch_watermarks(topic, partition, NEWEST_WAIT) else { continue };
        if high > low {
            list.add_partition_offset(topic, partition, Offset::Offset(high - 1)).ok()?;
        }
    }
    let (mut waiting, mut newest) = (list.count(), None);
    consumer.assign(&list).ok()?;
    while waiting > 0 && Instant::now() < deadline {
        // A partition that cannot be read is told by what reads it.
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else { continue };
        newest = newest.max(message.timestamp().to_millis().map(|time| time.saturating_mul(NS_PER_MS)));
        waiting -= 1;
    }
    newest
}
