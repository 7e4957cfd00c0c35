//! Flight SQL with the ADBC driver for Python, as notebooks use it: `adbc.py` asks, and holds the answers against ours.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::service::Service;
use crate::{archived, hostile, sql, text};

/// The statements whose answers must be those of `trainwarden sql`, bit for bit.
const ASKED: [&str; 7] = [
    "select metric, count(*) as n, min(value) as least, avg(value) as mean from samples group by metric order by metric",
    // Several batches, and all types of a table.
    "select * from samples order by metric, rank, step, time",
    "select * from collectives order by comm, seq, rank",
    "select * from events where false",
    "select rank, topk_per(metric, value, 2) as top, change_points(step, value) as points from samples where rank < 3 group by rank order by rank",
    "select distinct arrow_cast(metric, 'Dictionary(Int32, Utf8)') as metric from samples order by 1",
    "select null as nothing, '-Infinity'::double as least, interval '1 day' as day, date '2026-11-25' as date",
];

/// Python with the libraries of `tests/sql/requirements.txt`.
pub(crate) fn python(script: &Path) -> Command {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/sql/venv/bin/python");
    assert!(python.exists(), "there is no `{}`: run tests/needs", python.display());
    let mut command = Command::new(python);
    command.arg(script);
    command
}

fn adbc(arguments: &[&str]) -> Output {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sql/adbc.py");
    python(&script).args(arguments).output().expect("Python starts")
}

pub(crate) fn journal(data: &Path) -> Vec<Value> {
    let text = fs::read_to_string(data.join("queries.jsonl")).expect("a journal");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn adbc_is_answered_as_the_command_line_is_and_writes_nothing() {
    let dir = archived(&["slow_rank_5"]);
    let answers = tempfile::tempdir().expect("a folder");
    let before: Vec<PathBuf> = files(&dir.path().join("archive"));
    for (at, statement) in ASKED.iter().enumerate() {
        let answer = sql(&["-q", "--data", text(dir.path()), "--format", "arrow", "-c", statement]);
        assert!(answer.status.success(), "{statement}: {}", String::from_utf8_lossy(&answer.stderr));
        fs::write(answers.path().join(format!("{at}.arrow")), answer.stdout).expect("written");
        fs::write(answers.path().join(format!("{at}.sql")), statement).expect("written");
    }
    let mut service = Service::start(dir.path(), &[]);
    let output = adbc(&["ask", &service.url(), text(answers.path())]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let asked = journal(dir.path());
    let by = |from: &str| asked.iter().filter(|line| line["from"] == from).count();
    assert!(by("flight sql") >= ASKED.len() && by("flight sql, prepared") >= ASKED.len(), "{asked:#?}");
    let refused = |sql: &str| {
        asked
            .iter()
            .any(|line| line["sql"] == sql && line["error"].as_str().is_some_and(|error| error.contains("only")))
    };
    assert!(refused("drop table samples") && refused("delete from samples"), "{asked:#?}");
    assert_eq!(files(&dir.path().join("archive")), before);
    service.stop();
}

#[test]
fn hostile_statements_by_flight_sql_are_answered_as_over_http() {
    let dir = archived(&["slow_rank_5"]);
    let canary = dir.path().join("canary.csv");
    fs::write(&canary, "secret\nnobody-may-see-this\n").expect("written");
    let mut service = Service::start(dir.path(), &[]);
    let statements: Vec<String> = hostile::statements(&canary).into_iter().step_by(7).collect();
    assert!(statements.len() > 50, "{}", statements.len());
    let asked = tempfile::NamedTempFile::new().expect("a file");
    fs::write(asked.path(), serde_json::to_vec(&statements).expect("JSON")).expect("written");
    let output = adbc(&["hostile", &service.url(), text(asked.path())]);
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    assert!(!told.contains("nobody-may-see-this") && !told.contains("root:"), "{told}");
    assert!(service.is_running());
    service.stop();
}

#[test]
fn a_question_that_nobody_waits_for_is_not_answered_any_more() {
    let dir = archived(&["slow_rank_5"]);
    let mut service = Service::start(dir.path(), &[]);
    let output = adbc(&["cancel", &service.url(), &service.pid().to_string()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let ends: Vec<String> = journal(dir.path()).iter().map(|line| line["error"].to_string()).collect();
    assert_eq!(ends, ["\"the question was cancelled\""; 4]);
    service.stop();
}

#[test]
fn an_answer_that_breaks_off_for_a_slow_reader_is_told_to_be_none() {
    let dir = archived(&["slow_rank_5"]);
    let mut service = Service::start(dir.path(), &[]);
    let output = adbc(&["slow", &service.url(), text(&dir.path().join("queries.jsonl"))]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    service.stop();
}

#[test]
fn a_ticket_and_a_handle_outlive_the_service_that_gave_them() {
    let dir = archived(&["slow_rank_5"]);
    let kept = tempfile::tempdir().expect("a folder");
    let mut service = Service::start(dir.path(), &[]);
    for step in ["promise", "redeem"] {
        let output = adbc(&[step, &service.url(), text(kept.path())]);
        assert!(output.status.success(), "{step}: {}", String::from_utf8_lossy(&output.stderr));
        service.kill();
        service.restart();
    }
    service.stop();
}

#[test]
fn flight_sql_needs_a_token_that_may_ask_the_archive() {
    let dir = archived(&["slow_rank_5"]);
    let mut config = String::new();
    let token = |role: &str| format!("{role}-0123456789abcdef0123456789abcdef");
    for role in ["viewer", "responder", "forensic", "admin"] {
        let file = dir.path().join(role);
        fs::write(&file, token(role)).expect("written");
        config += &format!("[[access.tokens]]\nname = \"{role}\"\nrole = \"{role}\"\nfile = {file:?}\n");
    }
    let file = dir.path().join("config.toml");
    fs::write(&file, config).expect("written");
    let mut service = Service::start(dir.path(), &["--config", text(&file)]);
    let told = |token: &str| {
        let output = adbc(&["token", &service.url(), token]);
        let (answer, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.success(), format!("{answer}{error}"))
    };
    for role in ["forensic", "admin"] {
        assert_eq!(told(&token(role)), (true, "[(1,)]\n".to_owned()));
    }
    for (shown, why) in [
        (token("viewer"), "the token has the role viewer, and this needs forensic"),
        (token("responder"), "the token has the role responder, and this needs forensic"),
        (token("nobody"), "the token is not known here"),
        ("none".to_owned(), "a token is needed"),
    ] {
        let (is_answered, said) = told(&shown);
        assert!(!is_answered && said.contains(why), "{said}");
    }
    service.stop();
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}
