//! Whether the demo keeps its promise, and what it costs: six faults found, none missed, nothing false, with each of
//! many seeds, on a small, a usual and a large cluster.
//!
//! 64 ranks are the smallest cluster with pipeline stages, 4,096 the demo's own, 16,384 the largest public jobs; fewer
//! seeds there, because a run takes minutes of CPU time.
//!
//! Run: `cargo bench --bench demo`, or `cargo bench --bench demo -- RANKS FIRST_SEED LAST_SEED` for a part of it.

#![expect(unused_crate_dependencies, reason = "what this target does not use serves another one of the package")]

mod child;

/// Ranks, first seed and last seed of each row of the table.
const SWEEP: [(u32, u64, u64); 4] = [(64, 1, 20), (1_024, 1, 20), (4_096, 1, 20), (16_384, 1, 3)];

fn main() {
    let given: Vec<u64> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let sweep = match *given {
        [ranks, first, last] => vec![(ranks as u32, first, last)],
        _ => SWEEP.to_vec(),
    };
    println!("  ranks   seeds  found missed  false   CPU s    wall s      MiB   M points/s   slowest telling");
    let mut is_clean = true;
    for (ranks, first, last) in sweep {
        is_clean &= row(ranks, first, last);
    }
    assert!(is_clean, "a fault was missed, or something else was told");
}

/// Plays the seeds from `first` to `last` and prints what they add up to; times and memory are the largest.
fn row(ranks: u32, first: u64, last: u64) -> bool {
    let mut sums = [0; 3];
    let (mut cpu_s, mut wall_s, mut peak_mib, mut points_s, mut after_s) =
        (0.0_f64, 0.0_f64, 0.0_f64, f64::INFINITY, 0.0_f64);
    for seed in first..=last {
        let child = child::run(&["demo", "--ranks", &ranks.to_string(), "--seed", &seed.to_string(), "--json"]);
        let score: serde_json::Value = serde_json::from_str(&child.stdout).expect("the demo prints one JSON object");
        let counts = ["found", "missed", "false"].map(|name| score[name].as_u64().expect("a count"));
        for (sum, count) in sums.iter_mut().zip(counts) {
            *sum += count;
        }
        if counts != [6, 0, 0] {
            println!("{ranks} ranks, seed {seed}: {score}");
        }
        cpu_s = cpu_s.max(child.cpu_s);
        wall_s = wall_s.max(child.wall_s);
        peak_mib = peak_mib.max(child.peak_mib);
        points_s = points_s.min(score["points"].as_f64().expect("a count") / child.wall_s / 1e6);
        let faults = score["faults"].as_array().expect("a list of faults");
        after_s = faults.iter().filter_map(|fault| fault["told"]["after_s"].as_f64()).fold(after_s, f64::max);
    }
    let (seeds, [found, missed, wrong]) = (format!("{first}-{last}"), sums);
    println!(
        "{ranks:>7} {seeds:>7} {found:>6} {missed:>6} {wrong:>6} {cpu_s:>7.1} {wall_s:>9.1} {peak_mib:>8.0} \
         {points_s:>12.2} {after_s:>15.0} s"
    );
    missed + wrong == 0
}
