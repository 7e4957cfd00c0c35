//! How fast `replay` is on a large run, and that its answer is right: 8,192 ranks x 1,000 steps of `step_time_s`.
//!
//! 8,192 ranks because the largest public jobs have so many; 1,000 steps because the faults of the workload need them.
//! The workload is W8k of the peers' comparison, rebuilt from its description (own random numbers): base 250 ms, rank
//! skew 0.5 %, common wave 1 %, AR(1) noise 2.1 % (phi 0.3), all ranks +25 % on steps 700 to 705; from step 500 on 64
//! ranks each are +10 %, drift to +10 %, have three points of +40 %, or are +3 %.
//! CPU seconds and the peak of resident memory are those of the child process.
//!
//! Run: `cargo bench --bench replay`

#![expect(unused_crate_dependencies, reason = "what this target does not use serves another one of the package")]

mod child;

use std::collections::BTreeSet;
use std::path::Path;

use trainwarden_ingest::{FolderWriter, Format, SampleOut};

const RANKS: u32 = 8_192;
const STEPS: u64 = 1_000;
const FAULT_STEP: u64 = 500;
/// Ranks of each class of faults: every 128th, classes side by side.
const STRIDE: u32 = 128;

fn main() {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    write_workload(dir.path());
    let mut figures = Vec::new();
    for _ in 0..3 {
        let (cpu_s, peak_mib, incidents) = replay(dir.path());
        assert_answer(&incidents);
        figures.push((cpu_s, peak_mib));
    }
    figures.sort_by(|one, other| one.0.total_cmp(&other.0));
    let (cpu_s, peak_mib) = figures[1];
    let points = f64::from(RANKS) * STEPS as f64;
    println!("replay of {points:.0} points: {cpu_s:.2} CPU s (median of 3: {figures:?}), {peak_mib:.0} MiB at most");
    println!("{:.2} M points per CPU s", points / cpu_s / 1e6);
}

fn write_workload(dir: &Path) {
    let mut writer = FolderWriter::create(dir, Format::Parquet).expect("a temporary folder takes files");
    let mut noise = Noise(7);
    let skews: Vec<f64> = (0..RANKS).map(|_| 0.005 * noise.normal()).collect();
    let spikes: Vec<[u64; 3]> =
        (0..RANKS).map(|_| [0; 3].map(|_| FAULT_STEP + noise.below(STEPS - FAULT_STEP))).collect();
    let mut states = vec![0.0; RANKS as usize];
    for step in 0..STEPS {
        let wave = 0.01 * (step as f64 * std::f64::consts::TAU / 200.0).sin();
        let common = if (700..=705).contains(&step) { 1.25 } else { 1.0 };
        for rank in 0..RANKS {
            let state = &mut states[rank as usize];
            *state = 0.3 * *state + 0.021 * (1.0_f64 - 0.09).sqrt() * noise.normal();
            let fault = fault(rank, step, &spikes[rank as usize]);
            let value = 0.25 * (1.0 + skews[rank as usize]) * (1.0 + wave + *state) * common * fault;
            let time = Some(step as i64 * 250_000_000 + i64::from(rank) * 1_000);
            let row = SampleOut {
                run: "w8k",
                attempt: 0,
                rank: Some(rank),
                step: Some(step),
                time,
                metric: "step_time_s",
                value,
            };
            writer.sample(&row).expect("a temporary folder takes rows");
        }
    }
    writer.finish().expect("a temporary folder takes files");
}

/// What a rank's fault makes of its step time.
fn fault(rank: u32, step: u64, spikes: &[u64; 3]) -> f64 {
    if step < FAULT_STEP {
        return 1.0;
    }
    match rank % STRIDE {
        1 => 1.10,
        2 => 1.0 + 0.10 * (step - FAULT_STEP) as f64 / (STEPS - FAULT_STEP) as f64,
        3 if spikes.contains(&step) => 1.40,
        4 => 1.03,
        _ => 1.0,
    }
}

/// Runs the binary; gives CPU seconds, peak MiB and the incidents.
fn replay(dir: &Path) -> (f64, f64, Vec<serde_json::Value>) {
    let child = child::run(&["replay", dir.to_str().expect("temporary paths are text"), "--json"]);
    let incident = |line| serde_json::from_str(line).expect("a line is an incident");
    (child.cpu_s, child.peak_mib, child.stdout.lines().map(incident).collect())
}

/// Of the ranks named at `warning` or above, all are guilty, and of the lasting faults at least nine tenths are named.
fn assert_answer(incidents: &[serde_json::Value]) {
    let alarms = incidents.iter().filter(|incident| incident["severity"] != "info");
    let suspects = alarms.filter_map(|incident| incident["suspects"].as_array()).flatten();
    let named: BTreeSet<u64> = suspects.filter_map(|suspect| suspect["rank"].as_u64()).collect();
    let found = |class: u64| named.iter().filter(|rank| *rank % u64::from(STRIDE) == class).count();
    let clean = named.iter().filter(|rank| !(1..=4).contains(&(*rank % u64::from(STRIDE)))).count();
    let classes = [found(1), found(2), found(3), found(4)];
    println!(
        "named of 64 each: step10 {}, drift10 {}, spike40 {}, stealth3 {}; of 7,936 clean: {clean}",
        classes[0], classes[1], classes[2], classes[3]
    );
    assert_eq!(clean, 0, "clean ranks are named");
    assert!(classes[0] >= 58 && classes[1] >= 58, "lasting faults are missed");
}

/// Random numbers fixed by their seed (SplitMix64, Steele et al. 2014).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Standard normal (Box-Muller).
    fn normal(&mut self) -> f64 {
        let uniform = |bits: u64| ((bits >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
        let (radius, angle) = (uniform(self.next()), uniform(self.next()));
        (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
    }
}
