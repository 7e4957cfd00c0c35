//! `doctor` as a person runs it: before the first start, beside a running service, and where something is wrong.

#![expect(unused_crate_dependencies, reason = "what this target does not use serves another one of the package")]

use std::path::Path;
use std::process::{Command, Output};

use crate::service::Service;

mod recorded;
mod service;

fn doctor(config: &Path, text: &str) -> Output {
    std::fs::write(config, text).expect("written");
    let mut doctor = Command::new(env!("CARGO_BIN_EXE_trainwarden"));
    doctor.args(["doctor", "--config"]).arg(config).output().expect("the binary was built")
}

fn shown(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("it prints text")
}

#[test]
fn before_the_first_start_nothing_is_wrong_and_nothing_is_made() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let data = dir.path().join("data");
    let output =
        doctor(&dir.path().join("c.toml"), &format!("data = \"{}\"\nlisten = \"127.0.0.1:0\"\n", data.display()));
    let shown = shown(&output);
    assert_eq!(output.status.code(), Some(0), "{shown}");
    for group in ["clock", "disk", "keys", "port", "state", "limits"] {
        assert!(shown.lines().any(|line| line.split_whitespace().nth(1) == Some(group)), "{group}: {shown}");
    }
    assert!(!data.exists());
}

#[test]
fn a_running_service_is_known_and_a_port_of_another_one_is_wrong() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let mut service = Service::start(&dir.path().join("data"), &[]);
    let config = dir.path().join("c.toml");
    let of = |data: &str| format!("data = \"{}\"\nlisten = \"{}\"\n", dir.path().join(data).display(), service.url());
    let (ours, another) = (of("data"), of("other"));
    let output = doctor(&config, &ours);
    let text = shown(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("is that of the running service of this folder"), "{text}");
    assert!(text.contains("a service of this folder runs at"), "{text}");
    let output = doctor(&config, &another);
    let text = shown(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("a service of another data folder answers there"), "{text}");
    service.kill();
    let text = shown(&doctor(&config, &ours));
    assert!(text.contains("it did not stop in peace"), "{text}");
}

#[test]
fn a_configuration_that_is_wrong_is_usage() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let output = doctor(&dir.path().join("c.toml"), "[[ingest.keys]]\nsender = \"n1\"\nkey = \"abcd\"\n");
    assert_eq!(output.status.code(), Some(2), "{}", shown(&output));
    assert!(String::from_utf8_lossy(&output.stderr).contains("32 bytes"));
}
