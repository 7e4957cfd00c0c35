//! What can go wrong while judging.

use trainwarden_kernels::KernelError;
use trainwarden_telemetry::Fault;

/// Judging failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DetectError {
    /// A statistic could not be computed.
    #[error("detector `{detector}` cannot compute a statistic")]
    Kernel {
        /// Which detector.
        detector: &'static str,
        /// Why.
        source: KernelError,
    },
    /// The detector's share of the budget is spread over as many series as it can carry.
    #[error("detector `{detector}` watches {watched_max} metrics or communicators already")]
    Full {
        /// Which detector.
        detector: &'static str,
        /// As many as it watches.
        watched_max: usize,
    },
    /// The state does not serialise.
    #[error("state of detector `{detector}` does not serialise")]
    Snapshot {
        /// Which detector.
        detector: &'static str,
        /// Why.
        source: rmp_serde::encode::Error,
    },
    /// The bytes are no snapshot of this detector.
    #[error("snapshot is none of detector `{detector}` version {version}")]
    Restore {
        /// Which detector.
        detector: &'static str,
        /// The version this program writes.
        version: u8,
    },
}

impl DetectError {
    /// Whose fault it is.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Kernel { .. } => Fault::Outside,
            Self::Snapshot { .. } => Fault::Ours,
            Self::Restore { .. } | Self::Full { .. } => Fault::Input,
        }
    }

    /// Judging is a pure function: the same call fails again.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        false
    }
}
