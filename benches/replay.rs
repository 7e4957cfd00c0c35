//! How fast `replay` is on a large run, and that its answer is right: 8,192 ranks x 1,000 steps of `step_time_s`.
//!
//! 8,192 ranks because the largest public jobs have so many; 1,000 steps because the faults of the workload need them.
//! The workload is in `w8k/workload.rs`. CPU seconds and the peak of resident memory are those of the child process.
//!
//! ```sh
//! cargo bench --bench replay                           # three times the same log, and its median
//! cargo bench --bench replay -- --seeds 1,2,3,4,5      # other random numbers; --ranks 1024 for a smaller run
//! cargo bench --bench replay -- --dump FILE --seeds 7  # the times alone: f64, little endian, step by step
//! ```

#![expect(unused_crate_dependencies, reason = "what this target does not use serves another one of the package")]

mod child;
#[path = "w8k/workload.rs"]
mod workload;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use trainwarden_ingest::{FolderWriter, Format, SampleOut};
use workload::{CLASSES, STEPS, Workload};

/// Of 64 ranks of a class, so many must be named: what a two-stage script of NumPy finds, and 56 where it is luckier.
const NAMED_MIN: [usize; 4] = [64, 64, 64, 56];

struct Options {
    ranks: u32,
    seeds: Vec<u64>,
    dump: Option<PathBuf>,
}

/// Reads the command line; `cargo bench` adds `--bench`.
fn options() -> Options {
    let mut options = Options { ranks: 8_192, seeds: Vec::new(), dump: None };
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    while let Some(argument) = arguments.next() {
        let value = arguments.next().unwrap_or_else(|| panic!("`{argument}` wants a value"));
        match argument.as_str() {
            "--ranks" => options.ranks = value.parse().expect("`--ranks` is a number"),
            "--seeds" => {
                options.seeds = value.split(',').map(|seed| seed.parse().expect("a seed is a number")).collect()
            }
            "--dump" => options.dump = Some(PathBuf::from(value)),
            _ => panic!("unknown option `{argument}`: `--ranks`, `--seeds` or `--dump`"),
        }
    }
    options
}

fn main() {
    let Options { ranks, seeds, dump } = options();
    let first = Workload { ranks, seed: seeds.first().copied().unwrap_or(7) };
    if let Some(path) = dump {
        return write_times(first, &path);
    }
    if seeds.is_empty() {
        return measure(first);
    }
    for seed in seeds {
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        let workload = Workload { ranks, seed };
        write_folder(workload, dir.path());
        let (child, incidents) = replay(dir.path());
        println!("{child}");
        assert_answer(workload, &incidents);
    }
}

/// Replays one log three times.
fn measure(workload: Workload) {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    write_folder(workload, dir.path());
    let mut figures = Vec::new();
    for _ in 0..3 {
        let (child, incidents) = replay(dir.path());
        assert_answer(workload, &incidents);
        figures.push(child);
    }
    figures.sort_by(|one, other| one.cpu_s.total_cmp(&other.cpu_s));
    let points = f64::from(workload.ranks) * STEPS as f64;
    let [least, median, most] = [0, 1, 2].map(|place| &figures[place]);
    println!("replay of {points:.0} points: {median} (median of 3; {least}; {most})");
    println!("{:.2} M points per CPU s", points / median.cpu_s / 1e6);
}

fn write_folder(workload: Workload, dir: &Path) {
    let mut writer = FolderWriter::create(dir, Format::Parquet).expect("a temporary folder takes files");
    workload.each_step(|step, values| {
        for (rank, value) in (0..).zip(values) {
            let time = Some(step as i64 * 250_000_000 + i64::from(rank) * 1_000);
            let row = SampleOut {
                run: "w8k",
                attempt: 0,
                rank: Some(rank),
                step: Some(step),
                time,
                metric: "step_time_s",
                value: *value,
            };
            writer.sample(&row).expect("a temporary folder takes rows");
        }
    });
    writer.finish().expect("a temporary folder takes files");
}

fn write_times(workload: Workload, path: &Path) {
    let mut file = BufWriter::new(fs::File::create(path).expect("the file can be made"));
    workload.each_step(|_, values| {
        values.iter().for_each(|value| file.write_all(&value.to_le_bytes()).expect("the file takes bytes"));
    });
    file.flush().expect("the file takes bytes");
}

/// Runs the binary; gives what it took, and the incidents.
fn replay(dir: &Path) -> (child::Metered, Vec<serde_json::Value>) {
    let child = child::run(&["replay", dir.to_str().expect("temporary paths are text"), "--json"]);
    let incidents = child.stdout.lines().map(|line| serde_json::from_str(line).expect("a line is an incident"));
    let incidents = incidents.collect();
    (child, incidents)
}

/// No clean rank is named at `warning` or above, and of each class of faults as many as the workload's page wants.
fn assert_answer(workload: Workload, incidents: &[serde_json::Value]) {
    let alarms = incidents.iter().filter(|incident| incident["severity"] != "info");
    let suspects = alarms.filter_map(|incident| incident["suspects"].as_array()).flatten();
    let ranks = suspects.filter_map(|suspect| suspect["rank"].as_u64()).filter_map(|rank| u32::try_from(rank).ok());
    let named: BTreeSet<u32> = ranks.collect();
    let found = |class| named.iter().filter(|rank| Workload::class_of(**rank) == class).count();
    let counts: [usize; 4] = std::array::from_fn(|class| found(Some(class)));
    let (clean, planted) = (found(None), workload.ranks_of_class());
    let words: Vec<String> = CLASSES.iter().zip(counts).map(|(class, count)| format!("{class} {count}")).collect();
    let seed = workload.seed;
    println!("seed {seed}: named of {planted} each: {}; of the clean: {clean}", words.join(", "));
    assert_eq!(clean, 0, "clean ranks are named");
    // In a smaller run the pauses of an eighth of the ranks cost less than 2 % of the time, and that is information.
    if planted < 64 {
        return;
    }
    for ((class, count), least) in CLASSES.iter().zip(counts).zip(NAMED_MIN) {
        assert!(64 * count >= least * planted, "{class}: {count} of {planted}");
    }
}
