//! `sql`: questions to what was recorded, asked from the command line or over the port.

mod inquiry;
mod journal;
pub mod media;
mod prompt;
pub mod remote;

use std::io::{self, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use trainwarden_query::{Limits, QueryError, Sources, saved, saved_named};

pub use self::inquiry::{ANSWER_COMMAND, Asked, Inquiry, runner};
pub use self::journal::Journal;
use crate::cli::SqlArgs;
use crate::incident_list::{IncidentFilter, Place};
use crate::output::tell;

/// The archive inside a data folder.
const ARCHIVE_FOLDER: &str = "archive";

/// Runs the command.
///
/// # Errors
/// Where a text cannot be read, or there is nothing to ask.
pub fn run(args: &SqlArgs) -> Result<ExitCode> {
    if args.saved == Some(None) {
        list_saved()?;
        return Ok(ExitCode::SUCCESS);
    }
    let texts = texts(args)?;
    let mut inquiry = inquiry(args)?;
    let is_asked_at_a_prompt = texts.is_empty() && io::stdin().is_terminal();
    if is_asked_at_a_prompt {
        prompt::ask_all(&mut inquiry)?;
        return Ok(ExitCode::SUCCESS);
    }
    let texts = if texts.is_empty() { vec![("standard input".to_owned(), read_stdin()?)] } else { texts };
    for (place, sql) in texts {
        inquiry.ask_and_tell(&sql).with_context(|| format!("in {place}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What is asked, and where it was written.
fn texts(args: &SqlArgs) -> Result<Vec<(String, String)>> {
    let mut texts: Vec<(String, String)> = Vec::new();
    texts.extend(args.command.iter().map(|sql| ("-c".to_owned(), sql.clone())));
    for path in &args.file {
        let sql = std::fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))?;
        texts.push((format!("`{}`", path.display()), sql));
    }
    if let Some(Some(name)) = &args.saved {
        texts.push((format!("the saved question `{name}`"), saved_named(name)?.with(&args.param)?));
    }
    Ok(texts)
}

fn read_stdin() -> Result<String> {
    let mut text = String::new();
    io::stdin().lock().read_to_string(&mut text).context("cannot read standard input")?;
    Ok(text)
}

fn list_saved() -> Result<()> {
    let mut out = io::stdout().lock();
    for question in saved() {
        writeln!(out, "{:<20} {}", question.name, question.question).context("cannot write to standard output")?;
    }
    Ok(())
}

fn inquiry(args: &SqlArgs) -> Result<Inquiry> {
    Ok(Inquiry::new(asked(args)?, args.format.into(), args.rows_max()?, args.quiet))
}

fn asked(args: &SqlArgs) -> Result<Asked> {
    if let Some(url) = &args.url {
        return Ok(Asked::Service(url.clone()));
    }
    let limits = Limits::local(args.memory_mb << 20, Duration::from_secs(args.time_limit));
    let (sources, journal) = match &args.run_folder[..] {
        [] => sources_of(args)?,
        folders => {
            let folders = folders.iter().map(|folder| canonical(folder)).collect::<Result<_>>()?;
            (Sources { folders, ..Sources::default() }, None)
        }
    };
    Ok(Asked::Here { sources, limits, journal })
}

/// Archive and incidents of a data folder, at rest or in use.
fn sources_of(args: &SqlArgs) -> Result<(Sources, Option<Journal>)> {
    let data = args.data.as_deref().unwrap_or(Path::new("./trainwarden-data"));
    anyhow::ensure!(
        data.is_dir(),
        "there is no folder `{}`: give the folder of a service with --data, or run folders with --run-folder",
        data.display()
    );
    let archive = args.archive.clone().unwrap_or_else(|| data.join(ARCHIVE_FOLDER));
    let found = Place::find(data).list(&IncidentFilter::default());
    let incidents = match found {
        Ok(incidents) => incidents.iter().map(serde_json::to_string).collect::<Result<_, _>>()?,
        Err(error) => {
            // The rows can be asked without: an archive may have been carried here alone.
            tell(&format!("incidents and verdicts are empty: {error:#}"));
            Vec::new()
        }
    };
    let sources = Sources { archive: Some(canonical(&archive)?), folders: Vec::new(), incidents };
    Ok((sources, Some(Journal::of(data))))
}

fn canonical(path: &Path) -> Result<PathBuf> {
    std::fs::canonicalize(path).with_context(|| format!("cannot read `{}`", path.display()))
}

/// The error of a question in an error of a command.
#[must_use]
pub fn query_error(error: &anyhow::Error) -> Option<&QueryError> {
    error.downcast_ref::<QueryError>()
}
