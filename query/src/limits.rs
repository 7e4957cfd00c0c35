//! Bounds of a statement, of its answer, and of the process it runs in.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Bytes of one text of statements: a long question has a few thousand.
pub(crate) const SQL_BYTES_MAX: usize = 16 << 10;
/// Tokens of one statement.
pub(crate) const TOKENS_MAX: usize = 4_096;
/// Brackets, `CASE`s and prefix operators inside each other: parser and planner recurse once a level.
pub(crate) const DEPTH_MAX: usize = 48;
/// Operators of one statement: the planner recurses along `1 + 1 + 1 + ...`, and no parser counts that.
pub(crate) const CHAIN_MAX: usize = 400;
/// Statements of one request.
pub(crate) const STATEMENTS_MAX: usize = 64;
/// Part of the memory that operators may keep; the rest is for reading, planning and the answer.
pub(crate) const POOL_SHARE: f64 = 0.6;
/// Rows of one table of a run folder that is no Parquet: it is held in memory.
pub(crate) const FOLDER_ROWS_MAX: usize = 20_000_000;

/// What a request may use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Memory of the process that answers.
    pub memory_bytes: u64,
    /// Time from the start of the process to its last byte.
    pub time: Duration,
    /// Bytes of the answer.
    pub output_bytes: u64,
    /// Statements in one request.
    pub statements: usize,
    /// Threads that work.
    pub threads: usize,
}

impl Default for Limits {
    /// Of a query that a service answers: 1 GiB, 10 s, 64 MiB, one statement, two threads.
    fn default() -> Self {
        let (memory_bytes, output_bytes) = (1 << 30, 64 << 20);
        Self { memory_bytes, time: Duration::from_secs(10), output_bytes, statements: 1, threads: 2 }
    }
}

impl Limits {
    /// Of a command at a terminal: an hour, 1 GiB of answer, many statements, and the threads of the machine.
    #[must_use]
    pub fn local(memory_bytes: u64, time: Duration) -> Self {
        let threads = std::thread::available_parallelism().map_or(2, usize::from).min(16);
        Self { memory_bytes, time, output_bytes: 1 << 30, statements: STATEMENTS_MAX, threads }
    }
}
