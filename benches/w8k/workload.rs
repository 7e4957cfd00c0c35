//! The workload W of the peers' comparison, rebuilt from its description with random numbers of our own.
//!
//! Step times of `ranks` ranks in seconds: base 250 ms, rank skew 0.5 %, common wave 1 %, AR(1) noise 2.1 % (phi 0.3), all
//! ranks +25 % on steps 700 to 705 (a checkpoint, which must blame nobody). From step 500 on, one rank in 128 each is
//! 10 % slower, drifts to 10 % slower, has three single points of +40 %, or is 3 % slower.

use trainwarden_simulate::Draws;

/// Steps of the workload: the faults need so many.
pub(crate) const STEPS: u64 = 1_000;
const FAULT_STEP: u64 = 500;
/// Ranks of each class of faults: every 128th, classes side by side.
const STRIDE: u32 = 128;
/// The classes of faults, the first one on rank 1 of each stride.
pub(crate) const CLASSES: [&str; 4] = ["step10", "drift10", "spike40", "stealth3"];

/// Same ranks and seed, same numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Workload {
    pub(crate) ranks: u32,
    pub(crate) seed: u64,
}

impl Workload {
    /// The class of faults a rank has, if it has one.
    pub(crate) fn class_of(rank: u32) -> Option<usize> {
        let place = (rank % STRIDE).checked_sub(1)? as usize;
        (place < CLASSES.len()).then_some(place)
    }

    /// Ranks of one class.
    pub(crate) fn ranks_of_class(self) -> usize {
        (0..self.ranks).filter(|rank| Self::class_of(*rank) == Some(0)).count()
    }

    /// Calls `take` with each step and the times of all ranks in it.
    pub(crate) fn each_step(self, mut take: impl FnMut(u64, &[f64])) {
        let mut draws = Draws::new(self.seed);
        let skews: Vec<f64> = (0..self.ranks).map(|_| 0.005 * normal(&mut draws)).collect();
        let spike = |draws: &mut Draws| FAULT_STEP + draws.below(STEPS - FAULT_STEP);
        let spikes: Vec<[u64; 3]> = (0..self.ranks).map(|_| [0; 3].map(|_| spike(&mut draws))).collect();
        let mut states = vec![0.0; self.ranks as usize];
        let mut values = vec![0.0; self.ranks as usize];
        for step in 0..STEPS {
            let wave = 0.01 * (step as f64 * std::f64::consts::TAU / 200.0).sin();
            let common = if (700..=705).contains(&step) { 1.25 } else { 1.0 };
            for rank in 0..self.ranks {
                let at = rank as usize;
                states[at] = 0.3 * states[at] + 0.021 * (1.0_f64 - 0.09).sqrt() * normal(&mut draws);
                let usual = 0.25 * (1.0 + skews[at]) * (1.0 + wave + states[at]);
                values[at] = usual * common * fault(rank, step, &spikes[at]);
            }
            take(step, &values);
        }
    }
}

/// What a rank's fault makes of its step time.
fn fault(rank: u32, step: u64, spikes: &[u64; 3]) -> f64 {
    if step < FAULT_STEP {
        return 1.0;
    }
    match Workload::class_of(rank) {
        Some(0) => 1.10,
        Some(1) => 1.0 + 0.10 * (step - FAULT_STEP) as f64 / (STEPS - FAULT_STEP) as f64,
        Some(2) if spikes.contains(&step) => 1.40,
        Some(3) => 1.03,
        _ => 1.0,
    }
}

/// Standard normal (Box-Muller).
fn normal(draws: &mut Draws) -> f64 {
    let uniform = |bits: u64| ((bits >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    let (radius, angle) = (uniform(draws.bits()), uniform(draws.bits()));
    (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
}
