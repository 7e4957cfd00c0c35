//! What the two detectors of data share: the data-parallel index that reads a batch, and short names for long
//! digests.

use std::fmt;

use serde::{Deserialize, Serialize};
use trainwarden_telemetry::{Attempt, Rank};

use crate::Scene;

/// Who reads a batch of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Index {
    /// The whole run tells one batch.
    Whole,
    /// A told data-parallel index.
    Dp(u32),
    /// A rank of which no index is told: its own index.
    Rank(Rank),
}

impl fmt::Display for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole => f.write_str("the run"),
            Self::Dp(index) => write!(f, "dp {index}"),
            Self::Rank(rank) => write!(f, "{rank}"),
        }
    }
}

/// The data-parallel index a rank belongs to.
pub(crate) fn index_of(rank: Option<Rank>, attempt: Attempt, scene: &Scene) -> Index {
    let Some(rank) = rank else { return Index::Whole };
    let placement = scene.roster(attempt).and_then(|roster| roster.placements.get(&rank));
    placement.and_then(|placement| placement.dp).map_or(Index::Rank(rank), Index::Dp)
}

/// A 64-bit hash of words in order, the same in every process.
///
/// Source: Fowler, Noll and Vo, FNV-1a, with the finisher of SplitMix64 (Steele, Lea, Flood, 2014), because short
/// words leave the upper bits of FNV poorly mixed.
pub(crate) fn hash(words: &[&str]) -> u64 {
    let mut state = 0xcbf2_9ce4_8422_2325_u64;
    for word in words {
        // 0xff is in no UTF-8 text, so that word boundaries count.
        for byte in word.bytes().chain([0xff]) {
            state = (state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_tell_words_and_their_boundaries_apart() {
        assert_eq!(hash(&["a", "b"]), hash(&["a", "b"]));
        assert_ne!(hash(&["a", "b"]), hash(&["ab"]));
        assert_ne!(hash(&["a", "b"]), hash(&["b", "a"]));
        assert_ne!(hash(&[]), hash(&[""]));
    }
}
