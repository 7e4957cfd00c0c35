//! The thread that judges: reads the log, tells what it finds, and writes down up to where it knows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use tracing::{info, warn};
use trainwarden_ingest::wire::FrameWriter;
use trainwarden_ingest::{Delivery, Publisher, Source};
use trainwarden_store::{Commit, PartitionState, StateStore};

use super::desk::Desk;
#[cfg(feature = "kafka")]
use super::handover::Handover;
use crate::config::ImpactConfig;
use crate::partition_judge::{Admission, PartitionJudge};

/// How long the log may be quiet before the worker looks at its own duties.
const WAIT: Duration = Duration::from_millis(50);
/// News is written down together with what else came in this time.
const NEWS_EVERY: Duration = Duration::from_millis(100);
/// What is judged again after a crash is at most so much of the log.
const SNAPSHOT_EVERY: Duration = Duration::from_secs(5);
/// ... but large states are written more rarely: so many times as long as it took lies between two snapshots.
const SNAPSHOT_PAUSE: u32 = 20;
/// Bytes of snapshots after which a commit takes no more: those of a fleet do not fit into memory side by side.
const COMMIT_BYTES: usize = 16 << 20;
/// The log's clock goes on at least so often, while a live run is watched: a hang is told so much after its deadline.
const TICK_EVERY: Duration = Duration::from_millis(250);
/// Pause before something outside that failed is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Judges what a source delivers.
pub(super) struct Worker {
    source: Box<dyn Source>,
    publisher: Arc<dyn Publisher>,
    store: Arc<StateStore>,
    desk: Arc<Desk>,
    admission: Admission,
    impact: ImpactConfig,
    partitions: BTreeMap<u32, PartitionJudge>,
    stop: Arc<AtomicBool>,
    name: String,
    #[cfg(feature = "kafka")]
    handover: Option<Handover>,
    #[cfg(feature = "alerts")]
    teller: crate::alerts::Teller,
}

/// What a worker works with.
pub(super) struct WorkerParts {
    /// Where records come from.
    pub(super) source: Box<dyn Source>,
    /// Where ticks of the log's clock go.
    pub(super) publisher: Arc<dyn Publisher>,
    /// Where what is known is kept.
    pub(super) store: Arc<StateStore>,
    /// Whom changes are told.
    pub(super) desk: Arc<Desk>,
    /// What is taken.
    pub(super) admission: Admission,
    /// What lost time costs.
    pub(super) impact: ImpactConfig,
    /// Set when the service stops.
    pub(super) stop: Arc<AtomicBool>,
    /// What other workers are told, where there may be some.
    #[cfg(feature = "kafka")]
    pub(super) handover: Option<Handover>,
    /// Who puts notices into the outbox.
    #[cfg(feature = "alerts")]
    pub(super) teller: crate::alerts::Teller,
}

impl Worker {
    /// A worker that has read nothing.
    pub(super) fn new(parts: WorkerParts) -> Self {
        Self {
            source: parts.source,
            publisher: parts.publisher,
            store: parts.store,
            desk: parts.desk,
            admission: parts.admission,
            impact: parts.impact,
            partitions: BTreeMap::new(),
            stop: parts.stop,
            name: format!("serve-{}", std::process::id()),
            #[cfg(feature = "kafka")]
            handover: parts.handover,
            #[cfg(feature = "alerts")]
            teller: parts.teller,
        }
    }

    /// Works until the service stops; what is known is written down before it returns.
    ///
    /// # Errors
    /// When the log refuses to be read, or a state does not serialise.
    pub(super) fn run(mut self) -> Result<()> {
        let (mut news_at, mut snapshot_at, mut tick_at) = (Instant::now(), Instant::now(), Instant::now());
        while !self.stop.load(Ordering::Relaxed) {
            match self.source.next(WAIT) {
                Ok(Some(delivery)) => self.take(delivery)?,
                Ok(None) => {}
                Err(error) if error.is_retryable() => {
                    self.desk.log_failed(&error.to_string());
                    warn!(%error, "the log cannot be read; trying again");
                    std::thread::sleep(RETRY_AFTER);
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
            let now = Instant::now();
            if now >= tick_at {
                tick_at = now + TICK_EVERY;
                self.desk.log_read();
                self.tick();
                self.desk.set_partitions(&self.partitions);
            }
            if now >= snapshot_at {
                self.write_snapshots()?;
                snapshot_at = Instant::now() + SNAPSHOT_EVERY.max(now.elapsed() * SNAPSHOT_PAUSE);
                news_at = Instant::now() + NEWS_EVERY;
            } else if now >= news_at {
                self.write_news();
                news_at = Instant::now() + NEWS_EVERY;
            }
        }
        self.write_snapshots()
    }

    fn take(&mut self, delivery: Delivery) -> Result<()> {
        match delivery {
            Delivery::Assigned(partition) => self.begin(partition)?,
            Delivery::Revoked(partition) => {
                self.write_snapshot(partition)?;
                self.partitions.remove(&partition);
            }
            Delivery::Record(record) => {
                if let Some(judge) = self.partitions.get_mut(&record.partition) {
                    judge.take(&record, &self.admission);
                }
            }
            Delivery::Skipped { partition, first, next, reason } => {
                warn!(partition, first, next, reason, "records that cannot be read were passed over");
                if let Some(judge) = self.partitions.get_mut(&partition) {
                    judge.skip(first, next, &reason);
                }
            }
        }
        Ok(())
    }

    /// Goes on with a partition where its last commit ended, here or at the worker that had it before.
    fn begin(&mut self, partition: u32) -> Result<()> {
        let state = self.patiently("read the state", |worker| Ok(worker.store.partition(partition)?));
        let Some(own) = state else { return Ok(()) };
        let Some(state) = self.newest(partition, own) else { return Ok(()) };
        let judge = PartitionJudge::restore(partition, &state).unwrap_or_else(|error| {
            warn!(partition, error = format!("{error:#}"), "judging the partition again from its oldest record");
            PartitionJudge::new(partition)
        });
        info!(partition, position = judge.next(), runs = state.runs.len(), "judging a partition");
        let next = judge.next();
        self.partitions.insert(partition, judge.priced(&self.impact));
        Ok(self.source.begin(partition, next)?)
    }

    #[cfg(not(feature = "kafka"))]
    fn newest(&mut self, _partition: u32, own: PartitionState) -> Option<PartitionState> {
        Some(own)
    }

    #[cfg(feature = "kafka")]
    fn newest(&mut self, partition: u32, own: PartitionState) -> Option<PartitionState> {
        if self.handover.is_none() {
            return Some(own);
        }
        let left = self.patiently("read what other workers left", |worker| {
            worker.handover.as_mut().map_or_else(|| Ok(PartitionState::default()), |handover| handover.load(partition))
        })?;
        Some(if left.position > own.position { left } else { own })
    }

    /// Lets the log's clock go on where a live run is watched.
    fn tick(&self) {
        for (partition, judge) in &self.partitions {
            if judge.has_live_run() {
                let now = self.desk.now();
                // A tick that is lost is followed by the next one.
                self.publisher.publish_to(*partition, &FrameWriter::tick(&self.name, now), Box::new(|_| {}));
            }
        }
    }

    fn write_news(&mut self) {
        let news: Vec<Commit> = self.partitions.values_mut().filter_map(PartitionJudge::take_news).collect();
        news.into_iter().for_each(|commit| self.write(commit));
        self.tell_ends();
    }

    fn write_snapshots(&mut self) -> Result<()> {
        let partitions: Vec<u32> = self.partitions.keys().copied().collect();
        partitions.into_iter().try_for_each(|partition| {
            let Some(position) = self.write_snapshot(partition)? else { return Ok(()) };
            if let Err(error) = self.source.commit(partition, position) {
                // Advisory: what counts is our own state.
                warn!(partition, %error, "the log did not take the position");
            }
            Ok(())
        })
    }

    /// Writes down what is known of a partition; gives up to where.
    fn write_snapshot(&mut self, partition: u32) -> Result<Option<u64>> {
        while let Some(judge) = self.partitions.get_mut(&partition) {
            let commit = judge.take_snapshot(COMMIT_BYTES)?;
            let position = commit.position;
            self.write(commit);
            if position.is_some() {
                return Ok(position);
            }
        }
        Ok(None)
    }

    /// Writes until it is written, or the service stops: nothing more is read meanwhile, so nothing is lost.
    ///
    /// Other workers are told before it is written here: what is in a snapshot is never worked out again.
    fn write(&mut self, mut commit: Commit) {
        if self.tell_others(&commit).is_none() || self.add_notices(&mut commit).is_none() {
            return;
        }
        let is_written = self.patiently("write the state", |worker| Ok(worker.store.commit(&commit)?));
        if is_written.is_some() {
            self.desk.tell(&commit.changes);
            #[cfg(feature = "alerts")]
            if !commit.outbox.is_empty() {
                self.desk.board().ring(commit.outbox.notices.iter().map(|notice| &notice.sink));
            }
            self.leave_state(&commit);
        }
    }

    #[cfg(not(feature = "alerts"))]
    fn add_notices(&mut self, _commit: &mut Commit) -> Option<()> {
        Some(())
    }

    #[cfg(not(feature = "alerts"))]
    fn tell_ends(&mut self) {}

    /// Puts the notices of a commit's changes into the same commit.
    #[cfg(feature = "alerts")]
    fn add_notices(&mut self, commit: &mut Commit) -> Option<()> {
        commit.outbox = self.patiently("read the outbox", |worker| {
            let now = worker.desk.now();
            worker.teller.edit(&commit.changes, now)
        })?;
        Some(())
    }

    /// Ends of incidents that have lasted are told, though nothing else changes.
    #[cfg(feature = "alerts")]
    fn tell_ends(&mut self) {
        if self.teller.is_due(self.desk.now()) {
            self.write(Commit::default());
        }
    }

    #[cfg(not(feature = "kafka"))]
    fn tell_others(&mut self, _commit: &Commit) -> Option<()> {
        Some(())
    }

    #[cfg(not(feature = "kafka"))]
    fn leave_state(&mut self, _commit: &Commit) {}

    #[cfg(feature = "kafka")]
    fn tell_others(&mut self, commit: &Commit) -> Option<()> {
        if commit.incidents.is_empty() {
            return Some(());
        }
        self.patiently("tell other workers", |worker| {
            worker.handover.as_ref().map_or(Ok(()), |handover| handover.tell(commit.partition, &commit.incidents))
        })
    }

    #[cfg(feature = "kafka")]
    fn leave_state(&mut self, commit: &Commit) {
        self.patiently("leave the state for other workers", |worker| {
            worker.handover.as_mut().map_or(Ok(()), |handover| handover.leave(commit))
        });
    }

    fn patiently<T>(&mut self, act: &str, mut attempt: impl FnMut(&mut Self) -> Result<T>) -> Option<T> {
        loop {
            match attempt(self) {
                Ok(value) => {
                    self.desk.store_works();
                    return Some(value);
                }
                Err(error) => {
                    let error = format!("cannot {act}: {error:#}");
                    warn!(error, "trying again");
                    self.desk.store_failed(&error);
                }
            }
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            std::thread::sleep(RETRY_AFTER);
        }
    }
}
