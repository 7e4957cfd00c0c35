//! Why a notice did not arrive.

use std::time::Duration;

use trainwarden_telemetry::Fault;

use super::TemplateError;
use crate::deliver::Outcome;

/// Why a notice did not arrive.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SinkError {
    /// There was no answer.
    #[error("no answer: {why}")]
    Unreachable {
        /// Why not.
        why: String,
    },
    /// The address may not be connected to.
    #[error("`{host}` is {address}, which is {range}: list it in `allow_private` of the sink if that is meant")]
    Denied {
        /// As the sink names it.
        host: String,
        /// What it resolved to.
        address: std::net::IpAddr,
        /// What the address is.
        range: &'static str,
    },
    /// The receiver answered that it could not.
    #[error("answered {status}: {body}")]
    Answered {
        /// Of HTTP.
        status: u16,
        /// The beginning of its answer.
        body: String,
        /// How long it asks to be left alone.
        retry_after: Option<Duration>,
    },
    /// The receiver answered that it does not take this.
    #[error("refused with {status}: {body}")]
    Refused {
        /// Of HTTP.
        status: u16,
        /// The beginning of its answer.
        body: String,
    },
    /// The program failed.
    #[error("`{program}` ended with {status}: {text}")]
    Exited {
        /// Which.
        program: String,
        /// How.
        status: String,
        /// The end of what it said.
        text: String,
    },
    /// A template does not fit this notice.
    #[error("the template does not fit the notice")]
    Template {
        /// Cause.
        source: TemplateError,
    },
}

impl SinkError {
    /// Who has to act.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Unreachable { .. } | Self::Answered { .. } | Self::Refused { .. } | Self::Exited { .. } => {
                Fault::Outside
            }
            Self::Denied { .. } | Self::Template { .. } => Fault::Input,
        }
    }

    /// True when the same attempt may succeed later with nothing changed by the caller.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Self::Refused { .. })
    }

    /// What it means for the next attempt.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Refused { .. } => Outcome::Refused,
            Self::Answered { retry_after, .. } => {
                Outcome::Failed(retry_after.map(|wait| i64::try_from(wait.as_nanos()).unwrap_or(i64::MAX)))
            }
            _ => Outcome::Failed(None),
        }
    }
}
