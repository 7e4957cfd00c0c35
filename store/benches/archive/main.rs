//! Bytes a point in the archive and points a second into it, on the telemetry of 64 devices in an hour.
//!
//! `cargo bench -p trainwarden-store --bench archive [-- --seconds 3600 --seed 1 --out DIR]`. 64 devices x 36 metrics x
//! 3,600 s is the workload that codecs were compared on, large enough for four parts of a quarter of an hour each. Every
//! value is read back and compared bit by bit; the figures are CPU time of the thread.

#![expect(unused_crate_dependencies, reason = "what this target does not use serves another one of the package")]

mod fleet;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, TimestampNanosecondType, UInt32Type, UInt64Type};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader, SerializedFileReader};
use trainwarden_store::{Archive, ArchiveOptions, Cut, OpenParts, Part, PartLimits};
use trainwarden_telemetry::Table;

use fleet::{Fleet, Head};

const RUN: &str = "llm-7b";
/// Bytes a point that the archive may take with all columns.
const GOAL_BYTES: f64 = 1.8;

struct Arguments {
    seconds: usize,
    seed: u64,
    out: Option<PathBuf>,
}

fn arguments() -> Arguments {
    let mut told = Arguments { seconds: 3_600, seed: 1, out: None };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().expect("a value follows");
        match word.as_str() {
            "--seconds" => told.seconds = value().parse().expect("a number of seconds"),
            "--seed" => told.seed = value().parse().expect("a number"),
            "--out" => told.out = Some(value().into()),
            _ => {} // What cargo adds.
        }
    }
    told
}

fn main() {
    let told = arguments();
    let mut open = OpenParts::new(0, PartLimits::default());
    let mut fleet = Fleet::new(told.seed);
    let (mut sent, mut sent_digest) = (0_u64, 0_u128);
    let (mut parts, mut take_s, mut encode_s) = (Vec::new(), 0.0, 0.0);
    let mut encode = |cut: Option<Cut>, parts: &mut Vec<Part>| {
        let begun = cpu_s();
        parts.extend(cut.into_iter().flat_map(|cut| cut.encode().expect("encoded")));
        encode_s += cpu_s() - begun;
    };
    for _ in 0..told.seconds {
        for (head, batch) in fleet.second() {
            sent += batch.num_rows() as u64;
            sent_digest = sent_digest.wrapping_add(digest_sent(&head, &batch));
            let begun = cpu_s();
            let cut = open.take(&head.record(), Table::Samples, Some(RUN), &batch).expect("taken");
            take_s += cpu_s() - begun;
            encode(cut, &mut parts);
        }
    }
    let mut end = fleet.second().remove(0).0;
    end.append_time += 86_400_000_000_000;
    encode(open.begin(&end.record()), &mut parts);
    let (rows, digest, read_s) = read_back(&parts);
    assert_eq!((rows, digest), (sent, sent_digest), "what was read is what was sent, bit by bit");
    if let Some(out) = told.out {
        let archive =
            Archive::open(ArchiveOptions { path: Some(out), ..Default::default() }, "".as_ref()).expect("opened");
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(archive.write(&parts)).expect("written");
    }
    report(&parts, sent, told.seconds);
    let million = sent as f64 / 1e6;
    println!("take             {:7.1} M points per CPU second", million / take_s);
    println!("encode           {:7.1} M points per CPU second", million / encode_s);
    println!("both             {:7.1} M points per CPU second", million / (take_s + encode_s));
    println!("read, all columns{:7.1} M points per CPU second", million / read_s);
}

fn report(parts: &[Part], points: u64, seconds: usize) {
    let mut of_column: BTreeMap<String, i64> = BTreeMap::new();
    let (mut total, mut columns) = (0, 0);
    for part in parts {
        total += part.bytes.len();
        let reader = SerializedFileReader::new(part.bytes.clone()).expect("a Parquet file");
        for chunk in reader.metadata().row_groups().iter().flat_map(|group| group.columns()) {
            *of_column.entry(chunk.column_path().string()).or_default() += chunk.compressed_size();
            columns += chunk.compressed_size();
        }
    }
    let a_point = |bytes: f64| bytes / points as f64;
    println!("{} devices x 36 metrics x {seconds} s: {points} points, {} parts", fleet::DEVICES, parts.len());
    for (column, bytes) in &of_column {
        println!("{column:16} {:8.4} bytes a point", a_point(*bytes as f64));
    }
    println!("footers, indexes {:8.4} bytes a point", a_point(total as f64 - columns as f64));
    println!("all              {:8.4} bytes a point (goal {GOAL_BYTES})", a_point(total as f64));
    println!(
        "default settings {:8.4} bytes a point, zstd, rows in the same order",
        a_point(default_bytes(parts) as f64)
    );
    println!("... of the log   {:8.4} bytes a point, zstd, rows as they came", a_point(log_order_bytes(parts) as f64));
    assert!(a_point(total as f64) <= GOAL_BYTES, "more than {GOAL_BYTES} bytes a point");
}

fn batches(part: &Part) -> Vec<RecordBatch> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(part.bytes.clone()).expect("a Parquet file");
    reader.with_batch_size(1 << 16).build().expect("a reader").map(|batch| batch.expect("read")).collect()
}

/// Bytes of the same rows as the Parquet library writes them when it is told only the compression.
fn default_bytes(parts: &[Part]) -> usize {
    parts.iter().map(|part| written_by_default(&batches(part))).sum()
}

fn log_order_bytes(parts: &[Part]) -> usize {
    let of_part = |part: &Part| {
        let whole = arrow::compute::concat_batches(&Table::Samples.schema(), &batches(part)).expect("one schema");
        let keys = ["received", "sender", "rank"].map(|name| arrow::compute::SortColumn {
            values: Arc::clone(whole.column_by_name(name).expect("a column")),
            options: None,
        });
        let order = arrow::compute::lexsort_to_indices(&keys, None).expect("sorted");
        written_by_default(&[arrow::compute::take_record_batch(&whole, &order).expect("taken")])
    };
    parts.iter().map(of_part).sum()
}

fn written_by_default(batches: &[RecordBatch]) -> usize {
    let level = ZstdLevel::try_new(3).expect("a level");
    let properties = WriterProperties::builder().set_compression(Compression::ZSTD(level)).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batches[0].schema(), Some(properties)).expect("a writer");
    for batch in batches {
        writer.write(batch).expect("written");
    }
    writer.into_inner().expect("closed").len()
}

fn read_back(parts: &[Part]) -> (u64, u128, f64) {
    let (mut rows, mut digest, mut read_s) = (0, 0_u128, 0.0);
    for part in parts {
        let begun = cpu_s();
        let batches = batches(part);
        read_s += cpu_s() - begun;
        for batch in batches {
            rows += batch.num_rows() as u64;
            let column = |name| batch.column_by_name(name).expect("a column");
            let text = |name| column(name).as_string::<i32>();
            let rank = column("rank").as_primitive::<UInt32Type>();
            let sequence = column("sequence").as_primitive::<UInt64Type>();
            let received = column("received").as_primitive::<TimestampNanosecondType>();
            let rows = Rows::of(&batch);
            for row in 0..batch.num_rows() {
                assert!(text("run").value(row) == RUN, "the run");
                let place = (received.value(row), sequence.value(row), text("sender").value(row));
                digest = digest.wrapping_add(rows.digest(row, rank.value(row), place));
            }
        }
    }
    (rows, digest, read_s)
}

fn digest_sent(head: &Head, batch: &RecordBatch) -> u128 {
    let rank = batch.column_by_name("rank").expect("a column").as_primitive::<UInt32Type>();
    let rows = Rows::of(batch);
    let digest = |row| rows.digest(row, rank.value(row), (head.append_time, head.sequence, &head.sender));
    (0..batch.num_rows()).map(digest).fold(0, u128::wrapping_add)
}

/// The columns that a record holds itself.
struct Rows {
    metric: arrow::array::StringArray,
    bits: Vec<[u64; 4]>,
}

impl Rows {
    fn of(batch: &RecordBatch) -> Self {
        let column = |name| batch.column_by_name(name).expect("a column");
        let metric = cast(column("metric"), &DataType::Utf8).expect("text").as_string::<i32>().clone();
        let attempt = column("attempt").as_primitive::<UInt32Type>();
        let step = column("step").as_primitive::<UInt64Type>();
        let time = column("time").as_primitive::<TimestampNanosecondType>();
        let value = column("value").as_primitive::<Float64Type>();
        assert_eq!(batch.columns().iter().map(|column| column.null_count()).sum::<usize>(), 0, "no nulls were sent");
        let bits = |row| {
            let time = time.value(row).cast_unsigned();
            [u64::from(attempt.value(row)), step.value(row), time, value.value(row).to_bits()]
        };
        Self { metric, bits: (0..batch.num_rows()).map(bits).collect() }
    }

    fn digest(&self, row: usize, rank: u32, (received, sequence, sender): (i64, u64, &str)) -> u128 {
        let mut mixed = u128::from(rank) + 1;
        let texts = self.metric.value(row).bytes().chain(sender.bytes()).map(u64::from);
        for word in self.bits[row].into_iter().chain([received.cast_unsigned(), sequence]).chain(texts) {
            mixed = (mixed ^ u128::from(word)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
            mixed ^= mixed >> 67;
        }
        mixed
    }
}

/// CPU seconds of this thread.
fn cpu_s() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells the time of a thread");
    let nanoseconds: f64 = text.split(' ').next().and_then(|word| word.parse().ok()).expect("a number");
    nanoseconds / 1e9
}
