//! Wiring: the pipeline, and the commands of the binary `trainwarden`.

#![expect(unused_crate_dependencies, reason = "what this target does not use serves another one of the package")]

pub mod cli;
pub mod commands;
pub mod demo;
pub mod fast_forward;
pub mod output;
pub mod pipeline;
pub mod progress;
pub mod quality;
pub mod replay;
pub mod scorecard;
pub mod simulation;
