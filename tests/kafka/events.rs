//! The topic of events that concern every run: what is there reaches every partition, and noise is kept as evidence.

use std::sync::Arc;
use std::sync::mpsc::channel;

use trainwarden_ingest::kafka::{KafkaOptions, KafkaPublisher, TopicNames, create_topics};
use trainwarden_ingest::wire::{BatchWriter, FrameWriter};
use trainwarden_ingest::{NO_TIME, Names, Publisher, Record, Row};
use trainwarden_telemetry::{Attempt, Event, RunId, Timestamp};

use crate::cluster;
use crate::service::{Service, wait_until};

/// A frame with one event; empty = of every run.
fn frame(run: &str) -> Vec<u8> {
    let event = Event {
        time: Timestamp(trainwarden::serve::desk::now_ns()),
        source: "sudo".to_owned(),
        kind: "exec".to_owned(),
        actor: None,
        run: (!run.is_empty()).then(|| RunId::new(run)),
        attempt: Attempt(0),
        node: None,
        rank: None,
        subject: None,
        detail: None,
    };
    let mut batch = BatchWriter::default();
    batch.push(&Record { log_time: NO_TIME, row: Row::Event(Arc::new(event)) }, &Names::default());
    let (table, rows) = batch.finish().remove(0);
    FrameWriter::new("audit", run, None).rows(table, &rows, 0)
}

#[test]
fn events_of_every_run_reach_every_partition_those_of_a_run_its_own_and_noise_is_kept() {
    let name = "serve-events";
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut options = KafkaOptions::new(cluster().brokers());
    options.topics = TopicNames::with_prefix(name);
    options.partitions = 4;
    create_topics(&options).expect("the cluster takes topics");
    let config = dir.path().join("trainwarden.toml");
    let text = format!(
        "[kafka]\nbrokers = \"{}\"\ngroup = \"{name}\"\nsession_timeout_ms = 6000\n[kafka.topics]\n\
         telemetry = \"{name}.telemetry\"\nevents = \"{name}.events\"\nstate = \"{name}.state\"\n\
         incidents = \"{name}.incidents\"\n",
        options.brokers
    );
    std::fs::write(&config, text).expect("written");
    let service = Service::start(&dir.path().join("data"), &["--config", &config.display().to_string()]);
    let publisher = KafkaPublisher::open_topic(&options, &options.topics.events).expect("it was just made");
    let (report, reports) = channel();
    for value in [frame(""), b"noise".to_vec(), frame("r")] {
        let report = report.clone();
        publisher.publish("", &value, Box::new(move |outcome| report.send(outcome).expect("it waits")));
        reports.recv().expect("told once").expect("durable");
    }
    let page = || service.get("/metrics").expect("it answers").1;
    let of_partition = |page: &str, partition: u32| {
        let line = format!("trainwarden_receive_next_offset{{partition=\"{partition}\"}} ");
        page.lines().find_map(|found| found.strip_prefix(&line)?.parse::<u64>().ok()).unwrap_or(0)
    };
    wait_until("each partition has it", || (0..4).all(|partition| of_partition(&page(), partition) >= 1));
    wait_until("the noise is kept", || service.metric("decode_records_rejected_total") == 1);
    // The run that was named is live now: its partition ticks.
    wait_until("the run is watched", || service.metric("receive_records_total") > 4 + 1 + 1 + 4);
    assert_eq!(service.metric("decode_records_rejected_total"), 1);
}
