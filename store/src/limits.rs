//! Every limit of this crate, each with its reason.

/// Log time after which open parts are cut, in seconds: a restart reads at most this much again, and a day has whole
/// numbers of it, so that no part reaches over midnight.
pub(crate) const PART_SECONDS: u32 = 900;
/// Bytes of rows that the open parts of one partition may hold together; a sample takes 56. Larger parts are smaller
/// by the point, and memory is what they cost.
pub(crate) const PART_BYTES_MAX: u64 = 128 << 20;
/// Days that a part is kept.
pub(crate) const RETENTION_DAYS: u32 = 90;
/// Bytes of all parts together: what a disk of an ordinary server has to spare.
pub(crate) const ARCHIVE_BYTES_MAX: u64 = 64 << 30;
/// Rows of a row group: a query on few ranks reads one of them, and what repeats between the metrics of one device
/// (times, sequence numbers) is written once in each.
pub(crate) const GROUP_ROWS: usize = 2 << 20;
/// Values of one page of `value`, 256 KiB as they are: split into streams of bytes, each stream then fills blocks of the
/// compressor of its own, and a page of 64 KiB took 4 % more.
pub(crate) const VALUE_PAGE_ROWS: usize = 32 << 10;
/// Metrics with fewer rows share an encoding and its pages: a page of a few rows is mostly header.
pub(crate) const VALUE_SEGMENT_ROWS: usize = 4 << 10;
/// Bytes of a page of the other columns that need not repeat to be small.
pub(crate) const PAGE_BYTES: usize = 64 << 10;
/// Bytes of a page of a column whose content repeats at a distance: one page to a row group.
pub(crate) const LONG_PAGE_BYTES: usize = 32 << 20;
/// Distinct texts of a chunk that are kept as a dictionary, in bytes.
pub(crate) const DICTIONARY_BYTES_MAX: usize = 4 << 20;
/// Bytes of a run's name in a folder's name; file systems take 255 with `run=`, and the rest is for a hash.
pub(crate) const RUN_FOLDER_BYTES_MAX: usize = 200;
/// Compression of pages: the level at which times that repeat after half a million bytes are found.
pub(crate) const ZSTD_LEVEL: i32 = 3;
/// Compression of a dictionary of numbers: a decimal and its double have the same digits in binary, and from level 6
/// on they are found, which halves the dictionary.
pub(crate) const DICTIONARY_ZSTD_LEVEL: i32 = 9;

/// Bytes of the state's file that are held in memory, of pages read and of pages to be written: snapshots are written
/// over and over and read once.
pub(crate) const STATE_CACHE_BYTES: usize = 64 << 20;
