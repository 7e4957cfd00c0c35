use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::mpsc::channel;
use std::time::Duration;

use super::*;
use crate::{Delivery, Source};

const LONG: Duration = Duration::from_secs(5);

fn open(dir: &Path) -> EmbeddedLog {
    let options = EmbeddedOptions { partitions: 2, segment_bytes: 200, kept_bytes: 400 };
    EmbeddedLog::open(dir, options, Arc::new(|| 7)).expect("the log opens")
}

/// Appends values to partition 0 and waits until each is durable.
fn append(log: &EmbeddedLog, values: &[&str]) -> Vec<u64> {
    let (sender, receiver) = channel();
    for value in values {
        let sender = sender.clone();
        log.publish_to(0, value.as_bytes(), Box::new(move |done| sender.send(done).expect("the test waits")));
    }
    values.iter().map(|_| receiver.recv().expect("told once each").expect("durable").1).collect()
}

/// Everything in partition 0 from an offset on, as texts; damage as `first..next`.
fn read(log: &EmbeddedLog, from: u64) -> Vec<String> {
    let mut source = log.source();
    source.begin(0, from).expect("the partition is there");
    let mut texts = Vec::new();
    while let Some(delivery) = source.next(Duration::ZERO).expect("the log reads") {
        match delivery {
            Delivery::Record(record) => {
                assert_eq!((record.partition, record.append_time), (0, 7));
                texts.push(String::from_utf8(record.value).expect("texts were written"));
            }
            Delivery::Skipped { first, next, .. } => texts.push(format!("{first}..{next}")),
            Delivery::Assigned(_) | Delivery::Revoked(_) => {}
        }
    }
    texts
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> =
        fs::read_dir(dir.join("partition-0")).expect("a folder").map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

#[test]
fn records_come_back_in_order_over_segments_and_openings() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let texts: Vec<String> = (0..20).map(|number| format!("record {number}")).collect();
    let refs: Vec<&str> = texts.iter().map(String::as_str).collect();
    {
        let log = open(dir.path());
        for (offset, text) in (0..).zip(&refs[..12]) {
            assert_eq!(append(&log, &[text]), [offset]);
        }
    }
    let log = open(dir.path());
    for text in &refs[12..] {
        append(&log, &[text]);
    }
    assert!(segments(dir.path()).len() > 2, "a segment takes 200 bytes");
    assert_eq!(read(&log, 0), texts);
    assert_eq!(read(&log, 13), texts[13..]);
}

#[test]
fn a_torn_tail_is_cut_off_wherever_it_tears() {
    let whole = tempfile::tempdir().expect("a temporary folder");
    append(&open(whole.path()), &["one", "two"]);
    let path = segments(whole.path()).remove(0);
    let bytes = fs::read(&path).expect("a segment");
    let second = bytes.len() / 2;
    for cut in second..bytes.len() {
        fs::write(&path, &bytes[..cut]).expect("cut");
        let log = open(whole.path());
        assert_eq!(read(&log, 0), ["one"], "cut at byte {cut}");
        assert_eq!(append(&log, &["three"]), [1]);
        assert_eq!(read(&log, 0), ["one", "three"]);
    }
}

#[test]
fn a_damaged_record_is_skipped_and_told_and_the_others_come() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    append(&open(dir.path()), &["one", "two", "three"]);
    let path = segments(dir.path()).remove(0);
    let mut file = fs::OpenOptions::new().read(true).write(true).open(&path).expect("a segment");
    let at = (segment::HEADER_BYTES + 3 + segment::HEADER_BYTES) as u64;
    let mut byte = [0];
    file.seek(SeekFrom::Start(at)).and_then(|_| file.read_exact(&mut byte)).expect("a byte of `two`");
    file.seek(SeekFrom::Start(at)).and_then(|_| file.write_all(&[byte[0] ^ 1])).expect("one bit flipped");
    drop(file);
    let log = open(dir.path());
    assert_eq!(read(&log, 0), ["one", "1..2", "three"]);
}

#[test]
fn consumed_segments_go_and_a_reader_that_wants_them_begins_at_the_oldest() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let log = open(dir.path());
    for number in 0..60 {
        append(&log, &[&format!("record {number:02}")]);
    }
    let mut source = log.source();
    source.commit(0, 10).expect("advisory");
    let kept = read(&log, 0);
    assert!(kept.len() < 60 && kept.contains(&"record 10".to_owned()), "{kept:?}");
    source.commit(0, 60).expect("advisory");
    let kept = read(&log, 0);
    assert!(kept.len() < 60 && kept.last().is_some_and(|last| last == "record 59"), "{kept:?}");
}

#[test]
fn a_reader_waits_for_what_comes_and_no_longer() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let log = open(dir.path());
    let mut source = log.source();
    source.begin(0, 0).expect("the partition is there");
    assert_eq!(source.next(LONG).expect("reads"), Some(Delivery::Assigned(0)));
    assert_eq!(source.next(LONG).expect("reads"), Some(Delivery::Assigned(1)));
    assert_eq!(source.next(Duration::ZERO).expect("reads"), None);
    let reader = std::thread::spawn(move || source.next(LONG));
    append(&log, &["late"]);
    let delivery = reader.join().expect("no panic").expect("reads");
    assert!(matches!(delivery, Some(Delivery::Record(record)) if record.value == b"late"));
}

#[test]
fn a_log_is_open_once_and_one_of_a_newer_version_is_refused() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let log = open(dir.path());
    let again = EmbeddedLog::open(dir.path(), EmbeddedOptions::default(), Arc::new(|| 7));
    assert!(again.expect_err("it is open").to_string().contains("another process has it open"));
    drop(log);
    fs::write(dir.path().join("log.json"), r#"{"version": 99, "partitions": 2}"#).expect("written");
    let newer = EmbeddedLog::open(dir.path(), EmbeddedOptions::default(), Arc::new(|| 7));
    assert!(newer.expect_err("it is newer").to_string().contains("layout 99"));
}

#[test]
fn a_disk_that_fails_is_told_and_the_log_goes_on_where_it_was() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let log = open(dir.path());
    append(&log, &["one"]);
    let (sender, receiver) = channel();
    log.publish_to(9, b"lost", Box::new(move |done| sender.send(done).expect("the test waits")));
    assert!(receiver.recv().expect("told").is_err(), "there is no partition 9");
    assert_eq!(append(&log, &["two"]), [1]);
}
