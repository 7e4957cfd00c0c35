//! What a person reads on a terminal, and what a program reads from a pipe.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

use trainwarden_telemetry::{
    AuditChange, Cause, Change, Evidence, Hypothesis, Impact, Incident, Severity, State, Step, Timestamp,
};

use crate::replay::Findings;

/// Evidence shown of one incident.
const EVIDENCE_SHOWN: usize = 4;
/// Audit records shown of one incident.
const CHANGES_SHOWN: usize = 5;
/// Hypotheses shown of one incident, beside a deliberate act.
const HYPOTHESES_SHOWN: usize = 3;
/// Suspects shown of one incident.
const SUSPECTS_SHOWN: usize = 8;
/// Columns that every terminal has.
pub const COLUMNS: usize = 80;

/// How findings are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// One JSON object a line.
    Json,
    /// Comma-separated values with a header.
    Csv,
}

/// Writes a line to standard error. One that is closed or full is no reason to stop.
pub fn tell(line: &str) {
    let _ = writeln!(io::stderr(), "{}", printable(line));
}

/// `text` on one line and without orders to the terminal: names come from telemetry, and whoever writes it could
/// otherwise hide lines, forge them or turn them round.
#[must_use]
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_order) {
        return Cow::Borrowed(text);
    }
    let mut plain = String::with_capacity(text.len());
    for letter in text.chars() {
        match is_order(letter) {
            true => plain.extend(letter.escape_default()),
            false => plain.push(letter),
        }
    }
    Cow::Owned(plain)
}

/// True for control characters, line separators and what changes the direction of text.
fn is_order(letter: char) -> bool {
    letter.is_control() || matches!(letter, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// `1 row`, `2 rows`.
#[must_use]
pub fn counted(number: u64, thing: &str) -> String {
    if number == 1 { format!("1 {thing}") } else { format!("{number} {thing}s") }
}

/// A number with a comma between thousands: `13,271,040`.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `text` in lines of at most `width` characters, broken at spaces; a word that is longer than a line is cut.
#[must_use]
pub fn wrapped(text: &str, width: usize) -> Vec<String> {
    let (mut lines, mut line, mut length) = (Vec::new(), String::new(), 0);
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let letters = word.chars().count();
        if length > 0 && length + 1 + letters > width {
            lines.push(std::mem::take(&mut line));
            length = 0;
        }
        if length > 0 {
            line.push(' ');
            length += 1;
        }
        for letter in word.chars() {
            if length == width {
                lines.push(std::mem::take(&mut line));
                length = 0;
            }
            line.push(letter);
            length += 1;
        }
    }
    lines.extend((!line.is_empty()).then_some(line));
    lines
}

/// Writes incidents in their final state, one JSON object a line.
///
/// # Errors
/// When the stream fails.
pub fn write_json<'a>(out: &mut dyn Write, incidents: impl IntoIterator<Item = &'a Incident>) -> io::Result<()> {
    for incident in incidents {
        serde_json::to_writer(&mut *out, incident)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// Writes every change in order, one JSON object a line.
///
/// # Errors
/// When the stream fails.
pub fn write_changes(out: &mut dyn Write, changes: &[Change]) -> io::Result<()> {
    for change in changes {
        serde_json::to_writer(&mut *out, change)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// Writes incidents as comma-separated values.
///
/// # Errors
/// When the stream fails.
pub fn write_csv(out: &mut dyn Write, incidents: &[Incident]) -> io::Result<()> {
    let mut writer = csv::Writer::from_writer(out);
    let header = [
        "id",
        "run",
        "attempt",
        "kind",
        "severity",
        "state",
        "first_step",
        "detected_step",
        "last_step",
        "suspects",
        "summary",
    ];
    writer.write_record(header)?;
    for incident in incidents {
        let step = |step: Option<Step>| step.map_or(String::new(), |step| step.0.to_string());
        let suspects: Vec<String> = incident.suspects.iter().map(|suspect| suspect.rank.0.to_string()).collect();
        writer.write_record([
            &incident.id.0,
            &*incident.run.0,
            &incident.attempt.0.to_string(),
            incident.kind.as_str(),
            incident.severity.as_str(),
            state(incident.state),
            &step(incident.first_step),
            &step(incident.detected_step),
            &step(incident.last_step),
            &suspects.join(" "),
            &incident.summary,
        ])?;
    }
    writer.flush()
}

/// Writes what a person reads: incidents worst first inside each run, then one line that counts them.
///
/// # Errors
/// When the stream fails.
pub fn write_table(out: &mut dyn Write, findings: &Findings, style: Style) -> io::Result<()> {
    let runs = findings.rows.len();
    for run in findings.rows.keys() {
        let mut incidents: Vec<&Incident> = findings.incidents.iter().filter(|incident| incident.run == *run).collect();
        incidents.retain(|incident| incident.merged_into.is_none());
        incidents.sort_by_key(|incident| std::cmp::Reverse(incident.severity));
        if runs > 1 && !incidents.is_empty() {
            writeln!(out, "{}", style.bold(&printable(&format!("run {run}"))))?;
        }
        for incident in incidents {
            writeln!(out, "{}", paragraph(incident, style))?;
        }
    }
    writeln!(out, "{}", closing_line(findings))
}

/// Writes incidents as a table of paragraphs, by run, the severest first; those that became part of another are left
/// out.
///
/// # Errors
/// When the stream fails.
pub fn write_incidents(out: &mut dyn Write, incidents: &[Incident], style: Style) -> io::Result<()> {
    let mut shown: Vec<&Incident> = incidents.iter().filter(|incident| incident.merged_into.is_none()).collect();
    shown.sort_by_key(|incident| (incident.run.clone(), std::cmp::Reverse(incident.severity)));
    let mut run = None;
    for incident in &shown {
        if run != Some(&incident.run) {
            run = Some(&incident.run);
            writeln!(out, "{}", style.bold(&printable(&format!("run {}", incident.run))))?;
        }
        writeln!(out, "{}", paragraph(incident, style))?;
    }
    writeln!(out, "{}", counted(shown.len() as u64, "incident"))
}

/// True where standard output is a terminal that can rewrite a line.
#[must_use]
pub fn is_stdout_terminal() -> bool {
    io::stdout().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Whether to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// No escape codes.
    Plain,
    /// ANSI colours.
    Coloured,
}

impl Style {
    /// Colour on a terminal, unless `NO_COLOR` is set.
    #[must_use]
    pub fn of_stdout() -> Self {
        match io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
            true => Self::Coloured,
            false => Self::Plain,
        }
    }

    pub(crate) fn paint(self, code: &str, text: &str) -> String {
        match self {
            Self::Plain => text.to_owned(),
            Self::Coloured => format!("\x1b[{code}m{text}\x1b[0m"),
        }
    }

    pub(crate) fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    pub(crate) fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    pub(crate) fn severity(self, severity: Severity) -> String {
        let (code, word) = match severity {
            Severity::Critical => ("1;31", "CRITICAL"),
            Severity::Warning => ("33", "WARNING"),
            Severity::Info => ("2", "info"),
        };
        self.paint(code, &format!("{word:<8}"))
    }
}

fn paragraph(incident: &Incident, style: Style) -> String {
    let mut text =
        format!("{}  {}  {}", style.severity(incident.severity), style.bold(incident.kind.as_str()), when(incident));
    if incident.attempt.0 > 0 {
        let _ = write!(text, "  attempt {}", incident.attempt.0);
    }
    let _ = write!(text, "  {}\n          {}\n", state(incident.state), printable(&incident.summary));
    let mut line = |name: &str, content: String| {
        if !content.is_empty() {
            let _ = writeln!(text, "          {}{}", style.dim(&format!("{name:<10} ")), printable(&content));
        }
    };
    line("suspects", suspects(incident));
    for evidence in incident.evidence.iter().take(EVIDENCE_SHOWN) {
        line("evidence", evidence_words(evidence));
    }
    for change in incident.changes.iter().take(CHANGES_SHOWN) {
        line("before", change_words(change));
    }
    for hypothesis in shown_hypotheses(incident) {
        line("may be", hypothesis_words(hypothesis));
    }
    if let Some(impact) = &incident.impact {
        line("lost", impact_words(impact));
    }
    if let Some(good) = &incident.last_good_checkpoint {
        line("roll back", format!("to {}", good.name));
    }
    line("touched", incident.affected_checkpoints.join(", "));
    line("runbook", format!("docs/runbooks/{}.md", incident.kind));
    line("id", incident.id.0.clone());
    text
}

pub(crate) fn when(incident: &Incident) -> String {
    match (incident.first_step, incident.last_step) {
        (Some(first), Some(last)) if first == last => format!("step {}", first.0),
        (Some(first), _) if incident.state != State::Resolved => format!("since step {}", first.0),
        (Some(first), Some(last)) => format!("steps {} to {}", first.0, last.0),
        (Some(first), None) => format!("since step {}", first.0),
        _ => incident.started_at.map_or(String::new(), |time| format!("since {}", civil(time))),
    }
}

pub(crate) fn suspects(incident: &Incident) -> String {
    let words = incident.suspects.iter().take(SUSPECTS_SHOWN).map(|suspect| {
        let node = suspect.node.as_ref().map_or(String::new(), |node| format!(" on {node}"));
        format!("rank {}{node} ({:.0} %)", suspect.rank.0, 100.0 * suspect.share)
    });
    let mut text = words.collect::<Vec<_>>().join(", ");
    if incident.suspects.len() > SUSPECTS_SHOWN {
        let _ = write!(text, " and {} more", incident.suspects.len() - SUSPECTS_SHOWN);
    }
    text
}

pub(crate) fn evidence_words(evidence: &Evidence) -> String {
    let mut text = format!("{}: {}", evidence.detector, evidence.metric);
    if let Some(rank) = evidence.rank {
        let _ = write!(text, " of {rank}");
    }
    if let Some(step) = evidence.step {
        let _ = write!(text, " at {step}");
    }
    if let Some(observed) = evidence.observed {
        let _ = write!(text, " is {}", number(observed));
    }
    if let Some(expected) = evidence.expected {
        let _ = write!(text, ", expected {}", number(expected));
    }
    if let (Some(low), Some(high)) = (evidence.low, evidence.high) {
        let _ = write!(text, " ({} to {})", number(low), number(high));
    }
    if let Some(log10_e) = evidence.log10_e {
        let _ = write!(text, ", e-value 10^{log10_e:.1}");
    }
    if let Some(note) = &evidence.note {
        let _ = write!(text, ": {note}");
    }
    text
}

pub(crate) fn change_words(change: &AuditChange) -> String {
    let mut text = format!("{:+.1} s  {} {}", change.lag_s, change.source, change.kind);
    let parts = [("by", &change.actor), ("on", &change.node), ("to", &change.subject)];
    for (word, part) in parts {
        if let Some(part) = part {
            let _ = write!(text, " {word} {part}");
        }
    }
    text
}

/// The likeliest ones, and a deliberate act wherever it is among them.
fn shown_hypotheses(incident: &Incident) -> impl Iterator<Item = &Hypothesis> {
    let is_shown =
        |(place, hypothesis): &(usize, &Hypothesis)| *place < HYPOTHESES_SHOWN || hypothesis.cause == Cause::Deliberate;
    incident.hypotheses.iter().enumerate().filter(is_shown).map(|(_, hypothesis)| hypothesis)
}

fn hypothesis_words(hypothesis: &Hypothesis) -> String {
    format!("{:>2.0} % {}: {}", 100.0 * hypothesis.probability, hypothesis.cause, hypothesis.why)
}

/// `22.5 GPU-hours (19.4 to 25.6), 56.25 USD`.
pub(crate) fn impact_words(impact: &Impact) -> String {
    let (unit, name) = if impact.high < 3_600 { (1.0, "GPU-seconds") } else { (3_600.0, "GPU-hours") };
    let amount = |seconds: u64| {
        let amount = seconds as f64 / unit;
        if unit > 1.0 && amount < 100.0 { format!("{amount:.1}") } else { grouped(amount.round() as u64) }
    };
    let (lost, low, high) = (amount(impact.gpu_seconds_lost), amount(impact.low), amount(impact.high));
    let price = impact.cost.zip(impact.currency.as_ref());
    let price = price.map_or(String::new(), |(cost, currency)| format!(", {cost:.2} {currency}"));
    format!("{lost} {name} ({low} to {high}){price}")
}

/// A time as `2026-01-31 12:00:00 UTC`; without the date where it counts from zero, as imported logs do.
pub(crate) fn civil(time: Timestamp) -> String {
    let seconds = time.0.div_euclid(1_000_000_000);
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let clock = format!("{:02}:{:02}:{:02}", rest / 3_600, rest / 60 % 60, rest % 60);
    if (0..366).contains(&days) {
        return format!("{seconds} s");
    }
    // Days to year, month, day in the proleptic Gregorian calendar: Hinnant, "chrono-Compatible Low-Level Date
    // Algorithms", civil_from_days.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02} {clock} UTC")
}

/// Four significant digits, without an exponent where the number is of everyday size.
pub(crate) fn number(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 || !value.is_finite() {
        return value.to_string();
    }
    if !(1e-4..1e7).contains(&size) {
        return format!("{value:.3e}");
    }
    let decimals = (3 - size.log10().floor() as i32).clamp(0, 8) as usize;
    format!("{value:.decimals$}")
}

pub(crate) fn state(state: State) -> &'static str {
    match state {
        State::Open => "open",
        State::Acknowledged => "acknowledged",
        State::Resolved => "resolved",
    }
}

fn closing_line(findings: &Findings) -> String {
    let rows: u64 = findings.rows.values().sum();
    let count = |severity: Severity| {
        let alike = |incident: &&Incident| incident.severity == severity && incident.merged_into.is_none();
        findings.incidents.iter().filter(alike).count()
    };
    format!(
        "{}, {}: {} critical, {} warning, {} info",
        counted(findings.rows.len() as u64, "run"),
        counted(rows, "row"),
        count(Severity::Critical),
        count(Severity::Warning),
        count(Severity::Info)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_to_the_terminal_are_shown_and_not_obeyed() {
        assert_eq!(printable("loss \u{1b}[2Ja\nb\u{9b}31m\u{202e}"), r"loss \u{1b}[2Ja\nb\u{9b}31m\u{202e}");
        assert!(matches!(printable("损失 ‘loss’"), Cow::Borrowed(_)));
    }

    #[test]
    fn long_sentences_break_at_spaces_and_long_words_anywhere() {
        assert_eq!(wrapped("one  two three", 7), ["one two", "three"]);
        assert_eq!(wrapped("a 0123456789 b", 4), ["a", "0123", "4567", "89 b"]);
        assert_eq!(wrapped("größer als ‘x’", 6), ["größer", "als", "‘x’"]);
        assert!(wrapped(" ", 4).is_empty());
    }

    #[test]
    fn thousands_are_grouped() {
        assert_eq!([0, 999, 1_000, 13_271_040].map(grouped), ["0", "999", "1,000", "13,271,040"]);
    }

    #[test]
    fn times_are_civil_and_those_near_zero_are_seconds() {
        assert_eq!(civil(Timestamp(1_766_000_000_000_000_000)), "2025-12-17 19:33:20 UTC");
        assert_eq!(civil(Timestamp(951_782_400_000_000_000)), "2000-02-29 00:00:00 UTC");
        assert_eq!(civil(Timestamp(12_500_000_000)), "12 s");
    }

    #[test]
    fn numbers_have_four_digits_and_everyday_sizes_no_exponent() {
        let cases = [
            (0.0, "0"),
            (1.0, "1.000"),
            (0.01234567, "0.01235"),
            (123456.7, "123457"),
            (1e-9, "1.000e-9"),
            (f64::NAN, "NaN"),
        ];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
    }
}
