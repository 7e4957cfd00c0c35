//! A pause that a person planned for a run: what is not told meanwhile is told here, with its reason.

use std::fmt;
use std::io::{self, Write};

use chrono::{DateTime, SecondsFormat};
use serde::Serialize;
use trainwarden_detect::Pause;
use trainwarden_proto::v1::Pause as WirePause;
use trainwarden_telemetry::RunId;

use crate::output::{Output, printable};

/// A pause that a person planned; times in nanoseconds since the epoch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct PlannedPause {
    /// Of which run.
    pub run: String,
    /// When it begins.
    pub from: i64,
    /// When it ends.
    pub until: i64,
    /// What for; empty = not told.
    pub reason: String,
    /// Who planned it; empty = not told.
    pub actor: String,
}

impl PlannedPause {
    /// The pause of a run as detectors know it.
    #[must_use]
    pub fn new(run: &RunId, pause: &Pause) -> Self {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let (run, until) = (run.0.to_string(), pause.end.map_or(i64::MAX, |end| end.0));
        Self { run, from: pause.begin.0, until, reason: text(&pause.reason), actor: text(&pause.actor) }
    }
}

impl From<WirePause> for PlannedPause {
    fn from(pause: WirePause) -> Self {
        let WirePause { run, from, until, reason, actor } = pause;
        Self { run, from, until, reason, actor }
    }
}

impl From<PlannedPause> for WirePause {
    fn from(pause: PlannedPause) -> Self {
        let PlannedPause { run, from, until, reason, actor } = pause;
        Self { run, from, until, reason, actor }
    }
}

/// Writes pauses, one a line.
///
/// # Errors
/// When the stream fails.
pub fn write_pauses(out: &mut dyn Write, pauses: &[PlannedPause], output: Output) -> io::Result<()> {
    match output {
        Output::Table => pauses.iter().try_for_each(|pause| writeln!(out, "{}", printable(&pause.to_string()))),
        Output::Json => pauses.iter().try_for_each(|pause| {
            serde_json::to_writer(&mut *out, pause)?;
            out.write_all(b"\n")
        }),
        Output::Csv => {
            let mut writer = csv::Writer::from_writer(out);
            pauses.iter().try_for_each(|pause| writer.serialize(pause))?;
            writer.flush()
        }
    }
}

/// In words, as a list has it.
impl fmt::Display for PlannedPause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |ns| DateTime::from_timestamp_nanos(ns).to_rfc3339_opts(SecondsFormat::Secs, true);
        let reason = if self.reason.is_empty() { "no reason is told" } else { &self.reason };
        write!(f, "planned pause of {}, {} to {}: {reason}", self.run, time(self.from), time(self.until))?;
        if self.actor.is_empty() { Ok(()) } else { write!(f, " ({})", self.actor) }
    }
}
