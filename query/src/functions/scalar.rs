//! Functions of one row: `downsample` and `busbw`.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int64Array, TimestampNanosecondArray, UInt64Array,
};
use datafusion::arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit, TimestampNanosecondType, UInt64Type};
use datafusion::common::{Result, exec_err, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility};

/// Nanoseconds of a second.
const SECOND_NS: i64 = 1_000_000_000;

/// `downsample(step, n)`: the first of the `n` steps, or seconds, in which a step, or a time, lies.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Downsample {
    signature: Signature,
}

impl Default for Downsample {
    fn default() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

fn time_type() -> DataType {
    DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()))
}

impl ScalarUDFImpl for Downsample {
    fn name(&self) -> &str {
        "downsample"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, arguments: &[DataType]) -> Result<Vec<DataType>> {
        let [of, width] = arguments else { return plan_err!("downsample takes a step or a time, and a width") };
        if !width.is_integer() {
            return plan_err!("downsample: the width is a whole number of steps, or of seconds");
        }
        let of = match of {
            DataType::Timestamp(..) => time_type(),
            DataType::UInt64 | DataType::UInt32 | DataType::UInt16 | DataType::UInt8 => DataType::UInt64,
            signed if signed.is_integer() => DataType::Int64,
            other => return plan_err!("downsample takes a step or a time, not {other}"),
        };
        Ok(vec![of, DataType::Int64])
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(arguments[0].clone())
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let cells = ColumnarValue::values_to_arrays(&arguments.args)?;
        let widths = cells[1].as_primitive::<Int64Type>();
        if widths.iter().flatten().any(|width| width < 1) {
            return exec_err!("downsample: the width is at least 1");
        }
        let widths = widths.iter();
        let floor = |value: i64, width: i64| value.div_euclid(width) * width;
        let floored: ArrayRef = match cells[0].data_type() {
            DataType::UInt64 => {
                let steps = cells[0].as_primitive::<UInt64Type>().iter().zip(widths);
                Arc::new(
                    steps.map(|(step, width)| Some(step? - step? % width?.unsigned_abs())).collect::<UInt64Array>(),
                )
            }
            DataType::Int64 => {
                let steps = cells[0].as_primitive::<Int64Type>().iter().zip(widths);
                Arc::new(steps.map(|(step, width)| Some(floor(step?, width?))).collect::<Int64Array>())
            }
            _ => {
                let times = cells[0].as_primitive::<TimestampNanosecondType>().iter().zip(widths);
                let times = times.map(|(time, width)| Some(floor(time?, width?.saturating_mul(SECOND_NS))));
                Arc::new(times.collect::<TimestampNanosecondArray>().with_timezone("UTC"))
            }
        };
        Ok(ColumnarValue::Array(floored))
    }
}

/// `busbw(op, bytes, seconds, ranks)`: bytes a second that cross the slowest link.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Busbw {
    signature: Signature,
}

impl Default for Busbw {
    fn default() -> Self {
        let arguments = vec![DataType::Utf8, DataType::Float64, DataType::Float64, DataType::Float64];
        Self { signature: Signature::exact(arguments, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Busbw {
    fn name(&self) -> &str {
        "busbw"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let cells = ColumnarValue::values_to_arrays(&arguments.args)?;
        let ops = cells[0].as_string::<i32>();
        let [bytes, seconds, ranks] = [1, 2, 3].map(|at| cells[at].as_primitive::<Float64Type>());
        let bandwidth = |row: usize| -> Option<f64> {
            let is_whole = [bytes, seconds, ranks].iter().all(|cells| cells.is_valid(row)) && ops.is_valid(row);
            let (bytes, seconds) = is_whole.then(|| (bytes.value(row), seconds.value(row)))?;
            Some(factor(ops.value(row), ranks.value(row))? * bytes / seconds)
        };
        Ok(ColumnarValue::Array(Arc::new((0..ops.len()).map(bandwidth).collect::<Float64Array>())))
    }
}

/// Bytes over the bus for each byte of the message.
///
/// Source: nccl-tests, `doc/PERFORMANCE.md`, "Bus bandwidth".
fn factor(op: &str, ranks: f64) -> Option<f64> {
    let plain = op.replace('_', "").to_ascii_lowercase();
    match plain.as_str() {
        _ if ranks < 1.0 => None,
        "allreduce" => Some(2.0 * (ranks - 1.0) / ranks),
        "allgather" | "reducescatter" | "alltoall" => Some((ranks - 1.0) / ranks),
        "broadcast" | "reduce" | "send" | "recv" | "sendrecv" => Some(1.0),
        _ => None,
    }
}
