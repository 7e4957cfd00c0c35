//! Metrics from a topic of an OpenTelemetry Collector, killed on the way or not.

use std::path::Path;
use std::sync::mpsc::channel;

use prost::Message;
use trainwarden_ingest::Publisher;
use trainwarden_ingest::kafka::{KafkaOptions, KafkaPublisher, TopicNames, create_topics};

use crate::cluster;
use crate::metrics::{requests_of, said, samples_of};
use crate::service::{Service, replayed, wait_until};

/// Makes the topic that a Collector would write to, and a configuration that names it.
fn site(name: &str, dir: &Path) -> (KafkaPublisher, String) {
    let topic = format!("{name}-metrics");
    let create = ["--create", "--topic", &topic, "--partitions", "2"];
    cluster().tool("org.apache.kafka.tools.TopicCommand", &create);
    let mut options = KafkaOptions::new(cluster().brokers());
    options.topics = TopicNames::with_prefix(name);
    options.partitions = 4;
    create_topics(&options).expect("the cluster takes topics");
    let text = format!(
        "[otlp]\nkafka_topics = [\"{topic}\"]\n[kafka]\nbrokers = \"{}\"\ngroup = \"{name}\"\npartitions = 4\n\
         session_timeout_ms = 6000\n[kafka.topics]\ntelemetry = \"{name}.telemetry\"\nevents = \"{name}.events\"\n\
         state = \"{name}.state\"\nincidents = \"{name}.incidents\"\n",
        options.brokers
    );
    let config = dir.join("trainwarden.toml");
    std::fs::write(&config, text).expect("written");
    (KafkaPublisher::open_topic(&options, &topic).expect("it was just made"), config.display().to_string())
}

#[test]
fn metrics_of_a_collector_are_judged_also_when_the_service_is_killed_and_noise_is_passed() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let folder = samples_of("slow_rank_5", dir.path());
    let expected = said(&replayed(&folder));
    assert!(!expected.is_empty());
    let (publisher, config) = site("serve-otlp", dir.path());
    let (report, reports) = channel();
    let send = |bytes: &[u8]| {
        let report = report.clone();
        publisher.publish("slow_rank_5/n1", bytes, Box::new(move |outcome| report.send(outcome).expect("it waits")));
        reports.recv().expect("told once").expect("durable");
    };
    send(b"no metrics");
    let mut service = Service::start(&dir.path().join("data"), &["--config", &config]);
    wait_until("the noise is counted", || service.metric("otlp_points_rejected_total") == 1);
    let requests = requests_of(&folder);
    for (index, request) in requests.iter().enumerate() {
        send(&request.encode_to_vec());
        if index == requests.len() / 2 {
            wait_until("it reads", || service.metric("otlp_points_total") > 0);
            // What was read and not committed is read again, and counts once.
            service.kill();
            service.restart();
        }
    }
    wait_until("the fault is told", || said(&service.incidents()) == expected);
    assert_eq!(service.metric("align_rows_repeated_total"), 0, "what was read twice is known by its frames");
}
