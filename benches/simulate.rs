//! How fast a large cluster is simulated and written: 8,192 ranks x 1,000 steps of ten metrics a rank and more.
//!
//! 8,192 ranks because the largest public jobs have so many. Logged are times of work and of the step, norm and direction
//! of the gradient, and six counters of the device: eleven metrics a rank, as Parquet.
//!
//! Run: `cargo bench --bench simulate`

#![expect(unused_crate_dependencies, reason = "what this target does not use serves another one of the package")]

mod child;

use std::fs;

const RANKS: u64 = 8_192;
const STEPS: u64 = 1_000;
/// Metrics of each rank and step.
const METRICS: u64 = 11;

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
    // Beside the metrics of each step there are losses, digests, placements and members.
    assert!(rows >= RANKS * STEPS * METRICS, "rows are missing: {rows}");
}
