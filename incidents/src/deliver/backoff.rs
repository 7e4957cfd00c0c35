//! How long a failure waits before it is tried again.

/// Exponential waits with jitter, so that many that failed together do not come back together.
///
/// Source: Brooker, "Exponential Backoff And Jitter" (2015), the variant "equal jitter".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The first wait, in nanoseconds.
    pub first_ns: i64,
    /// The longest wait, in nanoseconds.
    pub longest_ns: i64,
}

impl Backoff {
    /// The wait after a failure: between half of the full wait and the full wait.
    ///
    /// * `failures`: how many came before this one.
    /// * `seed`: the same gives the same wait.
    #[must_use]
    pub fn wait_ns(self, failures: u32, seed: u64) -> i64 {
        let full = self.first_ns.saturating_mul(1_i64.checked_shl(failures.min(40)).unwrap_or(i64::MAX));
        let full = full.min(self.longest_ns);
        let half = full / 2;
        // 53 bits of noise are a fraction below one.
        let fraction = (mixed(seed ^ u64::from(failures)) >> 11) as f64 / (1_u64 << 53) as f64;
        half + ((full - half) as f64 * fraction) as i64
    }
}

/// One step of SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014).
fn mixed(seed: u64) -> u64 {
    let mut bits = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_differ_between_seeds() {
        let backoff = Backoff { first_ns: 1_000, longest_ns: 60_000 };
        for failures in 0..70 {
            let full = 1_000_i64.saturating_mul(1 << failures.min(30)).min(60_000);
            let waits: Vec<i64> = (0..200).map(|seed| backoff.wait_ns(failures, seed)).collect();
            assert!(waits.iter().all(|wait| (full / 2..=full).contains(wait)), "{failures}: {waits:?}");
            let (least, most) = (waits.iter().min().expect("some"), waits.iter().max().expect("some"));
            assert!(most - least > full / 4, "{failures}: they spread");
        }
        assert_eq!(backoff.wait_ns(3, 9), backoff.wait_ns(3, 9));
    }
}
