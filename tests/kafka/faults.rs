//! Real Apache Kafka, killed, held still, cut short and spoilt on its disk: nothing is lost, and nothing comes twice.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::broker::{self, Cluster};
use crate::cluster;
use crate::source_suite::{begin_all, next, numbers, publish_all, take, wait_assigned};
use trainwarden_ingest::kafka::{
    Compacted, KafkaOptions, KafkaPublisher, KafkaSource, SaslMechanism, SaslOptions, TlsOptions, TopicNames, Topics,
    create_topics,
};
use trainwarden_ingest::{Delivery, Publisher, Source, SourceError};

/// Longest wait for anything that must come.
const PATIENCE: Duration = Duration::from_secs(90);

fn options(cluster: &Cluster, name: &str) -> KafkaOptions {
    let mut options = KafkaOptions::new(cluster.brokers());
    options.topics = TopicNames::with_prefix(name);
    options.group = name.to_owned();
    options.partitions = 4;
    options.session_timeout_ms = 6_000;
    create_topics(&options).unwrap();
    options
}

#[test]
fn a_broker_that_is_killed_and_one_that_is_held_still_lose_nothing() {
    let mut cluster = Cluster::start(1);
    let options = options(&cluster, "outage");
    let publisher = Arc::new(KafkaPublisher::open(&options).unwrap());
    let mut source = KafkaSource::open(&options).unwrap();
    begin_all(&mut source, 4);

    let mut feed = Feed::start(publisher);
    let mut seen = Seen::default();
    seen.take_for(&mut source, Duration::from_secs(1));
    cluster.kill(0);
    seen.take_for(&mut source, Duration::from_secs(1));
    cluster.restart(0);
    seen.take_for(&mut source, Duration::from_secs(1));
    cluster.pause(0);
    seen.take_for(&mut source, Duration::from_secs(4));
    cluster.resume(0);
    let sent = feed.stop();
    let back = Instant::now();
    seen.take_until(&mut source, &sent);
    assert!(back.elapsed() < Duration::from_secs(30), "the lag took {:?}", back.elapsed());
    assert!(seen.skipped.is_empty(), "an outage is not an unreadable batch: {:?}", seen.skipped);
    cluster.kill(0);
    let begun = Instant::now();
    drop(source);
    assert!(begun.elapsed() < Duration::from_secs(10), "a stop without brokers took {:?}", begun.elapsed());
}

#[test]
fn the_leaders_of_three_nodes_are_killed_one_after_the_other() {
    let mut cluster = Cluster::start(3);
    let options = options(&cluster, "leaders");
    let publisher = Arc::new(KafkaPublisher::open(&options).unwrap());
    let mut source = KafkaSource::open(&options).unwrap();
    begin_all(&mut source, 4);

    let mut feed = Feed::start(publisher);
    let mut seen = Seen::default();
    seen.take_for(&mut source, Duration::from_secs(1));
    cluster.kill(0);
    seen.take_for(&mut source, Duration::from_secs(3));
    cluster.restart(0);
    seen.take_for(&mut source, Duration::from_secs(3));
    cluster.kill(1);
    seen.take_for(&mut source, Duration::from_secs(3));
    let sent = feed.stop();
    seen.take_until(&mut source, &sent);
    assert!(seen.skipped.is_empty(), "{:?}", seen.skipped);
}

#[test]
fn a_storm_of_three_consumers_loses_nothing_and_doubles_nothing() {
    let mut options = options(cluster(), "storm");
    let publisher = Arc::new(KafkaPublisher::open(&options).unwrap());
    let mut feed = Feed::start(publisher);
    // What the workers of a group share: the next offset of each partition, as a state topic would hold it.
    let positions = Arc::new(Mutex::new(BTreeMap::<u32, Position>::new()));
    let stop = Arc::new(AtomicBool::new(false));
    let workers: Vec<_> = (0..3_u64)
        .map(|worker| {
            options.member = (worker == 0).then(|| "worker-0".to_owned());
            let (options, positions, stop) = (options.clone(), Arc::clone(&positions), Arc::clone(&stop));
            thread::spawn(move || {
                // One stays, the others come and go.
                while !stop.load(Ordering::Relaxed) {
                    let stay = Duration::from_millis(if worker == 0 { 60_000 } else { 1_500 + 700 * worker });
                    work(&options, &positions, &stop, stay);
                }
            })
        })
        .collect();
    thread::sleep(Duration::from_secs(8));
    let sent = feed.stop();
    let deadline = Instant::now() + PATIENCE;
    let whole = || {
        sent.iter().all(|(partition, count)| {
            positions.lock().unwrap().get(partition).is_some_and(|position| position.number == *count)
        })
    };
    while !whole() {
        assert!(Instant::now() < deadline, "of {sent:?} only {:?}", positions.lock().unwrap());
        thread::sleep(Duration::from_millis(50));
    }
    stop.store(true, Ordering::Relaxed);
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    let owners: u32 = positions.lock().unwrap().values().map(|position| position.owners).sum();
    assert!(owners >= 10, "a storm moves partitions, and only {owners} were");
}

/// How far a partition was judged: the offset and the number that come next.
#[derive(Clone, Copy, Debug, Default)]
struct Position {
    offset: u64,
    number: u32,
    /// How often it was taken over.
    owners: u32,
}

/// A worker for a while: it begins each partition where the group has got to, and goes on from there.
fn work(options: &KafkaOptions, positions: &Mutex<BTreeMap<u32, Position>>, stop: &AtomicBool, stay: Duration) {
    let mut source = KafkaSource::open(options).unwrap();
    let until = Instant::now() + stay;
    while Instant::now() < until && !stop.load(Ordering::Relaxed) {
        match next(&mut source, Duration::from_millis(50)) {
            Some(Delivery::Assigned(partition)) => {
                let mut positions = positions.lock().unwrap();
                let position = positions.entry(partition).or_default();
                position.owners += 1;
                source.begin(partition, position.offset).unwrap();
            }
            Some(Delivery::Record(record)) => {
                let mut positions = positions.lock().unwrap();
                let position = positions.entry(record.partition).or_default();
                // One that was overtaken by the next owner of the partition does not write: its state is older.
                if record.offset >= position.offset {
                    assert_eq!(numbers(std::slice::from_ref(&record))[0], position.number, "{}", record.partition);
                    position.offset = record.offset + 1;
                    position.number += 1;
                }
            }
            Some(Delivery::Revoked(_)) | None => {}
            Some(other) => panic!("{other:?}"),
        }
    }
}

#[test]
fn batches_that_cannot_be_read_are_passed_and_told() {
    let options = options(cluster(), "spoilt");
    let publisher = KafkaPublisher::open(&options).unwrap();
    for (partition, spoil) in [(0, Spoil::Checksum), (1, Spoil::Compression), (2, Spoil::Records)] {
        // Batches of a few records each: acknowledged one after the other, so never one batch.
        for batch in 0..8 {
            publish_all(&publisher, partition, batch * 5..batch * 5 + 5);
        }
        spoil_batches(&cluster().segment(0, &options.topics.telemetry, partition), spoil, &[12, 13, 22]);
    }
    publish_all(&publisher, 3, 0..40);
    let mut source = KafkaSource::open(&options).unwrap();
    begin_all(&mut source, 4);
    let mut seen = Seen::default();
    let begun = Instant::now();
    seen.take_until(&mut source, &BTreeMap::from([(0, 40), (1, 40), (2, 40), (3, 40)]));
    println!("passed in {:?}: {:#?}", begun.elapsed(), seen.skipped);
    let skipped = |partition| -> Vec<(u64, u64)> {
        seen.skipped.iter().filter(|skip| skip.0 == partition).map(|skip| (skip.1, skip.2)).collect()
    };
    for partition in 0..3 {
        let passed: u64 = skipped(partition).iter().map(|(first, next)| next - first).sum();
        assert!(passed > 0, "nothing of partition {partition} was told");
        assert_eq!(seen.counts[&partition] as u64 + passed, 40, "partition {partition}: {:?}", seen.skipped);
    }
    assert_eq!((seen.counts[&3], skipped(3)), (40, vec![]));
    // What comes later is read as ever.
    publish_all(&publisher, 2, 40..45);
    assert_eq!(numbers(&take(&mut source, 5)), [40, 41, 42, 43, 44]);
}

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

#[test]
fn passwords_and_certificates_open_the_secure_port_and_a_wrong_password_does_not() {
    let mut options = options(cluster(), "secure");
    options.brokers = cluster().secure_brokers();
    options.tls = Some(TlsOptions { ca: Some(cluster().ca()), ..TlsOptions::default() });
    let password = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(password.path(), format!("{}\n", broker::PASSWORD)).unwrap();
    for (mechanism, run) in [(SaslMechanism::Plain, "a"), (SaslMechanism::ScramSha512, "b")] {
        options.group = format!("secure-{run}");
        options.sasl = Some(SaslOptions {
            mechanism,
            username: broker::USER.to_owned(),
            password_file: Some(password.path().to_owned()),
            password_env: None,
        });
        let publisher = KafkaPublisher::open(&options).unwrap();
        let first = publish_all(&publisher, 0, 0..3)[0];
        let mut source = KafkaSource::open(&options).unwrap();
        wait_assigned(&mut source, 4);
        source.begin(0, first).unwrap();
        assert_eq!(numbers(&take(&mut source, 3)), [0, 1, 2]);
    }
    std::fs::write(password.path(), "guess").unwrap();
    let mut source = KafkaSource::open(&options).unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        match source.next(Duration::from_millis(100)) {
            Err(error @ SourceError::Refused { .. }) => break assert!(!error.to_string().contains("guess")),
            other => assert!(Instant::now() < deadline, "{other:?}"),
        }
    }
}

#[test]
fn topics_that_do_not_fit_are_refused() {
    let mut options = options(cluster(), "unfit");
    assert_eq!(create_topics(&options).unwrap(), Topics { partitions: 4, created: 0 });
    let state = std::mem::replace(&mut options.topics.state, options.topics.events.clone());
    let narrow = create_topics(&options).unwrap_err();
    assert!(narrow.to_string().contains("`unfit.events` has 1 partitions and must have 4"), "{narrow}");
    options.topics.state = state;
    options.topics.telemetry = "unfit.stamped".to_owned();
    let create = ["--create", "--topic", "unfit.stamped", "--partitions", "4"];
    cluster().tool("org.apache.kafka.tools.TopicCommand", &create);
    let stamped = create_topics(&options).unwrap_err();
    assert!(stamped.to_string().contains("LogAppendTime"), "{stamped}");
}

#[test]
fn a_compacted_topic_gives_the_latest_values_and_then_the_changes() {
    let options = options(cluster(), "latest");
    let state = Compacted::open(&options, &options.topics.state).unwrap();
    assert_eq!(state.partitions(), 4);
    assert!(state.read(&[0, 1, 2, 3], PATIENCE).unwrap().is_empty());

    let large = vec![9; 1 << 20];
    state.write(1, &[("a", Some(b"1")), ("b", Some(b"2")), ("a", Some(&large)), ("c", Some(b"3"))]).unwrap();
    state.write(1, &[("b", None)]).unwrap();
    state.write(2, &[("a", Some(b"other"))]).unwrap();
    let latest = state.read(&[0, 1, 2, 3], PATIENCE).unwrap();
    let key = |partition, key: &str| (partition, key.to_owned());
    assert_eq!(latest.keys().cloned().collect::<Vec<_>>(), [key(1, "a"), key(1, "c"), key(2, "a")]);
    assert_eq!(latest[&key(1, "a")], large);
    assert_eq!(state.read(&[2], PATIENCE).unwrap().len(), 1);

    let mut follower = state.follow(&[1]).unwrap();
    let mut changes = Vec::new();
    while changes.len() < 5 {
        changes.extend(follower.next(PATIENCE).unwrap());
    }
    state.write(1, &[("d", Some(b"4"))]).unwrap();
    let change = follower.next(PATIENCE).unwrap().unwrap();
    assert_eq!((change.partition, change.key.as_str(), change.value.as_deref()), (1, "d", Some(&b"4"[..])));
    assert!(changes.iter().all(|earlier| earlier.offset < change.offset));

    // One that cannot be read costs its own keys, not those behind it.
    for key in ["x", "y", "z"] {
        state.write(3, &[(key, Some(b"value"))]).unwrap();
    }
    spoil_batches(&cluster().segment(0, &options.topics.state, 3), Spoil::Checksum, &[1]);
    let latest = state.read(&[3], PATIENCE).unwrap();
    assert_eq!(latest.keys().cloned().collect::<Vec<_>>(), [key(3, "x"), key(3, "z")]);
}

#[test]
fn a_named_member_keeps_its_partitions_over_a_restart_and_has_one_body() {
    let mut options = options(cluster(), "member");
    options.member = Some("worker-7".to_owned());
    let publisher = KafkaPublisher::open(&options).unwrap();
    publish_all(&publisher, 2, 0..3);
    let mut source = KafkaSource::open(&options).unwrap();
    begin_all(&mut source, 4);
    take(&mut source, 3);
    drop(source);
    let mut source = KafkaSource::open(&options).unwrap();
    begin_all(&mut source, 4);
    take(&mut source, 3);
    // A second one of the same name is a mistake of whoever configured it: the first is told, and reads no more.
    let mut double = KafkaSource::open(&options).unwrap();
    wait_assigned(&mut double, 4);
    let deadline = Instant::now() + PATIENCE;
    loop {
        match source.next(Duration::from_millis(100)) {
            Err(SourceError::Refused { .. }) => break,
            other => assert!(Instant::now() < deadline, "{other:?}"),
        }
    }
}

/// Writes numbers into four partitions until it is stopped.
struct Feed {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<BTreeMap<u32, u32>>>,
}

impl Feed {
    fn start(publisher: Arc<KafkaPublisher>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut sent = BTreeMap::new();
            let failed = Arc::new(AtomicUsize::new(0));
            let (ack, acks) = mpsc::channel();
            while !stopped.load(Ordering::Relaxed) {
                for partition in 0..4 {
                    let number = sent.entry(partition).or_insert(0_u32);
                    let (ack, failed) = (ack.clone(), Arc::clone(&failed));
                    let published = move |place: Result<(u32, u64), SourceError>| {
                        failed.fetch_add(usize::from(place.is_err()), Ordering::Relaxed);
                        drop(ack.send(place));
                    };
                    publisher.publish_to(partition, &number.to_le_bytes(), Box::new(published));
                    *number += 1;
                }
                thread::sleep(Duration::from_millis(5));
            }
            for _ in 0..sent.values().sum() {
                acks.recv_timeout(PATIENCE).expect("every record is answered").unwrap();
            }
            assert_eq!(failed.load(Ordering::Relaxed), 0);
            sent
        });
        Self { stop, thread: Some(thread) }
    }

    /// Waits until all is acknowledged; returns how many records each partition got.
    fn stop(&mut self) -> BTreeMap<u32, u32> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("it is stopped once").join().unwrap()
    }
}

/// What came of each partition, checked for order as it comes.
#[derive(Debug, Default)]
struct Seen {
    next: BTreeMap<u32, u32>,
    counts: BTreeMap<u32, u32>,
    skipped: Vec<(u32, u64, u64, String)>,
}

impl Seen {
    fn take_for(&mut self, source: &mut dyn Source, wait: Duration) {
        let until = Instant::now() + wait;
        while Instant::now() < until {
            self.step(source);
        }
    }

    fn take_until(&mut self, source: &mut dyn Source, sent: &BTreeMap<u32, u32>) {
        let deadline = Instant::now() + PATIENCE;
        while self.next != *sent {
            assert!(Instant::now() < deadline, "of {sent:?} only {self:?}");
            self.step(source);
        }
    }

    fn step(&mut self, source: &mut dyn Source) {
        match next(source, Duration::from_millis(50)) {
            Some(Delivery::Record(record)) => {
                let due = self.next.entry(record.partition).or_default();
                assert_eq!(numbers(std::slice::from_ref(&record))[0], *due, "partition {}", record.partition);
                *due += 1;
                *self.counts.entry(record.partition).or_default() += 1;
            }
            Some(Delivery::Skipped { partition, first, next, reason }) => {
                let due = self.next.entry(partition).or_default();
                assert_eq!(first, u64::from(*due), "offsets are numbers here");
                *due = next as u32;
                self.skipped.push((partition, first, next, reason));
            }
            Some(Delivery::Assigned(partition)) => source.begin(partition, self.next[&partition].into()).unwrap(),
            Some(Delivery::Revoked(_)) | None => {}
        }
    }
}

/// How a batch is spoilt on the disk of a broker.
#[derive(Clone, Copy)]
enum Spoil {
    /// A byte of a record is another one; the checksum tells.
    Checksum,
    /// The batch says that it is compressed, and is not; its checksum is right.
    Compression,
    /// The lengths inside are nonsense; the checksum is right. librdkafka does not say a word of these.
    Records,
}

/// Spoils the batches that hold given offsets.
fn spoil_batches(segment: &Path, spoil: Spoil, offsets: &[u64]) {
    // Magic 2: base offset 8, length 4, leader epoch 4, magic 1, checksum 4, attributes 2, last offset delta 4, ...
    let mut file = OpenOptions::new().read(true).write(true).open(segment).unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    let mut at = 0;
    while at + 61 <= bytes.len() {
        let base = u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
        let length = u32::from_be_bytes(bytes[at + 8..at + 12].try_into().unwrap()) as usize;
        let last = base + u64::from(u32::from_be_bytes(bytes[at + 23..at + 27].try_into().unwrap()));
        let batch = &mut bytes[at..at + 12 + length];
        if offsets.iter().any(|offset| (base..=last).contains(offset)) {
            match spoil {
                Spoil::Checksum => batch[length + 11] ^= 0xff,
                Spoil::Compression => batch[22] = 4,
                Spoil::Records => batch[61..].fill(0xff),
            }
            if !matches!(spoil, Spoil::Checksum) {
                let checksum = crc32c(&batch[21..]);
                batch[17..21].copy_from_slice(&checksum.to_be_bytes());
            }
            file.seek(SeekFrom::Start(at as u64)).unwrap();
            file.write_all(batch).unwrap();
        }
        at += 12 + length;
    }
}

/// The checksum of a batch: CRC-32C, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
    })
}
