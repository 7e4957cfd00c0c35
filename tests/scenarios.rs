//! Every file in `tests/scenarios` is a test case: what was planted is found, and nothing else.

#![expect(unused_crate_dependencies, reason = "what this target does not use serves another one of the package")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use trainwarden::quality::TWIN;
use trainwarden::scorecard::{Scorecard, is_found, judged};
use trainwarden::simulation::{TRUTH_FILE, read_scenarios, write};
use trainwarden_ingest::Format;
use trainwarden_simulate::{Scenario, Truth};
use trainwarden_telemetry::Incident;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios")
}

fn scenarios() -> BTreeMap<String, Scenario> {
    read_scenarios(&folder()).unwrap_or_else(|error| panic!("{error:#}"))
}

fn told<'a>(incidents: impl IntoIterator<Item = &'a Incident>) -> String {
    let line = |incident: &Incident| format!("{} {}: {}", incident.severity, incident.kind, incident.summary);
    incidents.into_iter().map(line).collect::<Vec<_>>().join("; ")
}

/// What is wrong with the judgement of these scenarios, a line each.
fn wrong(is_wanted: impl Fn(&str) -> bool) -> String {
    let mut wrong = Vec::new();
    for (name, scenario) in scenarios().into_iter().filter(|(name, _)| is_wanted(name)) {
        let (truth, findings) = judged(&scenario).unwrap_or_else(|error| panic!("{name}: {error:#}"));
        assert_eq!((findings.counts.late, findings.counts.conflicting), (0, 0), "{name}");
        assert!(findings.errors.is_empty(), "{name}: {:?}", findings.errors);
        let card = Scorecard::of(&truth, &findings.incidents);
        for (fault, alarm) in &card.faults {
            if !alarm.is_some_and(|alarm| is_found(fault, alarm)) {
                wrong.push(format!("{name}: missed {fault:?}, told {}", told(&findings.incidents)));
            }
        }
        if !card.extras.is_empty() {
            wrong.push(format!("{name}: false {}", told(card.extras)));
        }
    }
    wrong.join("\n")
}

#[test]
fn every_planted_fault_is_found_with_its_kind_and_its_rank_and_nothing_else_is() {
    assert_eq!(wrong(|name| !name.ends_with(TWIN)), "");
}

#[test]
fn in_a_healthy_twin_nothing_is_found() {
    assert_eq!(wrong(|name| name.ends_with(TWIN)), "");
}

#[test]
fn every_faulty_scenario_has_a_healthy_twin_that_differs_in_the_faults_alone() {
    let scenarios = scenarios();
    let faulty: Vec<&String> = scenarios.keys().filter(|name| !name.ends_with(TWIN)).collect();
    assert!(faulty.len() >= 8 && scenarios.len() == 2 * faulty.len(), "{:?}", scenarios.keys());
    for name in faulty {
        let (mut with_fault, twin) = (scenarios[name].clone(), &scenarios[&format!("{name}{TWIN}")]);
        assert!(!with_fault.faults.is_empty() && twin.faults.is_empty(), "{name}");
        with_fault.faults.clear();
        with_fault.run = twin.run.clone();
        assert_eq!(with_fault, *twin, "{name}");
    }
}

#[test]
fn the_truth_is_written_beside_the_tables() {
    let scenario = &scenarios()["two_faults"];
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    write(scenario, dir.path(), Format::Parquet).expect("a temporary folder takes files");
    let text = fs::read_to_string(dir.path().join(TRUTH_FILE)).expect("the truth was just written");
    let truth: Truth = serde_json::from_str(&text).expect("the truth is JSON");
    assert_eq!((truth.faults.len(), truth), (2, Truth::of(scenario)));
}
