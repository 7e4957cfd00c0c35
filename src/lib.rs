//! Wiring: the pipeline, and the commands of the binary `trainwarden`.

pub mod cli;
pub mod commands;
pub mod output;
pub mod pipeline;
pub mod quality;
pub mod replay;

// Used by the tests and the second binary of this package only.
use {csv as _, flate2 as _, tempfile as _};
