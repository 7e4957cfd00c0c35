//! Values of the placeholders in a statement: `?`, `$1`, or `$name`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::arrow::ipc::reader::StreamReader;
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::logical_expr::LogicalPlan;
use serde::{Deserialize, Serialize};

use crate::error::{Problem, QueryError};

/// One row of values as a stream of Arrow IPC in base64, as it came from a client: only the process that has locked itself
/// in looks into it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameters(String);

impl Parameters {
    /// * `stream`: Arrow IPC.
    #[must_use]
    pub fn new(stream: &[u8]) -> Self {
        Self(STANDARD.encode(stream))
    }

    /// Puts the values in the places of a plan.
    ///
    /// # Errors
    /// [`QueryError::Statement`] where they are no row, [`QueryError::Engine`] where they do not fit.
    pub(crate) fn fill(&self, plan: LogicalPlan) -> Result<LogicalPlan, QueryError> {
        let row = self.row()?;
        let values: Vec<ScalarValue> =
            row.columns().iter().map(|cells| ScalarValue::try_from_array(cells, 0)).collect::<Result<_, _>>()?;
        let is_numbered = plan.get_parameter_names()?.iter().all(|name| number_of(name).is_some());
        let values = if is_numbered {
            ParamValues::from(values)
        } else {
            let names = row.schema().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
            names.into_iter().zip(values).collect::<Vec<_>>().into()
        };
        Ok(plan.with_param_values(values)?)
    }

    fn row(&self) -> Result<RecordBatch, QueryError> {
        let wrong = |reason: String| QueryError::Statement(Problem::new(format!("the parameters {reason}")));
        let bytes = STANDARD.decode(&self.0).map_err(|error| wrong(format!("are no base64: {error}")))?;
        let batches = StreamReader::try_new(bytes.as_slice(), None).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let batches: Vec<RecordBatch> = batches.map_err(|error| wrong(format!("are no Arrow: {error}")))?;
        let mut filled = batches.into_iter().filter(|batch| batch.num_rows() > 0);
        match (filled.next(), filled.next()) {
            (Some(row), None) if row.num_rows() == 1 => Ok(row),
            _ => Err(wrong("must be one row: ask once for each".to_owned())),
        }
    }
}

/// The columns that the values of a plan's placeholders have; null where nothing tells their type.
///
/// # Errors
/// [`QueryError::Engine`].
pub(crate) fn schema_of(plan: &LogicalPlan) -> Result<SchemaRef, QueryError> {
    let mut fields: Vec<(String, Option<FieldRef>)> = plan.get_parameter_fields()?.into_iter().collect();
    fields.sort_by_key(|(name, _)| (number_of(name), name.clone()));
    let named = |(name, field): (String, Option<FieldRef>)| {
        let data_type = field.map_or(DataType::Null, |field| field.data_type().clone());
        Field::new(name.trim_start_matches('$'), data_type, true)
    };
    Ok(Schema::new(fields.into_iter().map(named).collect::<Vec<_>>()).into())
}

fn number_of(name: &str) -> Option<usize> {
    name.strip_prefix('$')?.parse().ok()
}
