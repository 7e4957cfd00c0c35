//! Why state could not be kept or read.

use std::path::PathBuf;

use trainwarden_telemetry::Fault;

/// Why state could not be kept or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The state is in use by another process.
    #[error("another process has the state `{path}` open")]
    InUse {
        /// Which.
        path: PathBuf,
    },
    /// There is no state.
    #[error("no state in `{path}`: has `trainwarden serve --data` run on this folder?")]
    Missing {
        /// Which.
        path: PathBuf,
    },
    /// The state was written by a newer version.
    #[error("the state `{path}` is of version {found}, and this program knows up to {known}: use the newer program")]
    Newer {
        /// Which.
        path: PathBuf,
        /// Of the file.
        found: u64,
        /// Of this program.
        known: u64,
    },
    /// The store could not do it: the disk failed or is full, or the file is damaged.
    #[error("cannot {act} the state `{path}`")]
    State {
        /// What was attempted.
        act: &'static str,
        /// On which.
        path: PathBuf,
        /// Cause.
        source: Box<redb::Error>,
    },
}

impl StoreError {
    /// Who has to act.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::InUse { .. } | Self::Missing { .. } | Self::Newer { .. } => Fault::Input,
            Self::State { .. } => Fault::Outside,
        }
    }

    /// True when the same call may succeed later with nothing changed by the caller.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::State { .. } | Self::InUse { .. })
    }
}
