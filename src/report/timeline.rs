//! What happened when: what changed before, the onset, the finding, checkpoints, the end.

use serde::Serialize;
use trainwarden_telemetry::{Incident, Label, State};

use super::line_plot::Moment;
use super::witness::{Mark, Sight};
use super::words;
use crate::output::change_words;

/// Checkpoints shown on each side of the onset.
const CHECKPOINTS_SHOWN: usize = 4;
/// Marks of the run shown.
const MARKS_SHOWN: usize = 12;

/// One line of the timeline.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Entry {
    pub(super) step: String,
    pub(super) time: String,
    pub(super) what: String,
    /// Class of its dot: `change`, `checkpoint`, `onset`, `found`, `over`, `mark`.
    pub(super) class: &'static str,
    #[serde(skip)]
    label: Label,
}

/// Onset, finding and end, as plots mark them.
pub(super) fn moments(incident: &Incident) -> Vec<Moment> {
    let mut moments = vec![
        Moment { label: onset(incident), word: "onset" },
        Moment { label: Label { step: incident.detected_step, time: incident.detected_at }, word: "found" },
    ];
    if let (State::Resolved, Some(step)) = (incident.state, incident.last_step) {
        moments.push(Moment { label: Label { step: Some(step), time: None }, word: "over" });
    }
    moments
}

fn onset(incident: &Incident) -> Label {
    Label { step: incident.onset.map(|onset| onset.step).or(incident.first_step), time: incident.started_at }
}

/// The timeline, oldest first.
pub(super) fn timeline(incident: &Incident, sight: &Sight) -> Vec<Entry> {
    let begin = onset(incident);
    let mut entries: Vec<Entry> = Vec::new();
    let mut add = |label: Label, class: &'static str, what: String| {
        let (step, time) = words::label(label);
        entries.push(Entry { step, time, what, class, label });
    };
    for change in &incident.changes {
        // The time says how long before.
        let words = change_words(change);
        let what = words.split_once("  ").map_or(words.as_str(), |(_, what)| what);
        add(Label { step: None, time: Some(change.time) }, "change", format!("Recorded: {what}"));
    }
    let found = Label { step: incident.detected_step, time: incident.detected_at };
    if found == begin {
        add(begin, "onset", format!("It begins and is found: {}", incident.summary));
    } else {
        add(begin, "onset", "It begins".to_owned());
        add(found, "found", format!("Found: {}", incident.summary));
    }
    if incident.state == State::Resolved {
        let last = incident.last_step.map_or(found, |step| Label { step: Some(step), time: time_of(sight, step.0) });
        add(last, "over", "The last row that belongs to it".to_owned());
    }
    let mut checkpoints: Vec<(&String, &Label)> = sight.checkpoints.iter().collect();
    checkpoints.sort_by_key(|(name, label)| (label.step, label.time, (*name).clone()));
    let (before, since): (Vec<_>, Vec<_>) = checkpoints.into_iter().partition(|(_, label)| is_before(**label, begin));
    let near = before.iter().rev().take(CHECKPOINTS_SHOWN).chain(since.iter().take(CHECKPOINTS_SHOWN));
    for (name, label) in near {
        let note = match (incident.last_good_checkpoint.as_ref().is_some_and(|good| good.name == **name), name) {
            (true, _) => ", the one to roll back to",
            (false, name) if incident.affected_checkpoints.contains(name) => ", touched",
            _ => "",
        };
        add(**label, "checkpoint", format!("Checkpoint `{name}` saved{note}"));
    }
    let is_near = |mark: &&Mark| mark.is_of_run || is_inside(sight, mark.label);
    for mark in sight.marks.iter().filter(is_near).take(MARKS_SHOWN) {
        add(mark.label, "mark", words::capitalised(&mark.what));
    }
    // By time where there is one; a row with a step alone stands where its neighbours' steps say.
    let key = |entry: &Entry| entry.label.time.or_else(|| time_of(sight, entry.label.step?.0));
    entries.sort_by_key(|entry| (key(entry), entry.label.step));
    entries
}

/// True for what happened while the series at hand were measured.
fn is_inside(sight: &Sight, label: Label) -> bool {
    let times = || sight.traces.iter().flat_map(|trace| &trace.rows).filter_map(|row| row.label.time);
    let (first, last) = (times().min(), times().max());
    label.time.is_none_or(|time| first.is_some_and(|first| time >= first) && last.is_some_and(|last| time <= last))
}

fn is_before(label: Label, onset: Label) -> bool {
    match (label.step, onset.step) {
        (Some(step), Some(onset)) => step < onset,
        _ => label.time.zip(onset.time).is_some_and(|(time, onset)| time < onset),
    }
}

/// When a step was, as the series at hand say.
fn time_of(sight: &Sight, step: u64) -> Option<trainwarden_telemetry::Timestamp> {
    let rows = sight.traces.iter().flat_map(|trace| &trace.rows);
    let near = rows.filter(|row| row.label.step.is_some_and(|other| other.0 <= step) && row.label.time.is_some());
    near.max_by_key(|row| row.label.step).and_then(|row| row.label.time)
}
