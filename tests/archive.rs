//! The archive is a run folder too: what is judged from it is what was judged from the rows as they came.

#![expect(unused_crate_dependencies, reason = "what this target does not use serves another one of the package")]

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::DataType;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use trainwarden::replay::replay;
use trainwarden::simulation::{read_scenarios, write};
use trainwarden_ingest::Format;
use trainwarden_store::{Archive, ArchiveOptions, Cut, OpenParts, PartLimits, Record};
use trainwarden_telemetry::Table;

/// A different kind of table decides each of them: samples, collectives, digests, events.
const SCENARIOS: [&str; 5] = ["two_faults", "hang", "desync", "gradient_flip", "checkpoint_swap"];
/// Rows of a record, as an agent would send them.
const RECORD_ROWS: usize = 700;
/// 2026-11-25, long after the rows were measured.
const SENT_NS: i64 = 1_795_564_800_000_000_000;
const SECOND_NS: i64 = 1_000_000_000;

/// The rows of a folder in records, archived as rows that are sent later.
fn archive(folder: &Path, archive: &Archive, limits: PartLimits) -> usize {
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

fn json(path: &Path) -> (String, u64) {
    let (findings, rejects) = replay(&[PathBuf::from(path)], None).expect("replayed");
    assert_eq!(rejects.summary(), Vec::<String>::new());
    let lines = findings.incidents.iter().map(|incident| serde_json::to_string(incident).expect("JSON") + "\n");
    (lines.collect(), findings.rows.values().sum())
}

#[test]
fn a_replay_of_the_archive_says_byte_for_byte_what_one_of_the_folder_says() {
    let scenarios = read_scenarios(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios")).expect("scenarios");
    let together = tempfile::tempdir().expect("a folder");
    let mut told = String::new();
    for name in SCENARIOS {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = dir.path().join("run");
        write(&scenarios[name], &folder, Format::Parquet).expect("simulated");
        let expected = json(&folder);
        assert!(!expected.0.is_empty() && expected.1 > 1_000, "{name} has incidents");
        let limits = PartLimits { seconds: 900, bytes_max: 1 << 20 };
        let place = Archive::open(ArchiveOptions::default(), dir.path()).expect("opened");
        assert!(archive(&folder, &place, limits) > 1, "{name} is in several parts");
        assert_eq!(json(&dir.path().join("archive")), expected, "{name}");
        told += &expected.0;
        let shared = Archive::open(ArchiveOptions::default(), together.path()).expect("opened");
        archive(&folder, &shared, PartLimits::default());
    }
    let (all, _) = json(&together.path().join("archive"));
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    assert_eq!(lines(&all), lines(&told), "several runs in one archive say what each says alone");
}
