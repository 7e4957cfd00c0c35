//! Functions that investigators need, computed by the kernels that the detectors judge with.

mod collected;
mod fingerprint_diff;
mod over_partition;
mod run_window;
mod scalar;
mod series;
mod topk_per;

use std::sync::Arc;

use datafusion::logical_expr::{AggregateUDF, ScalarUDF, WindowUDF};
use datafusion::prelude::SessionContext;

use crate::error::QueryError;

/// Name, way to write it, and meaning of each function of ours.
pub const FUNCTIONS: &[(&str, &str, &str)] = &[
    ("mad", "mad(value)", "median absolute deviation, unscaled; NaN is skipped"),
    (
        "exact_quantile",
        "exact_quantile(value, q)",
        "the value below which the part q (0 to 1) lies, exact, interpolated",
    ),
    (
        "robust_z",
        "robust_z(value) over (partition by step)",
        "deviation from the median in 1.4826 MADs; of no spread, 0 or infinite",
    ),
    (
        "peer_rank",
        "peer_rank(value) over (partition by step)",
        "part of the rows, itself counted, at least as large: small = larger than its peers",
    ),
    (
        "cusum",
        "cusum(value) over (order by step)",
        "sum of what is above (positive) or below (negative) the level of the first 32 values, in their deviations, 0.5 forgiven a value",
    ),
    (
        "change_points",
        "change_points(step, value)",
        "list of {step, probability}: where the level or the spread of a series changed",
    ),
    ("topk_per", "topk_per(label, value, k)", "list of {label, value}: the k largest of a group, largest first"),
    (
        "fingerprint_diff",
        "fingerprint_diff(label, digest)",
        "list of the labels whose digest is not the majority's; of no majority, all",
    ),
    ("downsample", "downsample(step, n)", "the first step of the n steps it lies in; of a time, n seconds"),
    (
        "busbw",
        "busbw(op, bytes, seconds, ranks)",
        "bus bandwidth of a collective in bytes a second, as nccl-tests count it; null for other operations",
    ),
    (
        "run_window",
        "run_window(run, step, n)",
        "table: the rows of samples of a run from n steps before a step to n after",
    ),
];

/// Adds all functions to a session that has its tables.
pub(crate) async fn register(context: &SessionContext) -> Result<(), QueryError> {
    for function in collected::Collected::all() {
        context.register_udaf(AggregateUDF::from(function));
    }
    context.register_udaf(AggregateUDF::from(series::ChangePoints::default()));
    context.register_udaf(AggregateUDF::from(topk_per::TopkPer::default()));
    context.register_udaf(AggregateUDF::from(fingerprint_diff::FingerprintDiff::default()));
    for function in over_partition::OverPartition::all() {
        context.register_udwf(WindowUDF::from(function));
    }
    context.register_udf(ScalarUDF::from(scalar::Downsample::default()));
    context.register_udf(ScalarUDF::from(scalar::Busbw::default()));
    let samples = context.table_provider("samples").await?;
    context.register_udtf("run_window", Arc::new(run_window::RunWindow::new(samples)));
    Ok(())
}

#[cfg(test)]
mod tests;
