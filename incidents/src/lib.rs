//! Verdicts that are one event to a person become one incident: correlation, life, context.
//!
//! Pure: no clock, no randomness, no input or output. The outcome is a stream of changes, never only a final list.

mod audit;
mod cause;
mod checkpoints;
mod correlator;
mod hypotheses;
mod id;
mod impact;
mod limits;

pub use correlator::{Correlator, acknowledge};
