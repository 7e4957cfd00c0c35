//! The steps of a run, one after another.

use crate::cluster::{Layout, node_name};
use crate::fault::is_hit;
use crate::timing::{Timing, Work, optimizer_s, transfer_s};
use crate::training::{Course, Training, logs_loss};
use crate::weights::{Weights, batch_digest, checkpoint_digest, environment};
use crate::{FaultKind, Row, Scenario};

/// When every simulated run starts: 2026-01-01 00:00:00 UTC, in nanoseconds since the epoch.
const START_NS: i64 = 1_767_225_600_000_000_000;
/// From the run's start to its first step.
const LAUNCH_S: f64 = 30.0;
/// How long before its onset the audit record of a fault was written.
const AUDIT_LEAD_S: f64 = 8.0;
/// Payload of an all-reduce.
const PAYLOAD_BYTES: u64 = 1 << 30;
/// Code, configuration and environment are told at the start and every so many steps.
const ENVIRONMENT_STEPS: u64 = 20;
/// Who the audit records name; a pseudonym, as audit sources send them.
const ACTOR: &str = "u-4f21";

type Emit<'a, E> = dyn FnMut(Row<'_>) -> Result<(), E> + 'a;

/// Simulates a run and hands its rows to `emit`, in no promised order.
///
/// # Errors
/// The first error of `emit`.
pub fn simulate<E>(scenario: &Scenario, emit: &mut Emit<'_, E>) -> Result<(), E> {
    let mut run = Run::of(scenario);
    run.begin(emit)?;
    for step in 0..scenario.steps {
        run.emit_audit_records(step, emit)?;
        if run.step(step, emit)? == Outcome::Hung {
            return Ok(());
        }
        run.pause_after(step, emit)?;
    }
    run.mark(run.now_ns, "run_end", None, emit)
}

/// How a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    Hung,
}

/// A run between two steps.
struct Run<'a> {
    scenario: &'a Scenario,
    layout: Layout,
    timing: Timing,
    training: Training,
    weights: Weights,
    now_ns: i64,
}

impl<'a> Run<'a> {
    fn of(scenario: &'a Scenario) -> Self {
        let layout = Layout::of(scenario);
        let weights = Weights::of(scenario, &layout);
        let now_ns = START_NS + nanoseconds(LAUNCH_S);
        Self { scenario, timing: Timing::of(scenario), training: Training::of(scenario), layout, weights, now_ns }
    }

    fn ranks(&self) -> std::ops::Range<u32> {
        0..self.scenario.cluster.ranks()
    }

    /// A time as the clock of a rank's node tells it.
    fn clock(&self, rank: u32, time_ns: i64) -> i64 {
        time_ns + self.layout.places[rank as usize].clock_ns
    }

    fn is_hit(&self, kind: FaultKind, step: u64, rank: u32) -> bool {
        is_hit(&self.scenario.faults, kind, step, rank)
    }

    fn begin<E>(&self, emit: &mut Emit<'_, E>) -> Result<(), E> {
        self.mark(START_NS, "run_start", None, emit)?;
        for (rank, place) in (0_u32..).zip(&self.layout.places) {
            emit(Row::Placement {
                rank,
                node: &node_name(place.node),
                device: &format!("GPU-{rank:08x}"),
                local_rank: place.local_rank,
                dp: place.dp,
                tp: place.tp,
                pp: place.pp,
            })?;
        }
        self.emit_environment(0, START_NS + nanoseconds(LAUNCH_S / 2.0), emit)?;
        for (comm, members) in &self.layout.groups {
            members.iter().try_for_each(|rank| emit(Row::Member { comm, rank: *rank }))?;
        }
        Ok(())
    }

    fn emit_environment<E>(&self, step: u64, time_ns: i64, emit: &mut Emit<'_, E>) -> Result<(), E> {
        for rank in self.ranks().filter(|rank| !self.is_hit(FaultKind::Silence, step, *rank)) {
            let time = self.clock(rank, time_ns);
            for (kind, name, digest) in environment(self.scenario, step, rank) {
                emit(Row::Digest { rank: Some(rank), step, time, kind, name, digest: &digest })?;
            }
        }
        Ok(())
    }

    fn mark<E>(&self, time: i64, kind: &'static str, detail: Option<&str>, emit: &mut Emit<'_, E>) -> Result<(), E> {
        emit(Row::Event { time, source: "trainer", kind, actor: None, node: None, subject: None, detail })
    }

    fn emit_audit_records<E>(&self, step: u64, emit: &mut Emit<'_, E>) -> Result<(), E> {
        for fault in self.scenario.faults.iter().filter(|fault| fault.onset_step == step) {
            let Some(command) = &fault.audit else { continue };
            let node = fault.ranks.first().map(|rank| node_name(self.layout.places[*rank as usize].node));
            emit(Row::Event {
                time: self.now_ns - nanoseconds(AUDIT_LEAD_S),
                source: "sudo",
                kind: "exec",
                actor: Some(ACTOR),
                node: node.as_deref(),
                subject: Some(command),
                detail: None,
            })?;
        }
        Ok(())
    }

    fn step<E>(&mut self, step: u64, emit: &mut Emit<'_, E>) -> Result<Outcome, E> {
        let begin_ns = self.now_ns;
        self.weights.between(self.scenario, step);
        self.emit_inputs(step, emit)?;
        if step > 0 && step.is_multiple_of(ENVIRONMENT_STEPS) {
            self.emit_environment(step, self.now_ns, emit)?;
        }
        let course = self.training.advance(self.scenario, step);
        let works: Vec<Work> = self.ranks().map(|rank| self.timing.work(self.scenario, step, rank)).collect();
        self.emit_work(step, &works, &course, emit)?;
        let Some(reduced_ns) = self.reduce(step, &works, emit)? else { return Ok(Outcome::Hung) };
        self.now_ns = reduced_ns + nanoseconds(optimizer_s(self.scenario));
        self.weights.advance(self.scenario, step);
        self.emit_results(step, begin_ns, &course, emit)?;
        Ok(Outcome::Done)
    }

    /// What a step begins with: weights and batches.
    fn emit_inputs<E>(&self, step: u64, emit: &mut Emit<'_, E>) -> Result<(), E> {
        let telemetry = &self.scenario.telemetry;
        let has_weights = step > 0 && is_due(step - 1, telemetry.weights_every);
        for rank in self.ranks().filter(|rank| !self.is_hit(FaultKind::Silence, step, *rank)) {
            let time = self.clock(rank, self.now_ns);
            let mut tell =
                |kind, name, digest: &str| emit(Row::Digest { rank: Some(rank), step, time, kind, name, digest });
            if has_weights {
                tell("weight_before", "layers", &self.weights.digest(rank))?;
            }
            if telemetry.batches {
                let dp = self.layout.places[rank as usize].dp;
                tell("batch", "tokens", &batch_digest(self.scenario, step, dp))?;
            }
        }
        Ok(())
    }

    /// What each rank logs before the all-reduce.
    fn emit_work<E>(&self, step: u64, works: &[Work], course: &Course, emit: &mut Emit<'_, E>) -> Result<(), E> {
        for (rank, work) in (0_u32..).zip(works) {
            let is_mute = [FaultKind::Silence, FaultKind::Hang].iter().any(|kind| self.is_hit(*kind, step, rank));
            if is_mute {
                continue;
            }
            let time = self.clock(rank, self.now_ns + nanoseconds(work.forward_s + work.backward_s));
            let mut tell = |metric, value| emit(Row::Sample { rank: Some(rank), step, time, metric, value });
            tell("forward_time_s", work.forward_s)?;
            tell("backward_time_s", work.backward_s)?;
            let place = &self.layout.places[rank as usize];
            if logs_loss(self.scenario, place) {
                tell("loss_local", self.training.loss_local(self.scenario, course, step, place.dp))?;
            }
            if self.scenario.telemetry.gradients {
                let gradient = self.training.gradient(self.scenario, course, step, rank);
                tell("grad_norm_local", gradient.norm)?;
            }
        }
        Ok(())
    }

    /// The all-reduce of each communicator: it ends for all members when the last one has come and the bytes are through.
    ///
    /// * Returns when the last communicator was done; `None` when one never is.
    fn reduce<E>(&self, step: u64, works: &[Work], emit: &mut Emit<'_, E>) -> Result<Option<i64>, E> {
        let mut done_ns = Some(self.now_ns);
        for (comm, members) in &self.layout.groups {
            let arrival = |rank: u32| {
                let work = works[rank as usize];
                self.now_ns + nanoseconds(work.forward_s + work.backward_s)
            };
            let last_ns = members.iter().map(|rank| arrival(*rank)).max().unwrap_or(self.now_ns);
            let is_hung = members.iter().any(|rank| self.is_hit(FaultKind::Hang, step, *rank));
            let transfer_ns = nanoseconds(transfer_s(self.scenario, step, members));
            let end_ns = (!is_hung).then_some(last_ns + transfer_ns);
            done_ns = done_ns.zip(end_ns).map(|(done, end)| done.max(end));
            let is_mute =
                |rank: u32| self.is_hit(FaultKind::Hang, step, rank) || self.is_hit(FaultKind::Silence, step, rank);
            if !self.scenario.telemetry.collectives {
                continue;
            }
            for rank in members.iter().copied().filter(|rank| !is_mute(*rank)) {
                let start = self.clock(rank, arrival(rank));
                let end = end_ns.map(|end| self.clock(rank, end));
                let is_astray = self.is_hit(FaultKind::Desync, step, rank);
                let bytes = if is_astray { PAYLOAD_BYTES / 2 } else { PAYLOAD_BYTES };
                emit(Row::Collective { rank, comm, seq: step, bytes, start, end, step })?;
            }
        }
        Ok(done_ns)
    }

    /// What is logged when a step is over.
    fn emit_results<E>(&self, step: u64, begin_ns: i64, course: &Course, emit: &mut Emit<'_, E>) -> Result<(), E> {
        let step_time_s = (self.now_ns - begin_ns) as f64 / 1e9;
        for rank in self.ranks().filter(|rank| !self.is_hit(FaultKind::Silence, step, *rank)) {
            let time = self.clock(rank, self.now_ns);
            emit(Row::Sample { rank: Some(rank), step, time, metric: "step_time_s", value: step_time_s })?;
            if self.scenario.telemetry.gradients {
                let value = self.training.gradient(self.scenario, course, step, rank).cosine;
                emit(Row::Sample { rank: Some(rank), step, time, metric: "grad_cosine_local", value })?;
            }
            if is_due(step, self.scenario.telemetry.weights_every) {
                let digest = self.weights.digest(rank);
                let name = "layers";
                emit(Row::Digest { rank: Some(rank), step, time, kind: "weight", name, digest: &digest })?;
            }
        }
        let width = self.scenario.cluster.dp;
        let losses = (0..width).map(|dp| self.training.loss_local(self.scenario, course, step, dp));
        let numbers = [
            ("loss", losses.sum::<f64>() / f64::from(width)),
            ("grad_norm", course.grad_norm),
            ("learning_rate", course.learning_rate),
            ("tokens", self.scenario.life.tokens as f64 * f64::from(width)),
        ];
        let time = self.now_ns;
        numbers
            .iter()
            .try_for_each(|(metric, value)| emit(Row::Sample { rank: None, step, time, metric, value: *value }))
    }

    /// Checkpoint and evaluation after a step, where they are due; both are announced.
    fn pause_after<E>(&mut self, step: u64, emit: &mut Emit<'_, E>) -> Result<(), E> {
        let life = &self.scenario.life;
        if is_due(step, life.checkpoint_every) {
            self.pause("checkpoint", life.checkpoint_s, emit)?;
            let digest = checkpoint_digest(self.scenario, step);
            let name = format!("step-{step}");
            let detail = format!("{{\"step\":{step},\"digest\":\"{digest}\"}}");
            let (time, source, kind) = (self.now_ns, "trainer", "checkpoint");
            let (subject, detail) = (Some(name.as_str()), Some(detail.as_str()));
            emit(Row::Event { time, source, kind, actor: None, node: None, subject, detail })?;
            let kind = "checkpoint_saved";
            emit(Row::Digest { rank: None, step, time, kind, name: &name, digest: &digest })?;
        }
        if is_due(step, life.evaluation_every) {
            self.pause("evaluation", life.evaluation_s, emit)?;
        }
        Ok(())
    }

    fn pause<E>(&mut self, what: &str, length_s: f64, emit: &mut Emit<'_, E>) -> Result<(), E> {
        self.mark(self.now_ns, "pause_begin", Some(what), emit)?;
        self.now_ns += nanoseconds(length_s);
        self.mark(self.now_ns, "pause_end", Some(what), emit)
    }
}

/// True after every `every` steps; never where it is 0.
fn is_due(step: u64, every: u64) -> bool {
    every > 0 && (step + 1).is_multiple_of(every)
}

fn nanoseconds(seconds: f64) -> i64 {
    (seconds * 1e9) as i64
}

#[cfg(test)]
mod tests;
