//! The CPU backend: the definition of every result.

#![allow(clippy::needless_range_loop, reason = "a lane is a place in several arrays at once")]

mod bocpd;
mod center_spread;
mod e_process;
mod fingerprint;
mod math;
mod matrix_profile;
mod pairwise;
mod ranks;
mod rolling_median;
mod select;
mod sequential;
mod sift;
mod slack;
mod theil_sen;

use ndarray::ArrayView2;

pub use bocpd::{Bocpd, BocpdSettings};
pub use center_spread::Bracket;
pub use e_process::EProcessBank;
pub use fingerprint::{Fingerprint, FingerprintKey, Format, SKETCH, TILE_BYTES, Tile};
pub use matrix_profile::MatrixProfile;
pub use ranks::Tail;
pub use rolling_median::RollingMedian;
pub use sequential::{SequentialBank, SequentialSettings};
pub use slack::Slack;

use crate::backend::{Backend, CenterSpread, KernelError};
use crate::simd::Isa;

/// Computes on the calling thread; keeps its buffers, so that a steady stream allocates nothing.
#[derive(Clone, Debug, Default)]
pub struct Cpu {
    isa: Isa,
    buffers: center_spread::Buffers,
    row: Vec<f32>,
    mask: Vec<bool>,
    pairwise: pairwise::Buffers,
    theil_sen: theil_sen::Buffers,
    matrix_profile: matrix_profile::Buffers,
    order: Vec<u64>,
}

impl Cpu {
    /// A CPU backend with the widest instructions of this machine.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A CPU backend with given instructions: same results, other speed.
    #[must_use]
    pub fn with_isa(isa: Isa) -> Self {
        Self { isa, ..Self::default() }
    }

    /// The instructions in use.
    #[must_use]
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Keyed sum of 128 bits, with the chances and the cost of two of 64: for comparing what must be equal.
    ///
    /// * `bytes`: from tile `first_tile` of the tensor on.
    ///
    /// Exact. Cost: one read, about five more instructions for 64 bytes than the sum of 64 bits.
    #[must_use]
    pub fn fingerprint_128(&self, bytes: &[u8], key: &FingerprintKey, first_tile: u64) -> u128 {
        fingerprint::sum_128(self.isa, bytes, key, first_tile)
    }

    /// Random projection of a tensor onto 64 numbers, by which ranks' gradients are compared without moving them: the
    /// mean over keys of the inner product of two sketches is that of the tensors, its standard deviation about a fifth of
    /// the product of their norms. Numbers that are not finite are taken as zero.
    ///
    /// * `bytes`: numbers of `format`, little-endian. Returns `[64]`, unit of the numbers.
    ///
    /// Cost: one read, two operations a number. Source: Achlioptas, "Database-friendly random projections", JCSS 66 (2003);
    /// Charikar, Chen and Farach-Colton, "Finding frequent items in data streams" (2002) for the signs.
    #[must_use]
    pub fn sketch(&self, bytes: &[u8], format: Format, key: &FingerprintKey) -> [f64; SKETCH] {
        let mut numbers = [0.0; SKETCH];
        fingerprint::sketch(self.isa, bytes, format, key, &mut numbers);
        numbers
    }

    /// Median of the slopes between all pairs of values of a window of equal steps, unit of the values a step.
    ///
    /// * `window`: finite, oldest first. Relative error of a slope at most 1.2e-7; the selection is exact.
    ///
    /// Cost: `w (w - 1) / 2` slopes of 4 bytes, each written once and sifted about 1.4 times, in cache.
    ///
    /// Source: Sen, "Estimates of the regression coefficient based on Kendall's tau", JASA 63 (1968).
    #[must_use]
    pub fn theil_sen(&mut self, window: &[f32]) -> f32 {
        theil_sen::slope(self.isa, window, &mut self.theil_sen)
    }

    /// Matrix profile of a series: for each stretch of `length` values the distance to the most similar other one.
    ///
    /// * `series`: finite. `profile`: replaced. Error of a correlation at most 2e-5.
    ///
    /// Cost: `stretches^2 / 2` cells of about 12 operations; 40 bytes of memory a stretch.
    ///
    /// Source: Zhu et al., "Matrix Profile II", ICDM (2016).
    pub fn matrix_profile(&mut self, series: &[f32], length: usize, profile: &mut MatrixProfile) {
        matrix_profile::matrix_profile(self.isa, series, length, &mut self.matrix_profile, profile);
    }

    /// How many of `row` are above, and equal to, each of `queries`; exact. See [`Tail::p_value`] for what it is for.
    ///
    /// * `row`, `queries`: any unit, the same; `tails`: `[queries]`, replaced. NaN is neither above nor equal to anything.
    ///
    /// Cost: 4 bytes read a value for eight queries, two comparisons a value and query.
    ///
    /// # Errors
    /// [`KernelError::Length`] when there is not one tail a query.
    pub fn tails(&self, row: &[f32], queries: &[f32], tails: &mut [Tail]) -> Result<(), KernelError> {
        equal("tails", tails.len(), queries.len())?;
        ranks::tails(self.isa, row, queries, tails);
        Ok(())
    }

    /// Mid-rank of each value of `row`, from one; NaN where the row is NaN; exact.
    ///
    /// * `row`: any unit; `ranks`: `[row]`, replaced.
    ///
    /// Cost: one sort of 8 bytes a value. Source: Lehmann, "Nonparametrics: Statistical methods based on ranks" (1975), 1.4.
    ///
    /// # Errors
    /// [`KernelError::Length`] when there is not one rank a value.
    pub fn mid_ranks(&mut self, row: &[f32], ranks: &mut [f32]) -> Result<(), KernelError> {
        equal("ranks", ranks.len(), row.len())?;
        ranks::mid_ranks(row, &mut self.order, ranks);
        Ok(())
    }

    /// Takes one standardised value of each series into its e-detectors: see [`EProcessBank`].
    ///
    /// * `z`: `[series]`, standard deviations beyond what is allowed; a NaN leaves its series as it was. `shift`: size of the
    ///   alternative, standard deviations, above zero.
    ///
    /// Error of a sum: at most 1e-6 nats a value. Cost: 16 bytes read and written a series, about 60 operations.
    ///
    /// # Errors
    /// [`KernelError::Length`] when there is not one value a series.
    pub fn e_process_update(&mut self, bank: &mut EProcessBank, z: &[f32], shift: f32) -> Result<(), KernelError> {
        equal("z", z.len(), bank.cusum_up.len())?;
        e_process::update(self.isa, bank, z, shift);
        Ok(())
    }
}

/// `is` must be `should_be`.
pub(crate) fn equal(what: &'static str, is: usize, should_be: usize) -> Result<(), KernelError> {
    if is == should_be { Ok(()) } else { Err(KernelError::Length { what, is, should_be }) }
}

/// `is` must be a multiple of `unit`; of none, zero.
pub(crate) fn whole(what: &'static str, is: usize, unit: usize) -> Result<(), KernelError> {
    let rest = is.checked_rem(unit).unwrap_or(is);
    equal(what, is, is - rest)
}

impl Backend for Cpu {
    fn name(&self) -> &'static str {
        "cpu"
    }

    fn center_spread(
        &mut self,
        values: ArrayView2<'_, f32>,
        present: ArrayView2<'_, bool>,
    ) -> Result<CenterSpread, KernelError> {
        let (shape, mask_shape) = (values.dim(), present.dim());
        if shape != mask_shape {
            return Err(KernelError::Shape { values: shape.into(), present: mask_shape.into() });
        }
        let mut statistics = CenterSpread::default();
        // Rows of a panel are steps of one series: each is the guess of the next.
        let mut bracket = Bracket::default();
        for (row, mask) in values.rows().into_iter().zip(present.rows()) {
            let row = contiguous(&row, &mut self.row);
            let mask = contiguous(&mask, &mut self.mask);
            let mask = (!mask.iter().all(|present| *present)).then_some(mask);
            center_spread::push_row(self.isa, row, mask, &mut self.buffers, &mut bracket, &mut statistics);
        }
        Ok(statistics)
    }

    fn center_spread_tick(
        &mut self,
        values: &[f32],
        columns: usize,
        brackets: &mut [Bracket],
        statistics: &mut CenterSpread,
    ) -> Result<(), KernelError> {
        if values.len() != columns * brackets.len() {
            return Err(KernelError::Length { what: "values", is: values.len(), should_be: columns * brackets.len() });
        }
        statistics.clear();
        for (row, bracket) in brackets.iter_mut().enumerate() {
            let row = &values[row * columns..][..columns];
            center_spread::push_row(self.isa, row, None, &mut self.buffers, bracket, statistics);
        }
        Ok(())
    }

    fn fingerprint(
        &mut self,
        bytes: &[u8],
        format: Format,
        key: &FingerprintKey,
        first_tile: u64,
        fingerprint: &mut Fingerprint,
    ) -> Result<(), KernelError> {
        whole("bytes", bytes.len(), format.bytes())?;
        fingerprint::fingerprint(self.isa, bytes, format, key, first_tile, fingerprint);
        Ok(())
    }

    fn sequential_update(
        &mut self,
        bank: &mut SequentialBank,
        values: &[f32],
        settings: &SequentialSettings,
    ) -> Result<usize, KernelError> {
        whole("values", values.len(), bank.len())?;
        Ok(sequential::update(self.isa, bank, values, settings))
    }

    fn slack(&mut self, arrivals: &[f32], slack: &mut Slack) -> Result<(), KernelError> {
        whole("arrivals", arrivals.len(), slack.waited.len())?;
        slack::add(self.isa, arrivals, slack);
        Ok(())
    }

    fn pairwise_row_sums(&mut self, points: &[f32], sums: &mut [f64]) -> Result<(), KernelError> {
        whole("points", points.len(), sums.len())?;
        pairwise::row_sums(self.isa, points, sums.len(), &mut self.pairwise, sums);
        Ok(())
    }

    fn rolling_median(
        &mut self,
        state: &mut RollingMedian,
        values: &[f32],
        medians: &mut [f32],
    ) -> Result<(), KernelError> {
        whole("values", values.len(), state.series())?;
        equal("medians", medians.len(), values.len())?;
        rolling_median::push(self.isa, state, values, medians);
        Ok(())
    }

    fn bocpd_update(&mut self, state: &mut Bocpd, values: &[f32]) -> Result<(), KernelError> {
        equal("values", values.len(), state.series())?;
        bocpd::update(self.isa, state, values);
        Ok(())
    }
}

/// The row itself where it lies in one piece, a copy of it otherwise.
fn contiguous<'a, T: Copy>(row: &'a ndarray::ArrayView1<'_, T>, copy: &'a mut Vec<T>) -> &'a [T] {
    if let Some(row) = row.as_slice() {
        return row;
    }
    copy.clear();
    copy.extend(row.iter().copied());
    copy
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, array};
    use proptest::prelude::*;

    use super::*;

    fn center_spread(values: &Array2<f32>) -> CenterSpread {
        let present = Array2::from_elem(values.dim(), true);
        Cpu::new().center_spread(values.view(), present.view()).expect("shapes are equal")
    }

    #[test]
    fn median_and_mad_of_a_row_are_those_computed_by_hand() {
        let statistics = center_spread(&array![[1.0, 2.0, 4.0, 8.0, 100.0], [3.0, 3.0, 3.0, 3.0, 3.0]]);
        assert_eq!(statistics.median, [4.0, 3.0]);
        assert_eq!(statistics.mad, [3.0, 0.0]);
        assert_eq!(statistics.count, [5, 5]);
    }

    #[test]
    fn absent_and_nan_cells_are_not_counted_and_an_empty_row_has_no_median() {
        let values = array![[1.0, f32::NAN, 9.0, 3.0], [f32::NAN, f32::NAN, f32::NAN, f32::NAN]];
        let present = array![[true, true, false, true], [true, true, true, true]];
        let statistics = Cpu::new().center_spread(values.view(), present.view()).expect("shapes are equal");
        assert_eq!(statistics.median[0], 2.0);
        assert_eq!(statistics.count, [2, 0]);
        assert!(statistics.median[1].is_nan() && statistics.mad[1].is_nan());
    }

    #[test]
    fn an_infinite_majority_has_an_infinite_median_and_no_spread() {
        let statistics = center_spread(&array![[f32::INFINITY, f32::INFINITY, f32::INFINITY, 1.0]]);
        assert_eq!(statistics.median, [f32::INFINITY]);
        assert_eq!(statistics.mad, [0.0]);
    }

    #[test]
    fn shapes_that_differ_are_an_error_that_names_both() {
        let outcome = Cpu::new().center_spread(array![[1.0]].view(), array![[true, true]].view());
        let message = outcome.expect_err("one column against two").to_string();
        assert!(message.contains("[1, 1]") && message.contains("[1, 2]"), "{message}");
    }

    proptest! {
        #[test]
        fn selection_gives_what_sorting_gives(mut row in prop::collection::vec(-1e6_f32..1e6, 1..200)) {
            let values = Array2::from_shape_vec((1, row.len()), row.clone()).expect("one row");
            let statistics = center_spread(&values);
            row.sort_by(f32::total_cmp);
            let half = row.len() / 2;
            let sorted = if row.len() % 2 == 1 { row[half] } else { 0.5 * row[half - 1] + 0.5 * row[half] };
            prop_assert_eq!(statistics.median[0], sorted);
        }

        #[test]
        fn the_order_of_columns_changes_nothing(row in prop::collection::vec(-1e3_f32..1e3, 1..60), turn in 0_usize..60) {
            let mut turned = row.clone();
            turned.rotate_left(turn % row.len());
            let straight = Array2::from_shape_vec((1, row.len()), row).expect("one row");
            let turned = Array2::from_shape_vec((1, turned.len()), turned).expect("one row");
            prop_assert_eq!(center_spread(&straight), center_spread(&turned));
        }
    }
}
