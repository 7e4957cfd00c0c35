//! What comes out of the archive is what went in, and reading the log again changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::log::{MIDNIGHT_NS, SECOND_NS, Sent, cuts, log, rows_of, rows_of_part};
use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray, UInt32Array};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::DataType;
use parquet::file::reader::{FileReader, SerializedFileReader};
use trainwarden_store::{OpenParts, Part, PartLimits, Record};
use trainwarden_telemetry::{Fault, Table};

const LIMITS: PartLimits = PartLimits { seconds: 900, bytes_max: 40_000 };

fn parts_of(log: &[Sent], position: u64, limits: PartLimits) -> Vec<Part> {
    let (cuts, _) = cuts(log, position, limits);
    cuts.iter().flat_map(|cut| cut.encode().expect("encoded")).collect()
}

#[test]
fn every_row_comes_back_with_its_bits_nulls_and_place_in_the_log() {
    for seed in 0..4 {
        let log = log(seed, 400);
        let (cuts, open) = cuts(&log, 0, LIMITS);
        assert!(cuts.len() > 2 && open.rows() > 0, "cut {} times", cuts.len());
        let end = cuts.last().expect("some").position;
        let sent = log.iter().filter(|sent| sent.offset < end);
        let mut expected: Vec<String> =
            sent.flat_map(|sent| rows_of(sent.table, sent.run.as_deref(), Some(sent), &sent.rows)).collect();
        let parts = parts_of(&log, 0, LIMITS);
        let mut found: Vec<String> = parts.iter().flat_map(rows_of_part).collect();
        expected.sort();
        found.sort();
        assert_eq!(found, expected);
        assert_eq!(parts.iter().map(|part| part.rows).sum::<u64>(), found.len() as u64);
    }
}

#[test]
fn all_parts_are_cut_together_and_one_offset_says_what_is_archived() {
    let log = log(1, 400);
    let (cuts, open) = cuts(&log, 0, LIMITS);
    let mut next = 0;
    for cut in &cuts {
        let inside: Vec<&Sent> = log.iter().filter(|sent| (next..cut.position).contains(&sent.offset)).collect();
        let (first, last) = (inside[0].offset, inside[inside.len() - 1].offset);
        for part in &cut.parts {
            assert_eq!((part.name().partition, part.name().first, part.name().last), (3, first, last));
        }
        let rows: usize = inside.iter().map(|sent| sent.rows.num_rows()).sum();
        assert_eq!(cut.parts.iter().map(|part| part.rows()).sum::<u64>(), rows as u64);
        let spans = inside.iter().map(|sent| sent.append_time.div_euclid(900 * SECOND_NS));
        assert_eq!(spans.clone().min(), spans.max(), "no cut reaches over a quarter of an hour");
        next = cut.position;
    }
    assert_eq!(open.first_open(), Some(log.iter().find(|sent| sent.offset >= next).expect("open").offset));
    let days: std::collections::BTreeSet<String> =
        cuts.iter().flat_map(|cut| &cut.parts).map(|part| part.name().date.to_string()).collect();
    assert_eq!(Vec::from_iter(days), ["2026-11-24", "2026-11-25"]);
}

#[test]
fn the_log_read_again_from_any_cut_gives_the_same_files() {
    let log = log(2, 300);
    let whole: BTreeMap<String, Part> = by_path(parts_of(&log, 0, LIMITS));
    let (cuts, _) = cuts(&log, 0, LIMITS);
    for cut in &cuts {
        let again = by_path(parts_of(&log, cut.position, LIMITS));
        assert!(!again.is_empty() || cut.position == cuts[cuts.len() - 1].position);
        for (path, part) in again {
            assert!(whole[&path].bytes == part.bytes, "{path} is another file");
        }
    }
    // A second batch of one record, coded texts and views change nothing either.
    let coded: Vec<Sent> = log.iter().flat_map(in_two_batches).collect();
    for (path, part) in by_path(parts_of(&coded, 0, LIMITS)) {
        assert!(whole[&path].bytes == part.bytes, "{path} hangs on how its rows came");
    }
}

fn by_path(parts: Vec<Part>) -> BTreeMap<String, Part> {
    let count = parts.len();
    let by_path: BTreeMap<String, Part> = parts.into_iter().map(|part| (part.name.path(), part)).collect();
    assert_eq!(by_path.len(), count, "no two parts share a name");
    by_path
}

/// The same record in two batches, the texts of the first coded and those of the second as views.
fn in_two_batches(sent: &Sent) -> [Sent; 2] {
    let coded = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let half = sent.rows.num_rows() / 2;
    let parts = [(0, half, coded), (half, sent.rows.num_rows() - half, DataType::Utf8View)];
    parts.map(|(start, rows, text)| {
        let (schema, half) = (sent.rows.schema(), sent.rows.slice(start, rows));
        let columns = schema.fields().iter().zip(half.columns()).map(|(field, array)| {
            let is_text = *array.data_type() == DataType::Utf8;
            (field.name().clone(), if is_text { cast(array, &text).expect("texts") } else { Arc::clone(array) })
        });
        Sent { rows: RecordBatch::try_from_iter(columns.collect::<Vec<_>>()).expect("rows"), ..sent.clone() }
    })
}

#[test]
fn a_quiet_partition_is_cut_by_a_record_without_rows() {
    let log = log(3, 10);
    let (none, mut open) = cuts(&log, 0, LIMITS);
    assert!(none.is_empty());
    let mut record =
        Record { offset: 900, append_time: MIDNIGHT_NS - 1, is_backfill: false, sender: None, sequence: None };
    assert!(open.begin(&record).is_none(), "the span is not over");
    record.append_time = MIDNIGHT_NS;
    let cut = open.begin(&record).expect("cut");
    assert_eq!((cut.position, open.rows(), open.bytes(), open.first_open()), (900, 0, 0, None));
    assert!(open.begin(&record).is_none(), "nothing is open");
}

#[test]
fn rows_sent_later_keep_their_own_log_time_and_lie_under_their_day() {
    let day_ns = 86_400 * SECOND_NS;
    let times = [Some(MIDNIGHT_NS - 3 * day_ns), None, Some(MIDNIGHT_NS - 2 * day_ns)];
    let received = [Some(MIDNIGHT_NS - day_ns), None, None];
    let column = |times: [Option<i64>; 3]| -> ArrayRef {
        Arc::new(arrow::array::TimestampNanosecondArray::from_iter(times).with_timezone("UTC"))
    };
    let columns: [(&str, ArrayRef); 5] = [
        ("time", column(times)),
        ("received", column(received)),
        ("metric", Arc::new(StringArray::from(vec!["loss"; 3]))),
        ("value", Arc::new(Float64Array::from(vec![1.0, 2.0, 3.0]))),
        ("sender", Arc::new(StringArray::from(vec![Some("first"), None, None]))),
    ];
    let rows =
        RecordBatch::try_from_iter_with_nullable(columns.map(|(name, array)| (name, array, true))).expect("rows");
    let record =
        Record { offset: 1, append_time: MIDNIGHT_NS, is_backfill: true, sender: Some("send"), sequence: Some(5) };
    let mut open = OpenParts::new(0, PartLimits::default());
    assert!(open.take(&record, Table::Samples, Some("r"), &rows).expect("taken").is_none());
    let cut = open.begin(&Record { offset: 2, append_time: MIDNIGHT_NS + day_ns, ..record }).expect("cut");
    let dates: Vec<String> = cut.parts.iter().map(|part| part.name().date.to_string()).collect();
    assert_eq!(dates, ["2026-11-23", "2026-11-24", "2026-11-25"]);
    let rows: Vec<String> =
        cut.encode().expect("encoded").iter().flat_map(rows_of_part).map(|row| row.replace('\u{1f}', "|")).collect();
    let [first, second, third] = [times[0], times[2], received[0]].map(|time| time.expect("told"));
    let expected = [
        format!("samples|r|∅|∅|∅|{second}|loss|4008000000000000|∅|send|5"),
        format!("samples|r|∅|∅|∅|{first}|loss|3ff0000000000000|{third}|first|5"),
        "samples|r|∅|∅|∅|∅|loss|4000000000000000|∅|send|5".to_owned(),
    ];
    assert_eq!(rows, expected);
}

#[test]
fn a_batch_that_is_not_of_its_table_is_refused_and_leaves_nothing() {
    let metric: ArrayRef = Arc::new(StringArray::from(vec![Some("loss"), None]));
    let value: ArrayRef = Arc::new(Float64Array::from(vec![1.0, 2.0]));
    let wrong: ArrayRef = Arc::new(UInt32Array::from(vec![1, 2]));
    let record = Record { offset: 1, append_time: MIDNIGHT_NS, is_backfill: false, sender: None, sequence: None };
    let mut open = OpenParts::new(0, PartLimits::default());
    let mut refused = |columns: Vec<(&str, &ArrayRef)>, run| {
        let columns = columns.into_iter().map(|(name, array)| (name, Arc::clone(array)));
        let rows = RecordBatch::try_from_iter(columns).expect("rows");
        let error = open.take(&record, Table::Samples, run, &rows).expect_err("refused");
        assert_eq!((error.fault(), error.is_retryable(), open.rows()), (Fault::Ours, false, 0));
        error.to_string()
    };
    let told = refused(vec![("metric", &metric), ("value", &value)], Some("r"));
    assert_eq!(told, "a batch of `samples` has no value in 1 rows in column `metric`");
    let told = refused(vec![("value", &value)], Some("r"));
    assert_eq!(told, "a batch of `samples` has no array in column `metric`");
    let told = refused(vec![("metric", &metric), ("value", &wrong)], Some("r"));
    assert!(told.contains("no value in 1 rows") || told.contains("`value` as UInt32"), "{told}");
    let told = refused(vec![("metric", &metric.slice(0, 1)), ("value", &value.slice(0, 1))], None);
    assert_eq!(told, "a batch of `samples` has no value in column `run`");
}

#[test]
fn parts_are_rank_by_rank_inside_with_statistics_and_an_index_of_pages() {
    let log: Vec<Sent> = log(5, 600).into_iter().filter(|sent| sent.table == Table::Samples).collect();
    let parts = parts_of(&log, 0, PartLimits { seconds: 900, bytes_max: 1 << 30 });
    for part in &parts {
        let options = parquet::file::serialized_reader::ReadOptionsBuilder::new().with_page_index().build();
        let reader = SerializedFileReader::new_with_options(part.bytes.clone(), options).expect("a Parquet file");
        let metadata = reader.metadata();
        let group = metadata.row_group(0);
        let sorted: Vec<i32> = group.sorting_columns().expect("told").iter().map(|column| column.column_idx).collect();
        assert_eq!(sorted, [1, 5, 2, 3, 4], "attempt, metric, rank, step, time");
        assert!(
            metadata
                .offset_index()
                .is_some_and(|index| index[0].iter().all(|column| !column.page_locations().is_empty()))
        );
        assert!(group.column(2).statistics().is_some_and(|statistics| statistics.null_count_opt().is_some()));
        let batches = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(part.bytes.clone());
        let batches: Vec<RecordBatch> =
            batches.expect("open").build().expect("read").map(|batch| batch.expect("rows")).collect();
        let rows = concat_batches(&Table::Samples.schema(), &batches).expect("one schema");
        let keys = ["attempt", "metric", "rank", "step", "time"].map(|name| arrow::compute::SortColumn {
            values: Arc::clone(rows.column_by_name(name).expect("a column")),
            options: Some(arrow::compute::SortOptions { descending: false, nulls_first: true }),
        });
        let order = arrow::compute::lexsort_to_indices(&keys, None).expect("sorted");
        let sorted = arrow::compute::take_record_batch(&rows, &order).expect("taken");
        for key in [1, 5, 2, 3, 4] {
            assert_eq!(rows.column(key), sorted.column(key), "column {key} of {}", part.name);
        }
    }
}
