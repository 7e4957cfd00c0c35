//! The prompt at a real terminal: `prompt.py` sits there, presses tab, Ctrl-C and Ctrl-D, and comes back the next day.

use std::path::Path;

use crate::flight::{journal, python};
use crate::service::Service;
use crate::{archived, text};

fn sit(service: u32, arguments: &[&str]) {
    let state = tempfile::tempdir().expect("a folder");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sql/prompt.py");
    let mut command = python(&script);
    command.args([env!("CARGO_BIN_EXE_trainwarden"), text(state.path()), &service.to_string()]).args(arguments);
    let output = command.output().expect("Python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_person_completes_asks_interrupts_and_comes_back() {
    let dir = archived(&["slow_rank_5"]);
    sit(0, &["--data", text(dir.path())]);
    assert!(journal(dir.path()).iter().any(|line| line["error"] == "the question was cancelled"));
}

#[test]
fn ctrl_c_ends_the_question_in_the_service_too() {
    let dir = archived(&["slow_rank_5"]);
    let mut service = Service::start(dir.path(), &[]);
    sit(service.pid(), &["--url", &service.url()]);
    let cancelled = journal(dir.path()).into_iter().filter(|line| line["error"] == "the question was cancelled");
    assert_eq!(cancelled.map(|line| line["from"].clone()).collect::<Vec<_>>(), ["http"]);
    assert!(service.is_running());
    service.stop();
}
