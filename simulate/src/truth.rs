//! What was planted.

use serde::{Deserialize, Serialize};

use crate::{Fault, FaultKind, Scenario};

/// What `truth.json` says of a simulated run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Truth {
    /// Name of the run.
    pub run: String,
    /// Seed it was made from.
    pub seed: u64,
    /// What was planted, in the order of the scenario; empty for a healthy run.
    pub faults: Vec<PlantedFault>,
}

/// One fault that was planted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlantedFault {
    /// Kind of the incident it should be, such as `slowdown.rank`.
    pub kind: String,
    /// The launch in which it begins, from 0.
    #[serde(skip_serializing_if = "is_zero", default)]
    pub attempt: u32,
    /// The first step it touches.
    pub onset_step: u64,
    /// The first step it no longer touches; absent = until the end.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub end_step: Option<u64>,
    /// The guilty ranks; empty when the whole run is meant.
    pub ranks: Vec<u32>,
    /// How large, in the unit of its kind.
    pub size: f64,
}

impl Truth {
    /// The truth about a scenario.
    #[must_use]
    pub fn of(scenario: &Scenario) -> Self {
        let planted = |fault: &Fault| PlantedFault {
            kind: fault.kind.incident_kind().to_owned(),
            attempt: fault.attempt,
            onset_step: fault.onset_step,
            end_step: fault.end_step,
            ranks: guilty(scenario, fault),
            size: fault.size,
        };
        Self { run: scenario.run.clone(), seed: scenario.seed, faults: scenario.faults.iter().map(planted).collect() }
    }
}

/// The ranks that an incident should name; empty where the whole run is meant.
fn guilty(scenario: &Scenario, fault: &Fault) -> Vec<u32> {
    let (cluster, kind) = (&scenario.cluster, fault.kind);
    let touches_all = fault.ranks.len() >= cluster.ranks() as usize;
    match kind {
        // Whoever reads the data of an index reads the poison.
        FaultKind::Poison => {
            let indices: Vec<u32> = fault.ranks.iter().map(|rank| cluster.dp_of(*rank)).collect();
            (0..cluster.ranks()).filter(|rank| indices.contains(&cluster.dp_of(*rank))).collect()
        }
        FaultKind::WeightEdit if !touches_all => fault.ranks.clone(),
        _ if kind.needs_ranks() => fault.ranks.clone(),
        _ => Vec::new(),
    }
}

fn is_zero(attempt: &u32) -> bool {
    *attempt == 0
}
