//! Judgement: observations in, verdicts out. No input or output, no async, no clock; state is bounded and serialises.
//!
//! Every detector is one of three comparisons (against law, peers or the past) and lives in one file named after the
//! fault.

mod budget;
mod detector;
mod detectors;
mod error;
mod registry;
mod scene;
mod series;
mod snapshot;

pub use budget::Budget;
pub(crate) use detector::Judge;
pub use detector::{Against, Detector, Spec};
pub use error::DetectError;
pub use registry::DetectorKind;
pub use scene::{Pause, Scene};
