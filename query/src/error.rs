//! What can go wrong with a question.

use std::path::PathBuf;

use datafusion::error::DataFusionError;
use serde::{Deserialize, Serialize};
use trainwarden_telemetry::Fault;

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The text of a statement is wrong, or not allowed.
    #[error("{0}")]
    Statement(Problem),

    /// A statement is larger than what is taken.
    #[error("the statement has {found} {what}; at most {most} are taken: ask in several statements, or join a table")]
    TooLarge {
        /// How many there are.
        found: usize,
        /// Of what.
        what: &'static str,
        /// The bound.
        most: usize,
    },

    /// The archive cannot be read.
    #[error("cannot read the archive")]
    Archive(#[from] trainwarden_store::ArchiveError),

    /// A file of a run folder cannot be read.
    #[error("cannot read `{path}`: {reason}")]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },

    /// The state holds what is no incident.
    #[error("the state holds a damaged incident")]
    Incident(#[from] serde_json::Error),

    /// There is no saved question of that name.
    #[error("there is no saved question `{name}`; there are {known}")]
    NoSaved {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },

    /// A saved question needs to be told more.
    #[error("the saved question `{saved}` asks about a `{parameter}`: give it with --param {parameter}=VALUE")]
    NoParameter {
        /// The question.
        saved: &'static str,
        /// What it needs.
        parameter: String,
    },

    /// The process that answers ran into a limit, or died.
    #[error("{0}")]
    Ended(String),

    /// Who asked does not want to know any more.
    #[error("the question was cancelled")]
    Cancelled,

    /// The process that answers cannot be started or locked in.
    #[error("cannot {act} the query process: {reason}")]
    Process {
        /// What was attempted.
        act: &'static str,
        /// Why it failed.
        reason: String,
    },

    /// The engine failed while it read or counted.
    #[error("{}", .0.strip_backtrace())]
    Engine(Box<DataFusionError>),

    /// The answer cannot be written.
    #[error("cannot write the answer")]
    Write(#[from] std::io::Error),
}

impl QueryError {
    /// Who has to act.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Archive(error) => error.fault(),
            Self::Process { .. } | Self::Write(_) => Fault::Outside,
            _ => Fault::Input,
        }
    }

    /// Whether the same question may have an answer a moment later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Process { .. } | Self::Write(_))
    }
}

impl From<DataFusionError> for QueryError {
    fn from(error: DataFusionError) -> Self {
        Self::Engine(Box::new(error))
    }
}

impl From<datafusion::arrow::error::ArrowError> for QueryError {
    fn from(error: datafusion::arrow::error::ArrowError) -> Self {
        Self::Engine(Box::new(error.into()))
    }
}

/// What is wrong with the text of a statement, where, and what to write instead.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What is wrong.
    pub message: String,
    /// Line, from one.
    pub line: Option<u64>,
    /// Character of the line, from one.
    pub column: Option<u64>,
    /// What to write instead.
    pub hint: Option<String>,
}

impl Problem {
    /// A problem without a place.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), ..Self::default() }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(f, "line {line}, column {column}: ")?;
        }
        f.write_str(&self.message)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "; {hint}"))
    }
}
