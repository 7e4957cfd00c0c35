//! A simulated run through the pipeline while it runs: nothing is written, and what is told is what `replay` tells of
//! the same run in a folder.
//!
//! The simulation and the judging have a thread each; parts of the log go from one to the other through a short queue.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use trainwarden_detect::Budget;
use trainwarden_ingest::{Feed, IngestError, LogClock, LogPart, Membership, Names};
use trainwarden_simulate::{FaultKind, Row, Scenario, simulate};
use trainwarden_telemetry::{Change, RunId};

use crate::pipeline::Pipeline;
use crate::replay::Findings;
use crate::simulation;

/// How far back a simulated row can lie, in seconds: an audit record is written 8 s before its fault begins, and a
/// checkpoint is loaded 7.5 s before the first step. Ranks that lie about their time come on top.
const SLACK_S: f64 = 10.0;
/// What the clocks of two nodes can be apart, in deviations: the noise of each ends at six.
const CLOCK_DEVIATIONS: f64 = 12.0;
/// Parts that may wait between the two threads: one in hand and one to come keep both at work.
const PARTS_WAITING: usize = 2;

/// How far a run is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// The newest launch, and the newest step of it; `None` before the first step.
    pub place: Option<(u32, u64)>,
    /// Log time, in nanoseconds since the epoch.
    pub log_time: i64,
    /// Rows judged.
    pub rows: u64,
}

/// Who looks on while a run is judged. An error ends the run.
pub trait Watch {
    /// The first row of the newest step came.
    ///
    /// # Errors
    /// When what is seen cannot be shown.
    fn step(&mut self, now: Moment) -> io::Result<()>;

    /// An incident changed.
    ///
    /// # Errors
    /// When what is seen cannot be shown.
    fn change(&mut self, now: Moment, change: &Change) -> io::Result<()>;
}

/// Simulates a run and judges it on the way.
///
/// # Errors
/// Those of the watch.
pub fn fast_forward(scenario: &Scenario, watch: &mut dyn Watch) -> io::Result<Findings> {
    let (sender, receiver) = sync_channel(PARTS_WAITING);
    thread::scope(|scope| {
        let simulation = scope.spawn(move || send_parts(scenario, &sender));
        let findings = judge_parts(scenario, receiver, watch);
        let late = simulation.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        assert!(findings.is_err() || late == 0, "{late} simulated rows are older than the slack of the feed");
        findings
    })
}

/// Why a simulation ends early.
enum Stop {
    Sink(IngestError),
    /// Nobody judges any more.
    Left,
}

impl From<IngestError> for Stop {
    fn from(error: IngestError) -> Self {
        Self::Sink(error)
    }
}

/// Simulates, and sends what has settled whenever a step begins.
///
/// * Returns how many rows came too late for their place in the log.
fn send_parts(scenario: &Scenario, sender: &SyncSender<LogPart>) -> u64 {
    let mut feed = Feed::new((slack_s(scenario) * 1e9) as i64);
    let mut step_in_hand = None;
    let ended = simulate(scenario, &mut |attempt, row| {
        // Samples, not just any row: the ranks and communicators of a launch are told before its first one.
        if let Row::Sample { step, .. } = row
            && step_in_hand.replace(step).is_some_and(|before| before != step)
        {
            sender.send(feed.release()).map_err(|_| Stop::Left)?;
        }
        simulation::put(&mut feed, (&scenario.run, attempt), &row).map_err(Stop::Sink)
    });
    match ended {
        Ok(()) => {
            let late = feed.late();
            // Nobody to take it is no failure of this side: the other one has told why.
            let _ = sender.send(feed.finish());
            late
        }
        Err(Stop::Left) => 0,
        Err(Stop::Sink(error)) => unreachable!("a feed takes every row: {error}"),
    }
}

/// How far back a row of the scenario can lie, in seconds.
fn slack_s(scenario: &Scenario) -> f64 {
    let lies = scenario.faults.iter().filter(|fault| fault.kind == FaultKind::Backdate);
    let lies_s: f64 = lies.map(|fault| fault.size.abs()).sum();
    SLACK_S + CLOCK_DEVIATIONS * scenario.noise.clock_skew_s + lies_s
}

fn judge_parts(scenario: &Scenario, parts: Receiver<LogPart>, watch: &mut dyn Watch) -> io::Result<Findings> {
    let run = RunId::new(&scenario.run);
    let mut pipeline = Pipeline::new(&run, LogClock::Nanoseconds, Membership::default(), Budget::default());
    let (mut names, mut findings, mut now) = (Names::default(), Findings::default(), Moment::default());
    for part in parts {
        names.append(part.texts);
        pipeline.tell(part.membership);
        for record in part.rows.records() {
            now.log_time = record.log_time;
            now.rows += 1;
            let place = record.step().map(|step| (record.attempt(), step));
            if place > now.place {
                now.place = place;
                watch.step(now)?;
            }
            tell(watch, now, pipeline.push(&record, &names), &mut findings)?;
        }
    }
    tell(watch, now, pipeline.finish(), &mut findings)?;
    findings.add(&run, now.rows, &pipeline);
    findings.sort();
    Ok(findings)
}

fn tell(watch: &mut dyn Watch, now: Moment, changes: Vec<Change>, findings: &mut Findings) -> io::Result<()> {
    changes.iter().try_for_each(|change| watch.change(now, change))?;
    findings.changes.extend(changes);
    Ok(())
}
