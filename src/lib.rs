//! Wiring: the pipeline, and the commands of the binary `trainwarden`.

pub mod cli;
pub mod commands;
pub mod output;
pub mod pipeline;
pub mod quality;
pub mod replay;

// Used by the second binary of this package only.
use {flate2 as _, tempfile as _};
