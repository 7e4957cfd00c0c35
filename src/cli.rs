//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use trainwarden_telemetry::Severity;

use crate::output::Output;

/// Watches the training of large models for interference: what is wrong, since when, on which ranks.
#[derive(Debug, Parser)]
#[command(name = "trainwarden", version, about, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What the binary can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Judge recorded telemetry: run folders in, incidents out
    Replay(ReplayArgs),
    /// List the detectors: what each watches and what it can find
    Detectors(DetectorsArgs),
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

/// Arguments of `detectors`.
#[derive(Debug, Args)]
#[command(after_help = "Example: trainwarden detectors --output json")]
pub struct DetectorsArgs {
    /// How the list is printed
    #[arg(long, value_enum, default_value = "table", value_name = "FORMAT")]
    pub output: Output,
}
