//! The demo as a stranger runs it, and that judging a run while it is simulated tells what `replay` tells of its folder.

#![expect(unused_crate_dependencies, reason = "what this target does not use serves another one of the package")]

use std::io;
use std::path::Path;
use std::process::{Command, Output};

use trainwarden::demo::screen::Screen;
use trainwarden::demo::{play, script};
use trainwarden::fast_forward::{Moment, Watch, fast_forward};
use trainwarden::output::{COLUMNS, Style, write_changes, write_json};
use trainwarden::replay::{Findings, replay};
use trainwarden::simulation::{read_scenario, write};
use trainwarden_ingest::Format;
use trainwarden_simulate::Scenario;
use trainwarden_telemetry::Change;

fn demo(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_trainwarden"));
    command.arg("demo").args(arguments).output().expect("the binary was built")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("output is text")
}

/// Sees the changes in the order in which they are told.
#[derive(Default)]
struct Changes(Vec<Change>);

impl Watch for Changes {
    fn step(&mut self, _: Moment) -> io::Result<()> {
        Ok(())
    }

    fn change(&mut self, _: Moment, change: &Change) -> io::Result<()> {
        self.0.push(change.clone());
        Ok(())
    }
}

fn json(findings: &Findings) -> (String, String) {
    let (mut incidents, mut changes) = (Vec::new(), Vec::new());
    write_json(&mut incidents, &findings.incidents).expect("memory takes bytes");
    write_changes(&mut changes, &findings.changes).expect("memory takes bytes");
    let text = |bytes| String::from_utf8(bytes).expect("JSON is text");
    (text(incidents), text(changes))
}

/// Asserts that a scenario judged while it runs and as a folder gives the same bytes, and something to compare.
fn assert_agrees(name: &str, scenario: &Scenario) {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    write(scenario, dir.path(), Format::Parquet).expect("a temporary folder takes files");
    let (replayed, _) = replay(&[dir.path().to_owned()], None).expect("the folder was just written");
    let mut seen = Changes::default();
    let judged = fast_forward(scenario, &mut seen).expect("the watch does not fail");
    assert!(!replayed.incidents.is_empty(), "{name}");
    assert_eq!(json(&judged), json(&replayed), "{name}");
    assert_eq!(seen.0, judged.changes, "{name}");
    assert_eq!((judged.counts, &judged.rows), (replayed.counts, &replayed.rows), "{name}");
}

#[test]
fn a_run_judged_while_it_is_simulated_gives_the_bytes_of_its_replayed_folder() {
    let one_launch = ["two_faults", "hang", "silence", "slow_link", "weight_edit", "nonfinite", "heavy_tails"];
    // Launches after the first have rosters and communicators of their own, and liars come out of order.
    let several = ["kills", "checkpoint_swap", "environment_change"];
    for name in one_launch.iter().chain(&several).chain(&["code_change", "backdate"]) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/scenarios/{name}.toml"));
        assert_agrees(name, &read_scenario(&path).expect("the scenario is in the repository"));
    }
    let (scenario, _) = script::own(64, 4).expect("the demo's scenario is right");
    assert_agrees("the demo of 64 ranks", &scenario);
}

#[test]
fn with_64_ranks_and_three_seeds_all_six_faults_are_found_and_nothing_else_is_told() {
    for seed in 1..=3 {
        let (scenario, planted) = script::own(64, seed).expect("the demo's scenario is right");
        let mut text = Vec::new();
        let mut screen = Screen::new(&mut text, Style::Plain, false);
        let played = play(&scenario, &planted, &mut screen).expect("memory takes bytes");
        let score = played.score(&planted);
        assert_eq!((score.found(), score.missed(), score.false_ones.len()), (6, 0, 0), "seed {seed}: {score:?}");
    }
}

#[test]
fn in_a_pipe_the_demo_is_plain_lines_of_80_columns_that_are_the_same_every_time() {
    let steady = |output: &Output| {
        let text = stdout(output);
        text.lines().filter(|line| !line.contains("a second")).map(str::to_owned).collect::<Vec<_>>()
    };
    let (first, second) = (demo(&["--ranks", "16", "--seed", "5"]), demo(&["--ranks", "16", "--seed", "5"]));
    assert_eq!(first.status.code(), Some(0), "{}", stdout(&first));
    assert_eq!(steady(&first), steady(&second));
    let text = stdout(&first);
    assert!(text.contains("6 of 6 found, 0 missed, 0 false"), "{text}");
    assert!(text.chars().all(|letter| letter == '\n' || !letter.is_control()), "{text:?}");
    assert!(text.lines().all(|line| line.chars().count() <= COLUMNS), "{text}");
}

#[test]
fn json_is_one_object_and_a_scenario_file_can_be_played() {
    let file = format!("{}/tests/scenarios/two_faults.toml", env!("CARGO_MANIFEST_DIR"));
    let output = demo(&["--scenario", &file, "--json"]);
    assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));
    let score: serde_json::Value = serde_json::from_slice(&output.stdout).expect("standard output is one JSON object");
    assert_eq!((&score["found"], &score["missed"], &score["false"]), (&2.into(), &0.into(), &0.into()), "{score}");
    assert_eq!(score["faults"][0]["told"]["incident"]["kind"], "slowdown.rank");
}

#[test]
fn a_fault_that_nobody_finds_is_told_and_fails() {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let file = dir.path().join("early.toml");
    // A fault in the very last step cannot be seen any more.
    let fault = "[[fault]]\nkind = 'slow_rank'\nonset_step = 79\nranks = [3]\nsize = 0.05";
    let text = format!("run = 'r'\nseed = 1\nsteps = 80\n[cluster]\ndp = 8\n{fault}");
    std::fs::write(&file, text).expect("a temporary folder takes files");
    let output = demo(&["--scenario", file.to_str().expect("temporary paths are text")]);
    assert_eq!(output.status.code(), Some(1), "{}", stdout(&output));
    assert!(stdout(&output).contains("MISSED: no slowdown.rank"), "{}", stdout(&output));
}

#[test]
fn ranks_that_do_not_divide_are_wrong_usage() {
    let output = demo(&["--ranks", "66"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("multiple of 4"));
}
