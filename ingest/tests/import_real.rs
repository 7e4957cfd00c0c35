//! Every file of the real corpus imports whole: no row is set aside, as many are read as the index says, and the
//! folder that is written reads back without a reject.

#![allow(unused_crate_dependencies, reason = "the crate's own dependencies are also linked to this test")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use trainwarden_ingest::import::{ImportReport, ImportSource, SeriesOptions, WideOptions, import};
use trainwarden_ingest::{FolderWriter, Format, Log, Rejects};

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data/real")
}

/// Rows of each file, from the corpus's own index.
fn rows_by_file() -> BTreeMap<String, u64> {
    let mut index = csv::Reader::from_path(corpus().join("runs.csv")).expect("the corpus has an index");
    let rows = index.deserialize::<BTreeMap<String, String>>();
    rows.map(|row| {
        let row = row.expect("the index is whole");
        (row["file"].clone(), row["rows"].parse().expect("rows is a number"))
    })
    .collect()
}

fn source_of(file: &str) -> Option<ImportSource> {
    let is_csv = file.ends_with(".csv") || file.ends_with(".csv.gz");
    let wide = || ImportSource::Wide(WideOptions::default());
    match file.split('/').next() {
        _ if file.ends_with("cov_50_jobs.csv.gz") => Some(wide()),
        Some("train" | "incidents") if is_csv => Some(wide()),
        Some("ranks") => Some(ImportSource::Trace),
        Some("generic") => Some(ImportSource::Series(SeriesOptions::default())),
        _ if file.contains("flight_recorder/") => Some(ImportSource::FlightRecorder),
        _ => None,
    }
}

fn imported(source: &ImportSource, file: &str, run: Option<&str>) -> (ImportReport, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a folder for temporary files");
    let mut writer = FolderWriter::create(dir.path(), Format::Csv).expect("the folder is ours");
    let report = import(source, &[corpus().join(file)], run, &mut writer).expect("the file is readable");
    writer.finish().expect("the folder is ours");
    (report, dir)
}

fn table(dir: &Path, name: &str) -> Vec<BTreeMap<String, String>> {
    let mut reader = csv::Reader::from_path(dir.join(format!("{name}.csv"))).expect("the table was written");
    reader.deserialize().map(|row| row.expect("we wrote it")).collect()
}

#[test]
fn every_file_of_the_corpus_is_read_whole_and_its_folder_reads_back() {
    let mut files = 0;
    for (file, rows) in rows_by_file() {
        let Some(source) = source_of(&file) else { continue };
        let (report, dir) = imported(&source, &file, None);
        assert_eq!(report.aside, [], "{file}");
        assert_eq!((report.rows_aside, report.cells_aside), (0, 0), "{file}");
        assert_eq!(report.rows_read, rows, "{file}");
        assert!(report.rows_written > 0, "{file}");
        let mut rejects = Rejects::new();
        Log::read(&[dir.path().to_owned()], &mut rejects).expect("the folder is a run folder");
        assert_eq!(rejects.count(), 0, "{file}: {:?}", rejects.summary());
        files += 1;
    }
    assert!(files >= 250, "only {files} files were found");
}

#[test]
fn the_members_of_a_hung_group_are_known_even_when_one_left_no_entry() {
    let (_, dir) = imported(&ImportSource::FlightRecorder, "collectives/flight_recorder/lock_gil_1st.json.gz", None);
    let calls = table(dir.path(), "collectives");
    assert!(calls.iter().all(|call| call["rank"] != "9"), "rank 9 left entries");
    let waiting =
        calls.iter().filter(|call| call["comm"] == "TENSOR_MODEL_PARALLEL_GROUP/37" && call["end"].is_empty());
    assert!(waiting.count() > 0, "nobody waits in the group of rank 9");
    let members: Vec<String> = table(dir.path(), "groups")
        .into_iter()
        .filter(|member| member["comm"] == "TENSOR_MODEL_PARALLEL_GROUP/37")
        .map(|member| member["rank"].clone())
        .collect();
    assert_eq!(members, ["8", "9", "10", "11"]);
    assert_eq!(table(dir.path(), "ranks").len(), 16);
}

#[test]
fn only_the_rank_whose_device_failed_is_missing_in_the_calls_of_its_groups() {
    let (_, dir) = imported(&ImportSource::FlightRecorder, "collectives/flight_recorder/gpu_error_1st.json.gz", None);
    let mut members: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for member in table(dir.path(), "groups") {
        members.entry(member["comm"].clone()).or_default().push(member["rank"].clone());
    }
    let mut present: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    for call in table(dir.path(), "collectives") {
        present.entry((call["comm"].clone(), call["seq"].clone())).or_default().push(call["rank"].clone());
    }
    let mut missing: Vec<&String> = Vec::new();
    for ((comm, _), ranks) in &present {
        missing.extend(members.get(comm).into_iter().flatten().filter(|rank| !ranks.contains(rank)));
    }
    missing.sort_unstable();
    missing.dedup();
    assert_eq!(missing, ["12"]);
}

#[test]
fn the_trace_and_its_sums_agree() {
    let own_work = ["forward_time_s", "backward_time_s", "step_time_s"];
    let values = |file: &str| {
        let (_, dir) = imported(&ImportSource::Trace, file, Some("run"));
        let rows = table(dir.path(), "samples").into_iter();
        rows.filter(|row| own_work.contains(&row["metric"].as_str()))
            .map(|row| {
                let value: f64 = row["value"].parse().expect("a number");
                ((row["step"].clone(), row["rank"].clone(), row["metric"].clone()), value)
            })
            .collect::<BTreeMap<_, _>>()
    };
    for name in ["AR", "ST"] {
        let trace = values(&format!("ranks/bytedance/trace_{name}.csv.gz"));
        let sums = values(&format!("ranks/bytedance/rank_step_{name}.csv.gz"));
        assert_eq!(trace.len(), sums.len(), "{name}");
        for (key, sum) in sums {
            // The sums were rounded to a microsecond an operation.
            assert!((trace[&key] - sum).abs() < 1e-3, "{name} {key:?}: {} and {sum}", trace[&key]);
        }
    }
}
