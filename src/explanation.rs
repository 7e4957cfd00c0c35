//! The figures behind an incident, enough to compute each verdict again by hand.

use std::io::{self, Write};

use serde_json::json;
use trainwarden_telemetry::{Evidence, FigureValue, Incident, Working};

use crate::output::printable;

/// Width of the names of figures.
const NAME_WIDTH: usize = 34;

/// Writes the figures behind each piece of evidence.
///
/// * `logged`: what the log says of each piece of evidence, by place.
///
/// # Errors
/// When the stream fails.
pub fn write_explanation(out: &mut dyn Write, incident: &Incident, logged: &[Working]) -> io::Result<()> {
    let (kind, severity) = (incident.kind, incident.severity);
    writeln!(out, "{}  {kind}  {severity}", incident.id.0)?;
    writeln!(out, "{}", printable(&incident.summary))?;
    for (at, evidence) in incident.evidence.iter().enumerate() {
        writeln!(out, "\n{} of {}: {}", at + 1, incident.evidence.len(), printable(&heading(evidence)))?;
        for (name, value) in told(evidence) {
            figure(out, name, &value)?;
        }
        if evidence.working.is_empty() {
            writeln!(
                out,
                "    its detector tells no more; docs/detectors/{}.md says how it decides",
                evidence.detector
            )?;
        } else {
            writeln!(out, "    worked out from")?;
            working(out, &evidence.working)?;
        }
        if let Some(logged) = logged.get(at).filter(|logged| !logged.is_empty()) {
            writeln!(out, "    as logged at that step")?;
            working(out, logged)?;
        }
    }
    Ok(())
}

/// Writes the same as one JSON object.
///
/// # Errors
/// When the stream fails.
pub fn write_explanation_json(out: &mut dyn Write, incident: &Incident, logged: &[Working]) -> io::Result<()> {
    let told = |(at, evidence): (usize, &Evidence)| json!({"evidence": evidence, "working": evidence.working, "logged": logged.get(at)});
    let evidence: Vec<_> = incident.evidence.iter().enumerate().map(told).collect();
    writeln!(out, "{}", json!({"id": incident.id, "kind": incident.kind, "evidence": evidence}))
}

fn heading(evidence: &Evidence) -> String {
    let rank = evidence.rank.map_or(String::new(), |rank| format!(" of {rank}"));
    let step = evidence.step.map_or(String::new(), |step| format!(" at {step}"));
    format!("{}: {}{rank}{step}", evidence.detector, evidence.metric)
}

/// What is told of the evidence everywhere, in full precision.
fn told(evidence: &Evidence) -> Vec<(&'static str, String)> {
    let numbers = [
        ("observed", evidence.observed),
        ("expected", evidence.expected),
        ("low", evidence.low),
        ("high", evidence.high),
        ("log10_e", evidence.log10_e),
    ];
    let mut told: Vec<_> =
        numbers.into_iter().filter_map(|(name, value)| Some((name, figure_words(&value?.into())))).collect();
    told.extend(evidence.note.iter().map(|note| ("note", note.clone())));
    told
}

fn working(out: &mut dyn Write, working: &Working) -> io::Result<()> {
    for told in &working.figures {
        figure(out, told.name, &figure_words(&told.value))?;
    }
    for rule in &working.rules {
        writeln!(out, "      {rule}")?;
    }
    Ok(())
}

fn figure(out: &mut dyn Write, name: &str, value: &str) -> io::Result<()> {
    writeln!(out, "      {name:<NAME_WIDTH$} {}", printable(value))
}

/// A figure in full precision.
pub(crate) fn figure_words(value: &FigureValue) -> String {
    match value {
        FigureValue::Number(number)
            if number.is_finite() && (*number != 0.0 && number.abs() < 1e-4 || number.abs() >= 1e16) =>
        {
            format!("{number:e}")
        }
        FigureValue::Number(number) => number.to_string(),
        FigureValue::Count(count) => count.to_string(),
        FigureValue::Numbers(numbers) => {
            numbers.iter().map(|number| figure_words(&FigureValue::Number(*number))).collect::<Vec<_>>().join(" ")
        }
        FigureValue::Text(text) => text.clone(),
    }
}
