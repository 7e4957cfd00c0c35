//! `change_points`: where a series changed.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Float64Builder, ListArray, StructArray, UInt64Builder};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Fields, Float64Type, UInt64Type};
use datafusion::common::{DataFusionError, Result, ScalarValue};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, Signature, Volatility};
use trainwarden_kernels::{Backend as _, Bocpd, BocpdSettings, Cpu, MAD_TO_SIGMA, mad, median};

/// Longest regime that is told from a longer one.
const LENGTHS: usize = 256;
/// Values after a change before it is told: the posterior is weighed then.
const CONFIRMED: usize = 16;
/// The posterior that tells a change.
const PROBABILITY_MIN: f32 = 0.9;

/// The aggregate.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct ChangePoints {
    signature: Signature,
}

impl Default for ChangePoints {
    fn default() -> Self {
        Self { signature: Signature::exact(vec![DataType::UInt64, DataType::Float64], Volatility::Immutable) }
    }
}

fn change_fields() -> Fields {
    let fields = [("step", DataType::UInt64), ("probability", DataType::Float64)];
    fields.into_iter().map(|(name, data_type)| Field::new(name, data_type, false)).collect()
}

fn list_of(data_type: DataType) -> DataType {
    DataType::List(Arc::new(Field::new_list_field(data_type, true)))
}

impl AggregateUDFImpl for ChangePoints {
    fn name(&self) -> &str {
        "change_points"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(list_of(DataType::Struct(change_fields())))
    }

    fn accumulator(&self, _arguments: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Series::default()))
    }

    fn state_fields(&self, arguments: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let field = |part: &str, data_type| Field::new(format!("{}_{part}", arguments.name), list_of(data_type), true);
        Ok(vec![Arc::new(field("steps", DataType::UInt64)), Arc::new(field("values", DataType::Float64))])
    }
}

#[derive(Debug, Default)]
struct Series {
    points: Vec<(u64, f64)>,
}

impl Series {
    fn take(&mut self, steps: &ArrayRef, values: &ArrayRef) {
        let steps = steps.as_primitive::<UInt64Type>().iter();
        let points = steps.zip(values.as_primitive::<Float64Type>().iter());
        self.points.extend(points.filter_map(|(step, value)| Some((step?, value?))));
    }
}

impl Accumulator for Series {
    fn update_batch(&mut self, cells: &[ArrayRef]) -> Result<()> {
        self.take(&cells[0], &cells[1]);
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let (mut steps, mut probabilities) = (UInt64Builder::new(), Float64Builder::new());
        for (step, probability) in changes(&mut self.points)? {
            steps.append_value(step);
            probabilities.append_value(probability);
        }
        let columns: Vec<ArrayRef> = vec![Arc::new(steps.finish()), Arc::new(probabilities.finish())];
        let changes = StructArray::try_new(change_fields(), columns, None)?;
        let item = Arc::new(Field::new_list_field(DataType::Struct(change_fields()), true));
        let offsets = OffsetBuffer::from_lengths([changes.len()]);
        Ok(ScalarValue::List(Arc::new(ListArray::try_new(item, offsets, Arc::new(changes), None)?)))
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.points.capacity() * size_of::<(u64, f64)>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let steps = self.points.iter().map(|point| Some(point.0));
        let steps = ListArray::from_iter_primitive::<UInt64Type, _, _>([Some(steps)]);
        let values = self.points.iter().map(|point| Some(point.1));
        let values = ListArray::from_iter_primitive::<Float64Type, _, _>([Some(values)]);
        Ok(vec![ScalarValue::List(Arc::new(steps)), ScalarValue::List(Arc::new(values))])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let values = states[1].as_list::<i32>().iter();
        for (steps, values) in states[0].as_list::<i32>().iter().zip(values) {
            if let (Some(steps), Some(values)) = (steps, values) {
                self.take(&steps, &values);
            }
        }
        Ok(())
    }
}

/// First step of each new regime, and the posterior that there is one.
///
/// Values are standardised by median and MAD of the whole series, as the kernel asks. A change is told once it is
/// `CONFIRMED` values old; what begins or ends closer than that to an end of the series, or to another, is not told.
fn changes(points: &mut [(u64, f64)]) -> Result<Vec<(u64, f64)>> {
    points.sort_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let values: Vec<f64> = points.iter().map(|point| point.1).collect();
    let center = median(&values).unwrap_or(f64::NAN);
    let spread = MAD_TO_SIGMA * mad(&values, center).unwrap_or(f64::NAN);
    let mut posterior = Bocpd::new(1, LENGTHS, &BocpdSettings::default());
    let (mut cpu, mut found, mut begin) = (Cpu::new(), Vec::new(), 0);
    for (at, value) in values.iter().enumerate() {
        let z = if *value == center { 0.0 } else { (value - center) / spread };
        // Beyond eight deviations the kernel's own error bound does not hold, and more is no more of a change.
        let z = z.clamp(-8.0, 8.0) as f32;
        let told = cpu.bocpd_update(&mut posterior, &[z]);
        told.map_err(|error| DataFusionError::External(Box::new(error)))?;
        if at < begin + 2 * CONFIRMED {
            continue;
        }
        let lengths = CONFIRMED..=(CONFIRMED + CONFIRMED / 2);
        let probability: f32 = posterior.probability_shorter(0, lengths.end() + 1);
        if probability >= PROBABILITY_MIN {
            let likeliest = (0..=*lengths.end())
                .max_by(|a, b| posterior.probability(0, *a).total_cmp(&posterior.probability(0, *b)))
                .unwrap_or(CONFIRMED);
            if likeliest >= CONFIRMED {
                begin = at + 1 - likeliest;
                found.push((points[begin].0, f64::from(probability.min(1.0))));
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Noise of a fixed recipe: the fraction of a multiple of the golden ratio, about zero.
    fn noise(at: u64) -> f64 {
        (at as f64 * 0.618_033_988_749_895).fract() - 0.5
    }

    #[test]
    fn a_step_is_found_where_it_is_and_a_level_series_has_none() {
        let mut stepped: Vec<(u64, f64)> =
            (0..300).map(|at| (at, noise(at) + if at < 180 { 5.0 } else { 9.0 })).collect();
        stepped.reverse(); // Rows come in any order.
        let found = changes(&mut stepped).unwrap();
        assert_eq!(found.iter().map(|change| change.0).collect::<Vec<_>>(), [180], "{found:?}");
        let mut level: Vec<(u64, f64)> = (0..300).map(|at| (at, noise(at) + 5.0)).collect();
        assert_eq!(changes(&mut level).unwrap(), []);
        assert_eq!(changes(&mut []).unwrap(), []);
        assert_eq!(changes(&mut vec![(1, f64::NAN); 100]).unwrap(), []);
        assert_eq!(changes(&mut vec![(1, 2.0); 100]).unwrap(), []);
    }
}
