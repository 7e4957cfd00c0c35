//! `quality`: scores detection on a corpus of real telemetry.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::Parser;
use trainwarden::quality::{Corpus, CorpusFile, Quality, Scored, score, write_json, write_table};
use trainwarden::replay::replay;
use trainwarden_ingest::import::{self, ImportKind};
use trainwarden_ingest::{FolderWriter, Format};

// Parts of the package that this file does not name itself.
use {
    csv as _, flate2 as _, rmp_serde as _, serde as _, serde_json as _, trainwarden_detect as _,
    trainwarden_incidents as _, trainwarden_kernels as _, trainwarden_telemetry as _,
};

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
        match kind_of(&file.file) {
            Some(kind) => score_file(&mut quality, &corpus, file, kind, arguments.verbose)
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
