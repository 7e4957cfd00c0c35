//! The engine: tables and functions, and nothing else that could be read or written.

use std::path::PathBuf;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::common::DataFusionError;
use datafusion::datasource::{MemTable, ViewTable, provider_as_source};
use datafusion::execution::context::SQLOptions;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::object_store::ObjectStoreRegistry;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SendableRecordBatchStream, SessionStateBuilder};
use datafusion::logical_expr::{LogicalPlan, LogicalPlanBuilder};
use datafusion::object_store::local::LocalFileSystem;
use datafusion::object_store::{ObjectMeta, ObjectStore};
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::parser::Statement;
use serde::{Deserialize, Serialize};
use trainwarden_store::{Archive, ArchiveOptions, Date};
use trainwarden_telemetry::Table;
use url::Url;

use crate::error::QueryError;
use crate::functions;
use crate::limits::{Limits, POOL_SHARE};
use crate::tables::archive::{ArchiveTable, FilePart};
use crate::tables::coverage::CoverageTable;
use crate::tables::{docs, folder, incidents};

/// The one catalog, as clients of databases know them.
pub const CATALOG: &str = "trainwarden";
/// The one schema in it.
pub const SCHEMA: &str = "public";

/// Where the rows are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sources {
    /// The folder of an archive.
    pub archive: Option<PathBuf>,
    /// Run folders, or single table files; used where there is no archive.
    pub folders: Vec<PathBuf>,
    /// Incidents as JSON, one each.
    pub incidents: Vec<String>,
}

/// A session in which questions are answered.
pub(crate) struct Engine {
    context: SessionContext,
    tables: Vec<(&'static str, SchemaRef)>,
}

/// The one store of a session; no other can be reached by any name.
#[derive(Debug)]
struct OneStore(Arc<dyn ObjectStore>);

impl ObjectStoreRegistry for OneStore {
    fn register_store(&self, _url: &Url, _store: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        None
    }

    fn get_store(&self, url: &Url) -> datafusion::common::Result<Arc<dyn ObjectStore>> {
        if url.scheme() != "archive" {
            return Err(DataFusionError::Plan(format!("`{url}` cannot be read: only the tables can")));
        }
        Ok(Arc::clone(&self.0))
    }
}

impl Engine {
    /// Opens a session over sources.
    ///
    /// # Errors
    /// [`QueryError::Archive`], [`QueryError::Folder`], [`QueryError::Incident`].
    pub(crate) async fn open(sources: &Sources, limits: &Limits) -> Result<Self, QueryError> {
        let (store, parts) = open_store(sources).await?;
        let context = session(Arc::clone(&store), limits)?;
        let mut engine = Self { context, tables: Vec::new() };
        let mut covered = Vec::new();
        for table in Table::ALL {
            let mut own: Vec<FilePart> =
                parts.iter().filter(|(of, _)| *of == table).map(|(_, part)| part.clone()).collect();
            let mut batches = Vec::new();
            if sources.archive.is_none() {
                let schema = ArchiveTable::new(table, Vec::new()).schema();
                let found = folder::read(table, &sources.folders, &schema)?;
                (own, batches) = (found.parts, found.batches);
            }
            covered.extend(own.iter().map(|part| (table, part.clone())));
            engine.add(table.as_str(), with_batches(ArchiveTable::new(table, own), batches)?)?;
        }
        let parsed = incidents::parse(&sources.incidents)?;
        engine.add_batch("incidents", incidents::incidents(&parsed, &sources.incidents))?;
        engine.add_batch("verdicts", incidents::verdicts(&parsed))?;
        engine.add("coverage", Arc::new(CoverageTable::new(store, covered)))?;
        engine.tables.push(("columns", docs::columns_schema(&["table", "column", "type", "doc"])));
        let columns = docs::columns(&engine.tables);
        engine.context.register_table("columns", memory(vec![columns])?)?;
        functions::register(&engine.context).await?;
        Ok(engine)
    }

    /// Names and schemas of the tables; columns have their meaning in the metadata `doc`.
    pub(crate) fn tables(&self) -> &[(&'static str, SchemaRef)] {
        &self.tables
    }

    /// Names of all functions.
    pub(crate) fn functions(&self) -> Vec<String> {
        let state = self.context.state();
        let mut names: Vec<String> = state.scalar_functions().keys().cloned().collect();
        names.extend(state.aggregate_functions().keys().cloned());
        names.extend(state.window_functions().keys().cloned());
        names.extend(state.table_functions().keys().cloned());
        names.sort();
        names.dedup();
        names
    }

    /// Plans a statement; what changes something is refused.
    ///
    /// # Errors
    /// [`QueryError::Engine`].
    pub(crate) async fn plan(&self, statement: Statement) -> Result<LogicalPlan, QueryError> {
        let plan = self.context.state().statement_to_plan(statement).await?;
        let options = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        options.verify_plan(&plan)?;
        Ok(plan)
    }

    /// Begins to answer.
    ///
    /// # Errors
    /// [`QueryError::Engine`].
    pub(crate) async fn answer(&self, plan: LogicalPlan) -> Result<SendableRecordBatchStream, QueryError> {
        let frame = self.context.execute_logical_plan(plan).await?;
        Ok(frame.execute_stream().await?)
    }

    /// The columns of the answer, as far as they are known without the values of placeholders.
    ///
    /// # Errors
    /// [`QueryError::Engine`].
    pub(crate) async fn shape(&self, plan: LogicalPlan) -> Result<SchemaRef, QueryError> {
        if !plan.get_parameter_names()?.is_empty() {
            return Ok(SchemaRef::clone(plan.schema().inner()));
        }
        // What is planned to the end has the columns of the rows to come, also in whether they may be null.
        let frame = self.context.execute_logical_plan(plan).await?;
        Ok(frame.create_physical_plan().await?.schema())
    }

    fn add(&mut self, name: &'static str, table: Arc<dyn TableProvider>) -> Result<(), QueryError> {
        self.tables.push((name, table.schema()));
        self.context.register_table(name, table)?;
        Ok(())
    }

    fn add_batch(&mut self, name: &'static str, batch: RecordBatch) -> Result<(), QueryError> {
        self.add(name, memory(vec![batch])?)
    }
}

/// Names and schemas of all tables, as they are without a row.
///
/// # Errors
/// [`QueryError::Engine`].
pub async fn table_schemas() -> Result<Vec<(&'static str, SchemaRef)>, QueryError> {
    Ok(Engine::open(&Sources::default(), &Limits::default()).await?.tables)
}

/// The store of the parts, and the parts of an archive.
async fn open_store(sources: &Sources) -> Result<(Arc<dyn ObjectStore>, Vec<(Table, FilePart)>), QueryError> {
    let Some(path) = &sources.archive else { return Ok((Arc::new(LocalFileSystem::new()), Vec::new())) };
    if !path.is_dir() {
        let reason = "there is no such folder; give the folder of a service with --data, or --run-folder".to_owned();
        return Err(QueryError::Folder { path: path.clone(), reason });
    }
    let archive = Archive::open(ArchiveOptions { path: Some(path.clone()), ..ArchiveOptions::default() }, path)?;
    let (store, root) = archive.object_store();
    let mut parts = Vec::new();
    for part in archive.parts().await? {
        let location = part
            .name
            .location(root)
            .map_err(|error| QueryError::Folder { path: path.join(part.name.path()), reason: error.to_string() })?;
        let object = ObjectMeta {
            location,
            last_modified: time_of(part.written).into(),
            size: part.bytes,
            e_tag: None,
            version: None,
        };
        let date = i32::try_from(part.name.date.days_since(Date::of(0))).ok();
        parts.push((part.name.table, FilePart { object, run: part.name.run(), date }));
    }
    Ok((store, parts))
}

fn time_of(nanoseconds: i64) -> std::time::SystemTime {
    std::time::UNIX_EPOCH + std::time::Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(0))
}

fn session(store: Arc<dyn ObjectStore>, limits: &Limits) -> Result<SessionContext, QueryError> {
    let config = SessionConfig::new().with_target_partitions(limits.threads).with_information_schema(false);
    let mut config = config.with_default_catalog_and_schema(CATALOG, SCHEMA);
    let options = config.options_mut();
    options.sql_parser.collect_spans = true;
    options.execution.enable_recursive_ctes = false;
    // A question is about one rank, one metric, some steps: what is not asked for is not decoded.
    options.execution.parquet.pushdown_filters = true;
    options.execution.parquet.reorder_filters = true;
    let pool = (limits.memory_bytes as f64 * POOL_SHARE) as usize;
    let no_spilling = DiskManagerBuilder::default().with_mode(DiskManagerMode::Disabled);
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(Arc::new(GreedyMemoryPool::new(pool)))
        .with_disk_manager_builder(no_spilling)
        .with_object_store_registry(Arc::new(OneStore(store)))
        .build()?;
    let state = SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(Arc::new(runtime))
        .with_default_features()
        // A series of any length costs nothing to write.
        .with_table_function_list(Vec::new())
        .with_file_formats(Vec::new())
        .with_table_factories(std::collections::HashMap::new())
        .build();
    Ok(SessionContext::new_with_state(state))
}

fn memory(batches: Vec<RecordBatch>) -> Result<Arc<dyn TableProvider>, QueryError> {
    let schema = batches.first().expect("at least one batch is given").schema();
    Ok(Arc::new(MemTable::try_new(schema, vec![batches])?))
}

/// Files and rows in memory as one table.
fn with_batches(files: ArchiveTable, batches: Vec<RecordBatch>) -> Result<Arc<dyn TableProvider>, QueryError> {
    let files: Arc<dyn TableProvider> = Arc::new(files);
    if batches.is_empty() {
        return Ok(files);
    }
    let held: Arc<dyn TableProvider> = Arc::new(MemTable::try_new(files.schema(), vec![batches])?);
    let scan = |table| LogicalPlanBuilder::scan("rows", provider_as_source(table), None);
    let both = scan(files)?.union(scan(held)?.build()?)?.build()?;
    Ok(Arc::new(ViewTable::new(both, None)))
}
