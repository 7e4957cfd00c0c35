//! What `doctor` says of real brokers: as they should be, with a topic that is not, and away.

use std::path::Path;
use std::process::{Command, Output};

use trainwarden_ingest::kafka::{KafkaOptions, TopicNames, create_topics};

use crate::cluster;

fn doctor(dir: &Path, brokers: &str, name: &str) -> Output {
    let config = dir.join("trainwarden.toml");
    let text = format!(
        "data = \"{}\"\nlisten = \"127.0.0.1:0\"\n[kafka]\nbrokers = \"{brokers}\"\n[kafka.topics]\n\
         telemetry = \"{name}.telemetry\"\nevents = \"{name}.events\"\nstate = \"{name}.state\"\n\
         incidents = \"{name}.incidents\"\n",
        dir.join("data").display()
    );
    std::fs::write(&config, text).expect("written");
    let mut doctor = Command::new(env!("CARGO_BIN_EXE_trainwarden"));
    doctor.args(["doctor", "--output", "json", "--config"]).arg(&config).output().expect("the binary was built")
}

/// Verdict and words of each finding about Kafka.
fn of_kafka(output: &Output) -> Vec<(String, String)> {
    let lines = String::from_utf8(output.stdout.clone()).expect("JSON is UTF-8");
    let findings = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"));
    let text = |value: &serde_json::Value| value.as_str().expect("a text").to_owned();
    findings
        .filter(|found| found["group"] == "kafka")
        .map(|found| (text(&found["verdict"]), text(&found["what"])))
        .collect()
}

#[test]
fn brokers_and_topics_as_they_should_be_are_good() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut options = KafkaOptions::new(cluster().brokers());
    options.topics = TopicNames::with_prefix("doctor-good");
    create_topics(&options).expect("the cluster takes topics");
    let output = doctor(dir.path(), &options.brokers, "doctor-good");
    let found = of_kafka(&output);
    assert_eq!(found.len(), 5, "{found:?}");
    assert!(found.iter().all(|(verdict, _)| verdict == "ok"), "{found:?}");
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn a_topic_that_is_stamped_by_its_senders_is_wrong_and_missing_ones_are_told_and_not_made() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let create = ["--create", "--topic", "doctor-bad.telemetry", "--partitions", "3"];
    cluster().tool("org.apache.kafka.tools.TopicCommand", &create);
    for _ in 0..2 {
        let output = doctor(dir.path(), &cluster().brokers(), "doctor-bad");
        let found = of_kafka(&output);
        let clock = "topic `doctor-bad.telemetry` has message.timestamp.type=CreateTime, and needs LogAppendTime";
        assert!(found.contains(&("wrong".to_owned(), clock.to_owned())), "{found:?}");
        let missing = ("warning".to_owned(), "there is no topic `doctor-bad.state`".to_owned());
        assert!(found.contains(&missing), "{found:?}");
        assert_eq!(output.status.code(), Some(1));
    }
}

#[test]
fn brokers_that_are_away_are_unreachable() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let free = std::net::TcpListener::bind("127.0.0.1:0").and_then(|held| held.local_addr()).expect("a free port");
    let output = doctor(dir.path(), &free.to_string(), "doctor-away");
    let found = of_kafka(&output);
    assert!(found.len() == 1 && found[0].0 == "wrong" && found[0].1.contains("cannot reach the log"), "{found:?}");
    assert_eq!(output.status.code(), Some(3));
}
