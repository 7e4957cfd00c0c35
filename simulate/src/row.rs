//! Rows that a simulation gives: the columns of the tables of a run folder, without run and attempt.

/// One row of a table.
///
/// Times are nanoseconds since the epoch.
#[derive(Clone, Debug, PartialEq)]
pub enum Row<'a> {
    /// `samples`
    Sample {
        /// `None` for the whole run.
        rank: Option<u32>,
        /// Step.
        step: u64,
        /// When it was logged.
        time: i64,
        /// Metric.
        metric: &'static str,
        /// The number; NaN is a logged value.
        value: f64,
    },
    /// `collectives`
    Collective {
        /// Rank.
        rank: u32,
        /// Communicator.
        comm: &'a str,
        /// Number of the call in its communicator.
        seq: u64,
        /// The operation, as NCCL names it.
        op: &'static str,
        /// Payload.
        bytes: u64,
        /// When the rank came.
        start: i64,
        /// When it left; `None` = never.
        end: Option<i64>,
        /// Step.
        step: u64,
    },
    /// `digests`
    Digest {
        /// `None` for the whole run.
        rank: Option<u32>,
        /// Step.
        step: u64,
        /// When it was taken.
        time: i64,
        /// What was fingerprinted.
        kind: &'static str,
        /// Which one.
        name: &'a str,
        /// Sixteen hexadecimal digits.
        digest: &'a str,
    },
    /// `events`
    Event {
        /// When it happened.
        time: i64,
        /// Where it was recorded.
        source: &'static str,
        /// What it was.
        kind: &'static str,
        /// Who.
        actor: Option<&'a str>,
        /// On which host.
        node: Option<&'a str>,
        /// On which rank.
        rank: Option<u32>,
        /// What it was done to.
        subject: Option<&'a str>,
        /// Further facts as JSON text.
        detail: Option<&'a str>,
    },
    /// `ranks`
    Placement {
        /// Rank.
        rank: u32,
        /// Host.
        node: &'a str,
        /// GPU.
        device: &'a str,
        /// Index of the rank on its host.
        local_rank: u32,
        /// Data-parallel index.
        dp: u32,
        /// Tensor-parallel index.
        tp: u32,
        /// Pipeline stage.
        pp: u32,
    },
    /// `groups`
    Member {
        /// Communicator.
        comm: &'a str,
        /// Member.
        rank: u32,
    },
}
