//! The steps of a run, one after another.

use std::collections::{BTreeMap, VecDeque};

use crate::cluster::{Layout, node_name};
use crate::counters::Counters;
use crate::fault::{active, is_hit};
use crate::launch::{Checkpoint, Stops};
use crate::moment::Moment;
use crate::random::Random;
use crate::timing::{Timing, Work, end_ns, optimizer_s};
use crate::training::{Course, Training, logs_loss};
use crate::weights::{Weights, batch_digest, environment};
use crate::{Axis, FaultKind, Row, Scenario};

/// When every simulated run starts: 2026-01-01 00:00:00 UTC, in nanoseconds since the epoch.
const START_NS: i64 = 1_767_225_600_000_000_000;
/// How long before its onset the audit record of a fault was written.
const AUDIT_LEAD_S: f64 = 8.0;
/// Code, configuration and environment are told at the start and every so many steps.
const ENVIRONMENT_STEPS: u64 = 20;
/// Who the audit records name; a pseudonym, as audit sources send them.
const ACTOR: &str = "u-4f21";

pub(crate) type Emit<'a, E> = dyn FnMut(u32, Row<'_>) -> Result<(), E> + 'a;

/// Simulates a run and hands its rows, each with its attempt, to `emit`.
///
/// Rows come in no promised order, but step by step: what comes after the rows of a step is not older than its begin,
/// but for audit records, which are older by some seconds, and for ranks that lie about their time.
///
/// # Errors
/// The first error of `emit`.
pub fn simulate<E>(scenario: &Scenario, emit: &mut Emit<'_, E>) -> Result<(), E> {
    let (mut run, mut stops, mut done) = (Run::of(scenario), Stops::default(), 0);
    run.launch(emit)?;
    while run.step < scenario.steps {
        if let Some(stop) = stops.due(&run, done) {
            run.stop(&stop, emit)?;
            run.launch(emit)?;
            continue;
        }
        run.emit_audit_records(emit)?;
        if run.advance(emit)? == Outcome::Hung {
            return Ok(());
        }
        run.pause_after(emit)?;
        run.step += 1;
        done += 1;
    }
    run.mark("run_end", None, emit)
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    Hung,
}

/// A run between two steps.
#[derive(Debug)]
pub(crate) struct Run<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) random: Random,
    pub(crate) layout: Layout,
    timing: Timing,
    pub(crate) training: Training,
    pub(crate) weights: Weights,
    counters: Counters,
    echo: Echo,
    pub(crate) checkpoint: Option<Checkpoint>,
    pub(crate) attempt: u32,
    /// The step to come, or at hand.
    pub(crate) step: u64,
    /// Steps of this launch so far.
    pub(crate) count: u64,
    pub(crate) now_ns: i64,
}

impl<'a> Run<'a> {
    fn of(scenario: &'a Scenario) -> Self {
        let layout = Layout::of(scenario);
        Self {
            scenario,
            random: Random { seed: scenario.seed },
            timing: Timing::of(scenario),
            training: Training::of(scenario),
            weights: Weights::of(scenario, &layout),
            counters: Counters::of(scenario),
            echo: Echo::default(),
            layout,
            checkpoint: None,
            attempt: 0,
            step: 0,
            count: 0,
            now_ns: START_NS,
        }
    }

    pub(crate) fn ranks(&self) -> std::ops::Range<u32> {
        0..self.scenario.cluster.ranks()
    }

    pub(crate) fn moment(&self) -> Moment {
        Moment { attempt: self.attempt, step: self.step, now_ns: self.now_ns }
    }

    /// A time as a rank tells it: by the clock of its node, if it is honest.
    fn clock(&self, moment: Moment, rank: u32, time_ns: i64) -> i64 {
        let lies =
            active(&self.scenario.faults, FaultKind::Backdate, moment).filter(|fault| fault.touches(moment, rank));
        let back_s: f64 = lies.map(|fault| fault.size).sum();
        time_ns + self.layout.places[rank as usize].clock_ns - nanoseconds(back_s)
    }

    fn is_hit(&self, kind: FaultKind, moment: Moment, rank: u32) -> bool {
        is_hit(&self.scenario.faults, kind, moment, rank)
    }

    /// The ranks that tell what they do.
    fn telling(&self, moment: Moment) -> impl Iterator<Item = u32> + '_ {
        self.ranks().filter(move |rank| !self.is_hit(FaultKind::Silence, moment, *rank))
    }

    /// Tells what code, configuration and environment each rank runs.
    pub(crate) fn emit_environment<E>(&self, emit: &mut Emit<'_, E>) -> Result<(), E> {
        let moment = self.moment();
        for rank in self.telling(moment) {
            let time = self.clock(moment, rank, self.now_ns);
            for (kind, name, digest) in environment(self.scenario, moment, rank) {
                let (rank, step, digest) = (Some(rank), self.step, digest.as_str());
                emit(self.attempt, Row::Digest { rank, step, time, kind, name, digest })?;
            }
        }
        Ok(())
    }

    /// Writes a mark into the run's life, now.
    pub(crate) fn mark<E>(&self, kind: &'static str, detail: Option<&str>, emit: &mut Emit<'_, E>) -> Result<(), E> {
        let (time, source) = (self.now_ns, "trainer");
        let row = Row::Event { time, source, kind, actor: None, node: None, rank: None, subject: None, detail };
        emit(self.attempt, row)
    }

    fn emit_audit_records<E>(&self, emit: &mut Emit<'_, E>) -> Result<(), E> {
        for fault in self.scenario.faults.iter().filter(|fault| fault.begins(self.moment())) {
            let Some(command) = &fault.audit else { continue };
            let node = fault.ranks.first().map(|rank| node_name(self.layout.places[*rank as usize].node));
            let row = Row::Event {
                time: self.now_ns - nanoseconds(AUDIT_LEAD_S),
                source: "sudo",
                kind: "exec",
                actor: Some(ACTOR),
                node: node.as_deref(),
                rank: None,
                subject: Some(command),
                detail: None,
            };
            emit(self.attempt, row)?;
        }
        Ok(())
    }

    /// Does the step at hand.
    fn advance<E>(&mut self, emit: &mut Emit<'_, E>) -> Result<Outcome, E> {
        let moment = self.moment();
        self.count += 1;
        if let Some(nats) = self.weights.between(self.scenario, moment) {
            self.training.edit(nats);
        }
        self.emit_inputs(moment, emit)?;
        if self.count > 1 && self.step.is_multiple_of(ENVIRONMENT_STEPS) {
            self.emit_environment(emit)?;
        }
        let course = self.training.advance(self.scenario, moment);
        self.timing.begin(self.scenario, moment, self.count);
        let works: Vec<Work> = self.ranks().map(|rank| self.timing.work(self.scenario, moment, rank)).collect();
        let mut ready: Vec<i64> = works.iter().map(|work| self.now_ns + nanoseconds(work.forward_s)).collect();
        for axis in [Axis::Tp, Axis::Pp] {
            self.exchange(axis, moment, &mut ready, emit)?;
        }
        ready.iter_mut().zip(&works).for_each(|(ready, work)| *ready += nanoseconds(work.backward_s));
        self.emit_work(moment, &works, &ready, &course, emit)?;
        let Some(reduced_ns) = self.exchange(Axis::Dp, moment, &mut ready, emit)? else { return Ok(Outcome::Hung) };
        self.now_ns = reduced_ns + nanoseconds(optimizer_s(self.scenario));
        self.weights.advance(self.scenario, moment);
        self.emit_results(moment, &course, emit)?;
        Ok(Outcome::Done)
    }

    /// What a step begins with: weights and batches.
    fn emit_inputs<E>(&self, moment: Moment, emit: &mut Emit<'_, E>) -> Result<(), E> {
        let (telemetry, step) = (&self.scenario.telemetry, moment.step);
        let has_weights = step > 0 && is_due(step - 1, telemetry.weights_every);
        if !has_weights && !telemetry.batches {
            return Ok(());
        }
        for rank in self.telling(moment) {
            let time = self.clock(moment, rank, self.now_ns);
            let mut tell = |kind, name, digest: &str| {
                emit(self.attempt, Row::Digest { rank: Some(rank), step, time, kind, name, digest })
            };
            if has_weights {
                tell("weight_before", "layers", self.weights.digest(rank).as_str())?;
            }
            if telemetry.batches {
                let dp = self.layout.places[rank as usize].dp;
                tell("batch", "tokens", batch_digest(self.scenario, moment, dp).as_str())?;
            }
        }
        Ok(())
    }

    /// What each rank logs before the all-reduce of the gradients.
    ///
    /// * `ready`: when its work is done.
    fn emit_work<E>(
        &mut self,
        moment: Moment,
        works: &[Work],
        ready: &[i64],
        course: &Course,
        emit: &mut Emit<'_, E>,
    ) -> Result<(), E> {
        for (rank, work) in (0_u32..).zip(works) {
            let is_mute = [FaultKind::Silence, FaultKind::Hang].iter().any(|kind| self.is_hit(*kind, moment, rank));
            if is_mute {
                continue;
            }
            let time = ready[rank as usize];
            self.sample(moment, rank, time, ("forward_time_s", work.forward_s), emit)?;
            self.sample(moment, rank, time, ("backward_time_s", work.backward_s), emit)?;
            let place = &self.layout.places[rank as usize];
            if logs_loss(self.scenario, place) {
                let loss = self.training.loss_local(self.scenario, course, moment, place.dp);
                self.sample(moment, rank, time, ("loss_local", loss), emit)?;
            }
            if self.scenario.telemetry.gradients {
                let norm = self.training.gradient(self.scenario, course, moment, rank).norm;
                self.sample(moment, rank, time, ("grad_norm_local", norm), emit)?;
            }
        }
        Ok(())
    }

    /// One sample of a rank, which may tell an old number for a new one.
    fn sample<E>(
        &mut self,
        moment: Moment,
        rank: u32,
        time_ns: i64,
        (metric, value): (&'static str, f64),
        emit: &mut Emit<'_, E>,
    ) -> Result<(), E> {
        let (time, step) = (self.clock(moment, rank, time_ns), moment.step);
        let value = self.echo.told(self.scenario, moment, rank, (metric, value));
        emit(self.attempt, Row::Sample { rank: Some(rank), step, time, metric, value })
    }

    /// The calls of all communicators along an axis. Each ends for all members when the last one has come.
    ///
    /// * `ready`: when each rank comes; then when it goes.
    /// * Returns when the last communicator was done; `None` when one never is.
    fn exchange<E>(
        &self,
        axis: Axis,
        moment: Moment,
        ready: &mut [i64],
        emit: &mut Emit<'_, E>,
    ) -> Result<Option<i64>, E> {
        let mut done_ns = Some(self.now_ns);
        for group in self.layout.groups.iter().filter(|group| group.axis == axis) {
            let end_ns = end_ns(self.scenario, moment, group, ready);
            done_ns = done_ns.zip(end_ns).map(|(done, end)| done.max(end));
            let is_hung = |rank: u32| axis == Axis::Dp && self.is_hit(FaultKind::Hang, moment, rank);
            let is_mute = |rank: u32| is_hung(rank) || self.is_hit(FaultKind::Silence, moment, rank);
            for rank in group.members.iter().copied() {
                let arrived_ns = ready[rank as usize];
                ready[rank as usize] = end_ns.unwrap_or(arrived_ns);
                if !self.scenario.telemetry.collectives || is_mute(rank) {
                    continue;
                }
                let start = self.clock(moment, rank, arrived_ns);
                let end = end_ns.map(|end| self.clock(moment, rank, end));
                let is_astray = axis == Axis::Dp && self.is_hit(FaultKind::Desync, moment, rank);
                let bytes = if is_astray { axis.bytes() / 2 } else { axis.bytes() };
                let (comm, seq, op, step) = (group.name.as_str(), self.count - 1, axis.op(), moment.step);
                emit(self.attempt, Row::Collective { rank, comm, seq, op, bytes, start, end, step })?;
            }
        }
        Ok(done_ns)
    }

    /// What is logged when a step is over.
    fn emit_results<E>(&mut self, moment: Moment, course: &Course, emit: &mut Emit<'_, E>) -> Result<(), E> {
        let step_time_s = (self.now_ns - moment.now_ns) as f64 / 1e9;
        let (now_ns, telemetry) = (self.now_ns, &self.scenario.telemetry);
        for rank in self.ranks().filter(|rank| !is_hit(&self.scenario.faults, FaultKind::Silence, moment, *rank)) {
            self.sample(moment, rank, now_ns, ("step_time_s", step_time_s), emit)?;
            if telemetry.gradients {
                let cosine = self.training.gradient(self.scenario, course, moment, rank).cosine;
                self.sample(moment, rank, now_ns, ("grad_cosine_local", cosine), emit)?;
            }
            if telemetry.counters {
                self.emit_counters(moment, rank, emit)?;
            }
            if is_due(moment.step, telemetry.weights_every) {
                let (time, digest) = (self.clock(moment, rank, now_ns), self.weights.digest(rank));
                let (rank, step, kind, name) = (Some(rank), moment.step, "weight", "layers");
                emit(self.attempt, Row::Digest { rank, step, time, kind, name, digest: digest.as_str() })?;
            }
        }
        self.emit_course(moment, course, emit)
    }

    fn emit_counters<E>(&mut self, moment: Moment, rank: u32, emit: &mut Emit<'_, E>) -> Result<(), E> {
        let reading = self.counters.read(self.scenario, moment, rank);
        let numbers = [
            ("gpu_sm_clock_hz", reading.sm_clock_hz),
            ("gpu_temp_c", reading.temperature_c),
            ("gpu_power_w", reading.power_w),
            ("gpu_util_ratio", reading.util_ratio),
            ("gpu_throttle_mask", reading.throttle_mask),
            ("gpu_ecc_errors_total", reading.ecc_errors as f64),
        ];
        let now_ns = self.now_ns;
        numbers.into_iter().try_for_each(|number| self.sample(moment, rank, now_ns, number, emit))
    }

    /// What the whole run logs of a step.
    fn emit_course<E>(&self, moment: Moment, course: &Course, emit: &mut Emit<'_, E>) -> Result<(), E> {
        let width = self.scenario.cluster.dp;
        let losses = (0..width).map(|dp| self.training.loss_local(self.scenario, course, moment, dp));
        let numbers = [
            ("loss", losses.sum::<f64>() / f64::from(width)),
            ("grad_norm", course.grad_norm),
            ("learning_rate", course.learning_rate),
            ("tokens", self.scenario.life.tokens as f64 * f64::from(width)),
        ];
        let updates = [
            ("update_norm", course.update_norm),
            ("update_dot_grad", course.update_dot_grad),
            ("param_norm", course.param_norm),
        ];
        let updates = if self.scenario.telemetry.updates { updates.as_slice() } else { &[] };
        let (time, step) = (self.now_ns, moment.step);
        numbers.iter().chain(updates).try_for_each(|(metric, value)| {
            emit(self.attempt, Row::Sample { rank: None, step, time, metric, value: *value })
        })
    }

    /// Checkpoint and evaluation after a step, where they are due; both are announced.
    fn pause_after<E>(&mut self, emit: &mut Emit<'_, E>) -> Result<(), E> {
        let (life, step) = (&self.scenario.life, self.step);
        if is_due(step, life.checkpoint_every) {
            self.pause("checkpoint", life.checkpoint_s, emit)?;
            let (digest, name) = (self.weights.checkpoint(), format!("step-{step}"));
            let digest = digest.as_str();
            let detail = format!("{{\"step\":{step},\"digest\":\"{digest}\"}}");
            let (time, source, kind) = (self.now_ns, "trainer", "checkpoint");
            let (subject, detail) = (Some(name.as_str()), Some(detail.as_str()));
            let row = Row::Event { time, source, kind, actor: None, node: None, rank: None, subject, detail };
            emit(self.attempt, row)?;
            let kind = "checkpoint_saved";
            emit(self.attempt, Row::Digest { rank: None, step, time, kind, name: &name, digest })?;
            let (weights, training) = (self.weights.clone(), self.training.clone());
            self.checkpoint = Some(Checkpoint { next_step: step + 1, name, weights, training });
        }
        if is_due(step, life.evaluation_every) {
            self.pause("evaluation", life.evaluation_s, emit)?;
        }
        Ok(())
    }

    fn pause<E>(&mut self, what: &str, length_s: f64, emit: &mut Emit<'_, E>) -> Result<(), E> {
        self.mark("pause_begin", Some(what), emit)?;
        self.now_ns += nanoseconds(length_s);
        self.mark("pause_end", Some(what), emit)
    }
}

/// What ranks told that tell it again.
#[derive(Clone, Debug, Default)]
struct Echo {
    told: BTreeMap<(u32, &'static str), VecDeque<f64>>,
}

impl Echo {
    /// What a rank tells for a number: the truth, or what was true some steps before.
    fn told(&mut self, scenario: &Scenario, moment: Moment, rank: u32, (metric, value): (&'static str, f64)) -> f64 {
        let is_liar = |fault: &&crate::Fault| fault.kind == FaultKind::Replay && fault.ranks.contains(&rank);
        let Some(fault) = scenario.faults.iter().find(is_liar) else { return value };
        let back = fault.size as usize;
        let told = self.told.entry((rank, metric)).or_default();
        told.push_back(value);
        if told.len() > back + 1 {
            told.pop_front();
        }
        if fault.is_active(moment) { told.front().copied().unwrap_or(value) } else { value }
    }
}

/// True after every `every` steps; never where it is 0.
fn is_due(step: u64, every: u64) -> bool {
    every > 0 && (step + 1).is_multiple_of(every)
}

pub(crate) fn nanoseconds(seconds: f64) -> i64 {
    (seconds * 1e9) as i64
}

#[cfg(test)]
mod tests;
