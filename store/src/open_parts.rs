//! The rows of one partition of the log that no part holds yet, and where to cut them.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::TimestampNanosecondType;
use bytes::Bytes;
use trainwarden_telemetry::{Column, Table};

use crate::column_rows::{ColumnRows, Shared};
use crate::limits::{PART_BYTES_MAX, PART_SECONDS};
use crate::{ArchiveError, Date, PartName, part_file};

/// Where parts are cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartLimits {
    /// Log time, in seconds, whose multiples no part reaches over; divides a day.
    pub seconds: u32,
    /// Bytes of content that all open parts of the partition hold together, about what they take in memory.
    pub bytes_max: u64,
}

impl Default for PartLimits {
    fn default() -> Self {
        Self { seconds: PART_SECONDS, bytes_max: PART_BYTES_MAX }
    }
}

/// What the log says of one record.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Place in the partition.
    pub offset: u64,
    /// When the log took it, in nanoseconds since the epoch.
    pub append_time: i64,
    /// The rows were sent later than they were measured: their log time is their own `received`, else `time`.
    pub is_backfill: bool,
    /// Who sent it.
    pub sender: Option<&'a str>,
    /// Its number among those of its sender.
    pub sequence: Option<u64>,
}

/// The open parts of one partition of the log.
///
/// What is cut, and where, hangs on the records alone, never on when they are read: who reads the partition again from
/// [`Cut::position`] cuts the same parts with the same names and the same bytes.
///
/// All parts are cut together, between two records: before the first record of another span of log time, and after the
/// records have filled the memory they may. So one offset says what is archived: everything before it.
#[derive(Debug)]
pub struct OpenParts {
    partition: u32,
    limits: PartLimits,
    parts: BTreeMap<PartKey, Vec<ColumnRows>>,
    open: Option<Span>,
    bytes: u64,
}

/// What one file holds rows of; the order is that of the files of a cut.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct PartKey {
    table: Table,
    run: Option<Arc<str>>,
    date: Date,
}

/// The records since the last cut.
#[derive(Clone, Copy, Debug)]
struct Span {
    first: u64,
    last: u64,
    /// Number of the span of log time.
    number: i64,
}

/// Parts that were cut together.
#[derive(Debug)]
pub struct Cut {
    /// Where to read on once all parts are stored: everything before it is in the archive.
    pub position: u64,
    /// The parts, by table, run and day.
    pub parts: Vec<ClosedPart>,
}

/// Rows that become one file.
#[derive(Debug)]
pub struct ClosedPart {
    name: PartName,
    columns: Vec<ColumnRows>,
}

/// One file, to be stored.
#[derive(Clone, Debug)]
pub struct Part {
    /// Where it goes.
    pub name: PartName,
    /// The Parquet file.
    pub bytes: Bytes,
    /// Rows in it.
    pub rows: u64,
}

impl OpenParts {
    /// Nothing open.
    ///
    /// * `limits`: the same for every reader of the log; with others the parts are others, and rows may be stored twice.
    #[must_use]
    pub fn new(partition: u32, limits: PartLimits) -> Self {
        Self { partition, limits, parts: BTreeMap::new(), open: None, bytes: 0 }
    }

    /// Tells of the next record of the partition before its rows are taken; what it returns must be stored.
    ///
    /// To be called for every record, also for one without rows, so that a quiet run is cut in time.
    pub fn begin(&mut self, record: &Record<'_>) -> Option<Cut> {
        let open = self.open?;
        if record.offset <= open.last {
            return None; // A record of several batches is never cut inside.
        }
        let is_full = self.bytes >= self.limits.bytes_max;
        if is_full || self.span_of(record.append_time) > open.number { self.cut(record.offset) } else { None }
    }

    /// Takes the rows of one table of one run; what it returns was cut before them, and must be stored.
    ///
    /// * `rows`: columns by name, of the types of the table; unknown ones, and `run`, are not looked at.
    ///
    /// # Errors
    /// [`ArchiveError::WrongType`], [`ArchiveError::Missing`]: a batch that does not fit its table; nothing of it was taken,
    /// and nothing was cut.
    pub fn take(
        &mut self,
        record: &Record<'_>,
        table: Table,
        run: Option<&str>,
        rows: &RecordBatch,
    ) -> Result<Option<Cut>, ArchiveError> {
        check(table, run, rows)?;
        let cut = self.begin(record);
        if rows.num_rows() == 0 {
            return Ok(cut);
        }
        let number = self.span_of(record.append_time);
        let open = self.open.get_or_insert(Span { first: record.offset, last: record.offset, number });
        open.last = open.last.max(record.offset);
        open.number = open.number.max(number);
        for (date, rows) in by_date(record, rows) {
            let key = PartKey { table, run: run.map(Arc::from), date };
            let new = || table.columns().iter().map(|column| ColumnRows::new(*column)).collect();
            let columns: &mut Vec<ColumnRows> = self.parts.entry(key).or_insert_with(new);
            self.bytes -= content_bytes(columns);
            append(table, columns, record, run, &rows);
            self.bytes += content_bytes(columns);
        }
        Ok(cut)
    }

    /// Bytes of content that are open.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Rows that are open.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.parts.values().map(|columns| columns[0].len() as u64).sum()
    }

    /// Offset of the first record whose rows are open; `None` when none are.
    #[must_use]
    pub fn first_open(&self) -> Option<u64> {
        self.open.map(|open| open.first)
    }

    /// Number of the span of log time that a time is in.
    fn span_of(&self, time: i64) -> i64 {
        time.div_euclid(i64::from(self.limits.seconds.max(1)) * 1_000_000_000)
    }

    fn cut(&mut self, position: u64) -> Option<Cut> {
        let open = self.open.take()?;
        self.bytes = 0;
        let closed = |(key, columns): (PartKey, Vec<ColumnRows>)| ClosedPart {
            name: PartName {
                table: key.table,
                run_folder: PartName::run_folder(key.run.as_deref()),
                date: key.date,
                partition: self.partition,
                first: open.first,
                last: open.last,
            },
            columns,
        };
        let parts = std::mem::take(&mut self.parts).into_iter().map(closed).collect();
        Some(Cut { position, parts })
    }
}

impl Cut {
    /// The files of all parts; see [`ClosedPart::encode`].
    ///
    /// # Errors
    /// See [`ClosedPart::encode`].
    pub fn encode(&self) -> Result<Vec<Part>, ArchiveError> {
        self.parts.iter().map(ClosedPart::encode).collect()
    }
}

impl ClosedPart {
    /// Where the part goes.
    #[must_use]
    pub fn name(&self) -> &PartName {
        &self.name
    }

    /// Rows in it.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.columns[0].len() as u64
    }

    /// The file: the same bytes each time. Takes about half a microsecond a row: not for an async thread.
    ///
    /// # Errors
    /// [`ArchiveError::Encode`]: a bug of ours.
    pub fn encode(&self) -> Result<Part, ArchiveError> {
        let encoded = part_file::encode(self.name.table, &self.columns);
        let bytes = encoded.map_err(|source| ArchiveError::Encode { part: self.name.path(), source })?;
        Ok(Part { name: self.name.clone(), bytes, rows: self.rows() })
    }
}

fn content_bytes(columns: &[ColumnRows]) -> u64 {
    columns.iter().map(ColumnRows::content_bytes).sum()
}

/// Every column in its type, and no required one missing.
fn check(table: Table, run: Option<&str>, rows: &RecordBatch) -> Result<(), ArchiveError> {
    let missing =
        |column: &Column, what: String| Err(ArchiveError::Missing { table: table.as_str(), column: column.name, what });
    for column in table.columns() {
        if column.name == "run" {
            match run {
                None if !column.is_optional => return missing(column, "value".to_owned()),
                _ => continue,
            }
        }
        match rows.column_by_name(column.name) {
            Some(array) => {
                ColumnRows::new(*column).append(table, &array.slice(0, 0))?;
                if !column.is_optional && array.null_count() > 0 {
                    return missing(column, format!("value in {} rows", array.null_count()));
                }
            }
            None if column.is_optional => {}
            None => return missing(column, "array".to_owned()),
        }
    }
    Ok(())
}

/// The rows of a record by their day of log time: all of one day, except where they were sent later.
fn by_date(record: &Record<'_>, rows: &RecordBatch) -> Vec<(Date, RecordBatch)> {
    let appended = Date::of(record.append_time);
    if !record.is_backfill {
        return vec![(appended, rows.clone())];
    }
    let times = |name| {
        rows.column_by_name(name).and_then(|array: &ArrayRef| array.as_primitive_opt::<TimestampNanosecondType>())
    };
    let (received, time) = (times("received"), times("time"));
    let of_row = |row: usize| {
        let told = [received, time].into_iter().flatten().find(|times| times.is_valid(row));
        told.map_or(appended, |times| Date::of(times.value(row)))
    };
    let dates: Vec<Date> = (0..rows.num_rows()).map(of_row).collect();
    let distinct: std::collections::BTreeSet<Date> = dates.iter().copied().collect();
    let only = |date: Date| {
        let mask = dates.iter().map(|other| Some(*other == date)).collect::<arrow::array::BooleanArray>();
        (date, filter_record_batch(rows, &mask).expect("the mask has a place for every row"))
    };
    distinct.into_iter().map(only).collect()
}

fn append(table: Table, columns: &mut [ColumnRows], record: &Record<'_>, run: Option<&str>, rows: &RecordBatch) {
    let count = rows.num_rows();
    for column in columns {
        let name = column.column.name;
        let of_record = match name {
            "run" => run.map_or(Shared::Null, Shared::Text),
            "received" if !record.is_backfill => Shared::Time(record.append_time),
            "sender" => record.sender.map_or(Shared::Null, Shared::Text),
            "sequence" => record.sequence.map_or(Shared::Null, Shared::Number),
            _ => Shared::Null,
        };
        // Who sends rows again that came from an archive keeps what it says of their first way.
        let is_own =
            !matches!(name, "run") && (record.is_backfill || !matches!(name, "received" | "sender" | "sequence"));
        match rows.column_by_name(name).filter(|_| is_own) {
            Some(array) => {
                column.append(table, array).expect("the batch was checked");
                column.fill(of_record, count);
            }
            None => column.append_shared(of_record, count),
        }
    }
}
