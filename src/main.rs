//! The binary `trainwarden`.

#![expect(unused_crate_dependencies, reason = "what this target does not use serves another one of the package")]

use std::process::ExitCode;

use clap::Parser;
use trainwarden::cli::Cli;

fn main() -> ExitCode {
    match trainwarden::commands::run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            trainwarden::output::tell(&format!("error: {error:#}"));
            trainwarden::commands::exit_code_of(&error)
        }
    }
}
