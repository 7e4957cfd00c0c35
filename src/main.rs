//! The binary `trainwarden`.

use std::process::ExitCode;

use clap::Parser;
use trainwarden::cli::Cli;

// Parts of the library that this file does not name itself.
use {
    anyhow as _, csv as _, flate2 as _, rmp_serde as _, serde as _, serde_json as _, tempfile as _,
    trainwarden_detect as _, trainwarden_incidents as _, trainwarden_ingest as _, trainwarden_kernels as _,
    trainwarden_telemetry as _,
};

fn main() -> ExitCode {
    match trainwarden::commands::run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            trainwarden::commands::exit_code_of(&error)
        }
    }
}
