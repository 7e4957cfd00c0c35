//! Window functions that judge each value among all of its partition: `robust_z`, `peer_rank`, `cusum`.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, Float64Array};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Float64Type};
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::function::{PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::{PartitionEvaluator, Signature, Volatility, WindowUDFImpl};
use trainwarden_kernels::{
    Backend as _, Cpu, KernelError, MAD_TO_SIGMA, SequentialBank, SequentialSettings, Tail, mad, median,
};

/// Values from which `cusum` learns the level and its deviation.
const CUSUM_LEARNED: usize = 32;

/// What is said of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Figure {
    RobustZ,
    PeerRank,
    Cusum,
}

/// A window function over whole partitions; a frame changes nothing.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct OverPartition {
    figure: Figure,
    signature: Signature,
}

impl OverPartition {
    /// Every such function.
    pub(super) fn all() -> [Self; 3] {
        let of = |figure| Self { figure, signature: Signature::exact(vec![DataType::Float64], Volatility::Immutable) };
        [of(Figure::RobustZ), of(Figure::PeerRank), of(Figure::Cusum)]
    }
}

impl WindowUDFImpl for OverPartition {
    fn name(&self) -> &str {
        match self.figure {
            Figure::RobustZ => "robust_z",
            Figure::PeerRank => "peer_rank",
            Figure::Cusum => "cusum",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn partition_evaluator(&self, _arguments: PartitionEvaluatorArgs<'_>) -> Result<Box<dyn PartitionEvaluator>> {
        Ok(Box::new(Judge(self.figure)))
    }

    fn field(&self, arguments: WindowUDFFieldArgs<'_>) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(arguments.name(), DataType::Float64, true)))
    }
}

#[derive(Debug)]
struct Judge(Figure);

impl PartitionEvaluator for Judge {
    fn evaluate_all(&mut self, values: &[ArrayRef], _rows: usize) -> Result<ArrayRef> {
        let cells = values[0].as_primitive::<Float64Type>();
        let values: Vec<f64> = cells.iter().map(|value| value.unwrap_or(f64::NAN)).collect();
        let figures = match self.0 {
            Figure::RobustZ => Ok(robust_z(&values)),
            Figure::PeerRank => peer_rank(&values),
            Figure::Cusum => cusum(&values),
        };
        let figures = figures.map_err(|error| DataFusionError::External(Box::new(error)))?;
        let told = cells.iter().zip(figures).map(|(value, figure)| value.map(|_| figure));
        Ok(Arc::new(told.collect::<Float64Array>()))
    }
}

/// Deviation of each value from the median, in scaled MADs.
fn robust_z(values: &[f64]) -> Vec<f64> {
    let center = median(values).unwrap_or(f64::NAN);
    let spread = MAD_TO_SIGMA * mad(values, center).unwrap_or(f64::NAN);
    let z = |value: f64| if value == center { 0.0 } else { (value - center) / spread };
    values.iter().map(|value| z(*value)).collect()
}

/// The rank-based p-value of each value against the others, as the detectors count it.
fn peer_rank(values: &[f64]) -> Result<Vec<f64>, KernelError> {
    let row: Vec<f32> = values.iter().map(|value| *value as f32).collect();
    let mut tails = vec![Tail::default(); row.len()];
    Cpu::new().tails(&row, &row, &mut tails)?;
    let others = row.iter().filter(|value| !value.is_nan()).count().saturating_sub(1) as u32;
    let p_value = |(tail, value): (&Tail, &f32)| {
        // The row holds the value itself.
        let tail = Tail { above: tail.above, equal: tail.equal.saturating_sub(1) };
        if value.is_nan() { f64::NAN } else { tail.p_value(others) }
    };
    Ok(tails.iter().zip(&row).map(p_value).collect())
}

/// The larger of both sides of a CUSUM after each value; what is below counts negative.
fn cusum(values: &[f64]) -> Result<Vec<f64>, KernelError> {
    let learned: Vec<f64> = values.iter().copied().filter(|value| !value.is_nan()).take(CUSUM_LEARNED).collect();
    let center = median(&learned).unwrap_or(f64::NAN);
    let spread = MAD_TO_SIGMA * mad(&learned, center).unwrap_or(f64::NAN);
    // The level stays as it was learned: what adapts forgets the change that is looked for.
    let settings = SequentialSettings { weight: 0.0, ..SequentialSettings::default() };
    let (mut bank, mut cpu) = (SequentialBank::new(1, 0.0, 1.0), Cpu::new());
    values
        .iter()
        .map(|value| {
            let z = if *value == center { 0.0 } else { (value - center) / spread };
            cpu.sequential_update(&mut bank, &[z as f32], &settings)?;
            let (above, below) = (f64::from(bank.above[0]), f64::from(bank.below[0]));
            Ok(if above >= below { above } else { -below })
        })
        .collect()
}
