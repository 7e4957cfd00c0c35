//! Packed columns: what small batches are on the wire.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, DictionaryArray, Float64Array, Int32Array, RecordBatch, RecordBatchOptions, StringArray,
    TimestampNanosecondArray, UInt32Array, UInt64Array,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{Field, Float64Type, Schema, TimestampNanosecondType, UInt32Type, UInt64Type};
use trainwarden_proto::v1::{Column as Packed, Columns};
use trainwarden_telemetry::{Column, ColumnType, Table};

use super::FrameError;
use crate::limits::PAYLOAD_ROWS_MAX;

/// Packs rows whose columns have the types of their table.
pub(super) fn pack(batch: &RecordBatch) -> Columns {
    let schema = batch.schema();
    let columns = schema.fields().iter().zip(batch.columns());
    Columns {
        rows: u32::try_from(batch.num_rows()).expect("small batches are packed"),
        columns: columns.map(|(field, array)| pack_column(field.name(), array)).collect(),
    }
}

fn pack_column(name: &str, array: &ArrayRef) -> Packed {
    let absent = (0..array.len()).filter(|&row| array.is_null(row));
    let absent = absent.map(|row| u32::try_from(row).expect("small batches are packed")).collect();
    let mut packed = Packed { name: name.to_owned(), absent, ..Packed::default() };
    if let Some(numbers) = array.as_primitive_opt::<UInt32Type>() {
        packed.unsigned = numbers.iter().map(|number| number.unwrap_or(0).into()).collect();
    } else if let Some(numbers) = array.as_primitive_opt::<UInt64Type>() {
        packed.unsigned = numbers.iter().map(|number| number.unwrap_or(0)).collect();
    } else if let Some(numbers) = array.as_primitive_opt::<Float64Type>() {
        packed.values = numbers.iter().map(|number| number.unwrap_or(0.0)).collect();
    } else if let Some(times) = array.as_primitive_opt::<TimestampNanosecondType>() {
        let mut before = 0_i64;
        packed.times = times.iter().map(|time| delta(&mut before, time.unwrap_or(0))).collect();
    } else if let Some(texts) = array.as_string_opt::<i32>() {
        pack_texts(texts, &mut packed);
    }
    packed
}

fn delta(before: &mut i64, time: i64) -> i64 {
    let delta = time.wrapping_sub(*before);
    *before = time;
    delta
}

fn pack_texts(texts: &StringArray, packed: &mut Packed) {
    let mut codes: HashMap<&str, u32> = HashMap::new();
    for text in texts {
        let text = text.unwrap_or_default();
        let next = u32::try_from(codes.len()).expect("small batches are packed");
        let code = *codes.entry(text).or_insert_with(|| {
            packed.texts.push(text.to_owned());
            next
        });
        packed.codes.push(code);
    }
}

/// Unpacks rows of a table; columns that the table does not have are left out.
pub(super) fn unpack(table: Table, columns: Columns) -> Result<RecordBatch, FrameError> {
    let rows = columns.rows as usize;
    if rows > PAYLOAD_ROWS_MAX {
        return Err(FrameError::Oversized { bytes: rows as u64, bytes_max: PAYLOAD_ROWS_MAX as u64 });
    }
    let (mut fields, mut arrays) = (Vec::new(), Vec::new());
    for packed in columns.columns {
        let Some(column) = table.columns().iter().find(|column| column.name == packed.name) else { continue };
        let array = unpack_column(column, packed, rows).map_err(|reason| FrameError::Schema {
            table: table.as_str(),
            column: column.name.to_owned(),
            reason: reason.to_owned(),
        })?;
        fields.push(Field::new(column.name, array.data_type().clone(), true));
        arrays.push(array);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)
        .map_err(|error| FrameError::Damaged { reason: error.to_string() })
}

fn unpack_column(column: &Column, packed: Packed, rows: usize) -> Result<ArrayRef, &'static str> {
    let nulls = nulls(&packed.absent, rows)?;
    let fits = |len: usize| if len == rows { Ok(()) } else { Err("has another number of values than there are rows") };
    match column.column_type {
        ColumnType::Str => {
            fits(packed.codes.len())?;
            let texts = StringArray::from(packed.texts);
            let codes: Result<Vec<i32>, _> = packed.codes.into_iter().map(i32::try_from).collect();
            let codes = Int32Array::new(codes.map_err(|_| "has a code beyond its texts")?.into(), nulls);
            let coded = DictionaryArray::try_new(codes, Arc::new(texts)).map_err(|_| "has a code beyond its texts")?;
            Ok(Arc::new(coded))
        }
        ColumnType::U32 => {
            fits(packed.unsigned.len())?;
            let numbers: Result<Vec<u32>, _> = packed.unsigned.into_iter().map(u32::try_from).collect();
            Ok(Arc::new(UInt32Array::new(numbers.map_err(|_| "has a number beyond 32 bits")?.into(), nulls)))
        }
        ColumnType::U64 => {
            fits(packed.unsigned.len())?;
            Ok(Arc::new(UInt64Array::new(packed.unsigned.into(), nulls)))
        }
        ColumnType::F64 => {
            fits(packed.values.len())?;
            Ok(Arc::new(Float64Array::new(packed.values.into(), nulls)))
        }
        ColumnType::Time => {
            fits(packed.times.len())?;
            let mut time = 0_i64;
            let times: Vec<i64> = packed.times.into_iter().map(|delta| advance(&mut time, delta)).collect();
            Ok(Arc::new(TimestampNanosecondArray::new(times.into(), nulls).with_timezone("UTC")))
        }
    }
}

fn advance(time: &mut i64, delta: i64) -> i64 {
    *time = time.wrapping_add(delta);
    *time
}

fn nulls(absent: &[u32], rows: usize) -> Result<Option<NullBuffer>, &'static str> {
    if absent.is_empty() {
        return Ok(None);
    }
    let mut present = vec![true; rows];
    for row in absent {
        *present.get_mut(*row as usize).ok_or("is absent in a row that there is not")? = false;
    }
    Ok(Some(NullBuffer::from(present)))
}
