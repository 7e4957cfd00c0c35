//! The rules of the corpus: what counts as found, as a false alarm, as the right rank.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use serde::Serialize;
use trainwarden_telemetry::{Incident, Kind, Severity};

use super::corpus::{Corpus, CorpusFile, Label, Moment};
use super::scenarios::ScenarioScore;

/// An alarm so many steps before or after a label still belongs to it (README of the corpus, "How to score").
const MARGIN_STEPS: i64 = 20;
/// Rows a file must hold before an event for the event to be decidable (likewise).
const ROWS_BEFORE_MIN: usize = 3;

/// An incident of `warning` or above that tells of nothing labelled or planted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Alarm {
    /// The file, or the scenario and its seed.
    pub file: String,
    /// Kind of the incident.
    pub kind: Kind,
    /// Its severity.
    pub severity: Severity,
    /// Its sentence.
    pub summary: String,
}

impl Alarm {
    pub(super) fn of(incident: &Incident, file: &str) -> Self {
        let (kind, severity) = (incident.kind, incident.severity);
        Self { file: file.to_owned(), kind, severity, summary: incident.summary.clone() }
    }
}

/// An alarm on a clean file.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FalseAlarm {
    /// What was told.
    #[serde(flatten)]
    pub alarm: Alarm,
    /// Why it is counted apart: it overlaps a `slow_phase` or `step_time_stall` label.
    pub is_explained: bool,
    /// It stands at a label that says the behaviour is by design, or names a rank where none is guilty.
    pub is_trap: bool,
}

/// How well labels of one kind and confidence, or the planted faults of one scenario, were found.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct KindScore {
    /// Labels that can be decided from their file; planted faults.
    pub labels: u64,
    /// Labels whose file does not hold the event, or fewer than three rows before it.
    pub undecidable: u64,
    /// ... of which found all the same.
    pub undecidable_found: u64,
    /// Found by an incident of `warning` or above of a kind that fits.
    pub found: u64,
    /// Found by one of exactly the fitting kind.
    pub exact: u64,
    /// Labels that name a rank.
    pub ranked: u64,
    /// ... of which the first suspect is one of these ranks.
    pub top1: u64,
    /// Labels that name exactly one rank.
    pub single: u64,
    /// ... of which the first suspect is that rank.
    pub single_top1: u64,
    /// Steps from the beginning of the label to the detection, of the found ones; negative = before.
    pub delays: Vec<i64>,
    /// Files of the labels not found; planted faults in words.
    pub missed: Vec<String>,
}

/// What should be found.
#[derive(Clone, Debug)]
pub struct Sought<'a> {
    /// The guilty ranks; empty where none is.
    pub ranks: &'a [u32],
    /// How it is listed when it is missed.
    pub name: String,
}

/// An incident that tells of it.
#[derive(Clone, Copy, Debug)]
pub struct Hit<'a> {
    /// The incident.
    pub incident: &'a Incident,
    /// It is of exactly the fitting kind.
    pub is_exact: bool,
    /// Steps from the beginning to the detection, where both are steps.
    pub delay: Option<i64>,
}

impl KindScore {
    /// Counts one label that can be decided, or one planted fault, and the incident that tells of it.
    pub(super) fn count(&mut self, sought: &Sought<'_>, hit: Option<Hit<'_>>) {
        self.labels += 1;
        self.ranked += u64::from(!sought.ranks.is_empty());
        self.single += u64::from(sought.ranks.len() == 1);
        let Some(hit) = hit else {
            self.missed.push(sought.name.clone());
            return;
        };
        self.found += 1;
        self.exact += u64::from(hit.is_exact);
        self.delays.extend(hit.delay);
        let first = hit.incident.suspects.first().map(|suspect| suspect.rank.0);
        if first.is_some_and(|rank| sought.ranks.contains(&rank)) {
            self.top1 += 1;
            self.single_top1 += u64::from(sought.ranks.len() == 1);
        }
    }
}

impl AddAssign<&Self> for KindScore {
    fn add_assign(&mut self, other: &Self) {
        self.labels += other.labels;
        self.undecidable += other.undecidable;
        self.undecidable_found += other.undecidable_found;
        self.found += other.found;
        self.exact += other.exact;
        self.ranked += other.ranked;
        self.top1 += other.top1;
        self.single += other.single;
        self.single_top1 += other.single_top1;
        self.delays.extend_from_slice(&other.delays);
        self.missed.extend_from_slice(&other.missed);
    }
}

/// The whole account.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Quality {
    /// By label kind, severity and confidence.
    pub kinds: BTreeMap<String, KindScore>,
    /// Incidents of `warning` or above on clean training files, and errors at traps anywhere.
    pub false_alarms: Vec<FalseAlarm>,
    /// Incidents of `info` on clean training files.
    pub notes_on_clean: u64,
    /// Clean training files.
    pub clean_files: u64,
    /// Their rows.
    pub clean_rows: u64,
    /// Files of the index that were read.
    pub files: u64,
    /// Files of the index that nothing reads yet.
    pub unread: Vec<String>,
    /// Labels at hard batches of clean files, and how many of them have an incident of `warning` or above.
    pub hard_batches: (u64, u64),
    /// Seeds that each scenario was simulated with; 0 = none was.
    pub seeds: u64,
    /// By name of the scenario.
    pub scenarios: BTreeMap<String, ScenarioScore>,
}

impl Quality {
    /// False alarms of `warning` or above per 1,000 rows of clean files, without the explained ones.
    #[must_use]
    pub fn false_alarms_per_1000_rows(&self) -> f64 {
        let counted = self.false_alarms.iter().filter(|alarm| !alarm.is_explained).count();
        1000.0 * counted as f64 / (self.clean_rows.max(1)) as f64
    }
}

/// What a replay of one file gave.
#[derive(Clone, Copy, Debug)]
pub struct Scored<'a> {
    /// The steps of its rows; empty where it has none.
    pub steps: &'a [i64],
    /// The incidents in their final state.
    pub incidents: &'a [Incident],
}

/// Adds the account of one file.
pub fn score(quality: &mut Quality, corpus: &Corpus, file: &CorpusFile, scored: &Scored<'_>) {
    let (steps, incidents) = (scored.steps, scored.incidents);
    let incidents: Vec<&Incident> = incidents.iter().filter(|incident| incident.merged_into.is_none()).collect();
    let labels: Vec<&Label> = corpus.labels_of(file).collect();
    quality.files += 1;
    for label in &labels {
        match label.kind == "loss_outlier_batch" {
            true => score_batch(quality, label, &labels, &incidents),
            false => score_label(quality, label, steps, &incidents),
        }
    }
    if file.is_clean_training() {
        quality.clean_files += 1;
        quality.clean_rows += file.rows;
        quality.notes_on_clean +=
            incidents.iter().filter(|incident| incident.severity == Severity::Info).count() as u64;
    }
    for incident in incidents.iter().filter(|incident| incident.severity >= Severity::Warning) {
        let is_trap = labels.iter().any(|label| is_trapped(label, incident));
        if !file.is_clean_training() && !is_trap {
            continue;
        }
        let is_explained = !is_trap && labels.iter().any(|label| explains(label, incident));
        quality.false_alarms.push(FalseAlarm { alarm: Alarm::of(incident, &file.file), is_explained, is_trap });
    }
}

/// A hard batch is harmless: an alarm at it is wrong, a note is right.
fn score_batch(quality: &mut Quality, label: &Label, others: &[&Label], incidents: &[&Incident]) {
    quality.hard_batches.0 += 1;
    // A spike close by is no alarm about the batch.
    let is_of_spike = |incident: &Incident| {
        others
            .iter()
            .any(|other| exact_kinds(&other.kind).is_some() && fits(other, incident) && is_hit(other, incident))
    };
    let is_alarm = |incident: &&Incident| {
        let is_alarm = incident.severity >= Severity::Warning && fits(label, incident) && is_hit(label, incident);
        is_alarm && !is_of_spike(incident)
    };
    quality.hard_batches.1 += u64::from(incidents.iter().any(is_alarm));
}

fn score_label(quality: &mut Quality, label: &Label, steps: &[i64], incidents: &[&Incident]) {
    let Some(exact) = exact_kinds(&label.kind) else { return };
    let name = format!("{} {} {}", label.kind, label.severity, label.confidence);
    let score = quality.kinds.entry(name).or_default();
    let is_decidable = is_decidable(label, steps);
    let least = if is_minor(label) { Severity::Info } else { Severity::Warning };
    let mut hits: Vec<&&Incident> = incidents
        .iter()
        .filter(|incident| incident.severity >= least && fits(label, incident) && is_hit(label, incident))
        .collect();
    // The incident a person would take for it: of the exact kind first, then the one detected first.
    hits.sort_by_key(|incident| (!exact.contains(&incident.kind), incident.detected_step, incident.detected_at));
    if !is_decidable {
        score.undecidable += 1;
        score.undecidable_found += u64::from(!hits.is_empty());
        return;
    }
    let delay = |incident: &Incident| match (label.span(), incident.detected_step) {
        (Some((Moment::Step(start), _)), Some(detected)) => Some(detected.0 as i64 - start),
        _ => None,
    };
    let hit =
        hits.first().map(|incident| Hit { incident, is_exact: exact.contains(&incident.kind), delay: delay(incident) });
    score.count(&Sought { ranks: &label.ranks(), name: label.file.clone() }, hit);
}

/// The kinds of incident that mean exactly what a label says; `None` for labels that are traps or notes.
fn exact_kinds(label_kind: &str) -> Option<&'static [Kind]> {
    Some(match label_kind {
        "loss_spike" => &[Kind::LossSpike],
        "divergence" => &[Kind::Drift],
        "divergence_nan" => &[Kind::Nonfinite],
        "eval_dip" | "anomaly_window" => &[Kind::MetricOutlier, Kind::MetricShift],
        "step_time_stall" => &[Kind::Intermittent, Kind::SlowRun],
        "slow_phase" => &[Kind::SlowRun],
        "straggler_rank" => &[Kind::SlowRank],
        "hang_gpu_error" | "hang_lock_gil" => &[Kind::Hang],
        _ => return None,
    })
}

/// True when an incident speaks of the same sort of trouble as a label, if not of exactly its kind.
fn fits(label: &Label, incident: &Incident) -> bool {
    let family = incident.kind.as_str().split('.').next().unwrap_or_default();
    match label.kind.as_str() {
        "loss_spike" | "divergence_nan" | "loss_outlier_batch" => family == "divergence",
        "divergence" | "eval_dip" => ["divergence", "metric"].contains(&family),
        "step_time_stall" | "slow_phase" | "straggler_rank" => family == "slowdown",
        "hang_gpu_error" | "hang_lock_gil" => family == "stall",
        _ => family == "metric",
    }
}

/// Labels on which a note is enough: the corpus marks them by a rule, not as trouble.
fn is_minor(label: &Label) -> bool {
    matches!(label.severity.as_str(), "minor") || matches!(label.kind.as_str(), "eval_dip" | "anomaly_window")
}

/// The corpus lists apart what its file does not hold: no row of the event, or fewer than three rows before it.
fn is_decidable(label: &Label, steps: &[i64]) -> bool {
    let Some((Moment::Step(start), _)) = label.span() else { return true };
    let is_of_loss = label.kind.starts_with("loss") || label.kind.starts_with("divergence");
    let holds_event = label.kind != "divergence_nan" || label.first_nan_step.is_some();
    !is_of_loss || holds_event && steps.iter().filter(|step| **step < start).count() >= ROWS_BEFORE_MIN
}

fn is_hit(label: &Label, incident: &Incident) -> bool {
    let Some((start, end)) = label.span() else { return true };
    let Some(detected) = start.of_detection(incident) else { return false };
    // An incident that was open before and lasts into the label says nothing new about it.
    detected >= start.plus_steps(-MARGIN_STEPS) && detected <= end.plus_steps(MARGIN_STEPS)
}

fn overlaps(label: &Label, incident: &Incident) -> bool {
    let Some((start, end)) = label.span() else { return true };
    let begin = start.of_beginning(incident).or(start.of_detection(incident));
    let last = start.of_end(incident).max(start.of_detection(incident));
    match (begin, last) {
        (Some(begin), Some(last)) => begin <= end.plus_steps(MARGIN_STEPS) && last >= start.plus_steps(-MARGIN_STEPS),
        _ => false,
    }
}

/// Slow phases and stalls stand in clean files too: an alarm there is counted apart.
fn explains(label: &Label, incident: &Incident) -> bool {
    let is_slow = matches!(label.kind.as_str(), "slow_phase" | "step_time_stall");
    is_slow && incident.kind.as_str().starts_with("slowdown.") && overlaps(label, incident)
}

/// By-design labels are traps for alarms about step time; imbalance labels are traps for naming a rank.
fn is_trapped(label: &Label, incident: &Incident) -> bool {
    let is_slowdown = incident.kind.as_str().starts_with("slowdown.");
    match label.kind.as_str() {
        "periodic_heavy_step" => is_slowdown && overlaps(label, incident),
        "stage_imbalance" | "persistent_imbalance" => is_slowdown && !incident.suspects.is_empty(),
        _ => false,
    }
}
