//! The binary as people use it: what it prints, how it ends, what it does with bad input.

#![expect(unused_crate_dependencies, reason = "what this target does not use serves another one of the package")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use flate2::Compression;
use flate2::write::GzEncoder;
use tempfile::TempDir;

fn trainwarden(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_trainwarden")).args(arguments).output().expect("the binary was built")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("output is text")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("output is text")
}

fn real(file: &str) -> String {
    format!("{}/tests/data/real/{file}", env!("CARGO_MANIFEST_DIR"))
}

fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    for (name, bytes) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().expect("a file has a folder")).expect("a folder can be made");
        fs::write(path, bytes).expect("a file can be written");
    }
    dir
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are text")
}

/// A loss that is NaN from step 60 on, as CSV.
fn diverging() -> String {
    let row = |step: u64| {
        let loss = if step < 60 { format!("{}", 3.0 - step as f64 * 0.01) } else { "nan".to_owned() };
        format!("r,{step},{},loss,{loss}\n", step * 1_000_000_000)
    };
    "run,step,time,metric,value\n".to_owned() + &(0..70).map(row).collect::<String>()
}

#[test]
fn an_imported_log_of_a_diverging_run_is_named_and_fails_on_request() {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let out = dir.path().join("run");
    let imported = trainwarden(&["import", "wide", &real("train/golf_nan/behemoth_v10.csv"), "--out", text(&out)]);
    assert!(imported.status.success(), "{}", stderr(&imported));
    let replayed = trainwarden(&["replay", text(&out), "--fail-on", "critical"]);
    assert_eq!(replayed.status.code(), Some(1), "{}", stdout(&replayed));
    assert!(stdout(&replayed).contains("`loss` is NaN at step 1200"), "{}", stdout(&replayed));
    assert!(!stdout(&replayed).contains('\x1b'), "a pipe gets no colours");
    let healthy = trainwarden(&["replay", text(&out), "--fail-on", "info", "--output", "csv"]);
    assert_eq!(stdout(&healthy).lines().count(), 2, "{}", stdout(&healthy));
}

#[test]
fn an_incident_says_what_may_be_behind_it_what_it_cost_and_where_its_runbook_is() {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let scenario = format!("{}/tests/scenarios/throttle.toml", env!("CARGO_MANIFEST_DIR"));
    let simulated = trainwarden(&["simulate", "--scenario", &scenario, "--out", text(dir.path())]);
    assert!(simulated.status.success(), "{}", stderr(&simulated));
    let plain = stdout(&trainwarden(&["replay", text(dir.path())]));
    let lost = plain.lines().find(|line| line.contains("lost  ")).unwrap_or_else(|| panic!("{plain}"));
    assert!(lost.contains("GPU-seconds (") && !lost.contains("USD"), "{lost}");
    assert!(plain.contains("% hardware.throttle: ") && plain.contains("docs/runbooks/hardware.throttle.md"), "{plain}");
    let priced = trainwarden(&["replay", text(dir.path()), "--gpu-hour-price", "3600", "--currency", "EUR", "--json"]);
    // What became part of another incident cost nothing of its own.
    let costs = |line: &&str| line.contains("\"impact\":");
    let incidents = stdout(&priced);
    assert_eq!(incidents.lines().filter(costs).count(), 1, "{incidents}");
    let line = incidents.lines().find(costs).expect("one was just counted");
    let incident: serde_json::Value = serde_json::from_str(line).expect("a line is an incident");
    let impact = &incident["impact"];
    assert_eq!((impact["cost"].as_f64(), &impact["currency"]), (impact["gpu_seconds_lost"].as_f64(), &"EUR".into()));
    let wrong = trainwarden(&["replay", text(dir.path()), "--gpu-hour-price=-1"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(stderr(&wrong).contains("`-1` is no price of a GPU-hour, such as 2.5"), "{}", stderr(&wrong));
}

#[test]
fn names_in_the_telemetry_give_no_orders_to_the_terminal() {
    let evil = diverging().replace("loss", "lo\u{1b}[2J\u{9b}31mss").replace("r,", "\u{1b}[31mr,");
    let dir = folder(&[("samples.csv", (evil + "r,x,0,loss,1\n").as_bytes()), ("\u{1b}[31m/samples.csv", b"")]);
    let output = trainwarden(&["replay", text(dir.path())]);
    let said = stdout(&output) + &stderr(&output);
    assert!(said.contains(r"lo\u{1b}[2J\u{9b}31mss") && said.contains(r"\u{1b}[31m/samples.csv"), "{said:?}");
    assert!(said.chars().all(|letter| letter == '\n' || !letter.is_control()), "{said:?}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_behind_the_output_is_an_error_and_no_crash() {
    let dir = folder(&[("samples.csv", (diverging() + "r,x,0,loss,1\n").as_bytes()), ("log.csv", b"step,loss\n0,1\n")]);
    let (log, out) = (dir.path().join("log.csv"), dir.path().join("out"));
    let full = || fs::OpenOptions::new().write(true).open("/dev/full").expect("every Linux has it");
    let run = |arguments: &[&str], is_error_full: bool| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trainwarden"));
        let command = command.args(arguments).stdout(full());
        if is_error_full { command.stderr(full()) } else { command }.output().expect("the binary was built")
    };
    for arguments in
        [vec!["replay", text(dir.path())], vec!["import", "wide", text(&log), "--out", text(&out)], vec!["detectors"]]
    {
        let output = run(&arguments, false);
        assert_eq!(output.status.code(), Some(3), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains("error: cannot write to standard output"), "{}", stderr(&output));
        assert_eq!(run(&arguments, true).status.code(), Some(3), "{arguments:?}");
    }
}

#[test]
fn json_is_one_object_a_line_and_nothing_else_on_standard_output() {
    let dir = folder(&[("samples.csv", (diverging() + "r,x,0,loss,1\n").as_bytes())]);
    let output = trainwarden(&["replay", text(dir.path()), "--json"]);
    let lines: Vec<serde_json::Value> =
        stdout(&output).lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect();
    assert_eq!(lines.len(), 1);
    assert_eq!((lines[0]["kind"].as_str(), lines[0]["state"].as_str()), (Some("divergence.nonfinite"), Some("open")));
    assert!(stderr(&output).contains("1 row set aside"), "{}", stderr(&output));
    let changes = trainwarden(&["replay", text(dir.path()), "--changes"]);
    let first: serde_json::Value =
        serde_json::from_str(stdout(&changes).lines().next().expect("a change")).expect("a line is JSON");
    assert_eq!(first["change"], "opened");
}

#[test]
fn damage_is_counted_with_its_place_and_good_rows_are_judged() {
    let good = diverging();
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(good.replace("r,", "packed,").as_bytes()).expect("memory takes bytes");
    let packed = packed.finish().expect("memory takes bytes");
    let broken = good.clone() + "r,5\nr,-1,0,loss,1\nr,7,0,loss,high\n,8,0,loss,1\nr,9,0,loss,\n\u{fffd}\n";
    let dir = folder(&[
        ("samples/a.csv", broken.as_bytes()),
        ("samples/b.csv.gz", &packed[..packed.len() - 20]),
        ("samples/c.csv", b""),
        ("samples/d.parquet", b"PAR1 no parquet at all"),
        ("samples/e.jsonl", b"{\"run\":\"r\"\n[]\n"),
        ("samples/f.csv", b"run,step,value\nr,1,2\n"),
    ]);
    let rejects = dir.path().join("rejects");
    let output = trainwarden(&["replay", text(dir.path()), "--json", "--rejects", text(&rejects)]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let said = stderr(&output);
    for part in ["a.csv", "line 72", "b.csv.gz", "c.csv", "empty file", "d.parquet", "e.jsonl", "f.csv", "no column"] {
        assert!(said.contains(part), "`{part}` is missing in:\n{said}");
    }
    assert!(stdout(&output).contains("\"run\":\"r\""), "the good rows of a broken file are judged");
    assert!(stdout(&output).contains("\"run\":\"packed\"") || said.contains("b.csv.gz"), "{said}");
    let kept = fs::read_to_string(rejects.join("rejects.jsonl")).expect("rejects are kept");
    assert!(kept.lines().count() >= 9, "{kept}");
    assert!(kept.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()));
}

#[cfg(unix)]
#[test]
fn a_pipe_or_a_device_in_a_run_folder_is_told_as_one_and_not_waited_for() {
    let dir = folder(&[("samples.csv", diverging().as_bytes())]);
    std::os::unix::fs::symlink("/dev/zero", dir.path().join("digests.csv")).expect("linked");
    let output = trainwarden(&["replay", text(dir.path()), "--json"]);
    assert_eq!(stdout(&output).lines().count(), 1);
    assert!(stderr(&output).contains("digests.csv: set aside: not a regular file"), "{}", stderr(&output));
}

#[test]
fn wrong_usage_ends_with_two_and_says_what_to_do() {
    let dir = folder(&[("notes.txt", b"no table")]);
    let missing: PathBuf = dir.path().join("nowhere");
    for arguments in [
        vec!["replay"],
        vec!["replay", text(&missing)],
        vec!["replay", text(dir.path())],
        vec!["replay", text(dir.path()), "--fail-on", "loud"],
        vec!["import", "wide", text(&missing), "--out", "x"],
        vec!["import", "wide", text(&missing), "--out", "x", "--map", "loss"],
        vec!["import", "wide", &real("train/golf_nan/behemoth_v10.csv"), "--run", "", "--out", "x"],
        vec!["sql"],
        vec!["serve", "--listen", "0.0.0.0:7788"],
        vec!["serve", "--config", text(&missing)],
        vec!["send", text(dir.path())],
        vec!["incidents", "--data", text(&missing)],
        vec!["incidents", "--since", "yesterday"],
        vec!["check", "--config", text(&dir.path().join("notes.txt"))],
    ] {
        let output = trainwarden(&arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).starts_with("error: "), "{arguments:?}: {}", stderr(&output));
        assert!(!stderr(&output).contains("panicked"), "{}", stderr(&output));
    }
}

#[test]
fn an_import_of_a_column_that_is_not_there_leaves_no_folder() {
    let dir = folder(&[("log.csv", b"step,loss\n0,1\n")]);
    let (log, out) = (dir.path().join("log.csv"), dir.path().join("out"));
    let output = trainwarden(&["import", "wide", text(&log), "--map", "los=loss", "--out", text(&out)]);
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(!out.exists());
}

#[test]
fn a_table_of_a_thousand_columns_makes_no_screenful_of_names() {
    let names: Vec<String> = (0..1_000).map(|column| format!("column_{column}")).collect();
    let log = format!("{}\n{}\n", names.join(","), vec!["1"; 1_000].join(","));
    let dir = folder(&[("log.csv", log.as_bytes())]);
    let output =
        trainwarden(&["import", "wide", text(&dir.path().join("log.csv")), "--out", text(&dir.path().join("out"))]);
    assert!(stdout(&output).contains("1000 written"), "{}", stdout(&output));
    assert!(stderr(&output).contains("and 960 more") && stderr(&output).len() < 1_000, "{}", stderr(&output));
}

#[test]
fn every_command_has_help_with_an_example() {
    assert!(stdout(&trainwarden(&["--help"])).contains("Examples:"));
    for command in [
        vec!["replay"],
        vec!["import"],
        vec!["import", "wide"],
        vec!["import", "trace"],
        vec!["import", "flight-recorder"],
        vec!["import", "series"],
        vec!["report"],
        vec!["detectors"],
    ] {
        let output = trainwarden(&[command.as_slice(), &["--help"]].concat());
        assert!(output.status.success());
        let example = format!("Example: trainwarden {}", command.join(" "));
        assert!(stdout(&output).contains(&example), "{command:?}:\n{}", stdout(&output));
    }
    let listed = stdout(&trainwarden(&["detectors"]));
    assert!(listed.contains("straggler") && listed.contains("slowdown.rank"), "{listed}");
}

#[test]
fn a_simulated_cluster_can_be_replayed_and_carries_its_truth() {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let scenario = format!("{}/tests/scenarios/code_mismatch.toml", env!("CARGO_MANIFEST_DIR"));
    let out = dir.path().join("run");
    let simulated = trainwarden(&["simulate", "--scenario", &scenario, "--out", text(&out)]);
    assert!(simulated.status.success(), "{}", stderr(&simulated));
    assert!(stdout(&simulated).starts_with("16 ranks, 240 steps, 1 fault:"), "{}", stdout(&simulated));
    let truth = fs::read_to_string(out.join("truth.json")).expect("the truth was written");
    assert!(truth.contains("environment.mismatch"), "{truth}");
    let replayed = trainwarden(&["replay", text(&out), "--fail-on", "critical"]);
    assert_eq!(replayed.status.code(), Some(1), "{}", stdout(&replayed));
}

#[test]
fn a_scenario_that_makes_no_sense_is_told_with_what_is_accepted_and_writes_nothing() {
    let dir = folder(&[("bad.toml", b"run = 'a'\nseed = 1\nsteps = 0\n[cluster]\ndp = 4\n")]);
    let out = dir.path().join("run");
    let simulated = trainwarden(&["simulate", "--scenario", text(&dir.path().join("bad.toml")), "--out", text(&out)]);
    assert_eq!(simulated.status.code(), Some(2));
    assert!(stderr(&simulated).contains("`steps` is 0, but must be 1 to"), "{}", stderr(&simulated));
    assert!(!out.exists());
}
