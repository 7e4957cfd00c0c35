//! A fingerprint of weights: a keyed sum that depends on every bit and its place, and what the numbers are like.

#[cfg(target_arch = "x86_64")]
mod avx512;
mod key;

pub use key::FingerprintKey;

use crate::simd::{Isa, Set, stamped};

/// Bytes of a block: what one warp, or one core out of its first cache, takes at a time.
pub(crate) const BLOCK_BYTES: usize = 16 << 10;
/// Bytes of a tile: the unit in which a corruption is located.
pub const TILE_BYTES: usize = 1 << 20;
/// Bytes of a row of a block; 32-bit words of equal place in their row are one lane.
const ROW_BYTES: usize = 512;
const ROWS: usize = BLOCK_BYTES / ROW_BYTES;

pub(crate) type BlockBytes = [u8; BLOCK_BYTES];

/// Number format of weights, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
    /// 8 bits, 4 of exponent, 3 of mantissa, no infinity (OCP E4M3).
    Fp8E4m3,
    /// 8 bits, 5 of exponent, 2 of mantissa, with infinities (OCP E5M2).
    Fp8E5m2,
}

impl Format {
    /// Bytes of one number.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Fp8E4m3 | Self::Fp8E5m2 => 1,
        }
    }

    const fn has_infinity(self) -> bool {
        !matches!(self, Self::Fp8E4m3)
    }

    /// All formats.
    pub const ALL: [Self; 5] = [Self::F32, Self::F16, Self::Bf16, Self::Fp8E4m3, Self::Fp8E5m2];
}

/// Fingerprint of one tile of 1 MiB (the last one may be shorter), 32 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[repr(C)]
pub struct Tile {
    /// Keyed sum modulo 2^64 of all words of the tile and their places in the tensor.
    pub sum: u64,
    /// Sum of the squares of the finite numbers.
    pub sum_of_squares: f64,
    /// The largest size of a finite number.
    pub max: f32,
    /// Number of NaN.
    pub nans: u32,
    /// Number of infinities.
    pub infinities: u32,
    /// Number of zeros of either sign.
    pub zeros: u32,
}

/// Fingerprint of a tensor, or of a slice of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fingerprint {
    /// Keyed sum modulo 2^64 of the tiles' sums and the length.
    pub sum: u64,
    /// Sum of the squares of the finite numbers; its root is the L2 norm.
    pub sum_of_squares: f64,
    /// The largest size of a finite number; zero of none.
    pub max: f32,
    /// Number of NaN.
    pub nans: u64,
    /// Number of infinities.
    pub infinities: u64,
    /// Number of zeros of either sign.
    pub zeros: u64,
    /// One row a MiB: two fingerprints are compared row by row to find the MiB that differs.
    pub tiles: Vec<Tile>,
}

impl Fingerprint {
    /// Euclidean norm of the finite numbers.
    #[must_use]
    pub fn l2_norm(&self) -> f64 {
        self.sum_of_squares.sqrt()
    }

    /// Sums the table up, of a tensor or slice of so many bytes.
    pub(crate) fn sum_up(&mut self, key: &FingerprintKey, bytes: u64) {
        total(self, key, bytes);
    }

    /// Indices of the tiles whose words differ from those of `other`; of different lengths, the tiles of one alone too.
    #[must_use]
    pub fn differing_tiles(&self, other: &Self) -> Vec<usize> {
        let count = self.tiles.len().max(other.tiles.len());
        let sum = |tiles: &[Tile], at: usize| tiles.get(at).map(|tile| tile.sum);
        (0..count).filter(|at| sum(&self.tiles, *at) != sum(&other.tiles, *at)).collect()
    }
}

/// What a block adds to its tile.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Block {
    pub(crate) products: u64,
    pub(crate) words: u64,
    pub(crate) sum_of_squares: f64,
    /// Largest and smallest size, as bits of the format.
    pub(crate) max_bits: u32,
    pub(crate) min_bits: u32,
}

/// Takes the fingerprint of `bytes`.
///
/// * `bytes`: numbers of `format`, at most 2^44 of them, from tile `first_tile` of the tensor on.
/// * `fingerprint`: replaced; its table keeps its memory.
///
/// A block has two sums: that of NH (32-bit words plus keys, products of neighbours, modulo 2^64) and the plain one of its
/// 64-bit words. Both are mixed with the place of the block in the tensor and added, so that tiles, split tensors and
/// devices in any order give the same sum.
/// * A change of a single bit changes the plain sum for certain; it goes unseen only where the two mixed sums cancel,
///   which 64 random bits do.
/// * Another change within a block goes unseen with a probability of at most 2^-32 over the keys (NH is almost universal)
///   and only if the plain sum agrees too; changes of several blocks cancel as 64 random bits do.
/// * Who does not know the key cannot choose a change that is likelier to go unseen.
///
/// The sum of squares has one shape: 128 lanes of words in single precision over the 32 rows of a block, then double
/// precision over lanes, blocks, tiles. Its relative error is at most 2e-6. Numbers that are not finite are left out.
///
/// Cost: one read; about 15 instructions for 64 bytes of bf16. Blocks with a zero or a number that is not finite are
/// looked through once more, out of cache. Nothing is allocated while the tensor does not grow.
///
/// Source: Black et al., "UMAC: Fast and secure message authentication", CRYPTO (1999), section 3, for NH.
pub(crate) fn fingerprint(
    isa: Isa,
    bytes: &[u8],
    format: Format,
    key: &FingerprintKey,
    first_tile: u64,
    fingerprint: &mut Fingerprint,
) {
    fingerprint.tiles.clear();
    for (at, tile) in bytes.chunks(TILE_BYTES).enumerate() {
        fingerprint.tiles.push(tile_of(isa, tile, format, key, first_tile + at as u64));
    }
    total(fingerprint, key, bytes.len() as u64);
}

/// Sums the table of a fingerprint up.
pub(crate) fn total(fingerprint: &mut Fingerprint, key: &FingerprintKey, bytes: u64) {
    let Fingerprint { sum, sum_of_squares, max, nans, infinities, zeros, tiles } = fingerprint;
    *sum = key.mix(bytes, u64::MAX);
    (*sum_of_squares, *max) = (0.0, 0.0);
    (*nans, *infinities, *zeros) = (0, 0, 0);
    for tile in tiles.iter() {
        *sum = sum.wrapping_add(tile.sum);
        *sum_of_squares += tile.sum_of_squares;
        *max = if tile.max > *max { tile.max } else { *max };
        *nans += u64::from(tile.nans);
        *infinities += u64::from(tile.infinities);
        *zeros += u64::from(tile.zeros);
    }
}

fn tile_of(isa: Isa, bytes: &[u8], format: Format, key: &FingerprintKey, place: u64) -> Tile {
    let mut tile = Tile::default();
    let mut max_bits = 0;
    let first_block = place * (TILE_BYTES / BLOCK_BYTES) as u64;
    let (blocks, rest) = bytes.as_chunks::<BLOCK_BYTES>();
    for (at, bytes) in blocks.iter().enumerate() {
        let block = block_of(isa, bytes, format, key);
        add_block(isa, &mut tile, &mut max_bits, block, bytes, format, 0);
        tile.sum = tile.sum.wrapping_add(key.mix_block(block.products, block.words, first_block + at as u64));
    }
    if !rest.is_empty() {
        let mut padded = [0_u8; BLOCK_BYTES];
        padded[..rest.len()].copy_from_slice(rest);
        let block = block_of(isa, &padded, format, key);
        let padding = (BLOCK_BYTES - rest.len()) / format.bytes();
        add_block(isa, &mut tile, &mut max_bits, block, &padded, format, padding as u32);
        tile.sum = tile.sum.wrapping_add(key.mix_block(block.products, block.words, first_block + blocks.len() as u64));
    }
    tile.max = value_of(format, max_bits);
    tile
}

/// Adds what is not the keyed sum; looks for what is zero or not finite only where the extremes say that there is some.
fn add_block(
    isa: Isa,
    tile: &mut Tile,
    max_bits: &mut u32,
    block: Block,
    bytes: &BlockBytes,
    format: Format,
    padding: u32,
) {
    let infinity = infinity_bits(format);
    if block.min_bits == 0 {
        tile.zeros += count_sizes(isa, bytes, format, 0)[0] - padding;
    }
    if block.max_bits < infinity {
        tile.sum_of_squares += block.sum_of_squares;
        *max_bits = block.max_bits.max(*max_bits);
        return;
    }
    let [equal, above] = count_sizes(isa, bytes, format, infinity);
    if format.has_infinity() {
        tile.infinities += equal;
        tile.nans += above;
    } else {
        tile.nans += equal + above;
    }
    let mut finite = *bytes;
    zero_from(isa, &mut finite, format, infinity);
    let (sum_of_squares, finite_max, _) = plain_numbers(isa, &finite, format);
    tile.sum_of_squares += sum_of_squares;
    *max_bits = finite_max.max(*max_bits);
}

/// How many numbers of a block have exactly this size, and how many a larger one.
fn count_sizes(isa: Isa, bytes: &BlockBytes, format: Format, size: u32) -> [u32; 2] {
    match format.bytes() {
        4 => count_words(isa, bytes, size),
        2 => count_halves(isa, bytes, size as u16),
        _ => count_bytes(isa, bytes, size as u8),
    }
}

fn zero_from(isa: Isa, bytes: &mut BlockBytes, format: Format, size: u32) {
    match format.bytes() {
        4 => zero_words(isa, bytes, size),
        2 => zero_halves(isa, bytes, size as u16),
        _ => zero_bytes(isa, bytes, size as u8),
    }
}

stamped! {
    fn count_words(bytes: &'a BlockBytes, size: u32) -> [u32; 2] {
        let (mut equal, mut above) = (0, 0);
        for word in bytes.as_chunks::<4>().0 {
            let this = u32::from_le_bytes(*word) & 0x7fff_ffff;
            equal += u32::from(this == size);
            above += u32::from(this > size);
        }
        [equal, above]
    }

    fn count_halves(bytes: &'a BlockBytes, size: u16) -> [u32; 2] {
        // 8,192 numbers: the counts fit 16 bits, so that 32 of them fit a vector.
        let (mut equal, mut above) = (0_u16, 0_u16);
        for half in bytes.as_chunks::<2>().0 {
            let this = u16::from_le_bytes(*half) & 0x7fff;
            equal += u16::from(this == size);
            above += u16::from(this > size);
        }
        [u32::from(equal), u32::from(above)]
    }

    fn count_bytes(bytes: &'a BlockBytes, size: u8) -> [u32; 2] {
        let (mut equal, mut above) = (0_u32, 0_u32);
        for part in bytes.as_chunks::<128>().0 {
            let (mut part_equal, mut part_above) = (0_u8, 0_u8);
            for byte in part {
                part_equal += u8::from(byte & 0x7f == size);
                part_above += u8::from(byte & 0x7f > size);
            }
            equal += u32::from(part_equal);
            above += u32::from(part_above);
        }
        [equal, above]
    }

    fn zero_words(bytes: &'a mut BlockBytes, size: u32) {
        for word in bytes.as_chunks_mut::<4>().0 {
            let this = u32::from_le_bytes(*word);
            *word = if this & 0x7fff_ffff >= size { 0 } else { this }.to_le_bytes();
        }
    }

    fn zero_halves(bytes: &'a mut BlockBytes, size: u16) {
        for half in bytes.as_chunks_mut::<2>().0 {
            let this = u16::from_le_bytes(*half);
            *half = if this & 0x7fff >= size { 0 } else { this }.to_le_bytes();
        }
    }

    fn zero_bytes(bytes: &'a mut BlockBytes, size: u8) {
        for byte in bytes.iter_mut() {
            *byte = if *byte & 0x7f >= size { 0 } else { *byte };
        }
    }
}

/// The least size that is not a finite number.
const fn infinity_bits(format: Format) -> u32 {
    match format {
        Format::F32 => 0x7f80_0000,
        Format::F16 => 0x7c00,
        Format::Bf16 => 0x7f80,
        Format::Fp8E4m3 => 0x7f,
        Format::Fp8E5m2 => 0x7c,
    }
}

/// The number whose size has these bits; exact for every finite one.
#[inline(always)]
pub(crate) fn value_of(format: Format, size: u32) -> f32 {
    match format {
        Format::F32 => f32::from_bits(size),
        Format::Bf16 => f32::from_bits(size << 16),
        Format::F16 => widen(size << 13, 112),
        Format::Fp8E4m3 => widen(size << 20, 120),
        Format::Fp8E5m2 => widen(size << 21, 112),
    }
}

/// A number of fewer exponent bits, its mantissa moved to where single precision has it; `bias` is the difference of the
/// exponents' biases. A number too small for an exponent is the difference of two that have one.
#[inline(always)]
fn widen(moved: u32, bias: u32) -> f32 {
    let normal = f32::from_bits(moved.wrapping_add(bias << 23));
    let least = f32::from_bits((bias + 1) << 23);
    let small = f32::from_bits(moved | (bias + 1) << 23) - least;
    if moved < 1 << 23 { small } else { normal }
}

#[inline]
fn block_of(isa: Isa, bytes: &BlockBytes, format: Format, key: &FingerprintKey) -> Block {
    #[cfg(target_arch = "x86_64")]
    if isa.0 == Set::Avx512
        && let Some(block) = avx512::block(isa, bytes, format, key)
    {
        return block;
    }
    plain_block(isa, bytes, format, key)
}

pub(crate) fn plain_block(isa: Isa, bytes: &BlockBytes, format: Format, key: &FingerprintKey) -> Block {
    let (products, words) = hash(isa, bytes, key.words());
    let (sum_of_squares, max_bits, min_bits) = plain_numbers(isa, bytes, format);
    Block { products, words, sum_of_squares, max_bits, min_bits }
}

fn plain_numbers(isa: Isa, bytes: &BlockBytes, format: Format) -> (f64, u32, u32) {
    match format {
        Format::F32 => numbers_f32(isa, bytes),
        Format::F16 => numbers_f16(isa, bytes),
        Format::Bf16 => numbers_bf16(isa, bytes),
        Format::Fp8E4m3 => numbers_e4m3(isa, bytes),
        Format::Fp8E5m2 => numbers_e5m2(isa, bytes),
    }
}

stamped! {
    fn hash(bytes: &'a BlockBytes, key: &'a [u32; BLOCK_BYTES / 4]) -> (u64, u64) {
        let (mut products, mut words) = ([0_u64; 8], [0_u64; 8]);
        for (data, key) in bytes.as_chunks::<64>().0.iter().zip(key.as_chunks::<16>().0) {
            for lane in 0..8 {
                let word = u64::from_le_bytes(data.as_chunks::<8>().0[lane]);
                let low = (word as u32).wrapping_add(key[2 * lane]);
                let high = ((word >> 32) as u32).wrapping_add(key[2 * lane + 1]);
                products[lane] = products[lane].wrapping_add(u64::from(low) * u64::from(high));
                words[lane] = words[lane].wrapping_add(word);
            }
        }
        let sum = |lanes: [u64; 8]| lanes.into_iter().fold(0, u64::wrapping_add);
        (sum(products), sum(words))
    }

    fn numbers_f32(bytes: &'a BlockBytes) -> (f64, u32, u32) {
        numbers::<1>(bytes, 0x7fff_ffff, |word, _| f32::from_bits(word), 32)
    }

    fn numbers_bf16(bytes: &'a BlockBytes) -> (f64, u32, u32) {
        let value = |word: u32, part: usize| f32::from_bits(if part == 0 { word << 16 } else { word & 0xffff_0000 });
        numbers::<2>(bytes, 0x7fff, value, 16)
    }

    fn numbers_f16(bytes: &'a BlockBytes) -> (f64, u32, u32) {
        numbers::<2>(bytes, 0x7fff, |word, part| value_of(Format::F16, word >> (16 * part) & 0x7fff), 16)
    }

    fn numbers_e4m3(bytes: &'a BlockBytes) -> (f64, u32, u32) {
        numbers::<4>(bytes, 0x7f, |word, part| value_of(Format::Fp8E4m3, word >> (8 * part) & 0x7f), 8)
    }

    fn numbers_e5m2(bytes: &'a BlockBytes) -> (f64, u32, u32) {
        numbers::<4>(bytes, 0x7f, |word, part| value_of(Format::Fp8E5m2, word >> (8 * part) & 0x7f), 8)
    }
}

/// Sum of squares and extremes of a block. Words hold `PARTS` numbers of `bits` bits, lowest first; `value` gives the
/// number, its sign does not matter.
#[inline(always)]
fn numbers<const PARTS: usize>(
    bytes: &BlockBytes,
    size_mask: u32,
    value: impl Fn(u32, usize) -> f32,
    bits: u32,
) -> (f64, u32, u32) {
    let mut lanes = [0.0_f64; 16];
    let (mut max, mut min) = ([[0_u32; 16]; PARTS], [[u32::MAX; 16]; PARTS]);
    for column in 0..ROW_BYTES / 64 {
        let mut squares = [[0.0_f32; 16]; PARTS];
        for row in 0..ROWS {
            let words = bytes[row * ROW_BYTES + column * 64..][..64].as_chunks::<4>().0;
            for part in 0..PARTS {
                for lane in 0..16 {
                    let word = u32::from_le_bytes(words[lane]);
                    let number = value(word, part);
                    squares[part][lane] += number * number;
                    let size = word >> (bits * part as u32) & size_mask;
                    max[part][lane] = max[part][lane].max(size);
                    min[part][lane] = min[part][lane].min(size);
                }
            }
        }
        for part in squares {
            for lane in 0..16 {
                lanes[lane] += f64::from(part[lane]);
            }
        }
    }
    let max = max.as_flattened().iter().fold(0, |max, size| max.max(*size));
    let min = min.as_flattened().iter().fold(u32::MAX, |min, size| min.min(*size));
    (tree(lanes), max, min)
}

/// Sum of 16 lanes, halves onto each other.
#[inline(always)]
pub(crate) fn tree(mut lanes: [f64; 16]) -> f64 {
    for half in [8, 4, 2, 1] {
        for lane in 0..half {
            lanes[lane] += lanes[lane + half];
        }
    }
    lanes[0]
}

/// Keyed sum of 128 bits: the 64-bit one above, and beside it one with other keys.
///
/// A change that is not of a single bit goes unseen with a probability of 2^-64 within one block. Cost: about five more
/// instructions for 64 bytes.
pub(crate) fn sum_128(isa: Isa, bytes: &[u8], key: &FingerprintKey, first_tile: u64) -> u128 {
    let mut sums = [key.mix(bytes.len() as u64, u64::MAX), key.mix(bytes.len() as u64, u64::MAX - 1)];
    let first_block = first_tile * (TILE_BYTES / BLOCK_BYTES) as u64;
    let mut padded = [0_u8; BLOCK_BYTES];
    for (at, bytes) in bytes.chunks(BLOCK_BYTES).enumerate() {
        let block: &BlockBytes = bytes.try_into().unwrap_or_else(|_| {
            padded[..bytes.len()].copy_from_slice(bytes);
            &padded
        });
        let [first, second, words] = hash_twice(isa, block, key.words(), key.other_words());
        sums[0] = sums[0].wrapping_add(key.mix_block(first, words, first_block + at as u64));
        sums[1] = sums[1].wrapping_add(key.mix_block(second, words.rotate_left(32), !(first_block + at as u64)));
    }
    u128::from(sums[1]) << 64 | u128::from(sums[0])
}

stamped! {
    fn hash_twice(bytes: &'a BlockBytes, key: &'a [u32; BLOCK_BYTES / 4], other: &'a [u32; BLOCK_BYTES / 4]) -> [u64; 3] {
        let (mut first, mut second, mut words) = ([0_u64; 8], [0_u64; 8], [0_u64; 8]);
        let keys = key.as_chunks::<16>().0.iter().zip(other.as_chunks::<16>().0);
        for (data, (key, other)) in bytes.as_chunks::<64>().0.iter().zip(keys) {
            for lane in 0..8 {
                let word = u64::from_le_bytes(data.as_chunks::<8>().0[lane]);
                let (low, high) = (word as u32, (word >> 32) as u32);
                let product = |key: &[u32; 16]| {
                    u64::from(low.wrapping_add(key[2 * lane])) * u64::from(high.wrapping_add(key[2 * lane + 1]))
                };
                first[lane] = first[lane].wrapping_add(product(key));
                second[lane] = second[lane].wrapping_add(product(other));
                words[lane] = words[lane].wrapping_add(word);
            }
        }
        [first, second, words].map(|lanes| lanes.into_iter().fold(0, u64::wrapping_add))
    }
}

/// Numbers of a random projection.
pub const SKETCH: usize = 64;

/// Random projection of a bf16 or f32 tensor onto 64 numbers, which keeps inner products and distances: the mean over keys
/// of `sketch(x) . sketch(y)` is `x . y`, its standard deviation about `|x| |y| / 5`. Ranks whose gradients should be alike
/// are compared by 512 bytes.
///
/// * `sketch`: replaced. Each number of the tensor is added, with a sign that key and place give, to the place of its
///   word modulo 64. Not finite numbers are taken as zero. Sums as those of the fingerprint: single precision in a block,
///   double over blocks.
///
/// Cost: one read, two operations a number. Source: Achlioptas, "Database-friendly random projections", JCSS 66 (2003);
/// Charikar, Chen and Farach-Colton, "Finding frequent items in data streams" (2002) for the signs.
pub(crate) fn sketch(isa: Isa, bytes: &[u8], format: Format, key: &FingerprintKey, sketch: &mut [f64; SKETCH]) {
    sketch.fill(0.0);
    let mut padded = [0_u8; BLOCK_BYTES];
    for (at, bytes) in bytes.chunks(BLOCK_BYTES).enumerate() {
        let block: &BlockBytes = bytes.try_into().unwrap_or_else(|_| {
            padded.fill(0);
            padded[..bytes.len()].copy_from_slice(bytes);
            &padded
        });
        let signs = key.mix(at as u64, 0x5167_6e73) as u32;
        match format {
            Format::F32 => project_f32(isa, block, key.words(), signs, sketch),
            Format::Bf16 => project_bf16(isa, block, key.words(), signs, sketch),
            _ => project_narrow(isa, block, format, key.words(), signs, sketch),
        }
    }
}

stamped! {
    fn project_f32(bytes: &'a BlockBytes, key: &'a [u32; BLOCK_BYTES / 4], signs: u32, sketch: &'a mut [f64; SKETCH]) {
        project::<1>(bytes, key, signs, |word, _| f32::from_bits(word), sketch);
    }

    fn project_bf16(bytes: &'a BlockBytes, key: &'a [u32; BLOCK_BYTES / 4], signs: u32, sketch: &'a mut [f64; SKETCH]) {
        let value = |word: u32, part: usize| f32::from_bits(if part == 0 { word << 16 } else { word & 0xffff_0000 });
        project::<2>(bytes, key, signs, value, sketch);
    }

    fn project_narrow(
        bytes: &'a BlockBytes,
        format: Format,
        key: &'a [u32; BLOCK_BYTES / 4],
        signs: u32,
        sketch: &'a mut [f64; SKETCH],
    ) {
        let value = |word: u32, part: usize| {
            let (number, sign) = if format.bytes() == 2 {
                (word >> (16 * (part % 2)) & 0x7fff, word << (16 - 16 * (part as u32 % 2)) & 1 << 31)
            } else {
                (word >> (8 * part) & 0x7f, word << (24 - 8 * part as u32) & 1 << 31)
            };
            if number >= infinity_bits(format) || part >= 4 / format.bytes() {
                return 0.0;
            }
            f32::from_bits(value_of(format, number).to_bits() | sign)
        };
        project::<4>(bytes, key, signs, value, sketch);
    }
}

#[inline(always)]
fn project<const PARTS: usize>(
    bytes: &BlockBytes,
    key: &[u32; BLOCK_BYTES / 4],
    signs: u32,
    value: impl Fn(u32, usize) -> f32,
    sketch: &mut [f64; SKETCH],
) {
    // Another bit of the key words gives the signs of the next block, and a word of the block turns all of it over.
    let turn = signs & 31;
    for column in 0..ROW_BYTES / 64 {
        let mut sums = [[0.0_f32; 16]; PARTS];
        for row in 0..ROWS {
            let at = row * ROW_BYTES + column * 64;
            let words = bytes[at..][..64].as_chunks::<4>().0;
            let keys = &key[at / 4..][..16];
            for part in 0..PARTS {
                for lane in 0..16 {
                    let number = value(u32::from_le_bytes(words[lane]), part);
                    let number = if number.is_finite() { number } else { 0.0 };
                    let sign = (keys[lane].rotate_left(turn + 7 * part as u32) ^ signs) & 1 << 31;
                    sums[part][lane] += f32::from_bits(number.to_bits() ^ sign);
                }
            }
        }
        let places = &mut sketch[16 * (column % 4)..][..16];
        for part in sums {
            for lane in 0..16 {
                places[lane] += f64::from(part[lane]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Noise;

    fn key() -> FingerprintKey {
        FingerprintKey::new(&[42; 32])
    }

    fn of(isa: Isa, bytes: &[u8], format: Format) -> Fingerprint {
        let mut result = Fingerprint::default();
        fingerprint(isa, bytes, format, &key(), 0, &mut result);
        result
    }

    fn weights(noise: &mut Noise, count: usize) -> Vec<u8> {
        (0..count).flat_map(|_| (((0.02 * noise.normal()).to_bits() >> 16) as u16).to_le_bytes()).collect()
    }

    /// A number of any of the formats, by its definition.
    fn number(format: Format, bits: u32) -> f64 {
        let (exponent_bits, mantissa_bits) = match format {
            Format::F32 => (8, 23),
            Format::F16 => (5, 10),
            Format::Bf16 => (8, 7),
            Format::Fp8E4m3 => (4, 3),
            Format::Fp8E5m2 => (5, 2),
        };
        let bias = (1 << (exponent_bits - 1)) - 1;
        let mantissa = f64::from(bits & ((1 << mantissa_bits) - 1)) / f64::from(1 << mantissa_bits);
        let exponent = (bits >> mantissa_bits) & ((1 << exponent_bits) - 1);
        if exponent == (1 << exponent_bits) - 1 && (format != Format::Fp8E4m3 || mantissa == 0.875) {
            let is_infinite = mantissa == 0.0 && format != Format::Fp8E4m3;
            return if is_infinite { f64::INFINITY } else { f64::NAN };
        }
        match exponent {
            0 => mantissa * 2_f64.powi(1 - bias),
            _ => (1.0 + mantissa) * 2_f64.powi(exponent as i32 - bias),
        }
    }

    fn check_numbers(bytes: &[u8], format: Format) {
        let width = format.bytes();
        let sign = 1_u32 << (8 * width - 1);
        let bits = bytes.chunks(width).map(|chunk| {
            let mut word = [0; 4];
            word[..width].copy_from_slice(chunk);
            u32::from_le_bytes(word) & !sign
        });
        let all: Vec<f64> = bits.map(|bits| number(format, bits)).collect();
        let finite = || all.iter().copied().filter(|number| number.is_finite());
        let ours = of(Isa::plain(), bytes, format);
        assert_eq!(ours.nans, all.iter().filter(|number| number.is_nan()).count() as u64, "{format:?}");
        assert_eq!(ours.infinities, all.iter().filter(|number| number.is_infinite()).count() as u64, "{format:?}");
        assert_eq!(ours.zeros, all.iter().filter(|number| **number == 0.0).count() as u64, "{format:?}");
        assert_eq!(f64::from(ours.max), finite().fold(0.0, f64::max), "{format:?}");
        let squares: f64 = finite().map(|number| number * number).sum();
        let is_representable = squares.is_finite() && squares < 1e38;
        assert!(!is_representable || (ours.sum_of_squares - squares).abs() <= 2e-6 * squares, "{format:?}: {squares}");
        for isa in Isa::all() {
            assert!(of(isa, bytes, format) == ours, "{isa}: {format:?} of {} bytes", bytes.len());
        }
    }

    #[test]
    fn every_number_of_every_short_format_is_what_its_definition_says() {
        for format in [Format::F16, Format::Bf16, Format::Fp8E4m3, Format::Fp8E5m2] {
            for bits in 0..infinity_bits(format) {
                let (ours, theirs) = (f64::from(value_of(format, bits)), number(format, bits));
                assert!(ours == theirs, "{format:?} {bits:#x}: {ours} against {theirs}");
            }
        }
    }

    #[test]
    fn statistics_are_those_of_the_numbers_at_any_length() {
        let mut noise = Noise::new(1);
        for count in [0, 1, 2, 3, 100, 8_191, 8_192, 8_193, 20_000, 600_000] {
            let plain = weights(&mut noise, count);
            check_numbers(&plain, Format::Bf16);
            if count < 50_000 {
                let mut odd = plain.clone();
                for at in (0..odd.len() / 2).step_by(97) {
                    let special = [0x7f80_u16, 0xff80, 0x7fc1, 0x0000, 0x8000, 0x0001][noise.below(6)];
                    odd[2 * at..][..2].copy_from_slice(&special.to_le_bytes());
                }
                check_numbers(&odd, Format::Bf16);
            }
        }
        let bytes: Vec<u8> = (0..40_000).map(|_| noise.word() as u8).collect();
        for format in [Format::F16, Format::Fp8E4m3, Format::Fp8E5m2] {
            check_numbers(&bytes, format);
        }
        let floats: Vec<u8> = (0..9_999).flat_map(|_| noise.normal().to_le_bytes()).collect();
        check_numbers(&floats, Format::F32);
    }

    #[test]
    fn changes_change_the_sum_and_the_table_names_the_tile() {
        let mut noise = Noise::new(2);
        let mut bytes = weights(&mut noise, (3 << 20) / 2 + 77);
        let before = of(Isa::best(), &bytes, Format::Bf16);
        assert_eq!(before.tiles.len(), 4);
        bytes[(2 << 20) + 5] ^= 1;
        let after = of(Isa::best(), &bytes, Format::Bf16);
        assert_ne!(before.sum, after.sum);
        assert_eq!(before.differing_tiles(&after), [2]);
        assert_eq!(before.differing_tiles(&before), [0_usize; 0]);
        let shorter = of(Isa::best(), &bytes[..2 << 20], Format::Bf16);
        assert_eq!(after.differing_tiles(&shorter), [2, 3]);
    }

    #[test]
    fn padding_is_not_data() {
        let zeros = [0_u8; 64];
        assert_ne!(of(Isa::best(), &zeros, Format::F32).sum, of(Isa::best(), &zeros[..60], Format::F32).sum);
        assert_eq!(of(Isa::best(), &zeros, Format::F32).zeros, 16);
    }

    #[test]
    fn a_tensor_in_slices_has_the_tiles_of_the_whole() {
        let bytes = weights(&mut Noise::new(3), (2 << 20) / 2 + 100);
        let whole = of(Isa::best(), &bytes, Format::Bf16);
        let mut slice = Fingerprint::default();
        fingerprint(Isa::best(), &bytes[TILE_BYTES..], Format::Bf16, &key(), 1, &mut slice);
        assert_eq!(slice.tiles, whole.tiles[1..]);
    }

    /// The faults of the workload, over one block with the rest of the sum unchanged: what `cargo bench` does a million
    /// times, a thousand times.
    #[test]
    fn flips_swaps_zeroed_lines_and_paired_flips_are_found() {
        let mut noise = Noise::new(4);
        let bytes = weights(&mut noise, BLOCK_BYTES / 2);
        let before = of(Isa::best(), &bytes, Format::Bf16).sum;
        let wide = sum_128(Isa::best(), &bytes, &key(), 0);
        for round in 0..1_000 {
            let mut changed = bytes.clone();
            let (one, other) = (noise.below(BLOCK_BYTES), noise.below(BLOCK_BYTES));
            match round % 4 {
                0 => changed[one] ^= 1 << noise.below(8),
                1 => (0..2).for_each(|byte| changed.swap(one / 2 * 2 + byte, other / 2 * 2 + byte)),
                2 => changed[one / 256 * 256..][..256].fill(0),
                _ => {
                    let bit = 1 << noise.below(8);
                    changed[one] ^= bit;
                    changed[other] ^= bit;
                }
            }
            if changed != bytes {
                assert_ne!(of(Isa::best(), &changed, Format::Bf16).sum, before, "round {round}");
                assert_ne!(sum_128(Isa::best(), &changed, &key(), 0), wide, "round {round}");
            }
        }
    }

    #[test]
    fn the_wide_sum_and_the_sketch_are_equal_for_all_sets() {
        let mut noise = Noise::new(5);
        let bytes: Vec<u8> = (0..50_004).map(|_| noise.word() as u8).collect();
        let plain = sum_128(Isa::plain(), &bytes, &key(), 3);
        for format in Format::ALL {
            let mut expected = [0.0; SKETCH];
            sketch(Isa::plain(), &bytes, format, &key(), &mut expected);
            for isa in Isa::all() {
                assert_eq!(sum_128(isa, &bytes, &key(), 3), plain, "{isa}");
                let mut ours = [0.0; SKETCH];
                sketch(isa, &bytes, format, &key(), &mut ours);
                assert!(
                    ours.iter().zip(&expected).all(|(one, other)| one.to_bits() == other.to_bits()),
                    "{isa} {format:?}"
                );
            }
        }
    }

    #[test]
    fn the_sketch_keeps_inner_products() {
        let mut noise = Noise::new(6);
        let x: Vec<f32> = (0..30_000).map(|_| noise.normal()).collect();
        let y: Vec<f32> = x.iter().map(|value| 0.8 * value + 0.6 * noise.normal()).collect();
        let bytes = |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|value| value.to_le_bytes()).collect() };
        let dot = |one: &[f64], other: &[f64]| -> f64 { one.iter().zip(other).map(|(one, other)| one * other).sum() };
        let double = |values: &[f32]| -> Vec<f64> { values.iter().map(|value| f64::from(*value)).collect() };
        let expected = dot(&double(&x), &double(&y));
        let scale = (dot(&double(&x), &double(&x)) * dot(&double(&y), &double(&y))).sqrt();
        let mut errors = Vec::new();
        for seed in 0..40 {
            let key = FingerprintKey::new(&[seed; 32]);
            let (mut one, mut other) = ([0.0; SKETCH], [0.0; SKETCH]);
            sketch(Isa::best(), &bytes(&x), Format::F32, &key, &mut one);
            sketch(Isa::best(), &bytes(&y), Format::F32, &key, &mut other);
            errors.push((dot(&one, &other) - expected) / scale);
        }
        let mean = errors.iter().sum::<f64>() / 40.0;
        let deviation = (errors.iter().map(|error| error * error).sum::<f64>() / 40.0).sqrt();
        assert!(mean.abs() < 0.08 && deviation < 0.3, "mean {mean}, deviation {deviation}");
    }
}
