//! The state store: everything that must change together, in one file with transactions.
//!
//! One transaction holds what judges know of their runs, up to which record of the log they know it, the incidents, and
//! the records that were set aside. So after a crash at any moment the log is read on from a place that fits the rest.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use redb::{Database, ReadOnlyDatabase, ReadableDatabase, ReadableTable, TableDefinition};

use crate::StoreError;
use crate::limits::STATE_CACHE_BYTES;

mod outbox;

pub use outbox::{AnnouncedRow, NoticeRow, OutboxEdit};

/// Version of what is written here. A new one comes with a step in `prepare` that upgrades the one before.
const VERSION: u64 = 1;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// Partition → the next record that the snapshots do not know.
const POSITIONS: TableDefinition<'_, u32, u64> = TableDefinition::new("positions");
/// Partition → the next record that is not in the archive.
const ARCHIVED: TableDefinition<'_, u32, u64> = TableDefinition::new("archived");
/// Partition and run → what its judge knows.
const RUNS: TableDefinition<'_, (u32, &str), &[u8]> = TableDefinition::new("runs");
/// Id → up to which record it is known, and the incident as JSON.
const INCIDENTS: TableDefinition<'_, &str, (u64, &str)> = TableDefinition::new("incidents");
/// Run and number → a change as JSON.
const CHANGES: TableDefinition<'_, (&str, u64), &str> = TableDefinition::new("changes");
/// Partition and offset → a record that was set aside, as JSON.
const REJECTS: TableDefinition<'_, (u32, u64), &str> = TableDefinition::new("rejects");

/// What a judge knows of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunSnapshot {
    /// The run.
    pub run: String,
    /// The judge's own form.
    pub bytes: Vec<u8>,
}

/// One change of one incident.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToldChange {
    /// The run.
    pub run: String,
    /// Counts the changes of the run, from 0: the same change has the same number whenever it is worked out again.
    pub number: u64,
    /// The change as JSON.
    pub json: String,
}

/// One incident as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IncidentRow {
    /// Its id.
    pub id: String,
    /// The next record of its partition that it does not know: of two states the one that knows more counts.
    pub as_of: u64,
    /// The incident as JSON.
    pub json: String,
}

/// A record that was set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectRow {
    /// Its place.
    pub offset: u64,
    /// Why, and how it begins, as JSON.
    pub json: String,
}

/// What changes together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    /// Of which partition.
    pub partition: u32,
    /// The next record that this commit does not know.
    pub as_of: u64,
    /// The same, once every run that changed since the last position is written: in this commit, or in those before it.
    pub position: Option<u64>,
    /// Runs that changed since the last position; all of them, or as many as a commit takes.
    pub runs: Vec<RunSnapshot>,
    /// Changes since the last commit.
    pub changes: Vec<ToldChange>,
    /// Incidents that stand otherwise than in the last commit.
    pub incidents: Vec<IncidentRow>,
    /// Records set aside since the last commit.
    pub rejects: Vec<RejectRow>,
    /// What is to be told to whom.
    pub outbox: OutboxEdit,
}

/// What is known of a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionState {
    /// The next record to read.
    pub position: u64,
    /// What its judges know.
    pub runs: Vec<RunSnapshot>,
}

/// How a state is opened, also again after its disk has failed.
type Opener = Box<dyn Fn() -> Result<Handle, redb::DatabaseError> + Send + Sync>;

enum Handle {
    Open(Database),
    AtRest(ReadOnlyDatabase),
}

/// The state of one data folder.
///
/// After a failure of the disk the file is opened anew with the next call: what was committed is there, the rest is not.
pub struct StateStore {
    path: PathBuf,
    opener: Opener,
    handle: Mutex<Option<Arc<Handle>>>,
}

impl std::fmt::Debug for StateStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StateStore").field("path", &self.path).finish_non_exhaustive()
    }
}

impl StateStore {
    /// Opens a state for reading and writing; a new one is made where there is none.
    ///
    /// # Errors
    /// [`StoreError::InUse`], [`StoreError::Newer`], [`StoreError::State`]
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let file = path.to_owned();
        let open = move || Database::builder().set_cache_size(STATE_CACHE_BYTES).create(&file).map(Handle::Open);
        Self::open_by(path, Box::new(open))
    }

    fn open_by(path: &Path, opener: Opener) -> Result<Self, StoreError> {
        let store = Self { path: path.to_owned(), opener, handle: Mutex::default() };
        store.prepare()?;
        Ok(store)
    }

    /// Opens a state that nobody uses, for reading.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::InUse`], [`StoreError::Newer`], [`StoreError::State`]
    pub fn open_at_rest(path: &Path) -> Result<Self, StoreError> {
        if !path.exists() {
            return Err(StoreError::Missing { path: path.to_owned() });
        }
        let file = path.to_owned();
        let opener: Opener = Box::new(move || ReadOnlyDatabase::open(&file).map(Handle::AtRest));
        let store = Self { path: path.to_owned(), opener, handle: Mutex::default() };
        let transaction = store.reading()?;
        let meta = transaction.open_table(META).map_err(|error| store.failed("read", error))?;
        let version = meta.get("version").map_err(|error| store.failed("read", error))?;
        store.check(version.map_or(VERSION, |version| version.value()))?;
        Ok(store)
    }

    /// Writes everything of a commit, or nothing; durable when it returns.
    ///
    /// # Errors
    /// [`StoreError::State`]
    pub fn commit(&self, commit: &Commit) -> Result<(), StoreError> {
        self.write(|transaction| write_commit(transaction, commit))
    }

    /// What is known of a partition; nothing of one that was never committed.
    ///
    /// # Errors
    /// [`StoreError::State`]
    pub fn partition(&self, partition: u32) -> Result<PartitionState, StoreError> {
        self.read(|transaction| {
            let position = transaction.open_table(POSITIONS)?.get(partition)?.map_or(0, |position| position.value());
            let (table, mut runs) = (transaction.open_table(RUNS)?, Vec::new());
            for entry in table.range((partition, "")..(partition + 1, ""))? {
                let (key, bytes) = entry?;
                runs.push(RunSnapshot { run: key.value().1.to_owned(), bytes: bytes.value().to_vec() });
            }
            Ok(PartitionState { position, runs })
        })
    }

    /// The next record of a partition that is not in the archive.
    ///
    /// # Errors
    /// [`StoreError::State`]
    pub fn archived(&self, partition: u32) -> Result<u64, StoreError> {
        self.read(|transaction| {
            Ok(transaction.open_table(ARCHIVED)?.get(partition)?.map_or(0, |position| position.value()))
        })
    }

    /// Notes that everything before a record of a partition is in the archive.
    ///
    /// # Errors
    /// [`StoreError::State`]
    pub fn set_archived(&self, partition: u32, position: u64) -> Result<(), StoreError> {
        self.write(|transaction| {
            transaction.open_table(ARCHIVED)?.insert(partition, position)?;
            Ok(())
        })
    }

    /// Every incident, as JSON, in the order of ids.
    ///
    /// # Errors
    /// [`StoreError::State`]
    pub fn incidents(&self) -> Result<Vec<String>, StoreError> {
        self.read(|transaction| {
            let incidents = transaction.open_table(INCIDENTS)?;
            incidents.iter()?.map(|row| Ok(row?.1.value().1.to_owned())).collect()
        })
    }

    /// One incident as it stands, as JSON.
    ///
    /// # Errors
    /// [`StoreError::State`]
    pub fn incident(&self, id: &str) -> Result<Option<String>, StoreError> {
        self.read(|transaction| Ok(transaction.open_table(INCIDENTS)?.get(id)?.map(|known| known.value().1.to_owned())))
    }

    /// The changes of a run from a number on, as JSON, in order.
    ///
    /// # Errors
    /// [`StoreError::State`]
    pub fn changes(&self, run: &str, from: u64) -> Result<Vec<(u64, String)>, StoreError> {
        self.read(|transaction| {
            let changes = transaction.open_table(CHANGES)?;
            let rows = changes.range((run, from)..=(run, u64::MAX))?;
            rows.map(|row| row.map(|(key, json)| (key.value().1, json.value().to_owned())).map_err(Into::into))
                .collect()
        })
    }

    /// Every record set aside, as JSON, by partition and offset.
    ///
    /// # Errors
    /// [`StoreError::State`]
    pub fn rejects(&self) -> Result<Vec<(u32, u64, String)>, StoreError> {
        self.read(|transaction| {
            let rejects = transaction.open_table(REJECTS)?;
            let rows = rejects.iter()?.map(|row| {
                let (key, json) = row?;
                let (partition, offset) = key.value();
                Ok((partition, offset, json.value().to_owned()))
            });
            rows.collect()
        })
    }

    /// Reads in one transaction.
    fn read<T>(&self, read: impl FnOnce(&redb::ReadTransaction) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        let transaction = self.reading()?;
        read(&transaction).map_err(|error| self.failed("read", error))
    }

    /// Writes in one transaction; durable when it returns.
    fn write(&self, write: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error>) -> Result<(), StoreError> {
        let transaction = self.writing()?;
        write(&transaction).map_err(|error| self.failed("write", error))?;
        transaction.commit().map_err(|error| self.failed("write", error))
    }

    /// Makes the tables of a new state; upgrades an old one.
    fn prepare(&self) -> Result<(), StoreError> {
        let transaction = self.writing()?;
        let found = {
            let meta = transaction.open_table(META).map_err(|error| self.failed("read", error))?;
            let version = meta.get("version").map_err(|error| self.failed("read", error))?;
            version.map(|version| version.value())
        };
        self.check(found.unwrap_or(VERSION))?;
        self.create(&transaction).map_err(|error| self.failed("write", error))?;
        transaction.commit().map_err(|error| self.failed("write", error))
    }

    fn create(&self, transaction: &redb::WriteTransaction) -> Result<(), redb::Error> {
        transaction.open_table(META)?.insert("version", VERSION)?;
        transaction.open_table(POSITIONS)?;
        transaction.open_table(ARCHIVED)?;
        transaction.open_table(RUNS)?;
        transaction.open_table(INCIDENTS)?;
        transaction.open_table(CHANGES)?;
        transaction.open_table(REJECTS)?;
        outbox::create(transaction)
    }

    fn check(&self, found: u64) -> Result<(), StoreError> {
        if found > VERSION {
            return Err(StoreError::Newer { path: self.path.clone(), found, known: VERSION });
        }
        Ok(())
    }

    fn writing(&self) -> Result<redb::WriteTransaction, StoreError> {
        match &*self.handle()? {
            Handle::Open(database) => database.begin_write().map_err(|error| self.failed("write", error)),
            Handle::AtRest(_) => unreachable!("a state at rest is only handed out for reading"),
        }
    }

    fn reading(&self) -> Result<redb::ReadTransaction, StoreError> {
        let transaction = match &*self.handle()? {
            Handle::Open(database) => database.begin_read(),
            Handle::AtRest(database) => database.begin_read(),
        };
        transaction.map_err(|error| self.failed("read", error))
    }

    /// The open database; opened anew where its disk had failed.
    fn handle(&self) -> Result<Arc<Handle>, StoreError> {
        let mut handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = &*handle {
            return Ok(Arc::clone(handle));
        }
        let opened = (self.opener)().map_err(|error| match error {
            redb::DatabaseError::DatabaseAlreadyOpen => StoreError::InUse { path: self.path.clone() },
            error => StoreError::State { act: "open", path: self.path.clone(), source: Box::new(error.into()) },
        })?;
        Ok(Arc::clone(handle.insert(Arc::new(opened))))
    }

    /// A failure; after one of the disk the database refuses everything until it is opened anew.
    fn failed(&self, act: &'static str, error: impl Into<redb::Error>) -> StoreError {
        let error = error.into();
        if matches!(error, redb::Error::Io(_) | redb::Error::PreviousIo) {
            *self.handle.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        StoreError::State { act, path: self.path.clone(), source: Box::new(error) }
    }
}

/// Everything of a commit.
fn write_commit(transaction: &redb::WriteTransaction, commit: &Commit) -> Result<(), redb::Error> {
    let partition = commit.partition;
    if let Some(position) = commit.position {
        transaction.open_table(POSITIONS)?.insert(partition, position)?;
    }
    let mut runs = transaction.open_table(RUNS)?;
    for RunSnapshot { run, bytes } in &commit.runs {
        runs.insert((partition, run.as_str()), bytes.as_slice())?;
    }
    let mut incidents = transaction.open_table(INCIDENTS)?;
    let mut changes = transaction.open_table(CHANGES)?;
    for change in &commit.changes {
        changes.insert((change.run.as_str(), change.number), change.json.as_str())?;
    }
    for IncidentRow { id, as_of, json } in &commit.incidents {
        let known = incidents.get(id.as_str())?.map(|known| known.value().0);
        // What is worked out again after a crash may know less than what is here.
        if known.is_none_or(|known| *as_of >= known) {
            incidents.insert(id.as_str(), (*as_of, json.as_str()))?;
        }
    }
    let mut rejects = transaction.open_table(REJECTS)?;
    for reject in &commit.rejects {
        rejects.insert((partition, reject.offset), reject.json.as_str())?;
    }
    outbox::write(transaction, commit)
}

#[cfg(test)]
mod tests;
