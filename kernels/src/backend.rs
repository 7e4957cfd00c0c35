//! What a device must be able to compute.

use ndarray::ArrayView2;

use crate::cpu::{
    Bocpd, Bracket, Fingerprint, FingerprintKey, Format, RollingMedian, SequentialBank, SequentialSettings, Slack,
};

/// A backend could not compute.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// Values and presence have different shapes.
    #[error("values are {values:?} and presence is {present:?}: the shapes must be equal")]
    Shape {
        /// [rows, columns] of the values.
        values: [usize; 2],
        /// [rows, columns] of the presence mask.
        present: [usize; 2],
    },
    /// An array has not the length that the others ask for.
    #[error("`{what}` has {is} elements and should have {should_be}")]
    Length {
        /// Name of the argument.
        what: &'static str,
        /// Its length.
        is: usize,
        /// The length that the other arguments ask for.
        should_be: usize,
    },
    /// A word that names no backend.
    #[error("`{given}` is no backend; there are `auto`, `cpu` and `cuda`")]
    Choice {
        /// The word.
        given: String,
    },
    /// A device failed; the caller's state is as before the call.
    #[error("the device could not {what}: {reason}")]
    Device {
        /// What was attempted.
        what: &'static str,
        /// What the driver said.
        reason: String,
        /// Whether it will refuse all later calls too.
        is_lost: bool,
    },
}

/// Center and spread of each row of a panel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CenterSpread {
    /// `[rows]`: median of the counted cells; NaN where there is none.
    pub median: Vec<f32>,
    /// `[rows]`: unscaled median absolute deviation from it; NaN where there is none.
    pub mad: Vec<f32>,
    /// `[rows]`: number of counted cells.
    pub count: Vec<u32>,
}

impl CenterSpread {
    /// Removes all rows and keeps the memory.
    pub fn clear(&mut self) {
        self.median.clear();
        self.mad.clear();
        self.count.clear();
    }
}

/// Arithmetic on panels. Every backend gives the same bits; a NaN is a NaN, whatever its bits.
///
/// All methods may fail with [`KernelError::Device`] where a device does the work; the CPU does not fail. After an error
/// the state that was handed in is as it was, and what is replaced holds nothing of use.
pub trait Backend: Send {
    /// `cpu` or `cuda`: what is asked first.
    fn name(&self) -> &'static str;

    /// Median and median absolute deviation (MAD) of each row, exact.
    ///
    /// * `values`, `present`: `[rows, columns]`, any unit; absent and NaN cells are not counted, infinities are.
    /// * Returns `median`, `mad`, `count`, all `[rows]`. Of an even count the median is the mean of the two middle values.
    ///
    /// Cost: 4 bytes read a cell, 1 more where cells are absent; two selections a row, about 1.5 passes each.
    ///
    /// # Errors
    /// [`KernelError::Shape`] when the shapes differ.
    ///
    /// Source: Rousseeuw and Croux, "Alternatives to the Median Absolute Deviation", JASA 88 (1993).
    fn center_spread(
        &mut self,
        values: ArrayView2<'_, f32>,
        present: ArrayView2<'_, bool>,
    ) -> Result<CenterSpread, KernelError>;

    /// Median and MAD of each metric at one tick, exact, from where they were at the last tick.
    ///
    /// * `values`: `[metrics, columns]` in one piece, any unit; NaN cells are not counted, infinities are.
    /// * `brackets`: `[metrics]`, kept by the caller from tick to tick; a default one to begin with. Their content
    ///   changes no result, only the time.
    /// * `statistics`: replaced, `[metrics]`.
    ///
    /// Cost: two reads of the values out of cache and about 0.7 cycles a value where the guess holds; at most three times
    /// as much where it fails. Nothing is allocated from the second tick on.
    ///
    /// # Errors
    /// [`KernelError::Length`] when `values` is not `brackets.len()` rows of `columns`.
    fn center_spread_tick(
        &mut self,
        values: &[f32],
        columns: usize,
        brackets: &mut [Bracket],
        statistics: &mut CenterSpread,
    ) -> Result<(), KernelError>;

    /// Fingerprint of weights: see [`Fingerprint`]. Exact but for the sum of squares, and that is equal on all backends.
    ///
    /// * `bytes`: numbers of `format`, little-endian, from tile `first_tile` of the tensor on.
    /// * `fingerprint`: replaced; its table keeps its memory.
    ///
    /// A change of a single bit is always seen but for a chance of 2^-64; another change within a block of 16 KiB goes unseen
    /// with a chance of at most 2^-32 over the keys. The sum of squares has a relative error of at most 2e-6.
    ///
    /// Cost: each byte is read once, about 15 vector instructions for 64 bytes of bf16; 32 bytes are written a MiB. Blocks
    /// with a zero or a number that is not finite are looked through once more, out of cache.
    ///
    /// Source: Black et al., "UMAC: Fast and secure message authentication", CRYPTO (1999), section 3.
    ///
    /// # Errors
    /// [`KernelError::Length`] when `bytes` is no whole count of numbers.
    fn fingerprint(
        &mut self,
        bytes: &[u8],
        format: Format,
        key: &FingerprintKey,
        first_tile: u64,
        fingerprint: &mut Fingerprint,
    ) -> Result<(), KernelError>;

    /// Feeds ticks to EWMA, CUSUM and Page-Hinkley of many series: see [`SequentialBank`]. Equal bits on all backends.
    ///
    /// * `values`: `[ticks, series]` in one piece, oldest first; NaN where a value is missing.
    /// * Returns the number of series above the threshold after the last tick.
    ///
    /// The scale has a relative error of at most 3e-7. Cost: 24 bytes of state read and written a series, 4 bytes read a
    /// value, about 35 operations a value; several ticks in one call move the state once.
    ///
    /// Source: Page, "Continuous inspection schemes", Biometrika 41 (1954); see [`SequentialBank`] for the others.
    ///
    /// # Errors
    /// [`KernelError::Length`] when `values` is no whole count of ticks.
    fn sequential_update(
        &mut self,
        bank: &mut SequentialBank,
        values: &[f32],
        settings: &SequentialSettings,
    ) -> Result<usize, KernelError>;

    /// Adds collectives of one group to the waiting times of its ranks: see [`Slack`]. Equal bits on all backends.
    ///
    /// * `arrivals`: `[collectives, ranks]` in one piece, time relative to a common origin; NaN where a rank did not arrive.
    ///
    /// Waiting times are sums in single precision over 64 collectives, then in double. Cost: 4 bytes read an arrival; 8 bytes
    /// of sums read and written in cache.
    ///
    /// # Errors
    /// [`KernelError::Length`] when `arrivals` is no whole count of collectives.
    fn slack(&mut self, arrivals: &[f32], slack: &mut Slack) -> Result<(), KernelError>;

    /// Sum of the Euclidean distances of each point to all others, relative error at most 1e-5. Equal bits on all backends.
    ///
    /// * `points`: `[dimensions, points]` in one piece, finite; `sums`: `[points]`, replaced.
    ///
    /// Cost: half of `points` squared distances, each of `2 dimensions + 1` operations and a root; 4 bytes read a coordinate
    /// and tile of 64 points.
    ///
    /// Source: Deng et al., "Minder: Faulty machine detection for large-scale distributed model training", NSDI (2025), 4.4.
    ///
    /// # Errors
    /// [`KernelError::Length`] when `points` is no whole count of dimensions.
    fn pairwise_row_sums(&mut self, points: &[f32], sums: &mut [f64]) -> Result<(), KernelError>;

    /// Pushes ticks of many series into their windows and tells the median of each window after each tick, exact.
    ///
    /// * `values`, `medians`: `[ticks, series]` in one piece; a NaN takes a place and is not counted, and the median of none
    ///   is NaN.
    ///
    /// Cost: four operations a place of the window and value; 8 bytes of state a place, read and written once a call.
    ///
    /// # Errors
    /// [`KernelError::Length`] when `values` is no whole count of ticks, or `medians` not as long.
    fn rolling_median(
        &mut self,
        state: &mut RollingMedian,
        values: &[f32],
        medians: &mut [f32],
    ) -> Result<(), KernelError>;

    /// Takes one value of each series into the posteriors of their run lengths: see [`Bocpd`]. Equal bits on all backends.
    ///
    /// * `values`: `[series]`, standardised; a NaN leaves its series as it was.
    ///
    /// The posterior differs from one in double precision by at most 1e-5. Cost: 12 bytes of state read and written a length
    /// and series, about 55 operations.
    ///
    /// Source: Adams and MacKay, "Bayesian online changepoint detection", arXiv 0710.3742 (2007), section 2.
    ///
    /// # Errors
    /// [`KernelError::Length`] when there is not one value a series.
    fn bocpd_update(&mut self, state: &mut Bocpd, values: &[f32]) -> Result<(), KernelError>;
}
