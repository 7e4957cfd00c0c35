//! One cell of text or JSON into its column.

use std::borrow::Cow;

use trainwarden_telemetry::ColumnType;

use crate::batch::{Data, canonical};
use crate::reject::reason;
use crate::{NO_TIME, NO_U32, NO_U64};

/// Why a cell was refused: one of [`reason`].
pub(crate) type Reason = &'static str;

/// Why a row was refused.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) column: Option<&'static str>,
    pub(crate) reason: Reason,
    pub(crate) detail: String,
}

/// A value of a JSON object, or of a cell of another source that tells types apart.
#[derive(Clone, Debug)]
pub(crate) enum Value<'a> {
    Null,
    Bool,
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(Cow<'a, str>),
    /// An object or a list, as JSON text.
    Nested(String),
}

impl Data {
    /// Adds a cell of a CSV file; an empty one is null.
    pub(crate) fn push_text(&mut self, cell: &[u8]) -> Result<(), Reason> {
        if let Self::Text(column) = self {
            column.push(std::str::from_utf8(cell).map_err(|_| reason::INVALID_UTF8)?);
            return Ok(());
        }
        let number = std::str::from_utf8(cell.trim_ascii()).map_err(|_| reason::NOT_A_NUMBER)?;
        match self {
            _ if number.is_empty() => self.push_null(),
            Self::Text(_) => unreachable!("handled above"),
            Self::U32(column) => column.push(u32_of(integer_of_text(number)?)?),
            Self::U64(column) => column.push(u64_of(integer_of_text(number)?)?),
            Self::Time(column) => column.push(time_of(integer_of_text(number)?)?),
            Self::F64(column) => column.push(float_of_text(number)?),
        }
        Ok(())
    }

    /// Adds a value of a JSON object.
    pub(crate) fn push_value(&mut self, value: &Value<'_>) -> Result<(), Reason> {
        match (&mut *self, value) {
            (_, Value::Null) => self.push_null(),
            (Self::Text(column), Value::Text(text)) => column.push(text),
            (Self::Text(column), Value::Nested(text)) => column.push(text),
            (Self::Text(_), _) => return Err(reason::NOT_TEXT),
            (Self::F64(column), value) => column.push(float_of_value(value)?),
            (Self::U32(column), value) => column.push(u32_of(integer_of_value(value)?)?),
            (Self::U64(column), value) => column.push(u64_of(integer_of_value(value)?)?),
            (Self::Time(column), value) => column.push(time_of(integer_of_value(value)?)?),
        }
        Ok(())
    }
}

/// A whole number as `u32`; the largest stands for null inside, so it is out of range.
pub(crate) fn u32_of(number: i128) -> Result<u32, Reason> {
    match u32::try_from(number) {
        Ok(number) if number != NO_U32 => Ok(number),
        _ if number < 0 => Err(reason::NEGATIVE),
        _ => Err(reason::OUT_OF_RANGE),
    }
}

/// A whole number as `u64`; the largest stands for null inside, so it is out of range.
pub(crate) fn u64_of(number: i128) -> Result<u64, Reason> {
    match u64::try_from(number) {
        Ok(number) if number != NO_U64 => Ok(number),
        _ if number < 0 => Err(reason::NEGATIVE),
        _ => Err(reason::OUT_OF_RANGE),
    }
}

/// A whole number as a time; the smallest stands for null inside, so it is out of range.
pub(crate) fn time_of(number: i128) -> Result<i64, Reason> {
    i64::try_from(number).ok().filter(|&time| time != NO_TIME).ok_or(reason::OUT_OF_RANGE)
}

/// A float that is a whole number: what writers make of integer columns with empty cells.
pub(crate) fn integer_of_float(number: f64) -> Result<i128, Reason> {
    if !number.is_finite() {
        return Err(reason::NOT_AN_INTEGER);
    }
    // Beyond the range of every column the cast saturates, and the range check refuses it.
    if number.fract() == 0.0 { Ok(number as i128) } else { Err(reason::NOT_AN_INTEGER) }
}

fn integer_of_text(text: &str) -> Result<i128, Reason> {
    if let Ok(number) = text.parse::<i64>() {
        return Ok(number.into());
    }
    if let Ok(number) = text.parse::<i128>() {
        return Ok(number);
    }
    integer_of_float(text.parse::<f64>().map_err(|_| reason::NOT_A_NUMBER)?)
}

fn float_of_text(text: &str) -> Result<f64, Reason> {
    let number = text.parse::<f64>().map_err(|_| reason::NOT_A_NUMBER)?;
    // `1e999` reads as infinite, but nobody logged an infinity.
    let is_overflow = number.is_infinite() && text.bytes().any(|byte| byte.is_ascii_digit());
    if is_overflow { Err(reason::OUT_OF_RANGE) } else { Ok(canonical(number)) }
}

fn integer_of_value(value: &Value<'_>) -> Result<i128, Reason> {
    match value {
        Value::Unsigned(number) => Ok((*number).into()),
        Value::Signed(number) => Ok((*number).into()),
        Value::Float(number) => integer_of_float(*number),
        _ => Err(reason::NOT_A_NUMBER),
    }
}

fn float_of_value(value: &Value<'_>) -> Result<f64, Reason> {
    match value {
        Value::Unsigned(number) => Ok(*number as f64),
        Value::Signed(number) => Ok(*number as f64),
        Value::Float(number) => Ok(*number),
        // JSON has no text for these numbers, so they come as strings; other numbers do not.
        Value::Text(text) => match float_of_text(text.trim()) {
            Ok(number) if !number.is_finite() => Ok(number),
            _ => Err(reason::NOT_A_NUMBER),
        },
        _ => Err(reason::NOT_A_NUMBER),
    }
}

/// What a column of this type takes, in words.
pub(crate) fn expected(column_type: ColumnType) -> &'static str {
    match column_type {
        ColumnType::Str => "text",
        ColumnType::U32 => "a whole number below 2^32 - 1",
        ColumnType::U64 => "a whole number below 2^64 - 1",
        ColumnType::F64 => "a number",
        ColumnType::Time => "a time or whole nanoseconds",
    }
}
