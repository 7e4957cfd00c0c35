//! One list of cases for every backend: each must give the bits of the plain CPU.
//!
//! Backends: the CPU with every set of instructions of this machine; the CUDA kernels, run on the CPU where there is a C++
//! compiler (their arithmetic, not their races); the CUDA device where there is one. What is not there is told and
//! counted: `skipped: no device`.

use std::io::Write;
use std::sync::{Mutex, PoisonError};

use ndarray::Array2;
use proptest::prelude::*;

use crate::backend::{Backend, CenterSpread};
use crate::cpu::{
    Bocpd, BocpdSettings, Bracket, Cpu, Fingerprint, FingerprintKey, Format, RollingMedian, SequentialBank,
    SequentialSettings, Slack,
};
use crate::cuda::Cuda;
use crate::simd::Isa;
use crate::testing::Noise;

/// A backend with its name.
type Other = (String, Box<dyn Backend>);

/// Every backend of this machine but the plain CPU, with its name.
fn others() -> Vec<Other> {
    let mut backends: Vec<Other> = Vec::new();
    for isa in Isa::all().into_iter().skip(1) {
        backends.push((isa.to_string(), Box::new(Cpu::with_isa(isa))));
    }
    match crate::cuda::emulated() {
        Some(emulated) => backends.push(("emulated device".into(), emulated)),
        None => skipped("no C++ compiler"),
    }
    match Cuda::open() {
        Ok(cuda) => backends.push((cuda.device_name().to_owned(), Box::new(cuda))),
        Err(_) => skipped("no device"),
    }
    backends
}

/// Tells once that a backend is left out, where the test runner cannot keep it to itself: `./test` counts these lines.
fn skipped(why: &'static str) {
    static TOLD: Mutex<Vec<&str>> = Mutex::new(Vec::new());
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    if !told.contains(&why) {
        told.push(why);
        // A terminal that goes away is no fault of the kernels.
        let _ = std::io::stdout().write_all(format!("\nskipped: {why}\n").as_bytes());
    }
}

/// Runs one call on the plain CPU and on all others, and compares what they give.
fn all_give<T: PartialEq + std::fmt::Debug>(what: &str, backends: &mut [Other], call: impl Fn(&mut dyn Backend) -> T) {
    let plain = call(&mut Cpu::with_isa(Isa::plain()));
    for (name, backend) in backends {
        let given = call(backend.as_mut());
        assert!(given == plain, "{name} differs from the plain CPU in {what}");
    }
}

/// Bits, every NaN as one: which NaN comes out of `infinity - infinity` differs between processors.
fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| if value.is_nan() { f32::NAN.to_bits() } else { value.to_bits() }).collect()
}

fn wide_bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|value| if value.is_nan() { f64::NAN.to_bits() } else { value.to_bits() }).collect()
}

/// The number at a place of a row.
type Of = fn(usize, &mut Noise) -> f32;

/// The list: rows of numbers of any length, by name.
const CASES: [(&str, Of); 14] = [
    ("normal", |_, noise| noise.normal()),
    ("far from zero", |_, noise| 1e6 + noise.normal()),
    ("all equal", |_, _| 3.5),
    ("two values", |_, noise| noise.below(2) as f32),
    ("ten values", |_, noise| noise.below(10) as f32 - 5.0),
    ("ascending", |at, _| at as f32),
    ("descending", |at, _| -(at as f32)),
    ("some NaN", |_, noise| if noise.below(5) == 0 { f32::NAN } else { noise.normal() }),
    ("all NaN", |_, _| f32::NAN),
    ("infinities", |_, noise| [f32::INFINITY, f32::NEG_INFINITY, 1.0, 2.0][noise.below(4)]),
    ("zeros of both signs", |_, noise| [0.0, -0.0, 0.0, -1.0][noise.below(4)]),
    ("subnormal", |_, noise| f32::from_bits(noise.below(1 << 23) as u32)),
    ("outliers", |_, noise| if noise.below(10) == 0 { 1e30 } else { noise.normal() }),
    ("any bits", |_, noise| f32::from_bits(noise.word() as u32)),
];
const LENGTHS: [usize; 13] = [0, 1, 2, 3, 15, 16, 17, 63, 64, 100, 513, 1_025, 9_001];

fn row(of: Of, length: usize) -> Vec<f32> {
    let mut noise = Noise::new(length as u64);
    (0..length).map(|at| of(at, &mut noise)).collect()
}

fn statistics_bits(statistics: &CenterSpread) -> (Vec<u32>, Vec<u32>, Vec<u32>) {
    (bits(&statistics.median), bits(&statistics.mad), statistics.count.clone())
}

fn check_center_spread(what: &str, backends: &mut [Other], ticks: &[Vec<f32>], rows: usize) {
    let columns = ticks[0].len() / rows;
    all_give(what, backends, |backend| {
        let mut brackets = vec![Bracket::default(); rows];
        let mut statistics = CenterSpread::default();
        let tick = |values: &Vec<f32>| {
            backend.center_spread_tick(values, columns, &mut brackets, &mut statistics).expect("whole rows");
            statistics_bits(&statistics)
        };
        ticks.iter().map(tick).collect::<Vec<_>>()
    });
}

#[test]
fn medians_and_mads_are_equal_for_every_case() {
    let mut backends = others();
    for (name, of) in CASES {
        for length in LENGTHS {
            let values = row(of, length);
            check_center_spread(
                &format!("center_spread of {length} {name}"),
                &mut backends,
                &[values.clone(), values],
                1,
            );
        }
    }
    // A fleet that jumps: every guess of the tick before is wrong.
    let mut noise = Noise::new(1);
    let ticks: Vec<Vec<f32>> =
        [0.0, 1000.0, -3.0].iter().map(|level| (0..3 * 777).map(|_| level + noise.normal()).collect()).collect();
    check_center_spread("center_spread of a fleet jump", &mut backends, &ticks, 3);
}

#[test]
fn panels_with_absent_cells_are_equal() {
    let mut backends = others();
    let mut noise = Noise::new(2);
    for (rows, columns) in [(0, 3), (1, 0), (3, 1), (4, 33), (2, 500)] {
        let values = Array2::from_shape_fn((rows, columns), |_| noise.normal());
        let present = Array2::from_shape_fn((rows, columns), |_| noise.below(3) > 0);
        all_give("center_spread of a panel", &mut backends, |backend| {
            let straight = backend.center_spread(values.view(), present.view()).expect("shapes are equal");
            let turned = backend.center_spread(values.t(), present.t()).expect("shapes are equal");
            (statistics_bits(&straight), statistics_bits(&turned))
        });
    }
}

#[test]
fn sequential_banks_are_equal_for_every_case() {
    let mut backends = others();
    for (name, of) in CASES {
        for (series, ticks) in [(1, 7), (17, 5), (300, 2), (16, 0)] {
            let values = row(of, series * ticks);
            all_give(&format!("sequential_update of {name}"), &mut backends, |backend| {
                let mut bank = SequentialBank::new(series, 1.0, 2.0);
                let settings = SequentialSettings { threshold: 3.0, ..SequentialSettings::default() };
                let alarms = backend.sequential_update(&mut bank, &values, &settings).expect("whole ticks");
                let SequentialBank { mean, variance, above, below, drift, drift_least } = &bank;
                (alarms, [mean, variance, above, below, drift, drift_least].map(|state| bits(state)))
            });
        }
    }
}

#[test]
fn slacks_are_equal_for_every_case() {
    let mut backends = others();
    for (name, of) in CASES {
        for (ranks, collectives) in [(1, 3), (3, 130), (8, 65), (33, 64), (64, 3), (700, 2), (5, 0)] {
            let arrivals = row(of, ranks * collectives);
            all_give(&format!("slack of {name}"), &mut backends, |backend| {
                let mut slack = Slack::new(ranks);
                for _ in 0..2 {
                    backend.slack(&arrivals, &mut slack).expect("whole collectives");
                }
                let Slack { waited, blamed, last_arrival, last_rank, .. } = slack;
                (wide_bits(&waited), blamed, bits(&last_arrival), last_rank)
            });
        }
    }
}

#[test]
fn pairwise_sums_are_equal_for_every_finite_case() {
    let mut backends = others();
    for (name, of) in
        CASES.into_iter().filter(|(name, _)| !["some NaN", "all NaN", "infinities", "any bits"].contains(name))
    {
        for (points, dimensions) in [(1, 8), (63, 8), (64, 8), (65, 8), (200, 8), (130, 1), (70, 3), (129, 33), (7, 0)]
        {
            let values = row(of, points * dimensions);
            all_give(&format!("pairwise_row_sums of {name}"), &mut backends, |backend| {
                let mut sums = vec![0.0; points];
                backend.pairwise_row_sums(&values, &mut sums).expect("whole dimensions");
                wide_bits(&sums)
            });
        }
    }
}

#[test]
fn rolling_medians_are_equal_for_every_case() {
    let mut backends = others();
    for (name, of) in CASES {
        for (series, window, ticks) in [(1, 1, 5), (3, 2, 9), (17, 7, 20), (33, 64, 70), (16, 5, 0)] {
            let values = row(of, series * ticks);
            all_give(&format!("rolling_median of {name}"), &mut backends, |backend| {
                let mut state = RollingMedian::new(series, window);
                let mut medians = vec![0.0; values.len()];
                let cut = ticks / 3 * series;
                backend.rolling_median(&mut state, &values[..cut], &mut medians[..cut]).expect("whole ticks");
                backend.rolling_median(&mut state, &values[cut..], &mut medians[cut..]).expect("whole ticks");
                bits(&medians)
            });
        }
    }
}

#[test]
fn run_lengths_are_equal_for_every_case() {
    let mut backends = others();
    for (name, of) in CASES {
        for (series, lengths) in [(1, 2), (5, 16), (16, 3), (37, 64)] {
            let ticks = row(of, series * 12);
            all_give(&format!("bocpd_update of {name}"), &mut backends, |backend| {
                let mut state = Bocpd::new(series, lengths, &BocpdSettings::default());
                for tick in ticks.chunks(series) {
                    backend.bocpd_update(&mut state, tick).expect("one value a series");
                }
                let of_series =
                    |one: usize| (0..lengths).map(|length| state.probability(one, length)).collect::<Vec<_>>();
                (0..series).map(|one| bits(&of_series(one))).collect::<Vec<_>>()
            });
        }
    }
}

fn fingerprint_bits(result: &Fingerprint) -> (Vec<u64>, Vec<[u64; 5]>) {
    let Fingerprint { sum, sum_of_squares, max, nans, infinities, zeros, tiles } = result;
    let tile = |tile: &crate::cpu::Tile| {
        let counts = u64::from(tile.nans) << 32 | u64::from(tile.infinities);
        [tile.sum, wide_bits(&[tile.sum_of_squares])[0], u64::from(tile.max.to_bits()), counts, u64::from(tile.zeros)]
    };
    let total = vec![*sum, wide_bits(&[*sum_of_squares])[0], u64::from(max.to_bits()), *nans, *infinities, *zeros];
    (total, tiles.iter().map(tile).collect())
}

fn check_fingerprint(what: &str, backends: &mut [Other], bytes: &[u8], format: Format, first_tile: u64) {
    let key = FingerprintKey::new(&[9; 32]);
    all_give(what, backends, |backend| {
        let mut result = Fingerprint::default();
        backend.fingerprint(bytes, format, &key, first_tile, &mut result).expect("whole numbers");
        fingerprint_bits(&result)
    });
}

#[test]
fn fingerprints_are_equal_for_every_case_and_format() {
    let mut backends = others();
    for (name, of) in CASES {
        for count in [0, 1, 2, 5, 100, 4_096, 4_097] {
            let bytes: Vec<u8> = row(of, count).iter().flat_map(|value| value.to_le_bytes()).collect();
            for format in Format::ALL {
                check_fingerprint(
                    &format!("fingerprint of {count} {name} as {format:?}"),
                    &mut backends,
                    &bytes,
                    format,
                    3,
                );
            }
        }
    }
    // Tiles and their borders.
    let mut noise = Noise::new(5);
    let bytes: Vec<u8> = (0..(1 << 18) + 5_000).flat_map(|_| noise.normal().to_le_bytes()).collect();
    for format in Format::ALL {
        check_fingerprint("fingerprint of two tiles", &mut backends, &bytes, format, 0);
    }
    for cut in [1, 2, 3, 15, 16, 17, 16_383] {
        check_fingerprint("fingerprint of an odd end", &mut backends, &bytes[..32_768 + cut], Format::Fp8E5m2, 0);
    }
}

/// Ten thousand shapes: `cargo test -p trainwarden-kernels --release -- --ignored ten_thousand --nocapture`.
#[test]
#[ignore = "half a minute"]
fn ten_thousand_fingerprints_of_random_shapes_are_equal() {
    let mut backends = others();
    let mut noise = Noise::new(6);
    let names: Vec<String> = backends.iter().map(|(name, _)| name.clone()).collect();
    let data: Vec<u8> = (0..1 << 20).map(|_| noise.word() as u8).collect();
    for _ in 0..10_000 {
        let format = Format::ALL[noise.below(5)];
        let magnitude = noise.below(18);
        let length = noise.below(1 << magnitude) / format.bytes() * format.bytes();
        let first = noise.below(data.len() - length);
        let tile = noise.below(100) as u64;
        check_fingerprint("fingerprint of a random shape", &mut backends, &data[first..first + length], format, tile);
    }
    println!("10000 shapes, 0 mismatches between the plain CPU and {names:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn random_shapes_are_equal(case in 0..CASES.len(), rows in 1_usize..6, columns in 1_usize..1_500, seed: u64) {
        let mut backends = others();
        let mut noise = Noise::new(seed);
        let values: Vec<f32> = (0..rows * columns).map(|at| CASES[case].1(at, &mut noise)).collect();
        check_center_spread("center_spread of a random shape", &mut backends, &[values.clone(), values.clone()], rows);
        all_give("slack of a random shape", &mut backends, |backend| {
            let mut slack = Slack::new(columns);
            backend.slack(&values, &mut slack).expect("whole collectives");
            (wide_bits(&slack.waited), slack.blamed, bits(&slack.last_arrival), slack.last_rank)
        });
        all_give("sequential_update of a random shape", &mut backends, |backend| {
            let mut bank = SequentialBank::new(columns, 0.0, 1.0);
            let alarms = backend.sequential_update(&mut bank, &values, &SequentialSettings::default()).expect("whole ticks");
            (alarms, bits(&bank.mean), bits(&bank.above), bits(&bank.drift_least))
        });
    }
}
