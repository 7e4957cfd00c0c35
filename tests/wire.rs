//! What a service tells of run folders that were sent is what `replay` tells of them, whatever happens on the way.

#![expect(unused_crate_dependencies, reason = "what this target does not use serves another one of the package")]

use std::path::Path;

use trainwarden::config::ImpactConfig;
use trainwarden::incident_list::sorted;
use trainwarden::partition_judge::PartitionJudge;
use trainwarden::replay::replay;
use trainwarden::simulation::{read_scenarios, write};
use trainwarden_ingest::Format;
use trainwarden_simulate::Scenario;

use crate::frames::{admission, frames_of, records, stretches, told};
use crate::recorded::{drawn, json, shuffled};

mod frames;
mod recorded;

/// Tests side by side; each takes the scenarios of its share.
const SHARES: usize = 2;
/// Kills of each scenario.
const KILLS: u32 = 3;

/// One folder, and what is told of it.
struct Case {
    name: String,
    seed: u64,
    frames: Vec<Vec<u8>>,
    whole: String,
}

impl Case {
    fn of_folder(name: &str, seed: u64, folder: &Path) -> Self {
        let (findings, _) = replay(&[folder.to_owned()], None).expect("the folder replays");
        Self { name: name.to_owned(), seed, frames: frames_of(folder), whole: json(&findings.incidents) }
    }

    fn of(name: &str, scenario: &Scenario) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        write(scenario, dir.path(), Format::Parquet).expect("a temporary folder takes files");
        Self::of_folder(name, scenario.seed, dir.path())
    }

    fn hold(&self) {
        let straight = records(&self.frames);
        assert_eq!(told(&straight, &[], 1_000), self.whole, "{} as it was sent", self.name);
        let mixed = self.mixed();
        let mut kills: Vec<usize> = (0..KILLS).map(|turn| drawn(&(0..mixed.len()), self.seed, turn)).collect();
        kills.sort_unstable();
        kills.dedup();
        let mixed = records(&mixed);
        assert_eq!(told(&mixed, &kills, 37), self.whole, "{} shuffled, and killed at {kills:?}", self.name);
    }

    /// The frames with those in a stretch shuffled, and everything sent a second time.
    fn mixed(&self) -> Vec<Vec<u8>> {
        let mut mixed = Vec::new();
        for stretch in stretches(&self.frames) {
            mixed.extend(shuffled(&self.frames[stretch.clone()], self.seed + stretch.start as u64));
        }
        assert_eq!(mixed.len(), self.frames.len());
        let again = self.frames.clone();
        mixed.into_iter().chain(again).collect()
    }
}

fn hold_share(share: usize) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let scenarios = read_scenarios(&dir).expect("the scenarios read");
    // Faults only: what is told of a healthy run is nothing, on any way.
    let faulty = scenarios.iter().filter(|(name, _)| !name.ends_with("_healthy"));
    for (_, (name, scenario)) in faulty.enumerate().filter(|(index, _)| index % SHARES == share) {
        Case::of(name, scenario).hold();
    }
}

#[test]
fn frames_tell_what_folders_tell_first_share() {
    hold_share(0);
}

#[test]
fn frames_tell_what_folders_tell_second_share() {
    hold_share(1);
}

/// Real logs: how they are imported, and which file of the corpus.
const REAL: [(&str, &str); 3] = [
    ("trace", "ranks/bytedance/trace_AR.csv.gz"),
    ("wide", "train/golf_nan/behemoth_v10.csv"),
    ("trace", "ranks/alibaba_minibatch/job_1.csv.gz"),
];

#[test]
fn real_logs_tell_the_same_as_frames() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/real");
    for (kind, file) in REAL {
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        let import = std::process::Command::new(env!("CARGO_BIN_EXE_trainwarden"))
            .args(["import", kind])
            .arg(corpus.join(file))
            .arg("--out")
            .arg(dir.path())
            .output()
            .expect("the binary was built");
        assert!(import.status.success(), "{file}: {}", String::from_utf8_lossy(&import.stderr));
        let case = Case::of_folder(file, 1, dir.path());
        assert!(!case.whole.is_empty(), "{file} has an incident");
        case.hold();
    }
}

#[test]
fn with_the_same_price_frames_and_folders_cost_the_same() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let scenario = read_scenarios(&folder).expect("scenarios are there").remove("slow_rank_30").expect("and this one");
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    write(&scenario, dir.path(), Format::Parquet).expect("a temporary folder takes files");
    let impact = ImpactConfig { gpu_hour_price: Some(2.5), ..ImpactConfig::default() };
    let (mut findings, _) = replay(&[dir.path().to_owned()], None).expect("the folder replays");
    findings.price(&impact);
    let mut judge = PartitionJudge::new(0).priced(&impact);
    records(&frames_of(dir.path())).iter().for_each(|record| judge.take(record, &admission()));
    let commit = judge.take_snapshot(usize::MAX).expect("a state serialises");
    let lines: Vec<String> = commit.incidents.into_iter().map(|row| row.json).collect();
    let incidents = sorted(&lines).expect("they are incidents");
    assert_eq!(json(&incidents), json(&findings.incidents));
    assert!(incidents[0].impact.as_ref().is_some_and(|impact| impact.cost.is_some()), "{incidents:?}");
    assert!(commit.changes.iter().any(|change| change.json.contains("\"currency\":\"USD\"")));
}
