//! The CPU backend: the definition of every result.

use ndarray::ArrayView2;

use crate::backend::{Backend, CenterSpread, KernelError};

/// Computes on the calling thread; keeps one buffer, so that a steady stream allocates nothing.
#[derive(Clone, Debug, Default)]
pub struct Cpu {
    buffer: Vec<f32>,
}

impl Cpu {
    /// A CPU backend.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
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
        for (row, mask) in values.rows().into_iter().zip(present.rows()) {
            self.buffer.clear();
            let counted = row.iter().zip(mask).filter(|(value, present)| **present && !value.is_nan());
            self.buffer.extend(counted.map(|(value, _)| *value));
            let median = middle(&mut self.buffer);
            for value in &mut self.buffer {
                // An infinite median leaves infinite cells at distance zero, not NaN.
                *value = if *value == median { 0.0 } else { (*value - median).abs() };
            }
            statistics.count.push(self.buffer.len() as u32);
            statistics.mad.push(middle(&mut self.buffer));
            statistics.median.push(median);
        }
        Ok(statistics)
    }
}

/// Median of values without NaN, by selection; NaN of none. Reorders its argument.
fn middle(values: &mut [f32]) -> f32 {
    if values.is_empty() {
        return f32::NAN;
    }
    let half = values.len() / 2;
    let is_odd = values.len() % 2 == 1;
    let (below, upper, _) = values.select_nth_unstable_by(half, f32::total_cmp);
    if is_odd {
        return *upper;
    }
    let lower = below.iter().copied().max_by(f32::total_cmp).expect("an even count of at least two has a lower half");
    // Halves are added, so that two large values do not overflow; equal ends (infinities too) stay themselves.
    if lower == *upper { lower } else { 0.5 * lower + 0.5 * *upper }
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
