//! One table's file while it is written: text by the row, Parquet by the batch.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    ArrayBuilder, ArrayRef, Float64Builder, RecordBatch, StringBuilder, TimestampNanosecondBuilder, UInt32Builder,
    UInt64Builder,
};
use arrow::datatypes::{Field, Schema, SchemaRef};
use flate2::write::GzEncoder;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use trainwarden_telemetry::{Column, ColumnType, Table};

use crate::{Format, IngestError};

/// Rows that one Arrow batch collects before it is handed to the Parquet writer: 64 Ki rows are a few MiB.
const BATCH_ROWS: usize = 1 << 16;
/// Columns the log and the archive add; whoever writes a run folder does not know them.
const NOT_WRITTEN: [&str; 5] = ["algo", "proto", "received", "sender", "sequence"];

/// One value of a row to write.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cell<'a> {
    Null,
    Text(&'a str),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
}

impl<'a> From<&'a str> for Cell<'a> {
    fn from(text: &'a str) -> Self {
        if text.is_empty() { Self::Null } else { Self::Text(text) }
    }
}

impl From<u32> for Cell<'_> {
    fn from(number: u32) -> Self {
        Self::Unsigned(number.into())
    }
}

impl From<u64> for Cell<'_> {
    fn from(number: u64) -> Self {
        Self::Unsigned(number)
    }
}

impl From<i64> for Cell<'_> {
    fn from(number: i64) -> Self {
        Self::Signed(number)
    }
}

impl<'a, T: Into<Cell<'a>>> From<Option<T>> for Cell<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// A file that is not yet under its final name.
#[derive(Debug)]
pub(crate) struct TableFile {
    partial: PartialFile,
    columns: Vec<Column>,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Csv(Encoder),
    Jsonl(Encoder),
    Parquet(Box<ParquetBody>),
}

impl TableFile {
    pub(crate) fn create(dir: &Path, table: Table, format: Format) -> Result<Self, IngestError> {
        let columns: Vec<Column> =
            table.columns().iter().filter(|column| !NOT_WRITTEN.contains(&column.name)).copied().collect();
        let partial = PartialFile::new(dir, &format!("{table}.{}", format.extension()));
        let file = File::create(&partial.path).map_err(|source| partial.failed(source))?;
        let body = Body::create(file, format, &columns).map_err(|source| partial.refused(source))?;
        Ok(Self { partial, columns, body })
    }

    pub(crate) fn write(&mut self, cells: &[Cell<'_>]) -> Result<(), IngestError> {
        assert_eq!(cells.len(), self.columns.len(), "a row has the columns of its table");
        match &mut self.body {
            Body::Csv(encoder) => write_csv(encoder, cells).map_err(|source| self.partial.failed(source)),
            Body::Jsonl(encoder) => {
                write_json(encoder, &self.columns, cells).map_err(|source| self.partial.failed(source))
            }
            Body::Parquet(body) => body.write(cells).map_err(|source| self.partial.refused(source)),
        }
    }

    pub(crate) fn finish(self) -> Result<(), IngestError> {
        let Self { mut partial, body, .. } = self;
        let written = match body {
            Body::Csv(encoder) | Body::Jsonl(encoder) => encoder.finish().map_err(|source| partial.failed(source)),
            Body::Parquet(body) => body.finish().map_err(|source| partial.refused(source)),
        };
        written.and_then(|()| partial.publish())
    }
}

impl Body {
    fn create(file: File, format: Format, columns: &[Column]) -> Result<Self, ParquetError> {
        let encoder = match format {
            Format::Parquet => return Ok(Self::Parquet(Box::new(ParquetBody::create(file, columns)?))),
            Format::Csv | Format::Jsonl => Encoder::Plain(BufWriter::new(file)),
            Format::CsvGz | Format::JsonlGz => {
                Encoder::Gz(GzEncoder::new(BufWriter::new(file), flate2::Compression::default()))
            }
            Format::CsvZst | Format::JsonlZst => Encoder::Zst(zstd::Encoder::new(BufWriter::new(file), 0)?),
        };
        if matches!(format, Format::Jsonl | Format::JsonlGz | Format::JsonlZst) {
            return Ok(Self::Jsonl(encoder));
        }
        let mut encoder = encoder;
        let names: Vec<&str> = columns.iter().map(|column| column.name).collect();
        writeln!(encoder, "{}", names.join(","))?;
        Ok(Self::Csv(encoder))
    }
}

/// A name that says that the file is not whole; the file is removed unless it is published.
#[derive(Debug)]
struct PartialFile {
    path: PathBuf,
    target: PathBuf,
    is_published: bool,
}

impl PartialFile {
    fn new(dir: &Path, name: &str) -> Self {
        // A leading dot keeps readers away from it.
        Self { path: dir.join(format!(".{name}.partial")), target: dir.join(name), is_published: false }
    }

    fn publish(&mut self) -> Result<(), IngestError> {
        std::fs::rename(&self.path, &self.target).map_err(|source| self.failed(source))?;
        self.is_published = true;
        Ok(())
    }

    fn failed(&self, source: std::io::Error) -> IngestError {
        IngestError::WriteFile { path: self.target.clone(), source }
    }

    fn refused(&self, source: ParquetError) -> IngestError {
        IngestError::WriteParquet { path: self.target.clone(), source }
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        if !self.is_published {
            // Nobody can be told in a drop, and a left-over partial file is ignored by readers.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

enum Encoder {
    Plain(BufWriter<File>),
    Gz(GzEncoder<BufWriter<File>>),
    Zst(zstd::Encoder<'static, BufWriter<File>>),
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Encoder")
    }
}

impl Encoder {
    fn finish(self) -> std::io::Result<()> {
        let mut file = match self {
            Self::Plain(file) => file,
            Self::Gz(encoder) => encoder.finish()?,
            Self::Zst(encoder) => encoder.finish()?,
        };
        file.flush()
    }
}

impl Write for Encoder {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(file) => file.write(bytes),
            Self::Gz(encoder) => encoder.write(bytes),
            Self::Zst(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Plain(file) => file.flush(),
            Self::Gz(encoder) => encoder.flush(),
            Self::Zst(encoder) => encoder.flush(),
        }
    }
}

fn write_csv(out: &mut Encoder, cells: &[Cell<'_>]) -> std::io::Result<()> {
    for (index, cell) in cells.iter().enumerate() {
        if index > 0 {
            out.write_all(b",")?;
        }
        match cell {
            Cell::Null => {}
            Cell::Text(text) if text.contains(['"', ',', '\n', '\r']) => {
                write!(out, "\"{}\"", text.replace('"', "\"\""))?;
            }
            Cell::Text(text) => out.write_all(text.as_bytes())?,
            Cell::Unsigned(number) => write!(out, "{number}")?,
            Cell::Signed(number) => write!(out, "{number}")?,
            Cell::Float(number) => write_float(out, *number, "")?,
        }
    }
    out.write_all(b"\n")
}

fn write_json(out: &mut Encoder, columns: &[Column], cells: &[Cell<'_>]) -> std::io::Result<()> {
    let mut separator = '{';
    for (column, cell) in columns.iter().zip(cells) {
        if matches!(cell, Cell::Null) {
            continue;
        }
        write!(out, "{separator}\"{}\":", column.name)?;
        separator = ',';
        match cell {
            Cell::Null => {}
            Cell::Text(text) => serde_json::to_writer(&mut *out, text)?,
            Cell::Unsigned(number) => write!(out, "{number}")?,
            Cell::Signed(number) => write!(out, "{number}")?,
            Cell::Float(number) => write_float(out, *number, "\"")?,
        }
    }
    out.write_all(b"}\n")
}

/// Shortest text that reads back to the same bits; `quote` surrounds what is no JSON number.
fn write_float(out: &mut Encoder, number: f64, quote: &str) -> std::io::Result<()> {
    if number.is_nan() {
        write!(out, "{quote}NaN{quote}")
    } else if number.is_infinite() {
        let sign = if number < 0.0 { "-" } else { "" };
        write!(out, "{quote}{sign}Infinity{quote}")
    } else {
        // Debug, because Display writes 1e300 as three hundred zeros.
        write!(out, "{number:?}")
    }
}

#[derive(Debug)]
struct ParquetBody {
    writer: ArrowWriter<File>,
    schema: SchemaRef,
    builders: Vec<Builder>,
}

/// One Arrow column while it is built.
#[derive(Debug)]
pub(crate) enum Builder {
    Text(StringBuilder),
    U32(UInt32Builder),
    U64(UInt64Builder),
    Float(Float64Builder),
    Time(TimestampNanosecondBuilder),
}

impl Builder {
    pub(crate) fn new(column: &Column) -> Self {
        match column.column_type {
            ColumnType::Str => Self::Text(StringBuilder::new()),
            ColumnType::U32 => Self::U32(UInt32Builder::new()),
            ColumnType::U64 => Self::U64(UInt64Builder::new()),
            ColumnType::F64 => Self::Float(Float64Builder::new()),
            ColumnType::Time => Self::Time(TimestampNanosecondBuilder::new().with_timezone("UTC")),
        }
    }

    pub(crate) fn push(&mut self, cell: Cell<'_>) {
        match (self, cell) {
            (Self::Text(builder), Cell::Text(text)) => builder.append_value(text),
            (Self::Text(builder), _) => builder.append_null(),
            (Self::U32(builder), Cell::Unsigned(number)) => builder.append_option(u32::try_from(number).ok()),
            (Self::U32(builder), _) => builder.append_null(),
            (Self::U64(builder), Cell::Unsigned(number)) => builder.append_value(number),
            (Self::U64(builder), _) => builder.append_null(),
            (Self::Float(builder), Cell::Float(number)) => builder.append_value(number),
            (Self::Float(builder), _) => builder.append_null(),
            (Self::Time(builder), Cell::Signed(number)) => builder.append_value(number),
            (Self::Time(builder), _) => builder.append_null(),
        }
    }

    pub(crate) fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Text(builder) => ArrayBuilder::finish(builder),
            Self::U32(builder) => ArrayBuilder::finish(builder),
            Self::U64(builder) => ArrayBuilder::finish(builder),
            Self::Float(builder) => ArrayBuilder::finish(builder),
            Self::Time(builder) => ArrayBuilder::finish(builder),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Text(builder) => builder.len(),
            Self::U32(builder) => builder.len(),
            Self::U64(builder) => builder.len(),
            Self::Float(builder) => builder.len(),
            Self::Time(builder) => builder.len(),
        }
    }
}

impl ParquetBody {
    fn create(file: File, columns: &[Column]) -> Result<Self, ParquetError> {
        // Every column is nullable: a required text that is empty is written as null, and the reader sets it aside.
        let fields: Vec<Field> =
            columns.iter().map(|column| Field::new(column.name, column.column_type.arrow(), true)).collect();
        let schema = Arc::new(Schema::new(fields));
        let compression = Compression::ZSTD(ZstdLevel::try_new(1)?);
        let properties = WriterProperties::builder().set_compression(compression).build();
        let writer = ArrowWriter::try_new(file, Arc::clone(&schema), Some(properties))?;
        Ok(Self { writer, schema, builders: columns.iter().map(Builder::new).collect() })
    }

    fn write(&mut self, cells: &[Cell<'_>]) -> Result<(), ParquetError> {
        for (builder, cell) in self.builders.iter_mut().zip(cells) {
            builder.push(*cell);
        }
        if self.builders[0].len() >= BATCH_ROWS { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), ParquetError> {
        let arrays = self.builders.iter_mut().map(Builder::finish).collect();
        self.writer.write(&RecordBatch::try_new(Arc::clone(&self.schema), arrays)?)
    }

    fn finish(mut self) -> Result<(), ParquetError> {
        self.flush()?;
        self.writer.close().map(|_metadata| ())
    }
}
