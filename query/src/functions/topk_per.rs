//! `topk_per`: the largest of a group, with their labels.

use std::cmp::Ordering;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Float64Array, ListArray, StringArray, StructArray};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Fields, Float64Type, Int64Type};
use datafusion::common::{Result, ScalarValue, exec_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, Signature, Volatility};

/// Most that is kept of a group.
const K_MAX: i64 = 10_000;

/// The aggregate.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct TopkPer {
    signature: Signature,
}

impl Default for TopkPer {
    fn default() -> Self {
        let arguments = vec![DataType::Utf8, DataType::Float64, DataType::Int64];
        Self { signature: Signature::exact(arguments, Volatility::Immutable) }
    }
}

fn entry_fields() -> Fields {
    let fields = [("label", DataType::Utf8), ("value", DataType::Float64)];
    fields.into_iter().map(|(name, data_type)| Field::new(name, data_type, true)).collect()
}

fn entries_type() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::Struct(entry_fields()), true)))
}

impl AggregateUDFImpl for TopkPer {
    fn name(&self) -> &str {
        "topk_per"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(entries_type())
    }

    fn accumulator(&self, _arguments: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Largest::default()))
    }

    fn state_fields(&self, arguments: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        let entries = Field::new(format!("{}_entries", arguments.name), entries_type(), true);
        let k = Field::new(format!("{}_k", arguments.name), DataType::Int64, true);
        Ok(vec![Arc::new(entries), Arc::new(k)])
    }
}

/// Largest first; of equal values the lesser label, so that the order of rows decides nothing.
#[derive(Debug, Default)]
struct Largest {
    entries: Vec<(f64, Option<String>)>,
    k: Option<i64>,
}

impl Largest {
    fn take(&mut self, labels: &ArrayRef, values: &ArrayRef) {
        let labels = labels.as_string::<i32>().iter();
        for (label, value) in labels.zip(values.as_primitive::<Float64Type>().iter()) {
            let Some(value) = value.filter(|value| !value.is_nan()) else { continue };
            self.entries.push((value, label.map(str::to_owned)));
        }
    }

    fn take_k(&mut self, cells: &ArrayRef) -> Result<()> {
        for k in cells.as_primitive::<Int64Type>().iter().flatten() {
            if !(1..=K_MAX).contains(&k) {
                return exec_err!("topk_per: {k} is no number from 1 to {K_MAX}");
            }
            self.k = Some(self.k.unwrap_or(k).max(k));
        }
        Ok(())
    }

    fn keep(&mut self) {
        let order = |a: &(f64, Option<String>), b: &(f64, Option<String>)| -> Ordering {
            b.0.total_cmp(&a.0).then_with(|| a.1.cmp(&b.1))
        };
        self.entries.sort_by(order);
        self.entries.truncate(usize::try_from(self.k.unwrap_or(1)).unwrap_or(1));
    }

    fn list(&self) -> Result<ScalarValue> {
        let values = Float64Array::from_iter_values(self.entries.iter().map(|entry| entry.0));
        let labels: StringArray = self.entries.iter().map(|entry| entry.1.as_deref()).collect();
        let rows = StructArray::try_new(entry_fields(), vec![Arc::new(labels), Arc::new(values)], None)?;
        let item = Arc::new(Field::new_list_field(DataType::Struct(entry_fields()), true));
        let offsets = OffsetBuffer::from_lengths([rows.len()]);
        Ok(ScalarValue::List(Arc::new(ListArray::try_new(item, offsets, Arc::new(rows), None)?)))
    }
}

impl Accumulator for Largest {
    fn update_batch(&mut self, cells: &[ArrayRef]) -> Result<()> {
        self.take(&cells[0], &cells[1]);
        self.take_k(&cells[2])?;
        self.keep();
        Ok(())
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.list()
    }

    fn size(&self) -> usize {
        let texts: usize = self.entries.iter().map(|entry| entry.1.as_ref().map_or(0, String::capacity)).sum();
        size_of::<Self>() + self.entries.capacity() * size_of::<(f64, Option<String>)>() + texts
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![self.list()?, ScalarValue::Int64(self.k)])
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.take_k(&states[1])?;
        for rows in states[0].as_list::<i32>().iter().flatten() {
            let rows = rows.as_struct();
            self.take(rows.column(0), rows.column(1));
        }
        self.keep();
        Ok(())
    }
}
