//! The primitives on a device: what is copied, what is launched, what comes back.
//!
//! The caller's state changes only when everything has come back, so that the CPU can begin again where a device fails.

use super::device::{Address, Argument, Device, Fault, Shape};
use crate::backend::CenterSpread;
use crate::cpu::{
    Bocpd, Fingerprint, FingerprintKey, Format, RollingMedian, SequentialBank, SequentialSettings, Slack, TILE_BYTES,
    Tile,
};

/// Bytes that are on the device at a time of arrays that are worked off in slices.
const SLICE_BYTES: usize = 256 << 20;
/// Tiles of other points in one launch of the pairwise distances.
const PAIRWISE_TILES: usize = 64;
/// Points of such a tile.
const PAIRWISE_TILE: usize = 64;
/// Collectives that are summed in single precision.
const SLACK_BLOCK: usize = 64;

/// A type that may be copied to a device and back byte by byte.
///
/// # Safety
/// Every pattern of bits must be a value, and no byte padding.
pub(super) unsafe trait Plain: Copy + Default {}
// SAFETY: numbers and arrays of them are such types; a `Tile` is 32 bytes of numbers without a gap.
unsafe impl Plain for u8 {}
// SAFETY: as above.
unsafe impl Plain for u16 {}
// SAFETY: as above.
unsafe impl Plain for u32 {}
// SAFETY: as above.
unsafe impl Plain for f32 {}
// SAFETY: as above.
unsafe impl Plain for f64 {}
// SAFETY: as above.
unsafe impl Plain for [f32; 4] {}
// SAFETY: as above.
unsafe impl Plain for [f32; 16] {}
// SAFETY: as above.
unsafe impl Plain for [u32; 16] {}
// SAFETY: as above.
unsafe impl Plain for Tile {}

fn bytes_of<T: Plain>(values: &[T]) -> &[u8] {
    // SAFETY: `Plain` has no padding.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}

fn bytes_of_mut<T: Plain>(values: &mut [T]) -> &mut [u8] {
    // SAFETY: `Plain` has no padding, and any bits are a value.
    unsafe { std::slice::from_raw_parts_mut(values.as_mut_ptr().cast(), size_of_val(values)) }
}

/// Truth as the kernels read it: one byte a cell, 0 or 1.
pub(super) fn cells_of(present: &[bool]) -> &[u8] {
    // SAFETY: a `bool` is one byte, 0 or 1.
    unsafe { std::slice::from_raw_parts(present.as_ptr().cast(), present.len()) }
}

/// A buffer of the device that grows and is used again.
#[derive(Clone, Copy, Debug, Default)]
struct Buffer {
    address: Option<Address>,
    bytes: usize,
}

/// A device with its buffers.
pub(super) struct Engine<D: Device> {
    device: D,
    buffers: [Buffer; 12],
    key: Option<FingerprintKey>,
    scratch: Vec<f32>,
}

impl<D: Device> Engine<D> {
    pub(super) fn new(device: D) -> Self {
        Self { device, buffers: [Buffer::default(); 12], key: None, scratch: Vec::new() }
    }

    /// Buffer number `at`, with room for `count` of `T`.
    fn room<T: Plain>(&mut self, at: usize, count: usize) -> Result<Address, Fault> {
        let bytes = (count * size_of::<T>()).max(1);
        let buffer = &mut self.buffers[at];
        if let Some(address) = buffer.address {
            if buffer.bytes >= bytes {
                return Ok(address);
            }
            *buffer = Buffer::default();
            self.device.free(address)?;
        }
        let address = self.device.allocate(bytes)?;
        self.buffers[at] = Buffer { address: Some(address), bytes };
        Ok(address)
    }

    /// Buffer number `at`, holding `values`.
    fn upload<T: Plain>(&mut self, at: usize, values: &[T]) -> Result<Address, Fault> {
        let address = self.room::<T>(at, values.len())?;
        if !values.is_empty() {
            self.device.upload(bytes_of(values), address)?;
        }
        Ok(address)
    }

    fn download<T: Plain>(&mut self, from: Address, count: usize) -> Result<Vec<T>, Fault> {
        let mut values = vec![T::default(); count];
        self.download_to(from, &mut values)?;
        Ok(values)
    }

    fn download_to<T: Plain>(&mut self, from: Address, values: &mut [T]) -> Result<(), Fault> {
        if values.is_empty() { Ok(()) } else { self.device.download(from, bytes_of_mut(values)) }
    }

    /// See [`crate::Backend::center_spread`]; `present` is `None` where all cells are.
    pub(super) fn center_spread(
        &mut self,
        values: &[f32],
        present: Option<&[u8]>,
        [rows, columns]: [usize; 2],
    ) -> Result<CenterSpread, Fault> {
        let mut statistics = CenterSpread::default();
        let rows_at_a_time = (SLICE_BYTES / 4 / columns.max(1)).max(1);
        for first in (0..rows).step_by(rows_at_a_time) {
            let count = rows_at_a_time.min(rows - first);
            let range = first * columns..(first + count) * columns;
            let values = self.upload(0, &values[range.clone()])?;
            let present = match present {
                Some(present) => self.upload(1, &present[range])?,
                None => Address(0),
            };
            let (median, mad, counts) =
                (self.room::<f32>(2, count)?, self.room::<f32>(3, count)?, self.room::<u32>(4, count)?);
            let mut arguments: [Argument; 6] =
                [values.into(), present.into(), (columns as u32).into(), median.into(), mad.into(), counts.into()];
            self.device.launch("center_spread", Shape::one_block_each(count, 256), &mut arguments)?;
            statistics.median.extend(self.download::<f32>(median, count)?);
            statistics.mad.extend(self.download::<f32>(mad, count)?);
            statistics.count.extend(self.download::<u32>(counts, count)?);
        }
        Ok(statistics)
    }

    /// See [`crate::Backend::sequential_update`].
    pub(super) fn sequential(
        &mut self,
        bank: &mut SequentialBank,
        values: &[f32],
        settings: &SequentialSettings,
    ) -> Result<usize, Fault> {
        let series = bank.len();
        if series == 0 {
            return Ok(0);
        }
        let ticks = values.len() / series;
        let values = self.upload(0, values)?;
        let alarms = self.upload(1, &[0_u32])?;
        let SequentialSettings { weight, slack, tolerance, threshold, variance_floor } = *settings;
        let mut arguments: Vec<Argument> = vec![values.into(), (series as u64).into(), (ticks as u32).into()];
        arguments.extend([weight, slack, tolerance, threshold, variance_floor].map(Argument::from));
        let SequentialBank { mean, variance, above, below, drift, drift_least } = bank;
        let states = [mean, variance, above, below, drift, drift_least];
        let mut addresses = [Address(0); 6];
        for (at, state) in states.iter().enumerate() {
            addresses[at] = self.upload(2 + at, state)?;
            arguments.push(addresses[at].into());
        }
        arguments.push(alarms.into());
        self.device.launch("sequential", Shape::one_each(series, 256), &mut arguments)?;
        let alarms = self.download::<u32>(alarms, 1)?[0];
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.resize(6 * series, 0.0);
        for (at, state) in scratch.chunks_exact_mut(series).enumerate() {
            self.download_to(addresses[at], state)?;
        }
        for (new, state) in scratch.chunks_exact(series).zip(states) {
            state.copy_from_slice(new);
        }
        self.scratch = scratch;
        Ok(alarms as usize)
    }

    /// See [`crate::Backend::fingerprint`].
    pub(super) fn fingerprint(
        &mut self,
        bytes: &[u8],
        format: Format,
        key: &FingerprintKey,
        first_tile: u64,
        fingerprint: &mut Fingerprint,
    ) -> Result<(), Fault> {
        fingerprint.tiles.clear();
        for (at, slice) in bytes.chunks(SLICE_BYTES).enumerate() {
            let data = self.upload(0, slice)?;
            let first_tile = first_tile + (at * SLICE_BYTES / TILE_BYTES) as u64;
            let tiles = self.fingerprint_tiles(data, slice.len(), format, key, first_tile)?;
            fingerprint.tiles.extend(tiles);
        }
        fingerprint.sum_up(key, bytes.len() as u64);
        Ok(())
    }

    fn fingerprint_tiles(
        &mut self,
        data: Address,
        bytes: usize,
        format: Format,
        key: &FingerprintKey,
        first_tile: u64,
    ) -> Result<Vec<Tile>, Fault> {
        let kernel = match format {
            Format::F32 => "fingerprint_f32",
            Format::F16 => "fingerprint_f16",
            Format::Bf16 => "fingerprint_bf16",
            Format::Fp8E4m3 => "fingerprint_e4m3",
            Format::Fp8E5m2 => "fingerprint_e5m2",
        };
        let words = self.room::<u32>(1, key.words().len())?;
        if self.key.as_ref() != Some(key) {
            self.key = None;
            self.upload(1, key.words().as_slice())?;
            self.key = Some(key.clone());
        }
        let count = bytes.div_ceil(TILE_BYTES);
        let tiles = self.room::<Tile>(2, count)?;
        let mut arguments: [Argument; 6] =
            [data.into(), (bytes as u64).into(), words.into(), key.mixing().into(), first_tile.into(), tiles.into()];
        self.device.launch(kernel, Shape::one_block_each(count, 256), &mut arguments)?;
        self.download(tiles, count)
    }

    /// See [`crate::Backend::slack`].
    pub(super) fn slack(&mut self, arrivals: &[f32], slack: &mut Slack) -> Result<(), Fault> {
        let ranks = slack.waited.len();
        if ranks == 0 {
            slack.last_arrival.clear();
            slack.last_rank.clear();
            return Ok(());
        }
        let waited = self.upload(1, &slack.waited)?;
        let blamed = self.upload(2, &slack.blamed)?;
        let (mut last_arrival, mut last_rank) = (Vec::new(), Vec::new());
        let blocks_at_a_time = (SLICE_BYTES / 4 / (SLACK_BLOCK * ranks)).max(1);
        for slice in arrivals.chunks(blocks_at_a_time * SLACK_BLOCK * ranks) {
            let collectives = slice.len() / ranks;
            let blocks = collectives.div_ceil(SLACK_BLOCK);
            let cells = self.upload(0, slice)?;
            let (arrival, rank) = (self.room::<f32>(3, collectives)?, self.room::<u32>(4, collectives)?);
            let partial = self.room::<f32>(5, blocks * ranks)?;
            let (count, width) = (Argument::from(collectives as u32), Argument::from(ranks as u32));
            let lanes = ranks.next_power_of_two().min(32);
            let mut arguments =
                [cells.into(), count, width, (lanes as u32).into(), arrival.into(), rank.into(), blamed.into()];
            self.device.launch("slack_last", Shape::one_each(collectives * lanes, 256), &mut arguments)?;
            let mut arguments = [cells.into(), arrival.into(), count, width, partial.into()];
            self.device.launch("slack_waits", Shape::one_each(blocks * ranks, 256), &mut arguments)?;
            let mut arguments = [partial.into(), (blocks as u32).into(), width, waited.into()];
            self.device.launch("slack_total", Shape::one_each(ranks, 64), &mut arguments)?;
            last_arrival.extend(self.download::<f32>(arrival, collectives)?);
            last_rank.extend(self.download::<u32>(rank, collectives)?);
        }
        let (waited, blamed) = (self.download::<f64>(waited, ranks)?, self.download::<u32>(blamed, ranks)?);
        (slack.waited, slack.blamed, slack.last_arrival, slack.last_rank) = (waited, blamed, last_arrival, last_rank);
        Ok(())
    }

    /// See [`crate::Backend::pairwise_row_sums`].
    pub(super) fn pairwise(&mut self, points: &[f32], sums: &mut [f64]) -> Result<(), Fault> {
        let count = sums.len();
        if count == 0 {
            return Ok(());
        }
        let dimensions = points.len() / count;
        let padded = count.next_multiple_of(PAIRWISE_TILE);
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        scratch.resize(dimensions * padded, 0.0);
        for (row, values) in scratch.chunks_exact_mut(padded).zip(points.chunks_exact(count)) {
            row[..count].copy_from_slice(values);
        }
        let points = self.upload(0, &scratch)?;
        self.scratch = scratch;
        let totals = self.room::<f64>(1, count)?;
        self.device.zero(totals, size_of_val(sums))?;
        let tiles = padded / PAIRWISE_TILE;
        let partial = self.room::<f32>(2, PAIRWISE_TILES.min(tiles) * padded)?;
        let (number, width) = (Argument::from(count as u32), Argument::from(padded as u32));
        for first in (0..tiles).step_by(PAIRWISE_TILES) {
            let others = PAIRWISE_TILES.min(tiles - first);
            let mut arguments =
                [points.into(), (dimensions as u32).into(), number, width, (first as u32).into(), partial.into()];
            let shape = Shape { blocks: [tiles as u32, others as u32], threads: 64 };
            self.device.launch("pairwise_tiles", shape, &mut arguments)?;
            let mut arguments = [partial.into(), (others as u32).into(), number, width, totals.into()];
            self.device.launch("pairwise_total", Shape::one_each(count, 256), &mut arguments)?;
        }
        self.download_to(totals, sums)
    }

    /// See [`crate::Backend::rolling_median`].
    pub(super) fn rolling_median(
        &mut self,
        state: &mut RollingMedian,
        values: &[f32],
        medians: &mut [f32],
    ) -> Result<(), Fault> {
        let series = state.series();
        if series == 0 {
            return Ok(());
        }
        let ticks = values.len() / series;
        let parts = state.parts();
        let blocks = parts.counts.len();
        let (values, out) = (self.upload(0, values)?, self.room::<f32>(1, values.len())?);
        let (rings, sorted) = (self.upload(2, parts.rings)?, self.upload(3, parts.sorted)?);
        let (counts, missing) = (self.upload(4, parts.counts)?, self.upload(5, parts.missing)?);
        let sizes = [series, ticks, parts.window, parts.at, blocks].map(|size| Argument::from(size as u32));
        let mut arguments: Vec<Argument> = vec![values.into(), out.into()];
        arguments.extend(sizes);
        arguments.extend([rings, sorted, counts, missing].map(Argument::from));
        self.device.launch("rolling_median", Shape::one_each(16 * blocks, 128), &mut arguments)?;
        let lengths = [parts.rings.len(), parts.missing.len()];
        let new_rings = self.download(rings, lengths[0])?;
        let new_sorted = self.download(sorted, lengths[0])?;
        let new_counts = self.download(counts, blocks)?;
        let new_missing = self.download(missing, lengths[1])?;
        self.download_to(out, medians)?;
        state.advance(ticks, new_rings, new_sorted, new_counts, new_missing);
        Ok(())
    }

    /// See [`crate::Backend::bocpd_update`].
    pub(super) fn bocpd(&mut self, state: &mut Bocpd, values: &[f32]) -> Result<(), Fault> {
        if values.is_empty() {
            return Ok(());
        }
        let parts = state.parts_mut();
        let (values, series) = (self.upload(0, values)?, values.len());
        let table = self.upload(1, &parts.table)?;
        let states = [&*parts.weights, &*parts.means, &*parts.rates, &*parts.totals];
        let mut addresses = [Address(0); 4];
        for (at, state) in states.iter().enumerate() {
            addresses[at] = self.upload(2 + at, state)?;
        }
        let sizes = [series, 1, parts.lengths].map(|size| Argument::from(size as u32));
        let mut arguments: Vec<Argument> = vec![values.into()];
        arguments.extend(sizes);
        arguments.extend(parts.constants.map(Argument::from));
        arguments.push(table.into());
        arguments.extend(addresses.map(Argument::from));
        self.device.launch("bocpd", Shape::one_each(series, 128), &mut arguments)?;
        let lengths = states.map(<[_]>::len);
        let mut new: [Vec<[f32; 16]>; 4] = Default::default();
        for at in 0..4 {
            new[at] = self.download(addresses[at], lengths[at])?;
        }
        for (new, state) in new.iter().zip([parts.weights, parts.means, parts.rates, parts.totals]) {
            state.copy_from_slice(new);
        }
        Ok(())
    }
}

impl<D: Device> Drop for Engine<D> {
    fn drop(&mut self) {
        for address in self.buffers.iter().filter_map(|buffer| buffer.address) {
            // Of a lost device this is refused, and its memory is gone with it.
            let _ = self.device.free(address);
        }
    }
}
