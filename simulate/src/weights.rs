//! Fingerprints of weights, batches and the environment.

use crate::cluster::Layout;
use crate::fault::{active, is_hit};
use crate::random::{Random, Stream, mix};
use crate::{FaultKind, Scenario};

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
        let state = |group: usize| random.bits(Stream::Weight, group as u32, 0);
        Self { random, states: layout.places.iter().map(|place| state(place.group)).collect() }
    }

    /// The digest of a rank's weights as they are now.
    pub(crate) fn digest(&self, rank: u32) -> String {
        hex(self.states[rank as usize])
    }

    /// What happens to weights between two steps, where nothing should.
    pub(crate) fn between(&mut self, scenario: &Scenario, step: u64) {
        for fault in active(&scenario.faults, FaultKind::WeightEdit, step).filter(|fault| fault.onset_step == step) {
            let edit = self.random.bits(Stream::Tamper, 0, step);
            let touched = |rank: u32| fault.touches(step, rank);
            (0_u32..).zip(&mut self.states).filter(|(rank, _)| touched(*rank)).for_each(|(_, state)| *state ^= edit);
        }
    }

    /// The optimizer's step.
    pub(crate) fn advance(&mut self, scenario: &Scenario, step: u64) {
        for (rank, state) in (0_u32..).zip(&mut self.states) {
            *state = mix(*state);
            let mut flips = active(&scenario.faults, FaultKind::WeightFlip, step);
            if flips.any(|fault| fault.onset_step == step && fault.touches(step, rank)) {
                *state ^= 1 << (self.random.bits(Stream::Tamper, rank, step) & 63);
            }
        }
    }
}

/// The digest of the batch that a data-parallel index reads in a step.
pub(crate) fn batch_digest(scenario: &Scenario, step: u64, dp: u32) -> String {
    let random = Random { seed: scenario.seed };
    let is_same = active(&scenario.faults, FaultKind::BatchSame, step).next().is_some();
    let back: f64 = active(&scenario.faults, FaultKind::BatchRepeat, step).map(|fault| fault.size).sum();
    let planned = step.saturating_sub(back as u64);
    hex(random.bits(Stream::Batch, if is_same { 0 } else { dp }, planned))
}

/// Digests of code, configuration and environment of a rank: kind, name, digest.
pub(crate) fn environment(scenario: &Scenario, step: u64, rank: u32) -> [(&'static str, &'static str, String); 3] {
    let random = Random { seed: scenario.seed };
    let word = |number: u64, is_other: bool| hex(random.bits(Stream::Environment, u32::from(is_other), number));
    let has_other_code = is_hit(&scenario.faults, FaultKind::CodeMismatch, step, rank)
        || active(&scenario.faults, FaultKind::CodeChange, step).next().is_some();
    [
        ("code", "trainer", word(0, has_other_code)),
        ("config", "run", word(1, false)),
        ("env", "packages", word(2, false)),
    ]
}

/// The digest of a checkpoint.
pub(crate) fn checkpoint_digest(scenario: &Scenario, step: u64) -> String {
    hex(Random { seed: scenario.seed }.bits(Stream::Checkpoint, 0, step))
}

fn hex(word: u64) -> String {
    format!("{word:016x}")
}
