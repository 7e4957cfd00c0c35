//! A hash of numbers for tables inside one part: fast, the same everywhere, and for nothing that a stranger could choose
//! to make slow for others.

use std::hash::{BuildHasherDefault, Hasher};

/// For maps and sets of numbers.
pub(crate) type BuildNumberHasher = BuildHasherDefault<NumberHasher>;

/// Folds the upper half of a product over the lower one, number by number.
///
/// Source: the folded multiply of wyhash and foldhash.
#[derive(Debug, Default)]
pub(crate) struct NumberHasher(u64);

impl Hasher for NumberHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u64(&mut self, number: u64) {
        let product = u128::from(self.0 ^ number ^ 0x9e37_79b9_7f4a_7c15) * 0xa076_1d64_78bd_642f;
        self.0 = (product as u64) ^ ((product >> 64) as u64);
    }

    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }
}
