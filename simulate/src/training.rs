//! How the training goes: learning rate, loss and gradients.

use crate::cluster::Place;
use crate::fault::{Fault, active, is_hit};
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

/// What the whole run logs of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Course {
    pub(crate) learning_rate: f64,
    /// The loss without the noise of the data.
    pub(crate) loss: f64,
    /// Norm of the reduced gradient.
    pub(crate) grad_norm: f64,
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

/// How far the training is.
#[derive(Clone, Debug)]
pub(crate) struct Training {
    random: Random,
    /// Steps of full use so far; a gradient with a wrong sign in it moves less.
    progress: f64,
}

impl Training {
    pub(crate) fn of(scenario: &Scenario) -> Self {
        Self { random: Random { seed: scenario.seed }, progress: 0.0 }
    }

    /// The course of the next step.
    pub(crate) fn advance(&mut self, scenario: &Scenario, step: u64) -> Course {
        let remaining = 1.0 / (1.0 + self.progress / HALF_STEPS);
        let harm = harm_nats(scenario, step);
        let (flipped, own) = wrong_share(scenario, step);
        let signal = SIGNAL * (1.0 - 2.0 * flipped);
        let scale = (0.5 + 2.0 * remaining) * (1.0 + GRADIENT_A_NAT * harm);
        let noise = 1.0 + NORM_SIGMA * self.random.normal(Stream::GradientNorm, u32::MAX, step);
        let grad_norm = scale * (signal * signal + own * own / f64::from(scenario.cluster.dp)).sqrt() * noise;
        self.progress += (signal / SIGNAL).max(0.0);
        let learning_rate = learning_rate(scenario, step);
        let is_lost = was_nonfinite(scenario, step);
        let or_nan = |value: f64, is_nan: bool| if is_nan { f64::NAN } else { value };
        let has_nan = is_lost || active(&scenario.faults, FaultKind::Nonfinite, step).next().is_some();
        let loss = or_nan(LOSS_FLOOR + LOSS_SPAN * remaining + harm, is_lost);
        Course { learning_rate, loss, grad_norm: or_nan(grad_norm, has_nan), scale, signal }
    }

    /// The loss of one data-parallel index.
    pub(crate) fn loss_local(&self, scenario: &Scenario, course: &Course, step: u64, dp: u32) -> f64 {
        course.loss + scenario.noise.loss * self.random.normal(Stream::Loss, dp, step)
    }

    /// The gradient of one rank before the all-reduce.
    pub(crate) fn gradient(&self, scenario: &Scenario, course: &Course, step: u64, rank: u32) -> LocalGradient {
        let faults = &scenario.faults;
        if was_nonfinite(scenario, step) || is_hit(faults, FaultKind::Nonfinite, step, rank) {
            return LocalGradient { norm: f64::NAN, cosine: f64::NAN };
        }
        let width = f64::from(scenario.cluster.dp);
        let sign = if is_hit(faults, FaultKind::GradientFlip, step, rank) { -1.0 } else { 1.0 };
        let own = OWN * noise_factor(faults, step, rank);
        let norm = (SIGNAL * SIGNAL + own * own).sqrt();
        let reduced = (course.signal * course.signal + OWN * OWN / width).sqrt();
        // The rank's own part is in the reduced gradient too, with a weight of one in `width`.
        let cosine = (sign * SIGNAL * course.signal + own * own / width) / (norm * reduced);
        let norm_noise = 1.0 + NORM_SIGMA * self.random.normal(Stream::GradientNorm, rank, step);
        let cosine_noise = COSINE_SIGMA * self.random.normal(Stream::Cosine, rank, step);
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

/// True after a step in which a NaN went into the weights.
fn was_nonfinite(scenario: &Scenario, step: u64) -> bool {
    scenario.faults.iter().any(|fault| fault.kind == FaultKind::Nonfinite && step > fault.onset_step)
}

/// Nats that faults add to the loss.
fn harm_nats(scenario: &Scenario, step: u64) -> f64 {
    let edits = active(&scenario.faults, FaultKind::WeightEdit, step)
        .map(|fault| fault.size / (1.0 + (step - fault.onset_step) as f64 / HEAL_STEPS));
    let spikes = active(&scenario.faults, FaultKind::LossSpike, step).map(|fault| {
        let end = fault.end_step.unwrap_or(scenario.steps);
        fault.strength(step) * (end - step) as f64 / (end - fault.onset_step) as f64
    });
    let drifts = active(&scenario.faults, FaultKind::LossDrift, step).map(|fault| fault.strength(step));
    edits.chain(spikes).chain(drifts).sum()
}

/// Share of the ranks whose gradient has the wrong sign, and the mean (of squares) of what is a rank's own.
fn wrong_share(scenario: &Scenario, step: u64) -> (f64, f64) {
    let ranks = f64::from(scenario.cluster.ranks());
    let flipped: usize = active(&scenario.faults, FaultKind::GradientFlip, step).map(|fault| fault.ranks.len()).sum();
    let added: f64 = active(&scenario.faults, FaultKind::GradientNoise, step)
        .map(|fault| fault.ranks.len() as f64 * (fault.strength(step) * fault.strength(step) - 1.0))
        .sum();
    (flipped as f64 / ranks, OWN * (1.0 + added / ranks).max(0.0).sqrt())
}

fn noise_factor(faults: &[Fault], step: u64, rank: u32) -> f64 {
    let noisy = active(faults, FaultKind::GradientNoise, step).filter(|fault| fault.touches(step, rank));
    noisy.map(|fault| fault.strength(step)).product()
}

fn learning_rate(scenario: &Scenario, step: u64) -> f64 {
    let life = &scenario.life;
    let tampered: f64 = active(&scenario.faults, FaultKind::LearningRate, step).map(|fault| fault.size).product();
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
