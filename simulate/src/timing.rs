//! How long the work of a rank takes.

use crate::cluster::Group;
use crate::fault::{active, factor, is_hit};
use crate::moment::Moment;
use crate::random::{Random, Stream};
use crate::run::nanoseconds;
use crate::{Axis, FaultKind, Scenario};

/// Shares of the step's own work; the optimizer has the rest.
const FORWARD_SHARE: f64 = 0.32;
const BACKWARD_SHARE: f64 = 0.64;
/// Work that the first step adds for compiling and filling caches, in steps; later ones a quarter, a ninth, ...
const FIRST_STEP_EXTRA: f64 = 2.0;
/// Largest lateness out of the ordinary, in scales of the tail.
const TAIL_MAX: f64 = 20.0;
/// Least noise factor: no work takes no time.
const FACTOR_MIN: f64 = 0.1;
/// Chance of a step to have a sleeping rank under `random_sleeps`.
const SLEEP_CHANCE: f64 = 0.25;
/// How much of a lower clock shows in the work: the rest waits for memory.
const CLOCK_BOUND: f64 = 0.8;

/// The own work of one rank in one step, in seconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Work {
    pub(crate) forward_s: f64,
    pub(crate) backward_s: f64,
}

/// The noise of the work, rank by rank.
#[derive(Clone, Debug)]
pub(crate) struct Timing {
    random: Random,
    skew: Vec<f64>,
    forward: Vec<f64>,
    backward: Vec<f64>,
    /// What all ranks have in common in the step at hand.
    common: f64,
}

impl Timing {
    pub(crate) fn of(scenario: &Scenario) -> Self {
        let random = Random { seed: scenario.seed };
        let ranks = scenario.cluster.ranks();
        let skew = (0..ranks).map(|rank| scenario.noise.skew * random.normal(Stream::Skew, rank, 0)).collect();
        let still = vec![0.0; ranks as usize];
        Self { random, skew, forward: still.clone(), backward: still, common: 1.0 }
    }

    /// A step begins.
    ///
    /// * `count`: steps of this launch, with this one.
    pub(crate) fn begin(&mut self, scenario: &Scenario, moment: Moment, count: u64) {
        self.common = common_factor(scenario, moment, count);
    }

    /// The work of a rank; to be called once for each rank and step, in the order of steps.
    pub(crate) fn work(&mut self, scenario: &Scenario, moment: Moment, rank: u32) -> Work {
        let column = rank as usize;
        let noise = &scenario.noise;
        for (state, stream) in [(&mut self.forward, Stream::Forward), (&mut self.backward, Stream::Backward)] {
            let fresh = self.random.normal(stream, rank, moment.tick());
            // Scaled so that the deviation of the process is 1 from the first step on.
            let next = noise.phi * state[column] + (1.0 - noise.phi * noise.phi).sqrt() * fresh;
            state[column] = if moment.tick() == 0 { fresh } else { next };
        }
        let lasting = (1.0 + self.skew[column]) * self.common * own_factor(scenario, moment, rank);
        let tail = self.tail(scenario, moment, rank);
        let unit = scenario.cluster.step_time_s * lasting;
        let factor = |state: f64| (1.0 + noise.sigma * state).max(FACTOR_MIN);
        Work {
            forward_s: unit * FORWARD_SHARE * factor(self.forward[column]),
            backward_s: unit * BACKWARD_SHARE * (factor(self.backward[column]) + tail)
                + self.sleep(scenario, moment, rank),
        }
    }

    fn tail(&self, scenario: &Scenario, moment: Moment, rank: u32) -> f64 {
        let noise = &scenario.noise;
        let tick = moment.tick();
        if noise.tail_probability <= 0.0 || self.random.uniform(Stream::Tail, rank, tick) >= noise.tail_probability {
            return 0.0;
        }
        let chance = self.random.uniform(Stream::TailSize, rank, tick).max(f64::MIN_POSITIVE);
        noise.tail_scale * (1.0 / chance.sqrt() - 1.0).min(TAIL_MAX)
    }

    fn sleep(&self, scenario: &Scenario, moment: Moment, rank: u32) -> f64 {
        let Some(fault) = active(&scenario.faults, FaultKind::RandomSleeps, moment).next() else { return 0.0 };
        // Drawn for the step, not for the rank: one rank sleeps, or none.
        let ranks = f64::from(scenario.cluster.ranks());
        let draw = self.random.uniform(Stream::Sleep, 0, moment.tick()) / SLEEP_CHANCE;
        let sleeps = (draw * ranks) as u64 == u64::from(rank);
        if sleeps { fault.strength(moment) * scenario.cluster.step_time_s } else { 0.0 }
    }
}

/// What happens to all ranks alike: the first steps of a launch, the wave, a slow job.
///
/// * `count`: steps of this launch, with this one.
fn common_factor(scenario: &Scenario, moment: Moment, count: u64) -> f64 {
    let count = count as f64;
    let first = 1.0 + FIRST_STEP_EXTRA / (count * count);
    let noise = &scenario.noise;
    let wave = 1.0 + noise.wave * wave_at(moment.step, noise.wave_steps);
    let slow = active(&scenario.faults, FaultKind::SlowRun, moment).map(|fault| 1.0 + fault.strength(moment));
    first * wave * slow.product::<f64>()
}

fn own_factor(scenario: &Scenario, moment: Moment, rank: u32) -> f64 {
    let at = (moment, rank);
    let slow = factor(&scenario.faults, FaultKind::SlowRank, at, |size| 1.0 + size);
    slow * factor(&scenario.faults, FaultKind::Throttle, at, |size| 1.0 + CLOCK_BOUND * size / (1.0 - size))
}

/// A wave between -1 and 1 made of two parabolas, within 6 % of a sine.
fn wave_at(step: u64, period_steps: u64) -> f64 {
    if period_steps == 0 {
        return 0.0;
    }
    let half = 2.0 * (step % period_steps) as f64 / period_steps as f64;
    if half < 1.0 { 4.0 * half * (1.0 - half) } else { -4.0 * (half - 1.0) * (2.0 - half) }
}

/// Time of the optimizer's part of a step, in seconds.
pub(crate) fn optimizer_s(scenario: &Scenario) -> f64 {
    scenario.cluster.step_time_s * (1.0 - FORWARD_SHARE - BACKWARD_SHARE)
}

/// When a call of a communicator ends, in nanoseconds: for all members alike, when the last one has come and the bytes
/// are through; `None` = never.
///
/// * `arrivals`: when each rank of the run enters its call, in nanoseconds.
pub(crate) fn end_ns(scenario: &Scenario, moment: Moment, group: &Group, arrivals: &[i64]) -> Option<i64> {
    let is_missing = |rank: &u32| is_hit(&scenario.faults, FaultKind::Hang, moment, *rank);
    if group.axis == Axis::Dp && group.members.iter().any(is_missing) {
        return None;
    }
    let last_ns = group.members.iter().map(|rank| arrivals[*rank as usize]).max()?;
    Some(last_ns + nanoseconds(transfer_s(scenario, moment, group)))
}

/// Time of a transfer that nobody comes late to, in seconds.
fn transfer_s(scenario: &Scenario, moment: Moment, group: &Group) -> f64 {
    let usual = scenario.cluster.step_time_s * group.axis.transfer();
    let faults = &scenario.faults;
    let is_slow = group.members.iter().any(|rank| is_hit(faults, FaultKind::SlowLink, moment, *rank));
    let strength = active(faults, FaultKind::SlowLink, moment).map(|fault| fault.strength(moment)).sum::<f64>();
    if is_slow { usual * (1.0 + strength) } else { usual }
}
