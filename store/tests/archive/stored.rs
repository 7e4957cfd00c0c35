//! A folder of parts: nothing is lost when the store fails, and what is old goes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::faulty::{Failure, Faulty};
use crate::log::{MIDNIGHT_NS, SECOND_NS, Sent, cuts, log};
use object_store::memory::InMemory;
use trainwarden_store::{Archive, ArchiveError, ArchiveOptions, PartLimits, Why};
use trainwarden_telemetry::Fault;

const LIMITS: PartLimits = PartLimits { seconds: 900, bytes_max: 40_000 };
const DAY_NS: i64 = 86_400 * SECOND_NS;

type Files = BTreeMap<String, bytes::Bytes>;

fn in_folder(path: &Path) -> Archive {
    Archive::open(ArchiveOptions::default(), path).expect("opened")
}

/// Reads the log from a position and stores what is cut, as the service does; the position that is archived then.
async fn archive_from(archive: &Archive, log: &[Sent], mut position: u64) -> (u64, Option<ArchiveError>) {
    let (cuts, _) = cuts(log, position, LIMITS);
    for cut in cuts {
        if let Err(error) = archive.write(&cut.encode().expect("encoded")).await {
            return (position, Some(error));
        }
        position = cut.position;
    }
    (position, None)
}

async fn files(archive: &Archive) -> Files {
    let mut files = Files::new();
    for part in archive.parts().await.expect("listed") {
        let bytes = archive.read(&part.name).await.expect("read");
        assert_eq!(bytes.len() as u64, part.bytes);
        files.insert(part.name.path(), bytes);
    }
    files
}

#[tokio::test]
async fn a_folder_holds_the_parts_under_their_names_and_a_repeat_changes_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let archive = in_folder(dir.path());
    let log = log(1, 300);
    let (end, error) = archive_from(&archive, &log, 0).await;
    assert!(error.is_none() && end > 0);
    let once = files(&archive).await;
    for (path, bytes) in &once {
        assert!(std::fs::read(dir.path().join("archive").join(path)).expect("on disk") == *bytes, "{path}");
    }
    assert!(
        once.keys().any(|path| path.contains("/run=a b%2Fc%3Dd/")) && once.keys().any(|path| path.contains("/run=../"))
    );
    archive_from(&archive, &log, 0).await;
    assert!(files(&archive).await == once, "a repeat writes the same");
}

#[tokio::test]
async fn a_store_that_fails_at_any_call_loses_nothing_and_the_repeat_gives_the_same_files() {
    let log = log(2, 50);
    let whole = Archive::over(Arc::new(InMemory::new()), ArchiveOptions::default());
    let (end, _) = archive_from(&whole, &log, 0).await;
    let expected = files(&whole).await;
    assert!(expected.len() > 6, "{} parts", expected.len());
    for succeeding in 0..expected.len() {
        for failure in [Failure::DiskFull, Failure::Timeout, Failure::LostAnswer, Failure::Forbidden] {
            let store = Arc::new(Faulty::new(Arc::new(InMemory::new()), failure, succeeding as i64));
            let archive = Archive::over(Arc::clone(&store) as _, ArchiveOptions::default());
            let (position, error) = archive_from(&archive, &log, 0).await;
            let error = error.expect("told");
            assert!(matches!(error, ArchiveError::Write { .. }), "{error:?}");
            assert!(error.is_retryable() && error.fault() == Fault::Outside);
            assert_eq!(error.is_disk_full(), matches!(failure, Failure::DiskFull), "{failure:?}");
            assert!(error.to_string().starts_with("cannot write part `table="), "{error}");
            store.mend();
            // The process may as well have died there: what was cut is cut again from the position that was kept.
            assert_eq!(archive_from(&archive, &log, position).await.0, end);
            assert!(files(&archive).await == expected, "{failure:?} after {succeeding} parts");
        }
    }
}

#[tokio::test]
async fn a_store_that_cannot_be_listed_or_read_says_so() {
    let store = Arc::new(Faulty::new(Arc::new(InMemory::new()), Failure::Timeout, 0));
    let archive = Archive::over(store, ArchiveOptions::default());
    let listed = archive.parts().await.expect_err("told");
    assert_eq!((listed.to_string(), listed.is_retryable()), ("cannot list the archive `faulty`".to_owned(), true));
    assert!(archive.retain(MIDNIGHT_NS).await.is_err());
}

#[tokio::test]
async fn a_part_that_cannot_be_removed_is_told_and_tried_again() {
    let inner = Arc::new(InMemory::new());
    let options = ArchiveOptions { bytes_max: 1, ..ArchiveOptions::default() };
    archive_from(&Archive::over(Arc::clone(&inner) as _, options.clone()), &log(3, 100), 0).await;
    let store = Arc::new(Faulty::new(inner, Failure::Timeout, 1)); // The list succeeds.
    let archive = Archive::over(Arc::clone(&store) as _, options);
    let removed = archive.retain(MIDNIGHT_NS).await.expect("listed");
    assert!(removed.parts.is_empty() && removed.failed.len() as u64 == removed.kept_parts - 1);
    assert!(
        removed.failed.iter().all(|error| error.is_retryable() && error.to_string().starts_with("cannot remove part"))
    );
    store.mend();
    let again = archive.retain(MIDNIGHT_NS).await.expect("listed");
    assert!(again.failed.is_empty() && again.kept_parts == 1, "the newest stays");
}

#[tokio::test]
async fn what_is_old_goes_what_is_begun_and_left_goes_and_strangers_stay() {
    let dir = tempfile::tempdir().expect("a folder");
    let archive = in_folder(dir.path());
    archive_from(&archive, &log(4, 300), 0).await;
    let before = archive.parts().await.expect("listed");
    let folder = dir.path().join("archive");
    let begun = folder.join(format!("{}#1", before[0].name));
    let stranger = folder.join("table=samples/notes.txt");
    std::fs::write(&begun, "half").expect("written");
    std::fs::write(&stranger, "mine").expect("written");
    let now = before.iter().map(|part| part.written).max().expect("some");
    let removed = archive.retain(now).await.expect("retained");
    assert!(removed.parts.is_empty() && removed.kept_parts == before.len() as u64 && begun.exists());
    let later = archive.retain(now + 400 * DAY_NS).await.expect("retained");
    assert!(later.parts.len() == before.len() - 1 && later.parts.iter().all(|part| part.why == Why::Old));
    assert_eq!(later.kept_parts, 1);
    let freed: u64 = later.parts.iter().map(|part| part.bytes).sum();
    assert_eq!(removed.kept_bytes - freed, later.kept_bytes);
    assert!(!begun.exists() && stranger.exists());
    assert_eq!(archive.parts().await.expect("listed").len(), 1);
}

#[test]
fn options_are_read_from_toml_and_what_makes_no_sense_is_refused() {
    let options: ArchiveOptions = toml::from_str("path = \"/srv/a\"\nretention_days = 7").expect("read");
    assert_eq!((options.retention_days, options.part_seconds), (7, 900));
    let unknown = toml::from_str::<ArchiveOptions>("retention_day = 7").expect_err("refused");
    assert!(unknown.to_string().contains("retention_day"), "{unknown}");
    let dir = tempfile::tempdir().expect("a folder");
    let refused = |options: ArchiveOptions| Archive::open(options, dir.path()).expect_err("refused").to_string();
    let told = refused(ArchiveOptions { part_seconds: 7_000, ..ArchiveOptions::default() });
    assert!(told.starts_with("archive setting `part_seconds` is 7000, accepted is"), "{told}");
    let told = refused(ArchiveOptions { part_bytes_max: 5, ..ArchiveOptions::default() });
    assert!(told.starts_with("archive setting `part_bytes_max` is 5"), "{told}");
    let told = refused(ArchiveOptions { url: Some("ftp://x".into()), ..ArchiveOptions::default() });
    assert!(told.contains("accepted are `s3://bucket/prefix`"), "{told}");
    let both = ArchiveOptions { url: Some("s3://x".into()), path: Some("y".into()), ..ArchiveOptions::default() };
    assert!(refused(both).contains("one place"));
}
