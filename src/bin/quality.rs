//! `quality`: scores detection on a corpus of real telemetry, and on simulated scenarios over several seeds.

#![expect(unused_crate_dependencies, reason = "what this target does not use serves another one of the package")]

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use trainwarden::quality::{Corpus, CorpusFile, Quality, Scored, each, score, score_scenario, write_json, write_table};
use trainwarden::replay::replay;
use trainwarden::scorecard::judged;
use trainwarden::simulation::read_scenarios;
use trainwarden_ingest::import::{self, ImportSource, SeriesOptions, WideOptions};
use trainwarden_ingest::{FolderWriter, Format};
use trainwarden_simulate::{Scenario, Truth};
use trainwarden_telemetry::Incident;

/// Scores detection on a corpus of real telemetry with labels, by the rules of its README, and on simulated scenarios.
#[derive(Parser)]
#[command(name = "quality", after_help = "Example: cargo run --release --bin quality -- --only scenarios/ --seeds 20")]
struct Arguments {
    /// A folder with runs.csv and labels.json
    #[arg(long, default_value = "tests/data/real", value_name = "DIR")]
    data: PathBuf,
    /// A folder with scenarios
    #[arg(long, default_value = "tests/scenarios", value_name = "DIR")]
    scenarios: PathBuf,
    /// Simulate each scenario with the seeds 1 to N; 0 leaves the scenarios out
    #[arg(long, default_value_t = 5, value_name = "N")]
    seeds: u64,
    /// Also write the account as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Only files of the corpus whose path contains this text, and scenarios whose `scenarios/NAME.toml` does
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Print every incident
    #[arg(long)]
    verbose: bool,
}

impl Arguments {
    fn wants(&self, path: &str) -> bool {
        self.only.as_ref().is_none_or(|text| path.contains(text.as_str()))
    }
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
    let mut quality = Quality::default();
    score_corpus(&mut quality, arguments)?;
    score_scenarios(&mut quality, arguments)?;
    let mut out = BufWriter::new(io::stdout().lock());
    write_table(&mut out, &quality)?;
    out.flush()?;
    if let Some(path) = &arguments.json {
        let file = File::create(path).with_context(|| format!("cannot write `{}`", path.display()))?;
        write_json(&mut BufWriter::new(file), &quality)?;
    }
    Ok(())
}

fn score_corpus(quality: &mut Quality, arguments: &Arguments) -> Result<()> {
    let corpus = Corpus::open(&arguments.data)?;
    let wanted: Vec<&CorpusFile> = corpus.files.iter().filter(|file| arguments.wants(&file.file)).collect();
    let found = each(&wanted, |file| source_of(&file.file).map(|source| read(&corpus.dir.join(&file.file), &source)));
    for (file, read) in wanted.iter().zip(found) {
        let Some(read) = read else {
            quality.unread.push(file.file.clone());
            continue;
        };
        let FileFindings { steps, incidents } = read.with_context(|| format!("cannot score `{}`", file.file))?;
        if arguments.verbose {
            print_all(&file.file, &incidents);
        }
        score(quality, &corpus, file, &Scored { steps: &steps, incidents: &incidents });
    }
    Ok(())
}

fn score_scenarios(quality: &mut Quality, arguments: &Arguments) -> Result<()> {
    if arguments.seeds == 0 {
        return Ok(());
    }
    let mut runs: Vec<(String, Scenario)> = Vec::new();
    for (name, scenario) in read_scenarios(&arguments.scenarios)? {
        if arguments.wants(&format!("scenarios/{name}.toml")) {
            runs.extend((1..=arguments.seeds).map(|seed| (name.clone(), Scenario { seed, ..scenario.clone() })));
        }
    }
    let found = each(&runs, |(name, scenario)| -> Result<(Truth, Vec<Incident>)> {
        let (truth, findings) = judged(scenario).with_context(|| format!("cannot score scenario `{name}`"))?;
        Ok((truth, findings.incidents))
    });
    quality.seeds = arguments.seeds;
    for ((name, scenario), found) in runs.iter().zip(found) {
        let (truth, incidents) = found?;
        if arguments.verbose {
            print_all(&format!("{name}, seed {}", scenario.seed), &incidents);
        }
        score_scenario(quality, name, &truth, &incidents);
    }
    Ok(())
}

fn print_all(file: &str, incidents: &[Incident]) {
    for incident in incidents {
        let merged = if incident.merged_into.is_some() { " (merged)" } else { "" };
        let detected = incident.detected_step.map_or(0, |step| step.0);
        let line = format!("{} {} at {detected}{merged}: {}", incident.severity, incident.kind, incident.summary);
        println!("{file} | {line}");
    }
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

/// What a file of the corpus says, and what was found in it.
struct FileFindings {
    steps: Vec<i64>,
    incidents: Vec<Incident>,
}

fn read(path: &Path, source: &ImportSource) -> Result<FileFindings> {
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let mut writer = FolderWriter::create(folder.path(), Format::Csv)?;
    import::import(source, &[path.to_owned()], None, &mut writer)?;
    writer.finish()?;
    let (findings, _) = replay(&[folder.path().to_owned()], None)?;
    Ok(FileFindings { steps: steps_of(path), incidents: findings.incidents })
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
