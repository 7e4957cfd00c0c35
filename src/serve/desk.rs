//! What the worker tells the rest of the service: changes of incidents, how it is, and how far.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::broadcast;
use trainwarden_ingest::Counts;
use trainwarden_ingest::otlp::OtlpFrames;
use trainwarden_store::ToldChange;

use crate::partition_judge::PartitionJudge;
use crate::planned_pause::PlannedPause;

/// Changes that a slow watcher may fall behind before it is told so.
const CHANGES_WAITING_MAX: usize = 1 << 12;

/// How a part of the service is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// Nothing is known yet.
    #[default]
    Starting,
    /// It works.
    Works,
    /// It does not, and why.
    Failed(String),
}

/// How far a partition is judged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionProgress {
    /// The next offset.
    pub next: u64,
    /// Records taken since the start.
    pub records: u64,
    /// Records set aside since the start, by reason.
    pub rejects: BTreeMap<&'static str, u64>,
    /// What alignment counted.
    pub counts: Counts,
}

/// What came by OTLP since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OtlpCounts {
    /// Data points that are durable in the log.
    pub points: u64,
    /// Data points that were refused, by reason; and records of a topic that are no metrics.
    pub refused: BTreeMap<&'static str, u64>,
}

#[derive(Debug, Default)]
struct State {
    log: Health,
    store: Health,
    archive: Health,
    partitions: BTreeMap<u32, PartitionProgress>,
    pauses: Vec<PlannedPause>,
    otlp: OtlpCounts,
}

/// The desk between the worker and those who ask.
#[derive(Debug)]
pub struct Desk {
    changes: broadcast::Sender<ToldChange>,
    state: Mutex<State>,
    #[cfg(feature = "alerts")]
    board: std::sync::Arc<crate::alerts::Board>,
}

impl Default for Desk {
    fn default() -> Self {
        Self {
            changes: broadcast::channel(CHANGES_WAITING_MAX).0,
            state: Mutex::default(),
            #[cfg(feature = "alerts")]
            board: std::sync::Arc::default(),
        }
    }
}

impl Desk {
    /// Every change from now on.
    #[must_use]
    pub fn watch(&self) -> broadcast::Receiver<ToldChange> {
        self.changes.subscribe()
    }

    /// How log, state and archive are, by name.
    #[must_use]
    pub fn health(&self) -> [(&'static str, Health); 3] {
        let state = self.state();
        [("log", state.log.clone()), ("state", state.store.clone()), ("archive", state.archive.clone())]
    }

    /// How each receiver of notices is.
    #[cfg(feature = "alerts")]
    #[must_use]
    pub fn board(&self) -> &std::sync::Arc<crate::alerts::Board> {
        &self.board
    }

    /// How far each partition is.
    #[must_use]
    pub fn partitions(&self) -> BTreeMap<u32, PartitionProgress> {
        self.state().partitions.clone()
    }

    /// The pauses that people planned, by run and beginning.
    #[must_use]
    pub fn planned_pauses(&self) -> Vec<PlannedPause> {
        self.state().pauses.clone()
    }

    /// What came by OTLP.
    #[must_use]
    pub fn otlp(&self) -> OtlpCounts {
        self.state().otlp.clone()
    }

    pub(super) fn count_otlp(&self, request: &OtlpFrames) {
        let mut state = self.state();
        state.otlp.points += request.points;
        for (reason, count) in request.refused.counts() {
            *state.otlp.refused.entry(reason).or_default() += count;
        }
    }

    #[cfg(feature = "kafka")]
    pub(super) fn count_otlp_unread(&self, records: u64) {
        *self.state().otlp.refused.entry("undecodable").or_default() += records;
    }

    /// Nanoseconds since the epoch: of the process, for what the process itself sends.
    #[must_use]
    pub fn now(&self) -> i64 {
        now_ns()
    }

    pub(super) fn tell(&self, changes: &[ToldChange]) {
        for change in changes {
            // Nobody watches: then nobody has to be told.
            let _ = self.changes.send(change.clone());
        }
    }

    pub(super) fn log_read(&self) {
        self.state().log = Health::Works;
    }

    pub(super) fn log_failed(&self, why: &str) {
        self.state().log = Health::Failed(why.to_owned());
    }

    pub(super) fn store_works(&self) {
        self.state().store = Health::Works;
    }

    pub(super) fn store_failed(&self, why: &str) {
        self.state().store = Health::Failed(why.to_owned());
    }

    pub(super) fn archive_works(&self) {
        self.state().archive = Health::Works;
    }

    pub(super) fn archive_failed(&self, why: &str) {
        self.state().archive = Health::Failed(why.to_owned());
    }

    pub(super) fn set_partitions(&self, partitions: &BTreeMap<u32, PartitionJudge>) {
        let progress = partitions.iter().map(|(partition, judge)| {
            let (records, rejects) = judge.counts();
            let progress =
                PartitionProgress { next: judge.next(), records, rejects: rejects.clone(), counts: judge.alignment() };
            (*partition, progress)
        });
        let mut pauses: Vec<_> = partitions.values().flat_map(PartitionJudge::planned_pauses).collect();
        pauses.sort();
        let progress = progress.collect();
        let mut state = self.state();
        (state.partitions, state.pauses) = (progress, pauses);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change of the state is whole: a panic elsewhere cannot have broken it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nanoseconds since the epoch; 0 on a machine whose clock stands before it.
#[must_use]
pub fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
