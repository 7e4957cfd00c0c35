//! What a report says in plain words.

use trainwarden_telemetry::{Cause, Evidence, Incident, IncidentSuspect, Label, Onset, State, Timestamp};

use crate::output::{civil, counted, grouped, impact_words};

/// Suspects named in a sentence.
const NAMED_MAX: usize = 4;
/// Weeks of a year.
const YEAR_WEEKS: f64 = 52.0;

/// A cause in plain words.
pub(super) fn cause(cause: Cause) -> &'static str {
    match cause {
        Cause::HardwareFault => "a device, a host or its memory is broken",
        Cause::Throttle => "a device is held back by heat or power",
        Cause::Network => "a link, a switch or an adapter is slow or down",
        Cause::SoftwareChange => "code, configuration or scheduling changed, or has a defect",
        Cause::Data => "the training data, or how they are read",
        Cause::Imbalance => "some ranks are given more work than others",
        Cause::Instability => "the optimisation itself is unstable here",
        Cause::Deliberate => "somebody meant it",
    }
}

/// What would speak against a cause, for whoever wants to rule it out.
pub(super) fn disproof(cause: Cause) -> &'static str {
    match cause {
        Cause::HardwareFault => {
            "The same work on another host shows the same fault, or the device passes a burn-in and its error counters \
             (Xid, ECC, PCIe replays) stand still."
        }
        Cause::Throttle => {
            "Clocks, temperature, power and the driver's throttle reasons of the suspect are those of its peers while \
             the incident lasts."
        }
        Cause::Network => {
            "A bandwidth test over the same links reaches its usual figure, the error counters of ports and switches \
             stand still, or the rank is slow in work that sends nothing."
        }
        Cause::SoftwareChange => {
            "Digests of code, configuration and environment are the same before and after the onset and on every rank, \
             and the job scheduler and the hosts have no change on record."
        }
        Cause::Data => {
            "The same steps with the same weights and other data show the same, or the shards read have their known \
             digests and order."
        }
        Cause::Imbalance => {
            "The suspect is given as many tokens, layers and sequences of the same lengths as its peers, or the fault \
             stays when the work is dealt anew."
        }
        Cause::Instability => {
            "The same steps repeated bit for bit from the last good checkpoint, on other hosts, do not show it."
        }
        Cause::Deliberate => {
            "Every record shortly before the onset on the hosts concerned has an owner who explains it, and one of the \
             other causes is proven."
        }
    }
}

/// How sure it is, in one sentence.
pub(super) fn certainty(incident: &Incident) -> String {
    let Some(rate) = incident.false_alarms_per_week else {
        return match incident.evidence.iter().any(|evidence| evidence.log10_e.is_some()) {
            true => {
                "The size and the length of it decide, not a chance: no rate of false alarms is claimed for it. The \
                     evidence below has the figures."
                    .to_owned()
            }
            false => "As sure as the telemetry itself: something that must always hold was seen broken, and no chance \
                      is involved."
                .to_owned(),
        };
    };
    if rate <= 0.0 {
        return "Chance alone would practically never show this.".to_owned();
    }
    let weeks = 1.0 / rate;
    let often = match weeks {
        weeks if weeks < YEAR_WEEKS => format!("once in {weeks:.0} weeks"),
        weeks if weeks < 1e6 * YEAR_WEEKS => format!("once in {} years", grouped((weeks / YEAR_WEEKS).round() as u64)),
        _ => "less than once in a million years".to_owned(),
    };
    format!("A run like this with nothing wrong would show something this strong by chance {often}.")
}

/// Who is meant.
pub(super) fn whereabouts(incident: &Incident) -> String {
    let of = incident.scope.map_or(String::new(), |scope| format!(" of {}", grouped(scope.world_size)));
    match incident.suspects.as_slice() {
        [] => incident.scope.map_or("The whole run; no rank stands out.".to_owned(), |scope| {
            format!("All {}; none of them stands out.", counted(scope.world_size, "rank"))
        }),
        suspects => {
            let named: Vec<String> = suspects.iter().take(NAMED_MAX).map(who).collect();
            let many = incident.scope.map_or(suspects.len() as u64, |scope| scope.ranks).max(suspects.len() as u64);
            let more = match many as usize - named.len() {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let ranks = if many == 1 { "1 rank" } else { &format!("{} ranks", grouped(many)) };
            format!("{ranks}{of}: {}{more}.", named.join(", "))
        }
    }
}

/// A rank with its host, where that is told.
pub(super) fn who(suspect: &IncidentSuspect) -> String {
    match &suspect.node {
        Some(node) => format!("rank {} on {node}", suspect.rank.0),
        None => suspect.rank.to_string(),
    }
}

/// Since when, and how long it took to be found.
pub(super) fn since(incident: &Incident) -> String {
    let mut text = match (incident.onset, incident.first_step) {
        (Some(onset), _) => step_words(onset),
        (None, Some(step)) => step.to_string(),
        (None, None) => String::new(),
    };
    if let Some(time) = incident.started_at {
        text = if text.is_empty() { civil(time) } else { format!("{text}, {}", civil(time)) };
    }
    let steps = incident.detected_step.zip(incident.first_step).map(|(found, first)| found.0.saturating_sub(first.0));
    let seconds = incident.detected_at.zip(incident.started_at).map(|(found, first)| found.seconds_since(first));
    let delay = match (steps, seconds.filter(|seconds| *seconds >= 0.0)) {
        (Some(0), _) => "It showed in the very first step.".to_owned(),
        (Some(steps), Some(seconds)) => format!("Found {} ({}) later.", counted(steps, "step"), duration(seconds)),
        (Some(steps), None) => format!("Found {} later.", counted(steps, "step")),
        (None, Some(seconds)) => format!("Found {} later.", duration(seconds)),
        (None, None) => String::new(),
    };
    let end = match (incident.state, incident.last_step) {
        (State::Resolved, Some(step)) => format!("It ended at {step}."),
        (State::Resolved, None) => "It is over.".to_owned(),
        (State::Open, _) => "It was not over when the telemetry at hand ended.".to_owned(),
        (State::Acknowledged, _) => "A person has taken it; it was not over when the telemetry ended.".to_owned(),
    };
    let begin = if text.is_empty() { String::new() } else { format!("Since {text}.") };
    [begin, delay, end].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

fn step_words(onset: Onset) -> String {
    match onset.low == onset.high {
        true => onset.step.to_string(),
        false => format!("{} (between {} and {})", onset.step, onset.low.0, onset.high.0),
    }
}

/// Seconds as a person says them.
pub(super) fn duration(seconds: f64) -> String {
    match seconds.abs() {
        size if size < 120.0 => format!("{seconds:.1} s"),
        size if size < 7_200.0 => format!("{:.1} minutes", seconds / 60.0),
        size if size < 172_800.0 => format!("{:.1} hours", seconds / 3_600.0),
        _ => format!("{:.1} days", seconds / 86_400.0),
    }
}

/// What it cost, in one sentence.
pub(super) fn cost(incident: &Incident) -> String {
    match &incident.impact {
        Some(impact) => format!("{} of compute lost so far.", impact_words(impact)),
        None => "No loss of compute can be told from the telemetry.".to_owned(),
    }
}

/// A row by its step and time.
pub(super) fn label(label: Label) -> (String, String) {
    (label.step.map_or(String::new(), |step| step.0.to_string()), label.time.map_or(String::new(), civil))
}

/// A time relative to the onset: `12.9 s before`.
pub(super) fn relative(lag_s: f64) -> String {
    match lag_s {
        lag if lag < 0.0 => format!("{} before", duration(-lag)),
        lag => format!("{} after", duration(lag)),
    }
}

/// A number of evidence, or nothing.
pub(super) fn cell(value: Option<f64>) -> String {
    value.map_or(String::new(), crate::output::number)
}

/// Where a piece of evidence was measured.
pub(super) fn place(evidence: &Evidence) -> String {
    let rank = evidence.rank.map(|rank| rank.to_string());
    let step = evidence.step.map(|step| step.to_string());
    [rank, step].into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// A time, or nothing.
pub(super) fn time(time: Option<Timestamp>) -> String {
    time.map_or(String::new(), civil)
}

/// The same text with a large first letter.
pub(super) fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}
