//! What stops archiving.

use std::error::Error;
use std::path::PathBuf;

use parquet::errors::ParquetError;
use trainwarden_telemetry::Fault;

/// Why the archive could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// The place of the archive is not one that we know.
    #[error("cannot use `{place}` as the archive: {reason}")]
    BadPlace {
        /// As given.
        place: String,
        /// Why, with what is accepted.
        reason: String,
    },
    /// A setting has a value that makes no sense.
    #[error("archive setting `{setting}` is {value}, accepted is {accepted}")]
    BadSetting {
        /// Which.
        setting: &'static str,
        /// As given.
        value: u64,
        /// What would be good.
        accepted: &'static str,
    },
    /// The folder of the archive could not be made.
    #[error("cannot create the archive folder `{path}`")]
    CreateFolder {
        /// Which.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// A batch of rows has a column of another type than its table.
    #[error("a batch of `{table}` has column `{column}` as {found}, where {expected} is needed")]
    WrongType {
        /// Of which table.
        table: &'static str,
        /// Which column.
        column: &'static str,
        /// Arrow type of the batch.
        found: String,
        /// Arrow type of the table.
        expected: String,
    },
    /// A batch of rows lacks a required column, or a value in it.
    #[error("a batch of `{table}` has no {what} in column `{column}`")]
    Missing {
        /// Of which table.
        table: &'static str,
        /// Which column.
        column: &'static str,
        /// `column`, or `value` with its row.
        what: String,
    },
    /// Rows could not be written as Parquet.
    #[error("cannot encode part `{part}`")]
    Encode {
        /// Which.
        part: String,
        /// Cause.
        source: ParquetError,
    },
    /// A part could not be stored.
    #[error("cannot write part `{part}`")]
    Write {
        /// Which.
        part: String,
        /// Cause.
        source: object_store::Error,
    },
    /// A part was written, and the disk does not promise to keep it.
    #[error("cannot make part `{part}` durable")]
    Sync {
        /// Which.
        part: String,
        /// Cause.
        source: std::io::Error,
    },
    /// The parts could not be listed.
    #[error("cannot list the archive `{place}`")]
    List {
        /// Where.
        place: String,
        /// Cause.
        source: object_store::Error,
    },
    /// A part could not be read.
    #[error("cannot read part `{part}`")]
    Read {
        /// Which.
        part: String,
        /// Cause.
        source: object_store::Error,
    },
    /// A part could not be removed.
    #[error("cannot remove part `{part}`")]
    Remove {
        /// Which.
        part: String,
        /// Cause.
        source: object_store::Error,
    },
}

impl ArchiveError {
    /// Who has to act.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::BadPlace { .. } | Self::BadSetting { .. } => Fault::Input,
            Self::WrongType { .. } | Self::Missing { .. } | Self::Encode { .. } => Fault::Ours,
            Self::CreateFolder { .. } | Self::Sync { .. } => Fault::Outside,
            Self::Write { source, .. }
            | Self::List { source, .. }
            | Self::Read { source, .. }
            | Self::Remove { source, .. } => fault_of(source),
        }
    }

    /// True when the same call may succeed later with nothing changed by the caller.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.fault() == Fault::Outside
    }

    /// True when the disk of the archive is full: a person, or retention, has to make room.
    #[must_use]
    pub fn is_disk_full(&self) -> bool {
        let mut cause: Option<&(dyn Error + 'static)> = Some(self);
        while let Some(error) = cause {
            let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
            if kind == Some(std::io::ErrorKind::StorageFull) || kind == Some(std::io::ErrorKind::QuotaExceeded) {
                return true;
            }
            cause = error.source();
        }
        false
    }
}

fn fault_of(source: &object_store::Error) -> Fault {
    use object_store::Error;
    match source {
        // We made the path and chose the call.
        Error::InvalidPath { .. } | Error::NotSupported { .. } | Error::NotImplemented { .. } => Fault::Ours,
        Error::UnknownConfigurationKey { .. } => Fault::Input,
        // Rights and buckets are mended by others while we wait.
        _ => Fault::Outside,
    }
}
