//! One table of telemetry over the parts of an archive, or over the Parquet files of run folders.

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{Array, BooleanArray, Date32Array, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::config::TableParquetOptions;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, Result, ScalarValue};
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, FileSource, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::datasource::table_schema::TableSchema;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::object_store::ObjectMeta;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use trainwarden_telemetry::Table;

use super::docs;

/// The only store that a plan can read.
pub(crate) const STORE: &str = "archive://parts";
/// The column that the folder gives, not the file.
const DATE: &str = "date";

/// One Parquet file of a table.
#[derive(Clone, Debug)]
pub(crate) struct FilePart {
    /// Where it lies in the store, and its size.
    pub(crate) object: ObjectMeta,
    /// The run that all of its rows belong to, where the folder tells.
    pub(crate) run: Option<String>,
    /// Day of log time of all of its rows, in days since 1970-01-01; `None` in a run folder.
    pub(crate) date: Option<i32>,
}

/// A table whose rows lie in Parquet files; files of other runs and days are not opened.
#[derive(Debug)]
pub(crate) struct ArchiveTable {
    parts: Arc<Vec<FilePart>>,
    schema: TableSchema,
}

impl ArchiveTable {
    /// * `parts`: those of this table.
    pub(crate) fn new(table: Table, parts: Vec<FilePart>) -> Self {
        let date = Field::new(DATE, DataType::Date32, true).with_metadata(docs::metadata(table.as_str(), DATE));
        let file_schema = docs::documented(table.as_str(), &table.schema());
        let schema = TableSchema::builder(file_schema).with_table_partition_cols(vec![Arc::new(date)]).build();
        Self { parts: Arc::new(parts), schema }
    }

    /// The parts that may hold rows that pass the filters, as far as run and day decide it.
    fn parts_for(&self, state: &dyn Session, filters: &[Expr]) -> Result<Vec<FilePart>> {
        let (mut told, mut all) = (Vec::new(), Vec::new());
        for filter in filters {
            match columns_of(filter)?.iter().map(String::as_str).collect::<Vec<_>>()[..] {
                [DATE] => all.push(filter.clone()),
                ["run"] | [DATE, "run"] => told.push(filter.clone()),
                _ => {}
            }
        }
        let by_day = self.passing(state, all)?;
        let by_run = self.passing(state, told)?;
        let passes = |at: usize, part: &FilePart| by_day[at] && (part.run.is_none() || by_run[at]);
        let kept = self.parts.iter().enumerate().filter(|(at, part)| passes(*at, part));
        Ok(kept.map(|(_, part)| part.clone()).collect())
    }

    /// `[parts]`: whether run and day of a part pass all filters; a day that is not told passes.
    fn passing(&self, state: &dyn Session, filters: Vec<Expr>) -> Result<Vec<bool>> {
        let Some(filter) = conjunction(filters) else { return Ok(vec![true; self.parts.len()]) };
        let fields = vec![Field::new("run", DataType::Utf8, true), Field::new(DATE, DataType::Date32, true)];
        let schema = Arc::new(Schema::new(fields));
        // A filter may name its table, and the columns here have none.
        let filter = unqualified(filter)?;
        let physical = state.create_physical_expr(filter, &DFSchema::try_from(Arc::clone(&schema))?)?;
        let runs: StringArray = self.parts.iter().map(|part| part.run.as_deref()).collect();
        let dates: Date32Array = self.parts.iter().map(|part| part.date).collect();
        let batch = RecordBatch::try_new(schema, vec![Arc::new(runs), Arc::new(dates)])?;
        let values = physical.evaluate(&batch)?.into_array(self.parts.len())?;
        let Some(passes) = values.as_any().downcast_ref::<BooleanArray>() else {
            return Ok(vec![true; self.parts.len()]);
        };
        Ok((0..self.parts.len()).map(|at| passes.is_null(at) || passes.value(at)).collect())
    }
}

/// Names of the columns of a filter; empty where it needs a row to be judged (a volatile function, a subquery).
fn columns_of(filter: &Expr) -> Result<BTreeSet<String>> {
    let mut names: BTreeSet<String> = filter.column_refs().iter().map(|column| column.name.clone()).collect();
    filter.apply(|inner| {
        if matches!(
            inner,
            Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::OuterReferenceColumn(..)
        ) || inner.is_volatile_node()
        {
            names.clear();
            return Ok(TreeNodeRecursion::Stop);
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(names)
}

fn unqualified(filter: Expr) -> Result<Expr> {
    let plain = filter.transform(|inner| match inner {
        Expr::Column(column) if column.relation.is_some() => {
            Ok(Transformed::yes(Expr::Column(Column::new_unqualified(column.name))))
        }
        other => Ok(Transformed::no(other)),
    })?;
    Ok(plain.data)
}

#[async_trait]
impl TableProvider for ArchiveTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.schema.table_schema())
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let parts = self.parts_for(state, filters)?;
        if parts.is_empty() {
            let schema = match projection {
                Some(columns) => Arc::new(self.schema().project(columns)?),
                None => self.schema(),
            };
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        let files = parts.into_iter().map(|part| {
            PartitionedFile::new_from_meta(part.object).with_partition_values(vec![ScalarValue::Date32(part.date)])
        });
        let global = state.config_options().execution.parquet.clone();
        let options = TableParquetOptions { global, ..TableParquetOptions::default() };
        let source = ParquetSource::new(self.schema.clone()).with_table_parquet_options(options);
        let source: Arc<dyn FileSource> = Arc::new(source);
        let groups = FileGroup::new(files.collect()).split_files(state.config().target_partitions());
        let config = FileScanConfigBuilder::new(ObjectStoreUrl::parse(STORE)?, source)
            .with_file_groups(groups)
            .with_projection_indices(projection.cloned())?
            // Rows are filtered above where the reader does not.
            .with_limit(limit.filter(|_| filters.is_empty()))
            .build();
        Ok(DataSourceExec::from_data_source(config))
    }
}
