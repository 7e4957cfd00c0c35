//! What the demo shows: a status line that is rewritten in place, incidents above it, a table at the end.

use std::io::{self, Write};

use trainwarden_simulate::{PlantedFault, Scenario};
use trainwarden_telemetry::{Change, ChangeKind, Incident, Severity};

use crate::demo::score::{Outcome, Score};
use crate::demo::script::Planted;
use crate::fast_forward::Moment;
use crate::output::{COLUMNS, Style, change_words, counted, evidence_words, grouped, printable, wrapped};
use crate::scorecard::is_found;

/// Where the words of an incident begin, under its step.
const INDENT: usize = 10;
/// Width of the name of a line: `evidence`.
const NAME_COLUMNS: usize = 10;
/// Name of the line that no detector wrote.
const TRUTH: &str = "truth";
/// Evidence of an incident: the first is the one that convicted.
const EVIDENCE_SHOWN: usize = 1;
/// Audit records of an incident.
const CHANGES_SHOWN: usize = 1;
/// Columns of the table: what, where, step, when.
const WHAT: usize = 40;
const PLACE: usize = 13;
const STEP: usize = 5;

/// A terminal, or a pipe.
pub struct Screen<'a> {
    out: &'a mut dyn Write,
    style: Style,
    is_terminal: bool,
    has_status: bool,
}

impl<'a> Screen<'a> {
    /// A screen with nothing on it.
    ///
    /// * `is_terminal`: whether lines can be rewritten.
    #[must_use]
    pub fn new(out: &'a mut dyn Write, style: Style, is_terminal: bool) -> Self {
        Self { out, style, is_terminal, has_status: false }
    }

    /// Whether it is coloured.
    #[must_use]
    pub fn style(&self) -> Style {
        self.style
    }

    /// True where a status line can be rewritten.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    /// Prints whole lines, above the status line.
    ///
    /// # Errors
    /// When the stream fails.
    pub fn print(&mut self, lines: &[String]) -> io::Result<()> {
        self.clear()?;
        lines.iter().try_for_each(|line| writeln!(self.out, "{}", line.trim_end()))?;
        self.out.flush()
    }

    /// Rewrites the status line; on a pipe it is a line like others.
    ///
    /// # Errors
    /// When the stream fails.
    pub fn status(&mut self, text: &str) -> io::Result<()> {
        if !self.is_terminal {
            return self.print(&[text.to_owned(), String::new()]);
        }
        // One column is left free: a full line would wrap on some terminals, and could not be rewritten.
        let text: String = text.chars().take(COLUMNS - 1).collect();
        write!(self.out, "\r\x1b[K{}", self.style.dim(&text))?;
        self.has_status = true;
        self.out.flush()
    }

    /// Takes the status line away.
    ///
    /// # Errors
    /// When the stream fails.
    pub fn clear(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.has_status) {
            write!(self.out, "\r\x1b[K")?;
        }
        Ok(())
    }
}

/// What is to be seen, before it begins.
#[must_use]
pub fn opening_lines(style: Style, scenario: &Scenario, planted: &[Planted]) -> Vec<String> {
    let cluster = &scenario.cluster;
    let (ranks, replicas) = (u64::from(cluster.ranks()), grouped(u64::from(cluster.dp)));
    let nodes = counted(ranks.div_ceil(u64::from(cluster.ranks_per_node)), "node");
    let grid = match (cluster.tp, cluster.pp) {
        (1, 1) => format!("dp {replicas}"),
        (tp, pp) => format!("dp {replicas} x tp {tp} x pp {pp}"),
    };
    let faults = match planted.len() as u64 {
        0 => "no fault: whatever is told is false".to_owned(),
        faults => format!("{}, of which the detectors are told nothing", counted(faults, "fault")),
    };
    vec![
        style.bold("TrainWarden: a simulated training, judged while it runs"),
        String::new(),
        format!("  cluster   {} ranks on {nodes} ({grid})", grouped(ranks)),
        format!("  training  {} steps of {} s, seed {}", scenario.steps, cluster.step_time_s, scenario.seed),
        format!("  planted   {faults}"),
        String::new(),
    ]
}

/// What became of an incident that was told before, in a line.
///
/// * `cause`: the incident it was merged into, as [`title`] tells it.
#[must_use]
pub fn note_lines(style: Style, now: Moment, change: &Change, cause: Option<&str>) -> Vec<String> {
    let what = title(&change.incident);
    let (word, text) = match (change.change, cause) {
        (ChangeKind::Merged, Some(cause)) => ("merged", format!("{what}, an effect of {cause}")),
        (ChangeKind::Merged, None) => ("merged", what),
        (ChangeKind::Reopened, _) => ("again", what),
        _ => ("over", what),
    };
    let head = format!("{:<8}  {word:<8}  ", step_words(now));
    let width = COLUMNS - head.chars().count();
    let hanging = |(index, part): (usize, String)| match index {
        0 => style.dim(&format!("{head}{part}")),
        _ => style.dim(&format!("{:INDENT$}{part}", "")),
    };
    let mut lines: Vec<String> = wrapped(&text, width).into_iter().enumerate().map(hanging).collect();
    lines.push(String::new());
    lines
}

/// What an incident is and where, in a few words.
#[must_use]
pub fn title(incident: &Incident) -> String {
    format!("{}  {}", incident.kind, where_words(incident))
}

/// An incident as it is told: step, severity, kind, where; the sentence; the numbers; what changed before; the truth.
#[must_use]
pub fn incident_lines(style: Style, now: Moment, incident: &Incident, truth: &str) -> Vec<String> {
    let head = format!("{:<8}  {}", step_words(now), style.severity(incident.severity));
    let mut lines = vec![format!("{head}  {}  {}", style.bold(incident.kind.as_str()), where_words(incident))];
    lines.extend(wrapped(&printable(&incident.summary), COLUMNS - INDENT).into_iter().map(indented));
    for evidence in incident.evidence.iter().take(EVIDENCE_SHOWN) {
        lines.extend(named_lines(style, "evidence", &evidence_words(evidence)));
    }
    for change in incident.changes.iter().take(CHANGES_SHOWN) {
        lines.extend(named_lines(style, "before", &change_words(change)));
    }
    if let Some(good) = &incident.last_good_checkpoint {
        lines.extend(named_lines(style, "roll back", &format!("to {}", good.name)));
    }
    lines.extend(named_lines(style, TRUTH, truth));
    lines.push(String::new());
    lines
}

fn step_words(now: Moment) -> String {
    now.place.map_or("start".to_owned(), |(_, step)| format!("step {step}"))
}

fn indented(line: String) -> String {
    format!("{:INDENT$}{line}", "")
}

/// A line with a name before it; what does not fit hangs under it.
fn named_lines(style: Style, name: &str, text: &str) -> Vec<String> {
    // The truth is no finding: it stands out, so that nobody takes it for one.
    let code = if name == TRUTH { "32" } else { "2" };
    let name = style.paint(code, &format!("{name:<NAME_COLUMNS$}"));
    let parts = wrapped(&printable(text), COLUMNS - INDENT - NAME_COLUMNS);
    let hanging = |(index, part): (usize, String)| match index {
        0 => indented(format!("{name}{part}")),
        _ => indented(format!("{:NAME_COLUMNS$}{part}", "")),
    };
    parts.into_iter().enumerate().map(hanging).collect()
}

/// Who is suspected, in a few words.
#[must_use]
pub fn where_words(incident: &Incident) -> String {
    match incident.suspects.as_slice() {
        [] => "all ranks".to_owned(),
        [one] => {
            let node = one.node.as_ref().map_or(String::new(), |node| format!(" ({node})"));
            printable(&format!("{}{node}", one.rank)).into_owned()
        }
        [first, rest @ ..] => format!("{} and {} more", first.rank, rest.len()),
    }
}

/// The truth beside an incident: the fault that it is, else the one that is at work.
#[must_use]
pub fn truth_words(planted: &[Planted], now: Moment, incident: &Incident) -> String {
    let place = |is_it: &dyn Fn(&PlantedFault) -> bool| planted.iter().rposition(|fault| is_it(&fault.truth));
    let words = |number: usize| {
        let Planted { title, place, size, truth } = &planted[number];
        let size = if size.is_empty() { String::new() } else { format!(", {size}") };
        let of = format!("fault {} of {}: {title}{size}", number + 1, planted.len());
        format!("{of}, {place}, from step {}", truth.onset_step)
    };
    if let Some(number) = place(&|truth| is_found(truth, incident)) {
        return words(number);
    }
    let at = now.place.unwrap_or_default();
    let has_begun = |truth: &PlantedFault| {
        (truth.attempt, truth.onset_step) <= at && truth.end_step.is_none_or(|end| at < (truth.attempt, end))
    };
    match place(&has_begun) {
        Some(number) => format!("none of its own; at work is {}", words(number)),
        None => "no fault is at work".to_owned(),
    }
}

/// The table at the end: two lines a fault, the truth above what was told of it; then how fast it was, and what next.
#[must_use]
pub fn table_lines(style: Style, score: &Score<'_>, speed: &str) -> Vec<String> {
    let verdict = format!(
        "{} of {} found, {} missed, {} false",
        score.found(),
        score.outcomes.len(),
        score.missed(),
        score.false_ones.len()
    );
    let code = if score.is_clean() { "1;32" } else { "1;31" };
    let mut lines = vec![style.paint(code, &verdict), String::new()];
    lines.push(style.dim(&row("#", "planted", "where", "from", "after onset")));
    lines.push(style.dim(&row("", "told", "first suspect", "at", "steps, seconds")));
    for (number, outcome) in (1..).zip(&score.outcomes) {
        lines.extend(outcome_lines(style, number, outcome));
    }
    for incident in &score.false_ones {
        lines.push(style.paint("1;31", &told_row("!", incident, "FALSE")));
    }
    lines.extend([String::new(), speed.to_owned(), String::new()]);
    lines.push("Next: your own logs and traces   trainwarden import --help   docs/import.md".to_owned());
    lines.push("      a cluster and faults of your own   --scenario FILE   docs/simulate.md".to_owned());
    lines
}

fn outcome_lines(style: Style, number: usize, outcome: &Outcome<'_>) -> [String; 2] {
    let Outcome { planted, found } = outcome;
    let title = match planted.size.is_empty() {
        true => planted.title.clone(),
        false => format!("{}, {}", planted.title, planted.size),
    };
    let onset = planted.truth.onset_step.to_string();
    let truth = row(&number.to_string(), &title, &planted.place, &onset, "");
    let told = match found {
        None => style.paint("1;31", &row("!", &format!("MISSED: no {}", planted.truth.kind), "", "", "")),
        Some((incident, after_s)) => {
            let steps = incident.detected_step.map_or(0, |step| step.0.saturating_sub(planted.truth.onset_step));
            let after = format!("{}, {after_s:.0} s", counted(steps, "step"));
            let code = if incident.severity == Severity::Critical { "1;31" } else { "33" };
            style.paint(code, &told_row("ok", incident, &after))
        }
    };
    [truth, told]
}

fn told_row(mark: &str, incident: &Incident, after: &str) -> String {
    let first = incident.suspects.first().map_or("all ranks".to_owned(), |suspect| suspect.rank.to_string());
    let step = incident.detected_step.map_or(String::new(), |step| step.0.to_string());
    row(mark, incident.kind.as_str(), &first, &step, after)
}

fn row(number: &str, what: &str, place: &str, step: &str, after: &str) -> String {
    let cut = |text: &str, width: usize| text.chars().take(width).collect::<String>();
    let (what, place) = (cut(what, WHAT), cut(place, PLACE));
    let line = format!("{number:>2} {what:<WHAT$} {place:<PLACE$} {step:>STEP$}  {after}");
    cut(line.trim_end(), COLUMNS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::script;

    fn incident(kind: &str, suspects: &str, summary: &str) -> Incident {
        let text = format!(
            r#"{{"id": "inc_1", "run": "demo", "attempt": 0, "kind": "{kind}", "severity": "warning",
            "state": "open", "detected_step": 97, "suspects": [{suspects}], "summary": "{summary}",
            "evidence": [{{"detector": "straggler", "metric": "backward_time_s", "step": 97, "rank": 130071,
            "observed": 1.119, "expected": 1.0, "low": 0.98, "high": 1.02, "log10_e": 14.2}}],
            "changes": [{{"time": 0, "source": "sudo", "kind": "exec", "actor": "u-4f21", "node": "n16258",
            "subject": "nvidia-smi -i 7 -lgc 1200 {}", "lag_s": -8.0}}]}}"#,
            "x".repeat(90)
        );
        serde_json::from_str(&text).expect("the text is an incident")
    }

    fn at_step(step: u64) -> Moment {
        Moment { place: Some((0, step)), ..Moment::default() }
    }

    fn suspect(rank: u32) -> String {
        format!(r#"{{"rank": {rank}, "node": "n{}", "share": 1.0}}"#, rank / 8)
    }

    fn assert_fits(lines: &[String]) {
        for line in lines {
            assert!(line.chars().count() <= COLUMNS, "{}: {line}", line.chars().count());
        }
    }

    #[test]
    fn an_incident_fits_80_columns_whatever_it_says() {
        let (_, planted) = script::own(131_072, 1).expect("the demo's scenario is right");
        let long = "größer ".repeat(40) + &"y".repeat(100);
        let incident = incident("weights.unexplained_update", &suspect(130_071), &long);
        for step in [0, 100, 250, 123_456] {
            let now = at_step(step);
            assert_fits(&incident_lines(Style::Plain, now, &incident, &truth_words(&planted, now, &incident)));
        }
        let change = Change { change: ChangeKind::Merged, incident };
        assert_fits(&note_lines(
            Style::Plain,
            at_step(123_456),
            &change,
            Some("weights.unexplained_update  rank 130071"),
        ));
    }

    #[test]
    fn the_table_lays_what_was_told_under_the_truth_and_fits_80_columns() {
        let (_, planted) = script::own(131_072, 1).expect("the demo's scenario is right");
        let told = incident(&planted[0].truth.kind, &suspect(planted[0].truth.ranks[0]), "slow");
        let wrong = incident("weights.unexplained_update", &suspect(130_071), "edited");
        let mut outcomes: Vec<Outcome<'_>> = planted.iter().map(|planted| Outcome { planted, found: None }).collect();
        outcomes[0].found = Some((&told, 123_456.0));
        let score = Score { outcomes, false_ones: vec![&wrong] };
        let lines = table_lines(Style::Plain, &score, "1,000,000,000 points judged, 1,000,000 a second");
        assert_fits(&lines);
        assert_eq!(lines[0], "1 of 6 found, 5 missed, 1 false");
        let at = |line: &str, word: &str| line.find(word).unwrap_or_else(|| panic!("no `{word}` in `{line}`"));
        let onset = planted[0].truth.onset_step.to_string();
        assert_eq!(at(&lines[4], "fans slowed, one GPU overheats"), at(&lines[5], "hardware.throttle"));
        assert_eq!(at(&lines[4], &planted[0].place), at(&lines[5], &planted[0].place));
        assert_eq!(at(&lines[4], &onset) + onset.len(), at(&lines[5], " 97 ") + 3);
        assert!(lines[7].contains("MISSED: no weights.replica_mismatch"), "{lines:?}");
        assert!(
            lines.iter().any(|line| line.starts_with(" ! weights.unexplained_update") && line.ends_with("FALSE")),
            "{lines:?}"
        );
    }

    #[test]
    fn a_status_line_is_rewritten_on_a_terminal_and_taken_away_before_other_lines() {
        let mut out = Vec::new();
        let mut screen = Screen::new(&mut out, Style::Plain, true);
        screen.status(&"s".repeat(100)).expect("memory takes bytes");
        screen.print(&["line".to_owned()]).expect("memory takes bytes");
        screen.print(&["next".to_owned()]).expect("memory takes bytes");
        let expected = format!("\r\x1b[K{}\r\x1b[Kline\nnext\n", "s".repeat(COLUMNS - 1));
        assert_eq!(String::from_utf8(out).expect("output is text"), expected);
    }
}
