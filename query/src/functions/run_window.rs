//! `run_window(run, step, n)`: the samples around a step.

use std::sync::Arc;

use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::logical_expr::{Expr, LogicalPlanBuilder, col, lit};

/// The table function.
#[derive(Debug)]
pub(super) struct RunWindow {
    samples: Arc<dyn TableProvider>,
}

impl RunWindow {
    pub(super) fn new(samples: Arc<dyn TableProvider>) -> Self {
        Self { samples }
    }
}

/// A whole number that is not negative.
fn whole(argument: &Expr) -> Option<u64> {
    let Expr::Literal(value, _) = argument else { return None };
    match value.cast_to(&datafusion::arrow::datatypes::DataType::UInt64).ok()? {
        ScalarValue::UInt64(number) => number,
        _ => None,
    }
}

impl TableFunctionImpl for RunWindow {
    fn call_with_args(&self, arguments: TableFunctionArgs<'_, '_>) -> Result<Arc<dyn TableProvider>> {
        let usage = "run_window('RUN', STEP, N): a name and two whole numbers, as in run_window('llm-7b', 4120, 50)";
        let [run, step, n] = arguments.exprs() else { return plan_err!("write {usage}") };
        let run = match run {
            Expr::Literal(value, _) => value.try_as_str().flatten().map(str::to_owned),
            _ => None,
        };
        let (Some(run), Some(step), Some(n)) = (run, whole(step), whole(n)) else { return plan_err!("write {usage}") };
        let rows = col("run").eq(lit(run)).and(col("step").gt_eq(lit(step.saturating_sub(n))));
        let rows = rows.and(col("step").lt_eq(lit(step.saturating_add(n))));
        let source = provider_as_source(Arc::clone(&self.samples));
        let plan = LogicalPlanBuilder::scan("samples", source, None)?.filter(rows)?.build()?;
        Ok(Arc::new(ViewTable::new(plan, None)))
    }
}
