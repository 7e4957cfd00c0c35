//! Run folders in an archive, as tests use them.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::DataType;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use trainwarden_store::{Archive, Cut, OpenParts, PartLimits, Record};
use trainwarden_telemetry::Table;

/// Rows of a record, as an agent would send them.
const RECORD_ROWS: usize = 700;
/// 2026-11-25, long after the rows were measured.
const SENT_NS: i64 = 1_795_564_800_000_000_000;
const SECOND_NS: i64 = 1_000_000_000;

/// The rows of a folder in records, archived as rows that are sent later.
pub(crate) fn archive(folder: &Path, archive: &Archive, limits: PartLimits) -> usize {
    let mut open = OpenParts::new(0, limits);
    let mut cuts: Vec<Cut> = Vec::new();
    let mut record =
        Record { offset: 0, append_time: SENT_NS, is_backfill: true, sender: Some("send"), sequence: None };
    for table in Table::ALL {
        let Ok(file) = File::open(folder.join(format!("{table}.parquet"))) else { continue };
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).expect("a table").with_batch_size(RECORD_ROWS);
        for batch in reader.build().expect("a table") {
            for (run, rows) in by_run(&batch.expect("rows")) {
                record.offset += 1;
                record.append_time += SECOND_NS;
                cuts.extend(open.take(&record, table, run.as_deref(), &rows).expect("taken"));
            }
        }
    }
    let end = Record { offset: record.offset + 1, append_time: record.append_time + 86_400 * SECOND_NS, ..record };
    cuts.extend(open.begin(&end));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    for cut in &cuts {
        runtime.block_on(archive.write(&cut.encode().expect("encoded"))).expect("written");
    }
    cuts.len()
}

fn by_run(rows: &RecordBatch) -> Vec<(Option<String>, RecordBatch)> {
    let runs = cast(rows.column_by_name("run").expect("a column"), &DataType::Utf8).expect("texts");
    let runs = runs.as_string::<i32>();
    let distinct: BTreeSet<Option<&str>> = runs.iter().collect();
    let only = |run: Option<&str>| {
        let mask: BooleanArray = runs.iter().map(|other| Some(other == run)).collect();
        (run.map(str::to_owned), filter_record_batch(rows, &mask).expect("a mask of the rows"))
    };
    distinct.into_iter().map(only).collect()
}
