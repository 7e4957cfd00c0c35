//! Launches of a run: how each begins and ends.

use crate::fault::active;
use crate::random::Stream;
use crate::run::{Emit, Run, nanoseconds};
use crate::training::Training;
use crate::weights::Weights;
use crate::{Fault, FaultKind, Row};

/// From a launch to its first step.
const LAUNCH_S: f64 = 30.0;
/// From the death of a process to the end of the others, which wait for it and give up.
const GIVE_UP_S: f64 = 5.0;
/// From a kill to the next launch.
const RELAUNCH_S: f64 = 180.0;

/// What a launch resumes from.
#[derive(Clone, Debug)]
pub(crate) struct Checkpoint {
    /// The first step that is not in it.
    pub(crate) next_step: u64,
    pub(crate) name: String,
    pub(crate) weights: Weights,
    pub(crate) training: Training,
}

/// Why a launch ends before the run does.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Stop {
    /// Somebody planned it.
    Planned { down_s: f64, replaced_node: Option<u32> },
    /// A process was killed.
    Killed { rank: u32 },
}

/// The stops that are still to come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stops {
    planned: usize,
    /// Kills so far, and the steps done when the next one is due.
    kills: u64,
    next_kill: Option<u64>,
}

impl Stops {
    /// The stop that is due before a step, if one is.
    ///
    /// * `done`: steps done in all launches.
    pub(crate) fn due(&mut self, run: &Run<'_>, done: u64) -> Option<Stop> {
        let scenario = run.scenario;
        if let Some(restart) = scenario.life.restarts.get(self.planned).filter(|restart| restart.step == run.step) {
            self.planned += 1;
            return Some(Stop::Planned { down_s: restart.down_s, replaced_node: restart.replaced_node });
        }
        let fault = active(&scenario.faults, FaultKind::Kills, run.moment()).next()?;
        let is_due = self.next_kill.is_none_or(|due| done >= due);
        if !is_due || self.kills as f64 >= fault.size {
            return None;
        }
        let ranks = u64::from(scenario.cluster.ranks());
        let rank = (run.random.bits(Stream::Kill, 0, self.kills) % ranks) as u32;
        self.next_kill = Some(done + self.pause(run, fault));
        self.kills += 1;
        Some(Stop::Killed { rank })
    }

    /// Steps until the next kill: half to one and a half of an equal share.
    fn pause(&self, run: &Run<'_>, fault: &Fault) -> u64 {
        let end = fault.end_step.unwrap_or(run.scenario.steps);
        let share = (end - fault.onset_step) as f64 / fault.size.max(1.0);
        (share * (0.5 + run.random.uniform(Stream::Kill, 1, self.kills))) as u64 + 1
    }
}

impl Run<'_> {
    /// Begins a launch: from the last checkpoint, where there is one.
    pub(crate) fn launch<E>(&mut self, emit: &mut Emit<'_, E>) -> Result<(), E> {
        self.mark("run_start", None, emit)?;
        let begun_ns = self.now_ns;
        for (rank, place) in (0_u32..).zip(&self.layout.places) {
            let device = place.node * self.scenario.cluster.ranks_per_node + place.local_rank;
            let row = Row::Placement {
                rank,
                node: &crate::cluster::node_name(place.node),
                device: &format!("GPU-{device:08x}"),
                local_rank: place.local_rank,
                dp: place.dp,
                tp: place.tp,
                pp: place.pp,
            };
            emit(self.attempt, row)?;
        }
        for group in &self.layout.groups {
            let member = |rank: &u32| Row::Member { comm: &group.name, rank: *rank };
            group.members.iter().try_for_each(|rank| emit(self.attempt, member(rank)))?;
        }
        self.now_ns = begun_ns + nanoseconds(LAUNCH_S / 2.0);
        self.emit_environment(emit)?;
        self.now_ns = begun_ns + nanoseconds(LAUNCH_S);
        self.load(emit)
    }

    /// Loads the last checkpoint.
    fn load<E>(&mut self, emit: &mut Emit<'_, E>) -> Result<(), E> {
        let Some(checkpoint) = self.checkpoint.clone() else { return Ok(()) };
        (self.weights, self.training) = (checkpoint.weights, checkpoint.training);
        let swaps = active(&self.scenario.faults, FaultKind::CheckpointSwap, self.moment());
        for fault in swaps.filter(|fault| fault.attempt == self.attempt) {
            self.weights.move_all(self.moment(), |_| true);
            self.training.edit(fault.size);
        }
        let (digest, kind) = (self.weights.checkpoint(), "checkpoint_loaded");
        let (name, digest) = (checkpoint.name.as_str(), digest.as_str());
        let time = self.now_ns - nanoseconds(LAUNCH_S / 4.0);
        emit(self.attempt, Row::Digest { rank: None, step: self.step, time, kind, name, digest })
    }

    /// Ends a launch before the run is over.
    pub(crate) fn stop<E>(&mut self, stop: &Stop, emit: &mut Emit<'_, E>) -> Result<(), E> {
        match *stop {
            Stop::Planned { down_s, replaced_node } => {
                self.mark("pause_begin", Some("maintenance"), emit)?;
                self.exit_all(None, r#"{"code":0}"#, emit)?;
                self.now_ns += nanoseconds(down_s);
                self.mark("pause_end", Some("maintenance"), emit)?;
                if let Some(node) = replaced_node {
                    self.layout.replace(self.scenario, node);
                }
            }
            Stop::Killed { rank } => {
                self.exit(rank, r#"{"signal":9}"#, emit)?;
                self.now_ns += nanoseconds(GIVE_UP_S);
                self.exit_all(Some(rank), r#"{"code":1}"#, emit)?;
                self.now_ns += nanoseconds(RELAUNCH_S);
            }
        }
        self.attempt += 1;
        self.step = self.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.next_step);
        if self.checkpoint.is_none() {
            self.weights = Weights::of(self.scenario, &self.layout);
            self.training = Training::of(self.scenario);
        }
        self.count = 0;
        Ok(())
    }

    fn exit_all<E>(&self, but: Option<u32>, detail: &str, emit: &mut Emit<'_, E>) -> Result<(), E> {
        self.ranks().filter(|rank| Some(*rank) != but).try_for_each(|rank| self.exit(rank, detail, emit))
    }

    fn exit<E>(&self, rank: u32, detail: &str, emit: &mut Emit<'_, E>) -> Result<(), E> {
        let node = crate::cluster::node_name(self.layout.places[rank as usize].node);
        let row = Row::Event {
            time: self.now_ns,
            source: "launcher",
            kind: "process_exit",
            actor: None,
            node: Some(&node),
            rank: Some(rank),
            subject: None,
            detail: Some(detail),
        };
        emit(self.attempt, row)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use crate::{Scenario, simulate};

    fn told(text: &str) -> Vec<(u32, String)> {
        let scenario = Scenario::from_toml(text).expect("the scenario is right");
        let mut told = Vec::new();
        let Ok(()) = simulate::<Infallible>(&scenario, &mut |attempt, row| {
            match row {
                Row::Sample { step, metric: "loss", .. } => told.push((attempt, format!("step {step}"))),
                Row::Event { kind: "process_exit", rank, detail, .. } => {
                    told.push((attempt, format!("exit {} {}", rank.unwrap_or(99), detail.unwrap_or_default())));
                }
                Row::Digest { kind, name, digest, .. } if kind.starts_with("checkpoint") => {
                    told.push((attempt, format!("{kind} {name} {digest}")));
                }
                _ => {}
            }
            Ok(())
        });
        told
    }

    const RUN: &str = "run = 'a'\nseed = 5\nsteps = 12\n[cluster]\ndp = 2\n[life]\ncheckpoint_every = 5\n";

    #[test]
    fn a_restart_resumes_from_the_last_checkpoint_with_what_was_saved() {
        let told = told(&format!("{RUN}[[life.restart]]\nstep = 7"));
        let steps = |attempt: u32| told.iter().filter(move |row| row.0 == attempt && row.1.starts_with("step")).count();
        assert_eq!((steps(0), steps(1)), (7, 7));
        assert!(told.contains(&(1, "step 5".to_owned())) && told.contains(&(0, "exit 1 {\"code\":0}".to_owned())));
        let digest = |kind: &str| {
            let of_kind = |row: &&(u32, String)| row.1.starts_with(kind);
            told.iter().find(of_kind).and_then(|row| row.1.rsplit(' ').next().map(str::to_owned)).expect("it was told")
        };
        assert_eq!(digest("checkpoint_saved step-4"), digest("checkpoint_loaded step-4"));
    }

    #[test]
    fn a_swapped_checkpoint_is_not_what_was_saved() {
        let told = told(&format!(
            "{RUN}[[life.restart]]\nstep = 7\n[[fault]]\nkind = 'checkpoint_swap'\nattempt = 1\nonset_step = 5"
        ));
        let words: Vec<&str> = told.iter().filter_map(|row| row.1.rsplit_once("step-4 ")).map(|row| row.1).collect();
        assert_eq!(words.len(), 2);
        assert_ne!(words[0], words[1]);
    }

    #[test]
    fn each_kill_takes_one_process_and_the_others_give_up() {
        let told = told(&format!("{RUN}[[fault]]\nkind = 'kills'\nonset_step = 6\nsize = 2"));
        let kills: Vec<&(u32, String)> = told.iter().filter(|row| row.1.contains("signal")).collect();
        assert_eq!(kills.iter().map(|row| row.0).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(told.iter().filter(|row| row.1.contains("\"code\":1")).count(), 2);
        assert!(told.contains(&(2, "step 11".to_owned())), "it ends all the same");
    }
}
