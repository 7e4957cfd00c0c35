//! The real DuckDB and the real Polars read the folder, and see what was written.

use std::path::PathBuf;
use std::process::Command;

use trainwarden_store::{Archive, ArchiveOptions, PartLimits};
use trainwarden_telemetry::Table;

use crate::log::{cuts, log, rows_of};

/// What the script exits with where Python or its packages cannot be had.
const NOT_HERE: i32 = 77;
const LIMITS: PartLimits = PartLimits { seconds: 900, bytes_max: 40_000 };

#[tokio::test]
async fn duckdb_and_polars_see_every_row_with_its_bits() {
    let dir = tempfile::tempdir().expect("a folder");
    let options = ArchiveOptions { path: Some(dir.path().join("archive")), ..ArchiveOptions::default() };
    let archive = Archive::open(options, dir.path()).expect("opened");
    let long = format!("long {}", "é/".repeat(150));
    let odd = ["42", "2026-01-01", "true", "NULL", "", "__HIVE_DEFAULT_PARTITION__", "a=b%2F", "'\"{}", "...", &long];
    let mut log = log(9, 400);
    for (sent, run) in log.iter_mut().zip(odd.into_iter().cycle()).step_by(2) {
        // To a folder, no name and an empty one are the same; only an event may have no run.
        let is_taken = sent.run.is_some() && !(run.is_empty() && sent.table == Table::Events);
        sent.run = if is_taken { Some(run.to_owned()) } else { sent.run.take() };
    }
    let (cuts, _) = cuts(&log, 0, LIMITS);
    for cut in &cuts {
        archive.write(&cut.encode().expect("encoded")).await.expect("written");
    }
    let end = cuts.last().expect("cut").position;
    let names = |table: Table| {
        let columns = table.columns().iter().map(|column| column.name);
        [table.as_str()].into_iter().chain(columns).collect::<Vec<_>>().join("\u{1f}")
    };
    let mut lines = vec![Table::ALL.map(names).join("\u{1d}")];
    for sent in log.iter().filter(|sent| sent.offset < end) {
        lines.extend(rows_of(sent.table, sent.run.as_deref(), Some(sent), &sent.rows));
    }
    let expected = dir.path().join("expected");
    std::fs::write(&expected, lines.join("\u{1e}")).expect("written");
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/readers/run");
    let run = Command::new(script).arg(dir.path().join("archive")).arg(&expected).output().expect("the script starts");
    let told = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    println!("{told}");
    if run.status.code() == Some(NOT_HERE) {
        eprintln!("skipped: DuckDB and Polars are not here: {told}");
        return;
    }
    assert!(run.status.success(), "{told}");
}
