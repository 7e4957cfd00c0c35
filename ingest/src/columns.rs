//! Arrow arrays into the columns of a batch.

use arrow::array::{AnyDictionaryArray, Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit};
use arrow::datatypes::{
    Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use trainwarden_telemetry::{Column, Table};

use crate::batch::{Batch, Data, NO_VALUE, Places, TextColumn, canonical};
use crate::cell::{Reason, integer_of_float, time_of, u32_of, u64_of};
use crate::reject::reason;
use crate::{NO_TIME, NO_U32, NO_U64};

/// A cell that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bad {
    pub(crate) row: usize,
    pub(crate) column: &'static str,
    pub(crate) reason: Reason,
}

/// The rows of a decoded batch, and at most one fault of each row that is not good, in the order of rows.
///
/// * `fields`: for each column of the table its name in `decoded`; where there is none, `constant` gives the column.
pub(crate) fn batch_of(
    table: Table,
    decoded: &RecordBatch,
    fields: &[Option<&str>],
    constant: &dyn Fn(&Column) -> Data,
) -> (Batch, Vec<Bad>) {
    let rows = decoded.num_rows();
    let mut bad: Vec<Bad> = Vec::new();
    let mut columns = Vec::new();
    for (column, field) in table.columns().iter().zip(fields) {
        let data = match field.and_then(|name| decoded.column_by_name(name)) {
            Some(array) => data_of(array, column, &mut bad),
            None => constant(column),
        };
        if !column.is_optional {
            let nulls = (0..rows).filter(|&row| data.is_null(row));
            bad.extend(nulls.map(|row| Bad { row, column: column.name, reason: reason::MISSING }));
        }
        columns.push(data);
    }
    // The sort is stable: of several faults the first column's is told. A cell refused is null afterwards, and so
    // told as missing a second time.
    bad.sort_by_key(|bad| bad.row);
    bad.dedup_by_key(|bad| bad.row);
    (Batch { table, rows, columns, places: Places::Rows { first: 1, indices: None } }, bad)
}

/// Takes rows with a fault out, one fault a row and in the order of rows.
pub(crate) fn drop_rows(batch: &mut Batch, bad: &[Bad]) {
    let mut faults = bad.iter().map(|bad| bad.row).peekable();
    let good = (0..batch.rows).filter(|&row| faults.next_if_eq(&row).is_none());
    batch.keep(good.map(|row| u32::try_from(row).expect("a batch is small")).collect());
}

/// The column of an array whose type fits; cells that do not fit are null and in `bad`.
fn data_of(array: &ArrayRef, column: &Column, bad: &mut Vec<Bad>) -> Data {
    let mut refuse = |row, reason| bad.push(Bad { row, column: column.name, reason });
    match Data::new(column.column_type) {
        Data::Text(_) => Data::Text(text(array, &mut refuse)),
        Data::U32(_) => Data::U32(match array.as_primitive_opt::<UInt32Type>() {
            Some(array) => same(array, NO_U32, &mut refuse),
            None => numbers(array, NO_U32, u32_of, &mut refuse),
        }),
        Data::U64(_) => Data::U64(match array.as_primitive_opt::<UInt64Type>() {
            Some(array) => same(array, NO_U64, &mut refuse),
            None => numbers(array, NO_U64, u64_of, &mut refuse),
        }),
        Data::Time(_) => Data::Time(times(array, &mut refuse)),
        Data::F64(_) => Data::F64(floats(array)),
    }
}

/// Values that need no conversion; the one that stands for null inside is out of range.
fn same<A: ArrowPrimitiveType>(
    array: &PrimitiveArray<A>,
    null: A::Native,
    refuse: &mut impl FnMut(usize, Reason),
) -> Vec<A::Native> {
    if array.null_count() == 0 && !array.values().contains(&null) {
        return array.values().to_vec();
    }
    let take = |number| if number == null { Err(reason::OUT_OF_RANGE) } else { Ok(Some(number)) };
    each(array, null, take, refuse)
}

/// Values taken one by one; a cell that is null or refused becomes `null`.
fn each<A: ArrowPrimitiveType, T: Copy>(
    array: &PrimitiveArray<A>,
    null: T,
    take: impl Fn(A::Native) -> Result<Option<T>, Reason>,
    refuse: &mut impl FnMut(usize, Reason),
) -> Vec<T> {
    let mut column = vec![null; array.len()];
    for (row, value) in array.iter().enumerate() {
        match value.map_or(Ok(None), &take) {
            Ok(Some(number)) => column[row] = number,
            Ok(None) => {}
            Err(reason) => refuse(row, reason),
        }
    }
    column
}

/// Whole numbers of any width, and floats that hold whole numbers, NaN for none (as data frames write them).
fn numbers<T: Copy>(
    array: &ArrayRef,
    null: T,
    fit: impl Fn(i128) -> Result<T, Reason> + Copy,
    refuse: &mut impl FnMut(usize, Reason),
) -> Vec<T> {
    let whole = |number: i128| fit(number).map(Some);
    let float = |number: f64| if number.is_nan() { Ok(None) } else { integer_of_float(number).and_then(whole) };
    match array.data_type() {
        DataType::Int8 => each(array.as_primitive::<Int8Type>(), null, |number| whole(number.into()), refuse),
        DataType::Int16 => each(array.as_primitive::<Int16Type>(), null, |number| whole(number.into()), refuse),
        DataType::Int32 => each(array.as_primitive::<Int32Type>(), null, |number| whole(number.into()), refuse),
        DataType::Int64 => each(array.as_primitive::<Int64Type>(), null, |number| whole(number.into()), refuse),
        DataType::UInt8 => each(array.as_primitive::<UInt8Type>(), null, |number| whole(number.into()), refuse),
        DataType::UInt16 => each(array.as_primitive::<UInt16Type>(), null, |number| whole(number.into()), refuse),
        DataType::UInt32 => each(array.as_primitive::<UInt32Type>(), null, |number| whole(number.into()), refuse),
        DataType::UInt64 => each(array.as_primitive::<UInt64Type>(), null, |number| whole(number.into()), refuse),
        DataType::Float16 => each(array.as_primitive::<Float16Type>(), null, |number| float(number.into()), refuse),
        DataType::Float32 => each(array.as_primitive::<Float32Type>(), null, |number| float(number.into()), refuse),
        DataType::Float64 => each(array.as_primitive::<Float64Type>(), null, float, refuse),
        DataType::Dictionary(_, value) => match cast(array, value) {
            Ok(unpacked) => numbers(&unpacked, null, fit, refuse),
            Err(_) => vec![null; array.len()],
        },
        // Nulls only: no other type gets past the check of the schema.
        _ => vec![null; array.len()],
    }
}

/// Times of any unit, and whole nanoseconds.
fn times(array: &ArrayRef, refuse: &mut impl FnMut(usize, Reason)) -> Vec<i64> {
    let scaled = |scale: i128| move |number: i64| time_of(i128::from(number) * scale).map(Some);
    match array.data_type() {
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            same(array.as_primitive::<TimestampNanosecondType>(), NO_TIME, refuse)
        }
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            each(array.as_primitive::<TimestampMicrosecondType>(), NO_TIME, scaled(1_000), refuse)
        }
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            each(array.as_primitive::<TimestampMillisecondType>(), NO_TIME, scaled(1_000_000), refuse)
        }
        DataType::Timestamp(TimeUnit::Second, _) => {
            each(array.as_primitive::<TimestampSecondType>(), NO_TIME, scaled(1_000_000_000), refuse)
        }
        DataType::Int64 => same(array.as_primitive::<Int64Type>(), NO_TIME, refuse),
        _ => numbers(array, NO_TIME, time_of, refuse),
    }
}

/// Measured numbers of any width.
fn floats(array: &ArrayRef) -> Vec<f64> {
    // Every type that got past the check of the schema casts, and no cast of a number to a float overflows.
    let Ok(numbers) = cast(array, &DataType::Float64) else { return vec![NO_VALUE; array.len()] };
    let numbers = numbers.as_primitive::<Float64Type>();
    if numbers.null_count() == 0 {
        return numbers.values().iter().map(|&number| canonical(number)).collect();
    }
    numbers.iter().map(|number| number.map_or(NO_VALUE, canonical)).collect()
}

/// Text, coded by a dictionary or not.
fn text(array: &ArrayRef, refuse: &mut impl FnMut(usize, Reason)) -> TextColumn {
    let mut column = TextColumn::default();
    match array.data_type() {
        DataType::Dictionary(..) => coded(array.as_any_dictionary(), &mut column),
        DataType::LargeUtf8 => array.as_string::<i64>().iter().for_each(|text| column.push(text.unwrap_or_default())),
        DataType::Utf8View => array.as_string_view().iter().for_each(|text| column.push(text.unwrap_or_default())),
        DataType::Utf8 => array.as_string::<i32>().iter().for_each(|text| column.push(text.unwrap_or_default())),
        DataType::LargeBinary | DataType::BinaryView => match cast(array, &DataType::Binary) {
            Ok(bytes) => return text(&bytes, refuse),
            Err(_) => (0..array.len()).for_each(|_| column.push_null()),
        },
        DataType::Binary => {
            for (row, bytes) in array.as_binary::<i32>().iter().enumerate() {
                let text = std::str::from_utf8(bytes.unwrap_or_default());
                column.push(text.unwrap_or_default());
                if text.is_err() {
                    refuse(row, reason::INVALID_UTF8);
                }
            }
        }
        _ => (0..array.len()).for_each(|_| column.push_null()),
    }
    column
}

fn coded(array: &dyn AnyDictionaryArray, column: &mut TextColumn) {
    let values = array.values();
    if values.is_empty() {
        return (0..array.len()).for_each(|_| column.push_null());
    }
    let Ok(values) = cast(values, &DataType::Utf8) else { return (0..array.len()).for_each(|_| column.push_null()) };
    let values = values.as_string::<i32>();
    // Only texts that occur are taken over: a dictionary may serve many batches.
    let mut codes: Vec<Option<u32>> = vec![None; values.len()];
    for (row, key) in array.normalized_keys().into_iter().enumerate() {
        if array.is_null(row) || values.is_null(key) {
            column.push_null();
            continue;
        }
        let code = *codes[key].get_or_insert_with(|| column.add_text(values.value(key)));
        column.push_code(code);
    }
}
