//! Every limit of this crate, each with its reason.

/// Longest line of a text file: longer than any row with a large `detail`, short enough that a binary file given as
/// text cannot fill the memory.
pub(crate) const LINE_BYTES_MAX: usize = 16 << 20;
/// Most lines one CSV record may span. A stray quote opens a field that never ends; it must not swallow the good rows
/// behind it, and a pretty-printed `detail` is far shorter.
pub(crate) const RECORD_LINES_MAX: usize = 1_000;
/// Most bytes one CSV record of several lines may span, for the same reason.
pub(crate) const RECORD_BYTES_MAX: usize = 1 << 20;
/// How much of a broken row is kept: enough to see what is wrong.
pub(crate) const REJECT_ROW_BYTES_MAX: usize = 4 << 10;
/// Depth of folders walked: run folders nest a few levels, and a loop of links must end.
pub(crate) const FOLDER_DEPTH_MAX: usize = 16;
/// Rows decoded before they are handed on: columns of 64 Ki rows stay in the second-level cache.
pub(crate) const BATCH_ROWS: usize = 1 << 16;
/// Text that one batch of a text file may hold before it is handed on early.
pub(crate) const BATCH_TEXT_BYTES: usize = 8 << 20;
/// Rows that are sorted in memory at once; more sorted chunks would make the merge wider, larger ones miss the cache.
pub(crate) const SORT_CHUNK_ROWS: usize = 1 << 16;
/// Rows of all runs and tables held in memory while reading; beyond it sorted rows go to disk. A quarter of the
/// gigabyte that a replay may use.
pub(crate) const SORT_MEMORY_BYTES: usize = 250 << 20;
/// Bytes read from disk at once for each sorted run: a merge of hundreds of runs stays at tens of megabytes.
pub(crate) const SPILL_BLOCK_BYTES: usize = 128 << 10;
/// A row waits this long for its missing cells, in nanoseconds of log time: three heartbeats of a slow agent.
pub(crate) const DEADLINE_NS: i64 = 10_000_000_000;
/// ... or this many median steps, where that is longer: a rank may report a step at the end of the next one.
pub(crate) const DEADLINE_STEPS: i64 = 3;
/// Step durations the median is taken over: long enough to outlive an evaluation, short enough to follow a schedule.
pub(crate) const STEP_DURATIONS_MAX: usize = 64;
/// Cells held open in one lane (17 bytes each): beyond it the oldest rows close early, whatever their deadline.
pub(crate) const OPEN_CELLS_MAX: usize = 4 << 20;
/// Metrics, fingerprint names and communicators of all launches that are aligned: thirty times what a hundred thousand
/// ranks need. A log with more is broken or hostile, and what comes beyond is counted instead. Fewer in tests,
/// which fill them.
pub(crate) const LANES_MAX: usize = if cfg!(test) { 1 << 10 } else { 1 << 18 };
/// Rows held open in one lane of digests or collectives.
pub(crate) const OPEN_ROWS_MAX: usize = 1 << 16;
/// Whole-run rows remembered after they closed, to tell a repeated row from a contradicting one.
pub(crate) const CLOSED_ROWS_KEPT: usize = 64;
/// Ranks below this find their column by index; above (only in broken input) by search.
pub(crate) const DENSE_RANKS_MAX: u32 = 1 << 20;
/// Buckets that the slack of a feed is cut into: what a part holds back beyond the slack is at most one of them.
pub(crate) const FEED_BUCKETS: i64 = 8;
