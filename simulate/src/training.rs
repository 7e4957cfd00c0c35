//! How the training goes: learning rate, loss and gradients.

use crate::cluster::Place;
use crate::fault::{Fault, active, factor, is_hit};
use crate::moment::Moment;
use crate::random::{Random, Stream};
use crate::{FaultKind, Scenario, ScheduleLaw};

/// Nats that no training removes.
const LOSS_FLOOR: f64 = 2.0;
/// Nats above the floor at the begin.
const LOSS_SPAN: f64 = 8.0;
/// Steps after which half of the span is gone.
const HALF_STEPS: f64 = 15.0;
/// Part of a rank's gradient that all ranks share, and part that is its own data's; the squares add up to 1.
const SIGNAL: f64 = 0.6;
const OWN: f64 = 0.8;
/// Deviation of a logged gradient norm, as a fraction, and of a cosine.
const NORM_SIGMA: f64 = 0.03;
const COSINE_SIGMA: f64 = 0.02;
/// How much a nat of a loss spike adds to the gradient, as a fraction.
const GRADIENT_A_NAT: f64 = 2.0;
/// Steps after which half of the harm of edited weights is healed.
const HEAL_STEPS: f64 = 20.0;
/// The learning rate at the end of its decay, as a share of the peak.
const FINAL_RATE: f64 = 0.1;
/// Norm of an update per unit of learning rate: about the square root of the number of weights, as with Adam.
const UPDATE_A_RATE: f64 = 3e4;
/// Norm of the weights at the begin.
const WEIGHT_NORM: f64 = 1_500.0;
/// Cosine of an update to the gradient it came from: momentum remembers older ones; and its deviation.
const UPDATE_COSINE: f64 = -0.35;
const UPDATE_SIGMA: f64 = 0.04;

/// What the whole run logs of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Course {
    pub(crate) learning_rate: f64,
    /// The loss without the noise of the data.
    pub(crate) loss: f64,
    /// Norm of the reduced gradient.
    pub(crate) grad_norm: f64,
    /// Norm of what the optimizer adds to the weights.
    pub(crate) update_norm: f64,
    /// Product of that with the reduced gradient.
    pub(crate) update_dot_grad: f64,
    /// Norm of the weights after it.
    pub(crate) param_norm: f64,
    /// Size of the gradient of this step, common to all ranks.
    scale: f64,
    /// Shared part of the reduced gradient: less than [`SIGNAL`] where some ranks pull the wrong way.
    signal: f64,
}

/// What one rank logs of its gradient.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct LocalGradient {
    pub(crate) norm: f64,
    pub(crate) cosine: f64,
}

/// How far the training is; a checkpoint keeps it.
#[derive(Clone, Debug)]
pub(crate) struct Training {
    random: Random,
    /// Steps of full use so far; a gradient with a wrong sign in it moves less.
    progress: f64,
    /// Square of the norm of all updates, taken as independent.
    walked: f64,
    /// A NaN went into the weights.
    is_lost: bool,
    /// Edits of the weights: nats at first, steps since.
    edits: Vec<(f64, u64)>,
}

impl Training {
    pub(crate) fn of(scenario: &Scenario) -> Self {
        let random = Random { seed: scenario.seed };
        Self { random, progress: 0.0, walked: 0.0, is_lost: false, edits: Vec::new() }
    }

    /// Somebody edited the weights; it costs so many nats and heals.
    pub(crate) fn edit(&mut self, nats: f64) {
        self.edits.push((nats, 0));
    }

    /// The course of the next step.
    pub(crate) fn advance(&mut self, scenario: &Scenario, moment: Moment) -> Course {
        let healing = self.edits.iter().map(|(nats, steps)| nats / (1.0 + *steps as f64 / HEAL_STEPS));
        let harm = healing.sum::<f64>() + harm_nats(scenario, moment);
        self.edits.iter_mut().for_each(|(_, steps)| *steps += 1);
        let remaining = 1.0 / (1.0 + self.progress.max(1.0 - HALF_STEPS) / HALF_STEPS);
        let (flipped, own) = wrong_share(scenario, moment);
        let signal = SIGNAL * (1.0 - 2.0 * flipped);
        let scale = (0.5 + 2.0 * remaining) * (1.0 + GRADIENT_A_NAT * harm);
        let noise = 1.0 + NORM_SIGMA * self.random.normal(Stream::GradientNorm, u32::MAX, moment.step);
        let has_nan = self.is_lost || active(&scenario.faults, FaultKind::Nonfinite, moment).next().is_some();
        let grad_norm = scale * (signal * signal + own * own / f64::from(scenario.cluster.dp)).sqrt() * noise;
        let grad_norm = if has_nan { f64::NAN } else { grad_norm };
        let loss = if self.is_lost { f64::NAN } else { LOSS_FLOOR + LOSS_SPAN * remaining + harm };
        let learning_rate = learning_rate(scenario, moment);
        let (update_norm, update_dot_grad) = self.update(scenario, moment, learning_rate, grad_norm);
        let way = if update_dot_grad > 0.0 { -1.0 } else { 1.0 };
        self.progress += way * (signal / SIGNAL).max(0.0);
        self.is_lost |= has_nan;
        self.walked += update_norm * update_norm;
        let param_norm = (WEIGHT_NORM * WEIGHT_NORM + self.walked).sqrt();
        Course { learning_rate, loss, grad_norm, update_norm, update_dot_grad, param_norm, scale, signal }
    }

    /// What the optimizer does: the norm of the update, and its product with the gradient.
    fn update(&self, scenario: &Scenario, moment: Moment, learning_rate: f64, grad_norm: f64) -> (f64, f64) {
        let noise = |rank: u32| UPDATE_SIGMA * self.random.normal(Stream::Update, rank, moment.step);
        let norm = UPDATE_A_RATE * learning_rate * (1.0 + noise(0));
        let is_up = active(&scenario.faults, FaultKind::UpdateSign, moment).next().is_some();
        let cosine = (UPDATE_COSINE + noise(1)) * if is_up { -1.0 } else { 1.0 };
        if grad_norm.is_nan() { (f64::NAN, f64::NAN) } else { (norm, cosine * norm * grad_norm) }
    }

    /// The loss of one data-parallel index.
    pub(crate) fn loss_local(&self, scenario: &Scenario, course: &Course, moment: Moment, dp: u32) -> f64 {
        let noise = scenario.noise.loss * self.random.normal(Stream::Loss, dp, moment.step);
        course.loss + noise + poison_nats(scenario, moment, dp)
    }

    /// The gradient of one rank before the all-reduce.
    pub(crate) fn gradient(&self, scenario: &Scenario, course: &Course, moment: Moment, rank: u32) -> LocalGradient {
        let faults = &scenario.faults;
        // Where everybody's loss is NaN, so is everybody's gradient; before, it is on the rank it came from.
        if course.loss.is_nan() || is_hit(faults, FaultKind::Nonfinite, moment, rank) {
            return LocalGradient { norm: f64::NAN, cosine: f64::NAN };
        }
        let width = f64::from(scenario.cluster.dp);
        let sign = if is_hit(faults, FaultKind::GradientFlip, moment, rank) { -1.0 } else { 1.0 };
        let own = OWN * noise_factor(scenario, moment, rank);
        let norm = (SIGNAL * SIGNAL + own * own).sqrt();
        let reduced = (course.signal * course.signal + OWN * OWN / width).sqrt();
        // The rank's own part is in the reduced gradient too, with a weight of one in `width`.
        let cosine = (sign * SIGNAL * course.signal + own * own / width) / (norm * reduced);
        let norm_noise = 1.0 + NORM_SIGMA * self.random.normal(Stream::GradientNorm, rank, moment.step);
        let cosine_noise = COSINE_SIGMA * self.random.normal(Stream::Cosine, rank, moment.step);
        // Where a NaN is in the reduced gradient, nothing has an angle to it.
        let is_reduced_nan = course.grad_norm.is_nan();
        let cosine = if is_reduced_nan { f64::NAN } else { (cosine + cosine_noise).clamp(-1.0, 1.0) };
        LocalGradient { norm: course.scale * norm * norm_noise, cosine }
    }
}

/// True for the rank that logs the loss of its data-parallel index: the first of its last stage.
pub(crate) fn logs_loss(scenario: &Scenario, place: &Place) -> bool {
    place.tp == 0 && place.pp + 1 == scenario.cluster.pp
}

/// Nats that faults add to the loss of all.
fn harm_nats(scenario: &Scenario, moment: Moment) -> f64 {
    let spikes = active(&scenario.faults, FaultKind::LossSpike, moment).map(|fault| {
        let end = fault.end_step.unwrap_or(scenario.steps);
        fault.strength(moment) * (end - moment.step) as f64 / (end - fault.onset_step) as f64
    });
    let drifts = active(&scenario.faults, FaultKind::LossDrift, moment).map(|fault| fault.strength(moment));
    spikes.chain(drifts).sum()
}

/// Nats that the data of a data-parallel index costs more.
fn poison_nats(scenario: &Scenario, moment: Moment, dp: u32) -> f64 {
    let is_of_index = |fault: &&Fault| fault.ranks.iter().any(|rank| scenario.cluster.dp_of(*rank) == dp);
    let faults = active(&scenario.faults, FaultKind::Poison, moment).filter(is_of_index);
    faults.map(|fault| fault.strength(moment)).sum()
}

/// Share of the ranks whose gradient has the wrong sign, and the mean (of squares) of what is a rank's own.
fn wrong_share(scenario: &Scenario, moment: Moment) -> (f64, f64) {
    let ranks = f64::from(scenario.cluster.ranks());
    let flipped: usize = active(&scenario.faults, FaultKind::GradientFlip, moment).map(|fault| fault.ranks.len()).sum();
    let added: f64 = active(&scenario.faults, FaultKind::GradientNoise, moment)
        .map(|fault| fault.ranks.len() as f64 * (fault.strength(moment) * fault.strength(moment) - 1.0))
        .sum();
    (flipped as f64 / ranks, OWN * (1.0 + added / ranks).max(0.0).sqrt())
}

/// How much larger a rank's own part of its gradient is: strange data pulls its own way.
fn noise_factor(scenario: &Scenario, moment: Moment, rank: u32) -> f64 {
    let noisy = factor(&scenario.faults, FaultKind::GradientNoise, (moment, rank), |size| size);
    noisy * (1.0 + poison_nats(scenario, moment, scenario.cluster.dp_of(rank)))
}

fn learning_rate(scenario: &Scenario, moment: Moment) -> f64 {
    let (life, step) = (&scenario.life, moment.step);
    let tampered: f64 = active(&scenario.faults, FaultKind::LearningRate, moment).map(|fault| fault.size).product();
    let (count, warm_up) = ((step + 1) as f64, life.warm_up_steps as f64);
    if step < life.warm_up_steps {
        return life.learning_rate * tampered * count / warm_up;
    }
    let passed = (count - warm_up) / (scenario.steps as f64 - warm_up).max(1.0);
    let share = match life.schedule {
        ScheduleLaw::Constant => 1.0,
        ScheduleLaw::Linear => 1.0 - (1.0 - FINAL_RATE) * passed,
        ScheduleLaw::Cosine => 1.0 - (1.0 - FINAL_RATE) * passed * passed * (3.0 - 2.0 * passed),
        ScheduleLaw::InverseSqrt => (warm_up.max(1.0) / count).sqrt(),
    };
    life.learning_rate * tampered * share
}
