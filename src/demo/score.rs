//! What was planted beside what was told: found, missed, false.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use trainwarden_simulate::{PlantedFault, Scenario, Truth};
use trainwarden_telemetry::{Incident, IncidentId};

use crate::demo::script::Planted;
use crate::scorecard::{Scorecard, is_found};

/// When what happened, in log time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// When the first step of each fault began, by launch and step.
    pub onsets: BTreeMap<(u32, u64), i64>,
    /// When each incident was first told.
    pub told: BTreeMap<IncidentId, i64>,
}

impl Times {
    /// Seconds of log time from the first step of a fault to the telling of an incident.
    fn after_s(&self, fault: &PlantedFault, incident: &Incident) -> f64 {
        let onset = self.onsets.get(&(fault.attempt, fault.onset_step));
        let span_ns = onset.zip(self.told.get(&incident.id)).map_or(0, |(onset, told)| told - onset);
        span_ns as f64 / 1e9
    }
}

/// One planted fault and what was told of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome<'a> {
    /// What was planted.
    pub planted: &'a Planted,
    /// The incident, and the seconds after which it was told; `None` = missed.
    pub found: Option<(&'a Incident, f64)>,
}

/// The whole account of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct Score<'a> {
    /// Every fault, in the order of the scenario.
    pub outcomes: Vec<Outcome<'a>>,
    /// Incidents at `warning` or above that are none of the faults, or say of one what is not so.
    pub false_ones: Vec<&'a Incident>,
}

impl<'a> Score<'a> {
    /// The account at the end of a run: stricter than a scorecard, because only the exact kind about the guilty counts.
    ///
    /// * `truth`: the faults of `planted`, in the same order.
    /// * `incidents`: in their final state.
    #[must_use]
    pub fn of(planted: &'a [Planted], truth: &'a Truth, incidents: &'a [Incident], times: &Times) -> Self {
        let Scorecard { faults, extras } = Scorecard::of(truth, incidents);
        let mut false_ones = extras;
        let mut outcomes = Vec::with_capacity(planted.len());
        for (planted, (fault, alarm)) in planted.iter().zip(faults) {
            let found = alarm.filter(|alarm| is_found(fault, alarm)).map(|alarm| (alarm, times.after_s(fault, alarm)));
            false_ones.extend(alarm.filter(|_| found.is_none()));
            outcomes.push(Outcome { planted, found });
        }
        Self { outcomes, false_ones }
    }

    /// How many faults were found.
    #[must_use]
    pub fn found(&self) -> usize {
        self.outcomes.iter().filter(|outcome| outcome.found.is_some()).count()
    }

    /// How many were not.
    #[must_use]
    pub fn missed(&self) -> usize {
        self.outcomes.len() - self.found()
    }

    /// True when every fault was found and nothing else was told.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.missed() == 0 && self.false_ones.is_empty()
    }

    /// The account as one JSON object.
    #[must_use]
    pub fn to_json(&self, scenario: &Scenario, points: u64) -> Value {
        let outcomes: Vec<Value> = self.outcomes.iter().map(outcome_json).collect();
        json!({
            "run": scenario.run,
            "seed": scenario.seed,
            "ranks": scenario.cluster.ranks(),
            "steps": scenario.steps,
            "points": points,
            "found": self.found(),
            "missed": self.missed(),
            "false": self.false_ones.len(),
            "faults": outcomes,
            "false_incidents": self.false_ones,
        })
    }
}

fn outcome_json(outcome: &Outcome<'_>) -> Value {
    let told = outcome.found.map(|(incident, after_s)| json!({"after_s": after_s, "incident": incident}));
    json!({"title": outcome.planted.title, "planted": outcome.planted.truth, "told": told})
}
