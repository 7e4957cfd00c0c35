//! The binary `trainwarden`.

#![expect(unused_crate_dependencies, reason = "what this target does not use serves another one of the package")]

use std::process::ExitCode;

use clap::Parser;
use trainwarden::cli::Cli;

fn main() -> ExitCode {
    match trainwarden::commands::run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            format!("error: {error:#}").lines().for_each(trainwarden::output::tell);
            trainwarden::commands::exit_code_of(&error)
        }
    }
}
