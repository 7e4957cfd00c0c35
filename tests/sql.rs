//! Questions in SQL, as people ask them: of run folders, of a data folder, of a running service; and as nobody should.

#![expect(unused_crate_dependencies, reason = "what this target does not use serves another one of the package")]

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;

use arrow::ipc::reader::StreamReader;
use serde_json::Value;
use tempfile::TempDir;
use trainwarden::simulation::{read_scenario, write};
use trainwarden_ingest::Format;
use trainwarden_store::{Archive, ArchiveOptions, PartLimits};

use crate::archived::archive;
use crate::service::{Service, replayed, send_to, wait_told};

mod archived;
#[path = "sql/flight.rs"]
mod flight;
#[path = "sql/hostile.rs"]
mod hostile;
#[path = "sql/notebooks.rs"]
mod notebooks;
#[path = "sql/prompt.rs"]
mod prompt;
mod recorded;
mod service;

/// Asks with the binary.
fn sql(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_trainwarden")).arg("sql").args(arguments).output().expect("the binary was built")
}

/// The answer of a question that has one.
fn told(arguments: &[&str]) -> String {
    let output = sql(arguments);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {error}");
    String::from_utf8(output.stdout).expect("text")
}

/// The run folder of a scenario.
fn folder_of(name: &str, dir: &Path, format: Format) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/scenarios/{name}.toml"));
    let folder = dir.join(name);
    write(&read_scenario(&path).expect("a scenario"), &folder, format).expect("written");
    folder
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary paths are text")
}

/// The rows of a saved question over a run folder.
fn saved(name: &str, folder: &Path, more: &[&str]) -> Vec<Value> {
    let asked = ["-q", "--run-folder", text(folder), "--format", "nd-json", "--saved", name];
    let arguments = [&asked[..], more].concat();
    told(&arguments).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn a_run_folder_is_asked_in_every_form_that_it_has() {
    let dir = tempfile::tempdir().expect("a folder");
    let question = "select metric, count(*) as rows, min(step) as first from samples group by metric order by metric";
    let answers: Vec<String> = [Format::Parquet, Format::Csv, Format::JsonlZst, Format::CsvGz]
        .into_iter()
        .enumerate()
        .map(|(at, format)| {
            let folder = folder_of("slow_rank_5", &dir.path().join(at.to_string()), format);
            told(&["--run-folder", text(&folder), "--format", "csv", "-c", question])
        })
        .collect();
    assert!(
        answers[0].starts_with("metric,rows,first\n") && answers[0].contains("step_time_s,3840,0\n"),
        "{}",
        answers[0]
    );
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
}

#[test]
fn statements_come_from_the_line_from_files_and_from_standard_input() {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = folder_of("slow_rank_5", dir.path(), Format::Parquet);
    let file = dir.path().join("ask.sql");
    fs::write(&file, "-- two\nselect 1 as a;\nselect 'b,c' as b;\n").expect("written");
    let asked = ["-q", "--run-folder", text(&folder), "--format"];
    assert_eq!(
        told(&[&asked[..], &["csv", "-f", text(&file), "-c", "select 3 as c"]].concat()),
        "c\n3\na\n1\nb\n\"b,c\"\n"
    );
    assert_eq!(
        told(&[&asked[..], &["json", "-c", "select 1.5 as x, null as y"]].concat()),
        "[{\"x\":1.5,\"y\":null}]\n"
    );
    assert_eq!(told(&[&asked[..], &["tsv", "-c", "select 'a' as x, 'b' as y"]].concat()), "x\ty\na\tb\n");
    let table =
        told(&[&asked[..], &["table", "--maxrows", "2", "-c", "select rank from samples order by rank"]].concat());
    assert!(table.contains("| rank |") && table.contains("more rows"), "{table}");
    let listed = told(&["--saved"]);
    assert_eq!(listed.lines().count(), 12, "{listed}");
}

#[test]
fn an_error_says_where_and_what_to_write_instead() {
    let dir = tempfile::tempdir().expect("a folder");
    let folder = folder_of("slow_rank_5", dir.path(), Format::Parquet);
    let cases = [
        ("select metrik from samples", "line 1, column 8: there is no column `metrik` here; did you mean `metric`?"),
        ("select 1\nfrom smaples", "line 2, column 6: there is no table `smaples`; did you mean `samples`?"),
        ("select 1 frm samples x", "line 1, column"),
        ("drop table samples", "only SELECT and EXPLAIN are"),
        ("select exact_quantil(value, 0.5) from samples", "did you mean `exact_quantile`?"),
    ];
    for (statement, expected) in cases {
        let output = sql(&["--run-folder", text(&folder), "-c", statement]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && error.contains(expected), "{statement}: {error}");
        assert!(output.stdout.is_empty(), "{statement}");
    }
    let nowhere = sql(&["--data", "/nowhere", "-c", "select 1"]);
    assert_eq!(nowhere.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&nowhere.stderr).contains("--run-folder"));
    let late = sql(&["--run-folder", text(&folder), "--time-limit", "1", "-c", hostile::NEVER]);
    assert!(String::from_utf8_lossy(&late.stderr).contains("no answer within 1 s"), "{late:?}");
    let large = sql(&["--run-folder", text(&folder), "-m", "300", "-c", "select repeat('x', 2000000000)"]);
    let error = String::from_utf8_lossy(&large.stderr);
    assert!(error.contains("memory"), "{error}");
}

#[test]
fn saved_questions_find_what_was_planted() {
    let dir = tempfile::tempdir().expect("a folder");
    let slow = folder_of("slow_rank_5", dir.path(), Format::Parquet);
    let slowest = saved("slowest_ranks", &slow, &[]);
    assert_eq!(slowest[0]["rank"], 11, "{slowest:?}");
    let flipped = folder_of("weight_flip", dir.path(), Format::Parquet);
    let truth: Value = serde_json::from_slice(&fs::read(flipped.join("truth.json")).expect("a truth")).expect("JSON");
    let odd = saved("odd_replicas", &flipped, &[]);
    assert!(!odd.is_empty(), "{truth}");
    let guilty = &truth["faults"][0]["ranks"];
    assert!(guilty.as_array().expect("ranks").contains(&odd[0]["rank"]), "{odd:?} {truth}");
    let healthy = folder_of("weight_flip_healthy", dir.path(), Format::Parquet);
    assert_eq!(saved("odd_replicas", &healthy, &[]), Vec::<Value>::new());
}

/// An archive of scenarios in a data folder.
fn archived(names: &[&str]) -> TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    let place = Archive::open(ArchiveOptions::default(), dir.path()).expect("opened");
    for name in names {
        let folder = folder_of(name, &dir.path().join("runs"), Format::Parquet);
        archive(&folder, &place, PartLimits::default());
    }
    dir
}

#[test]
fn an_archive_is_asked_and_parts_of_other_runs_stay_closed() {
    let dir = archived(&["two_faults", "hang"]);
    let data = text(dir.path());
    let of_folders = |question: &str| {
        let (one, other) = (dir.path().join("runs/two_faults"), dir.path().join("runs/hang"));
        told(&["-q", "--format", "csv", "--run-folder", text(&one), "--run-folder", text(&other), "-c", question])
    };
    for question in [
        "select run, metric, count(*) as n, min(value) as least, max(value) as most from samples group by run, metric order by run, metric",
        "select run, op, count(*) as n from collectives group by run, op order by run, op",
        "select kind, count(*) as n from events group by kind order by kind",
    ] {
        let of_archive = told(&["-q", "--format", "csv", "--data", data, "-c", question]);
        assert_eq!(of_archive, of_folders(question), "{question}");
    }
    let explain = "explain select count(value) from samples where run = 'hang' and date > '2000-01-01'";
    let plan = told(&["-q", "--data", data, "--maxrows", "inf", "-c", explain]);
    assert!(plan.contains("run=hang") && !plan.contains("run=two_faults"), "{plan}");
    let held = told(&[
        "-q",
        "--format",
        "csv",
        "--data",
        data,
        "-c",
        "select \"table\", run, sum(rows) as rows from coverage where \"table\" = 'ranks' group by 1, 2 order by 2",
    ]);
    let counted = of_folders("select 'ranks' as \"table\", run, count(*) as rows from ranks group by run order by run");
    assert_eq!(held, counted);
    // What was asked is written down.
    let journal = fs::read_to_string(dir.path().join("queries.jsonl")).expect("a journal");
    assert_eq!(journal.lines().count(), 5);
    assert!(journal.lines().all(|line| serde_json::from_str::<Value>(line).expect("JSON")["error"].is_null()));
}

#[test]
fn a_running_service_answers_over_its_port_with_its_incidents() {
    let dir = tempfile::tempdir().expect("a folder");
    let runs = dir.path().join("runs");
    folder_of("two_faults", &runs, Format::Parquet);
    let mut service = Service::start(&dir.path().join("data"), &[]);
    send_to(&runs, &service.url());
    let expected = replayed(&runs);
    wait_told(&service, &expected);
    let question = "select json from incidents order by run, attempt, started_at, id";
    let (status, bytes) = service.ask(question, "application/json");
    let rows: Vec<Value> = serde_json::from_slice(&bytes).expect("JSON");
    let lines: Vec<&str> = rows.iter().map(|row| row["json"].as_str().expect("text")).collect();
    assert_eq!((status, lines), (200, expected.lines().collect()));
    let (_, bytes) = service.ask("select count(*) as n from verdicts", "text/csv");
    let figures: usize = expected
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["evidence"].as_array().map_or(0, Vec::len))
        .sum();
    assert_eq!(String::from_utf8_lossy(&bytes), format!("n\n{figures}\n"));
    let (_, bytes) = service.ask("select 7 as n", "application/vnd.apache.arrow.stream");
    let batch =
        StreamReader::try_new(Cursor::new(bytes), None).expect("a stream").next().expect("a batch").expect("read");
    assert_eq!((batch.num_rows(), batch.schema().field(0).name().as_str()), (1, "n"));
    let by_url = told(&["-q", "--format", "csv", "--url", &service.url(), "-c", "select count(*) as n from verdicts"]);
    assert_eq!(by_url, format!("n\n{figures}\n"));
    let by_folder =
        told(&["-q", "--format", "csv", "--data", text(service.data()), "-c", "select count(*) as n from verdicts"]);
    assert_eq!(by_folder, by_url);
    let wrong = sql(&["--url", &service.url(), "-c", "select vlaue from samples"]);
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("did you mean `value`?"), "{wrong:?}");
    service.stop();
}

/// Asks everything with two askers, as many as are answered at once.
fn ask_all(service: &Service, statements: Vec<String>) -> Vec<(String, u16, String)> {
    let (left, answers) = (Mutex::new(statements), Mutex::new(Vec::new()));
    let next = || left.lock().expect("no asker panics").pop();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some(statement) = next() {
                    let (status, body) = service.ask(&statement, "application/json");
                    let answer = (statement, status, String::from_utf8_lossy(&body).into_owned());
                    answers.lock().expect("no asker panics").push(answer);
                }
            });
        }
    });
    answers.into_inner().expect("no asker panics")
}

#[test]
fn hostile_statements_read_nothing_and_end_with_an_error() {
    let dir = archived(&["slow_rank_5"]);
    let canary = dir.path().join("canary.csv");
    fs::write(&canary, "secret\nnobody-may-see-this\n").expect("written");
    // A part that is none: whatever reads the table is told so.
    let broken = dir.path().join("archive/table=digests/run=r/date=2026-11-25");
    fs::create_dir_all(&broken).expect("made");
    fs::write(broken.join("0-1-2.parquet"), b"PAR1 not a footer PAR1").expect("written");
    let mut service = Service::start(dir.path(), &[]);
    let pid = service.pid();
    let statements = hostile::statements(&canary);
    let count = statements.len();
    assert!(count >= 300, "{count}");
    let answers = ask_all(&service, statements);
    assert_eq!(answers.len(), count);
    let mut answered = Vec::new();
    for (statement, status, body) in &answers {
        let shown: String = statement.chars().take(120).collect();
        assert!(!body.contains("nobody-may-see-this") && !body.contains("root:"), "{shown}: {body}");
        // A body that is too large may be cut off before it is answered.
        let is_cut = *status == 0 && statement.len() > 64 << 10;
        assert!(is_cut || [200, 400, 413, 422].contains(status), "{shown}: {status} {body}");
        if *status == 200 {
            answered.push(shown);
        } else if ![0, 413].contains(status) {
            let told: Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("{shown}: {body}"));
            let message = told["error"]["message"].as_str().unwrap_or_default();
            assert!(message.len() > 10 && !message.contains("panicked"), "{shown}: {message}");
        }
    }
    eprintln!("{count} statements; answered all the same: {answered:#?}");
    assert!(service.is_running() && service.pid() == pid);
    let (status, body) = service.ask("select count(*) as n from samples where metric = 'step_time_s'", "text/csv");
    assert_eq!((status, String::from_utf8_lossy(&body).as_ref()), (200, "n\n3840\n"));
    assert_eq!(fs::read_to_string(&canary).expect("still there"), "secret\nnobody-may-see-this\n");
    let journal = fs::read_to_string(dir.path().join("queries.jsonl")).expect("a journal");
    assert!(journal.lines().count() > 250, "{}", journal.lines().count());
    service.stop();
}

/// Calls of files, sockets and programs that succeeded in the process that answers, once it had locked itself in.
fn successes(traces: &Path) -> Vec<String> {
    let files: Vec<String> = fs::read_dir(traces)
        .expect("traces")
        .map(|entry| fs::read_to_string(entry.expect("a trace").path()).expect("text"))
        // The process that asks is no part of it.
        .filter(|trace| !trace.contains("\"sql\", "))
        .collect();
    assert!(files.iter().any(|trace| trace.contains("landlock_restrict_self")), "nobody locked himself in");
    let locked = |trace: &String| -> Vec<String> {
        let lines: Vec<&str> = trace.lines().collect();
        let start = lines.iter().position(|line| line.starts_with("landlock_restrict_self")).map_or(0, |at| at + 1);
        lines[start..].iter().map(|line| (*line).to_owned()).collect()
    };
    let acts =
        ["open", "socket", "connect", "bind", "execve", "unlink", "rename", "mkdir", "link", "chmod", "truncate"];
    let succeeded = |line: &String| acts.iter().any(|act| line.starts_with(act)) && !line.contains("= -1 ");
    files.iter().flat_map(locked).filter(succeeded).collect()
}

#[test]
fn nothing_outside_the_archive_is_opened() {
    let dir = archived(&["slow_rank_5"]);
    let canary = dir.path().join("canary.csv");
    fs::write(&canary, "secret\nnobody-may-see-this\n").expect("written");
    let archive = fs::canonicalize(dir.path().join("archive")).expect("an archive");
    let mut asked = vec!["select count(*) as n from samples".to_owned()];
    asked.extend(hostile::statements(&canary).into_iter().step_by(20));
    let mut opened = 0;
    for statement in &asked {
        let traces = tempfile::tempdir().expect("a folder");
        let trace = ["-ff", "-qq", "-e", "trace=%file,%network,landlock_restrict_self", "-o"];
        let output = Command::new("strace")
            .args(trace)
            .arg(traces.path().join("trace"))
            .arg(env!("CARGO_BIN_EXE_trainwarden"))
            .args(["sql", "--data", text(dir.path()), "--time-limit", "10", "-m", "1024", "-c", statement])
            .output()
            .expect("strace is installed: tests/needs brings it");
        assert!(!String::from_utf8_lossy(&output.stdout).contains("nobody-may-see-this"), "{statement}");
        for line in successes(traces.path()) {
            assert!(line.contains(text(&archive)), "{statement}: {line}");
            opened += 1;
        }
    }
    assert!(opened > 0, "the archive itself is read");
}
