//! Brokers killed, held still and spoilt on their disk, and consumers in a storm: nothing is lost, nothing comes twice.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use trainwarden_ingest::kafka::{KafkaOptions, KafkaPublisher, KafkaSource};
use trainwarden_ingest::{Delivery, Source};

use crate::broker::Cluster;
use crate::feed::{Feed, Seen};
use crate::source_suite::{begin_all, next, numbers, publish_all, take};
use crate::spoil::{Spoil, spoil_batches};
use crate::{PATIENCE, cluster, options};

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
    let owners = || positions.lock().unwrap().values().map(|position| position.owners).sum::<u32>();
    let deadline = Instant::now() + PATIENCE;
    // A storm moves partitions: on a loaded machine it takes its time.
    while owners() < 10 {
        assert!(Instant::now() < deadline, "only {} partitions were taken over", owners());
        thread::sleep(Duration::from_millis(50));
    }
    let sent = feed.stop();
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
