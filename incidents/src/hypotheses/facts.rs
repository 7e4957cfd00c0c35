//! What is known of an incident that speaks for one cause rather than another.

use std::collections::BTreeSet;

use trainwarden_telemetry::{AuditChange, Evidence, Incident, Kind, Label, Rank, Severity};

use super::table::{Weights, chance};
use crate::limits::{CHANGE_NEAR_S, CHECKPOINT_NEAR_STEPS, LAUNCH_NEAR_STEPS};

/// One fact: what it is in words, and how likely each cause makes it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Fact {
    /// Names no person.
    pub(super) words: String,
    pub(super) chances: Weights,
}

/// What the incident does not carry itself, as of now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Surroundings<'a> {
    /// Other incidents of its launch that are part of none.
    pub(crate) others: Vec<&'a Incident>,
    /// Gauges of devices (`gpu_...`) are logged in its launch.
    pub(crate) are_devices_watched: bool,
    /// First row of its launch; `None` where that is the first launch of the run.
    pub(crate) relaunch: Option<Label>,
    /// A checkpoint was saved within a step of its onset.
    pub(crate) is_at_checkpoint: bool,
    /// It ended and came back.
    pub(crate) has_come_back: bool,
}

/// How far a change of the site, or an act by hand, goes as a fact.
enum Act {
    /// Recorded by change management: version control, deployment, scheduler.
    Rollout,
    /// A command by hand.
    Command,
}

/// Sources and kinds of audit records that are change management.
const ROLLOUTS: [&str; 12] = [
    "git",
    "deploy",
    "release",
    "argo",
    "helm",
    "ansible",
    "terraform",
    "puppet",
    "slurm",
    "scheduler",
    "pipeline",
    "rollout",
];
/// What the driver calls heat, power and the brake; see the page of the detector `throttle`.
const HELD_BACK: [&str; 4] = ["thermal", "power brake", "hardware slowdown", "power cap"];
/// ... and clocks that somebody set.
const CLOCKS_SET: &str = "clocks set by a user";

/// Every fact of an incident, in a fixed order. Evidence may come in any order.
pub(crate) fn facts(incident: &Incident, around: &Surroundings<'_>) -> Vec<Fact> {
    let device = device_fact(incident, around);
    let facts = [
        scope_fact(incident),
        device,
        change_fact(incident),
        environment_fact(incident, around),
        data_fact(incident, around),
        telemetry_fact(incident, around),
        laws_fact(incident, around),
        launch_fact(incident, around),
        around.is_at_checkpoint.then(|| fact("it began where a checkpoint was saved", chance::AT_CHECKPOINT)),
        around.has_come_back.then(|| fact("it ended and came back", chance::CAME_BACK)),
    ];
    facts.into_iter().flatten().collect()
}

fn fact(words: impl Into<String>, chances: Weights) -> Fact {
    Fact { words: words.into(), chances }
}

/// Who is meant. A kind that is about one rank, or about the whole run, says so already and is no fact beside itself.
fn scope_fact(incident: &Incident) -> Option<Fact> {
    use Kind as K;
    let nodes: BTreeSet<&str> = incident.suspects.iter().filter_map(|suspect| suspect.node.as_deref()).collect();
    let is_one_node = incident.suspects.len() > 1 && nodes.len() == 1 && are_placed(incident);
    let one_node = || fact("all suspects are on one node", chance::ONE_NODE);
    let is_of_rank = matches!(incident.kind, K::SlowRank | K::GradientRank);
    if is_of_rank {
        return is_one_node.then(one_node);
    }
    let is_of_run = matches!(
        incident.kind,
        K::SlowRun | K::SlowLink | K::LossSpike | K::Drift | K::Gradient | K::Schedule | K::InconsistentUpdate
    );
    // Pauses that wander fall on all alike, whoever makes them.
    let wanders = matches!(incident.kind, K::Intermittent | K::Periodic) && incident.suspects.is_empty();
    let is_of_change = matches!(incident.kind, K::EnvironmentChanged | K::EnvironmentMismatch | K::Desync);
    // What sends telemetry is a process on one host, whatever is wrong with it.
    let is_of_sender = incident.kind.as_str().starts_with("telemetry.");
    if is_of_run || wanders || is_of_change || is_of_sender || is_hardware(incident.kind) {
        return None;
    }
    Some(match incident.suspects.len() {
        0 => fact("no rank stands out: the whole run is meant", chance::WHOLE_RUN),
        1 => fact("one rank alone is named", chance::ONE_RANK),
        _ if is_one_node => one_node(),
        count => fact(format!("{count} ranks on several nodes are named"), chance::SEVERAL_NODES),
    })
}

fn are_placed(incident: &Incident) -> bool {
    incident.suspects.iter().all(|suspect| suspect.node.is_some())
}

fn is_hardware(kind: Kind) -> bool {
    matches!(kind, Kind::HardwareFault | Kind::Throttle | Kind::MemoryErrors)
}

/// What the devices of the suspects say.
fn device_fact(incident: &Incident, around: &Surroundings<'_>) -> Option<Fact> {
    let alike = |other: &&&Incident| share_ranks(incident, other);
    let others = || around.others.iter().filter(alike);
    let evidence = || incident.evidence.iter().chain(others().flat_map(|other| &other.evidence));
    let clocks: Vec<&Evidence> = evidence().filter(|evidence| evidence.detector == "throttle").collect();
    let has_errors = evidence().any(|evidence| evidence.detector == "device_errors");
    let says = |words: &[&str]| {
        let note = |evidence: &&&Evidence| {
            evidence.note.as_ref().is_some_and(|note| words.iter().any(|word| note.contains(word)))
        };
        clocks.iter().any(|evidence| note(&evidence))
    };
    if has_errors && !matches!(incident.kind, Kind::HardwareFault | Kind::MemoryErrors) {
        return Some(fact("the device of a suspect reports errors", chance::DEVICE_ERRORS));
    }
    if says(&[CLOCKS_SET]) {
        return Some(fact("the driver says that its clocks were set by a user", chance::CLOCKS_SET));
    }
    if says(&HELD_BACK) {
        return Some(fact("the driver gives heat or power as the reason of lower clocks", chance::HELD_BACK));
    }
    if !clocks.is_empty() && incident.kind != Kind::Throttle {
        return Some(fact("the clock of its device fell", chance::CLOCKS_FELL));
    }
    let is_about_ranks = !incident.suspects.is_empty() && !is_hardware(incident.kind);
    (is_about_ranks && around.are_devices_watched && !has_errors)
        .then(|| fact("its device is watched and shows nothing", chance::DEVICES_QUIET))
}

fn share_ranks(one: &Incident, other: &Incident) -> bool {
    let ranks: BTreeSet<Rank> = one.suspects.iter().map(|suspect| suspect.rank).collect();
    other.suspects.iter().any(|suspect| ranks.contains(&suspect.rank))
}

/// The audit record shortly before that is the least likely to be there by accident.
fn change_fact(incident: &Incident) -> Option<Fact> {
    let near = incident.changes.iter().filter(|change| change.lag_s.abs() <= CHANGE_NEAR_S);
    let chance_of = |change: &AuditChange| change.p_value.unwrap_or(UNKNOWN_P).clamp(P_MIN, 1.0);
    let change = near.min_by(|one, other| {
        let by_lag = chance_of(one).total_cmp(&chance_of(other)).then(other.lag_s.total_cmp(&one.lag_s));
        by_lag.then_with(|| (&one.source, &one.kind, &one.node).cmp(&(&other.source, &other.kind, &other.node)))
    })?;
    let by_accident = chance_of(change);
    let (recorded, what) = match act_of(change) {
        Act::Rollout => (chance::ROLLOUT_RECORDED, "a change"),
        Act::Command => (chance::COMMAND_RECORDED, "a command"),
    };
    let node = change.node.as_ref().map_or(String::new(), |node| format!(" on {}", short(node)));
    let words = format!(
        "{what} (`{} {}`) is on record {:.0} s before{node}, {} by accident",
        short(&change.source),
        short(&change.kind),
        change.lag_s.abs(),
        odds(by_accident)
    );
    // Either the cause left the record, or it is there by accident.
    Some(fact(words, recorded.map(|left| left + (1.0 - left) * by_accident)))
}

/// A name from the telemetry, which may be as long as its sender likes.
fn short(name: &str) -> String {
    name.chars().take(NAME_LETTERS).collect()
}

/// Letters of a name that is repeated in a reason.
const NAME_LETTERS: usize = 64;
/// Where the trail is too short to know a rate.
const UNKNOWN_P: f64 = 0.3;
/// A rate known from few records is not known better than this.
const P_MIN: f64 = 0.01;

fn odds(chance: f64) -> String {
    if chance < 0.1 {
        format!("{:.0} in 100", (100.0 * chance).max(1.0))
    } else {
        format!("{:.0} in 10", 10.0 * chance)
    }
}

fn act_of(change: &AuditChange) -> Act {
    let is_rollout = |text: &str| ROLLOUTS.iter().any(|word| text.to_lowercase().contains(word));
    if is_rollout(&change.source) || is_rollout(&change.kind) { Act::Rollout } else { Act::Command }
}

fn environment_fact(incident: &Incident, around: &Surroundings<'_>) -> Option<Fact> {
    let is_of_it = |kind| matches!(kind, Kind::EnvironmentChanged | Kind::EnvironmentMismatch);
    let moved = around.others.iter().filter(|other| is_of_it(other.kind) && begins_before(other, incident));
    let words = match moved.map(|other| other.kind).max()? {
        Kind::EnvironmentChanged => "code, configuration or environment changed before it",
        _ => "code, configuration or environment differs between ranks",
    };
    (!is_of_it(incident.kind)).then(|| fact(words, chance::ENVIRONMENT_MOVED))
}

fn data_fact(incident: &Incident, around: &Surroundings<'_>) -> Option<Fact> {
    let is_of_data = |kind| matches!(kind, Kind::DuplicateBatch | Kind::BatchOrder | Kind::DataShift);
    let has_evidence = incident
        .evidence
        .iter()
        .any(|evidence| ["duplicate_batch", "batch_order", "data_shift"].contains(&evidence.detector.as_str()));
    let is_beside = around.others.iter().any(|other| is_of_data(other.kind) && begins_before(other, incident));
    ((has_evidence || is_beside) && !is_of_data(incident.kind))
        .then(|| fact("batches are repeated, out of order or strange at the time", chance::DATA_STRANGE))
}

fn telemetry_fact(incident: &Incident, around: &Surroundings<'_>) -> Option<Fact> {
    let is_false = |kind| matches!(kind, Kind::Replay | Kind::Forged | Kind::Inconsistent);
    let is_beside = around.others.iter().any(|other| is_false(other.kind) && share_ranks(incident, other));
    (is_beside && !is_false(incident.kind))
        .then(|| fact("telemetry of the same ranks is replayed, forged or contradicts itself", chance::CONTRADICTED))
}

/// Several laws broken in one launch are rarely several accidents.
fn laws_fact(incident: &Incident, around: &Surroundings<'_>) -> Option<Fact> {
    const LAWS: [&str; 5] = ["weights", "optimizer", "data", "environment", "telemetry"];
    let family = |incident: &Incident| incident.kind.as_str().split('.').next().unwrap_or_default();
    let own = family(incident);
    let broken: BTreeSet<&str> = around
        .others
        .iter()
        .filter(|other| other.severity >= Severity::Warning)
        .map(|other| family(other))
        .filter(|family| LAWS.contains(family) && *family != own)
        .collect();
    (broken.len() >= 2).then(|| {
        let names: Vec<&str> = broken.into_iter().collect();
        fact(format!("laws of {} are broken in the same launch too", names.join(", ")), chance::SEVERAL_LAWS)
    })
}

fn launch_fact(incident: &Incident, around: &Surroundings<'_>) -> Option<Fact> {
    // A checkpoint is loaded, an environment is told and the plan of batches is repeated when a run is launched: that is
    // no news of these.
    let is_of_launch = matches!(
        incident.kind,
        Kind::LineageBreak | Kind::BatchOrder | Kind::EnvironmentChanged | Kind::EnvironmentMismatch
    );
    let (first, onset) = (around.relaunch?.step?, onset_step(incident)?);
    (!is_of_launch && onset.abs_diff(first.0) <= LAUNCH_NEAR_STEPS)
        .then(|| fact("it began when the run was launched again", chance::AT_LAUNCH))
}

fn onset_step(incident: &Incident) -> Option<u64> {
    incident.onset.map(|onset| onset.step).or(incident.first_step).map(|step| step.0)
}

/// True when `one` begins before `other` or with it.
fn begins_before(one: &Incident, other: &Incident) -> bool {
    match (onset_step(one), onset_step(other)) {
        (Some(one), Some(other)) => one <= other.saturating_add(CHECKPOINT_NEAR_STEPS),
        _ => one.started_at <= other.started_at,
    }
}
