//! `coverage`: which rows the archive holds, read from the footers of its parts alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{
    ArrayRef, Date32Array, RecordBatch, StringArray, TimestampNanosecondArray, UInt64Array,
};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result;
use datafusion::datasource::TableType;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::logical_expr::Expr;
use datafusion::object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use datafusion::parquet::errors::ParquetError;
use datafusion::parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use datafusion::parquet::file::statistics::Statistics;
use datafusion::physical_plan::ExecutionPlan;
use trainwarden_telemetry::Table;

use super::archive::FilePart;
use super::docs;

/// Bytes that are read first: a footer is seldom longer.
const FOOTER_BYTES: u64 = 64 << 10;

/// What one table, run and day hold.
#[derive(Clone, Debug, Default, PartialEq)]
struct Held {
    rows: u64,
    parts: u64,
    bytes: u64,
    first: Option<i64>,
    last: Option<i64>,
}

/// The table `coverage`.
#[derive(Debug)]
pub(crate) struct CoverageTable {
    store: Arc<dyn ObjectStore>,
    parts: Vec<(Table, FilePart)>,
    schema: SchemaRef,
}

impl CoverageTable {
    pub(crate) fn new(store: Arc<dyn ObjectStore>, parts: Vec<(Table, FilePart)>) -> Self {
        let time = DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()));
        let field = |name: &str, data_type: DataType| Field::new(name, data_type, true);
        let schema = Schema::new(vec![
            field("table", DataType::Utf8),
            field("run", DataType::Utf8),
            field("date", DataType::Date32),
            field("rows", DataType::UInt64),
            field("parts", DataType::UInt64),
            field("bytes", DataType::UInt64),
            field("first", time.clone()),
            field("last", time),
        ]);
        Self { store, parts, schema: docs::documented("coverage", &schema) }
    }

    async fn read(&self) -> Result<RecordBatch> {
        let mut held: BTreeMap<(Table, Option<String>, Option<i32>), Held> = BTreeMap::new();
        for (table, part) in &self.parts {
            let footer = footer(&*self.store, &part.object)
                .await
                .map_err(|error| error.context(format!("cannot read the footer of `{}`", part.object.location)))?;
            let entry = held.entry((*table, part.run.clone(), part.date)).or_default();
            let (first, last) = bounds(&footer, "received");
            entry.rows += u64::try_from(footer.file_metadata().num_rows()).unwrap_or(0);
            entry.parts += 1;
            entry.bytes += part.object.size;
            entry.first = entry.first.into_iter().chain(first).min();
            entry.last = entry.last.max(last);
        }
        let column =
            |pick: fn(&Held) -> u64| Arc::new(UInt64Array::from_iter_values(held.values().map(pick))) as ArrayRef;
        let time = |pick: fn(&Held) -> Option<i64>| {
            Arc::new(held.values().map(pick).collect::<TimestampNanosecondArray>().with_timezone("UTC")) as ArrayRef
        };
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(held.keys().map(|(table, ..)| table.as_str()))),
            Arc::new(held.keys().map(|(_, run, _)| run.as_deref()).collect::<StringArray>()),
            Arc::new(held.keys().map(|(.., date)| *date).collect::<Date32Array>()),
            column(|held| held.rows),
            column(|held| held.parts),
            column(|held| held.bytes),
            time(|held| held.first),
            time(|held| held.last),
        ];
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
    }
}

/// What the end of a file says of it.
async fn footer(store: &dyn ObjectStore, object: &ObjectMeta) -> Result<ParquetMetaData> {
    let mut wanted = FOOTER_BYTES.min(object.size);
    loop {
        let bytes = store.get_range(&object.location, object.size - wanted..object.size).await?;
        let mut reader = ParquetMetaDataReader::new();
        match reader.try_parse_sized(&bytes, object.size) {
            Ok(()) => return Ok(reader.finish()?),
            Err(ParquetError::NeedMoreData(more)) if more as u64 > wanted && more as u64 <= object.size => {
                wanted = more as u64;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Least and greatest value of a column of whole numbers, from the statistics of the row groups.
fn bounds(footer: &ParquetMetaData, column: &str) -> (Option<i64>, Option<i64>) {
    let (mut least, mut greatest) = (None, None);
    for group in footer.row_groups() {
        let Some(chunk) = group.columns().iter().find(|chunk| chunk.column_path().string() == column) else { continue };
        if let Some(Statistics::Int64(statistics)) = chunk.statistics() {
            least = least.into_iter().chain(statistics.min_opt().copied()).min();
            greatest = greatest.max(statistics.max_opt().copied());
        }
    }
    (least, greatest)
}

#[async_trait]
impl TableProvider for CoverageTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let batch = self.read().await?;
        Ok(MemorySourceConfig::try_new_exec(&[vec![batch]], self.schema(), projection.cloned())?)
    }
}
