//! A small log of all tables, and what the archive made of it.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, Float64Array, RecordBatch, StringArray, TimestampNanosecondArray, UInt32Array, UInt64Array,
};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use trainwarden_store::{Cut, OpenParts, Part, PartLimits, Record};
use trainwarden_telemetry::{Column, ColumnType, Table};

/// 2026-11-25 00:00:00 UTC.
pub(crate) const MIDNIGHT_NS: i64 = 1_795_564_800_000_000_000;
pub(crate) const SECOND_NS: i64 = 1_000_000_000;

/// SplitMix64.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}

/// One record of the log: rows of one table of one run.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(crate) offset: u64,
    pub(crate) append_time: i64,
    pub(crate) is_backfill: bool,
    pub(crate) sender: Option<String>,
    pub(crate) sequence: Option<u64>,
    pub(crate) table: Table,
    pub(crate) run: Option<String>,
    pub(crate) rows: RecordBatch,
}

impl Sent {
    pub(crate) fn record(&self) -> Record<'_> {
        Record {
            offset: self.offset,
            append_time: self.append_time,
            is_backfill: self.is_backfill,
            sender: self.sender.as_deref(),
            sequence: self.sequence,
        }
    }
}

/// A log of `records` records, two seconds apart, over midnight, with gaps in the offsets.
pub(crate) fn log(seed: u64, records: u64) -> Vec<Sent> {
    let mut dice = Dice(seed);
    let mut offset = 7;
    let mut sent = Vec::new();
    for index in 0..records {
        offset += 1 + dice.below(2);
        let table = Table::ALL[usize::try_from(dice.below(6)).expect("small")];
        let run = ["llm-7b", "a b/c=d", "..", "日本"][usize::try_from(dice.below(4)).expect("small")];
        let is_without_run = table == Table::Events && dice.below(2) == 0;
        sent.push(Sent {
            offset,
            append_time: MIDNIGHT_NS - 600 * SECOND_NS + i64::try_from(index).expect("small") * 2 * SECOND_NS,
            is_backfill: false,
            sender: (dice.below(8) > 0).then(|| format!("agent-{}", dice.below(3))),
            sequence: (dice.below(8) > 0).then_some(index),
            table,
            run: (!is_without_run).then(|| run.to_owned()),
            rows: batch(&mut dice, table),
        });
    }
    sent
}

/// Rows with every kind of value and null that the table takes.
pub(crate) fn batch(dice: &mut Dice, table: Table) -> RecordBatch {
    let rows = usize::try_from(1 + dice.below(40)).expect("small");
    let columns =
        table.columns().iter().filter(|column| !["run", "received", "sender", "sequence"].contains(&column.name));
    let arrays: Vec<(&str, ArrayRef)> = columns.map(|column| (column.name, array(dice, column, rows))).collect();
    RecordBatch::try_from_iter_with_nullable(arrays.into_iter().map(|(name, array)| (name, array, true))).expect("rows")
}

const ODD: [f64; 10] =
    [0.0, -0.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 5e-324, f64::MAX, 0.1, -1.5, 123_456.789];

fn array(dice: &mut Dice, column: &Column, rows: usize) -> ArrayRef {
    let mut cell = |end: u64| (!column.is_optional || dice.below(6) > 0).then(|| dice.below(end));
    match column.column_type {
        ColumnType::Str => Arc::new(
            (0..rows)
                .map(|_| cell(5).map(|text| ["", "a", "é\n", "x,\"y\"", "loss"][text as usize]))
                .collect::<StringArray>(),
        ),
        ColumnType::U32 => Arc::new(
            (0..rows)
                .map(|_| cell(4).map(|number| if number == 3 { u32::MAX } else { number as u32 }))
                .collect::<UInt32Array>(),
        ),
        ColumnType::U64 => Arc::new(
            (0..rows)
                .map(|_| cell(9).map(|number| if number == 8 { u64::MAX } else { number }))
                .collect::<UInt64Array>(),
        ),
        ColumnType::Time => Arc::new(
            (0..rows)
                .map(|_| cell(1 << 40).map(|time| MIDNIGHT_NS + time as i64))
                .collect::<TimestampNanosecondArray>()
                .with_timezone("UTC"),
        ),
        ColumnType::F64 => Arc::new(
            (0..rows)
                .map(|_| {
                    cell(12).map(|value| match value {
                        10 => f64::from_bits(0x7ff8_0000_0000_0bad), // A NaN with a payload.
                        11 => f64::from_bits(0xfff0_0000_0000_0001),
                        _ => ODD[value as usize],
                    })
                })
                .collect::<Float64Array>(),
        ),
    }
}

/// Reads a log from a position, as the service would: the cuts, and the rest.
pub(crate) fn cuts(log: &[Sent], position: u64, limits: PartLimits) -> (Vec<Cut>, OpenParts) {
    let mut open = OpenParts::new(3, limits);
    let mut cuts = Vec::new();
    for sent in log.iter().filter(|sent| sent.offset >= position) {
        let cut = open.take(&sent.record(), sent.table, sent.run.as_deref(), &sent.rows).expect("taken");
        cuts.extend(cut);
    }
    (cuts, open)
}

/// Every row of a batch as text, with the bits of doubles.
pub(crate) fn rows_of(table: Table, run: Option<&str>, record: Option<&Sent>, rows: &RecordBatch) -> Vec<String> {
    let options = FormatOptions::new().with_null("∅");
    let texts = |column: &Column| -> Vec<String> {
        let shared = |text: Option<String>| vec![text.unwrap_or_else(|| "∅".to_owned()); rows.num_rows()];
        match (column.name, record) {
            ("run", Some(_)) => return shared(run.map(str::to_owned)),
            ("sender", Some(sent)) => return shared(sent.sender.clone()),
            ("sequence", Some(sent)) => return shared(sent.sequence.map(|sequence| sequence.to_string())),
            ("received", Some(sent)) => {
                return shared(Some(sent.append_time.to_string()));
            }
            _ => {}
        }
        let array = rows.column_by_name(column.name).expect("the column is there");
        if let Some(values) = array.as_any().downcast_ref::<Float64Array>() {
            return values.iter().map(|value| format!("{:x}", value.expect("required").to_bits())).collect();
        }
        let is_time = column.column_type == ColumnType::Time;
        let array = if is_time { &cast(array, &DataType::Int64).expect("nanoseconds") } else { array };
        let formatter = ArrayFormatter::try_new(array, &options).expect("texts");
        (0..rows.num_rows()).map(|row| formatter.value(row).to_string()).collect()
    };
    let columns: Vec<Vec<String>> = table.columns().iter().map(texts).collect();
    let line = |row: usize| columns.iter().map(|column| column[row].as_str()).collect::<Vec<_>>().join("\u{1f}");
    (0..rows.num_rows()).map(|row| format!("{table}\u{1f}{}", line(row))).collect()
}

/// The rows of a part.
pub(crate) fn rows_of_part(part: &Part) -> Vec<String> {
    let reader =
        ParquetRecordBatchReaderBuilder::try_new(part.bytes.clone()).expect("a Parquet file").build().expect("read");
    reader.flat_map(|batch| rows_of(part.name.table, None, None, &batch.expect("read"))).collect()
}
