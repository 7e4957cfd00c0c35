//! What clients of databases ask about a database: its tables, their columns, and what it can do.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow_flight::error::FlightError;
use arrow_flight::sql::metadata::{SqlInfoData, SqlInfoDataBuilder, XdbcTypeInfoData, XdbcTypeInfoDataBuilder};
use arrow_flight::sql::{Command, SqlInfo, SqlSupportedTransaction};
use trainwarden_query::{CATALOG, SCHEMA, table_schemas};

/// All tables are of one type: nobody can tell from outside which ones are made when they are asked.
const TABLE_TYPE: &str = "TABLE";

/// What is told.
pub(super) struct Catalog {
    tables: Vec<(&'static str, SchemaRef)>,
    abilities: SqlInfoData,
    types: XdbcTypeInfoData,
}

impl Catalog {
    /// Asks an engine without rows.
    ///
    /// # Errors
    /// Where the engine has no session.
    pub(super) async fn open() -> anyhow::Result<Self> {
        let types = XdbcTypeInfoDataBuilder::new().build()?;
        Ok(Self { tables: table_schemas().await?, abilities: abilities()?, types })
    }

    /// The answer to a command that asks about the database; `None` where it asks something else.
    ///
    /// # Errors
    /// Where a pattern for names is none.
    pub(super) fn answer(&self, command: Command) -> Result<Option<RecordBatch>, FlightError> {
        Ok(Some(match command {
            Command::CommandGetCatalogs(command) => {
                let mut catalogs = command.into_builder();
                catalogs.append(CATALOG);
                catalogs.build()?
            }
            Command::CommandGetDbSchemas(command) => {
                let mut schemas = command.into_builder();
                schemas.append(CATALOG, SCHEMA);
                schemas.build()?
            }
            Command::CommandGetTables(command) => {
                let mut tables = command.into_builder();
                for (name, schema) in &self.tables {
                    tables.append(CATALOG, SCHEMA, name, TABLE_TYPE, schema)?;
                }
                tables.build()?
            }
            Command::CommandGetTableTypes(command) => {
                let mut types = command.into_builder();
                types.append(TABLE_TYPE);
                types.build()?
            }
            Command::CommandGetSqlInfo(command) => command.into_builder(&self.abilities).build()?,
            Command::CommandGetXdbcTypeInfo(command) => command.into_builder(&self.types).build()?,
            Command::CommandGetPrimaryKeys(_) => none_of(primary_key_columns()),
            Command::CommandGetExportedKeys(_)
            | Command::CommandGetImportedKeys(_)
            | Command::CommandGetCrossReference(_) => none_of(foreign_key_columns()),
            _ => return Ok(None),
        }))
    }
}

fn abilities() -> Result<SqlInfoData, FlightError> {
    let mut told = SqlInfoDataBuilder::new();
    told.append(SqlInfo::FlightSqlServerName, "TrainWarden");
    told.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    told.append(SqlInfo::FlightSqlServerArrowVersion, arrow::ARROW_VERSION);
    told.append(SqlInfo::FlightSqlServerReadOnly, true);
    told.append(SqlInfo::FlightSqlServerSql, true);
    told.append(SqlInfo::FlightSqlServerSubstrait, false);
    told.append(SqlInfo::FlightSqlServerTransaction, SqlSupportedTransaction::None as i32);
    told.append(SqlInfo::FlightSqlServerCancel, true);
    told.append(SqlInfo::FlightSqlServerBulkIngestion, false);
    told.append(SqlInfo::SqlDdlTable, false);
    told.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    told.build()
}

/// Nothing here has keys.
fn none_of(columns: Vec<Field>) -> RecordBatch {
    RecordBatch::new_empty(Arc::new(Schema::new(columns)))
}

fn primary_key_columns() -> Vec<Field> {
    vec![
        Field::new("catalog_name", DataType::Utf8, true),
        Field::new("db_schema_name", DataType::Utf8, true),
        Field::new("table_name", DataType::Utf8, false),
        Field::new("column_name", DataType::Utf8, false),
        Field::new("key_sequence", DataType::Int32, false),
        Field::new("key_name", DataType::Utf8, true),
    ]
}

fn foreign_key_columns() -> Vec<Field> {
    let mut columns = Vec::new();
    for side in ["pk", "fk"] {
        columns.extend([
            Field::new(format!("{side}_catalog_name"), DataType::Utf8, true),
            Field::new(format!("{side}_db_schema_name"), DataType::Utf8, true),
            Field::new(format!("{side}_table_name"), DataType::Utf8, false),
            Field::new(format!("{side}_column_name"), DataType::Utf8, false),
        ]);
    }
    columns.extend([
        Field::new("key_sequence", DataType::Int32, false),
        Field::new("fk_key_name", DataType::Utf8, true),
        Field::new("pk_key_name", DataType::Utf8, true),
        Field::new("update_rule", DataType::UInt8, false),
        Field::new("delete_rule", DataType::UInt8, false),
    ]);
    columns
}
