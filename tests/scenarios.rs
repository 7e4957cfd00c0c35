//! Every file in `tests/scenarios` is a test case: what was planted is found, and nothing else.

#![expect(unused_crate_dependencies, reason = "what this target does not use serves another one of the package")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use trainwarden::replay::replay;
use trainwarden::scorecard::{is_found, is_told};
use trainwarden::simulation::{TRUTH_FILE, read_scenario, write};
use trainwarden_ingest::Format;
use trainwarden_simulate::{Scenario, Truth};
use trainwarden_telemetry::Incident;

/// What the name of a healthy twin ends in.
const TWIN: &str = "_healthy";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios")
}

/// The names of all scenarios, sorted.
fn names() -> Vec<String> {
    let files = fs::read_dir(folder()).expect("the scenarios are in the repository");
    let stem = |path: PathBuf| path.file_stem().expect("a scenario has a name").to_string_lossy().into_owned();
    let names: BTreeSet<String> = files.map(|file| stem(file.expect("the folder can be read").path())).collect();
    names.into_iter().collect()
}

fn scenario(name: &str) -> Scenario {
    read_scenario(&folder().join(format!("{name}.toml"))).unwrap_or_else(|error| panic!("{name}: {error:#}"))
}

/// The truth as written, and the incidents at warning or above, without those merged into another.
fn judged(scenario: &Scenario) -> (Truth, Vec<Incident>) {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    write(scenario, dir.path(), Format::Parquet).expect("a temporary folder takes files");
    let text = fs::read_to_string(dir.path().join(TRUTH_FILE)).expect("the truth was just written");
    let truth = serde_json::from_str(&text).expect("the truth is JSON");
    let (findings, rejects) = replay(&[dir.path().to_owned()], None).expect("the folder was just written");
    assert_eq!(rejects.count(), 0, "{:?}", rejects.summary());
    assert_eq!((findings.counts.late, findings.counts.conflicting), (0, 0), "{}", scenario.run);
    assert!(findings.errors.is_empty(), "{:?}", findings.errors);
    (truth, findings.incidents.into_iter().filter(is_told).collect())
}

fn told(incidents: &[Incident]) -> String {
    let line = |incident: &Incident| format!("{} {}: {}", incident.severity, incident.kind, incident.summary);
    incidents.iter().map(line).collect::<Vec<_>>().join("; ")
}

/// What is wrong with the judgement of these scenarios, a line each.
fn wrong(names: &[String]) -> String {
    let mut wrong = Vec::new();
    for name in names {
        let (truth, incidents) = judged(&scenario(name));
        let missed = truth.faults.iter().filter(|fault| !incidents.iter().any(|incident| is_found(fault, incident)));
        wrong.extend(missed.map(|fault| format!("{name}: missed {fault:?}, told {}", told(&incidents))));
        let is_false = |incident: &&Incident| !truth.faults.iter().any(|fault| is_found(fault, incident));
        let false_ones: Vec<Incident> = incidents.iter().filter(is_false).cloned().collect();
        if !false_ones.is_empty() {
            wrong.push(format!("{name}: false {}", told(&false_ones)));
        }
    }
    wrong.join("\n")
}

#[test]
fn every_planted_fault_is_found_with_its_kind_and_its_rank_and_nothing_else_is() {
    let faulty: Vec<String> = names().into_iter().filter(|name| !name.ends_with(TWIN)).collect();
    assert_eq!(wrong(&faulty), "");
}

#[test]
fn in_a_healthy_twin_nothing_is_found() {
    let healthy: Vec<String> = names().into_iter().filter(|name| name.ends_with(TWIN)).collect();
    assert_eq!(wrong(&healthy), "");
}

#[test]
fn every_faulty_scenario_has_a_healthy_twin_that_differs_in_the_faults_alone() {
    let names = names();
    let faulty: Vec<&String> = names.iter().filter(|name| !name.ends_with(TWIN)).collect();
    assert!(faulty.len() >= 8 && names.len() == 2 * faulty.len(), "{names:?}");
    for name in faulty {
        let (mut with_fault, twin) = (scenario(name), scenario(&format!("{name}{TWIN}")));
        assert!(!with_fault.faults.is_empty() && twin.faults.is_empty(), "{name}");
        with_fault.faults.clear();
        with_fault.run = twin.run.clone();
        assert_eq!(with_fault, twin, "{name}");
    }
}
