//! One part as a Parquet file: the same rows give the same bytes.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::datatypes::{DataType, Field, Schema};
use bytes::Bytes;
use parquet::arrow::ArrowSchemaConverter;
use parquet::arrow::arrow_writer::{ArrowColumnChunk, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::ColumnDescPtr;
use trainwarden_telemetry::Table;

use crate::column_rows::{Arranged, ArrangedValues, ColumnRows};
use crate::limits::{DICTIONARY_BYTES_MAX, LONG_PAGE_BYTES, PAGE_BYTES, VALUE_SEGMENT_ROWS, ZSTD_LEVEL};
use crate::order::{Order, sorted_by};
use crate::text_chunk::write_texts;
use crate::value_chunk::write_values;

/// Written into each file instead of the version of a library, so that an update of it changes no name and no byte.
const CREATED_BY: &str = "trainwarden archive 1";
/// Bytes a row of a column may take before another encoding is tried: below it there is nothing to gain.
const SMALL_BYTES_PER_ROW: f64 = 0.02;

/// The file.
pub(crate) fn encode(table: Table, columns: &[ColumnRows]) -> Result<Bytes, ParquetError> {
    let order = Order::of(table, columns);
    let schema = table.schema();
    let root = ArrowSchemaConverter::new().schema_root("trainwarden").convert(&schema)?.root_schema_ptr();
    let sorting = sorting_columns(table, &schema)?;
    let names = KeyValue::new("trainwarden.table".to_owned(), table.as_str().to_owned());
    let properties =
        base_properties().set_sorting_columns(Some(sorting)).set_key_value_metadata(Some(vec![names])).build();
    let mut writer = SerializedFileWriter::new(Vec::new(), root, Arc::new(properties))?;
    for range in &order.groups {
        let metric = columns.iter().find(|column| column.column.name == "metric");
        let metric = metric.map(|column| column.arranged(&order.places, range));
        let mut group = writer.next_row_group()?;
        for (field, column) in schema.fields().iter().zip(columns) {
            let column = column.arranged(&order.places, range);
            let ours = match &column.values {
                ArrangedValues::F64(values) => {
                    Some(write_values(descriptor(field)?, values, &segments(metric.as_ref(), range.len()))?)
                }
                ArrangedValues::Text(codes, texts) => write_texts(descriptor(field)?, &column, codes, texts)?,
                ArrangedValues::U32(_) | ArrangedValues::U64(_) | ArrangedValues::Time(_) => None,
            };
            match ours {
                Some((bytes, close)) => group.append_column(&bytes, close)?,
                None => write_column(field, &column.into_array())?.append_to_row_group(&mut group)?,
            }
        }
        group.close()?;
    }
    Ok(writer.into_inner()?.into())
}

fn base_properties() -> WriterPropertiesBuilder {
    let level = ZstdLevel::try_new(ZSTD_LEVEL).expect("the level is one of zstd's");
    WriterProperties::builder().set_created_by(CREATED_BY.to_owned()).set_compression(Compression::ZSTD(level))
}

fn sorting_columns(table: Table, schema: &Schema) -> Result<Vec<SortingColumn>, ParquetError> {
    let (series, rows) = sorted_by(table);
    let named = series.iter().chain(rows);
    let sorting = named.map(|name| {
        let column_idx = i32::try_from(schema.index_of(name)?)?;
        Ok(SortingColumn { column_idx, descending: false, nulls_first: true })
    });
    sorting.collect()
}

fn descriptor(field: &Field) -> Result<ColumnDescPtr, ParquetError> {
    let schema = Schema::new(vec![field.clone()]);
    Ok(ArrowSchemaConverter::new().convert(&schema)?.column(0))
}

/// Ranges of rows that are one metric each; neighbours with few rows share one.
fn segments(metric: Option<&Arranged<'_>>, rows: usize) -> Vec<Range<usize>> {
    let mut segments: Vec<Range<usize>> = Vec::new();
    let Some(ArrangedValues::Text(metric, _)) = metric.map(|metric| &metric.values) else {
        segments.push(0..rows);
        return segments;
    };
    let mut start = 0;
    for run in metric.chunk_by(|a, b| a == b) {
        let end = start + run.len();
        match segments.last_mut() {
            Some(last) if last.len() < VALUE_SEGMENT_ROWS && run.len() < VALUE_SEGMENT_ROWS => last.end = end,
            _ => segments.push(start..end),
        }
        start = end;
    }
    segments
}

/// One column of a row group in the smallest of the encodings that suit its type.
fn write_column(field: &Field, array: &ArrayRef) -> Result<ArrowColumnChunk, ParquetError> {
    let is_wide = matches!(field.data_type(), DataType::UInt64 | DataType::Timestamp(..));
    if !is_wide || array.null_count() == array.len() {
        let dictionary = base_properties()
            .set_dictionary_enabled(true)
            .set_dictionary_page_size_limit(DICTIONARY_BYTES_MAX)
            .set_data_page_size_limit(PAGE_BYTES);
        return write_chunk(field, array, dictionary);
    }
    let steps = base_properties()
        .set_dictionary_enabled(false)
        .set_encoding(Encoding::DELTA_BINARY_PACKED)
        .set_data_page_size_limit(PAGE_BYTES);
    let steps = write_chunk(field, array, steps)?;
    if size(&steps) as f64 <= SMALL_BYTES_PER_ROW * array.len() as f64 {
        return Ok(steps);
    }
    // Times with jitter repeat from metric to metric of a device, at a distance; a page must be long to hold both.
    let repeats = base_properties()
        .set_dictionary_enabled(false)
        .set_encoding(Encoding::PLAIN)
        .set_data_page_size_limit(LONG_PAGE_BYTES)
        .set_data_page_row_count_limit(usize::MAX);
    let repeats = write_chunk(field, array, repeats)?;
    Ok(if size(&repeats) < size(&steps) { repeats } else { steps })
}

fn size(chunk: &ArrowColumnChunk) -> u64 {
    chunk.close().bytes_written
}

fn write_chunk(
    field: &Field,
    array: &ArrayRef,
    properties: WriterPropertiesBuilder,
) -> Result<ArrowColumnChunk, ParquetError> {
    let schema = Arc::new(Schema::new(vec![field.clone()]));
    let root = ArrowSchemaConverter::new().convert(&schema)?.root_schema_ptr();
    // Only its properties are used: a factory takes them from a file.
    let file = SerializedFileWriter::new(std::io::sink(), root, Arc::new(properties.build()))?;
    let mut writers = ArrowRowGroupWriterFactory::new(&file, schema).create_column_writers(0)?;
    let mut writer = writers.pop().expect("a schema of one column has one writer");
    for leaf in compute_leaves(field, array)? {
        writer.write(&leaf)?;
    }
    writer.close()
}
