//! What every log must keep, whichever it is: one suite, stamped for each implementation.
//!
//! ```ignore
//! #[macro_use]
//! #[path = "suite/source_suite.rs"]
//! mod source_suite;
//! source_suite!(MyRig::new());
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use trainwarden_ingest::{Delivery, LogRecord, Publisher, Source, SourceError, partition_of};

/// Longest wait for anything that must come: a group that forms takes seconds, a loaded machine more.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long nothing must come, where nothing may.
const QUIET: Duration = Duration::from_millis(300);

/// A log under test: new and empty, with at least two partitions.
pub(crate) trait Rig {
    /// Opens the log, as a process that starts would.
    fn open(&mut self) -> (Box<dyn Source>, Arc<dyn Publisher>);

    /// Ends the log as a crash would, where it lives in our process. What was opened before is dropped by then.
    fn restart(&mut self);

    /// Another reader that shares the partitions with the first one; `None` where a log has one reader only.
    fn second(&mut self) -> Option<Box<dyn Source>> {
        None
    }
}

/// The tests of the suite, on a rig that the expression makes anew for each.
macro_rules! source_suite {
    ($rig:expr) => {
        source_suite!(@stamp $rig;
            records_of_a_partition_come_once_and_in_order
            nothing_comes_before_a_partition_is_begun
            reading_begins_at_the_offset_that_was_asked_for
            a_partition_may_be_begun_again
            at_the_end_the_source_waits_and_then_goes_on
            a_commit_is_advice_and_moves_nothing
            what_was_acknowledged_is_there_after_a_restart
            a_slow_caller_loses_nothing
            a_key_has_one_partition_and_keeps_its_order
            large_and_empty_values_come_back_whole
            a_record_that_is_too_large_is_refused
            append_times_do_not_descend
            a_second_reader_takes_over_and_nothing_more_comes_of_what_was_revoked
        );
    };
    (@stamp $rig:expr; $($test:ident)*) => {
        $(#[test]
        fn $test() {
            source_suite::$test(&mut $rig);
        })*
    };
}

pub(crate) fn records_of_a_partition_come_once_and_in_order(rig: &mut dyn Rig) {
    let (mut source, publisher) = rig.open();
    let places = publish_all(&*publisher, 0, 0..500);
    assert!(places.is_sorted(), "offsets ascend: {places:?}");
    begin_all(&mut *source, publisher.partitions());
    let records = take(&mut *source, 500);
    assert_eq!(numbers(&records), (0..500).collect::<Vec<u32>>());
    assert_eq!(records.iter().map(|record| record.offset).collect::<Vec<_>>(), places);
    assert_eq!(source.next(QUIET).unwrap(), None);
}

pub(crate) fn nothing_comes_before_a_partition_is_begun(rig: &mut dyn Rig) {
    let (mut source, publisher) = rig.open();
    publish_all(&*publisher, 0, 0..10);
    publish_all(&*publisher, 1, 10..20);
    wait_assigned(&mut *source, publisher.partitions());
    source.begin(1, 0).unwrap();
    assert_eq!(numbers(&take(&mut *source, 10)), (10..20).collect::<Vec<u32>>());
    assert_eq!(source.next(QUIET).unwrap(), None);
}

pub(crate) fn reading_begins_at_the_offset_that_was_asked_for(rig: &mut dyn Rig) {
    let (mut source, publisher) = rig.open();
    let places = publish_all(&*publisher, 0, 0..100);
    wait_assigned(&mut *source, publisher.partitions());
    source.begin(0, places[40]).unwrap();
    let records = take(&mut *source, 60);
    assert_eq!(records[0].offset, places[40]);
    assert_eq!(numbers(&records), (40..100).collect::<Vec<u32>>());
}

pub(crate) fn a_partition_may_be_begun_again(rig: &mut dyn Rig) {
    let (mut source, publisher) = rig.open();
    let places = publish_all(&*publisher, 0, 0..100);
    wait_assigned(&mut *source, publisher.partitions());
    source.begin(0, places[50]).unwrap();
    assert_eq!(take(&mut *source, 5)[0].offset, places[50]);
    source.begin(0, places[10]).unwrap();
    assert_eq!(numbers(&take(&mut *source, 90)), (10..100).collect::<Vec<u32>>());
}

pub(crate) fn at_the_end_the_source_waits_and_then_goes_on(rig: &mut dyn Rig) {
    let (mut source, publisher) = rig.open();
    begin_all(&mut *source, publisher.partitions());
    let begun = Instant::now();
    assert_eq!(source.next(QUIET).unwrap(), None);
    assert!(begun.elapsed() >= QUIET, "an empty log is waited for");
    publish_all(&*publisher, 1, 0..3);
    assert_eq!(numbers(&take(&mut *source, 3)), [0, 1, 2]);
}

pub(crate) fn a_commit_is_advice_and_moves_nothing(rig: &mut dyn Rig) {
    let (mut source, publisher) = rig.open();
    let places = publish_all(&*publisher, 0, 0..20);
    begin_all(&mut *source, publisher.partitions());
    assert_eq!(numbers(&take(&mut *source, 10)), (0..10).collect::<Vec<u32>>());
    source.commit(0, places[10]).unwrap();
    source.commit(0, places[3]).unwrap();
    assert_eq!(numbers(&take(&mut *source, 10)), (10..20).collect::<Vec<u32>>());
    drop((source, publisher));
    rig.restart();
    let (mut source, publisher) = rig.open();
    begin_all(&mut *source, publisher.partitions());
    assert_eq!(numbers(&take(&mut *source, 20)), (0..20).collect::<Vec<u32>>());
}

pub(crate) fn what_was_acknowledged_is_there_after_a_restart(rig: &mut dyn Rig) {
    let (source, publisher) = rig.open();
    let before = publish_all(&*publisher, 0, 0..50);
    drop((source, publisher));
    rig.restart();
    let (mut source, publisher) = rig.open();
    let after = publish_all(&*publisher, 0, 50..60);
    assert!(after[0] > before[49], "offsets go on: {before:?}, then {after:?}");
    begin_all(&mut *source, publisher.partitions());
    let records = take(&mut *source, 60);
    assert_eq!(numbers(&records), (0..60).collect::<Vec<u32>>());
    assert_eq!(records.iter().map(|record| record.offset).collect::<Vec<_>>(), [before, after].concat());
}

pub(crate) fn a_slow_caller_loses_nothing(rig: &mut dyn Rig) {
    // More than any queue between the log and its caller holds, in records and in bytes.
    const RECORDS: u32 = 6_000;
    let (mut source, publisher) = rig.open();
    begin_all(&mut *source, publisher.partitions());
    let padding = vec![7; 16 << 10];
    let acks = send(&*publisher, |number| (number % 2, [&number.to_le_bytes()[..], &padding[..]].concat()), 0..RECORDS);
    wait_acks(&acks, RECORDS as usize);
    // Longer than a source waits for room before it pauses.
    std::thread::sleep(Duration::from_secs(3));
    let records = take(&mut *source, RECORDS as usize);
    for partition in 0..2 {
        let own: Vec<LogRecord> = records.iter().filter(|record| record.partition == partition).cloned().collect();
        assert_eq!(numbers(&own), (0..RECORDS).filter(|number| number % 2 == partition).collect::<Vec<u32>>());
    }
}

pub(crate) fn a_key_has_one_partition_and_keeps_its_order(rig: &mut dyn Rig) {
    let (mut source, publisher) = rig.open();
    let partitions = publisher.partitions();
    let keys = two_keys(partitions);
    let (ack, acks) = mpsc::channel();
    for number in 0..100_u32 {
        for key in &keys {
            let ack = ack.clone();
            publisher.publish(key, &number.to_le_bytes(), Box::new(move |place| ack.send(place).unwrap()));
        }
    }
    wait_acks(&acks, 200);
    begin_all(&mut *source, partitions);
    let records = take(&mut *source, 200);
    for key in &keys {
        let partition = partition_of(key, partitions);
        let own: Vec<LogRecord> = records.iter().filter(|record| record.partition == partition).cloned().collect();
        assert_eq!(numbers(&own), (0..100).collect::<Vec<u32>>(), "{key}");
    }
}

pub(crate) fn large_and_empty_values_come_back_whole(rig: &mut dyn Rig) {
    let (mut source, publisher) = rig.open();
    let values: Vec<Vec<u8>> =
        [0, 1, 100_000, 4 << 20, 0].iter().map(|bytes| (0..*bytes).map(|at: u32| (at % 251) as u8).collect()).collect();
    let (ack, acks) = mpsc::channel();
    for value in &values {
        let ack = ack.clone();
        publisher.publish_to(0, value, Box::new(move |place| ack.send(place).unwrap()));
    }
    wait_acks(&acks, values.len());
    begin_all(&mut *source, publisher.partitions());
    let records = take(&mut *source, values.len());
    assert!(records.iter().map(|record| &record.value).eq(&values), "values differ");
}

pub(crate) fn a_record_that_is_too_large_is_refused(rig: &mut dyn Rig) {
    let (_source, publisher) = rig.open();
    let (ack, acks) = mpsc::channel();
    publisher.publish_to(0, &vec![0; 64 << 20], Box::new(move |place| ack.send(place).unwrap()));
    let refused = acks.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(refused, Err(SourceError::TooLarge { .. })), "{refused:?}");
    publish_all(&*publisher, 0, 0..1);
}

pub(crate) fn append_times_do_not_descend(rig: &mut dyn Rig) {
    let (mut source, publisher) = rig.open();
    let now_ns = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as i64;
    for round in 0..5 {
        publish_all(&*publisher, 0, round..round + 1);
        std::thread::sleep(Duration::from_millis(3));
    }
    begin_all(&mut *source, publisher.partitions());
    let times: Vec<i64> = take(&mut *source, 5).iter().map(|record| record.append_time).collect();
    assert!(times.is_sorted(), "{times:?}");
    assert!((times[0] - now_ns).abs() < 60_000_000_000, "nanoseconds since the epoch: {times:?}, now {now_ns}");
}

pub(crate) fn a_second_reader_takes_over_and_nothing_more_comes_of_what_was_revoked(rig: &mut dyn Rig) {
    let (mut first, publisher) = rig.open();
    let partitions = publisher.partitions();
    begin_all(&mut *first, partitions);
    let Some(mut second) = rig.second() else { return };
    let mut readers = [Reading::default(), Reading::default()];
    readers[0].owned = (0..partitions).collect();
    let deadline = Instant::now() + PATIENCE;
    let mut sent = BTreeMap::new();
    // Records go on while the partitions move, and for a while after.
    while readers[1].owned.is_empty() || readers[0].owned.len() + readers[1].owned.len() != partitions as usize {
        assert!(Instant::now() < deadline, "the second reader got nothing: {readers:?}");
        for partition in 0..partitions {
            let number = sent.entry(partition).or_insert(0_u32);
            publish_all(&*publisher, partition, *number..*number + 5);
            *number += 5;
        }
        readers[0].step(&mut *first, Duration::from_millis(20));
        readers[1].step(&mut *second, Duration::from_millis(20));
    }
    for (partition, number) in &sent {
        publish_all(&*publisher, *partition, *number..*number + 5);
    }
    let whole = |readers: &[Reading; 2]| {
        sent.iter().all(|(partition, number)| {
            let owner = readers.iter().find(|reader| reader.owned.contains(partition)).expect("each has an owner");
            owner.last.get(partition) == Some(&(number + 4))
        })
    };
    while !whole(&readers) {
        assert!(Instant::now() < deadline, "records are missing: {readers:?}");
        readers[0].step(&mut *first, Duration::from_millis(20));
        readers[1].step(&mut *second, Duration::from_millis(20));
    }
}

/// What one of two readers has seen.
#[derive(Debug, Default)]
struct Reading {
    owned: BTreeSet<u32>,
    last: BTreeMap<u32, u32>,
}

impl Reading {
    /// Takes what comes; each partition is begun at its start when it is assigned.
    fn step(&mut self, source: &mut dyn Source, wait: Duration) {
        while let Some(delivery) = next(source, wait) {
            match delivery {
                Delivery::Assigned(partition) => {
                    assert!(self.owned.insert(partition), "{partition} was ours already");
                    self.last.remove(&partition);
                    source.begin(partition, 0).unwrap();
                }
                Delivery::Revoked(partition) => assert!(self.owned.remove(&partition), "{partition} was not ours"),
                Delivery::Record(record) => {
                    assert!(
                        self.owned.contains(&record.partition),
                        "a record of {} after it was revoked",
                        record.partition
                    );
                    let number = numbers(std::slice::from_ref(&record))[0];
                    let due = self.last.get(&record.partition).map_or(0, |last| last + 1);
                    assert_eq!(number, due, "partition {}", record.partition);
                    self.last.insert(record.partition, number);
                }
                Delivery::Skipped { .. } => panic!("{delivery:?}"),
            }
        }
    }
}

/// The next delivery; what may be tried again counts as nothing.
pub(crate) fn next(source: &mut dyn Source, wait: Duration) -> Option<Delivery> {
    match source.next(wait) {
        Ok(delivery) => delivery,
        Err(error) if error.is_retryable() => None,
        Err(error) => panic!("{error}"),
    }
}

/// Waits until all partitions are assigned.
pub(crate) fn wait_assigned(source: &mut dyn Source, partitions: u32) {
    let deadline = Instant::now() + PATIENCE;
    let mut assigned = BTreeSet::new();
    while assigned.len() < partitions as usize {
        assert!(Instant::now() < deadline, "only {assigned:?} of {partitions} partitions were assigned");
        match next(source, Duration::from_millis(100)) {
            Some(Delivery::Assigned(partition)) => assert!(assigned.insert(partition), "{partition} twice"),
            None => {}
            Some(other) => panic!("{other:?} before anything was begun"),
        }
    }
    assert!(assigned.iter().copied().eq(0..partitions), "{assigned:?}");
}

/// Waits until all partitions are assigned, and begins each at its start.
pub(crate) fn begin_all(source: &mut dyn Source, partitions: u32) {
    wait_assigned(source, partitions);
    for partition in 0..partitions {
        source.begin(partition, 0).unwrap();
    }
}

/// The next records, of any partition.
pub(crate) fn take(source: &mut dyn Source, count: usize) -> Vec<LogRecord> {
    let deadline = Instant::now() + PATIENCE;
    let mut records = Vec::new();
    while records.len() < count {
        assert!(Instant::now() < deadline, "only {} of {count} records came", records.len());
        match next(source, Duration::from_millis(100)) {
            Some(Delivery::Record(record)) => records.push(record),
            None => {}
            Some(other) => panic!("{other:?} among the records"),
        }
    }
    records
}

/// Writes numbers into a partition and waits until they are durable; returns their offsets.
pub(crate) fn publish_all(publisher: &dyn Publisher, partition: u32, numbers: std::ops::Range<u32>) -> Vec<u64> {
    let count = numbers.len();
    let acks = send(publisher, |number| (partition, number.to_le_bytes().to_vec()), numbers);
    let mut places = wait_acks(&acks, count);
    assert!(places.iter().all(|(found, _)| *found == partition), "{places:?}");
    places.sort_unstable();
    places.into_iter().map(|(_, offset)| offset).collect()
}

type Acks = mpsc::Receiver<Result<(u32, u64), SourceError>>;

fn send(publisher: &dyn Publisher, record: impl Fn(u32) -> (u32, Vec<u8>), numbers: std::ops::Range<u32>) -> Acks {
    let (ack, acks) = mpsc::channel();
    for number in numbers {
        let ack = ack.clone();
        let (partition, value) = record(number);
        publisher.publish_to(partition, &value, Box::new(move |place| drop(ack.send(place))));
    }
    acks
}

fn wait_acks(acks: &Acks, count: usize) -> Vec<(u32, u64)> {
    (0..count).map(|_| acks.recv_timeout(PATIENCE).expect("every record is answered").unwrap()).collect()
}

/// The numbers that records hold in their first four bytes.
pub(crate) fn numbers(records: &[LogRecord]) -> Vec<u32> {
    records.iter().map(|record| u32::from_le_bytes(record.value[..4].try_into().unwrap())).collect()
}

/// Two keys of different partitions.
fn two_keys(partitions: u32) -> [String; 2] {
    let first = "run-0".to_owned();
    let other = (1..).map(|number| format!("run-{number}"));
    let mut other = other.filter(|key| partition_of(key, partitions) != partition_of(&first, partitions));
    let second = other.next().expect("there are at least two partitions");
    [first, second]
}
