//! Fingerprints of weights, batches and the environment.

use crate::cluster::Layout;
use crate::fault::{active, is_hit};
use crate::moment::Moment;
use crate::random::{Random, Stream, mix};
use crate::{FaultKind, Scenario};

/// Steps whose batches change places under `batch_reorder`.
const REORDER_STEPS: u64 = 8;

/// The weights of each rank, as 64 bits that change as weights would: equal ones stay equal, others never meet.
#[derive(Clone, Debug)]
pub(crate) struct Weights {
    random: Random,
    states: Vec<u64>,
}

impl Weights {
    pub(crate) fn of(scenario: &Scenario, layout: &Layout) -> Self {
        let random = Random { seed: scenario.seed };
        // Replicas of one shard, the ranks of one communicator, begin equal.
        let state = |group: u32| random.bits(Stream::Weight, group, 0);
        Self { random, states: layout.places.iter().map(|place| state(place.shard)).collect() }
    }

    /// The digest of a rank's weights as they are now: one bit of them moves half of its own.
    pub(crate) fn digest(&self, rank: u32) -> Hex {
        Hex::of(mix(self.states[rank as usize]))
    }

    /// What happens to weights between two steps, where nothing should.
    ///
    /// * Returns the nats that it costs.
    pub(crate) fn between(&mut self, scenario: &Scenario, moment: Moment) -> Option<f64> {
        let edits = active(&scenario.faults, FaultKind::WeightEdit, moment).filter(|fault| fault.begins(moment));
        let mut nats = None;
        for fault in edits {
            self.move_all(moment, |rank| fault.touches(moment, rank));
            nats = Some(nats.unwrap_or(0.0) + fault.size);
        }
        nats
    }

    /// Moves the weights of some ranks, all of them alike.
    pub(crate) fn move_all(&mut self, moment: Moment, is_touched: impl Fn(u32) -> bool) {
        let edit = self.random.bits(Stream::Tamper, 0, moment.tick());
        (0_u32..).zip(&mut self.states).filter(|(rank, _)| is_touched(*rank)).for_each(|(_, state)| *state ^= edit);
    }

    /// The optimizer's step.
    pub(crate) fn advance(&mut self, scenario: &Scenario, moment: Moment) {
        let flips: Vec<_> = active(&scenario.faults, FaultKind::WeightFlip, moment).collect();
        for (rank, state) in (0_u32..).zip(&mut self.states) {
            *state = mix(*state);
            if flips.iter().any(|fault| fault.begins(moment) && fault.touches(moment, rank)) {
                *state ^= 1 << (self.random.bits(Stream::Tamper, rank, moment.tick()) & 63);
            }
        }
    }

    /// The digest of all shards together, as a checkpoint holds them.
    pub(crate) fn checkpoint(&self) -> Hex {
        Hex::of(self.states.iter().fold(0, |sum, state| mix(sum ^ state)))
    }
}

/// The digest of the batch that a data-parallel index reads in a step.
pub(crate) fn batch_digest(scenario: &Scenario, moment: Moment, dp: u32) -> Hex {
    let (random, faults) = (Random { seed: scenario.seed }, &scenario.faults);
    let is_same = active(faults, FaultKind::BatchSame, moment).next().is_some();
    let back: f64 = active(faults, FaultKind::BatchRepeat, moment).map(|fault| fault.size).sum();
    let is_reordered = active(faults, FaultKind::BatchReorder, moment).next().is_some();
    // Inside its block each step takes the place of the one opposite.
    let place = if is_reordered { moment.step ^ (REORDER_STEPS - 1) } else { moment.step };
    Hex::of(random.bits(Stream::Batch, if is_same { 0 } else { dp }, place.saturating_sub(back as u64)))
}

/// Digests of code, configuration and environment of a rank: kind, name, digest.
pub(crate) fn environment(scenario: &Scenario, moment: Moment, rank: u32) -> [(&'static str, &'static str, Hex); 3] {
    let (random, faults) = (Random { seed: scenario.seed }, &scenario.faults);
    let word = |number: u64, is_other: bool| Hex::of(random.bits(Stream::Environment, u32::from(is_other), number));
    let has_other_code = is_hit(faults, FaultKind::CodeMismatch, moment, rank)
        || active(faults, FaultKind::CodeChange, moment).next().is_some();
    let has_other_packages = active(faults, FaultKind::EnvironmentChange, moment).next().is_some();
    [
        ("code", "trainer", word(0, has_other_code)),
        ("config", "run", word(1, false)),
        ("env", "packages", word(2, has_other_packages)),
    ]
}

/// A digest of sixteen hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hex([u8; 16]);

impl Hex {
    fn of(word: u64) -> Self {
        let digit = |place: usize| b"0123456789abcdef"[(word >> (60 - 4 * place) & 15) as usize];
        Self(std::array::from_fn(digit))
    }

    pub(crate) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("hexadecimal digits are text")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_the_word_in_hexadecimal() {
        assert_eq!(Hex::of(0x0123_4567_89AB_CDEF).as_str(), "0123456789abcdef");
    }
}
