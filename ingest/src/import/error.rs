//! What stops an import. Broken rows do not: they are set aside in the report.

use std::path::PathBuf;

use trainwarden_telemetry::Fault;

use crate::IngestError;

/// Why files could not be imported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// A file could not be opened.
    #[error("cannot open `{path}`")]
    OpenFile {
        /// Which.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// A column that was asked for is not in the header.
    #[error("`{path}` has no column `{column}`: its columns are {columns}")]
    NoColumn {
        /// Which file.
        path: PathBuf,
        /// The column asked for.
        column: String,
        /// The columns there are, quoted.
        columns: String,
    },
    /// The header is none that this kind of import reads.
    #[error("`{path}` is no {what}: its columns are {columns}, and {accepted} would be read")]
    UnknownLayout {
        /// Which file.
        path: PathBuf,
        /// What was expected.
        what: &'static str,
        /// The columns there are, quoted.
        columns: String,
        /// The layouts that are read.
        accepted: &'static str,
    },
    /// No preset has this name.
    #[error("`{name}` is no preset: one of {accepted} is meant")]
    UnknownPreset {
        /// The name given.
        name: String,
        /// The accepted names.
        accepted: String,
    },
    /// No unit of time has this name.
    #[error("`{name}` is no unit of time: one of s, ms, us, ns is meant")]
    UnknownTimeUnit {
        /// The name given.
        name: String,
    },
    /// The run folder could not be written.
    #[error("cannot write the run folder")]
    Write {
        /// Cause.
        #[from]
        source: IngestError,
    },
}

impl ImportError {
    /// Who has to act.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Write { source } => source.fault(),
            _ => Fault::Input,
        }
    }

    /// True when the same call may succeed later with nothing changed by the caller.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.fault() == Fault::Outside
    }
}
