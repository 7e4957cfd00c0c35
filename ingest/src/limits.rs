//! Every limit of this crate, each with its reason.

#[cfg(feature = "kafka")]
use std::time::Duration;

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
/// Bytes of a payload, before and after decompression: what a hundred thousand ranks say in a second, and no bomb.
pub(crate) const PAYLOAD_BYTES_MAX: u64 = 64 << 20;
/// Rows of a payload: columns without a value cost no bytes on the wire, so bytes alone bound nothing.
pub(crate) const PAYLOAD_ROWS_MAX: usize = 1 << 20;
/// Batches up to this many rows travel as packed columns: an Arrow stream pays for its schema each time.
pub(crate) const PACKED_ROWS_MAX: usize = 1 << 10;
/// Bytes of the name of a series that came by OTLP, with its attributes: a name is for people to read.
pub(crate) const SERIES_BYTES_MAX: usize = 512;
/// Rows of a frame that came by OTLP: with the longest names they stay below the largest record of a log.
pub(crate) const OTLP_FRAME_ROWS_MAX: usize = 1 << 13;
/// Frames of one sender and run that are remembered to tell a repeated one from a forged one: 64 Ki frames are a day
/// of one a second, and 1 MiB.
pub(crate) const FRAMES_REMEMBERED: usize = if cfg!(test) { 1 << 6 } else { 1 << 16 };
/// Largest record of the embedded log: what our topics on Kafka take, so that a sender need not know which log it is.
pub(crate) const RECORD_BYTES_MAX_IN_LOG: usize = 8 << 20;
/// Bytes after which a segment of the embedded log is full: what is removed at once, and scanned at a restart.
pub(crate) const SEGMENT_BYTES: u64 = 64 << 20;
/// Records on their way into the embedded log: a sender that waits for its receipts has no more on the way.
pub(crate) const APPENDS_WAITING_MAX: usize = 256;
/// Bytes that are written between two syncs.
pub(crate) const APPEND_BYTES_AT_ONCE: usize = 32 << 20;

/// Records that a source on Kafka holds for a slow caller: enough to hide its pauses at a few kilobytes a record.
#[cfg(feature = "kafka")]
pub(crate) const SOURCE_RECORDS_MAX: usize = 4_096;
/// ... and bytes, where records are large: a sixteenth of the gigabyte that a worker may use.
#[cfg(feature = "kafka")]
pub(crate) const SOURCE_BYTES_MAX: usize = 64 << 20;
/// What librdkafka fetches ahead, in KiB: two of the largest records.
#[cfg(feature = "kafka")]
pub(crate) const SOURCE_FETCH_KB: usize = 16 << 10;
/// A full queue is waited for this long before the partitions are paused, which throws away what was fetched. Far
/// below the time after which a member that does not poll is expelled (300 s).
#[cfg(feature = "kafka")]
pub(crate) const FULL_WAIT: Duration = Duration::from_secs(1);
/// One poll of a consumer: how long a command of the caller may wait.
#[cfg(feature = "kafka")]
pub(crate) const POLL_WAIT: Duration = Duration::from_millis(20);
/// Brokers are waited for this long when a partition is begun; polling stands still meanwhile.
#[cfg(feature = "kafka")]
pub(crate) const SEEK_WAIT: Duration = Duration::from_secs(1);
/// ... and not asked again for this long when they did not answer, so that the other partitions are read.
#[cfg(feature = "kafka")]
pub(crate) const SEEK_PAUSE: Duration = Duration::from_secs(1);
/// The same trouble is told to the caller at most this often: a cluster that is away is one line a second.
#[cfg(feature = "kafka")]
pub(crate) const ERROR_INTERVAL: Duration = Duration::from_secs(1);
/// Nothing comes for this long although the log goes on, in milliseconds: a leader is changed faster, as a rule, and a
/// false alarm costs a look at the partition and nothing else.
#[cfg(feature = "kafka")]
pub(crate) const STALL_SILENT_MS: u64 = 5_000;
/// ... and this long where something could not be read.
#[cfg(feature = "kafka")]
pub(crate) const STALL_TROUBLED_MS: u64 = 1_000;
/// Each false alarm doubles the patience, up to 32 times.
#[cfg(feature = "kafka")]
pub(crate) const STALL_DOUBLINGS_MAX: u32 = 5;
/// Partitions looked at at once: each is a client with its connections.
#[cfg(feature = "kafka")]
pub(crate) const PROBES_MAX: usize = 4;
/// One look at a place of a partition; brokers that do not answer in it are away.
#[cfg(feature = "kafka")]
pub(crate) const PROBE_WAIT: Duration = Duration::from_secs(10);
/// An unreadable stretch is walked offset by offset this long before the steps double.
#[cfg(feature = "kafka")]
pub(crate) const PROBE_LINEAR: Duration = Duration::from_secs(3);
/// Fetches without a record and without a word, after which a batch counts as unreadable: one may be an empty answer,
/// and a second one a batch that was larger than asked for.
#[cfg(feature = "kafka")]
pub(crate) const SILENT_FETCHES: i64 = 5;
/// The largest record that is written: what our topics take (8 MiB), less what Kafka adds to it.
#[cfg(feature = "kafka")]
pub(crate) const PUBLISH_BYTES_MAX: usize = (8 << 20) - (1 << 10);
/// Records on their way to the brokers, and KiB of them: beyond it a writer waits.
#[cfg(feature = "kafka")]
pub(crate) const PUBLISH_QUEUE_RECORDS: usize = 16_384;
/// See [`PUBLISH_QUEUE_RECORDS`]: eight of the largest.
#[cfg(feature = "kafka")]
pub(crate) const PUBLISH_QUEUE_KB: usize = 64 << 10;
/// A writer that is dropped waits this long for acknowledgements: a graceful stop has a few seconds.
#[cfg(feature = "kafka")]
pub(crate) const FLUSH_WAIT: Duration = Duration::from_secs(5);
/// Brokers are waited for this long when a topic is described.
#[cfg(feature = "kafka")]
pub(crate) const METADATA_WAIT: Duration = Duration::from_secs(10);
/// ... and when one is made, which may wait for a controller to be elected.
#[cfg(feature = "kafka")]
pub(crate) const TOPIC_WAIT: Duration = Duration::from_secs(20);
/// A topic that is to be opened may have been made a moment ago, and not be known to the broker that is asked.
#[cfg(feature = "kafka")]
pub(crate) const TOPIC_SEEN_WAIT: Duration = Duration::from_secs(3);
/// Pause between two questions for a topic.
#[cfg(feature = "kafka")]
pub(crate) const METADATA_PAUSE: Duration = Duration::from_millis(50);
/// A run of which nothing comes for so long is silent, in nanoseconds of log time: longer than an evaluation that nobody
/// announced, as a rule.
pub(crate) const RUN_SILENCE_NS: i64 = 300_000_000_000;
