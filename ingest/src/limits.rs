//! Every limit of this crate, with its reason.

/// A row waits this long for its missing cells, in nanoseconds of log time: three heartbeats of a slow agent.
pub(crate) const DEADLINE_NS: i64 = 10_000_000_000;
/// ... or this many median steps, where that is longer: a rank may report a step at the end of the next one.
pub(crate) const DEADLINE_STEPS: i64 = 3;
/// Step durations the median is taken over: long enough to outlive an evaluation, short enough to follow a schedule.
pub(crate) const STEP_DURATIONS_MAX: usize = 64;
/// Cells held open in one lane (17 bytes each): beyond it the oldest rows close early, whatever their deadline.
pub(crate) const OPEN_CELLS_MAX: usize = 4 << 20;
/// Rows held open in one lane of digests or collectives.
pub(crate) const OPEN_ROWS_MAX: usize = 1 << 16;
/// Whole-run rows remembered after they closed, to tell a repeated row from a contradicting one.
pub(crate) const CLOSED_ROWS_KEPT: usize = 64;
/// Ranks below this find their column by index; above (only in broken input) by search.
pub(crate) const DENSE_RANKS_MAX: u32 = 1 << 20;
