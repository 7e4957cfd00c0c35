//! How fast a large cluster is simulated and written: 8,192 ranks x 1,000 steps of twelve metrics a rank.
//!
//! 8,192 ranks because the largest public jobs have so many. Logged are times of work and of the step, norm and direction
//! of the gradient, loss, and six counters of the device: twelve metrics a rank, as Parquet.
//!
//! Run: `cargo bench --bench simulate`

#![expect(unused_crate_dependencies, reason = "what this target does not use serves another one of the package")]

mod child;

use std::fs;

const RANKS: u64 = 8_192;
const STEPS: u64 = 1_000;
/// Metrics of each rank and step, the loss of its replica among them.
const METRICS: u64 = 12;
/// Metrics of the whole run in each step.
const METRICS_OF_RUN: u64 = 7;
/// Code, configuration and environment, told at the start and every 20 steps.
const ENVIRONMENT_ROWS: u64 = 3 * STEPS / 20;
/// Start and end, ten evaluations with two marks each, twenty checkpoints with four rows each.
const MARKS: u64 = 2 + 10 * 2 + 20 * 4;
/// Placement and membership of a rank.
const ROSTER_ROWS: u64 = 2;

fn main() {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let (scenario, out) = (dir.path().join("large.toml"), dir.path().join("large"));
    let text = format!(
        "run = 'large'\nseed = 1\nsteps = {STEPS}\n[cluster]\ndp = {RANKS}\n[telemetry]\ncollectives = false\n\
         batches = false\nweights_every = 0\ncounters = true\n"
    );
    fs::write(&scenario, text).expect("a temporary folder takes files");
    let [scenario, out] = [scenario, out].map(|path| path.to_string_lossy().into_owned());
    let child = child::run(&["simulate", "--scenario", &scenario, "--out", &out]);
    let words = child.stdout.split_whitespace();
    let rows =
        words.filter_map(|word| word.parse::<u64>().ok()).max().expect("the command tells how many rows it wrote");
    println!("simulate: {rows} rows written in {child}");
    let of_ranks = RANKS * (STEPS * METRICS + ENVIRONMENT_ROWS + ROSTER_ROWS);
    assert_eq!(rows, of_ranks + STEPS * METRICS_OF_RUN + MARKS, "rows are missing or too many");
}
