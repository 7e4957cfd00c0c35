//! The command line.

use std::net::SocketAddr;
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

/// What the exit code of `doctor` says.
const DOCTOR_CODES: &str = "Example: trainwarden doctor --config /etc/trainwarden.toml

Exit codes: 0 nothing is wrong, 1 something is, 2 the configuration is, 3 something outside does not answer";

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
    /// Judge telemetry as it comes: a log, a state that survives, one port
    Serve(ServeArgs),
    /// Send run folders to a service or a log, as agents would have sent them
    Send(SendArgs),
    /// Write one incident as one HTML file that stands alone
    Report(ReportArgs),
    /// List what a service has found
    #[command(after_help = "Example: trainwarden incidents list --data ./trainwarden-data --output json")]
    Incidents(IncidentsArgs),
    /// Ask anything of what was recorded, in SQL
    #[cfg(feature = "sql")]
    Sql(SqlArgs),
    /// The process that answers one question: reads it from standard input
    #[cfg(feature = "sql")]
    #[command(name = "sql-answer", hide = true)]
    SqlAnswer,
    /// Say that somebody looks after an incident
    Ack(AckArgs),
    /// Tell the log of a run what is planned or was changed; a planned pause is no silence
    Annotate(AnnotateArgs),
    /// Try the receivers of notices
    #[cfg(feature = "alerts")]
    #[command(subcommand, after_help = "Example: trainwarden webhook test --config /etc/trainwarden.toml")]
    Webhook(WebhookCommand),
    /// Say what is wrong with a configuration
    Check(CheckArgs),
    /// Say what is wrong here: brokers, clocks, disks, keys, port, state, limits
    #[command(after_help = DOCTOR_CODES)]
    Doctor(DoctorArgs),
    /// List the detectors: what each watches and what it can find
    Detectors(DetectorsArgs),
}

/// Arguments of `serve`.
#[derive(Debug, Args)]
#[command(after_help = "Example: trainwarden serve --data ./trainwarden-data")]
pub struct ServeArgs {
    /// A configuration; without it the defaults
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Brokers of Apache Kafka, in the place of the embedded log: HOST:PORT,...
    #[cfg(feature = "kafka")]
    #[arg(long, value_name = "BROKERS")]
    pub kafka: Option<String>,
    /// The folder of log, state and archive [default: ./trainwarden-data]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Where HTTP and gRPC are answered [default: 127.0.0.1:7788]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<SocketAddr>,
}

/// Arguments of `send`.
#[derive(Debug, Args)]
#[command(after_help = "Example: trainwarden send runs/llm-7b --url 127.0.0.1:7788 --speed 0")]
pub struct SendArgs {
    /// Run folders, or single table files such as samples.parquet
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// A running service
    #[arg(long, value_name = "URL")]
    #[cfg_attr(feature = "kafka", arg(required_unless_present = "kafka", conflicts_with = "kafka"))]
    #[cfg_attr(not(feature = "kafka"), arg(required = true))]
    pub url: Option<String>,
    /// Brokers of Apache Kafka: HOST:PORT,...
    #[cfg(feature = "kafka")]
    #[arg(long, value_name = "BROKERS")]
    pub kafka: Option<String>,
    /// How many times faster than recorded; 0 = at once
    #[arg(long, value_name = "X", default_value = "1", value_parser = parse_speed)]
    pub speed: f64,
    /// Sign with this Ed25519 secret key: a file of 64 hexadecimal digits
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
}

/// Arguments of `report`.
#[derive(Debug, Args)]
#[command(after_help = "Example: trainwarden report inc_0123456789abcdef --run-folder runs/llm-7b --out incident.html")]
pub struct ReportArgs {
    /// The incident: its id, or the begin of it that no other has
    #[arg(value_name = "INCIDENT")]
    pub id: String,
    /// The file to write
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// The folder of a service, running or not [default: ./trainwarden-data]
    #[arg(long, value_name = "DIR", conflicts_with = "run_folder")]
    pub data: Option<PathBuf>,
    /// Run folders, which are judged anew; nothing needs to run
    #[arg(long, value_name = "PATH", num_args = 1..)]
    pub run_folder: Vec<PathBuf>,
    /// Price of one GPU for one hour: the report then tells what lost time cost
    #[arg(long, value_name = "PRICE", value_parser = parse_price)]
    pub gpu_hour_price: Option<f64>,
    /// Currency of that price
    #[arg(long, value_name = "CURRENCY", default_value = "USD")]
    pub currency: String,
}

/// Arguments of `incidents`.
#[derive(Debug, Args)]
pub struct IncidentsArgs {
    /// What to do; without a word: list
    #[command(subcommand)]
    pub command: Option<IncidentsCommand>,
    /// Where to ask, and what is meant
    #[command(flatten)]
    pub from: IncidentsFrom,
}

/// What `incidents` does.
#[derive(Debug, Subcommand)]
pub enum IncidentsCommand {
    /// What was found
    List,
    /// One incident, whole
    Show {
        /// Its id
        id: String,
    },
    /// Every change from now on, until Ctrl-C
    Watch,
    /// Pauses that people planned, with their reasons
    Pauses,
}

/// Where incidents are asked for.
#[derive(Debug, Args)]
pub struct IncidentsFrom {
    /// The folder of a service, running or not [default: ./trainwarden-data]
    #[arg(long, value_name = "DIR", global = true, conflicts_with = "url")]
    pub data: Option<PathBuf>,
    /// A running service
    #[arg(long, value_name = "URL", global = true)]
    pub url: Option<String>,
    /// Only of this run
    #[arg(long, value_name = "RUN", global = true)]
    pub run: Option<String>,
    /// Only what was detected at or after this time: 2026-01-31T12:00:00Z, or nanoseconds since the epoch
    #[arg(long, value_name = "TIME", global = true, value_parser = parse_time)]
    pub since: Option<i64>,
    /// Only what began at or before this time
    #[arg(long, value_name = "TIME", global = true, value_parser = parse_time)]
    pub until: Option<i64>,
    /// How incidents are printed
    #[arg(long, value_enum, default_value = "table", value_name = "FORMAT", global = true)]
    pub output: Output,
}

/// Arguments of `sql`.
#[cfg(feature = "sql")]
#[derive(Debug, Args)]
#[command(after_help = "Example: trainwarden sql -c \"select run, metric, count(*) from samples group by 1, 2\"")]
pub struct SqlArgs {
    /// A statement, or several with semicolons; repeatable. Without any: a prompt, or standard input
    #[arg(short, long, value_name = "SQL")]
    pub command: Vec<String>,
    /// A file of statements; repeatable
    #[arg(short, long, value_name = "FILE")]
    pub file: Vec<PathBuf>,
    /// A saved question; without a name they are listed
    #[arg(long, value_name = "NAME", num_args = 0..=1)]
    pub saved: Option<Option<String>>,
    /// What a saved question asks about, as in `digest=5f3a`; repeatable
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_param, requires = "saved")]
    pub param: Vec<(String, String)>,
    /// The folder of a service, running or not [default: ./trainwarden-data]
    #[arg(long, value_name = "DIR", conflicts_with = "run_folder")]
    pub data: Option<PathBuf>,
    /// The folder of the archive, where it is not in the data folder
    #[arg(long, value_name = "DIR", conflicts_with = "run_folder")]
    pub archive: Option<PathBuf>,
    /// Ask a running service
    #[arg(long, value_name = "URL", conflicts_with_all = ["data", "archive", "run_folder"])]
    pub url: Option<String>,
    /// Ask of a run folder instead; repeatable
    #[arg(long, value_name = "PATH")]
    pub run_folder: Vec<PathBuf>,
    /// Form of the answer
    #[arg(long, visible_alias = "output", value_enum, default_value = "table", value_name = "FORMAT")]
    pub format: SqlFormat,
    /// Rows that a table shows; `inf` for all
    #[arg(long, value_name = "N", default_value = "40")]
    pub maxrows: String,
    /// Print the answers alone
    #[arg(short, long)]
    pub quiet: bool,
    /// Memory of one question, in MiB
    #[arg(short, long = "memory-limit", value_name = "MIB", default_value = "4096")]
    pub memory_mb: u64,
    /// Seconds of one question
    #[arg(long, value_name = "SECONDS", default_value = "3600")]
    pub time_limit: u64,
}

#[cfg(feature = "sql")]
impl SqlArgs {
    /// Rows that a table shows.
    ///
    /// # Errors
    /// When it is neither a number nor `inf`.
    pub fn rows_max(&self) -> anyhow::Result<usize> {
        match self.maxrows.as_str() {
            "inf" | "infinite" | "none" => Ok(usize::MAX),
            number => number.parse().map_err(|_| anyhow::anyhow!("--maxrows takes a number or `inf`, not `{number}`")),
        }
    }
}

/// Form of an answer.
#[cfg(feature = "sql")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum SqlFormat {
    /// A frame of lines.
    Table,
    /// Comma-separated values.
    Csv,
    /// Tab-separated values.
    Tsv,
    /// An array of objects.
    Json,
    /// An object a line.
    NdJson,
    /// A stream of Arrow IPC.
    Arrow,
}

#[cfg(feature = "sql")]
impl From<SqlFormat> for trainwarden_query::Form {
    fn from(format: SqlFormat) -> Self {
        match format {
            SqlFormat::Table => Self::Table,
            SqlFormat::Csv => Self::Csv,
            SqlFormat::Tsv => Self::Tsv,
            SqlFormat::Json => Self::Json,
            SqlFormat::NdJson => Self::NdJson,
            SqlFormat::Arrow => Self::Arrow,
        }
    }
}

/// Where a running service is, and who speaks.
#[derive(Debug, Args)]
pub struct ActArgs {
    /// The folder of a running service [default: ./trainwarden-data]
    #[arg(long, value_name = "DIR", conflicts_with = "url")]
    pub data: Option<PathBuf>,
    /// A running service
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// Who does it [default: the user's name]
    #[arg(long = "as", value_name = "NAME")]
    pub actor: Option<String>,
}

/// Arguments of `ack`.
#[derive(Debug, Args)]
#[command(after_help = "Example: trainwarden ack inc_7f3a12… --reason \"replacing the node\"")]
pub struct AckArgs {
    /// Id of the incident
    #[arg(value_name = "INCIDENT")]
    pub id: String,
    /// What is done about it
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Where, and who
    #[command(flatten)]
    pub act: ActArgs,
}

/// Arguments of `annotate`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example: trainwarden annotate llm-7b \"switch maintenance\" --pause-until 2026-01-31T14:00:00Z"
)]
pub struct AnnotateArgs {
    /// The run
    #[arg(value_name = "RUN")]
    pub run: String,
    /// What is planned or was changed
    #[arg(value_name = "TEXT")]
    pub text: String,
    /// The run pauses until then: 2026-01-31T12:00:00Z, or nanoseconds since the epoch
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub pause_until: Option<i64>,
    /// ... from then on [default: now]
    #[arg(long, value_name = "TIME", value_parser = parse_time, requires = "pause_until")]
    pub pause_from: Option<i64>,
    /// Where, and who
    #[command(flatten)]
    pub act: ActArgs,
}

/// What `webhook` does.
#[cfg(feature = "alerts")]
#[derive(Debug, Subcommand)]
pub enum WebhookCommand {
    /// Send each receiver one notice that says that it is a test, and print what it answers
    #[command(after_help = "Example: trainwarden webhook test --config /etc/trainwarden.toml --sink pager")]
    Test(WebhookTestArgs),
}

/// Arguments of `webhook test`.
#[cfg(feature = "alerts")]
#[derive(Debug, Args)]
pub struct WebhookTestArgs {
    /// The configuration
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// Only this receiver
    #[arg(long, value_name = "NAME")]
    pub sink: Option<String>,
}

/// Arguments of `check`.
#[derive(Debug, Args)]
#[command(after_help = "Example: trainwarden check --config /etc/trainwarden.toml")]
pub struct CheckArgs {
    /// The configuration
    #[arg(long, value_name = "FILE", required_unless_present = "schema")]
    pub config: Option<PathBuf>,
    /// Print the JSON Schema of a configuration instead
    #[arg(long)]
    pub schema: bool,
}

#[cfg(feature = "sql")]
fn parse_param(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("`{text}` is no NAME=VALUE, such as digest=5f3a")),
    }
}

fn parse_speed(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(speed) if speed.is_finite() && speed >= 0.0 => Ok(speed),
        _ => Err(format!("`{text}` is no speed: 0 = at once, 1 = as recorded, 10 = ten times faster")),
    }
}

fn parse_price(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(price) if price.is_finite() && price >= 0.0 => Ok(price),
        _ => Err(format!("`{text}` is no price of a GPU-hour, such as 2.5")),
    }
}

/// A time as people and programs write it, in nanoseconds since the epoch.
///
/// # Errors
/// When the text is none; says what one looks like.
pub fn parse_time(text: &str) -> Result<i64, String> {
    let nanoseconds = text.parse::<i64>().ok().or_else(|| trainwarden_ingest::import::parse_timestamp(text));
    nanoseconds.ok_or_else(|| format!("`{text}` is no time, such as 2026-01-31T12:00:00Z"))
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
    /// Print the figures behind one incident, enough to compute it again: its id, or the begin of it
    #[arg(long, value_name = "INCIDENT", conflicts_with = "changes")]
    pub explain: Option<String>,
    /// How incidents are printed
    #[arg(long, value_enum, default_value = "table", value_name = "FORMAT")]
    pub output: Output,
    /// Exit with code 1 if an incident is at least so severe: info, warning or critical
    #[arg(long, value_name = "SEVERITY")]
    pub fail_on: Option<Severity>,
    /// Keep broken rows in DIR/rejects.jsonl
    #[arg(long, value_name = "DIR")]
    pub rejects: Option<PathBuf>,
    /// Price of one GPU for one hour: incidents then tell what lost time cost
    #[arg(long, value_name = "PRICE", value_parser = parse_price)]
    pub gpu_hour_price: Option<f64>,
    /// Currency of that price
    #[arg(long, value_name = "CURRENCY", default_value = "USD")]
    pub currency: String,
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

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// The configuration of the service; without it the defaults
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How findings are printed
    #[arg(long, value_enum, default_value = "table", value_name = "FORMAT")]
    pub output: Output,
}

/// Arguments of `detectors`.
#[derive(Debug, Args)]
#[command(after_help = "Example: trainwarden detectors --output json")]
pub struct DetectorsArgs {
    /// How the list is printed
    #[arg(long, value_enum, default_value = "table", value_name = "FORMAT")]
    pub output: Output,
}
