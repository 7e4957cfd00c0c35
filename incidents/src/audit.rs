//! What changed just before: audit records in the scope of an incident.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use trainwarden_telemetry::{AuditChange, Event, Rank, RunId, Timestamp};

use crate::limits::{AUDIT_KEPT_MAX, AUDIT_LOOKBACK_NS, AUDIT_SHOWN_MAX};

/// Audit records of a run and of its surroundings, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct AuditTrail {
    events: VecDeque<Event>,
    first: Option<Timestamp>,
}

/// Whom an incident is about.
pub(crate) struct AuditScope<'a> {
    pub(crate) run: &'a RunId,
    pub(crate) ranks: &'a [Rank],
    /// Nodes of these ranks, where told.
    pub(crate) nodes: &'a [&'a str],
}

impl AuditScope<'_> {
    fn covers(&self, event: &Event) -> bool {
        let is_of_run = event.run.as_ref().is_none_or(|run| run == self.run);
        let is_of_node = match &event.node {
            Some(node) if !self.nodes.is_empty() => self.nodes.contains(&node.as_str()),
            _ => true,
        };
        let is_of_rank = event.rank.is_none_or(|rank| self.ranks.is_empty() || self.ranks.contains(&rank));
        is_of_run && is_of_node && is_of_rank
    }
}

impl AuditTrail {
    /// The run was watched from this time on: where no record came, none was made.
    pub(crate) fn begin(&mut self, time: Timestamp) {
        self.first = Some(self.first.map_or(time, |first| first.min(time)));
    }

    /// Takes an audit record in.
    pub(crate) fn take(&mut self, event: &Event) {
        self.begin(event.time);
        if self.events.len() == AUDIT_KEPT_MAX {
            self.events.pop_front();
        }
        let at = self.events.partition_point(|known| known <= event);
        self.events.insert(at, event.clone());
    }

    /// The records before `onset` in scope, newest first.
    pub(crate) fn before(&self, onset: Timestamp, scope: &AuditScope<'_>) -> Vec<AuditChange> {
        let earliest = onset.0.saturating_sub(AUDIT_LOOKBACK_NS);
        let is_before = |event: &&Event| event.time <= onset && event.time.0 >= earliest;
        let shown = self.events.iter().rev().filter(is_before).filter(|event| scope.covers(event));
        shown.take(AUDIT_SHOWN_MAX).map(|event| self.change(event, onset, scope)).collect()
    }

    fn change(&self, event: &Event, onset: Timestamp, scope: &AuditScope<'_>) -> AuditChange {
        AuditChange {
            time: event.time,
            source: event.source.clone(),
            kind: event.kind.clone(),
            actor: event.actor.clone(),
            node: event.node.clone(),
            rank: event.rank,
            subject: event.subject.clone(),
            lag_s: event.time.seconds_since(onset),
            p_value: self.p_value(event, onset, scope),
        }
    }

    /// Chance that a record of this kind lies so close before an unrelated onset: its kind comes as a Poisson stream at
    /// the rate seen from the first row or record of the run up to the onset. `None` while the trail is too short to know a rate.
    fn p_value(&self, event: &Event, onset: Timestamp, scope: &AuditScope<'_>) -> Option<f64> {
        let span_s = onset.seconds_since(self.first?);
        let lag_s = onset.seconds_since(event.time);
        if span_s <= 0.0 || lag_s > span_s {
            return None;
        }
        let alike = |other: &&Event| other.source == event.source && other.kind == event.kind && other.time <= onset;
        let count = self.events.iter().filter(alike).filter(|other| scope.covers(other)).count();
        Some(1.0 - (-(count as f64) * lag_s / span_s).exp())
    }
}

#[cfg(test)]
mod tests {
    use trainwarden_telemetry::Attempt;

    use super::*;

    fn record(time_s: i64, kind: &str, node: Option<&str>) -> Event {
        Event {
            time: Timestamp(time_s * 1_000_000_000),
            source: "sudo".to_owned(),
            kind: kind.to_owned(),
            actor: Some("u-1".to_owned()),
            run: None,
            attempt: Attempt(0),
            node: node.map(str::to_owned),
            rank: None,
            subject: None,
            detail: None,
        }
    }

    #[test]
    fn records_before_the_onset_in_scope_come_newest_first_with_their_lag() {
        let mut trail = AuditTrail::default();
        for event in [record(0, "login", None), record(90, "exec", Some("n02")), record(95, "exec", Some("n07"))] {
            trail.take(&event);
        }
        trail.take(&record(200, "exec", Some("n02")));
        let run = RunId::new("r");
        let scope = AuditScope { run: &run, ranks: &[], nodes: &["n02"] };
        let changes = trail.before(Timestamp(100_000_000_000), &scope);
        let lags: Vec<f64> = changes.iter().map(|change| change.lag_s).collect();
        assert_eq!(lags, [-10.0, -100.0], "neither the other node nor what came after");
        let p_value = changes[0].p_value.expect("the trail is 100 s long");
        assert!((p_value - (1.0 - (-0.1_f64).exp())).abs() < 1e-12, "one exec in 100 s, 10 s away");
    }
}
