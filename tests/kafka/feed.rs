//! What is written while faults happen, and what comes of it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use trainwarden_ingest::kafka::KafkaPublisher;
use trainwarden_ingest::{Delivery, Publisher, Source, SourceError};

use crate::PATIENCE;
use crate::source_suite::{next, numbers};

/// Writes numbers into four partitions until it is stopped.
pub(crate) struct Feed {
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<BTreeMap<u32, u32>>>,
}

impl Feed {
    pub(crate) fn start(publisher: Arc<KafkaPublisher>) -> Self {
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
    pub(crate) fn stop(&mut self) -> BTreeMap<u32, u32> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().expect("it is stopped once").join().unwrap()
    }
}

/// What came of each partition, checked for order as it comes.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    next: BTreeMap<u32, u32>,
    pub(crate) counts: BTreeMap<u32, u32>,
    /// Partition, first, next, and why.
    pub(crate) skipped: Vec<(u32, u64, u64, String)>,
}

impl Seen {
    pub(crate) fn take_for(&mut self, source: &mut dyn Source, wait: Duration) {
        let until = Instant::now() + wait;
        while Instant::now() < until {
            self.step(source);
        }
    }

    pub(crate) fn take_until(&mut self, source: &mut dyn Source, sent: &BTreeMap<u32, u32>) {
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
