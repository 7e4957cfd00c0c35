//! The log on real Apache Kafka: the suite of every log, and what faults do to it.

#![expect(unused_crate_dependencies, reason = "what this target does not use serves another one of the package")]

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use trainwarden_ingest::kafka::{KafkaOptions, KafkaPublisher, KafkaSource, TopicNames, create_topics};
use trainwarden_ingest::{Publisher, Source};

#[path = "kafka/broker.rs"]
mod broker;
#[path = "kafka/faults.rs"]
mod faults;
#[macro_use]
#[path = "../ingest/tests/suite/source_suite.rs"]
mod source_suite;

/// One node for all tests that do no harm to it; its watchdog ends it with us.
fn cluster() -> &'static broker::Cluster {
    static CLUSTER: OnceLock<broker::Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| broker::Cluster::start(1))
}

/// Topics and a group of its own on the common cluster.
struct KafkaRig {
    options: KafkaOptions,
}

impl KafkaRig {
    fn new() -> Self {
        static RIGS: AtomicU32 = AtomicU32::new(0);
        let name = format!("rig{}", RIGS.fetch_add(1, Ordering::Relaxed));
        let mut options = KafkaOptions::new(cluster().brokers());
        options.topics = TopicNames::with_prefix(&name);
        options.group = name;
        options.partitions = 4;
        create_topics(&options).unwrap();
        Self { options }
    }

    fn source(&self) -> Box<dyn Source> {
        Box::new(KafkaSource::open(&self.options).unwrap())
    }
}

impl source_suite::Rig for KafkaRig {
    fn open(&mut self) -> (Box<dyn Source>, Arc<dyn Publisher>) {
        (self.source(), Arc::new(KafkaPublisher::open(&self.options).unwrap()))
    }

    /// The brokers live elsewhere, and go on: what becomes of them when they are killed is another test.
    fn restart(&mut self) {}

    fn second(&mut self) -> Option<Box<dyn Source>> {
        Some(self.source())
    }
}

source_suite!(KafkaRig::new());
