//! What a device must be able to compute.

use ndarray::ArrayView2;

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

/// Arithmetic on panels. Every backend gives the same bits for what is documented as exact.
pub trait Backend: Send {
    /// `cpu` or `cuda`.
    fn name(&self) -> &'static str;

    /// Median and median absolute deviation (MAD) of each row, exact.
    ///
    /// * `values`, `present`: `[rows, columns]`, any unit; absent and NaN cells are not counted, infinities are.
    /// * Returns `median`, `mad`, `count`, all `[rows]`. Of an even count the median is the mean of the two middle values.
    ///
    /// Cost: one read of the panel, two selections a row.
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
}
