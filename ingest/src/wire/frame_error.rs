//! Why a frame is not judged.

/// Why a frame of the log was set aside.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The bytes are no frame, or its envelope is none.
    #[error("not a frame of `trainwarden.v1`: {reason}")]
    Undecodable {
        /// In words of the decoder.
        reason: String,
    },
    /// A field has a value that this version does not know.
    #[error("`{field}` is {value}, which this version does not know")]
    Unknown {
        /// Which field.
        field: &'static str,
        /// Its value.
        value: i32,
    },
    /// The payload is not what the envelope says.
    #[error("the payload's digest is not the one in the envelope")]
    WrongDigest,
    /// The payload is, or would be, too large.
    #[error("the payload is {bytes} bytes, where {bytes_max} are allowed")]
    Oversized {
        /// Told or found.
        bytes: u64,
        /// Allowed.
        bytes_max: u64,
    },
    /// Decompression or decoding of the rows failed.
    #[error("the payload cannot be decoded: {reason}")]
    Damaged {
        /// In words of the decoder.
        reason: String,
    },
    /// A required column is missing, or a column has a type that cannot hold what the table needs.
    #[error("the payload cannot be of table `{table}`: column `{column}` {reason}")]
    Schema {
        /// Of the envelope.
        table: &'static str,
        /// Which.
        column: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Keys are configured and the frame carries no signature of the sender's.
    #[error("`{sender}` (key epoch {epoch}) {reason}")]
    Unsigned {
        /// Who the frame says it is from.
        sender: String,
        /// Which key.
        epoch: u32,
        /// What is wrong.
        reason: &'static str,
    },
}

impl FrameError {
    /// A short, stable word, for counting.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Undecodable { .. } => "undecodable",
            Self::Unknown { .. } => "unknown",
            Self::WrongDigest => "digest",
            Self::Oversized { .. } => "oversized",
            Self::Damaged { .. } => "damaged",
            Self::Schema { .. } => "schema",
            Self::Unsigned { .. } => "signature",
        }
    }
}
