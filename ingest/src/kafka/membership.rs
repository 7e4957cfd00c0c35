//! What librdkafka calls back while a consumer is polled: the group's changes, errors, and watermarks.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::statistics::Statistics;
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;

use super::error::is_unreadable;

/// A change of what is ours, in the order in which the group made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Assigned(u32),
    Revoked(u32),
}

/// The last thing that librdkafka could not read, of whichever partition: it does not say which.
#[derive(Clone, Debug)]
pub(super) struct Trouble {
    pub(super) at: Instant,
    pub(super) reason: String,
}

/// Figures of librdkafka, as of its last report.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures {
    /// The offset that the next record of each partition will get, as the last fetch said.
    pub(super) high: HashMap<u32, u64>,
    /// Requests for records that were sent.
    pub(super) fetches: i64,
}

#[derive(Default)]
struct Seen {
    changes: VecDeque<Change>,
    trouble: Option<Trouble>,
    figures: Option<Figures>,
    /// Partitions of ours that librdkafka was told to fetch.
    fetched: BTreeSet<u32>,
}

/// Collects what is called back; the thread that polls takes it out after each poll.
#[derive(Default)]
pub(super) struct Membership {
    topic: String,
    seen: Mutex<Seen>,
}

impl Membership {
    pub(super) fn new(topic: &str) -> Self {
        Self { topic: topic.to_owned(), seen: Mutex::default() }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Seen) -> T) -> T {
        act(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn take_changes(&self) -> VecDeque<Change> {
        self.with(|seen| std::mem::take(&mut seen.changes))
    }

    pub(super) fn trouble(&self) -> Option<Trouble> {
        self.with(|seen| seen.trouble.clone())
    }

    /// Remembers that a partition of ours is fetched from now on; false where it was already.
    pub(super) fn fetch(&self, partition: u32) -> bool {
        self.with(|seen| seen.fetched.insert(partition))
    }

    /// A report that was not taken yet.
    pub(super) fn take_figures(&self) -> Option<Figures> {
        self.with(|seen| seen.figures.take())
    }

    fn note(&self, list: &TopicPartitionList, change: fn(u32) -> Change) {
        let changes: Vec<Change> = self.ours(list).map(change).collect();
        self.with(|seen| seen.changes.extend(changes));
    }

    fn ours(&self, list: &TopicPartitionList) -> impl Iterator<Item = u32> {
        let ours = list.elements_for_topic(&self.topic);
        ours.into_iter().filter_map(|element| u32::try_from(element.partition()).ok())
    }

    /// Those of a list that are fetched, and are no longer.
    fn stop(&self, list: &TopicPartitionList) -> TopicPartitionList {
        let mut stopped = TopicPartitionList::new();
        for partition in self.ours(list).filter(|partition| self.with(|seen| seen.fetched.remove(partition))) {
            stopped.add_partition(&self.topic, i32::try_from(partition).unwrap_or(i32::MAX));
        }
        stopped
    }
}

impl ClientContext for Membership {
    fn log(&self, _level: RDKafkaLogLevel, _facility: &str, _message: &str) {
        // What matters comes as an error as well, with a code.
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code().is_some_and(is_unreadable) {
            let trouble = Trouble { at: Instant::now(), reason: format!("{error}: {reason}") };
            self.with(|seen| seen.trouble = Some(trouble));
        }
    }

    fn stats(&self, statistics: Statistics) {
        let mut figures = Figures::default();
        for (partition, state) in statistics.topics.get(&self.topic).iter().flat_map(|topic| &topic.partitions) {
            if let (Ok(partition), Ok(high)) = (u32::try_from(*partition), u64::try_from(state.hi_offset)) {
                figures.high.insert(partition, high);
            }
        }
        figures.fetches = statistics.brokers.values().filter_map(|broker| broker.req.get("Fetch")).sum();
        self.with(|seen| seen.figures = Some(figures));
    }
}

impl ConsumerContext for Membership {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, error: RDKafkaRespErr, list: &mut TopicPartitionList) {
        // What is refused here is told again by the group: an assignment that failed is followed by another.
        if error == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            // Where to read is the caller's word, so nothing is fetched until then; the group only wants an answer. To
            // assign at the end, to pause, and to seek later is a race in librdkafka 2.12: the answer to its question
            // for the end, outdated by the seek, is asked again half a second later, and then moves the place there.
            let _ = consumer.incremental_assign(&TopicPartitionList::new());
            self.note(list, Change::Assigned);
        } else {
            self.note(list, Change::Revoked);
            let _ = consumer.incremental_unassign(&self.stop(list));
        }
    }
}
