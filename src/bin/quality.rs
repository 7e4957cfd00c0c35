//! `quality`: scores detection on a corpus of real telemetry.

#![expect(unused_crate_dependencies, reason = "what this target does not use serves another one of the package")]

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use trainwarden::quality::{Corpus, CorpusFile, Quality, Scored, score, write_json, write_table};
use trainwarden::replay::replay;
use trainwarden_ingest::import::{self, ImportSource, SeriesOptions, WideOptions};
use trainwarden_ingest::{FolderWriter, Format};

/// Scores detection on a corpus of real telemetry with labels, by the rules of its README.
#[derive(Parser)]
#[command(name = "quality", after_help = "Example: cargo run --release --bin quality -- --data tests/data/real")]
struct Arguments {
    /// A folder with runs.csv and labels.json
    #[arg(long, default_value = "tests/data/real", value_name = "DIR")]
    data: PathBuf,
    /// Also write the account as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Only files whose path contains this text
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Print every incident as it is found
    #[arg(long)]
    verbose: bool,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let corpus = Corpus::open(&arguments.data)?;
    let mut quality = Quality::default();
    for file in &corpus.files {
        if arguments.only.as_ref().is_some_and(|text| !file.file.contains(text.as_str())) {
            continue;
        }
        match source_of(&file.file) {
            Some(source) => score_file(&mut quality, &corpus, file, &source, arguments.verbose)
                .with_context(|| format!("cannot score `{}`", file.file))?,
            None => quality.unread.push(file.file.clone()),
        }
    }
    let mut out = BufWriter::new(io::stdout().lock());
    write_table(&mut out, &quality)?;
    out.flush()?;
    if let Some(path) = &arguments.json {
        let file = File::create(path).with_context(|| format!("cannot write `{}`", path.display()))?;
        write_json(&mut BufWriter::new(file), &quality)?;
    }
    Ok(())
}

/// How a file is imported; `None` for forms that nothing imports.
fn source_of(file: &str) -> Option<ImportSource> {
    let name = file.rsplit('/').next().unwrap_or(file);
    match file.split('/').next()? {
        "train" | "incidents" => Some(ImportSource::Wide(WideOptions::default())),
        "generic" => {
            Some(ImportSource::Series(SeriesOptions { metric: Some("value".to_owned()), ..SeriesOptions::default() }))
        }
        "ranks" if name.starts_with("cov_") => {
            Some(ImportSource::Wide(WideOptions { run_column: Some("job".to_owned()), ..WideOptions::default() }))
        }
        "ranks" => Some(ImportSource::Trace),
        "collectives" if file.contains("flight_recorder") => Some(ImportSource::FlightRecorder),
        _ => None,
    }
}

fn score_file(
    quality: &mut Quality,
    corpus: &Corpus,
    file: &CorpusFile,
    source: &ImportSource,
    is_verbose: bool,
) -> Result<()> {
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let path = corpus.dir.join(&file.file);
    let mut writer = FolderWriter::create(folder.path(), Format::Csv)?;
    import::import(source, std::slice::from_ref(&path), None, &mut writer)?;
    writer.finish()?;
    let (findings, _) = replay(&[folder.path().to_owned()], None)?;
    if is_verbose {
        for incident in &findings.incidents {
            let merged = if incident.merged_into.is_some() { " (merged)" } else { "" };
            let detected = incident.detected_step.map_or(0, |step| step.0);
            let line = format!("{} {} at {detected}{merged}: {}", incident.severity, incident.kind, incident.summary);
            println!("{} | {line}", file.file);
        }
    }
    let steps = steps_of(&path);
    score(quality, corpus, file, &Scored { steps: &steps, incidents: &findings.incidents });
    Ok(())
}

/// The steps of a wide log, to know how many rows lie before a label; empty for other forms.
fn steps_of(path: &Path) -> Vec<i64> {
    let Ok(file) = File::open(path) else { return Vec::new() };
    let reader: Box<dyn io::Read> = match path.extension().is_some_and(|extension| extension == "gz") {
        true => Box::new(flate2::read::MultiGzDecoder::new(file)),
        false => Box::new(file),
    };
    let mut rows = csv::Reader::from_reader(reader);
    let Some(column) = rows.headers().ok().and_then(|header| header.iter().position(|name| name == "step")) else {
        return Vec::new();
    };
    let step = |row: csv::StringRecord| row.get(column)?.parse::<f64>().ok();
    rows.records().filter_map(Result::ok).filter_map(step).map(|step| step as i64).collect()
}
