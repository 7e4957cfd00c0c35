//! What librdkafka says, as errors of a log.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::source::SourceError;

/// The error of an attempt, by what librdkafka says of it.
pub(super) fn source_error(log: &str, act: &'static str, error: &KafkaError) -> SourceError {
    let log = log.to_owned();
    let reason = error.to_string();
    let code = match error {
        KafkaError::AdminOp(code) => Some(*code),
        error => error.rdkafka_error_code(),
    };
    match code {
        Some(code) if !is_refusal(code) => SourceError::Unreachable { log, reason },
        _ => SourceError::Refused { log, act, reason },
    }
}

/// True for what asking again does not change.
pub(super) fn is_refusal(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::InvalidArgument
            | Code::Authentication
            | Code::SSL
            | Code::FencedInstanceId
            | Code::Fenced
            | Code::InvalidConfig
            | Code::InvalidPartitions
            | Code::InvalidReplicationFactor
            | Code::InvalidTopic
            | Code::MessageSizeTooLarge
            | Code::PolicyViolation
            | Code::SaslAuthenticationFailed
            | Code::TopicAuthorizationFailed
            | Code::GroupAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::UnsupportedVersion
            | Code::InconsistentGroupProtocol
    )
}

/// True for what is said when a batch is fetched and cannot be read, or when its place is no longer in the log.
pub(super) fn is_unreadable(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::BadMessage
            | Code::BadCompression
            | Code::NotImplemented
            | Code::InvalidMessage
            | Code::MessageSizeTooLarge
            | Code::InvalidRecord
            | Code::OffsetOutOfRange
            | Code::AutoOffsetReset
            | Code::NoOffset
            | Code::LogTruncation
    )
}
