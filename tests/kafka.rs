//! The log on real Apache Kafka: the suite of every log, and what faults do to it.

#![expect(unused_crate_dependencies, reason = "what this target does not use serves another one of the package")]

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use trainwarden_ingest::kafka::{KafkaOptions, KafkaPublisher, KafkaSource, TopicNames, create_topics};
use trainwarden_ingest::{Publisher, Source};

#[path = "kafka/broker.rs"]
mod broker;
#[path = "kafka/doctor.rs"]
mod doctor;
#[path = "kafka/events.rs"]
mod events;
#[path = "kafka/faults.rs"]
mod faults;
#[path = "kafka/feed.rs"]
mod feed;
#[path = "kafka/latest.rs"]
mod latest;
#[path = "metrics/mod.rs"]
mod metrics;
#[path = "kafka/otlp.rs"]
mod otlp;
#[path = "kafka/places.rs"]
mod places;
#[path = "recorded/mod.rs"]
mod recorded;
#[path = "service/mod.rs"]
mod service;
#[path = "kafka/service.rs"]
mod service_on_kafka;
#[path = "kafka/settings.rs"]
mod settings;
#[macro_use]
#[path = "../ingest/tests/suite/source_suite.rs"]
mod source_suite;
#[path = "kafka/spoil.rs"]
mod spoil;

/// Longest wait for anything that must come.
const PATIENCE: Duration = Duration::from_secs(90);

/// One node for all tests that do no harm to it; its watchdog ends it with us.
fn cluster() -> &'static broker::Cluster {
    static CLUSTER: OnceLock<broker::Cluster> = OnceLock::new();
    CLUSTER.get_or_init(|| broker::Cluster::start(1))
}

/// Topics and a group of its own on a cluster.
fn options(cluster: &broker::Cluster, name: &str) -> KafkaOptions {
    let mut options = KafkaOptions::new(cluster.brokers());
    options.topics = TopicNames::with_prefix(name);
    options.group = name.to_owned();
    options.partitions = 4;
    options.session_timeout_ms = 6_000;
    create_topics(&options).unwrap();
    options
}

/// Topics and a group of its own on the common cluster.
struct KafkaRig {
    options: KafkaOptions,
}

impl KafkaRig {
    fn new() -> Self {
        static RIGS: AtomicU32 = AtomicU32::new(0);
        let name = format!("rig{}", RIGS.fetch_add(1, Ordering::Relaxed));
        Self { options: options(cluster(), &name) }
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
