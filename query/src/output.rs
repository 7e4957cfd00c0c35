//! How an answer is written.

use std::io::{self, Write};

use datafusion::arrow::array::{Array, AsArray, RecordBatch};
use datafusion::arrow::datatypes::{
    DataType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, SchemaRef, TimestampNanosecondType,
    UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use datafusion::arrow::ipc::writer::StreamWriter;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::QueryError;

/// Form of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Form {
    /// A frame of lines, for people.
    #[default]
    Table,
    /// Comma-separated values with a header.
    Csv,
    /// Tab-separated values with a header.
    Tsv,
    /// One array of objects.
    Json,
    /// An object a line.
    NdJson,
    /// A stream of Arrow IPC.
    Arrow,
}

/// Refuses what goes beyond a number of bytes.
#[derive(Debug)]
pub(crate) struct Capped<W> {
    inner: W,
    left: u64,
}

impl<W: Write> Capped<W> {
    pub(crate) fn new(inner: W, most: u64) -> Self {
        Self { inner, left: most }
    }
}

impl<W: Write> Write for Capped<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() as u64 > self.left {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        let written = self.inner.write(bytes)?;
        self.left -= written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Writes the answer to one statement, batch by batch.
pub(crate) struct Writer<'a> {
    out: &'a mut dyn Write,
    form: Form,
    schema: SchemaRef,
    /// Rows that a table still shows; other forms give all.
    rows_left: usize,
    rows: u64,
    held: Vec<RecordBatch>,
    arrow: Option<StreamWriter<Vec<u8>>>,
}

impl<'a> Writer<'a> {
    /// * `rows_max`: rows that a table shows.
    pub(crate) fn new(
        out: &'a mut dyn Write,
        form: Form,
        schema: SchemaRef,
        rows_max: usize,
    ) -> Result<Self, QueryError> {
        match form {
            Form::Csv | Form::Tsv => write_line(out, form, schema.fields().iter().map(|field| field.name().clone()))?,
            Form::Json => out.write_all(b"[")?,
            Form::Table | Form::NdJson | Form::Arrow => {}
        }
        let arrow = match form {
            Form::Arrow => Some(StreamWriter::try_new(Vec::new(), &schema)?),
            _ => None,
        };
        Ok(Self { out, form, schema, rows_left: rows_max, rows: 0, held: Vec::new(), arrow })
    }

    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<(), QueryError> {
        let before = self.rows;
        self.rows += batch.num_rows() as u64;
        match self.form {
            Form::Table => {
                let shown = batch.num_rows().min(self.rows_left);
                self.rows_left -= shown;
                if shown > 0 {
                    self.held.push(batch.slice(0, shown));
                }
            }
            Form::Csv | Form::Tsv => self.write_lines(batch)?,
            Form::Json | Form::NdJson => self.write_objects(batch, before)?,
            Form::Arrow => {
                let writer = self.arrow.as_mut().expect("it is made for this form");
                writer.write(batch)?;
                self.out.write_all(writer.get_ref())?;
                writer.get_mut().clear();
            }
        }
        Ok(())
    }

    /// Writes what is left; returns the number of rows of the answer.
    pub(crate) fn finish(mut self) -> Result<u64, QueryError> {
        match self.form {
            Form::Table => self.write_table()?,
            Form::Json => self.out.write_all(b"]\n")?,
            Form::Csv | Form::Tsv | Form::NdJson => {}
            Form::Arrow => {
                let mut writer = self.arrow.take().expect("it is made for this form");
                writer.finish()?;
                self.out.write_all(writer.get_ref())?;
            }
        }
        Ok(self.rows)
    }

    fn write_table(&mut self) -> Result<(), QueryError> {
        let options = FormatOptions::default().with_timestamp_tz_format(Some("%Y-%m-%dT%H:%M:%S%.fZ"));
        let empty = [RecordBatch::new_empty(SchemaRef::clone(&self.schema))];
        let batches = if self.held.is_empty() { &empty[..] } else { &self.held[..] };
        let text = datafusion::arrow::util::pretty::pretty_format_batches_with_options(batches, &options)?.to_string();
        self.out.write_all(printable(&text).as_bytes())?;
        self.out.write_all(b"\n")?;
        let shown: usize = self.held.iter().map(RecordBatch::num_rows).sum();
        if (shown as u64) < self.rows {
            writeln!(
                self.out,
                "... {} more rows: see them with --maxrows or another --format",
                self.rows - shown as u64
            )?;
        }
        Ok(())
    }

    fn write_lines(&mut self, batch: &RecordBatch) -> Result<(), QueryError> {
        let options = FormatOptions::default();
        let formatters: Vec<ArrayFormatter<'_>> =
            batch.columns().iter().map(|cells| ArrayFormatter::try_new(cells, &options)).collect::<Result<_, _>>()?;
        for row in 0..batch.num_rows() {
            let cells = batch.columns().iter().zip(&formatters).map(|(cells, formatter)| match cells.data_type() {
                _ if cells.is_null(row) => String::new(),
                DataType::Timestamp(..) | DataType::List(_) | DataType::Struct(_) => match json_of(cells, row) {
                    Value::String(text) => text,
                    value => value.to_string(),
                },
                _ => formatter.value(row).to_string(),
            });
            write_line(self.out, self.form, cells)?;
        }
        Ok(())
    }

    fn write_objects(&mut self, batch: &RecordBatch, before: u64) -> Result<(), QueryError> {
        for row in 0..batch.num_rows() {
            if self.form == Form::Json && before + row as u64 > 0 {
                self.out.write_all(b",\n")?;
            }
            // Written by hand, because an object in memory would sort the columns.
            self.out.write_all(b"{")?;
            for (at, (field, cells)) in self.schema.fields().iter().zip(batch.columns()).enumerate() {
                let comma = if at > 0 { "," } else { "" };
                let name = Value::String(field.name().clone());
                write!(self.out, "{comma}{name}:{}", json_of(cells, row))?;
            }
            self.out.write_all(if self.form == Form::Json { b"}" } else { b"}\n" })?;
        }
        Ok(())
    }
}

fn write_line(out: &mut dyn Write, form: Form, cells: impl Iterator<Item = String>) -> io::Result<()> {
    let between = if form == Form::Tsv { "\t" } else { "," };
    for (at, cell) in cells.enumerate() {
        out.write_all(if at > 0 { between.as_bytes() } else { b"" })?;
        if cell.contains([',', '"', '\n', '\r', '\t']) {
            write!(out, "\"{}\"", cell.replace('"', "\"\""))?;
        } else {
            out.write_all(cell.as_bytes())?;
        }
    }
    out.write_all(b"\n")
}

/// Text of telemetry is written by others: what steers a terminal is shown, not done.
fn printable(text: &str) -> String {
    let shown = |character: char| match character {
        '\n' => '\n',
        control if control.is_control() => '\u{fffd}',
        other => other,
    };
    text.chars().map(shown).collect()
}

/// One cell; times are nanoseconds, and what JSON has no number for is text, as in the tables' JSON lines.
fn json_of(cells: &dyn Array, row: usize) -> Value {
    if cells.is_null(row) {
        return Value::Null;
    }
    match cells.data_type() {
        DataType::Null => Value::Null,
        DataType::Boolean => Value::Bool(cells.as_boolean().value(row)),
        DataType::Int8 => cells.as_primitive::<Int8Type>().value(row).into(),
        DataType::Int16 => cells.as_primitive::<Int16Type>().value(row).into(),
        DataType::Int32 => cells.as_primitive::<Int32Type>().value(row).into(),
        DataType::Int64 => cells.as_primitive::<Int64Type>().value(row).into(),
        DataType::UInt8 => cells.as_primitive::<UInt8Type>().value(row).into(),
        DataType::UInt16 => cells.as_primitive::<UInt16Type>().value(row).into(),
        DataType::UInt32 => cells.as_primitive::<UInt32Type>().value(row).into(),
        DataType::UInt64 => cells.as_primitive::<UInt64Type>().value(row).into(),
        DataType::Float32 => json_float(cells.as_primitive::<Float32Type>().value(row).into()),
        DataType::Float64 => json_float(cells.as_primitive::<Float64Type>().value(row)),
        DataType::Timestamp(datafusion::arrow::datatypes::TimeUnit::Nanosecond, _) => {
            cells.as_primitive::<TimestampNanosecondType>().value(row).into()
        }
        DataType::List(_) => {
            let items = cells.as_list::<i32>().value(row);
            (0..items.len()).map(|at| json_of(&items, at)).collect()
        }
        DataType::Struct(fields) => {
            let columns = cells.as_struct().columns().iter();
            let members = fields.iter().zip(columns).map(|(field, cells)| (field.name().clone(), json_of(cells, row)));
            Value::Object(members.collect())
        }
        _ => {
            let formatter = ArrayFormatter::try_new(cells, &FormatOptions::default());
            let text = formatter.and_then(|formatter| formatter.value(row).try_to_string());
            Value::String(text.unwrap_or_else(|error| error.to_string()))
        }
    }
}

fn json_float(value: f64) -> Value {
    let name = match value {
        value if value.is_nan() => "NaN",
        f64::INFINITY => "Infinity",
        f64::NEG_INFINITY => "-Infinity",
        value => return value.into(),
    };
    name.into()
}
