//! The telemetry of a small cluster: 64 devices x 36 metrics x 3,600 s, as the agents of 8 nodes send it.
//!
//! What a device measures follows what such metrics are: error counters that stay at zero, temperatures and clocks that
//! change now and then, utilisations in whole percent, power and activity with a noise of 16 bits in their decimals,
//! counters of bytes and of energy, rates in bytes a second, and numbers of a training step that hold for five seconds.
//! One load curve moves all devices. Times are honest: an agent wakes some microseconds off its second, a record is
//! appended some milliseconds later, and every device has its own time.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, DictionaryArray, Float64Array, Int32Array, RecordBatch, StringArray, TimestampNanosecondArray,
    UInt32Array, UInt64Array,
};
use trainwarden_store::Record;

pub(crate) const NODES: usize = 8;
pub(crate) const DEVICES: usize = 64;
const DEVICES_PER_NODE: usize = DEVICES / NODES;
const START_NS: i64 = 1_766_000_700_000_000_000;
const SECOND_NS: i64 = 1_000_000_000;
const STEP_SECONDS: usize = 5;

#[derive(Clone, Copy, Debug)]
enum Shape {
    /// Zero, with an error once in a day of one device.
    Errors,
    /// A whole number that moves by a unit now and then: level, unit.
    Slow(f64, f64),
    /// A whole number from 0 to 100: level at full load, noise.
    Percent(f64, f64),
    /// Level at full load, noise, decimals.
    Noisy(f64, f64, i32),
    /// What it grows by in a second at full load, and its noise.
    Counter(f64, f64),
    /// A whole number a second: level at full load, noise.
    Rate(f64, f64),
    /// Equal on all devices and held for a step: level, noise; single precision.
    StepGlobal(f64, f64),
    /// Of one device and held for a step: level, noise, decimals.
    StepLocal(f64, f64, i32),
}

const METRICS: [(&str, Shape); 36] = [
    ("gpu_xid", Shape::Errors),
    ("gpu_ecc_errors_total", Shape::Errors),
    ("gpu_ecc_double_errors_total", Shape::Errors),
    ("gpu_rows_remapped_total", Shape::Errors),
    ("nvlink_crc_errors_total", Shape::Errors),
    ("nvlink_replays_total", Shape::Errors),
    ("pcie_replays_total", Shape::Errors),
    ("nic_errors_total", Shape::Errors),
    ("gpu_temp_c", Shape::Slow(61.0, 1.0)),
    ("gpu_mem_temp_c", Shape::Slow(74.0, 1.0)),
    ("gpu_sm_clock_hz", Shape::Slow(1_980e6, 15e6)),
    ("gpu_mem_clock_hz", Shape::Slow(2_619e6, 1e6)),
    ("fan_speed_percent", Shape::Slow(48.0, 1.0)),
    ("gpu_mem_used_bytes", Shape::Slow(73_400.0 * 1_048_576.0, 2.0 * 1_048_576.0)),
    ("host_mem_used_bytes", Shape::Slow(412_000.0 * 1_048_576.0, 16.0 * 1_048_576.0)),
    ("gpu_throttle_mask", Shape::Slow(4.0, 1.0)),
    ("gpu_util_percent", Shape::Percent(97.0, 2.5)),
    ("gpu_mem_util_percent", Shape::Percent(62.0, 3.0)),
    ("nvdec_util_percent", Shape::Percent(11.0, 2.0)),
    ("gpu_power_w", Shape::Noisy(655.0, 16.0, 3)),
    ("gpu_sm_active_ratio", Shape::Noisy(0.81, 0.016, 6)),
    ("gpu_tensor_active_ratio", Shape::Noisy(0.43, 0.016, 6)),
    ("gpu_dram_active_ratio", Shape::Noisy(0.37, 0.016, 6)),
    ("gpu_occupancy_ratio", Shape::Noisy(0.52, 0.016, 6)),
    ("host_cpu_ratio", Shape::Noisy(0.19, 0.016, 6)),
    ("nvlink_tx_bytes_total", Shape::Counter(2.1e10, 2e8)),
    ("nvlink_rx_bytes_total", Shape::Counter(2.1e10, 2e8)),
    ("nic_tx_bytes_total", Shape::Counter(4.2e9, 4e7)),
    ("gpu_energy_mj_total", Shape::Counter(655_000.0, 16_000.0)),
    ("pcie_tx_bytes_per_s", Shape::Rate(1.3e9, 3e7)),
    ("pcie_rx_bytes_per_s", Shape::Rate(2.4e9, 5e7)),
    ("loss", Shape::StepGlobal(2.31, 0.02)),
    ("grad_norm", Shape::StepGlobal(0.42, 0.03)),
    ("step_time_s", Shape::StepLocal(5.02, 0.004, 6)),
    ("comm_time_s", Shape::StepLocal(0.94, 0.01, 6)),
    ("tokens_per_s", Shape::StepLocal(13_107.0, 12.0, 1)),
];

/// SplitMix64: the whole state is one number, and the seed tells it.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to 1.
    fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Standard normal: Box and Muller.
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.share()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.share()).cos()
    }
}

/// What the log says of a record; owned.
pub(crate) struct Head {
    pub(crate) offset: u64,
    pub(crate) append_time: i64,
    pub(crate) sender: String,
    pub(crate) sequence: u64,
}

impl Head {
    pub(crate) fn record(&self) -> Record<'_> {
        Record {
            offset: self.offset,
            append_time: self.append_time,
            is_backfill: false,
            sender: Some(&self.sender),
            sequence: Some(self.sequence),
        }
    }
}

/// The cluster, second by second.
pub(crate) struct Fleet {
    dice: Dice,
    second: usize,
    load: f64,
    /// Of each device and metric: what it stands at.
    state: Vec<f64>,
    /// Of each device and metric: how far it lies from the others.
    offset: Vec<f64>,
    names: ArrayRef,
}

impl Fleet {
    pub(crate) fn new(seed: u64) -> Self {
        let mut dice = Dice(seed);
        let offset: Vec<f64> = (0..DEVICES * METRICS.len()).map(|_| dice.normal()).collect();
        let mut state = vec![0.0; offset.len()];
        for (index, state) in state.iter_mut().enumerate() {
            *state = match METRICS[index % METRICS.len()].1 {
                Shape::Slow(level, unit) => level + (2.0 * offset[index]).round() * unit,
                Shape::Counter(growth, _) => (growth * 86_400.0 * (3.0 + dice.share())).round(),
                _ => 0.0,
            };
        }
        let names: ArrayRef = Arc::new(StringArray::from_iter_values(METRICS.iter().map(|(name, _)| *name)));
        Self { dice, second: 0, load: 0.9, state, offset, names }
    }

    /// The records of the next second, in the order of the log.
    pub(crate) fn second(&mut self) -> Vec<(Head, RecordBatch)> {
        let phase = (self.second % STEP_SECONDS) as f64 / STEP_SECONDS as f64;
        self.load = (self.load + 0.003 * self.dice.normal()).clamp(0.85, 0.95);
        let load = self.load + 0.05 * (std::f64::consts::TAU * phase).sin();
        let globals: Vec<f64> = (0..METRICS.len()).map(|_| self.dice.normal()).collect();
        let mut records: Vec<(Head, RecordBatch)> = (0..NODES).map(|node| self.node(node, load, &globals)).collect();
        records.sort_by_key(|(head, _)| head.append_time);
        for (offset, (head, _)) in (self.second * NODES..).zip(&mut records) {
            head.offset = offset as u64;
        }
        self.second += 1;
        records
    }

    fn node(&mut self, node: usize, load: f64, globals: &[f64]) -> (Head, RecordBatch) {
        let tick = START_NS + i64::try_from(self.second).expect("an hour") * SECOND_NS;
        let awake = tick + (node as i64) * 117_000_000 + (60_000.0 * self.dice.normal().abs()) as i64;
        let mut times = Vec::new();
        let mut values = Vec::new();
        for device in node * DEVICES_PER_NODE..(node + 1) * DEVICES_PER_NODE {
            // One device after the other is asked, which takes about 800 microseconds each.
            let asked = (device % DEVICES_PER_NODE) as f64 * 8e5 + 2e4 * self.dice.normal();
            for (metric, global) in globals.iter().enumerate() {
                times.push(awake + asked as i64);
                values.push(self.value(device, metric, load, *global));
            }
        }
        // Kafka keeps append times in milliseconds.
        let append_time = (awake / 1_000_000 + 9 + (12.0 * self.dice.share()) as i64) * 1_000_000;
        let sender = format!("agent@node-{node:02}");
        let head = Head { offset: 0, append_time, sender, sequence: 4_000_000 + self.second as u64 };
        (head, self.batch(node, times, values))
    }

    fn value(&mut self, device: usize, metric: usize, load: f64, global: f64) -> f64 {
        let index = device * METRICS.len() + metric;
        let offset = self.offset[index];
        let is_new_step = self.second.is_multiple_of(STEP_SECONDS);
        let state = &mut self.state[index];
        match METRICS[metric].1 {
            Shape::Errors => *state += f64::from(u8::from(self.dice.share() < 1.0 / 86_400.0)),
            Shape::Slow(_, unit) if self.dice.share() < 0.02 => {
                *state = (*state + if self.dice.share() < 0.5 { -unit } else { unit }).max(0.0);
            }
            Shape::Slow(..) => {}
            Shape::Percent(level, noise) => {
                *state = (level * load + noise * (0.3 * offset + self.dice.normal())).round().clamp(0.0, 100.0);
            }
            Shape::Noisy(level, noise, decimals) => {
                *state = rounded((level * load + noise * (0.3 * offset + self.dice.normal())).max(0.0), decimals);
            }
            Shape::Counter(growth, noise) => *state += (growth * load + noise * self.dice.normal()).round().max(0.0),
            Shape::Rate(level, noise) => *state = (level * load + noise * self.dice.normal()).round().max(0.0),
            Shape::StepGlobal(level, noise) if is_new_step => *state = f64::from((level + noise * global) as f32),
            Shape::StepLocal(level, noise, decimals) if is_new_step => {
                *state = rounded(level + noise * (0.3 * offset + self.dice.normal()), decimals);
            }
            Shape::StepGlobal(..) | Shape::StepLocal(..) => {}
        }
        *state
    }

    fn batch(&self, node: usize, times: Vec<i64>, values: Vec<f64>) -> RecordBatch {
        let rows = times.len();
        let devices = (node * DEVICES_PER_NODE..(node + 1) * DEVICES_PER_NODE).map(|device| device as u32);
        let ranks = devices.flat_map(|device| std::iter::repeat_n(device, METRICS.len()));
        let codes = (0..rows).map(|row| (row % METRICS.len()) as i32);
        let metric = DictionaryArray::new(Int32Array::from_iter_values(codes), Arc::clone(&self.names));
        let step = (self.second / STEP_SECONDS) as u64;
        let columns: [(&str, ArrayRef); 6] = [
            ("attempt", Arc::new(UInt32Array::from(vec![0; rows]))),
            ("rank", Arc::new(UInt32Array::from_iter_values(ranks))),
            ("step", Arc::new(UInt64Array::from(vec![step; rows]))),
            ("time", Arc::new(TimestampNanosecondArray::from(times).with_timezone("UTC"))),
            ("metric", Arc::new(metric)),
            ("value", Arc::new(Float64Array::from(values))),
        ];
        RecordBatch::try_from_iter(columns.map(|(name, array)| (name, array.slice(0, rows)))).expect("equal columns")
    }
}

/// The double nearest to a number of few decimals, as a parser of text makes it.
fn rounded(number: f64, decimals: i32) -> f64 {
    let scale = 10_f64.powi(decimals);
    (number * scale).round() / scale
}
