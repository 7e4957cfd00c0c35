//! Every limit of reading, each with its reason.

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
