//! The rows of a frame, into the feed of its run.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use trainwarden_telemetry::{Column, Event, Table};

use super::{FrameError, OpenedFrame, payload};
use crate::batch::{Batch, Data, TextColumn};
use crate::columns::{batch_of, drop_rows};
use crate::read_parquet::fits;
use crate::run_part::{RunPart, Runs, take_rows};
use crate::run_rows::TimedEvent;
use crate::{Feed, Record, Row, limits};

impl OpenedFrame {
    /// The rows as Arrow batches with the columns that were sent; none for a frame without rows.
    ///
    /// # Errors
    /// [`FrameError`]: the frame is to be set aside, whole.
    pub fn batches(&self) -> Result<Vec<RecordBatch>, FrameError> {
        let Some(table) = self.table()? else { return Ok(Vec::new()) };
        let batches = payload::decode(table, self.encoding()?, self.payload())?;
        let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        if rows > limits::PAYLOAD_ROWS_MAX {
            let bytes_max = limits::PAYLOAD_ROWS_MAX as u64;
            return Err(FrameError::Oversized { bytes: rows as u64, bytes_max });
        }
        batches.iter().try_for_each(|batch| check_schema(table, batch))?;
        Ok(batches)
    }

    /// The events of a frame of events, in the order of their times.
    ///
    /// # Errors
    /// [`FrameError`]: the frame is to be set aside, whole.
    pub fn events(&self) -> Result<Vec<Arc<Event>>, FrameError> {
        let mut feed = Feed::new(1);
        if self.table()? == Some(Table::Events) {
            feed.take(Table::Events, &self.envelope.run, &self.batches()?);
        }
        let event = |record: Record| if let Row::Event(event) = record.row { Some(event) } else { None };
        Ok(feed.finish().rows.records().filter_map(event).collect())
    }
}

/// Every required column is there, and every column has a type that can hold what the table needs.
fn check_schema(table: Table, batch: &RecordBatch) -> Result<(), FrameError> {
    for column in table.columns() {
        let wrong =
            |reason: String| FrameError::Schema { table: table.as_str(), column: column.name.to_owned(), reason };
        match batch.column_by_name(column.name) {
            None if column.is_optional || column.name == "run" => {}
            None => return Err(wrong("is missing".to_owned())),
            Some(array) if fits(array.data_type(), column.column_type) => {}
            Some(array) => return Err(wrong(format!("is {}", array.data_type()))),
        }
    }
    Ok(())
}

impl Feed {
    /// Takes the rows of a frame of this run, or of one that concerns every run.
    ///
    /// * `run`: of the envelope; empty where the frame concerns every run: then its rows name none.
    /// * `batches`: as [`OpenedFrame::batches`] gave them.
    /// * Returns how many rows were set aside: a required cell is empty, or a cell does not fit its column.
    pub fn take(&mut self, table: Table, run: &str, batches: &[RecordBatch]) -> u64 {
        let mut set_aside = 0;
        for decoded in batches {
            let (mut batch, bad) = decode(table, run, decoded);
            set_aside += bad;
            if run.is_empty() {
                set_aside += keep_unnamed(&mut batch);
            }
            // Of two different rows for one rank the smaller stays; a stream has nobody to tell it to.
            take_rows(batch, &mut OneRun(self), &mut |_, _| {});
        }
        set_aside
    }
}

/// Keeps the events that name no run; gives how many did.
fn keep_unnamed(batch: &mut Batch) -> u64 {
    let rows = batch.rows;
    let column = batch.table.columns().iter().position(|column| column.name == "run").expect("every table has runs");
    let unnamed = (0..rows).filter(|row| batch.columns[column].is_null(*row));
    let unnamed = unnamed.map(|row| u32::try_from(row).expect("a batch is small")).collect();
    batch.keep(unnamed);
    (rows - batch.rows) as u64
}

fn decode(table: Table, run: &str, decoded: &RecordBatch) -> (Batch, u64) {
    // Whose rows they are is said by the envelope alone; an event may be of no run.
    let is_named = |column: &Column, array: Option<&ArrayRef>| match column.name {
        "run" => table == Table::Events && array.is_some(),
        _ => array.is_some(),
    };
    let fields: Vec<Option<&str>> = table
        .columns()
        .iter()
        .map(|column| is_named(column, decoded.column_by_name(column.name)).then_some(column.name))
        .collect();
    let constant = |column: &Column| constant(column, run, decoded.num_rows());
    let (mut batch, bad) = batch_of(table, decoded, &fields, &constant);
    if !bad.is_empty() {
        drop_rows(&mut batch, &bad);
    }
    (batch, bad.len() as u64)
}

fn constant(column: &Column, run: &str, rows: usize) -> Data {
    if column.name == "run" {
        let mut runs = TextColumn::default();
        let code = runs.add_text(run);
        (0..rows).for_each(|_| runs.push_code(code));
        return Data::Text(runs);
    }
    let mut data = Data::new(column.column_type);
    (0..rows).for_each(|_| data.push_null());
    data
}

/// All rows of a frame are of one run.
struct OneRun<'a>(&'a mut Feed);

impl Runs for OneRun<'_> {
    type Part = Feed;

    fn part(&mut self, _runs: &mut TextColumn, _row: usize) -> (u32, &mut Feed) {
        (0, self.0)
    }

    fn shared_event(&mut self, event: TimedEvent) {
        RunPart::event(self.0, event);
    }
}
