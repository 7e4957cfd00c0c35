//! One cause, one incident: verdicts join the incident they belong to, or open one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use trainwarden_telemetry::{
    Attempt, Change, ChangeKind, Communicators, Event, Evidence, Incident, IncidentId, IncidentScope, IncidentSuspect,
    Kind, Label, Observation, Phase, Rank, Roster, RunId, Severity, State, Timestamp, Verdict,
};

use crate::audit::{AuditScope, AuditTrail};
use crate::cause::{ends_with_attempt, explains, follows_throughout, is_beyond};
use crate::checkpoints::{Checkpoints, touches_weights};
use crate::id::incident_id;
use crate::impact::{Meter, Pace};
use crate::limits::{EVIDENCE_MAX, REOPEN_NS, REOPEN_STEPS, SLACK_NS, SLACK_STEPS, SUSPECTS_MAX};

/// The detector that only sees who comes last, and not why: what it says yields to what is known of own work.
const LATE_ARRIVAL: &str = "late_arrival";

/// A finding of a detector.
type Case = (String, u64);

/// An incident and what keeps it open.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Entry {
    incident: Incident,
    /// The finding that opened it: its words are the incident's.
    lead: Case,
    subject: String,
    open_cases: BTreeSet<Case>,
    onset: Label,
    last: Label,
    /// The healthy pace before it, where known.
    meter: Option<Meter>,
    has_come_back: bool,
}

/// Turns the verdicts of one run into incidents; keeps what gives them context.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Correlator {
    run: RunId,
    entries: BTreeMap<IncidentId, Entry>,
    /// Incidents in the order of their opening.
    opened: Vec<IncidentId>,
    cases: BTreeMap<Case, IncidentId>,
    audit: AuditTrail,
    checkpoints: Checkpoints,
    rosters: BTreeMap<Attempt, Arc<Roster>>,
    communicators: BTreeMap<Attempt, Arc<Communicators>>,
    world_sizes: BTreeMap<Attempt, u64>,
    paces: BTreeMap<Attempt, Pace>,
    /// Launches in which gauges of devices are logged.
    watched_devices: BTreeSet<Attempt>,
}

impl Correlator {
    /// A correlator that has seen nothing of the run.
    #[must_use]
    pub fn new(run: RunId) -> Self {
        Self {
            run,
            entries: BTreeMap::new(),
            opened: Vec::new(),
            cases: BTreeMap::new(),
            audit: AuditTrail::default(),
            checkpoints: Checkpoints::default(),
            rosters: BTreeMap::new(),
            communicators: BTreeMap::new(),
            world_sizes: BTreeMap::new(),
            paces: BTreeMap::new(),
            watched_devices: BTreeSet::new(),
        }
    }

    /// Every incident of the run as it stands, in the order of opening.
    pub fn incidents(&self) -> impl Iterator<Item = &Incident> {
        self.opened.iter().filter_map(|id| self.entries.get(id)).map(|entry| &entry.incident)
    }

    /// Takes in what gives incidents context: rosters, audit records, checkpoints, answers of people.
    pub fn observe(&mut self, seen: &Observation) -> Vec<Change> {
        let mut changes = match seen {
            Observation::Attempt(start) => {
                self.widen(start.attempt, start.roster.placements.len());
                self.rosters.insert(start.attempt, Arc::clone(&start.roster));
                self.communicators.insert(start.attempt, Arc::clone(&start.communicators));
                self.end_before(start.attempt)
            }
            Observation::Panel(panel) => {
                self.take_panel(panel);
                Vec::new()
            }
            Observation::Event(event) => self.take_event(event, seen),
            Observation::Digests(_) => self.take_checkpoint(seen),
            _ => Vec::new(),
        };
        self.explain(&mut changes);
        changes
    }

    fn widen(&mut self, attempt: Attempt, ranks: usize) {
        let world_size = self.world_sizes.entry(attempt).or_default();
        *world_size = (*world_size).max(ranks as u64);
    }

    fn take_event(&mut self, event: &Event, seen: &Observation) -> Vec<Change> {
        match event.kind.as_str() {
            "checkpoint" => self.take_checkpoint(seen),
            "ack" => self.acknowledge(event),
            "pause_begin" => {
                self.paces.entry(event.attempt).or_default().pause(event.time);
                Vec::new()
            }
            "pause_end" => {
                self.paces.entry(event.attempt).or_default().resume(event.time);
                Vec::new()
            }
            _ => {
                if event.is_audit() {
                    self.audit.take(event);
                }
                Vec::new()
            }
        }
    }

    fn acknowledge(&mut self, event: &Event) -> Vec<Change> {
        let Some(subject) = &event.subject else { return Vec::new() };
        let Some(entry) = self.entries.get_mut(&IncidentId(subject.clone())) else { return Vec::new() };
        acknowledge(&mut entry.incident).into_iter().collect()
    }

    fn take_checkpoint(&mut self, seen: &Observation) -> Vec<Change> {
        self.checkpoints.observe(seen);
        let mut changes = Vec::new();
        for id in &self.opened {
            let Some(entry) = self.entries.get_mut(id) else { continue };
            if entry.incident.state == State::Resolved || !touches_weights(entry.incident.kind) {
                continue;
            }
            let affected = self.checkpoints.affected(entry.onset, None);
            if affected != entry.incident.affected_checkpoints {
                entry.incident.affected_checkpoints = affected;
                changes.push(change(ChangeKind::Updated, entry));
            }
        }
        changes
    }

    /// Takes a verdict in.
    pub fn take(&mut self, verdict: &Verdict) -> Vec<Change> {
        let case = (verdict.detector.clone(), verdict.case);
        let mut changes = match verdict.phase {
            Phase::Raised => self.raise(case, verdict),
            Phase::Updated => self.update(case, verdict),
            Phase::Cleared => self.clear(&case, verdict).into_iter().collect(),
        };
        self.explain(&mut changes);
        changes
    }

    fn raise(&mut self, case: Case, verdict: &Verdict) -> Vec<Change> {
        if let Some(home) = self.home(verdict) {
            let entry = self.entries.get_mut(&home).expect("home gives a known incident");
            let kind = match entry.incident.state {
                State::Resolved => ChangeKind::Reopened,
                _ => ChangeKind::Updated,
            };
            let leads = kind == ChangeKind::Reopened
                || verdict.severity > entry.incident.severity
                || entry.is_named_by(verdict);
            entry.incident.state = if kind == ChangeKind::Reopened { State::Open } else { entry.incident.state };
            entry.has_come_back |= kind == ChangeKind::Reopened;
            entry.open_cases.insert(case.clone());
            entry.join(verdict);
            if leads && entry.incident.kind == verdict.kind {
                entry.lead = case.clone();
                self.lead(&home, verdict);
                if kind == ChangeKind::Reopened {
                    self.entries.get_mut(&home).expect("it was just changed").incident.summary.push_str(", again");
                }
            }
            self.cases.insert(case, home.clone());
            return vec![change(kind, &self.entries[&home])];
        }
        let id = self.open(case, verdict);
        let mut changes = vec![change(ChangeKind::Opened, &self.entries[&id])];
        for effect in self.effects_of(&id) {
            changes.extend(self.merge(&effect, &id));
        }
        changes
    }

    /// The incident a new finding belongs to: one of its own kind that lasts, then one that explains it, then one of its
    /// own kind that comes back; the newest of several.
    fn home(&self, verdict: &Verdict) -> Option<IncidentId> {
        let newest_first = || {
            self.opened
                .iter()
                .rev()
                .filter_map(|id| self.entries.get(id))
                .filter(|entry| entry.incident.attempt == verdict.attempt && entry.incident.merged_into.is_none())
        };
        let is_over = |entry: &Entry| entry.incident.state == State::Resolved;
        let lasting = newest_first().find(|entry| entry.is_same(verdict) && !is_over(entry));
        let is_cause = |entry: &Entry| {
            entry.explains(verdict) && self.can_reach(&entry.incident, verdict.kind, &verdict.subject)
                || self.is_upstream(entry, verdict)
        };
        let cause = || newest_first().find(|entry| is_cause(entry));
        let ended = || newest_first().find(|entry| entry.is_same(verdict));
        lasting.or_else(cause).or_else(ended).map(|entry| entry.incident.id.clone())
    }

    /// A rank of the same pipeline that works slowly makes the later stages come late: they are not to blame.
    fn is_upstream(&self, entry: &Entry, verdict: &Verdict) -> bool {
        let is_late = verdict.kind == Kind::SlowRank && verdict.detector == LATE_ARRIVAL;
        is_late
            && entry.incident.kind == Kind::SlowRank
            && entry.lead.0 != LATE_ARRIVAL
            && entry.incident.state != State::Resolved
            && self.share_pipeline(verdict.attempt, &ranks_of(&entry.incident), &verdict.ranks().collect())
    }

    /// False for a communicator that became slow and that the slow ranks are no members of: nothing of theirs goes
    /// through it.
    fn can_reach(&self, cause: &Incident, effect: Kind, subject: &str) -> bool {
        if (cause.kind, effect) != (Kind::SlowRank, Kind::SlowLink) {
            return true;
        }
        let told = self.communicators.get(&cause.attempt).and_then(|told| told.members.get(subject));
        told.is_none_or(|members| cause.suspects.iter().any(|suspect| members.contains(&suspect.rank)))
    }

    fn share_pipeline(&self, attempt: Attempt, ones: &BTreeSet<Rank>, others: &BTreeSet<Rank>) -> bool {
        let Some(roster) = self.rosters.get(&attempt) else { return false };
        let index = |rank: &Rank| roster.placements.get(rank).and_then(|placement| placement.dp);
        let ones: BTreeSet<u32> = ones.iter().filter_map(index).collect();
        others.iter().filter_map(index).any(|dp| ones.contains(&dp))
    }

    fn open(&mut self, case: Case, verdict: &Verdict) -> IncidentId {
        let id = incident_id(&self.run, verdict);
        let onset =
            Label { step: verdict.onset.map(|onset| onset.low).or(verdict.first.step), time: verdict.first.time };
        let suspects = self.suspects(verdict);
        let mut incident = Incident {
            attempt: verdict.attempt,
            first_step: verdict.first.step,
            onset: verdict.onset,
            detected_step: verdict.last.step,
            last_step: verdict.last.step,
            started_at: verdict.first.time,
            detected_at: verdict.last.time,
            scope: self.scope(verdict),
            changes: self.changes_before(verdict),
            false_alarms_per_week: self.false_alarms_per_week(verdict),
            suspects,
            summary: verdict.summary.clone(),
            ..Incident::new(id.clone(), self.run.clone(), verdict.kind, verdict.severity)
        };
        add_evidence(&mut incident.evidence, &verdict.evidence);
        if touches_weights(verdict.kind) {
            incident.last_good_checkpoint = self.checkpoints.last_good(onset);
            incident.affected_checkpoints = self.checkpoints.affected(onset, None);
        }
        let open_cases = BTreeSet::from([case.clone()]);
        let entry = Entry {
            incident,
            lead: case.clone(),
            subject: verdict.subject.clone(),
            open_cases,
            onset,
            last: verdict.last,
            meter: self.meter(verdict, onset),
            has_come_back: false,
        };
        if self.entries.insert(id.clone(), entry).is_none() {
            self.opened.push(id.clone());
        }
        self.cases.insert(case, id.clone());
        id
    }

    fn update(&mut self, case: Case, verdict: &Verdict) -> Vec<Change> {
        let Some(id) = self.cases.get(&case).cloned() else { return Vec::new() };
        let Some(entry) = self.entries.get_mut(&id) else { return Vec::new() };
        if entry.lead != case && !blames(verdict, &ranks_of(&entry.incident)) {
            return self.part(case, &id, verdict);
        }
        entry.join(verdict);
        if entry.lead == case || entry.is_named_by(verdict) {
            entry.lead = case;
            self.lead(&id, verdict);
        }
        vec![change(ChangeKind::Updated, &self.entries[&id])]
    }

    /// A finding taken for an effect, while it named nobody, turns out to be about others: it is a matter of its own.
    fn part(&mut self, case: Case, id: &IncidentId, verdict: &Verdict) -> Vec<Change> {
        let mut changes = Vec::new();
        self.cases.remove(&case);
        if let Some(entry) = self.entries.get_mut(id) {
            entry.open_cases.remove(&case);
            if entry.open_cases.is_empty() && entry.incident.state != State::Resolved {
                changes.push(entry.resolve(&self.checkpoints));
            }
        }
        changes.extend(self.raise(case, verdict));
        changes
    }

    /// Lets a finding speak for its incident.
    fn lead(&mut self, id: &IncidentId, verdict: &Verdict) {
        let (suspects, scope) = (self.suspects(verdict), self.scope(verdict));
        let Some(entry) = self.entries.get_mut(id) else { return };
        entry.incident.suspects = suspects;
        entry.incident.scope = scope;
        entry.incident.summary.clone_from(&verdict.summary);
    }

    fn clear(&mut self, case: &Case, verdict: &Verdict) -> Option<Change> {
        let id = self.cases.remove(case)?;
        let entry = self.entries.get_mut(&id)?;
        entry.open_cases.remove(case);
        entry.reach(verdict.last);
        if !entry.open_cases.is_empty() || entry.incident.state == State::Resolved {
            return None;
        }
        Some(entry.resolve(&self.checkpoints))
    }

    /// A launch begins: what was about the processes of earlier ones is over.
    fn end_before(&mut self, attempt: Attempt) -> Vec<Change> {
        let mut changes = Vec::new();
        for id in &self.opened {
            let Some(entry) = self.entries.get_mut(id) else { continue };
            let incident = &entry.incident;
            let is_open = incident.state != State::Resolved;
            if is_open && incident.attempt < attempt && ends_with_attempt(incident.kind) {
                for case in std::mem::take(&mut entry.open_cases) {
                    self.cases.remove(&case);
                }
                changes.push(entry.resolve(&self.checkpoints));
            }
        }
        changes
    }

    /// Incidents that the one just opened explains. Those that were over before it was found are among them: a cause
    /// that takes long to prove is no reason to tell its first effects apart.
    fn effects_of(&self, cause: &IncidentId) -> Vec<IncidentId> {
        let cause = &self.entries[cause];
        let is_explained = |entry: &Entry| {
            explains(cause.incident.kind, entry.incident.kind)
                && begins_with(entry.onset, cause.onset)
                && are_compatible(&ranks_of(&entry.incident), &ranks_of(&cause.incident))
                && self.can_reach(&cause.incident, entry.incident.kind, &entry.subject)
        };
        let is_downstream = |entry: &Entry| {
            let (suspects, late) = (ranks_of(&cause.incident), ranks_of(&entry.incident));
            cause.incident.kind == Kind::SlowRank
                && cause.lead.0 != LATE_ARRIVAL
                && entry.incident.kind == Kind::SlowRank
                && entry.lead.0 == LATE_ARRIVAL
                && self.share_pipeline(cause.incident.attempt, &suspects, &late)
        };
        let is_effect = |entry: &&Entry| {
            let other = &entry.incident;
            other.id != cause.incident.id
                && other.attempt == cause.incident.attempt
                && other.merged_into.is_none()
                && other.severity <= cause.incident.severity
                && (is_explained(entry) || is_downstream(entry))
        };
        self.opened
            .iter()
            .filter_map(|id| self.entries.get(id))
            .filter(is_effect)
            .map(|entry| entry.incident.id.clone())
            .collect()
    }

    fn merge(&mut self, effect: &IncidentId, cause: &IncidentId) -> Vec<Change> {
        let Some(merged) = self.entries.get_mut(effect) else { return Vec::new() };
        merged.incident.state = State::Resolved;
        merged.incident.merged_into = Some(cause.clone());
        let cases = std::mem::take(&mut merged.open_cases);
        let evidence = merged.incident.evidence.clone();
        let first = change(ChangeKind::Merged, merged);
        for case in &cases {
            self.cases.insert(case.clone(), cause.clone());
        }
        let Some(entry) = self.entries.get_mut(cause) else { return vec![first] };
        entry.open_cases.extend(cases);
        add_evidence(&mut entry.incident.evidence, &evidence);
        vec![first, change(ChangeKind::Updated, entry)]
    }

    fn suspects(&self, verdict: &Verdict) -> Vec<IncidentSuspect> {
        let roster = self.rosters.get(&verdict.attempt);
        let suspect = |rank: Rank, share: f64| {
            let placement = roster.and_then(|roster| roster.placements.get(&rank));
            IncidentSuspect {
                rank,
                node: placement.and_then(|placement| placement.node.clone()),
                device: placement.and_then(|placement| placement.device.clone()),
                share,
            }
        };
        verdict.suspects.iter().take(SUSPECTS_MAX).map(|named| suspect(named.rank, named.share)).collect()
    }

    fn scope(&self, verdict: &Verdict) -> Option<IncidentScope> {
        let world_size = self.world_sizes.get(&verdict.attempt).copied().filter(|size| *size > 0)?;
        let named = verdict.suspects.len() as u64;
        Some(IncidentScope { ranks: if named == 0 { world_size } else { named }, world_size })
    }

    fn changes_before(&self, verdict: &Verdict) -> Vec<trainwarden_telemetry::AuditChange> {
        let Some(onset) = verdict.first.time else { return Vec::new() };
        let ranks: Vec<Rank> = verdict.ranks().collect();
        let roster = self.rosters.get(&verdict.attempt);
        let node = |rank: &Rank| roster.and_then(|roster| roster.node(*rank));
        let nodes: BTreeSet<&str> = ranks.iter().filter_map(node).collect();
        let nodes: Vec<&str> = nodes.into_iter().collect();
        self.audit.before(onset, &AuditScope { run: &self.run, ranks: &ranks, nodes: &nodes })
    }

    /// Rows a week times series, over the e-value: how often chance alone gives as much. Left out where that is no
    /// claim: a finding against the past rests on size and persistence, and its e-value only ranks.
    fn false_alarms_per_week(&self, verdict: &Verdict) -> Option<f64> {
        const WEEK_S: f64 = 604_800.0;
        let log10_e = verdict.evidence.iter().filter_map(|evidence| evidence.log10_e).max_by(f64::total_cmp)?;
        let row_s = self.paces.get(&verdict.attempt).and_then(Pace::rough_step_s).unwrap_or(1.0);
        let series = self.world_sizes.get(&verdict.attempt).copied().unwrap_or(1).max(1);
        let log10_rate = (WEEK_S / row_s * series as f64).log10() - log10_e;
        (log10_rate <= 0.0).then(|| 10_f64.powf(log10_rate))
    }
}

impl Entry {
    /// The same finding again, or another detector's word for it.
    fn is_same(&self, verdict: &Verdict) -> bool {
        let incident = &self.incident;
        let near = match incident.state {
            State::Resolved => is_within(verdict.first, self.last, REOPEN_STEPS, REOPEN_NS),
            _ => true,
        };
        // A note that is over is no beginning of an alarm, and a note does not bring an alarm back.
        let is_note = |severity: Severity| severity == Severity::Info;
        let is_over = incident.state == State::Resolved && is_note(incident.severity) != is_note(verdict.severity);
        let is_one_subject = !is_by_subject(verdict.kind) || self.subject == verdict.subject;
        incident.kind == verdict.kind
            && near
            && !is_over
            && is_one_subject
            && are_compatible(&ranks_of(incident), &verdict.ranks().collect())
    }

    /// True while the detector that speaks for the incident still sees it. Others may only wait until they are sure that
    /// it is over, and what begins in the meantime is not its effect.
    fn is_at_work(&self) -> bool {
        self.open_cases.iter().any(|(detector, _)| *detector == self.lead.0)
    }

    /// An effect of what this incident is about.
    fn explains(&self, verdict: &Verdict) -> bool {
        let incident = &self.incident;
        let lasts = match follows_throughout(incident.kind, verdict.kind) {
            true => self.is_at_work() || is_within(verdict.first, self.last, SLACK_STEPS, SLACK_NS),
            false => is_within(verdict.first, self.onset, SLACK_STEPS, SLACK_NS),
        };
        let is_serious = incident.severity >= verdict.severity.min(Severity::Warning);
        explains(incident.kind, verdict.kind)
            && lasts
            && is_serious
            && !is_beyond(incident.kind, verdict.severity)
            && begins_with(verdict.first, self.onset)
            && blames(verdict, &ranks_of(incident))
    }

    /// The same kind of finding, which names ranks where this incident names nobody.
    fn is_named_by(&self, verdict: &Verdict) -> bool {
        let incident = &self.incident;
        incident.kind == verdict.kind && incident.suspects.is_empty() && !verdict.suspects.is_empty()
    }

    fn join(&mut self, verdict: &Verdict) {
        self.incident.severity = self.incident.severity.max(verdict.severity);
        self.reach(verdict.last);
        add_evidence(&mut self.incident.evidence, &verdict.evidence);
    }

    fn resolve(&mut self, checkpoints: &Checkpoints) -> Change {
        self.incident.state = State::Resolved;
        if touches_weights(self.incident.kind) {
            self.incident.affected_checkpoints = checkpoints.affected(self.onset, Some(self.last));
        }
        change(ChangeKind::Resolved, self)
    }

    fn reach(&mut self, last: Label) {
        self.last = Label { step: last.step.max(self.last.step), time: last.time.max(self.last.time) };
        self.incident.last_step = self.last.step;
    }
}

/// Kinds of which one run can have several at once, told apart by what they are about.
fn is_by_subject(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::MetricOutlier
            | Kind::MetricShift
            | Kind::LineageBreak
            | Kind::EnvironmentChanged
            | Kind::EnvironmentMismatch
    )
}

fn ranks_of(incident: &Incident) -> BTreeSet<Rank> {
    incident.suspects.iter().map(|suspect| suspect.rank).collect()
}

/// Findings about common ranks go together, and a finding about the whole run goes with any.
fn are_compatible(one: &BTreeSet<Rank>, other: &BTreeSet<Rank>) -> bool {
    one.is_empty() || other.is_empty() || !one.is_disjoint(other)
}

/// True when a finding can come from `ranks`: it names one of them, or one of both names nobody. Pauses on many ranks
/// are no effect of the one among them that is slow: half of the blame must be theirs.
fn blames(verdict: &Verdict, ranks: &BTreeSet<Rank>) -> bool {
    if !are_compatible(&verdict.ranks().collect(), ranks) {
        return false;
    }
    let share = |of_them: bool| -> f64 {
        let suspects = verdict.suspects.iter().filter(|suspect| !of_them || ranks.contains(&suspect.rank));
        suspects.map(|suspect| suspect.share).sum()
    };
    verdict.kind != Kind::Intermittent || ranks.is_empty() || 2.0 * share(true) >= share(false)
}

/// True when an effect that begins at `effect` can come from a cause that began at `cause`.
fn begins_with(effect: Label, cause: Label) -> bool {
    match (effect.step, cause.step) {
        (Some(effect), Some(cause)) => effect.0.saturating_add(SLACK_STEPS) >= cause.0,
        _ => match (effect.time, cause.time) {
            (Some(effect), Some(cause)) => effect.0.saturating_add(SLACK_NS) >= cause.0,
            _ => true,
        },
    }
}

/// True when `label` comes at most so long after `end`.
fn is_within(label: Label, end: Label, steps: u64, span_ns: i64) -> bool {
    match (label.step, end.step) {
        (Some(label), Some(end)) => label.0 <= end.0.saturating_add(steps),
        _ => match (label.time, end.time) {
            (Some(Timestamp(label)), Some(Timestamp(end))) => label <= end.saturating_add(span_ns),
            _ => false,
        },
    }
}

/// Adds evidence; of one detector, metric and rank the first and the strongest stay.
fn add_evidence(known: &mut Vec<Evidence>, more: &[Evidence]) {
    for evidence in more {
        let is_alike = |other: &Evidence| {
            (&other.detector, &other.metric, other.rank) == (&evidence.detector, &evidence.metric, evidence.rank)
        };
        let mut alike = (0..known.len()).filter(|index| is_alike(&known[*index]));
        match (alike.next(), alike.next()) {
            (Some(_), Some(second)) => {
                let is_stronger = evidence.log10_e.unwrap_or(0.0) >= known[second].log10_e.unwrap_or(0.0);
                known[second] = if is_stronger { evidence.clone() } else { known[second].clone() };
            }
            _ if known.len() < EVIDENCE_MAX && !known.contains(evidence) => known.push(evidence.clone()),
            _ => {}
        }
    }
}

/// A person has seen an incident; nothing where it is not open any more, or was seen before.
pub fn acknowledge(incident: &mut Incident) -> Option<Change> {
    if incident.state != State::Open {
        return None;
    }
    incident.state = State::Acknowledged;
    Some(Change { change: ChangeKind::Acknowledged, incident: incident.clone() })
}

fn change(kind: ChangeKind, entry: &Entry) -> Change {
    Change { change: kind, incident: entry.incident.clone() }
}

mod explain;

#[cfg(test)]
mod tests;
