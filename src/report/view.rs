//! The words and drawings of a report, section by section, as its template takes them.

use serde::Serialize;
use trainwarden_detect::{Against, DetectorKind};
use trainwarden_telemetry::{Cause, Evidence, Figure, Incident, Label, Working};

use super::case_file::{CaseFile, Input, archive_of};
use super::pages::Page;
use super::plots::{Plot, StalledView, plots};
use super::timeline::{self, Entry};
use super::unaffected::unaffected;
use super::words;
use crate::explanation::figure_words;
use crate::output::{change_words, counted, grouped, state};

/// Names listed before the rest is counted.
const LISTED_MAX: usize = 12;
/// Suspects listed.
const SUSPECTS_MAX: usize = 64;
/// Bytes of text from outside that one field shows.
const TEXT_BYTES_MAX: usize = 2_000;

/// Everything a report says.
#[derive(Debug, Serialize)]
pub(super) struct View {
    id: String,
    run: String,
    attempt: u32,
    kind: &'static str,
    severity: &'static str,
    state: &'static str,
    summary: String,
    merged_into: Option<String>,
    lead: String,
    meaning: String,
    short: Vec<(&'static str, String)>,
    timeline: Vec<Entry>,
    plots: Vec<Plot>,
    stalled: Vec<StalledView>,
    suspects: Vec<SuspectView>,
    more_suspects: usize,
    evidence: Vec<EvidenceView>,
    hypotheses: Vec<HypothesisView>,
    changes: Vec<ChangeView>,
    cost: Vec<(&'static str, String)>,
    unaffected: Vec<String>,
    rollback: Vec<(&'static str, String)>,
    innocent: String,
    confirm: String,
    first_steps: String,
    do_not: String,
    detectors: Vec<DetectorView>,
    commands: Vec<String>,
    origin: Vec<(&'static str, String)>,
    notes: Vec<String>,
    version: &'static str,
}

#[derive(Debug, Serialize)]
struct SuspectView {
    rank: u32,
    node: String,
    device: String,
    percent: String,
    role: String,
}

#[derive(Debug, Serialize)]
struct EvidenceView {
    number: usize,
    detector: String,
    metric: String,
    place: String,
    observed: String,
    expected: String,
    band: String,
    log10_e: String,
    note: String,
    figures: Vec<(String, String)>,
    rules: Vec<String>,
    logged: Vec<(String, String)>,
    logged_rules: Vec<String>,
}

#[derive(Debug, Serialize)]
struct HypothesisView {
    percent: String,
    width: String,
    cause: &'static str,
    words: &'static str,
    why: String,
    disproof: &'static str,
    is_deliberate: bool,
}

#[derive(Debug, Serialize)]
struct ChangeView {
    time: String,
    lag: String,
    what: String,
    chance: String,
}

#[derive(Debug, Serialize)]
struct DetectorView {
    name: String,
    against: &'static str,
    finds: String,
    decides: String,
    blind: String,
}

impl View {
    pub(super) fn of(case: &CaseFile, input: &Input) -> Self {
        let incident = &case.incident;
        let runbook = Page::of_kind(incident.kind);
        let section = |heading| runbook.map_or(String::new(), |page| page.section(heading));
        Self {
            id: incident.id.0.clone(),
            run: shown(&incident.run.0),
            attempt: incident.attempt.0,
            kind: incident.kind.as_str(),
            severity: incident.severity.as_str(),
            state: state(incident.state),
            summary: words::capitalised(&shown(&incident.summary)),
            merged_into: incident.merged_into.as_ref().map(|id| id.0.clone()),
            lead: runbook.map_or(String::new(), Page::lead),
            meaning: section("What it means"),
            short: in_short(incident),
            timeline: timeline::timeline(incident, &case.sight).into_iter().map(plain).collect(),
            plots: plots(case),
            stalled: case.sight.stalled.iter().map(StalledView::of).collect(),
            suspects: suspects(case),
            more_suspects: incident.suspects.len().saturating_sub(SUSPECTS_MAX),
            evidence: evidence(case),
            hypotheses: incident.hypotheses.iter().map(HypothesisView::of).collect(),
            changes: incident.changes.iter().map(ChangeView::of).collect(),
            cost: cost(incident),
            unaffected: unaffected(case),
            rollback: rollback(incident),
            innocent: section("Innocent causes first"),
            confirm: section("Confirm"),
            first_steps: section("Do"),
            do_not: section("Do not"),
            detectors: detectors(incident),
            commands: commands(input, incident),
            origin: origin(case),
            notes: case.origin.notes.iter().map(|note| shown(note)).collect(),
            version: env!("CARGO_PKG_VERSION"),
        }
    }
}

/// Text from outside: on one line, without what turns it round, and not without end.
pub(super) fn shown(text: &str) -> String {
    let end = text.floor_char_boundary(TEXT_BYTES_MAX);
    let cut = if end < text.len() { "..." } else { "" };
    format!("{}{cut}", crate::output::printable(&text[..end]))
}

fn plain(mut entry: Entry) -> Entry {
    entry.what = shown(&entry.what);
    entry
}

fn in_short(incident: &Incident) -> Vec<(&'static str, String)> {
    let likeliest = incident.hypotheses.first().map_or("Nothing is known to weigh causes by.".to_owned(), |first| {
        let by = format!("{:.0} %: {}.", 100.0 * first.probability, words::cause(first.cause));
        match incident.hypotheses.iter().find(|other| other.cause == Cause::Deliberate && first.cause != other.cause) {
            Some(act) => format!("{by} A deliberate act: {:.0} %.", 100.0 * act.probability),
            None => by,
        }
    });
    let back = match (&incident.last_good_checkpoint, incident.affected_checkpoints.len()) {
        (Some(good), _) => format!("`{}`, the last one saved before it began.", shown(&good.name)),
        (None, 0) => "Nothing says that weights were touched.".to_owned(),
        (None, touched) => format!("No checkpoint before it is known; touched: {touched}."),
    };
    vec![
        ("Since when", words::since(incident)),
        ("Where", shown(&words::whereabouts(incident))),
        ("How sure", words::certainty(incident)),
        ("What it cost", words::cost(incident)),
        ("Likeliest cause", likeliest),
        ("Roll back to", back),
    ]
}

/// The first names, and how many more there are.
pub(super) fn list(names: Vec<String>) -> String {
    let more = names.len().saturating_sub(LISTED_MAX);
    let text = names.into_iter().take(LISTED_MAX).collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{text} and {more} more") } else { text }
}

fn suspects(case: &CaseFile) -> Vec<SuspectView> {
    let view = |suspect: &trainwarden_telemetry::IncidentSuspect| {
        let placement = case.sight.roster.placements.get(&suspect.rank);
        let part = |name: &str, index: Option<u32>| index.map(|index| format!("{name} {index}"));
        let role = placement.map_or(Vec::new(), |placement| {
            let role = placement.role;
            let parts = [("dp", placement.dp), ("tp", role.tp), ("pp", role.pp), ("ep", role.ep), ("cp", role.cp)];
            parts.into_iter().filter_map(|(name, index)| part(name, index)).collect()
        });
        SuspectView {
            rank: suspect.rank.0,
            node: shown(suspect.node.as_deref().unwrap_or_default()),
            device: shown(suspect.device.as_deref().unwrap_or_default()),
            percent: format!("{:.0} %", 100.0 * suspect.share),
            role: role.join(", "),
        }
    };
    case.incident.suspects.iter().take(SUSPECTS_MAX).map(view).collect()
}

fn evidence(case: &CaseFile) -> Vec<EvidenceView> {
    let view = |(at, evidence): (usize, &Evidence)| {
        let logged = case.sight.cells.get(&at).map(|cell| cell.working.clone()).unwrap_or_default();
        let band = match (evidence.low, evidence.high) {
            (Some(low), Some(high)) => format!("{} to {}", words::cell(Some(low)), words::cell(Some(high))),
            (Some(low), None) => format!("{} or more", words::cell(Some(low))),
            (None, Some(high)) => format!("{} or less", words::cell(Some(high))),
            (None, None) => String::new(),
        };
        EvidenceView {
            number: at + 1,
            detector: shown(&evidence.detector),
            metric: shown(evidence.metric.as_str()),
            place: words::place(evidence),
            observed: words::cell(evidence.observed),
            expected: words::cell(evidence.expected),
            band,
            log10_e: evidence.log10_e.map_or(String::new(), |log10_e| format!("{log10_e:.1}")),
            note: shown(evidence.note.as_deref().unwrap_or_default()),
            figures: figures(&evidence.working),
            rules: rules(&evidence.working),
            logged: figures(&logged),
            logged_rules: rules(&logged),
        }
    };
    case.incident.evidence.iter().enumerate().map(view).collect()
}

fn figures(working: &Working) -> Vec<(String, String)> {
    let words = |figure: &Figure| (figure.name.to_owned(), shown(&figure_words(&figure.value)));
    working.figures.iter().map(words).collect()
}

fn rules(working: &Working) -> Vec<String> {
    working.rules.iter().map(|rule| (*rule).to_owned()).collect()
}

impl HypothesisView {
    fn of(hypothesis: &trainwarden_telemetry::Hypothesis) -> Self {
        Self {
            percent: format!("{:.0} %", 100.0 * hypothesis.probability),
            width: format!("{:.1}", 100.0 * hypothesis.probability),
            cause: hypothesis.cause.as_str(),
            words: words::cause(hypothesis.cause),
            why: shown(&hypothesis.why),
            disproof: words::disproof(hypothesis.cause),
            is_deliberate: hypothesis.cause == Cause::Deliberate,
        }
    }
}

impl ChangeView {
    fn of(change: &trainwarden_telemetry::AuditChange) -> Self {
        let words = change_words(change);
        // The lag has a column of its own.
        let what = words.split_once("  ").map_or(words.as_str(), |(_, what)| what).to_owned();
        Self {
            time: words::time(Some(change.time)),
            lag: words::relative(change.lag_s),
            what: shown(&what),
            chance: change.p_value.map_or(String::new(), |chance| format!("{:.1} %", 100.0 * chance)),
        }
    }
}

fn cost(incident: &Incident) -> Vec<(&'static str, String)> {
    let Some(impact) = &incident.impact else { return Vec::new() };
    let hours = |seconds: u64| format!("{} GPU-seconds ({:.2} GPU-hours)", grouped(seconds), seconds as f64 / 3_600.0);
    let mut rows = vec![
        ("Lost, best estimate", hours(impact.gpu_seconds_lost)),
        ("Not less than", hours(impact.low)),
        ("Not more than", hours(impact.high)),
    ];
    if let (Some(cost), Some(currency)) = (impact.cost, &impact.currency) {
        rows.push(("Price", format!("{cost:.2} {}", shown(currency))));
    }
    rows
}

fn rollback(incident: &Incident) -> Vec<(&'static str, String)> {
    let mut rows = Vec::new();
    if let Some(good) = &incident.last_good_checkpoint {
        rows.push(("Last good checkpoint", shown(&good.name)));
        rows.extend(good.digest.iter().map(|digest| ("Its digest", shown(digest))));
    }
    if !incident.affected_checkpoints.is_empty() {
        let names = incident.affected_checkpoints.iter().map(|name| shown(name)).collect();
        rows.push(("Saved since it began; do not trust", list(names)));
    }
    rows
}

fn detectors(incident: &Incident) -> Vec<DetectorView> {
    let mut names: Vec<&str> = Vec::new();
    for evidence in &incident.evidence {
        if !names.contains(&evidence.detector.as_str()) {
            names.push(&evidence.detector);
        }
    }
    let against = |name: &str| {
        let spec = DetectorKind::ALL.iter().map(|kind| kind.build().spec()).find(|spec| spec.name == name);
        spec.map_or("", |spec| match spec.against {
            Against::Law => "against a law that must always hold",
            Against::Peers => "against ranks that do the same work, in the same row",
            Against::Past => "against the same series before",
        })
    };
    let view = |name: &&str| {
        let page = Page::of_detector(name)?;
        Some(DetectorView {
            name: (*name).to_owned(),
            against: against(name),
            finds: page.section("What it finds"),
            decides: page.section("How it decides"),
            blind: page.section("Blind spots"),
        })
    };
    names.iter().filter_map(view).collect()
}

fn commands(input: &Input, incident: &Incident) -> Vec<String> {
    let id = quoted(&incident.id.0);
    match input {
        Input::Folders(paths) => {
            let paths: Vec<String> = paths.iter().map(|path| quoted(&path.display().to_string())).collect();
            let paths = paths.join(" ");
            vec![format!("trainwarden replay {paths} --explain {id}"), format!("trainwarden replay {paths} --json")]
        }
        Input::Data(data) => {
            let archive = quoted(&archive_of(data).display().to_string());
            let data = quoted(&data.display().to_string());
            vec![
                format!("trainwarden incidents show {id} --data {data} --output json"),
                format!("trainwarden replay {archive} --explain {id}"),
            ]
        }
    }
}

/// A word of a shell, quoted where it must be.
fn quoted(word: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "._-/=:@%+,".contains(letter);
    match !word.is_empty() && word.chars().all(is_plain) {
        true => word.to_owned(),
        false => format!("'{}'", shown(word).replace('\'', r"'\''")),
    }
}

fn origin(case: &CaseFile) -> Vec<(&'static str, String)> {
    let origin = &case.origin;
    let paths = origin.paths.iter().map(|path| shown(&path.display().to_string())).collect();
    let mut rows = vec![("Read from", list(paths))];
    if origin.files > 0 {
        let (files, bytes) = (counted(origin.files, "file"), grouped(origin.bytes));
        rows.push(("Input", format!("{files}, {bytes} bytes, {} of this run", counted(case.sight.rows, "row"))));
        rows.push(("BLAKE3 of the input", origin.digest.clone()));
    }
    if let Some((first, last)) = case.sight.reach {
        let words = |label: Label| {
            let (step, time) = words::label(label);
            [if step.is_empty() { step } else { format!("step {step}") }, time]
                .into_iter()
                .filter(|part| !part.is_empty())
                .collect::<Vec<_>>()
                .join(", ")
        };
        rows.push(("Telemetry of the launch", format!("{} to {}", words(first), words(last))));
    }
    rows.push(("Written by", format!("trainwarden {}", env!("CARGO_PKG_VERSION"))));
    rows
}
