//! Parquet files of other writers, and damaged ones.

use std::fs;

use arrow::array::{
    ArrayRef, BinaryArray, Float32Array, Float64Array, Int8Array, Int32Array, Int64Array, LargeStringArray,
    StringArray, StringViewArray, TimestampMicrosecondArray, TimestampSecondArray, UInt64Array,
};
use arrow::compute::cast;
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

use super::*;
use crate::{Log, NO_U32, NO_U64, Row, SampleRow};

fn parquet(columns: Vec<(&str, ArrayRef)>, group_rows: usize) -> Vec<u8> {
    let batch = RecordBatch::try_from_iter(columns).expect("columns of one length");
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(group_rows)).build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).expect("a writer");
    writer.write(&batch).expect("memory");
    writer.close().expect("memory");
    bytes
}

fn read(bytes: &[u8]) -> (Vec<SampleRow>, Vec<String>) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("samples.parquet");
    fs::write(&path, bytes).expect("written");
    let mut rejects = Rejects::new();
    let log = Log::read(&[path], &mut rejects).expect("read");
    let rows = log.runs.into_values().flat_map(|run| run.into_records()).map(|record| record.expect("read").row);
    let rows = rows.map(|row| match row {
        Row::Sample(row) => row,
        other => panic!("a sample: {other:?}"),
    });
    let prefix = format!("{}/samples.parquet: ", folder.path().display());
    (rows.collect(), rejects.summary().iter().map(|line| line.replace(&prefix, "")).collect())
}

fn texts(texts: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(texts.to_vec()))
}

#[test]
fn columns_of_every_fitting_type_are_read() {
    let dictionary = DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8));
    let runs: [ArrayRef; 5] = [
        texts(&["a", "a"]),
        cast(&texts(&["a", "a"]), &dictionary).expect("codes"),
        Arc::new(LargeStringArray::from(vec!["a", "a"])),
        Arc::new(StringViewArray::from(vec!["a", "a"])),
        Arc::new(BinaryArray::from(vec![&b"a"[..], b"a"])),
    ];
    let ranks: [ArrayRef; 3] = [
        Arc::new(Int8Array::from(vec![Some(7), None])),
        Arc::new(Float32Array::from(vec![7.0, f32::NAN])),
        Arc::new(UInt64Array::from(vec![Some(7), None])),
    ];
    let times: [ArrayRef; 3] = [
        Arc::new(TimestampMicrosecondArray::from(vec![1_000_000, 2_000_000])),
        Arc::new(TimestampSecondArray::from(vec![1, 2]).with_timezone("UTC")),
        Arc::new(Int64Array::from(vec![1_000_000_000, 2_000_000_000])),
    ];
    for (index, run) in runs.iter().enumerate() {
        let columns = vec![
            ("run", Arc::clone(run)),
            ("rank", Arc::clone(&ranks[index % 3])),
            ("step", Arc::new(Int32Array::from(vec![Some(1), None])) as ArrayRef),
            ("time", Arc::clone(&times[index % 3])),
            ("metric", texts(&["loss", "loss"])),
            ("value", Arc::new(Float32Array::from(vec![0.5, f32::NAN]))),
            ("unknown", texts(&["x", "y"])),
        ];
        let (rows, rejects) = read(&parquet(columns, 10));
        assert_eq!(rejects, [""; 0], "{index}");
        let told: Vec<_> = rows.iter().map(|row| (row.rank, row.step, row.time, row.value.to_bits())).collect();
        let expected = [(7, 1, 1_000_000_000, 0.5_f64.to_bits()), (NO_U32, NO_U64, 2_000_000_000, f64::NAN.to_bits())];
        assert_eq!(told, expected, "{index}");
    }
}

#[test]
fn cells_that_do_not_fit_cost_their_row_and_columns_that_do_not_fit_cost_the_file() {
    let good = |steps: ArrayRef| {
        vec![
            ("run", texts(&["a", "a", "a", "a"])),
            ("step", steps),
            ("time", Arc::new(Int64Array::from(vec![1, 2, 3, 4])) as ArrayRef),
            ("metric", Arc::new(StringArray::from(vec![Some("m"), Some("m"), None, Some("m")]))),
            ("value", Arc::new(Float64Array::from(vec![Some(1.0), Some(2.0), Some(3.0), None]))),
        ]
    };
    let (rows, rejects) = read(&parquet(good(Arc::new(Int64Array::from(vec![-1, 5, 6, 7]))), 10));
    assert_eq!(rows.iter().map(|row| row.step).collect::<Vec<_>>(), [5]);
    let expected = [
        "1 row set aside: metric: missing value (first at row 3)",
        "1 row set aside: step: negative (first at row 1: -1)",
        "1 row set aside: value: missing value (first at row 4)",
    ];
    assert_eq!(rejects, expected);
    let (rows, rejects) = read(&parquet(good(texts(&["1", "2", "3", "4"])), 10));
    assert!(rows.is_empty());
    assert_eq!(rejects, ["set aside: step: wrong type (Utf8, where a whole number below 2^64 - 1 is needed)"]);
    let mut columns = good(Arc::new(Int64Array::from(vec![1, 2, 3, 4])));
    columns.retain(|(name, _)| *name != "metric");
    assert_eq!(read(&parquet(columns, 10)).1, ["set aside: no column `metric` (the file has \"run,step,time,value\")"]);
}

#[test]
fn a_damaged_row_group_costs_no_other() {
    let rows = 3_000;
    let steps: Vec<i64> = (0..rows).map(|row| row * 7_919 % 100_003).collect();
    let columns = vec![
        ("run", texts(&vec!["a"; rows as usize])),
        ("step", Arc::new(Int64Array::from(steps.clone())) as ArrayRef),
        ("time", Arc::new(Int64Array::from((0..rows).collect::<Vec<_>>()))),
        ("metric", texts(&vec!["m"; rows as usize])),
        ("value", Arc::new(Float64Array::from(vec![1.0; rows as usize]))),
    ];
    let mut bytes = parquet(columns, 1_000);
    let mut file = tempfile::tempfile().expect("a temporary file");
    std::io::Write::write_all(&mut file, &bytes).expect("written");
    let range = load(&file).expect("whole").metadata().row_group(1).column(1).byte_range();
    bytes[range.0 as usize..(range.0 + range.1) as usize].fill(0xff);
    let (read_rows, rejects) = read(&bytes);
    let found: Vec<i64> = read_rows.iter().map(|row| row.step as i64).collect();
    assert_eq!(found, [&steps[..1_000], &steps[2_000..]].concat());
    assert_eq!(rejects.len(), 1);
    assert!(
        rejects[0].starts_with("1 row group set aside: damaged (first at row group 2: from row 1001"),
        "{rejects:?}"
    );
}
