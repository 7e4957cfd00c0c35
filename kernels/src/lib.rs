//! Arithmetic on arrays: robust statistics and votes. Knows arrays, not runs.
//!
//! The CPU implementation is the definition of every result. Whatever a decision rests on is exact selection, integer
//! arithmetic or a sum in a fixed order, so that another backend can give the same bits.

mod backend;
mod choice;
mod cpu;
mod cuda;
mod evidence;
#[cfg(test)]
mod parity;
mod peers;
mod robust;
mod simd;
mod tail;
#[cfg(test)]
mod testing;
mod vote;

pub use backend::{Backend, CenterSpread, KernelError};
pub use choice::{Choice, Chosen};
pub use cpu::{
    Bocpd, BocpdSettings, Bracket, Cpu, EProcessBank, Fingerprint, FingerprintKey, Format, MatrixProfile,
    RollingMedian, SKETCH, SequentialBank, SequentialSettings, Slack, TILE_BYTES, Tail, Tile,
};
pub use cuda::Cuda;
pub use evidence::{count_evidence, count_tail, lag_one_correlation, shift_evidence, tail_evidence, trial_evidence};
pub use peers::{Middle, quantile_in_place};
pub use robust::{mad, median, median_in_place, quantile};
pub use simd::Isa;
pub use tail::heavy_tail_log10_e;
pub use vote::{Vote, vote};

/// Times the MAD of normal data, this is its standard deviation.
pub const MAD_TO_SIGMA: f64 = 1.482_602_218_505_602;
