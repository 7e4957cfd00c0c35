//! Our side of the comparison with peers: reads the bytes that the peers read, runs what it is told, tells CPU seconds.
//!
//! Not for people: `benches/peers/run` drives it. A line `NAME REPEATS` on standard input runs one round; the answer is
//! one line, the CPU seconds of a repeat. `NAME.in` in the folder of the first argument holds what goes in, little-endian;
//! after the first round `NAME.out` holds what came out, for the other side to check.

#![expect(unused_crate_dependencies, reason = "what this target does not use serves another one of the package")]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use trainwarden_kernels::{
    Backend, Bocpd, BocpdSettings, Bracket, CenterSpread, Cpu, Fingerprint, FingerprintKey, Format, MatrixProfile,
    RollingMedian, SequentialBank, SequentialSettings, Slack,
};

/// One round of a comparison: returns the answer as bytes.
type Round = Box<dyn FnMut(&mut Cpu) -> Vec<u8>>;

fn main() {
    let folder = PathBuf::from(std::env::args().skip(1).find(|argument| argument != "--bench").expect("a folder"));
    let mut cpu = Cpu::new();
    let mut rounds: BTreeMap<String, Round> = BTreeMap::new();
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("standard input is text");
        let (name, repeats) = line.split_once(' ').expect("a name and a number");
        let repeats: u32 = repeats.parse().expect("a number of repeats");
        if !rounds.contains_key(name) {
            let mut round = round_of(name, &folder);
            fs::write(folder.join(format!("{name}.out")), round(&mut cpu)).expect("the folder takes files");
            rounds.insert(name.to_owned(), round);
        }
        let round = rounds.get_mut(name).expect("made above");
        let before = cpu_seconds();
        for _ in 0..repeats {
            std::hint::black_box(round(&mut cpu));
        }
        println!("{:e}", (cpu_seconds() - before) / f64::from(repeats));
        std::io::stdout().flush().expect("standard output is open");
    }
}

/// CPU seconds of this thread (Linux), else of the clock since the program began.
fn cpu_seconds() -> f64 {
    static BEGIN: std::sync::LazyLock<Instant> = std::sync::LazyLock::new(Instant::now);
    // The kernel brings the figure up to date when the thread yields.
    std::thread::yield_now();
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let spent = text.split(' ').next().and_then(|nanoseconds| nanoseconds.parse::<f64>().ok());
    spent.map_or_else(|| BEGIN.elapsed().as_secs_f64(), |nanoseconds| nanoseconds / 1e9)
}

fn floats(folder: &Path, name: &str) -> Vec<f32> {
    let bytes = fs::read(folder.join(format!("{name}.in"))).expect("the other side wrote the file");
    bytes.as_chunks::<4>().0.iter().map(|word| f32::from_le_bytes(*word)).collect()
}

fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// The last part of a name is its sizes: `center_spread-36-8192`.
fn round_of(name: &str, folder: &Path) -> Round {
    let mut parts = name.split('-');
    let what = parts.next().expect("a name");
    let sizes: Vec<usize> = parts.map(|size| size.parse().expect("a size")).collect();
    match what {
        "center_spread" => center_spread(&floats(folder, name), sizes[0], sizes[1]),
        "sequential" => sequential(&floats(folder, name), sizes[0]),
        "rolling_median" => rolling_median(&floats(folder, name), sizes[0], sizes[1]),
        "bocpd" => bocpd(&floats(folder, name), sizes[0], sizes[1]),
        "pairwise" => pairwise(&floats(folder, name), sizes[0]),
        "slack" => slack(&floats(folder, name), sizes[0]),
        "theil_sen" => theil_sen(&floats(folder, name), sizes[0]),
        "matrix_profile" => matrix_profile(&floats(folder, name), sizes[0]),
        "fingerprint" => fingerprint(folder, name),
        "read" => read(folder, name),
        "rmw" => change_in_place(sizes[0], sizes[1]),
        _ => panic!("there is no `{name}`"),
    }
}

fn center_spread(values: &[f32], metrics: usize, columns: usize) -> Round {
    let values = values.to_vec();
    let mut brackets = vec![Bracket::default(); metrics];
    let mut statistics = CenterSpread::default();
    Box::new(move |cpu| {
        for tick in values.chunks(metrics * columns) {
            cpu.center_spread_tick(tick, columns, &mut brackets, &mut statistics).expect("whole ticks");
        }
        bytes_of(&[&statistics.median[..], &statistics.mad[..]].concat())
    })
}

fn sequential(values: &[f32], series: usize) -> Round {
    let values = values.to_vec();
    let mut bank = SequentialBank::new(series, 0.0, 1.0);
    Box::new(move |cpu| {
        for tick in values.chunks(series) {
            cpu.sequential_update(&mut bank, tick, &SequentialSettings::default()).expect("whole ticks");
        }
        bytes_of(&bank.above[..series.min(64)])
    })
}

fn rolling_median(values: &[f32], series: usize, window: usize) -> Round {
    let values = values.to_vec();
    let mut medians = vec![0.0; values.len()];
    Box::new(move |cpu| {
        let mut state = RollingMedian::new(series, window);
        cpu.rolling_median(&mut state, &values, &mut medians).expect("whole ticks");
        bytes_of(&medians[medians.len() - series..])
    })
}

fn bocpd(values: &[f32], series: usize, lengths: usize) -> Round {
    let values = values.to_vec();
    Box::new(move |cpu| {
        let mut state = Bocpd::new(series, lengths, &BocpdSettings::default());
        for tick in values.chunks(series) {
            cpu.bocpd_update(&mut state, tick).expect("whole ticks");
        }
        bytes_of(&(0..lengths).map(|length| state.probability(0, length)).collect::<Vec<f32>>())
    })
}

fn pairwise(points: &[f32], count: usize) -> Round {
    let points = points.to_vec();
    let mut sums = vec![0.0; count];
    Box::new(move |cpu| {
        cpu.pairwise_row_sums(&points, &mut sums).expect("whole dimensions");
        bytes_of(&sums[..8].iter().map(|sum| *sum as f32).collect::<Vec<f32>>())
    })
}

fn slack(arrivals: &[f32], ranks: usize) -> Round {
    let arrivals = arrivals.to_vec();
    Box::new(move |cpu| {
        let mut slack = Slack::new(ranks);
        cpu.slack(&arrivals, &mut slack).expect("whole collectives");
        bytes_of(&slack.waited.iter().map(|waited| *waited as f32).collect::<Vec<f32>>())
    })
}

fn theil_sen(windows: &[f32], width: usize) -> Round {
    let windows = windows.to_vec();
    Box::new(move |cpu| bytes_of(&windows.chunks(width).map(|window| cpu.theil_sen(window)).collect::<Vec<f32>>()))
}

fn matrix_profile(series: &[f32], length: usize) -> Round {
    let series = series.to_vec();
    let mut profile = MatrixProfile::default();
    Box::new(move |cpu| {
        cpu.matrix_profile(&series, length, &mut profile);
        bytes_of(&profile.distance)
    })
}

fn fingerprint(folder: &Path, name: &str) -> Round {
    let bytes = fs::read(folder.join(format!("{name}.in"))).expect("the other side wrote the file");
    let key = FingerprintKey::new(&[1; 32]);
    let mut fingerprint = Fingerprint::default();
    Box::new(move |cpu| {
        cpu.fingerprint(&bytes, Format::Bf16, &key, 0, &mut fingerprint).expect("whole numbers");
        bytes_of(&[fingerprint.l2_norm() as f32, fingerprint.max, fingerprint.nans as f32])
    })
}

/// The ceiling of what reads: a bare read of the same bytes, as eight streams, which memory serves faster than one.
fn read(folder: &Path, name: &str) -> Round {
    let bytes = fs::read(folder.join(format!("{name}.in"))).expect("the other side wrote the file");
    Box::new(move |_| {
        let part = bytes.len() / 8 / 256 * 256;
        let streams: [&[[u8; 256]]; 8] = std::array::from_fn(|stream| bytes[stream * part..][..part].as_chunks().0);
        let mut lanes = [0_u64; 32];
        for at in 0..part / 256 {
            for stream in streams {
                for (lane, word) in lanes.iter_mut().zip(stream[at].as_chunks::<8>().0) {
                    *lane ^= u64::from_le_bytes(*word);
                }
            }
        }
        lanes.iter().fold(0, |sum, lane| sum ^ lane).to_le_bytes().to_vec()
    })
}

/// The ceiling of what keeps state: six numbers a series, changed in place each tick.
fn change_in_place(series: usize, ticks: usize) -> Round {
    let mut state = vec![1.0_f32; 6 * series];
    Box::new(move |_| {
        for _ in 0..ticks {
            std::hint::black_box(&mut state).iter_mut().for_each(|value| *value = *value * 0.5 + 1.0);
        }
        Vec::new()
    })
}
