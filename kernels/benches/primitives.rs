//! How fast each primitive is on one core, against what the memory of the same machine gives in the same run.
//!
//! Every bench asserts its answer, by another way of computing it or by a law, and prints the CPU time of a round as
//! points a second and, where memory is the limit, as percent of the ceiling measured beside it.
//! Sizes: 8,192 devices because the largest public jobs have about so many ranks, 100,000 as the largest fleet, 36 metrics
//! a device; windows of 64 and 256; weights of 256 MiB and of 1 GiB, beyond any cache that one core is given.
//!
//! Run: `cargo bench -p trainwarden-kernels --bench primitives [-- NAME ...]`; with `--isa plain` or `--isa avx2` other
//! instructions than the best ones.

#![expect(unused_crate_dependencies, reason = "what this target does not use serves another one of the package")]

use std::hint::black_box;
use std::time::Instant;

use trainwarden_kernels::{
    Backend, Bocpd, BocpdSettings, Bracket, CenterSpread, Cpu, EProcessBank, Fingerprint, FingerprintKey, Format, Isa,
    MatrixProfile, RollingMedian, SequentialBank, SequentialSettings, Slack, TILE_BYTES,
};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let isa = arguments.iter().position(|argument| argument == "--isa").map(|at| arguments[at + 1].clone());
    let isa =
        Isa::all().into_iter().rfind(|set| isa.as_ref().is_none_or(|name| set.name() == name)).expect("known set");
    let names: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with("--")).collect();
    let is_wanted =
        |name: &str| names.iter().all(|wanted| *wanted == isa.name()) || names.iter().any(|wanted| *wanted == name);
    println!("instructions: {isa}");
    type Bench = (&'static str, fn(Isa));
    let benches: [Bench; 11] = [
        ("ceiling", ceiling),
        ("center_spread", center_spread),
        ("sequential", sequential),
        ("fingerprint", fingerprint),
        ("slack", slack),
        ("pairwise", pairwise),
        ("rolling_median", rolling_median),
        ("bocpd", bocpd),
        ("theil_sen", theil_sen),
        ("matrix_profile", matrix_profile),
        ("e_process", e_process),
    ];
    for (name, bench) in benches {
        if is_wanted(name) {
            bench(isa);
        }
    }
}

/// Seconds of one round: of CPU time where the system tells it, because the machine may be shared; else of the clock.
fn seconds(mut round: impl FnMut()) -> f64 {
    round();
    let (begin, cpu) = (Instant::now(), cpu_seconds());
    let mut rounds = 0;
    while rounds < 7 || (begin.elapsed().as_secs_f64() < 0.4 && rounds < 100_000) {
        round();
        rounds += 1;
    }
    let spent = match (cpu, cpu_seconds()) {
        (Some(before), Some(after)) => after - before,
        _ => begin.elapsed().as_secs_f64(),
    };
    spent / f64::from(rounds)
}

/// What this thread has run on a processor, to a tick of the scheduler; Linux only.
fn cpu_seconds() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(text.split(' ').next()?.parse::<f64>().ok()? / 1e9)
}

fn report(name: &str, points: f64, seconds: f64) {
    println!("{name:44} {:10.1} M/s {:10.3} ns each", points / seconds / 1e6, seconds / points * 1e9);
}

struct Noise(u64);

impl Noise {
    fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// Nearly normal: a sum of four uniform numbers, scaled.
    fn normal(&mut self) -> f32 {
        let word = self.word();
        let sum: u64 = (0..4).map(|part| word >> (16 * part) & 0xffff).sum();
        ((sum as f64 / 65_536.0 - 2.0) * 3.0_f64.sqrt()) as f32
    }

    fn normals(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.normal()).collect()
    }
}

fn read_sum(data: &[u64]) -> u64 {
    let mut lanes = [0_u64; 32];
    for chunk in data.as_chunks::<32>().0 {
        for lane in 0..32 {
            lanes[lane] ^= chunk[lane];
        }
    }
    lanes.iter().fold(0, |sum, lane| sum ^ lane)
}

/// Bytes a second of a bare read of a gibibyte.
fn read_ceiling() -> f64 {
    let data = vec![1_u64; 1 << 27];
    8.0 * data.len() as f64
        / seconds(|| {
            black_box(read_sum(black_box(&data)));
        })
}

fn ceiling(_: Isa) {
    println!("{:44} {:10.1} GB/s", "read, 1 GiB", read_ceiling() / 1e9);
    let mut data = vec![1.0_f32; 1 << 27];
    let time = seconds(|| black_box(&mut data).iter_mut().for_each(|value| *value = *value * 0.5 + 1.0));
    println!("{:44} {:10.1} GB/s of payload", "read, modify, write, 0.5 GiB", 4.0 * data.len() as f64 / time / 1e9);
}

fn center_spread(isa: Isa) {
    const METRICS: usize = 36;
    for columns in [8_192, 100_000] {
        let mut noise = Noise(1);
        let cells = METRICS * columns;
        // Eight ticks of a drifting fleet, replayed for ever; each tick is another one than the last.
        let tick = |noise: &mut Noise, level: f32| -> Vec<f32> { (0..cells).map(|_| level + noise.normal()).collect() };
        let drifting: Vec<Vec<f32>> = (0..8).map(|at| tick(&mut noise, 0.01 * (at as f32 - 4.0).abs())).collect();
        let jumping: Vec<Vec<f32>> = (0..2).map(|at| tick(&mut noise, 100.0 * at as f32)).collect();
        let equal = vec![vec![3.0; cells]];
        let two: Vec<Vec<f32>> = vec![(0..cells).map(|_| (noise.word() & 1) as f32).collect()];
        let few: Vec<Vec<f32>> = vec![(0..cells).map(|_| (noise.word() % 10) as f32).collect()];
        let sorted = vec![(0..cells).map(|at| (at % columns) as f32).collect()];
        let outliers: Vec<Vec<f32>> =
            (0..2).map(|_| (0..cells).map(|at| if at % 10 == 0 { 1e6 } else { noise.normal() }).collect()).collect();
        let spoilt = |noise: &mut Noise, by: [f32; 2]| -> Vec<Vec<f32>> {
            let mut ticks = drifting.clone();
            for value in ticks.as_mut_slice().iter_mut().flatten().step_by(100) {
                *value = by[(noise.word() & 1) as usize];
            }
            ticks
        };
        let missing = spoilt(&mut noise, [f32::NAN; 2]);
        let infinite = spoilt(&mut noise, [f32::INFINITY, f32::NEG_INFINITY]);
        let kinds = [
            ("drifting", &drifting),
            ("1 % NaN", &missing),
            ("1 % infinite", &infinite),
            ("fleet jump each tick", &jumping),
            ("all equal", &equal),
            ("two values", &two),
            ("ten values", &few),
            ("sorted", &sorted),
            ("10 % outliers", &outliers),
        ];
        for (kind, ticks) in kinds {
            let mut cpu = Cpu::with_isa(isa);
            let mut brackets = vec![Bracket::default(); METRICS];
            let mut statistics = CenterSpread::default();
            let mut at = 0;
            let time = seconds(|| {
                let values = &ticks[at % ticks.len()];
                cpu.center_spread_tick(values, columns, &mut brackets, &mut statistics).expect("36 rows");
                at += 1;
            });
            let mut row = ticks[(at - 1) % ticks.len()][..columns].to_vec();
            row.retain(|value| !value.is_nan());
            row.sort_by(f32::total_cmp);
            let (lower, upper) = (row[(row.len() - 1) / 2], row[row.len() / 2]);
            assert_eq!(statistics.median[0], if lower == upper { lower } else { 0.5 * lower + 0.5 * upper });
            report(&format!("median and MAD, 36 x {columns}, {kind}"), cells as f64, time);
        }
    }
}

fn sequential(isa: Isa) {
    for (series, ticks) in [(8_192, 1), (262_144, 1), (3_600_000, 1), (262_144, 4)] {
        let values = Noise(2).normals(series * ticks);
        let mut bank = SequentialBank::new(series, 0.0, 1.0);
        let mut cpu = Cpu::with_isa(isa);
        let settings = SequentialSettings::default();
        let mut alarms = 0;
        let time = seconds(|| alarms = cpu.sequential_update(&mut bank, &values, &settings).expect("whole ticks"));
        assert_eq!(alarms, (0..series).filter(|one| bank.statistic(*one) > settings.threshold).count());
        report(&format!("EWMA + CUSUM + PH, {series} series x {ticks}"), (series * ticks) as f64, time);
    }
}

fn fingerprint(isa: Isa) {
    let ceiling = read_ceiling();
    let mut noise = Noise(3);
    let key = FingerprintKey::new(&[1; 32]);
    let block: Vec<u8> =
        (0..1 << 19).flat_map(|_| (((0.02 * noise.normal()).to_bits() >> 16) as u16 | 1).to_le_bytes()).collect();
    let mut cpu = Cpu::with_isa(isa);
    let mut result = Fingerprint::default();
    for size in [1_usize << 20, 1 << 30] {
        let bytes = block.repeat(size >> 20);
        let floor = vec![0_u8; size];
        for format in Format::ALL {
            let time = seconds(|| cpu.fingerprint(&bytes, format, &key, 0, &mut result).expect("whole numbers"));
            let rate = size as f64 / time;
            println!(
                "fingerprint of {:5} MiB of {:29} {:10.2} GB/s {:6.1} % of the read ceiling",
                size >> 20,
                format!("{format:?}"),
                rate / 1e9,
                100.0 * rate / ceiling
            );
        }
        let time = seconds(|| cpu.fingerprint(&floor, Format::Bf16, &key, 0, &mut result).expect("whole numbers"));
        println!("fingerprint of {:5} MiB of zeros {:34.2} GB/s", size >> 20, size as f64 / time / 1e9);
        let time = seconds(|| {
            black_box(cpu.fingerprint_128(&bytes, &key, 0));
        });
        println!("128-bit sum of {:5} MiB {:42.2} GB/s", size >> 20, size as f64 / time / 1e9);
        let time = seconds(|| {
            black_box(cpu.sketch(&bytes, Format::Bf16, &key));
        });
        println!("sketch of {:5} MiB of bf16 {:39.2} GB/s", size >> 20, size as f64 / time / 1e9);
    }
    find_changes(&mut cpu, &block, &key);
}

/// A million changes of one tile: single flips of every bit position, swaps, zeroed lines, the same flip in two places.
fn find_changes(cpu: &mut Cpu, tile: &[u8], key: &FingerprintKey) {
    const BLOCK: usize = 16 << 10;
    let mut noise = Noise(4);
    let mut result = Fingerprint::default();
    let mut bytes = tile[..BLOCK].to_vec();
    cpu.fingerprint(&bytes, Format::Bf16, key, 0, &mut result).expect("whole numbers");
    let before = result.sum;
    let (mut made, mut missed) = (0, 0);
    let begin = Instant::now();
    while made < 1_000_000 {
        let kind = made % 4;
        let (one, other) = (noise.word() as usize % BLOCK, noise.word() as usize % BLOCK);
        let (one, other) = if kind == 1 { (one & !1, other & !1) } else { (one, other) };
        let bit = 1_u8 << (noise.word() % 8);
        let line = one & !255;
        match kind {
            0 => bytes[one] ^= bit,
            1 => (0..2).for_each(|byte| bytes.swap(one + byte, other + byte)),
            2 => bytes[line..line + 256].fill(0),
            _ => (bytes[one] ^= bit, bytes[other] ^= bit).0,
        }
        if bytes != tile[..BLOCK] {
            made += 1;
            cpu.fingerprint(&bytes, Format::Bf16, key, 0, &mut result).expect("whole numbers");
            missed += usize::from(result.sum == before);
        }
        for at in [one & !1, other & !1] {
            bytes[at..at + 2].copy_from_slice(&tile[at..at + 2]);
        }
        bytes[line..line + 256].copy_from_slice(&tile[line..line + 256]);
    }
    assert_eq!(missed, 0, "changes not seen");
    println!(
        "{made} flips, swaps, zeroed lines, paired flips: {missed} missed, {:.1} s",
        begin.elapsed().as_secs_f64()
    );
    assert_eq!(TILE_BYTES, tile.len());
}

fn slack(isa: Isa) {
    for ranks in [8, 64, 512, 8_192] {
        let collectives = (1 << 24) / ranks;
        let mut noise = Noise(5);
        let arrivals: Vec<f32> = (0..ranks * collectives).map(|_| noise.normal() * 5.0).collect();
        let mut cpu = Cpu::with_isa(isa);
        let mut slack = Slack::new(ranks);
        let time = seconds(|| {
            slack = Slack::new(ranks);
            cpu.slack(&arrivals, &mut slack).expect("whole collectives");
        });
        assert_eq!(slack.blamed.iter().sum::<u32>() as usize, collectives);
        report(&format!("slack, groups of {ranks}"), arrivals.len() as f64, time);
    }
}

fn pairwise(isa: Isa) {
    for (count, dimensions) in [(1_000, 8), (8_192, 8), (4_096, 32)] {
        let points = Noise(6).normals(count * dimensions);
        let mut sums = vec![0.0; count];
        let mut cpu = Cpu::with_isa(isa);
        let time = seconds(|| cpu.pairwise_row_sums(&points, &mut sums).expect("whole dimensions"));
        let away = |one: usize| -> f64 { points.chunks(count).map(|row| f64::from(row[0] - row[one]).powi(2)).sum() };
        let expected: f64 = (0..count).map(|one| away(one).sqrt()).sum();
        assert!((sums[0] / expected - 1.0).abs() < 1e-5, "{} against {expected}", sums[0]);
        report(&format!("pairwise row sums, {count} points, {dimensions} dimensions"), (count * count) as f64, time);
    }
}

fn rolling_median(isa: Isa) {
    for (series, window, ticks) in [(64, 64, 2_000), (64, 256, 2_000), (8_192, 64, 1), (8_192, 256, 1)] {
        let values = Noise(7).normals(series * ticks);
        let mut medians = vec![0.0; values.len()];
        let mut state = RollingMedian::new(series, window);
        let mut cpu = Cpu::with_isa(isa);
        let time = seconds(|| cpu.rolling_median(&mut state, &values, &mut medians).expect("whole ticks"));
        if ticks > window {
            let mut last: Vec<f32> = (ticks - window..ticks).map(|tick| values[tick * series]).collect();
            last.sort_by(f32::total_cmp);
            assert_eq!(medians[(ticks - 1) * series], 0.5 * last[window / 2 - 1] + 0.5 * last[window / 2]);
        }
        report(&format!("rolling median of {window}, {series} series x {ticks}"), values.len() as f64, time);
    }
}

fn bocpd(isa: Isa) {
    for lengths in [64, 128, 256] {
        let series = 256;
        let ticks: Vec<Vec<f32>> = (0..16).map(|seed| Noise(seed).normals(series)).collect();
        let mut state = Bocpd::new(series, lengths, &BocpdSettings::default());
        let mut cpu = Cpu::with_isa(isa);
        let mut at = 0;
        let time = seconds(|| {
            cpu.bocpd_update(&mut state, &ticks[at % 16]).expect("one value a series");
            at += 1;
        });
        let sum = state.probability_shorter(0, lengths);
        assert!((sum - 1.0).abs() < 1e-5, "probabilities sum to {sum}");
        report(&format!("BOCPD, {lengths} lengths, {series} series"), series as f64, time);
    }
}

fn theil_sen(isa: Isa) {
    for width in [32, 64, 256] {
        let mut noise = Noise(8);
        let windows: Vec<Vec<f32>> = (0..256).map(|_| noise.normals(width)).collect();
        let mut cpu = Cpu::with_isa(isa);
        let mut slopes = vec![0.0; windows.len()];
        let time = seconds(|| {
            for (slope, window) in slopes.iter_mut().zip(&windows) {
                *slope = cpu.theil_sen(window);
            }
        });
        let slope = |late: usize, early: usize| f64::from(windows[0][late] - windows[0][early]) / (late - early) as f64;
        let mut all: Vec<f64> = (0..width).flat_map(|late| (0..late).map(move |early| slope(late, early))).collect();
        all.sort_by(f64::total_cmp);
        let middle = 0.5 * (all[(all.len() - 1) / 2] + all[all.len() / 2]);
        assert!((f64::from(slopes[0]) - middle).abs() < 1e-6, "{} against {middle}", slopes[0]);
        report(&format!("Theil-Sen of {width}"), windows.len() as f64, time);
    }
}

fn matrix_profile(isa: Isa) {
    for power in [14, 15] {
        let count = 1_usize << power;
        let mut noise = Noise(9);
        let mut series = noise.normals(count);
        let pattern = series[100..150].to_vec();
        series[count / 2..count / 2 + 50].copy_from_slice(&pattern);
        let mut profile = MatrixProfile::default();
        let mut cpu = Cpu::with_isa(isa);
        let time = seconds(|| cpu.matrix_profile(&series, 50, &mut profile));
        assert_eq!(profile.nearest[100] as usize, count / 2);
        report(&format!("matrix profile, 2^{power} values, cells"), 0.5 * (count as f64).powi(2), time);
    }
}

fn e_process(isa: Isa) {
    let series = 8_192;
    let z = Noise(10).normals(series);
    let mut bank = EProcessBank::new(series);
    let mut cpu = Cpu::with_isa(isa);
    let time = seconds(|| cpu.e_process_update(&mut bank, &z, 0.5).expect("one value a series"));
    assert!(bank.cusum_up.iter().all(|evidence| evidence.is_finite()));
    report("e-detectors, 8192 series", series as f64, time);
}
