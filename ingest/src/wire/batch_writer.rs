//! Rows of a run, gathered by table until they are sent.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Field, Schema};
use trainwarden_telemetry::{Column, Communicators, Event, Roster, Table};

use crate::write_file::{Builder, Cell};
use crate::{CollectiveRow, DigestRow, NO_TIME, NO_U32, NO_U64, NameId, Names, Record, Row, SampleRow};

/// Columns that a sender does not write: the envelope says them, or our rows do not keep them.
const NOT_SENT: [&str; 4] = ["algo", "proto", "sender", "sequence"];

/// Gathers rows of one run by table, with their log time in `received` where they have one.
#[derive(Debug, Default)]
pub struct BatchWriter {
    tables: BTreeMap<Table, Rows>,
    rows: usize,
}

#[derive(Debug)]
struct Rows {
    columns: Vec<Column>,
    builders: Vec<Builder>,
}

impl BatchWriter {
    /// Rows gathered.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Adds a record of the run.
    pub fn push(&mut self, record: &Record, names: &Names) {
        let received = record.log_time;
        match &record.row {
            Row::Sample(row) => self.sample(row, received, names),
            Row::Collective(row) => self.collective(row, received, names),
            Row::Digest(row) => self.digest(row, received, names),
            Row::Event(event) => self.event(event, received),
        }
    }

    /// Adds the ranks of an attempt.
    pub fn roster(&mut self, attempt: u32, roster: &Roster) {
        for (rank, placement) in &roster.placements {
            let role = placement.role;
            let cells = [
                attempt.into(),
                rank.0.into(),
                placement.node.as_deref().into(),
                placement.device.as_deref().into(),
                placement.local_rank.into(),
                placement.dp.into(),
                role.tp.into(),
                role.pp.into(),
                role.ep.into(),
                role.cp.into(),
                Cell::Null,
            ];
            self.row(Table::Ranks, &cells);
        }
    }

    /// Adds the communicators of an attempt.
    pub fn communicators(&mut self, attempt: u32, communicators: &Communicators) {
        for (comm, ranks) in &communicators.members {
            for rank in ranks {
                self.row(Table::Groups, &[attempt.into(), comm.as_str().into(), rank.0.into(), Cell::Null]);
            }
        }
    }

    /// What was gathered, table by table.
    #[must_use]
    pub fn finish(&mut self) -> Vec<(Table, RecordBatch)> {
        self.rows = 0;
        let tables = std::mem::take(&mut self.tables);
        tables.into_iter().map(|(table, rows)| (table, rows.finish())).collect()
    }

    fn sample(&mut self, row: &SampleRow, received: i64, names: &Names) {
        let cells = [
            row.attempt.into(),
            told_u32(row.rank),
            told_u64(row.step),
            told_time(row.time),
            names.get(row.metric).into(),
            Cell::Float(row.value),
            told_time(received),
        ];
        self.row(Table::Samples, &cells);
    }

    fn collective(&mut self, row: &CollectiveRow, received: i64, names: &Names) {
        let text = |id: NameId| names.get(id).into();
        let cells = [
            row.attempt.into(),
            row.rank.into(),
            text(row.comm),
            row.seq.into(),
            text(row.op),
            told_u64(row.bytes),
            text(row.signature),
            told_time(row.enqueued),
            told_time(row.start),
            told_time(row.end),
            told_u64(row.step),
            told_u32(row.peer),
            told_time(received),
        ];
        self.row(Table::Collectives, &cells);
    }

    fn digest(&mut self, row: &DigestRow, received: i64, names: &Names) {
        let text = |id: NameId| names.get(id).into();
        let cells = [
            row.attempt.into(),
            told_u32(row.rank),
            told_u64(row.step),
            told_time(row.time),
            text(row.kind),
            text(row.name),
            text(row.digest),
            text(row.group),
            told_time(received),
        ];
        self.row(Table::Digests, &cells);
    }

    fn event(&mut self, event: &Event, received: i64) {
        let cells = [
            event.time.0.into(),
            event.source.as_str().into(),
            event.kind.as_str().into(),
            event.actor.as_deref().into(),
            event.run.as_ref().map(|run| &*run.0).into(),
            event.attempt.0.into(),
            event.node.as_deref().into(),
            event.rank.map(|rank| rank.0).into(),
            event.subject.as_deref().into(),
            event.detail.as_deref().into(),
            told_time(received),
        ];
        self.row(Table::Events, &cells);
    }

    fn row(&mut self, table: Table, cells: &[Cell<'_>]) {
        self.tables.entry(table).or_insert_with(|| Rows::new(table)).push(cells);
        self.rows += 1;
    }
}

impl Rows {
    fn new(table: Table) -> Self {
        // The run is said by the envelope; only an event may be of none.
        let is_sent = |name| !NOT_SENT.contains(&name) && (name != "run" || table == Table::Events);
        let columns: Vec<Column> = table.columns().iter().filter(|column| is_sent(column.name)).copied().collect();
        let builders = columns.iter().map(Builder::new).collect();
        Self { columns, builders }
    }

    fn push(&mut self, cells: &[Cell<'_>]) {
        assert_eq!(cells.len(), self.columns.len(), "a row has the columns of its table");
        for (builder, cell) in self.builders.iter_mut().zip(cells) {
            builder.push(*cell);
        }
    }

    fn finish(mut self) -> RecordBatch {
        let arrays: Vec<_> = self.builders.iter_mut().map(Builder::finish).collect();
        // A column without a single value says nothing.
        let told = self.columns.iter().zip(arrays).filter(|(_, array)| array.null_count() < array.len());
        let (fields, arrays): (Vec<Field>, Vec<_>) =
            told.map(|(column, array)| (Field::new(column.name, column.column_type.arrow(), true), array)).unzip();
        RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
            .expect("columns have the types they were built with")
    }
}

fn told_u32(number: u32) -> Cell<'static> {
    if number == NO_U32 { Cell::Null } else { number.into() }
}

fn told_u64(number: u64) -> Cell<'static> {
    if number == NO_U64 { Cell::Null } else { number.into() }
}

fn told_time(time: i64) -> Cell<'static> {
    if time == NO_TIME { Cell::Null } else { time.into() }
}
