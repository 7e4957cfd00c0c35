//! What may be behind incidents and what they cost, as of now.

use std::collections::BTreeSet;

use trainwarden_telemetry::{Attempt, Change, Impact, Incident, IncidentId, Label, Panel, State, Verdict};

use super::{Correlator, Entry};
use crate::hypotheses::{Surroundings, facts, posterior};
use crate::impact::{Course, Meter, Pace, PaceRow, Span, impact, is_slowness, outlasts};
use crate::limits::{CHECKPOINT_NEAR_STEPS, PEERS_MIN, REFRESHED_MAX};

/// What the gauges of devices are called.
const DEVICE_METRICS: &str = "gpu_";

impl Correlator {
    /// Measures the pace; what incidents cost grows with each step.
    pub(super) fn take_panel(&mut self, panel: &Panel) {
        self.widen(panel.attempt, panel.ranks.len());
        if panel.metric.as_str().starts_with(DEVICE_METRICS) {
            self.watched_devices.insert(panel.attempt);
        }
        if let Some(time) = panel.labels.first().and_then(|label| label.time) {
            self.audit.begin(time);
        }
        let is_new = !self.paces.contains_key(&panel.attempt);
        let mut gone = Vec::new();
        let has_advanced = self.paces.entry(panel.attempt).or_default().observe(panel, |row| gone.push(row));
        for row in gone {
            self.evict(panel.attempt, row);
        }
        if is_new {
            self.settle_before(panel.attempt);
        }
        if has_advanced {
            self.account();
        }
    }

    /// A row of pace that is kept no longer goes to the meters of the incidents it belongs to.
    fn evict(&mut self, attempt: Attempt, row: PaceRow) {
        for entry in self.entries.values_mut() {
            let is_open = entry.incident.state != State::Resolved && entry.incident.attempt == attempt;
            let begin = entry.incident.onset.map(|onset| onset.step).or(entry.onset.step);
            if let Some(meter) = entry.meter.as_mut().filter(|_| is_open && row.label.step >= begin) {
                meter.evict(row);
            }
        }
    }

    /// Rows are kept of two launches: of older ones nothing changes any more.
    fn settle_before(&mut self, attempt: Attempt) {
        for (_, pace) in self.paces.range_mut(..attempt).rev().skip(1) {
            pace.settle();
        }
    }

    /// Says of every incident that is not over what may be behind it and what it cost, as of now; and of those that
    /// just changed.
    pub(super) fn explain(&mut self, changes: &mut [Change]) {
        if changes.is_empty() {
            return;
        }
        let changed: BTreeSet<IncidentId> = changes.iter().map(|change| change.incident.id.clone()).collect();
        let is_open = |entry: &&Entry| entry.incident.state != State::Resolved;
        // Each is held against all others; in a flood of them only what changed is looked at.
        let is_flood = self.entries.values().filter(is_open).count() > REFRESHED_MAX;
        let is_meant = |entry: &&Entry| changed.contains(&entry.incident.id) || (is_open(entry) && !is_flood);
        let ids: Vec<IncidentId> =
            self.entries.values().filter(is_meant).map(|entry| entry.incident.id.clone()).collect();
        for id in &ids {
            let entry = &self.entries[id];
            let is_part = entry.incident.merged_into.is_some();
            let hypotheses = match is_part {
                true => Vec::new(),
                false => posterior(entry.incident.kind, &facts(&entry.incident, &self.surroundings(entry))),
            };
            let impact = if is_part { None } else { self.impact(entry) };
            let entry = self.entries.get_mut(id).expect("it was just looked at");
            (entry.incident.hypotheses, entry.incident.impact) = (hypotheses, impact);
        }
        for change in changes {
            let Some(entry) = self.entries.get(&change.incident.id) else { continue };
            change.incident.hypotheses.clone_from(&entry.incident.hypotheses);
            change.incident.impact.clone_from(&entry.incident.impact);
        }
    }

    /// What incidents cost as of now: those that last, and those whose cost does.
    fn account(&mut self) {
        let ids: Vec<IncidentId> = self
            .entries
            .values()
            .filter(|entry| entry.incident.merged_into.is_none())
            .filter(|entry| entry.incident.state != State::Resolved || outlasts(entry.incident.kind))
            .map(|entry| entry.incident.id.clone())
            .collect();
        for id in ids {
            let impact = self.impact(&self.entries[&id]);
            self.entries.get_mut(&id).expect("it was just looked at").incident.impact = impact;
        }
    }

    fn impact(&self, entry: &Entry) -> Option<Impact> {
        let incident = &entry.incident;
        let course = Course {
            paces: &self.paces,
            world_size: self.world_sizes.get(&incident.attempt).copied().unwrap_or(0),
            good_step: self.checkpoints.last_good_step(entry.onset),
            saved_step: self.checkpoints.last_step(),
        };
        let span = Span { onset: entry.onset, last: entry.last, is_over: incident.state == State::Resolved };
        impact(incident, span, entry.meter.as_ref(), &course)
    }

    /// The healthy pace before an onset: beyond the peers' work where the peers are not slow themselves.
    pub(super) fn meter(&self, verdict: &Verdict, onset: Label) -> Option<Meter> {
        let (pace, step) = (self.paces.get(&verdict.attempt)?, onset.step?);
        let world_size = self.world_sizes.get(&verdict.attempt).copied().unwrap_or(0);
        let few = 1..=world_size / PEERS_MIN;
        let is_of_few = is_slowness(verdict.kind) && few.contains(&(verdict.suspects.len() as u64));
        let beyond_peers = || Meter::beyond_peers(pace, step).filter(|_| is_of_few);
        beyond_peers().or_else(|| Meter::new(pace, step))
    }

    fn surroundings(&self, entry: &Entry) -> Surroundings<'_> {
        let incident = &entry.incident;
        let is_beside = |other: &&Incident| {
            other.attempt == incident.attempt && other.merged_into.is_none() && other.id != incident.id
        };
        let launch = self.paces.get(&incident.attempt).and_then(Pace::first);
        let onset = incident.onset.map(|onset| onset.step).or(incident.first_step);
        Surroundings {
            others: self.incidents().filter(is_beside).collect(),
            are_devices_watched: self.watched_devices.contains(&incident.attempt),
            relaunch: launch.filter(|_| incident.attempt > Attempt(0)),
            is_at_checkpoint: onset.is_some_and(|step| self.checkpoints.is_near(step, CHECKPOINT_NEAR_STEPS)),
            has_come_back: entry.has_come_back,
        }
    }
}
