//! The key of fingerprints.

use std::fmt;

use crate::cpu::fingerprint::BLOCK_BYTES;

const WORDS: usize = BLOCK_BYTES / 4;

/// What makes fingerprints of one run unpredictable for whoever would forge weights that keep theirs.
///
/// All ranks of a run share it; a seed that is public makes a fingerprint that still finds faults, not forgeries.
#[derive(Clone, PartialEq, Eq)]
pub struct FingerprintKey {
    words: Box<[u32; WORDS]>,
    other_words: Box<[u32; WORDS]>,
    mixing: [u64; 4],
}

impl fmt::Debug for FingerprintKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("FingerprintKey(..)")
    }
}

impl FingerprintKey {
    /// Expands a seed with the ChaCha20 stream (nonce and counter zero): two tables of one word for each word of a block,
    /// then four words of 64 bits that mix block sums.
    ///
    /// Source: Nir and Langley, "ChaCha20 and Poly1305 for IETF protocols", RFC 8439 (2018), 2.3.
    #[must_use]
    pub fn new(seed: &[u8; 32]) -> Self {
        let mut stream = ChaCha::new(seed);
        let mut table = || Box::new(std::array::from_fn(|_| stream.word()));
        let (words, other_words) = (table(), table());
        let mixing = std::array::from_fn(|_| u64::from(stream.word()) | u64::from(stream.word()) << 32);
        Self { words, other_words, mixing }
    }

    /// `[4096]`: one word for each 32-bit word of a block.
    pub(crate) fn words(&self) -> &[u32; WORDS] {
        &self.words
    }

    /// As [`FingerprintKey::words`], for the second half of 128 bits.
    pub(crate) fn other_words(&self) -> &[u32; WORDS] {
        &self.other_words
    }

    /// What block sums are mixed with: two words for the products, two for the plain sum.
    pub(crate) fn mixing(&self) -> [u64; 4] {
        self.mixing
    }

    /// Mixes a word with its place: one to one in the word, and looking random in both.
    ///
    /// Source: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA (2014), for the finaliser.
    pub(crate) fn mix(&self, word: u64, place: u64) -> u64 {
        mixed(word, place, self.mixing[0], self.mixing[1])
    }

    /// Mixes the two sums of a block with its place in the tensor.
    pub(crate) fn mix_block(&self, products: u64, words: u64, place: u64) -> u64 {
        let words = mixed(words, place, self.mixing[2], self.mixing[3]);
        self.mix(products, place).wrapping_add(words)
    }
}

fn mixed(word: u64, place: u64, add: u64, xor: u64) -> u64 {
    let mut mixed = word.wrapping_add(place.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_add(add) ^ xor;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

struct ChaCha {
    state: [u32; 16],
    block: [u32; 16],
    used: usize,
}

impl ChaCha {
    fn new(seed: &[u8; 32]) -> Self {
        let mut state = [0; 16];
        state[..4].copy_from_slice(&[0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574]); // "expand 32-byte k"
        for (word, bytes) in state[4..12].iter_mut().zip(seed.as_chunks::<4>().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        Self { state, block: [0; 16], used: 16 }
    }

    fn word(&mut self) -> u32 {
        if self.used == 16 {
            self.block = block(&self.state);
            self.state[12] += 1;
            self.used = 0;
        }
        self.used += 1;
        self.block[self.used - 1]
    }
}

fn block(state: &[u32; 16]) -> [u32; 16] {
    let mut x = *state;
    for _ in 0..10 {
        for at in 0..4 {
            quarter(&mut x, [at, 4 + at, 8 + at, 12 + at]);
        }
        for at in 0..4 {
            quarter(&mut x, [at, 4 + (at + 1) % 4, 8 + (at + 2) % 4, 12 + (at + 3) % 4]);
        }
    }
    for (word, first) in x.iter_mut().zip(state) {
        *word = word.wrapping_add(*first);
    }
    x
}

fn quarter(x: &mut [u32; 16], [a, b, c, d]: [usize; 4]) {
    for (one, two, three, turn) in [(a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)] {
        x[one] = x[one].wrapping_add(x[two]);
        x[three] = (x[three] ^ x[one]).rotate_left(turn);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_is_that_of_the_rfc() {
        // RFC 8439, appendix A.1, test vector 1: key, nonce and counter zero.
        let mut stream = ChaCha::new(&[0; 32]);
        assert_eq!([stream.word(), stream.word(), stream.word()], [0xade0_b876, 0x903d_f1a0, 0xe56a_5d40]);
        let bytes: Vec<u8> = (0..13).flat_map(|_| stream.word().to_le_bytes()).collect();
        assert_eq!(bytes.last(), Some(&0x86));
    }

    #[test]
    fn a_key_does_not_tell_itself() {
        assert_eq!(format!("{:?}", FingerprintKey::new(&[7; 32])), "FingerprintKey(..)");
    }
}
