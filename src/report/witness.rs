//! Looks at the telemetry around an incident: the series it speaks of, and what happened to the run meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::Deserialize;
use trainwarden_ingest::{Aligner, Log, Membership, Rejects, RunLog};
use trainwarden_telemetry::{
    AttemptStart, CollectiveCall, DigestKind, DigestSet, Event, Incident, Label, Observation, Panel, Rank, Roster,
    State, Step, Timestamp,
};

use super::as_logged::AsLogged;
use super::trace::{Cell, Measured, Trace};

/// Series drawn of one incident: those of its first evidence.
const TRACES_MAX: usize = 4;
/// Suspects drawn as lines of their own.
pub(super) const LINES_MAX: usize = 6;
/// Steps shown before the onset, at least and at most.
const BEFORE_STEPS: (u64, u64) = (40, 400);
/// Steps shown after the last one, at least and at most.
const AFTER_STEPS: (u64, u64) = (20, 200);
/// The same where rows have times only, in nanoseconds.
const BEFORE_NS: (i64, i64) = (600_000_000_000, 6 * 3_600_000_000_000);
const AFTER_NS: (i64, i64) = (300_000_000_000, 3 * 3_600_000_000_000);
/// The part of a window left free after the last row.
const AFTER_PART: u64 = 16;
/// What tells how the run as a whole went.
const WHOLE_RUN: [&str; 2] = ["loss", "step_time_s"];
/// Calls that did not complete, shown.
const STALLED_MAX: usize = 8;
/// Checkpoints and marks kept: more fit no timeline.
const MARKS_MAX: usize = 4_096;

/// The part of a run that is looked at.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Window {
    /// By steps, both ends included.
    Steps(u64, u64),
    /// By time, in nanoseconds since the epoch.
    Times(i64, i64),
}

impl Window {
    /// Some of the healthy past, the incident, and some of what followed.
    pub(super) fn around(incident: &Incident) -> Option<Self> {
        if let Some(first) = incident.onset.map(|onset| onset.low).or(incident.first_step) {
            let last = incident.last_step.max(incident.detected_step).map_or(first.0, |step| step.0).max(first.0);
            let span = last - first.0;
            let before = span.clamp(BEFORE_STEPS.0, BEFORE_STEPS.1);
            return Some(Self::Steps(
                first.0.saturating_sub(before),
                last.saturating_add(span.clamp(AFTER_STEPS.0, AFTER_STEPS.1)),
            ));
        }
        let first = incident.started_at?.0;
        let last = incident.detected_at.map_or(first, |time| time.0).max(first);
        let span = last - first;
        Some(Self::Times(
            first.saturating_sub(span.clamp(BEFORE_NS.0, BEFORE_NS.1)),
            last.saturating_add(span.clamp(AFTER_NS.0, AFTER_NS.1)),
        ))
    }

    /// Where a row lies in it, 0 at its begin and 1 at its end; `None` outside.
    pub(super) fn place(self, label: Label) -> Option<f64> {
        let (at, from, to) = match self {
            Self::Steps(from, to) => (label.step?.0 as f64, from as f64, to as f64),
            Self::Times(from, to) => (label.time?.0 as f64, from as f64, to as f64),
        };
        (from..=to).contains(&at).then(|| (at - from) / (to - from).max(1.0))
    }
}

/// Something that happened to the run at one moment.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Mark {
    pub(super) label: Label,
    pub(super) what: String,
    /// It marks a launch, or the end of what is known.
    pub(super) is_of_run: bool,
}

/// A call that closed before all its members had finished.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Stalled {
    pub(super) call: u64,
    pub(super) op: String,
    pub(super) finished: usize,
    /// Entered and not finished.
    pub(super) unfinished: Vec<Rank>,
    /// Never heard of.
    pub(super) missing: Vec<Rank>,
}

/// What was seen around an incident.
#[derive(Debug, Default)]
pub(super) struct Sight {
    pub(super) window: Option<Window>,
    /// Series of the evidence, in its order, then those of the whole run.
    pub(super) traces: Vec<Trace>,
    pub(super) stalled: Vec<Stalled>,
    /// Checkpoints of the whole run, by name.
    pub(super) checkpoints: BTreeMap<String, Label>,
    /// Launches, pauses and exits.
    pub(super) marks: Vec<Mark>,
    pub(super) roster: Roster,
    /// Names of all series of the launch.
    pub(super) metrics: BTreeSet<String>,
    pub(super) ranks: BTreeSet<Rank>,
    pub(super) rows: u64,
    /// First and last row of the launch.
    pub(super) reach: Option<(Label, Label)>,
    /// The cells that the evidence is about, as they were logged; by place in the evidence.
    pub(super) cells: BTreeMap<usize, AsLogged>,
}

/// Looks through the telemetry of an incident's run.
///
/// * `paths`: run folders or an archive.
/// * Returns an empty sight where the run is not there.
///
/// # Errors
/// When a path does not exist or holds no table, or a disk fails.
pub(super) fn look(paths: &[PathBuf], incident: &Incident) -> Result<Sight> {
    let mut log = Log::read(paths, &mut Rejects::new())?;
    let Some(run_log) = log.runs.remove(&incident.run) else { return Ok(Sight::default()) };
    let RunLog { names, rosters, communicators, clock, rows } = run_log;
    let mut aligner = Aligner::new(clock, Membership { rosters, communicators });
    let mut witness = Witness::new(incident);
    let mut ready = Vec::new();
    for record in rows.into_records(clock) {
        let record = record.with_context(|| format!("cannot read run `{}`", incident.run))?;
        witness.sight.rows += 1;
        aligner.push(&record, &names, &mut ready);
        ready.drain(..).for_each(|seen| witness.take(&seen));
    }
    aligner.finish(&mut ready);
    ready.drain(..).for_each(|seen| witness.take(&seen));
    Ok(witness.finish())
}

struct Witness<'a> {
    incident: &'a Incident,
    suspects: Vec<Rank>,
    sight: Sight,
}

impl<'a> Witness<'a> {
    fn new(incident: &'a Incident) -> Self {
        let suspects: Vec<Rank> = incident.suspects.iter().take(LINES_MAX).map(|suspect| suspect.rank).collect();
        let mut sight = Sight { window: Window::around(incident), ..Sight::default() };
        let mut names: Vec<&str> = Vec::new();
        for evidence in &incident.evidence {
            if !names.contains(&evidence.metric.as_str()) && names.len() < TRACES_MAX {
                names.push(evidence.metric.as_str());
            }
        }
        names.extend(WHOLE_RUN.iter().filter(|name| !incident.evidence.iter().any(|e| e.metric.as_str() == **name)));
        sight.traces = names.into_iter().map(Trace::new).collect();
        Self { incident, suspects, sight }
    }

    fn take(&mut self, seen: &Observation) {
        match seen {
            Observation::Attempt(start) => self.take_attempt(start),
            Observation::Panel(panel) if panel.attempt == self.incident.attempt => self.take_panel(panel),
            Observation::Collective(call) if call.attempt == self.incident.attempt => self.take_call(call),
            Observation::Digests(set) => self.take_digests(set),
            Observation::Event(event) => self.take_event(event),
            Observation::Quiet(quiet) if quiet.attempt == self.incident.attempt => {
                let label = Label { step: quiet.last.step, time: Some(quiet.overdue) };
                self.mark(label, "nothing more came of the run".to_owned(), true);
            }
            _ => {}
        }
    }

    fn take_attempt(&mut self, start: &AttemptStart) {
        if start.attempt == self.incident.attempt {
            self.sight.roster = (*start.roster).clone();
            self.sight.ranks.extend(start.roster.placements.keys());
        }
    }

    fn take_panel(&mut self, panel: &Panel) {
        if !self.sight.metrics.contains(panel.metric.as_str()) {
            self.sight.metrics.insert(panel.metric.to_string());
        }
        self.sight.ranks.extend(panel.ranks.iter());
        for (at, evidence) in self.incident.evidence.iter().enumerate() {
            if evidence.metric == panel.metric {
                let cell = self.sight.cells.entry(at).or_default();
                cell.see(panel, evidence, &self.sight.roster);
            }
        }
        let trace = self.sight.traces.iter().position(|trace| trace.name == panel.metric.as_str());
        for row in 0..panel.rows() {
            self.reach(panel.labels[row]);
            let Some(trace) = trace else { continue };
            let cells = panel.values.ncols();
            let cells: Vec<Cell> =
                (0..cells).filter_map(|column| Some((panel.rank(column), panel.value(row, column)?))).collect();
            self.add(trace, panel.labels[row], Measured::Samples, &cells);
        }
    }

    fn reach(&mut self, label: Label) {
        let (first, last) = self.sight.reach.get_or_insert((label, label));
        *first = (*first).min(label);
        *last = (*last).max(label);
    }

    fn add(&mut self, trace: usize, label: Label, measured: Measured, cells: &[Cell]) {
        let Some(place) = self.sight.window.and_then(|window| window.place(label)) else { return };
        let Sight { traces, roster, .. } = &mut self.sight;
        traces[trace].add((label, place), measured, cells, (&self.suspects, roster));
    }

    fn take_call(&mut self, call: &CollectiveCall) {
        let Some(trace) = self.sight.traces.iter().position(|trace| trace.name == call.comm) else { return };
        let ends = call.entries.iter().filter_map(|entry| entry.end).max();
        let label =
            Label { step: call.step(), time: ends.or_else(|| call.entries.iter().filter_map(|e| e.start).max()) };
        let wait = |begin: Timestamp, end: Timestamp| end.seconds_since(begin) as f32;
        let cells: Vec<Cell> = call
            .entries
            .iter()
            .filter_map(|entry| Some((Some(entry.rank), wait(entry.start.or(entry.enqueued)?, entry.end?))))
            .collect();
        self.add(trace, label, Measured::Waits, &cells);
        if call.is_complete() || self.sight.stalled.len() >= STALLED_MAX {
            return;
        }
        let unfinished = call.entries.iter().filter(|entry| entry.end.is_none()).map(|entry| entry.rank).collect();
        self.sight.stalled.push(Stalled {
            call: call.seq,
            op: call.entries.first().map_or("a call", |entry| entry.op.as_str()).to_owned(),
            finished: call.entries.iter().filter(|entry| entry.end.is_some()).count(),
            unfinished,
            missing: call.missing.clone(),
        });
    }

    fn take_digests(&mut self, set: &DigestSet) {
        if set.kind == DigestKind::CheckpointSaved {
            self.checkpoint(&set.name, set.label);
        }
        let are_replicas = matches!(set.kind, DigestKind::Weight | DigestKind::Optimizer | DigestKind::Gradient);
        let trace = self.sight.traces.iter().position(|trace| trace.name == set.name);
        let (Some(trace), true, true) = (trace, are_replicas, set.attempt == self.incident.attempt) else { return };
        let told: Vec<(Rank, &str)> =
            set.entries.iter().filter_map(|entry| Some((entry.rank?, &*entry.digest))).collect();
        let ranks: Vec<Rank> = told.iter().map(|(rank, _)| *rank).collect();
        let mut cells = Vec::new();
        for group in self.sight.roster.peer_groups(&ranks) {
            let words: Vec<&str> = group.iter().map(|place| told[*place].1).collect();
            let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
            words.iter().for_each(|word| *counts.entry(word).or_default() += 1);
            let most = counts.iter().max_by_key(|(word, count)| (**count, std::cmp::Reverse(**word)));
            let Some((usual, _)) = most else { continue };
            let differs = |place: &usize| (Some(told[*place].0), f32::from(u8::from(told[*place].1 != *usual)));
            cells.extend(group.iter().map(differs));
        }
        self.add(trace, set.label, Measured::Differs, &cells);
    }

    fn take_event(&mut self, event: &Event) {
        #[derive(Deserialize)]
        struct Detail {
            step: Option<u64>,
        }
        let detail = event.detail.as_deref().and_then(|text| serde_json::from_str::<Detail>(text).ok());
        let label = Label { step: detail.and_then(|detail| detail.step).map(Step), time: Some(event.time) };
        let of_launch = event.attempt == self.incident.attempt;
        match (event.kind.as_str(), &event.subject) {
            ("checkpoint", Some(name)) => self.checkpoint(name, label),
            ("run_start", _) => self.mark(label, format!("launch {} of the run began", event.attempt.0), true),
            ("run_end", _) if of_launch => self.mark(label, "the launch ended".to_owned(), true),
            ("process_exit", _) if of_launch => {
                let who = event.rank.map_or("a process".to_owned(), |rank| format!("the process of {rank}"));
                self.mark(label, format!("{who} exited"), false);
            }
            ("pause_begin", subject) if of_launch => {
                let what = subject.as_deref().or(event.detail.as_deref()).unwrap_or("no reason told");
                // A checkpoint is told when it is there.
                if what != "checkpoint" {
                    self.mark(label, format!("announced pause: {what}"), false);
                }
            }
            _ => {}
        }
    }

    fn checkpoint(&mut self, name: &str, label: Label) {
        if self.sight.checkpoints.len() < MARKS_MAX {
            let known = self.sight.checkpoints.entry(name.to_owned()).or_insert(label);
            *known = Label { step: label.step.or(known.step), time: label.time.or(known.time) };
        }
    }

    fn mark(&mut self, label: Label, what: String, is_of_run: bool) {
        if self.sight.marks.len() < MARKS_MAX {
            self.sight.marks.push(Mark { label, what, is_of_run });
        }
    }

    fn finish(mut self) -> Sight {
        self.sight.traces.retain(|trace| trace.rows.len() > 1);
        // An incident that lasts ends where the telemetry does.
        if let (State::Open | State::Acknowledged, Some((_, last))) = (self.incident.state, self.sight.reach) {
            let label = Label { step: last.step, time: last.time.max(self.incident.detected_at) };
            self.mark(label, "the telemetry at hand ends; it is not over".to_owned(), true);
        }
        self.close_window();
        self.sight
    }

    /// Lets the window end where the telemetry does.
    fn close_window(&mut self) {
        let Some((Window::Steps(from, to), last)) = self.sight.window.zip(self.sight.reach.and_then(|(_, l)| l.step))
        else {
            return;
        };
        let end = (last.0 + (last.0.saturating_sub(from) / AFTER_PART).max(1)).min(to);
        if end <= from {
            return;
        }
        let stretch = (to - from) as f64 / (end - from) as f64;
        let rows = self.sight.traces.iter_mut().flat_map(|trace| &mut trace.rows);
        rows.for_each(|row| row.place = (row.place * stretch).min(1.0));
        self.sight.window = Some(Window::Steps(from, end));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_has_some_past_and_places_what_lies_in_it() {
        let window = Window::Steps(60, 160);
        let at = |step| Label { step: Some(Step(step)), time: None };
        assert_eq!(
            [59, 60, 110, 160, 161].map(|step| window.place(at(step))),
            [None, Some(0.0), Some(0.5), Some(1.0), None]
        );
        assert_eq!(window.place(Label::default()), None);
    }
}
