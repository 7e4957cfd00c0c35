//! What each command does.

use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};
use trainwarden_detect::{DetectorKind, Spec};
use trainwarden_ingest::{Fault, IngestError};

use crate::cli::{Cli, Command, DetectorsArgs, ReplayArgs};
use crate::output::{self, Output, Style};
use crate::replay::{Findings, replay};

/// A finding at or above `--fail-on`.
const EXIT_FINDING: u8 = 1;
/// Wrong usage or configuration.
const EXIT_USAGE: u8 = 2;
/// Something outside is not reachable.
const EXIT_OUTSIDE: u8 = 3;

/// Runs a command.
///
/// # Errors
/// What [`exit_code_of`] turns into an exit code.
pub fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Command::Replay(args) => run_replay(&args),
        Command::Detectors(args) => run_detectors(&args),
    }
}

/// 3 where something outside failed, 2 otherwise.
#[must_use]
pub fn exit_code_of(error: &anyhow::Error) -> ExitCode {
    let fault = error.downcast_ref::<IngestError>().map(IngestError::fault);
    ExitCode::from(if fault == Some(Fault::Outside) { EXIT_OUTSIDE } else { EXIT_USAGE })
}

fn run_replay(args: &ReplayArgs) -> Result<ExitCode> {
    let (findings, rejects) = replay(&args.paths, args.rejects.as_deref())?;
    for line in rejects.summary() {
        eprintln!("{line}");
    }
    report_counts(&findings);
    print(|out| match args {
        ReplayArgs { changes: true, .. } => output::write_changes(out, &findings.changes),
        ReplayArgs { json: true, .. } | ReplayArgs { output: Output::Json, .. } => {
            output::write_json(out, &findings.incidents)
        }
        ReplayArgs { output: Output::Csv, .. } => output::write_csv(out, &findings.incidents),
        ReplayArgs { output: Output::Table, .. } => output::write_table(out, &findings, Style::of_stdout()),
    })?;
    let worst = findings.incidents.iter().map(|incident| incident.severity).max();
    let has_failed = args.fail_on.is_some_and(|least| worst >= Some(least));
    Ok(if has_failed { ExitCode::from(EXIT_FINDING) } else { ExitCode::SUCCESS })
}

fn report_counts(findings: &Findings) {
    let counts = findings.counts;
    let lines = [
        (counts.late, "came after their panel was judged and were not judged"),
        (counts.repeated, "repeat an equal row and were counted once"),
        (counts.conflicting, "contradict another row of the same key"),
        (counts.unjudged, "are fingerprints of a kind that nothing judges"),
    ];
    for (rows, what) in lines.iter().filter(|(rows, _)| *rows > 0) {
        eprintln!("{rows} rows {what}");
    }
    for (detector, panels) in &findings.errors {
        eprintln!("detector `{detector}` could not judge {panels} panels");
    }
}

/// Prints to standard output; a reader that goes away early (`| head`) is no error.
fn print(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}

fn run_detectors(args: &DetectorsArgs) -> Result<ExitCode> {
    let specs: Vec<&'static Spec> = DetectorKind::ALL.iter().map(|kind| kind.build().spec()).collect();
    print(|out| match args.output {
        Output::Table => write_specs(out, &specs),
        Output::Json => specs.iter().try_for_each(|spec| {
            let kinds: Vec<&str> = spec.kinds.iter().map(|kind| kind.as_str()).collect();
            let against = format!("{:?}", spec.against).to_lowercase();
            let line =
                serde_json::json!({"name": spec.name, "against": against, "watches": spec.watches, "kinds": kinds});
            writeln!(out, "{line}")
        }),
        Output::Csv => {
            writeln!(out, "name,against,kinds")?;
            specs.iter().try_for_each(|spec| {
                let kinds: Vec<&str> = spec.kinds.iter().map(|kind| kind.as_str()).collect();
                writeln!(out, "{},{},{}", spec.name, format!("{:?}", spec.against).to_lowercase(), kinds.join(" "))
            })
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

fn write_specs(out: &mut dyn Write, specs: &[&'static Spec]) -> io::Result<()> {
    for spec in specs {
        let kinds: Vec<&str> = spec.kinds.iter().map(|kind| kind.as_str()).collect();
        let against = format!("{:?}", spec.against).to_lowercase();
        writeln!(out, "{:<22} against {against:<6} finds {}", spec.name, kinds.join(", "))?;
        writeln!(out, "{:<22} watches {}", "", spec.watches.join("; "))?;
    }
    Ok(())
}
