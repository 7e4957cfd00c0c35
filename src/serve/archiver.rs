//! The thread that keeps: reads the log at its own pace and writes what came to the archive.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tracing::{info, warn};
use trainwarden_ingest::wire::{FrameError, OpenedFrame};
use trainwarden_ingest::{Delivery, LogRecord, Source};
use trainwarden_proto::v1::Mark;
use trainwarden_store::{Archive, Cut, OpenParts, Part, PartLimits, Record, StateStore};

use super::desk::Desk;
use crate::partition_judge::Admission;

/// How long the log may be quiet before the archiver looks whether the service stops.
const WAIT: Duration = Duration::from_millis(200);
/// Pause before something outside that failed is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How often old parts are looked for.
const RETAIN_EVERY: Duration = Duration::from_secs(600);

/// What an archiver works with.
pub(super) struct ArchiverParts {
    /// A reader of the log of its own.
    pub(super) source: Box<dyn Source>,
    /// Where parts go.
    pub(super) archive: Archive,
    /// Where parts are cut.
    pub(super) limits: PartLimits,
    /// Where it is noted how far the archive is.
    pub(super) store: Arc<StateStore>,
    /// Whom it tells how it is.
    pub(super) desk: Arc<Desk>,
    /// What is taken.
    pub(super) admission: Admission,
    /// Set when the service stops.
    pub(super) stop: Arc<AtomicBool>,
}

/// Writes the log to the archive.
pub(super) struct Archiver {
    parts: ArchiverParts,
    open: BTreeMap<u32, OpenPartition>,
}

/// The parts of a partition that are not cut yet.
struct OpenPartition {
    parts: OpenParts,
    /// Frames since the last cut: one that was sent twice is kept once. Older ones are forgotten, so that a reader who
    /// begins at a cut keeps the same rows.
    kept: HashSet<u128>,
}

impl OpenPartition {
    fn new(partition: u32, limits: PartLimits) -> Self {
        Self { parts: OpenParts::new(partition, limits), kept: HashSet::new() }
    }
}

impl Archiver {
    /// An archiver that has read nothing.
    pub(super) fn new(parts: ArchiverParts) -> Self {
        Self { parts, open: BTreeMap::new() }
    }

    /// Works until the service stops; what is open then is read again after the next start.
    pub(super) fn run(mut self, runtime: &Handle) {
        let mut retain_at = Instant::now();
        while !self.has_stopped() {
            match self.parts.source.next(WAIT) {
                Ok(Some(delivery)) => self.take(delivery, runtime),
                Ok(None) => {}
                Err(error) => {
                    warn!(%error, "the log cannot be read for the archive; trying again");
                    std::thread::sleep(RETRY_AFTER);
                }
            }
            if Instant::now() >= retain_at {
                retain_at = Instant::now() + RETAIN_EVERY;
                match runtime.block_on(self.parts.archive.retain(self.parts.desk.now())) {
                    Ok(removed) if removed.parts.is_empty() => {}
                    Ok(removed) => info!(parts = removed.parts.len(), "old parts were removed from the archive"),
                    Err(error) => warn!(%error, "old parts cannot be removed from the archive"),
                }
            }
        }
    }

    fn has_stopped(&self) -> bool {
        self.parts.stop.load(Ordering::Relaxed)
    }

    fn take(&mut self, delivery: Delivery, runtime: &Handle) {
        match delivery {
            Delivery::Assigned(partition) => {
                let store = Arc::clone(&self.parts.store);
                let Some(position) = self.patiently("read how far the archive is", || store.archived(partition)) else {
                    return;
                };
                self.open.insert(partition, OpenPartition::new(partition, self.parts.limits));
                if let Err(error) = self.parts.source.begin(partition, position) {
                    warn!(partition, %error, "the log cannot be read for the archive");
                }
            }
            Delivery::Revoked(partition) => _ = self.open.remove(&partition),
            Delivery::Record(record) => self.keep(&record, runtime),
            // The judge tells of them, and keeps them as evidence.
            Delivery::Skipped { .. } => {}
        }
    }

    /// Takes the rows of a record; stores what is cut by it.
    fn keep(&mut self, record: &LogRecord, runtime: &Handle) {
        // A frame that cannot be opened is evidence, which the judge keeps; here it only lets time go on.
        let opened = OpenedFrame::open(&record.value, &self.parts.admission.keys).ok();
        let (cuts, error) = match self.open.get_mut(&record.partition) {
            Some(open) => take_rows(open, record, opened.as_ref(), self.parts.admission.takes_backfill),
            None => return,
        };
        if let Some(error) = error {
            warn!(partition = record.partition, offset = record.offset, error, "rows that the archive cannot keep");
        }
        for cut in cuts {
            self.store(record.partition, &cut, runtime);
        }
    }

    /// Stores a cut until it is stored, or the service stops: nothing more is read meanwhile.
    fn store(&mut self, partition: u32, cut: &Cut, runtime: &Handle) {
        for part in &cut.parts {
            let encoded = match part.encode() {
                Ok(encoded) => encoded,
                Err(error) => {
                    warn!(part = part.name().path(), %error, "a part that cannot be encoded is left out");
                    continue;
                }
            };
            let parts: [Part; 1] = [encoded];
            let archive = self.parts.archive.clone();
            if self.patiently("write to the archive", || runtime.block_on(archive.write(&parts))).is_none() {
                return;
            }
        }
        let store = Arc::clone(&self.parts.store);
        let noted = self.patiently("note how far the archive is", || store.set_archived(partition, cut.position));
        if noted.is_some()
            && let Err(error) = self.parts.source.commit(partition, cut.position)
        {
            // Advisory: what counts is our own state.
            warn!(partition, %error, "the log did not take the position of the archive");
        }
    }

    fn patiently<T, E: std::error::Error>(&self, act: &str, attempt: impl Fn() -> Result<T, E>) -> Option<T> {
        loop {
            match attempt() {
                Ok(value) => {
                    self.parts.desk.archive_works();
                    return Some(value);
                }
                Err(error) => {
                    let source = error.source().map(|source| format!(": {source}")).unwrap_or_default();
                    let error = format!("cannot {act}: {error}{source}");
                    warn!(error, "trying again");
                    self.parts.desk.archive_failed(&error);
                }
            }
            if self.has_stopped() {
                return None;
            }
            std::thread::sleep(RETRY_AFTER);
        }
    }
}

/// Gives the rows of a record to the open parts; what was cut before them, and what could not be taken.
fn take_rows(
    open: &mut OpenPartition,
    record: &LogRecord,
    frame: Option<&OpenedFrame>,
    takes_backfill: bool,
) -> (Vec<Cut>, Option<String>) {
    let envelope = frame.map(|frame| &frame.envelope);
    let place = Record {
        offset: record.offset,
        append_time: record.append_time,
        is_backfill: envelope.is_some_and(|envelope| envelope.backfill.is_some()),
        sender: envelope.map(|envelope| envelope.sender.as_str()),
        sequence: envelope.map(|envelope| envelope.sequence),
    };
    let mut cuts: Vec<Cut> = open.parts.begin(&place).into_iter().collect();
    if !cuts.is_empty() {
        open.kept.clear();
    }
    let Some(frame) = frame.filter(|frame| frame.envelope.mark() != Mark::Tick) else { return (cuts, None) };
    if place.is_backfill && !takes_backfill {
        return (cuts, None);
    }
    if !open.kept.insert(frame.hash) {
        return (cuts, None);
    }
    let rows = || -> Result<_, FrameError> { Ok(frame.table()?.zip(Some(frame.batches()?))) };
    // What cannot be decoded is evidence, which the judge keeps.
    let Ok(Some((table, batches))) = rows() else { return (cuts, None) };
    // What concerns every run stands in every partition, and is kept once.
    let run = Some(frame.envelope.run.as_str()).filter(|run| !run.is_empty());
    if run.is_none() && record.partition != 0 {
        return (cuts, None);
    }
    for batch in &batches {
        match open.parts.take(&place, table, run, batch) {
            Ok(cut) => cuts.extend(cut),
            Err(error) => return (cuts, Some(error.to_string())),
        }
    }
    (cuts, None)
}
