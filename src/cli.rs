//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use trainwarden_ingest::Format;
use trainwarden_ingest::import::TimeUnit;
use trainwarden_telemetry::Severity;

use crate::demo::script;
use crate::output::Output;

/// The way a stranger takes: see it work, import what there is, judge it, see what can be found.
const EXAMPLES: &str = "Examples:
  trainwarden demo
  trainwarden import wide train.csv --out runs/llm-7b
  trainwarden replay runs/llm-7b
  trainwarden detectors";

/// Watches the training of large models for interference: what is wrong, since when, on which ranks.
#[derive(Debug, Parser)]
#[command(name = "trainwarden", version, about, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the binary can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch a simulated cluster under six faults being judged: no GPU, no data, nothing written
    Demo(DemoArgs),
    /// Judge recorded telemetry: run folders in, incidents out
    Replay(ReplayArgs),
    /// Turn what you have (CSV logs, traces, dumps, series) into a run folder
    #[command(subcommand, after_help = "Example: trainwarden import wide train.csv --out runs/llm-7b")]
    Import(ImportCommand),
    /// Write a run folder of a simulated cluster, with the truth about its faults
    Simulate(SimulateArgs),
    /// List the detectors: what each watches and what it can find
    Detectors(DetectorsArgs),
}

/// What `import` reads.
#[derive(Debug, Subcommand)]
pub enum ImportCommand {
    /// CSV with a row a step and a column a metric
    Wide(ImportWideArgs),
    /// Per-operation traces of ranks, their sums a rank and step, mini-batch tables
    #[command(after_help = "Example: trainwarden import trace trace.csv.gz --out runs/job")]
    Trace(ImportArgs),
    /// PyTorch NCCL flight recorder dumps, as JSON
    #[command(after_help = "Example: trainwarden import flight-recorder dumps/rank_*.json --run job --out runs/job")]
    FlightRecorder(ImportArgs),
    /// CSV of `timestamp,value`
    Series(ImportSeriesArgs),
}

/// Arguments of every `import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// Files to read; .gz and .zst are unpacked
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// The run folder to write
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Name of the run; without it each file is a run named after the file
    #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub run: Option<String>,
    /// Form of the files written
    #[arg(long, value_enum, default_value = "parquet", value_name = "FORMAT")]
    pub format: FolderFormat,
}

/// Arguments of `import wide`.
#[derive(Debug, Args)]
#[command(after_help = "Example: trainwarden import wide train.csv --map lm_loss=loss --out runs/llm-7b")]
pub struct ImportWideArgs {
    /// What every import takes
    #[command(flatten)]
    pub common: ImportArgs,
    /// A column and the metric it holds; repeatable. Other columns are then left out
    #[arg(long, value_name = "COLUMN=METRIC", value_parser = parse_map)]
    pub map: Vec<(String, String)>,
    /// Column of the step
    #[arg(long, value_name = "COLUMN")]
    pub step: Option<String>,
    /// Column of the time
    #[arg(long, value_name = "COLUMN")]
    pub time: Option<String>,
    /// Unit of the time column: s, ms, us or ns
    #[arg(long, value_name = "UNIT")]
    pub time_unit: Option<TimeUnit>,
    /// Column that names the run of a row
    #[arg(long, value_name = "COLUMN")]
    pub run_column: Option<String>,
    /// Column of the rank
    #[arg(long, value_name = "COLUMN")]
    pub rank_column: Option<String>,
    /// A known layout; without it the header decides
    #[arg(long, value_name = "NAME")]
    pub preset: Option<String>,
}

/// Arguments of `import series`.
#[derive(Debug, Args)]
#[command(after_help = "Example: trainwarden import series cpu.csv --metric cpu_util_ratio --out runs/host")]
pub struct ImportSeriesArgs {
    /// What every import takes
    #[command(flatten)]
    pub common: ImportArgs,
    /// The metric; without it the file's name is taken
    #[arg(long, value_name = "METRIC")]
    pub metric: Option<String>,
    /// Unit of an epoch number: s, ms, us or ns
    #[arg(long, value_name = "UNIT")]
    pub time_unit: Option<TimeUnit>,
}

/// Form of a written run folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum FolderFormat {
    /// Comma-separated values.
    Csv,
    /// ... packed with gzip.
    CsvGz,
    /// ... packed with zstd.
    CsvZst,
    /// A JSON object a line.
    Jsonl,
    /// ... packed with gzip.
    JsonlGz,
    /// ... packed with zstd.
    JsonlZst,
    /// Apache Parquet.
    Parquet,
}

impl From<FolderFormat> for Format {
    fn from(format: FolderFormat) -> Self {
        match format {
            FolderFormat::Csv => Self::Csv,
            FolderFormat::CsvGz => Self::CsvGz,
            FolderFormat::CsvZst => Self::CsvZst,
            FolderFormat::Jsonl => Self::Jsonl,
            FolderFormat::JsonlGz => Self::JsonlGz,
            FolderFormat::JsonlZst => Self::JsonlZst,
            FolderFormat::Parquet => Self::Parquet,
        }
    }
}

fn parse_map(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((column, metric)) if !column.is_empty() && !metric.is_empty() => {
            Ok((column.to_owned(), metric.to_owned()))
        }
        _ => Err(format!("`{text}` is no COLUMN=METRIC, such as train_loss=loss")),
    }
}

/// Arguments of `demo`.
#[derive(Debug, Args)]
#[command(after_help = "Example: trainwarden demo --ranks 1024 --seed 7")]
pub struct DemoArgs {
    /// How many simulated GPUs [default: 4096]
    #[arg(long, value_name = "N", value_parser = script::parse_ranks, conflicts_with = "scenario")]
    pub ranks: Option<u32>,
    /// Which ranks are guilty, when, and all noise follow from it [default: 1, or the scenario's]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Another cluster and other faults, as TOML; docs/simulate.md says what it may hold
    #[arg(long, value_name = "FILE")]
    pub scenario: Option<PathBuf>,
    /// Print what was found, missed and false as one JSON object, and nothing else
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `replay`.
#[derive(Debug, Args)]
#[command(after_help = "Example: trainwarden replay runs/llm-7b --fail-on critical")]
pub struct ReplayArgs {
    /// Run folders, or single table files such as samples.parquet
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Print incidents as JSON, one a line, and nothing else
    #[arg(long)]
    pub json: bool,
    /// Print every change (opened, updated, merged, resolved, reopened) as JSON, in order
    #[arg(long)]
    pub changes: bool,
    /// How incidents are printed
    #[arg(long, value_enum, default_value = "table", value_name = "FORMAT")]
    pub output: Output,
    /// Exit with code 1 if an incident is at least so severe: info, warning or critical
    #[arg(long, value_name = "SEVERITY")]
    pub fail_on: Option<Severity>,
    /// Keep broken rows in DIR/rejects.jsonl
    #[arg(long, value_name = "DIR")]
    pub rejects: Option<PathBuf>,
}

/// Arguments of `simulate`.
#[derive(Debug, Args)]
#[command(after_help = "Example: trainwarden simulate --scenario tests/scenarios/slow_rank_5.toml --out target/slow")]
pub struct SimulateArgs {
    /// What to simulate, as TOML; docs/simulate.md says what it may hold
    #[arg(long, value_name = "FILE")]
    pub scenario: PathBuf,
    /// The run folder to write, with `truth.json` in it
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Another seed than the scenario's
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// Form of the files written
    #[arg(long, value_enum, default_value = "parquet", value_name = "FORMAT")]
    pub format: FolderFormat,
}

/// Arguments of `detectors`.
#[derive(Debug, Args)]
#[command(after_help = "Example: trainwarden detectors --output json")]
pub struct DetectorsArgs {
    /// How the list is printed
    #[arg(long, value_enum, default_value = "table", value_name = "FORMAT")]
    pub output: Output,
}
