//! Decodes Parquet: row group by row group, so that a damaged one costs no other, and only the columns needed.

use std::cell::Cell;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Once};

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::errors::ParquetError;
use trainwarden_telemetry::{Column, ColumnType};

use crate::batch::{Batch, Data, Places, Sink};
use crate::cell::expected;
use crate::columns::{Bad, batch_of, drop_rows};
use crate::folder::TableSource;
use crate::limits::BATCH_ROWS;
use crate::reject::{cut, reason};
use crate::{IngestError, Place, Reject, Rejects};

/// Reads a Parquet file and hands its good rows on.
pub(crate) fn read_parquet(
    source: &TableSource,
    sink: &mut dyn Sink,
    rejects: &mut Rejects,
) -> Result<(), IngestError> {
    let failed = |cause| IngestError::ReadFile { path: source.path.clone(), source: cause };
    let file = File::open(&source.path).map_err(failed)?;
    let metadata = match guarded(|| load(&file)) {
        Ok(metadata) => metadata,
        Err(damage) => {
            rejects.add(&source.reject(Place::File, reason::DAMAGED, damage));
            return Ok(());
        }
    };
    let Some(fields) = fields_of(source, metadata.schema(), rejects) else { return Ok(()) };
    let mut first_row = 1;
    for group in 0..metadata.metadata().num_row_groups() {
        let group_reader = GroupReader { source, file: &file, metadata: &metadata, fields: &fields, group };
        group_reader.read(first_row, sink, rejects)?;
        first_row += u64::try_from(metadata.metadata().row_group(group).num_rows()).unwrap_or(0);
    }
    Ok(())
}

/// The footer, and a schema that reads texts as codes into the dictionary that the file mostly has anyway.
fn load(file: &File) -> Result<ArrowReaderMetadata, ParquetError> {
    let plain = ArrowReaderMetadata::load(file, ArrowReaderOptions::new())?;
    let fields: Vec<Arc<Field>> = plain.schema().fields().iter().map(coded).collect();
    let schema = Arc::new(Schema::new_with_metadata(fields, plain.schema().metadata().clone()));
    let options = ArrowReaderOptions::new().with_schema(schema);
    Ok(ArrowReaderMetadata::try_new(Arc::clone(plain.metadata()), options).unwrap_or(plain))
}

fn coded(field: &Arc<Field>) -> Arc<Field> {
    // Bytes that are not marked as text are not coded: the decoder panics on them.
    let is_text = |data_type: &DataType| matches!(data_type, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
    match field.data_type() {
        DataType::Dictionary(_, value) if is_text(value) => {}
        data_type if is_text(data_type) => {}
        _ => return Arc::clone(field),
    }
    let codes = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    Arc::new(field.as_ref().clone().with_data_type(codes))
}

/// For each column of the table its place in the file; `None`, and a reject, when the file cannot be of this table.
fn fields_of(source: &TableSource, schema: &SchemaRef, rejects: &mut Rejects) -> Option<Vec<Option<usize>>> {
    let mut fields = Vec::new();
    for column in source.table.columns() {
        let field = schema.fields().iter().position(|field| field.name() == column.name);
        let (reason, detail) = match field.map(|index| schema.field(index).data_type()) {
            None if column.is_optional || source.partition(column.name).is_some() => {
                fields.push(None);
                continue;
            }
            None => {
                let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
                (reason::NO_COLUMN, format!("the file has \"{}\"", cut(&names.join(","), 80)))
            }
            Some(data_type) if fits(data_type, column.column_type) => {
                fields.push(field);
                continue;
            }
            Some(data_type) => {
                let data_type = if let DataType::Dictionary(_, value) = data_type { value } else { data_type };
                (reason::WRONG_TYPE, format!("{data_type}, where {} is needed", expected(column.column_type)))
            }
        };
        rejects.add(&Reject { column: Some(column.name), ..source.reject(Place::File, reason, detail) });
        return None;
    }
    Some(fields)
}

/// True when values of this Arrow type may stand in a column of this type.
pub(crate) fn fits(data_type: &DataType, column_type: ColumnType) -> bool {
    use DataType::{Binary, BinaryView, Dictionary, LargeBinary, LargeUtf8, Null, Timestamp, Utf8, Utf8View};
    match data_type {
        Null => true,
        Dictionary(_, value) => fits(value, column_type),
        Timestamp(..) => column_type == ColumnType::Time,
        Utf8 | LargeUtf8 | Utf8View | Binary | LargeBinary | BinaryView => column_type == ColumnType::Str,
        number => (number.is_integer() || number.is_floating()) && column_type != ColumnType::Str,
    }
}

struct GroupReader<'a> {
    source: &'a TableSource,
    file: &'a File,
    metadata: &'a ArrowReaderMetadata,
    fields: &'a [Option<usize>],
    group: usize,
}

impl GroupReader<'_> {
    fn read(&self, first_row: u64, sink: &mut dyn Sink, rejects: &mut Rejects) -> Result<(), IngestError> {
        let mut row = first_row;
        let mut reader = match guarded(|| self.open()) {
            Ok(reader) => reader,
            Err(damage) => {
                rejects.add(&self.damaged(row, &damage));
                return Ok(());
            }
        };
        loop {
            match guarded(|| reader.next().transpose().map_err(ParquetError::from)) {
                Ok(Some(decoded)) => {
                    let batch = self.batch(&decoded, row, rejects);
                    sink.take(batch, self.source, rejects)?;
                    row += decoded.num_rows() as u64;
                }
                Ok(None) => return Ok(()),
                Err(damage) => {
                    rejects.add(&self.damaged(row, &damage));
                    return Ok(());
                }
            }
        }
    }

    fn open(&self) -> Result<ParquetRecordBatchReader, ParquetError> {
        let mask = ProjectionMask::roots(self.metadata.parquet_schema(), self.fields.iter().flatten().copied());
        ParquetRecordBatchReaderBuilder::new_with_metadata(self.file.try_clone()?, self.metadata.clone())
            .with_row_groups(vec![self.group])
            .with_projection(mask)
            .with_batch_size(BATCH_ROWS)
            .build()
    }

    fn damaged(&self, row: u64, damage: &str) -> Reject {
        let rows = self.metadata.metadata().row_group(self.group).num_rows();
        let detail = format!("from row {row} on, of a group of {rows}: {damage}");
        self.source.reject(Place::RowGroup(self.group as u64 + 1), reason::DAMAGED, detail)
    }

    /// The good rows of what was decoded; the others are counted.
    fn batch(&self, decoded: &RecordBatch, first: u64, rejects: &mut Rejects) -> Batch {
        let schema = self.metadata.schema();
        let fields: Vec<Option<&str>> =
            self.fields.iter().map(|field| field.map(|field| schema.field(field).name().as_str())).collect();
        let constant = |column: &Column| constant(self.source, column.name, column.column_type, decoded.num_rows());
        let (mut batch, bad) = batch_of(self.source.table, decoded, &fields, &constant);
        batch.places = Places::Rows { first, indices: None };
        if !bad.is_empty() {
            self.set_aside(&mut batch, bad, decoded, rejects);
        }
        batch
    }

    fn set_aside(&self, batch: &mut Batch, bad: Vec<Bad>, decoded: &RecordBatch, rejects: &mut Rejects) {
        for fault in &bad {
            let place = batch.place(fault.row);
            let cell = decoded.column_by_name(fault.column).map(|array| shown(array, fault.row)).unwrap_or_default();
            let reject = self.source.reject(
                place,
                fault.reason,
                if fault.reason == reason::MISSING { String::new() } else { cell },
            );
            let row = Some(describe(decoded, fault.row));
            rejects.add(&Reject { column: Some(fault.column), row, ..reject });
        }
        drop_rows(batch, &bad);
    }
}

/// A column that is not in the file: from the folder's name, else null.
fn constant(source: &TableSource, name: &str, column_type: ColumnType, rows: usize) -> Data {
    let cell = source.partition(name).unwrap_or_default().as_bytes();
    let mut data = Data::new(column_type);
    for _ in 0..rows {
        // A folder's name that is no number leaves the column null, which a required column does not take.
        if data.push_text(cell).is_err() {
            data.push_null();
        }
    }
    data
}

fn shown(array: &dyn arrow::array::Array, row: usize) -> String {
    arrow::util::display::array_value_to_string(array, row).unwrap_or_default()
}

fn describe(decoded: &RecordBatch, row: usize) -> String {
    let schema = decoded.schema();
    let cells = schema.fields().iter().zip(decoded.columns());
    cells.map(|(field, array)| format!("{}={}", field.name(), shown(array, row))).collect::<Vec<_>>().join(",")
}

thread_local! {
    static IS_GUARDED: Cell<bool> = const { Cell::new(false) };
}

/// Runs decoding that may panic on damaged files, and gives either way of failing as text.
///
/// This is the one place where a panic is caught: the decoder indexes into bytes it has not checked. Its message is the
/// reject's detail, so it is kept off stderr.
pub(crate) fn guarded<T>(decode: impl FnOnce() -> Result<T, ParquetError>) -> Result<T, String> {
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !IS_GUARDED.get() {
                usual(info);
            }
        }));
    });
    IS_GUARDED.set(true);
    // What the closures hold is dropped after a panic and never read again.
    let decoded = catch_unwind(AssertUnwindSafe(decode));
    IS_GUARDED.set(false);
    match decoded {
        Ok(decoded) => decoded.map_err(|error| error.to_string()),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            Err(format!("the decoder gave up: {}", text.unwrap_or("no reason given")))
        }
    }
}

#[cfg(test)]
mod tests;
