//! Places that are no longer in the log: told, and never exchanged for others.

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use trainwarden_ingest::kafka::{KafkaPublisher, KafkaSource, Topics, create_topics};
use trainwarden_ingest::{Delivery, Publisher, Source, SourceError};

use crate::feed::Seen;
use crate::source_suite::{begin_all, next, publish_all, take, wait_assigned};
use crate::{PATIENCE, cluster, options};

#[test]
fn what_retention_removed_is_told_and_an_end_that_was_not_reached_is_refused() {
    let options = options(cluster(), "retention");
    let publisher = KafkaPublisher::open(&options).unwrap();
    let places = publish_all(&publisher, 1, 0..50);
    delete_before(&options.topics.telemetry, 1, 30);

    let mut source = KafkaSource::open(&options).unwrap();
    wait_assigned(&mut source, 4);
    source.begin(1, 0).unwrap();
    assert_eq!(take(&mut source, 20)[0].offset, 30, "a fresh reader begins at the oldest record");
    source.begin(1, places[10]).unwrap();
    let skipped = next(&mut source, PATIENCE);
    assert!(
        matches!(&skipped, Some(Delivery::Skipped { partition: 1, first: 10, next: 30, .. })),
        "one that had got further is told what it missed: {skipped:?}"
    );
    assert_eq!(take(&mut source, 20)[0].offset, 30);

    source.begin(1, 51).unwrap();
    let refused = source.next(PATIENCE);
    assert!(matches!(refused, Err(SourceError::Refused { .. })), "the log is younger than our state: {refused:?}");
    publish_all(&publisher, 1, 50..52);
    let deadline = Instant::now() + PATIENCE;
    let healed = loop {
        match source.next(Duration::from_millis(100)) {
            Ok(Some(Delivery::Record(record))) => break record,
            other => assert!(Instant::now() < deadline, "{other:?}"),
        }
    };
    assert_eq!(healed.offset, 51, "and read on when it has got there");
}

#[test]
fn what_retention_removed_under_a_slow_reader_is_told() {
    let options = options(cluster(), "behind");
    let publisher = KafkaPublisher::open(&options).unwrap();
    let (ack, acks) = mpsc::channel();
    let megabytes = vec![0; 2 << 20];
    // A third more than the source holds for its caller, so that it pauses, and has to fetch the rest anew.
    for number in 0..50_u32 {
        let (ack, value) = (ack.clone(), [&number.to_le_bytes()[..], &megabytes].concat());
        publisher.publish_to(0, &value, Box::new(move |place| ack.send(place).unwrap()));
    }
    let places: Vec<_> = (0..50).map(|_| acks.recv_timeout(PATIENCE).unwrap().unwrap()).collect();
    assert_eq!(places.last(), Some(&(0, 49)));
    let mut source = KafkaSource::open(&options).unwrap();
    begin_all(&mut source, 4);
    let mut seen = Seen::default();
    thread::sleep(Duration::from_secs(3));
    delete_before(&options.topics.telemetry, 0, 45);
    seen.take_until(&mut source, &BTreeMap::from([(0, 50)]));
    let [(0, first, 45, reason)] = &seen.skipped[..] else { panic!("{:?}", seen.skipped) };
    assert!(*first > 20 && reason == "removed by retention", "{:?}", seen.skipped);
}

#[test]
fn a_topic_that_was_made_anew_is_told_and_not_followed() {
    let options = options(cluster(), "anew");
    let publisher = KafkaPublisher::open(&options).unwrap();
    publish_all(&publisher, 0, 0..50);
    let mut source = KafkaSource::open(&options).unwrap();
    begin_all(&mut source, 4);
    take(&mut source, 50);
    let topic = &options.topics.telemetry;
    cluster().tool("org.apache.kafka.tools.TopicCommand", &["--delete", "--topic", topic]);
    let deadline = Instant::now() + PATIENCE;
    while !matches!(create_topics(&options), Ok(Topics { created: 1, .. })) {
        assert!(Instant::now() < deadline, "the topic is still there");
    }
    let publisher = KafkaPublisher::open(&options).unwrap();
    publish_all(&publisher, 0, 900..905);
    loop {
        match source.next(Duration::from_millis(100)) {
            Err(error @ SourceError::Refused { .. }) => {
                break assert!(error.to_string().contains("before 50"), "{error}");
            }
            Ok(Some(Delivery::Record(record))) => panic!("{}/{} of another log", record.partition, record.offset),
            other => assert!(Instant::now() < deadline, "{other:?}"),
        }
    }
}

/// Removes the records of a partition before an offset, as retention would.
fn delete_before(topic: &str, partition: u32, offset: u64) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let range = format!(r#"{{"topic":"{topic}","partition":{partition},"offset":{offset}}}"#);
    write!(file, r#"{{"version":1,"partitions":[{range}]}}"#).unwrap();
    let file = file.path().to_str().unwrap();
    cluster().tool("org.apache.kafka.tools.DeleteRecordsCommand", &["--offset-json-file", file]);
}
