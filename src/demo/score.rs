//! What was planted beside what was told: found, missed, false.

use serde_json::{Value, json};
use trainwarden_simulate::Scenario;
use trainwarden_telemetry::{Incident, IncidentId};

use crate::demo::script::Planted;
use crate::scorecard::{is_found, is_told};

/// When an incident was first told as a planted fault.
#[derive(Clone, Debug, PartialEq)]
pub struct Telling {
    /// Which one.
    pub incident: IncidentId,
    /// Log time from the fault's first step to the telling, in seconds.
    pub after_s: f64,
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
    /// Incidents at `warning` or above that are none of the faults.
    pub false_ones: Vec<&'a Incident>,
}

impl<'a> Score<'a> {
    /// The account at the end of a run.
    ///
    /// * `incidents`: in their final state.
    /// * `tellings`: for each fault, when it was first told.
    #[must_use]
    pub fn of(planted: &'a [Planted], incidents: &'a [Incident], tellings: &[Option<Telling>]) -> Self {
        let told: Vec<&Incident> = incidents.iter().filter(|incident| is_told(incident)).collect();
        let outcome = |(planted, telling): (&'a Planted, &Option<Telling>)| {
            let is_it = |incident: &&&'a Incident| is_found(&planted.truth, incident);
            let first = |telling: &Telling| {
                let told = told.iter().filter(is_it).find(|incident| incident.id == telling.incident)?;
                Some((*told, telling.after_s))
            };
            Outcome { planted, found: telling.as_ref().and_then(first) }
        };
        let outcomes = planted.iter().zip(tellings).map(outcome).collect();
        let is_false = |incident: &&Incident| !planted.iter().any(|planted| is_found(&planted.truth, incident));
        Self { outcomes, false_ones: told.iter().copied().filter(is_false).collect() }
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
