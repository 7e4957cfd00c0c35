//! A store whose calls fail when a test says so.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// What goes wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Failure {
    DiskFull,
    Timeout,
    /// The call was done, and its answer got lost.
    LostAnswer,
    Forbidden,
}

/// Every call from the `n`-th on fails, until told otherwise.
#[derive(Debug)]
pub(crate) struct Faulty {
    inner: Arc<dyn ObjectStore>,
    failure: Failure,
    /// Calls that still succeed.
    left: AtomicI64,
}

impl Faulty {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, failure: Failure, succeeding: i64) -> Self {
        Self { inner, failure, left: AtomicI64::new(succeeding) }
    }

    pub(crate) fn mend(&self) {
        self.left.store(i64::MAX, Ordering::SeqCst);
    }

    fn fails(&self) -> bool {
        self.left.fetch_sub(1, Ordering::SeqCst) <= 0
    }

    fn error(&self, path: &Path) -> Error {
        let io = |kind| Box::new(std::io::Error::from(kind));
        match self.failure {
            Failure::DiskFull => Error::Generic { store: "test", source: io(std::io::ErrorKind::StorageFull) },
            Failure::Timeout | Failure::LostAnswer => {
                Error::Generic { store: "test", source: io(std::io::ErrorKind::TimedOut) }
            }
            Failure::Forbidden => {
                Error::PermissionDenied { path: path.to_string(), source: io(std::io::ErrorKind::PermissionDenied) }
            }
        }
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("faulty")
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let fails = self.fails();
        if fails && !matches!(self.failure, Failure::LostAnswer) {
            return Err(self.error(location));
        }
        let result = self.inner.put_opts(location, payload, opts).await?;
        if fails { Err(self.error(location)) } else { Ok(result) }
    }

    async fn put_multipart_opts(&self, location: &Path, opts: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if self.fails() { Err(self.error(location)) } else { self.inner.get_opts(location, options).await }
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        if self.fails() {
            let error = self.error(&Path::default());
            return futures_util::stream::iter([Err(error)]).boxed();
        }
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        if self.fails() {
            let error = self.error(&Path::default());
            return futures_util::stream::iter([Err(error)]).boxed();
        }
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
