//! The embedded log: the semantics of Kafka for one process, in plain files with checksums.
//!
//! A folder holds `log.json`, a lock, and a folder a partition with segments named after their first offset. Records
//! are appended by one thread, which makes everything that waits durable with one sync, and then tells the publishers.
//! A torn tail, as a crash leaves it, is cut off when the log is opened: nobody was told that it is durable.

mod append;
mod partition;
mod segment;
mod source;

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use serde::{Deserialize, Serialize};

use self::append::{Append, append_loop};
use self::partition::Partition;
pub use self::source::EmbeddedSource;
use crate::limits::{APPENDS_WAITING_MAX, RECORD_BYTES_MAX_IN_LOG, SEGMENT_BYTES};
use crate::{Published, Publisher, SourceError, partition_of};

/// Tells log time: nanoseconds since the epoch.
pub type LogTime = Arc<dyn Fn() -> i64 + Send + Sync>;

/// What can be chosen of an embedded log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EmbeddedOptions {
    /// Partitions of a new log; an old one keeps its own.
    pub partitions: u32,
    /// Bytes after which a segment is full.
    pub segment_bytes: u64,
    /// Bytes of consumed segments that are kept in each partition.
    pub kept_bytes: u64,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self { partitions: 4, segment_bytes: SEGMENT_BYTES, kept_bytes: 4 * SEGMENT_BYTES }
    }
}

/// What `log.json` says.
#[derive(Serialize, Deserialize)]
struct Layout {
    version: u32,
    partitions: u32,
}

const LAYOUT_VERSION: u32 = 1;

/// An open embedded log. Only one process has it open.
pub struct EmbeddedLog {
    shared: Arc<Shared>,
    appends: Option<SyncSender<Append>>,
    thread: Option<JoinHandle<()>>,
    // Held as long as the log is open.
    _lock: File,
}

/// What the appending thread and the readers share.
struct Shared {
    dir: PathBuf,
    state: Mutex<State>,
    /// Told when records became durable.
    grown: Condvar,
}

struct State {
    partitions: Vec<Partition>,
    is_closed: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // Each change of the state is whole: a panic elsewhere cannot have broken it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for EmbeddedLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedLog").field("dir", &self.shared.dir).finish_non_exhaustive()
    }
}

impl EmbeddedLog {
    /// Opens the log in `dir`, which is created when it does not exist.
    ///
    /// * `now`: what time it is when records are appended.
    ///
    /// # Errors
    /// [`SourceError::Disk`]; [`SourceError::Refused`] when another process has it open, or when it is of a newer
    /// version.
    pub fn open(dir: &Path, options: EmbeddedOptions, now: LogTime) -> Result<Self, SourceError> {
        fs::create_dir_all(dir).map_err(|source| disk("create", dir, source))?;
        let lock = lock(dir)?;
        let count = layout(dir, options.partitions)?;
        let partitions: Result<Vec<_>, _> = (0..count).map(|index| Partition::open(dir, index, options)).collect();
        let state = Mutex::new(State { partitions: partitions?, is_closed: false });
        let shared = Arc::new(Shared { dir: dir.to_owned(), state, grown: Condvar::new() });
        let (appends, waiting) = sync_channel(APPENDS_WAITING_MAX);
        let appender = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("log-append".to_owned())
            .spawn(move || append_loop(&appender, &waiting, &now))
            .map_err(|source| disk("start a thread for", dir, source))?;
        Ok(Self { shared, appends: Some(appends), thread: Some(thread), _lock: lock })
    }

    /// Append time of the newest record of the log in `dir`, in nanoseconds since the epoch; nothing where there is
    /// none that can be read. Changes nothing, also while somebody has the log open.
    #[must_use]
    pub fn newest_time(dir: &Path) -> Option<i64> {
        let partitions = fs::read_dir(dir).ok()?.flatten().map(|entry| entry.path()).filter(|path| path.is_dir());
        partitions.filter_map(|partition| segment::newest_time(&partition)).max()
    }

    /// A reader to which every partition is assigned.
    #[must_use]
    pub fn source(&self) -> EmbeddedSource {
        EmbeddedSource::new(Arc::clone(&self.shared))
    }

    /// The next offset of each partition: everything before is durable.
    #[must_use]
    pub fn ends(&self) -> Vec<u64> {
        self.shared.state().partitions.iter().map(Partition::end).collect()
    }

    fn append(&self, partition: u32, value: &[u8], published: Published) {
        let log = || self.shared.dir.display().to_string();
        let bytes = value.len();
        if bytes > RECORD_BYTES_MAX_IN_LOG {
            let bytes_max = RECORD_BYTES_MAX_IN_LOG;
            return published(Err(SourceError::TooLarge { log: log(), bytes, bytes_max }));
        }
        let append = Append { partition, value: value.to_vec(), published };
        let sender = self.appends.as_ref().expect("it is taken only in drop");
        if let Err(refused) = sender.send(append) {
            let reason = "the appending thread has ended".to_owned();
            (refused.0.published)(Err(SourceError::Unreachable { log: log(), reason }));
        }
    }
}

impl Publisher for EmbeddedLog {
    fn publish(&self, key: &str, value: &[u8], published: Published) {
        self.append(partition_of(key, self.partitions()), value, published);
    }

    fn publish_to(&self, partition: u32, value: &[u8], published: Published) {
        self.append(partition, value, published);
    }

    fn partitions(&self) -> u32 {
        u32::try_from(self.shared.state().partitions.len()).expect("their number was a u32")
    }
}

impl Drop for EmbeddedLog {
    fn drop(&mut self) {
        self.appends = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was told on stderr already.
            let _ = thread.join();
        }
        self.shared.state().is_closed = true;
        self.shared.grown.notify_all();
    }
}

fn lock(dir: &Path) -> Result<File, SourceError> {
    let path = dir.join("lock");
    let file = File::create(&path).map_err(|source| disk("create", &path, source))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(SourceError::Refused {
            log: dir.display().to_string(),
            act: "be opened",
            reason: "another process has it open".to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(disk("lock", &path, source)),
    }
}

/// The number of partitions: of an old log its own.
fn layout(dir: &Path, partitions: u32) -> Result<u32, SourceError> {
    let path = dir.join("log.json");
    let refused = |reason| SourceError::Refused { log: dir.display().to_string(), act: "be opened", reason };
    match fs::read(&path) {
        Ok(bytes) => {
            let layout: Layout =
                serde_json::from_slice(&bytes).map_err(|error| refused(format!("`log.json` is damaged: {error}")))?;
            if layout.version > LAYOUT_VERSION {
                let reason = format!(
                    "it is of layout {}, and this version knows up to {LAYOUT_VERSION}: use the newer version again",
                    layout.version
                );
                return Err(refused(reason));
            }
            Ok(layout.partitions)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let layout = Layout { version: LAYOUT_VERSION, partitions: partitions.max(1) };
            let text = serde_json::to_vec(&layout).expect("two numbers serialise");
            let partial = dir.join("log.json.partial");
            let written = fs::write(&partial, text).and_then(|()| fs::rename(&partial, &path));
            written.map_err(|source| disk("write", &path, source))?;
            Ok(layout.partitions)
        }
        Err(source) => Err(disk("read", &path, source)),
    }
}

fn disk(act: &'static str, path: &Path, source: std::io::Error) -> SourceError {
    SourceError::Disk { act, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests;
