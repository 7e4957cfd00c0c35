//! The notebooks in `docs/notebooks/`, executed anew: what they print is what is kept in them.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use trainwarden::simulation::{read_scenario, write};
use trainwarden_ingest::Format;

use crate::flight::python;
use crate::service::{Service, replayed, send_to, wait_told, wait_until};
use crate::{text, told};

fn notebooks() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/notebooks")
}

/// Executes a notebook, with this program as `trainwarden`.
fn execute(name: &str, service: &str) {
    let scratch = tempfile::tempdir().expect("a folder");
    let program = Path::new(env!("CARGO_BIN_EXE_trainwarden")).parent().expect("it lies in a folder").to_owned();
    let path = env::var_os("PATH").unwrap_or_default();
    let paths = [program].into_iter().chain(env::split_paths(&path));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sql/notebook.py");
    let output = python(&script)
        .arg(notebooks().join(name))
        .env("SERVICE", service)
        .env("PATH", env::join_paths(paths).expect("a path without a colon"))
        .env("JUPYTER_RUNTIME_DIR", scratch.path())
        .env("IPYTHONDIR", scratch.path())
        .env("MPLCONFIGDIR", scratch.path())
        .output()
        .expect("Python starts");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{name}: {said}");
}

#[test]
fn the_notebook_on_a_slow_rank_finds_it_through_a_running_service() {
    let dir = tempfile::tempdir().expect("a folder");
    let runs = dir.path().join("runs");
    let scenario = read_scenario(&notebooks().join("slow_rank.toml")).expect("a scenario");
    write(&scenario, &runs.join("llm-7b"), Format::Parquet).expect("written");
    let config = dir.path().join("config.toml");
    fs::write(&config, "[archive]\npart_bytes_max = 1048576\n").expect("written");
    let mut service = Service::start(&dir.path().join("data"), &["--config", text(&config)]);
    send_to(&runs, &service.url());
    wait_told(&service, &replayed(&runs));
    // As many steps as the notebook looks at.
    let question = "select count(*) as n from samples where step < 400";
    let folder = runs.join("llm-7b");
    let all = told(&["-q", "--format", "csv", "--run-folder", text(&folder), "-c", question]);
    wait_until("the steps are archived", || service.ask(question, "text/csv") == (200, all.clone().into_bytes()));
    execute("slow_rank.ipynb", &service.url());
    service.stop();
}

#[test]
fn the_notebook_on_real_launches_that_end_in_nan_needs_no_service() {
    execute("nan_launches.ipynb", "nowhere");
}

#[test]
fn notebooks_are_small_and_tell_of_no_machine() {
    let entries = fs::read_dir(notebooks()).expect("there are notebooks").map(|entry| entry.expect("an entry").path());
    let found: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|end| end == "ipynb")).collect();
    assert_eq!(found.len(), 2, "{found:?}");
    let root = env!("CARGO_MANIFEST_DIR");
    for path in found {
        let kept = fs::read_to_string(&path).expect("text");
        assert!(kept.len() < 500_000, "{}: {} bytes", path.display(), kept.len());
        for private in [root, "/home/", "/root/", "/tmp/", "site-packages"] {
            assert!(!kept.contains(private), "{}: {private}", path.display());
        }
    }
}
