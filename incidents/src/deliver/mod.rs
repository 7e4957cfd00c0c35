//! When each notice is tried, and tried again: what goes next to one receiver, how long a failure waits, when a receiver
//! is left alone.
//!
//! Pure: time and randomness are arguments, what waits is handed in, and nothing is sent here. Memory is bounded however
//! much waits: only the beginning of each lane is held.

mod backoff;
mod circuit;
mod planner;

pub use backoff::Backoff;
pub use circuit::Circuit;
pub use planner::{Fate, LANES, Next, Outcome, Planner, Slot, WINDOW_ROWS};
