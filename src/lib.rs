//! Wiring: the pipeline, and the commands of the binary `trainwarden`.

#![expect(unused_crate_dependencies, reason = "what this target does not use serves another one of the package")]

pub mod act;
#[cfg(feature = "alerts")]
pub mod alerts;
pub mod cli;
pub mod client;
pub mod commands;
pub mod config;
pub mod demo;
pub mod doctor;
pub mod explanation;
pub mod fast_forward;
pub mod incident_list;
pub mod metrics;
pub mod output;
pub mod partition_judge;
pub mod pipeline;
pub mod planned_pause;
pub mod progress;
pub mod quality;
pub mod replay;
pub mod report;
pub mod run_judge;
pub mod scorecard;
pub mod send;
pub mod serve;
pub mod simulation;
#[cfg(feature = "sql")]
pub mod sql;
