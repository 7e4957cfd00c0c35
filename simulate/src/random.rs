//! Random numbers without a state: each is a function of (seed, stream, rank, step).
//!
//! So a rank's noise does not depend on how many ranks there are or on what was drawn before, and a faulty run has the
//! very noise of its healthy twin.

/// What a random number is for; no two uses share a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Stream {
    Skew = 1,
    Forward,
    Backward,
    Tail,
    TailSize,
    Clock,
    Loss,
    GradientNorm,
    Cosine,
    Sleep,
    Weight,
    Batch,
    Environment,
    Tamper,
    DeviceOffset,
    DeviceClock,
    DeviceTemperature,
    DevicePower,
    DeviceErrors,
    Kill,
    Update,
}

/// Parts of 16 bits that a normal number is the sum of: twelve uniform numbers have a variance of exactly 1.
const NORMAL_PARTS: u64 = 12;

/// What the counter of SplitMix64 goes on by: odd, and the golden ratio.
const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

/// Random numbers of one seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Random {
    pub(crate) seed: u64,
}

impl Random {
    /// 64 random bits.
    pub(crate) fn bits(self, stream: Stream, rank: u32, step: u64) -> u64 {
        mix(mix(mix(self.seed ^ mix(stream as u64)) ^ u64::from(rank)) ^ step)
    }

    /// A number from 0 (included) to 1 (excluded).
    pub(crate) fn uniform(self, stream: Stream, rank: u32, step: u64) -> f64 {
        (self.bits(stream, rank, step) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A number of mean 0 and deviation 1, at most 6 from its mean.
    ///
    /// The sum of twelve uniform numbers, because the exact forms need `ln` and `cos`.
    pub(crate) fn normal(self, stream: Stream, rank: u32, step: u64) -> f64 {
        let first = self.bits(stream, rank, step);
        let mut sum = 0;
        for word in [first, mix(first), mix(mix(first))] {
            sum += (word & 0xFFFF) + (word >> 16 & 0xFFFF) + (word >> 32 & 0xFFFF) + (word >> 48);
        }
        // Half a unit a part centres the 65,536 steps of each part in 0 to 1.
        (sum as f64 + 0.5 * NORMAL_PARTS as f64) / 65_536.0 - 0.5 * NORMAL_PARTS as f64
    }
}

/// Random numbers one after the other, all of them fixed by the seed: SplitMix64.
#[derive(Clone, Debug)]
pub struct Draws(u64);

impl Draws {
    /// Draws of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 random bits.
    pub fn bits(&mut self) -> u64 {
        let word = mix(self.0);
        self.0 = self.0.wrapping_add(GAMMA);
        word
    }

    /// A number below `end`, which is above zero.
    pub fn below(&mut self, end: u64) -> u64 {
        self.bits() % end
    }
}

/// The finaliser of SplitMix64 after one step of its counter: a bijection in which each bit in moves half of those out.
///
/// Source: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014.
pub(crate) fn mix(word: u64) -> u64 {
    let word = word.wrapping_add(GAMMA);
    let word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bits_are_those_of_every_machine() {
        // The first two outputs of SplitMix64 from state 0, as published with the algorithm.
        assert_eq!(mix(0), 0xE220_A839_7B1D_CDAF);
        assert_eq!(mix(0x9E37_79B9_7F4A_7C15), 0x6E78_9E6A_A1B9_65F4);
        let mut draws = Draws::new(0);
        assert_eq!([draws.bits(), draws.bits()], [0xE220_A839_7B1D_CDAF, 0x6E78_9E6A_A1B9_65F4]);
    }

    #[test]
    fn normal_numbers_have_mean_zero_and_deviation_one() {
        let random = Random { seed: 7 };
        let draws: Vec<f64> = (0..20_000).map(|step| random.normal(Stream::Forward, 3, step)).collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let variance = draws.iter().map(|draw| (draw - mean) * (draw - mean)).sum::<f64>() / draws.len() as f64;
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.03, "mean {mean}, variance {variance}");
    }

    #[test]
    fn ranks_steps_streams_and_seeds_draw_apart() {
        let random = Random { seed: 7 };
        let word = random.bits(Stream::Forward, 3, 5);
        assert_ne!(word, random.bits(Stream::Backward, 3, 5));
        assert_ne!(word, random.bits(Stream::Forward, 5, 3));
        assert_ne!(word, Random { seed: 8 }.bits(Stream::Forward, 3, 5));
    }
}
