//! Aggregates over all values of a group: `mad` and `exact_quantile`.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, ListArray};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Float64Type};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, Signature, Volatility};
use trainwarden_kernels::{mad, median, quantile};

/// What is made of the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Figure {
    Mad,
    ExactQuantile,
}

/// An aggregate that needs all values at once.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Collected {
    figure: Figure,
    signature: Signature,
}

impl Collected {
    /// Every such function.
    pub(super) fn all() -> [Self; 2] {
        let of = |figure, arguments| Self {
            figure,
            signature: Signature::exact(vec![DataType::Float64; arguments], Volatility::Immutable),
        };
        [of(Figure::Mad, 1), of(Figure::ExactQuantile, 2)]
    }
}

impl AggregateUDFImpl for Collected {
    fn name(&self) -> &str {
        match self.figure {
            Figure::Mad => "mad",
            Figure::ExactQuantile => "exact_quantile",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn accumulator(&self, _arguments: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Values { figure: self.figure, values: Vec::new(), q: None }))
    }

    fn state_fields(&self, arguments: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let item = Field::new_list_field(DataType::Float64, true);
        let values = Field::new(format!("{}_values", arguments.name), DataType::List(Arc::new(item)), true);
        let q = Field::new(format!("{}_q", arguments.name), DataType::Float64, true);
        Ok(vec![Arc::new(values), Arc::new(q)])
    }
}

#[derive(Debug)]
struct Values {
    figure: Figure,
    values: Vec<f64>,
    q: Option<f64>,
}

impl Values {
    fn take_q(&mut self, cells: &ArrayRef) -> Result<()> {
        for q in cells.as_primitive::<Float64Type>().iter().flatten() {
            if !(0.0..=1.0).contains(&q) {
                return exec_err!("exact_quantile: {q} is no part; write 0.99 for 99 %");
            }
            if self.q.is_some_and(|known| known != q) {
                return exec_err!("exact_quantile: the second argument differs inside a group; write one number");
            }
            self.q = Some(q);
        }
        Ok(())
    }
}

impl Accumulator for Values {
    fn update_batch(&mut self, cells: &[ArrayRef]) -> Result<()> {
        self.values.extend(cells[0].as_primitive::<Float64Type>().iter().flatten());
        cells.get(1).map_or(Ok(()), |cells| self.take_q(cells))
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let figure = match self.figure {
            Figure::Mad => median(&self.values).and_then(|center| mad(&self.values, center)),
            Figure::ExactQuantile => self.q.and_then(|q| quantile(&self.values, q)),
        };
        Ok(ScalarValue::Float64(figure))
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.values.capacity() * size_of::<f64>()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let list = ListArray::from_iter_primitive::<Float64Type, _, _>([Some(self.values.drain(..).map(Some))]);
        Ok(vec![ScalarValue::List(Arc::new(list)), ScalarValue::Float64(self.q)])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for values in states[0].as_list::<i32>().iter().flatten() {
            self.values.extend(values.as_primitive::<Float64Type>().iter().flatten());
        }
        self.take_q(&states[1])
    }
}
