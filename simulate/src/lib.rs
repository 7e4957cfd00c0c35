//! Simulated clusters with known truth: their noise, their normal life, their faults, and the physics between them.
//!
//! A [`Scenario`] goes in, rows of a run folder come out, and the [`Truth`] says what was planted. Same scenario, same
//! rows, on every machine: random numbers are a function of (seed, stream, rank, step), and only `+ - * /` and `sqrt`
//! touch them, which IEEE 754 defines to the last bit. `exp`, `ln` and `sin` differ between platforms and are not used.

mod cluster;
mod counters;
mod error;
mod fault;
mod launch;
mod moment;
mod random;
mod row;
mod run;
mod scenario;
mod timing;
mod training;
mod truth;
mod weights;

pub use error::SimulateError;
pub use fault::{Fault, FaultKind};
pub use random::Draws;
pub use row::Row;
pub use run::simulate;
pub use scenario::{Axis, Cluster, Life, Noise, Restart, Scenario, ScheduleLaw, Telemetry};
pub use truth::{PlantedFault, Truth};
