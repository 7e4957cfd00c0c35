//! What a scenario says, and what it may not say.

use serde::Deserialize;

use crate::{Fault, SimulateError};

/// Ranks of the largest cluster: a run is one core's work up to here.
const RANKS_MAX: u32 = 131_072;
/// Steps of the longest run: times stay far inside 64-bit nanoseconds.
const STEPS_MAX: u64 = 1_000_000;

/// A cluster, its noise, its normal life and its faults.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Name of the run.
    pub run: String,
    /// What all noise is a function of.
    pub seed: u64,
    /// Steps of the run.
    pub steps: u64,
    /// The machines and how the model lies on them.
    pub cluster: Cluster,
    /// How even a healthy run is.
    #[serde(default)]
    pub noise: Noise,
    /// What happens in a healthy run.
    #[serde(default)]
    pub life: Life,
    /// What is logged.
    #[serde(default)]
    pub telemetry: Telemetry,
    /// What goes wrong; empty for a healthy run.
    #[serde(default, rename = "fault")]
    pub faults: Vec<Fault>,
}

/// The machines and how the model lies on them.
///
/// There are `dp * tp * pp` ranks; tensor-parallel indices lie next to each other, then data-parallel ones, then stages.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// Data-parallel width: replicas of the model.
    pub dp: u32,
    /// Tensor-parallel width.
    #[serde(default = "one")]
    pub tp: u32,
    /// Pipeline stages.
    #[serde(default = "one")]
    pub pp: u32,
    /// Ranks of one host.
    #[serde(default = "eight")]
    pub ranks_per_node: u32,
    /// Usual time of a step's own work, in seconds.
    #[serde(default = "usual_step_time_s")]
    pub step_time_s: f64,
    /// Along which indices ranks communicate, and so wait for each other.
    #[serde(default = "data_parallel")]
    pub communicators: Vec<Axis>,
}

/// An index along which ranks form communicators.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Axis {
    /// Data-parallel: an all-reduce of the gradients after the backward pass.
    Dp,
    /// Tensor-parallel: an all-reduce of the activations after the forward pass.
    Tp,
    /// Pipeline: the activations of all stages, after the forward pass.
    Pp,
}

/// How even a healthy run is. All sizes are fractions of the step time unless said.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Noise {
    /// Correlation of a rank's noise from step to step, -1 to 1 (excluded).
    pub phi: f64,
    /// Deviation of a rank's noise.
    pub sigma: f64,
    /// Chance of a rank to be late out of the ordinary in a step.
    pub tail_probability: f64,
    /// Size of the tail: the lateness is `scale * (1 / sqrt(u) - 1)`, at most 20 scales.
    pub tail_scale: f64,
    /// Size of a slow wave common to all ranks.
    pub wave: f64,
    /// Steps of one such wave.
    pub wave_steps: u64,
    /// Deviation of the lasting differences between ranks.
    pub skew: f64,
    /// Deviation of the clocks of nodes, in seconds.
    pub clock_skew_s: f64,
    /// Deviation of a rank's loss around the curve, in nats.
    pub loss: f64,
}

impl Default for Noise {
    fn default() -> Self {
        Self {
            phi: 0.3,
            sigma: 0.01,
            tail_probability: 0.0,
            tail_scale: 0.1,
            wave: 0.01,
            wave_steps: 200,
            skew: 0.005,
            clock_skew_s: 0.000_2,
            loss: 0.02,
        }
    }
}

/// The law of the learning rate after its warm-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScheduleLaw {
    /// Stays at its peak.
    Constant,
    /// Falls in a straight line to a tenth of the peak.
    Linear,
    /// Falls to a tenth of the peak along a cubic that stays within 1.1 % of the cosine.
    Cosine,
    /// Falls as the inverse square root of the step.
    InverseSqrt,
}

/// What happens in a healthy run.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Life {
    /// Steps in which the learning rate rises to its peak.
    pub warm_up_steps: u64,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// Its law after the warm-up.
    pub schedule: ScheduleLaw,
    /// An evaluation pause after every so many steps; 0 = never.
    pub evaluation_every: u64,
    /// Its length in seconds.
    pub evaluation_s: f64,
    /// A checkpoint after every so many steps; 0 = never.
    pub checkpoint_every: u64,
    /// The pause for it in seconds.
    pub checkpoint_s: f64,
    /// Tokens that one data-parallel index reads in a step.
    pub tokens: u64,
    /// Planned restarts, in the order in which they happen.
    #[serde(rename = "restart")]
    pub restarts: Vec<Restart>,
}

/// A run that is stopped and launched again from its last checkpoint.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Restart {
    /// The step that is not begun any more.
    pub step: u64,
    /// From the stop to the next launch, in seconds.
    #[serde(default = "usual_down_s")]
    pub down_s: f64,
    /// A host that is replaced by a spare one.
    pub replaced_node: Option<u32>,
}

impl Default for Life {
    fn default() -> Self {
        Self {
            warm_up_steps: 20,
            learning_rate: 3e-4,
            schedule: ScheduleLaw::Cosine,
            evaluation_every: 100,
            evaluation_s: 20.0,
            checkpoint_every: 50,
            checkpoint_s: 3.0,
            tokens: 65_536,
            restarts: Vec::new(),
        }
    }
}

/// What is logged. Times of work, loss and learning rate always are.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Telemetry {
    /// The all-reduce of each step and rank.
    pub collectives: bool,
    /// Norm and direction of each rank's gradient.
    pub gradients: bool,
    /// Digests of the weights at every so many steps (and before the steps after them); 0 = never.
    pub weights_every: u64,
    /// Digests of the batches.
    pub batches: bool,
    /// Norms of the weights and of the updates, and the product of update and gradient.
    pub updates: bool,
    /// Clocks, temperature, power and errors of the devices.
    pub counters: bool,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self { collectives: true, gradients: true, weights_every: 1, batches: true, updates: true, counters: false }
    }
}

fn one() -> u32 {
    1
}

fn eight() -> u32 {
    8
}

fn usual_step_time_s() -> f64 {
    1.0
}

fn usual_down_s() -> f64 {
    180.0
}

fn data_parallel() -> Vec<Axis> {
    vec![Axis::Dp]
}

impl Cluster {
    /// How many ranks there are.
    #[must_use]
    pub fn ranks(&self) -> u32 {
        self.dp * self.tp * self.pp
    }

    /// The data-parallel index of a rank.
    pub(crate) fn dp_of(&self, rank: u32) -> u32 {
        rank / self.tp % self.dp
    }
}

impl Scenario {
    /// Reads a scenario.
    ///
    /// # Errors
    /// [`SimulateError::Parse`] for what is no scenario, [`SimulateError::Value`] for a value that makes no sense.
    pub fn from_toml(text: &str) -> Result<Self, SimulateError> {
        let scenario: Self = toml::from_str(text)?;
        scenario.check()?;
        Ok(scenario)
    }

    fn check(&self) -> Result<(), SimulateError> {
        if self.run.is_empty() {
            return Err(SimulateError::value("run", "empty", "a name"));
        }
        if !(1..=STEPS_MAX).contains(&self.steps) {
            return Err(SimulateError::value("steps", self.steps, format!("1 to {STEPS_MAX}")));
        }
        self.check_cluster()?;
        self.check_numbers()?;
        self.check_restarts()?;
        self.faults.iter().try_for_each(|fault| self.check_fault(fault))
    }

    fn check_cluster(&self) -> Result<(), SimulateError> {
        let Cluster { dp, tp, pp, ranks_per_node, .. } = self.cluster;
        let ranks = [dp, tp, pp].iter().try_fold(1_u32, |product, width| product.checked_mul(*width));
        if !ranks.is_some_and(|ranks| (1..=RANKS_MAX).contains(&ranks)) {
            let value = format!("{dp} x {tp} x {pp}");
            return Err(SimulateError::value("dp x tp x pp", value, format!("1 to {RANKS_MAX} ranks")));
        }
        if ranks_per_node == 0 {
            return Err(SimulateError::value("ranks_per_node", 0, "1 or more"));
        }
        let axes = &self.cluster.communicators;
        if !axes.contains(&Axis::Dp) || (1..axes.len()).any(|place| axes[..place].contains(&axes[place])) {
            let value = format!("{axes:?}").to_lowercase();
            return Err(SimulateError::value("communicators", value, "dp and, if wanted, tp and pp, each once"));
        }
        Ok(())
    }

    fn check_restarts(&self) -> Result<(), SimulateError> {
        let mut begun = 0;
        for restart in &self.life.restarts {
            if !(begun + 1..self.steps).contains(&restart.step) {
                let accepted = format!("after the step resumed from, {begun}, and below steps, {}", self.steps);
                return Err(SimulateError::value("restart.step", restart.step, accepted));
            }
            if !(1.0..=1e6).contains(&restart.down_s) {
                return Err(SimulateError::value("restart.down_s", restart.down_s, "1 to 1e6"));
            }
            begun = self.resumed_step(restart.step);
        }
        Ok(())
    }

    /// The step that a launch begins with when the one before did not begin `stopped`.
    pub(crate) fn resumed_step(&self, stopped: u64) -> u64 {
        match self.life.checkpoint_every {
            0 => 0,
            every => stopped / every * every,
        }
    }

    fn check_numbers(&self) -> Result<(), SimulateError> {
        let (noise, life) = (&self.noise, &self.life);
        let numbers = [
            ("step_time_s", self.cluster.step_time_s, 1e-3, 1e4),
            ("phi", noise.phi, -0.999, 0.999),
            ("sigma", noise.sigma, 0.0, 0.15),
            ("tail_probability", noise.tail_probability, 0.0, 1.0),
            ("tail_scale", noise.tail_scale, 0.0, 10.0),
            ("wave", noise.wave, 0.0, 0.5),
            ("skew", noise.skew, 0.0, 0.15),
            ("clock_skew_s", noise.clock_skew_s, 0.0, 1.0),
            ("loss", noise.loss, 0.0, 1.0),
            ("learning_rate", life.learning_rate, 0.0, 1e3),
            ("evaluation_s", life.evaluation_s, 0.0, 1e5),
            ("checkpoint_s", life.checkpoint_s, 0.0, 1e5),
        ];
        for (field, value, least, most) in numbers {
            // Written so that NaN is refused too.
            if !(least..=most).contains(&value) {
                return Err(SimulateError::value(field, value, format!("{least} to {most}")));
            }
        }
        Ok(())
    }

    fn check_fault(&self, fault: &Fault) -> Result<(), SimulateError> {
        let kind = fault.kind;
        let ranks = self.cluster.ranks();
        if fault.onset_step >= self.steps {
            return Err(SimulateError::value("onset_step", fault.onset_step, format!("below steps, {}", self.steps)));
        }
        if kind == crate::FaultKind::CodeMismatch && fault.onset_step > 0 {
            return Err(SimulateError::value("onset_step", fault.onset_step, "0 for code_mismatch"));
        }
        if kind.begins_with_launch() && fault.attempt == 0 {
            return Err(SimulateError::value("attempt", 0, "1 or more for this kind: it happens at a restart"));
        }
        if fault.hours.is_some_and(|hours| hours.iter().any(|hour| *hour > 24)) {
            return Err(SimulateError::value("hours", format!("{:?}", fault.hours), "two hours, 0 to 24"));
        }
        if let Some(end) = fault.end_step.filter(|end| *end <= fault.onset_step || kind.is_final()) {
            let accepted = if kind.is_final() { "absent for this kind" } else { "after onset_step" };
            return Err(SimulateError::value("end_step", end, accepted));
        }
        if let Some(rank) = fault.ranks.iter().find(|rank| **rank >= ranks) {
            return Err(SimulateError::value("ranks", rank, format!("below the number of ranks, {ranks}")));
        }
        if fault.ranks.is_empty() && kind.needs_ranks() {
            return Err(SimulateError::value("ranks", "empty", "the guilty ranks for this kind"));
        }
        let least = if kind.has_size() { f64::MIN_POSITIVE } else { 0.0 };
        // A clock cannot fall by more than all of itself.
        let most = if kind == crate::FaultKind::Throttle { 0.95 } else { 1e6 };
        if !(least..=most).contains(&fault.size) {
            return Err(SimulateError::value("size", fault.size, format!("above 0 for this kind, and at most {most}")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEALTHY: &str = "run = 'a'\nseed = 1\nsteps = 10\n[cluster]\ndp = 4\n";

    fn error_of(text: &str) -> String {
        Scenario::from_toml(text).expect_err("the scenario is wrong").to_string()
    }

    #[test]
    fn a_scenario_of_four_lines_is_enough() {
        let scenario = Scenario::from_toml(HEALTHY).expect("the scenario is right");
        assert_eq!((scenario.cluster.ranks(), scenario.faults.len()), (4, 0));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_what_is_accepted() {
        let fault = |lines: &str| error_of(&format!("{HEALTHY}[[fault]]\n{lines}"));
        assert!(fault("kind = 'hang'\nonset_step = 5\nranks = [4]").contains("below the number of ranks, 4"));
        assert!(fault("kind = 'hang'\nonset_step = 10\nranks = [1]").contains("below steps, 10"));
        assert!(fault("kind = 'hang'\nonset_step = 5").contains("the guilty ranks"));
        assert!(fault("kind = 'slow_rank'\nonset_step = 5\nranks = [1]").contains("above 0"));
        assert!(fault("kind = 'weight_flip'\nonset_step = 5\nend_step = 6\nranks = [1]").contains("absent"));
        assert!(error_of(&format!("{HEALTHY}[noise]\nsigma = nan")).contains("`sigma` is NaN"));
        assert!(error_of(&format!("{HEALTHY}typo = 1")).contains("cannot read"));
        assert!(error_of(&HEALTHY.replace("dp = 4", "dp = 70000\ntp = 70000")).contains("70000 x 70000"));
    }
}
