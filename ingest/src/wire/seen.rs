//! Which frames of a sender were taken.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::limits::FRAMES_REMEMBERED;

/// What a frame is against those taken before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sight {
    /// It was not there.
    New,
    /// The same frame was taken.
    Repeated,
    /// Another frame of the same sequence was taken.
    Contradicting,
    /// It is older than what is remembered: whether it was taken cannot be said.
    Forgotten,
}

/// The frames of one sender and run: a frame sent twice counts once, in whatever order frames come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Every sequence below was seen.
    next: u64,
    /// Hashes of the newest frames, by sequence.
    hashes: BTreeMap<u64, u64>,
}

impl Seen {
    /// Notes a frame.
    ///
    /// * `hash`: of its envelope.
    pub fn note(&mut self, sequence: u64, hash: u128) -> Sight {
        // Half of a half: two frames of one sequence that agree in 64 bits do not come by chance.
        let hash = (hash >> 64) as u64;
        if let Some(known) = self.hashes.get(&sequence) {
            return if *known == hash { Sight::Repeated } else { Sight::Contradicting };
        }
        if sequence < self.next {
            return Sight::Forgotten;
        }
        self.hashes.insert(sequence, hash);
        while self.hashes.contains_key(&self.next) {
            self.next += 1;
        }
        while self.hashes.len() > FRAMES_REMEMBERED {
            let (oldest, _) = self.hashes.pop_first().expect("it is not empty");
            self.next = self.next.max(oldest + 1);
        }
        Sight::New
    }

    /// True when every frame before this sequence was taken.
    #[must_use]
    pub fn is_complete_before(&self, sequence: u64) -> bool {
        self.next >= sequence
    }

    /// True when a frame is missing between those taken.
    #[must_use]
    pub fn has_gap(&self) -> bool {
        self.hashes.last_key_value().is_some_and(|(last, _)| *last >= self.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn hash(number: u128) -> u128 {
        number << 64
    }

    #[test]
    fn a_frame_counts_once_in_whatever_order_it_comes() {
        let mut seen = Seen::default();
        assert_eq!(seen.note(1, hash(1)), Sight::New);
        assert!(seen.has_gap() && !seen.is_complete_before(2));
        assert_eq!(seen.note(0, hash(0)), Sight::New);
        assert!(!seen.has_gap() && seen.is_complete_before(2) && !seen.is_complete_before(3));
        assert_eq!(seen.note(1, hash(1)), Sight::Repeated);
        assert_eq!(seen.note(1, hash(2)), Sight::Contradicting);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_what_is_forgotten_is_not_taken_again() {
        let mut seen = Seen::default();
        for sequence in 0..=FRAMES_REMEMBERED as u64 {
            assert_eq!(seen.note(sequence, hash(sequence.into())), Sight::New);
        }
        assert_eq!(seen.hashes.len(), FRAMES_REMEMBERED);
        assert_eq!(seen.note(0, hash(0)), Sight::Forgotten);
    }
}
