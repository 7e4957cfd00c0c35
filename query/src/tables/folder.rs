//! Tables of run folders: Parquet files are read as parts are, other forms into memory.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch, new_null_array};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::{csv, json};
use datafusion::object_store::ObjectMeta;
use datafusion::object_store::path::Path as StorePath;
use trainwarden_telemetry::Table;

use super::archive::FilePart;
use crate::error::QueryError;
use crate::limits::FOLDER_ROWS_MAX;

/// Rows that are read at once.
const BATCH_ROWS: usize = 8_192;
/// Forms of a table file beside Parquet; what follows the table's name.
const TEXT_FORMS: [&str; 6] = ["csv", "csv.gz", "csv.zst", "jsonl", "jsonl.gz", "jsonl.zst"];

/// The files of one table.
#[derive(Debug, Default)]
pub(crate) struct FolderTable {
    /// Parquet files, by their place in the file system.
    pub(crate) parts: Vec<FilePart>,
    /// Rows of the other files.
    pub(crate) batches: Vec<RecordBatch>,
}

/// Finds and reads the files of a table in run folders.
///
/// * `schema`: of the table, with the columns that only an archive has.
///
/// # Errors
/// [`QueryError::Folder`].
pub(crate) fn read(table: Table, folders: &[PathBuf], schema: &SchemaRef) -> Result<FolderTable, QueryError> {
    let mut found = FolderTable::default();
    let mut rows = 0;
    for path in folders.iter().map(|folder| files_of(table, folder)).collect::<Result<Vec<_>, _>>()?.concat() {
        let failed = |reason: String| QueryError::Folder { path: path.clone(), reason };
        if form_of(&path) == Some("parquet") {
            found.parts.push(part_of(&path).map_err(failed)?);
            continue;
        }
        let batches = read_text(&path, schema).map_err(failed)?;
        rows += batches.iter().map(RecordBatch::num_rows).sum::<usize>();
        if rows > FOLDER_ROWS_MAX {
            return Err(failed(format!("more than {FOLDER_ROWS_MAX} rows; write the folder as Parquet")));
        }
        found.batches.extend(batches);
    }
    Ok(found)
}

/// `<table>.<form>`, and every file of a known form in the folder `<table>`.
fn files_of(table: Table, folder: &Path) -> Result<Vec<PathBuf>, QueryError> {
    let listed = |dir: &Path| -> Result<Vec<PathBuf>, QueryError> {
        let failed = |source: std::io::Error| QueryError::Folder { path: dir.to_owned(), reason: source.to_string() };
        let mut paths: Vec<PathBuf> =
            fs::read_dir(dir).map_err(failed)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
        paths.sort();
        Ok(paths)
    };
    if folder.is_file() {
        let is_meant = stem_of(folder) == Some(table.as_str());
        return Ok(if is_meant { vec![folder.to_owned()] } else { Vec::new() });
    }
    let mut files: Vec<PathBuf> =
        listed(folder)?.into_iter().filter(|path| path.is_file() && stem_of(path) == Some(table.as_str())).collect();
    let inner = folder.join(table.as_str());
    if inner.is_dir() {
        files.extend(listed(&inner)?.into_iter().filter(|path| path.is_file() && form_of(path).is_some()));
    }
    Ok(files)
}

fn form_of(path: &Path) -> Option<&'static str> {
    let name = path.file_name()?.to_str()?;
    let forms = TEXT_FORMS.into_iter().chain(["parquet"]);
    forms.filter(|form| name.ends_with(&format!(".{form}"))).max_by_key(|form| form.len())
}

fn stem_of(path: &Path) -> Option<&str> {
    let form = form_of(path)?;
    path.file_name()?.to_str()?.strip_suffix(form)?.strip_suffix('.')
}

fn part_of(path: &Path) -> Result<FilePart, String> {
    let metadata = fs::metadata(path).map_err(|error| error.to_string())?;
    let modified = metadata.modified().map_err(|error| error.to_string())?;
    let location = StorePath::from_absolute_path(path).map_err(|error| error.to_string())?;
    let object =
        ObjectMeta { location, last_modified: modified.into(), size: metadata.len(), e_tag: None, version: None };
    Ok(FilePart { object, run: None, date: None })
}

fn read_text(path: &Path, schema: &SchemaRef) -> Result<Vec<RecordBatch>, String> {
    let form = form_of(path).unwrap_or_default();
    let file = File::open(path).map_err(|error| error.to_string())?;
    let bytes: Box<dyn Read> = match form.rsplit_once('.').map(|(_, packed)| packed) {
        Some("gz") => Box::new(flate2::read::MultiGzDecoder::new(file)),
        Some("zst") => Box::new(zstd::Decoder::new(file).map_err(|error| error.to_string())?),
        _ => Box::new(file),
    };
    let bytes = BufReader::new(bytes);
    let read = if form.starts_with("csv") { read_csv(bytes, schema) } else { read_jsonl(bytes, schema) };
    read?.iter().map(|batch| shaped(batch, schema)).collect()
}

fn read_csv(mut bytes: impl BufRead, schema: &SchemaRef) -> Result<Vec<RecordBatch>, String> {
    let mut header = String::new();
    bytes.read_line(&mut header).map_err(|error| error.to_string())?;
    let names = header.trim_end_matches(['\r', '\n']).split(',').map(|name| name.trim_matches('"').to_owned());
    let fields: Vec<Field> = names.map(|name| read_field(&name, schema)).collect();
    let reader = csv::ReaderBuilder::new(Arc::new(Schema::new(fields))).with_batch_size(BATCH_ROWS);
    let reader = reader.build_buffered(bytes).map_err(|error| error.to_string())?;
    reader.collect::<Result<_, _>>().map_err(|error| error.to_string())
}

fn read_jsonl(bytes: impl BufRead, schema: &SchemaRef) -> Result<Vec<RecordBatch>, String> {
    let fields: Vec<Field> = schema.fields().iter().map(|field| read_field(field.name(), schema)).collect();
    let reader = json::ReaderBuilder::new(Arc::new(Schema::new(fields))).with_batch_size(BATCH_ROWS);
    let reader = reader.build(bytes).map_err(|error| error.to_string())?;
    reader.collect::<Result<_, _>>().map_err(|error| error.to_string())
}

/// How a column stands in a text file: times are numbers there, and what is unknown is text.
fn read_field(name: &str, schema: &SchemaRef) -> Field {
    let data_type = schema.field_with_name(name).map_or(DataType::Utf8, |field| field.data_type().clone());
    let data_type = if matches!(data_type, DataType::Timestamp(..)) { DataType::Int64 } else { data_type };
    Field::new(name, data_type, true)
}

/// The columns of the table in their order; a missing one is null.
fn shaped(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, String> {
    let columns: Result<Vec<ArrayRef>, String> = schema
        .fields()
        .iter()
        .map(|field| match batch.column_by_name(field.name()) {
            Some(cells) => cast(cells, field.data_type()).map_err(|error| error.to_string()),
            None => Ok(new_null_array(field.data_type(), batch.num_rows())),
        })
        .collect();
    RecordBatch::try_new(Arc::clone(schema), columns?).map_err(|error| error.to_string())
}
