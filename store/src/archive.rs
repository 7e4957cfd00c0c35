//! The archive: parts in a folder or a bucket.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::limits::{ARCHIVE_BYTES_MAX, PART_BYTES_MAX, PART_SECONDS, RETENTION_DAYS};
use crate::{ArchiveError, Part, PartLimits, PartName};

/// Seconds of a day.
const DAY_SECONDS: u32 = 86_400;
/// The folder where nothing else is told.
const FOLDER: &str = "archive";

/// The section `[archive]` of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ArchiveOptions {
    /// Folder of the parts; the folder `archive` of the data folder where neither this nor `url` is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// `s3://bucket/prefix` instead of a folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Settings of the client of the bucket, such as `endpoint`, `region` and `allow_http`; beside them the
    /// environment variables that begin with `AWS_` count.
    pub settings: BTreeMap<String, String>,
    /// Days that a part is kept; 0 keeps it for ever.
    pub retention_days: u32,
    /// Bytes of all parts together, beyond which the oldest go; 0 is without bound.
    pub bytes_max: u64,
    /// See [`PartLimits::seconds`].
    pub part_seconds: u32,
    /// See [`PartLimits::bytes_max`].
    pub part_bytes_max: u64,
}

impl Default for ArchiveOptions {
    fn default() -> Self {
        Self {
            path: None,
            url: None,
            settings: BTreeMap::new(),
            retention_days: RETENTION_DAYS,
            bytes_max: ARCHIVE_BYTES_MAX,
            part_seconds: PART_SECONDS,
            part_bytes_max: PART_BYTES_MAX,
        }
    }
}

impl ArchiveOptions {
    /// The folder of the parts, where they are not in a bucket.
    ///
    /// * `data`: the data folder.
    #[must_use]
    pub fn folder(&self, data: &FsPath) -> PathBuf {
        self.path.clone().unwrap_or_else(|| data.join(FOLDER))
    }

    /// Where parts are cut.
    ///
    /// # Errors
    /// [`ArchiveError::BadSetting`].
    pub fn part_limits(&self) -> Result<PartLimits, ArchiveError> {
        let seconds = self.part_seconds;
        if seconds == 0 || !DAY_SECONDS.is_multiple_of(seconds) {
            let accepted = "a number of seconds that divides a day, such as 900 or 3600";
            return Err(ArchiveError::BadSetting { setting: "part_seconds", value: seconds.into(), accepted });
        }
        if self.part_bytes_max < 1 << 20 {
            let accepted = "1048576 (1 MiB) or more";
            return Err(ArchiveError::BadSetting { setting: "part_bytes_max", value: self.part_bytes_max, accepted });
        }
        Ok(PartLimits { seconds, bytes_max: self.part_bytes_max })
    }
}

/// A part that the archive holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPart {
    /// Its name.
    pub name: PartName,
    /// Its size.
    pub bytes: u64,
    /// When it was written, in nanoseconds since the epoch, by the clock of the store.
    pub written: i64,
}

/// What was stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written {
    /// Files.
    pub parts: u64,
    /// Rows in them.
    pub rows: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Parts in a folder or a bucket.
#[derive(Clone, Debug)]
pub struct Archive {
    pub(crate) store: Arc<dyn ObjectStore>,
    pub(crate) root: Path,
    pub(crate) options: ArchiveOptions,
    /// The folder, where it is one: what was written there must be told to stay.
    pub(crate) folder: Option<PathBuf>,
}

impl Archive {
    /// Opens the archive; a folder that is not there is made.
    ///
    /// * `data`: the data folder, for the folder of the parts where the options name none.
    ///
    /// # Errors
    /// [`ArchiveError::BadPlace`], [`ArchiveError::BadSetting`], [`ArchiveError::CreateFolder`]. A bucket is not asked
    /// before the first part.
    pub fn open(options: ArchiveOptions, data: &FsPath) -> Result<Self, ArchiveError> {
        options.part_limits()?;
        let Some(url) = options.url.clone() else {
            let folder = options.folder(data);
            let failed = |source| ArchiveError::CreateFolder { path: folder.clone(), source };
            // Who may only read asks for no more than that.
            if !folder.is_dir() {
                std::fs::create_dir_all(&folder).map_err(failed)?;
            }
            let folder = std::fs::canonicalize(&folder).map_err(failed)?;
            let store = LocalFileSystem::new_with_prefix(&folder).map_err(|source| ArchiveError::BadPlace {
                place: folder.display().to_string(),
                reason: source.to_string(),
            })?;
            let store: Arc<dyn ObjectStore> = Arc::new(store.with_automatic_cleanup(true));
            return Ok(Self { store, root: Path::default(), options, folder: Some(folder) });
        };
        let bad = |reason: String| ArchiveError::BadPlace { place: url.clone(), reason };
        if options.path.is_some() {
            return Err(bad("`path` and `url` are both given; the archive has one place".to_owned()));
        }
        let Some((bucket, prefix)) = url.strip_prefix("s3://").map(|rest| rest.split_once('/').unwrap_or((rest, "")))
        else {
            return Err(bad("accepted are `s3://bucket/prefix`, or a folder in `path`".to_owned()));
        };
        let root = Path::parse(prefix).map_err(|error| bad(error.to_string()))?;
        let store = bucket_store(bucket, &options).map_err(bad)?;
        Ok(Self { store, root, options, folder: None })
    }

    /// An archive in any store.
    #[must_use]
    pub fn over(store: Arc<dyn ObjectStore>, options: ArchiveOptions) -> Self {
        Self { store, root: Path::default(), options, folder: None }
    }

    /// Where the archive is, in words.
    #[must_use]
    pub fn place(&self) -> String {
        let url = self.options.url.clone();
        let folder = || self.folder.as_ref().map(|folder| folder.display().to_string());
        url.or_else(folder).unwrap_or_else(|| self.store.to_string())
    }

    /// The store, and the path in it below which the parts lie: for an engine that reads them itself.
    #[must_use]
    pub fn object_store(&self) -> (Arc<dyn ObjectStore>, &Path) {
        (Arc::clone(&self.store), &self.root)
    }

    /// Stores parts, one after the other; they are durable when this returns.
    ///
    /// A part that is there already is written again: it has the same bytes. So after an error, or a crash, the same
    /// call with the same parts brings the archive to where it should be. Dropped early, it has stored some of them.
    ///
    /// # Errors
    /// [`ArchiveError::Write`], [`ArchiveError::Sync`], at the first part that fails.
    pub async fn write(&self, parts: &[Part]) -> Result<Written, ArchiveError> {
        let mut written = Written::default();
        for part in parts {
            self.put(part).await?;
            written.parts += 1;
            written.rows += part.rows;
            written.bytes += part.bytes.len() as u64;
        }
        Ok(written)
    }

    async fn put(&self, part: &Part) -> Result<(), ArchiveError> {
        let failed = |source| ArchiveError::Write { part: part.name.path(), source };
        let location = part.name.location(&self.root).map_err(|source| failed(source.into()))?;
        self.store.put(&location, PutPayload::from_bytes(part.bytes.clone())).await.map_err(failed)?;
        let Some(folder) = self.folder.clone() else { return Ok(()) };
        let path = folder.join(part.name.path());
        let synced = on_blocking_thread(move || sync(&folder, &path)).await;
        synced.map_err(|source| ArchiveError::Sync { part: part.name.path(), source })
    }

    /// The parts that the archive holds, by name; files that are not its own are passed over.
    ///
    /// # Errors
    /// [`ArchiveError::List`].
    pub async fn parts(&self) -> Result<Vec<StoredPart>, ArchiveError> {
        let root = Some(&self.root).filter(|root| !root.as_ref().is_empty());
        let failed = |source| ArchiveError::List { place: self.place(), source };
        let objects: Vec<_> = self.store.list(root).try_collect().await.map_err(failed)?;
        let mut parts: Vec<StoredPart> = objects
            .into_iter()
            .filter_map(|object| {
                let path = object.location.as_ref().strip_prefix(self.root.as_ref())?.trim_start_matches('/');
                let written = object.last_modified.timestamp_nanos_opt().unwrap_or(i64::MAX);
                Some(StoredPart { name: PartName::parse(path)?, bytes: object.size, written })
            })
            .collect();
        parts.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(parts)
    }

    /// The bytes of one part.
    ///
    /// # Errors
    /// [`ArchiveError::Read`].
    pub async fn read(&self, name: &PartName) -> Result<Bytes, ArchiveError> {
        let failed = |source| ArchiveError::Read { part: name.path(), source };
        let location = name.location(&self.root).map_err(|source| failed(source.into()))?;
        self.store.get(&location).await.map_err(failed)?.bytes().await.map_err(failed)
    }
}

#[cfg(feature = "s3")]
fn bucket_store(bucket: &str, options: &ArchiveOptions) -> Result<Arc<dyn ObjectStore>, String> {
    use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
    let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket);
    for (name, value) in &options.settings {
        let key: AmazonS3ConfigKey = name.parse().map_err(|_| format!("the S3 client has no setting `{name}`"))?;
        builder = builder.with_config(key, value);
    }
    Ok(Arc::new(builder.build().map_err(|error| error.to_string())?))
}

#[cfg(not(feature = "s3"))]
fn bucket_store(_bucket: &str, _options: &ArchiveOptions) -> Result<Arc<dyn ObjectStore>, String> {
    Err("this build has no client of buckets; build it with the feature `s3`, or give a folder in `path`".to_owned())
}

/// Makes a file and the folders that lead to it durable.
fn sync(root: &FsPath, path: &FsPath) -> std::io::Result<()> {
    File::open(path)?.sync_all()?;
    for folder in path.ancestors().skip(1).take_while(|folder| folder.starts_with(root)) {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

/// Waits for the disk without holding up an async thread, where there is one.
async fn on_blocking_thread(act: impl FnOnce() -> std::io::Result<()> + Send + 'static) -> std::io::Result<()> {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => runtime.spawn_blocking(act).await.map_err(std::io::Error::other)?,
        Err(_) => act(),
    }
}
