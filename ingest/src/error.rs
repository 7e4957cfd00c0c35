//! What stops reading or writing. Broken rows do not: they are set aside.

use std::path::PathBuf;

use parquet::errors::ParquetError;
use trainwarden_telemetry::Fault;

/// Why telemetry could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IngestError {
    /// A path given does not exist.
    #[error("no file or folder `{path}`")]
    NoPath {
        /// As given.
        path: PathBuf,
    },
    /// Nothing under the paths is a table.
    #[error(
        "no table in {paths}: expected {tables} as .parquet, .csv or .jsonl (these also .gz or .zst), or a sub-folder of such files"
    )]
    NoTables {
        /// The paths as given, quoted.
        paths: String,
        /// Names of the tables.
        tables: String,
    },
    /// A folder could not be listed.
    #[error("cannot list folder `{path}`")]
    ListFolder {
        /// Which.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// A file could not be opened, or the disk failed while reading it.
    #[error("cannot read `{path}`")]
    ReadFile {
        /// Which.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// A file could not be created, written or renamed.
    #[error("cannot write `{path}`")]
    WriteFile {
        /// Which.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// A Parquet file could not be written.
    #[error("cannot write Parquet file `{path}`")]
    WriteParquet {
        /// Which.
        path: PathBuf,
        /// Cause.
        source: ParquetError,
    },
    /// Rows that did not fit in memory could not be put on disk or read back.
    #[error("cannot sort on disk, in the folder for temporary files")]
    Spill {
        /// Cause.
        source: std::io::Error,
    },
}

impl IngestError {
    /// Who has to act.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::NoPath { .. } | Self::NoTables { .. } => Fault::Input,
            Self::ListFolder { .. } | Self::ReadFile { .. } | Self::WriteFile { .. } | Self::Spill { .. } => {
                Fault::Outside
            }
            // Arrow refuses a batch only when it does not fit the schema we made it with.
            Self::WriteParquet { source, .. } => match source {
                ParquetError::External(_) => Fault::Outside,
                _ => Fault::Ours,
            },
        }
    }

    /// True when the same call may succeed later with nothing changed by the caller.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.fault() == Fault::Outside
    }
}
