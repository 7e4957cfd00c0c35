//! Verdicts that are one event to a person become one incident: correlation, life, context.
//!
//! Pure: no clock, no randomness, no input or output. The outcome is a stream of changes, never only a final list.

mod announce;
mod audit;
mod cause;
mod checkpoints;
mod correlator;
pub mod deliver;
mod hypotheses;
mod id;
mod impact;
mod limits;
mod notice;
#[cfg(feature = "sinks")]
pub mod sinks;
#[cfg(test)]
mod testing;

pub use announce::{Act, Announced, HeldEnd};
pub use correlator::{Correlator, acknowledge};
pub use notice::Notice;
