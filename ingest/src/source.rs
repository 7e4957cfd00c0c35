//! The seam of a log: records come in, partition by partition, each with the place where it stands.

use std::time::Duration;

use trainwarden_telemetry::Fault;

/// One record of the log: the bytes of one frame of the wire contract, unread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    /// Partition of the topic; all records of a run are in one.
    pub partition: u32,
    /// Place in the partition: ascending, with gaps where the log holds marks of its own.
    pub offset: u64,
    /// When the log took it, in nanoseconds since the epoch; never descends inside a partition.
    pub append_time: i64,
    /// The frame.
    pub value: Vec<u8>,
}

/// What a source hands on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The partition is ours from now on; nothing of it comes before [`Source::begin`].
    Assigned(u32),
    /// The partition is somebody else's from now on; nothing of it comes any more.
    Revoked(u32),
    /// The next record of a partition.
    Record(LogRecord),
    /// Records that nobody can read were passed over.
    Skipped {
        /// Of which partition.
        partition: u32,
        /// The first of them.
        first: u64,
        /// The next offset that can be read.
        next: u64,
        /// Why, in words of the log's client.
        reason: String,
    },
}

/// A log that is read: Kafka, or the embedded one.
///
/// The caller may assume: after [`Source::begin`] every record of the partition from that offset on comes once, in
/// the order of offsets, until the partition is revoked; between partitions there is no order. Nothing is dropped
/// while the caller does not call: the source holds a bounded number of records and stops reading.
///
/// The implementer keeps membership alive while the caller is busy, so that a slow caller does not lose partitions.
pub trait Source: Send {
    /// What comes next; `None` when nothing came within `wait`.
    ///
    /// # Errors
    /// [`SourceError`]; the same call may be repeated where it [is retryable](SourceError::is_retryable).
    fn next(&mut self, wait: Duration) -> Result<Option<Delivery>, SourceError>;

    /// Reads an assigned partition from an offset on; one that retention has removed begins at the oldest record.
    ///
    /// # Errors
    /// See [`Source::next`].
    fn begin(&mut self, partition: u32, offset: u64) -> Result<(), SourceError>;

    /// Tells the log that everything before an offset is durable here. Advisory: what counts is our own state.
    ///
    /// # Errors
    /// See [`Source::next`].
    fn commit(&mut self, partition: u32, offset: u64) -> Result<(), SourceError>;
}

/// Called once when a record is durable in the log, or when it is certain that it is not known to be.
///
/// Where it stands: partition and offset.
pub type Published = Box<dyn FnOnce(Result<(u32, u64), SourceError>) + Send>;

/// A log that is written.
pub trait Publisher: Send + Sync {
    /// Appends a record to the partition of its key; records of one caller and key keep their order.
    ///
    /// Waits where too many records are on their way. A record may be appended twice when a failure is told.
    fn publish(&self, key: &str, value: &[u8], published: Published);

    /// Appends a record to a partition.
    fn publish_to(&self, partition: u32, value: &[u8], published: Published);

    /// How many partitions the log has.
    fn partitions(&self) -> u32;
}

/// Why a log could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The log cannot be reached, or does not answer.
    #[error("cannot reach the log `{log}`: {reason}")]
    Unreachable {
        /// Brokers, or the folder.
        log: String,
        /// In words of its client.
        reason: String,
    },
    /// The log refuses what was asked.
    #[error("the log `{log}` refuses to {act}: {reason}")]
    Refused {
        /// Brokers, or the folder.
        log: String,
        /// What was attempted.
        act: &'static str,
        /// In words of its client.
        reason: String,
    },
    /// The disk of the embedded log failed.
    #[error("cannot {act} `{path}`")]
    Disk {
        /// What was attempted.
        act: &'static str,
        /// On what.
        path: std::path::PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// A record is larger than the log takes.
    #[error("a record of {bytes} bytes is too large for the log `{log}`, which takes {bytes_max}")]
    TooLarge {
        /// Brokers, or the folder.
        log: String,
        /// Of the record.
        bytes: usize,
        /// Allowed.
        bytes_max: usize,
    },
}

impl SourceError {
    /// Who has to act.
    #[must_use]
    pub fn fault(&self) -> Fault {
        match self {
            Self::Unreachable { .. } | Self::Disk { .. } => Fault::Outside,
            Self::Refused { .. } | Self::TooLarge { .. } => Fault::Input,
        }
    }

    /// True when the same call may succeed later with nothing changed by the caller.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.fault() == Fault::Outside
    }
}

/// The partition of a key, as Kafka's Java client and librdkafka's `murmur2_random` choose it.
///
/// Source: `org.apache.kafka.common.utils.Utils.murmur2` and `BuiltInPartitioner.partitionForKey` of Apache Kafka.
#[must_use]
pub fn partition_of(key: &str, partitions: u32) -> u32 {
    (murmur2(key.as_bytes()) & 0x7fff_ffff) % partitions.max(1)
}

fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c_u32 ^ u32::try_from(data.len()).unwrap_or(u32::MAX);
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut word = u32::from_le_bytes(word.try_into().expect("chunks are of four bytes")).wrapping_mul(M);
        word = (word ^ (word >> 24)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ word;
    }
    let rest = words.remainder();
    if !rest.is_empty() {
        let tail = rest.iter().rev().fold(0_u32, |tail, byte| (tail << 8) | u32::from(*byte));
        hash = (hash ^ tail).wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_fall_where_kafka_puts_them() {
        // Values of Apache Kafka's own test, UtilsTest.testMurmur2.
        let known = [("21", -973_932_308_i32), ("foobar", -790_332_482), ("a-little-bit-long-string", -985_981_536)];
        for (key, hash) in known {
            assert_eq!(murmur2(key.as_bytes()), hash.cast_unsigned(), "{key}");
        }
        assert_eq!(partition_of("foobar", 4), ((-790_332_482_i32).cast_unsigned() & 0x7fff_ffff) % 4);
    }
}
