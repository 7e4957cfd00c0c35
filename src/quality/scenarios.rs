//! The account of simulated scenarios: what was planted, what was told.

use serde::Serialize;
use trainwarden_simulate::{PlantedFault, Truth};
use trainwarden_telemetry::Incident;

use super::score::{Alarm, Hit, KindScore, Quality, Sought};
use crate::scorecard::{Scorecard, delay_steps, is_found};

/// What the name of a healthy twin ends in.
pub const TWIN: &str = "_healthy";

/// How well what was planted in one scenario was found, over all seeds, and what was told of its healthy twin.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ScenarioScore {
    /// The planted faults.
    #[serde(flatten)]
    pub faults: KindScore,
    /// Runs with a fault.
    pub runs: u64,
    /// Faults found by an incident of another kind, or one that names another rank first.
    pub otherwise: Vec<String>,
    /// Incidents of `warning` or above that stand for no fault.
    pub extras: Vec<Alarm>,
    /// Runs of the healthy twin.
    pub twin_runs: u64,
    /// Incidents of `warning` or above in them.
    pub twin_alarms: Vec<Alarm>,
}

impl ScenarioScore {
    /// The account of several scenarios as one.
    #[must_use]
    pub fn total<'a>(scores: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut total = Self::default();
        for score in scores {
            total.faults += &score.faults;
            total.runs += score.runs;
            total.twin_runs += score.twin_runs;
            total.otherwise.extend_from_slice(&score.otherwise);
            total.extras.extend_from_slice(&score.extras);
            total.twin_alarms.extend_from_slice(&score.twin_alarms);
        }
        total
    }
}

/// Adds the account of one run of a scenario.
///
/// * `name`: of the scenario; a healthy twin counts with the scenario it is the twin of.
pub fn score_scenario(quality: &mut Quality, name: &str, truth: &Truth, incidents: &[Incident]) {
    let score = quality.scenarios.entry(name.trim_end_matches(TWIN).to_owned()).or_default();
    let card = Scorecard::of(truth, incidents);
    let run = format!("{name}, seed {}", truth.seed);
    let extras = card.extras.iter().map(|incident| Alarm::of(incident, &run));
    if truth.faults.is_empty() {
        score.twin_runs += 1;
        score.twin_alarms.extend(extras);
        return;
    }
    score.runs += 1;
    score.extras.extend(extras);
    for (fault, alarm) in card.faults {
        let hit = alarm.map(|incident| Hit {
            incident,
            is_exact: incident.kind.as_str() == fault.kind,
            delay: delay_steps(fault, incident).and_then(|steps| i64::try_from(steps).ok()),
        });
        score.faults.count(&Sought { ranks: &fault.ranks, name: format!("{run}: {}", sentence(fault)) }, hit);
        if let Some(incident) = alarm.filter(|incident| !is_found(fault, incident)) {
            let told = format!("{} {}: {}", incident.severity, incident.kind, incident.summary);
            score.otherwise.push(format!("{run}: {}, told as {told}", sentence(fault)));
        }
    }
}

/// `slowdown.rank of rank 3 from step 120`.
fn sentence(fault: &PlantedFault) -> String {
    let ranks: Vec<String> = fault.ranks.iter().map(|rank| format!("rank {rank}")).collect();
    let whom = if ranks.is_empty() { "the whole run".to_owned() } else { ranks.join(", ") };
    format!("{} of {whom} from step {}", fault.kind, fault.onset_step)
}
