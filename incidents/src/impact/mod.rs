//! What an incident cost: GPU-seconds lost, measured on the run's own pace.
//!
//! Three things are counted, one a kind of incident:
//! - **slow**: the time that steps took beyond the healthy pace, from the onset on, on all ranks;
//! - **stopped**: the time from the last finished step to the next launch, and the steps that it repeats, on all ranks;
//! - **spoilt**: the time of the steps from the last good checkpoint on, which a rollback has to repeat, on all ranks.
//!
//! What is not known (no healthy pace before the onset, no times) is left out, never guessed.

mod loss;
mod pace;

pub(crate) use loss::{Course, Meter, Span, impact, is_slowness, outlasts};
pub(crate) use pace::{Pace, PaceRow};

#[cfg(test)]
mod tests;
