//! Decodes JSON lines: an object a line, its keys the columns of the table.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use trainwarden_telemetry::{Column, ColumnType};

use crate::batch::{Batch, Places, Sink};
use crate::cell::{Refusal, Value};
use crate::folder::TableSource;
use crate::limits::{BATCH_ROWS, BATCH_TEXT_BYTES};
use crate::lines::{Line, Lines};
use crate::reject::{cut, reason};
use crate::{IngestError, Rejects};

/// Reads a file of JSON lines and hands its good rows on.
pub(crate) fn read_jsonl(source: &TableSource, sink: &mut dyn Sink, rejects: &mut Rejects) -> Result<(), IngestError> {
    let mut lines = Lines::open(source)?;
    let mut batch = Batch::of_lines(source.table);
    while let Some(line) = lines.next(rejects)? {
        if !line.bytes.trim_ascii().is_empty()
            && let Err(refusal) = push_line(source, &mut batch, &line)
        {
            rejects.add(&source.refused(&line, refusal));
        }
        lines.reuse(line);
        if batch.rows >= BATCH_ROWS || batch.text_bytes() >= BATCH_TEXT_BYTES {
            let full = std::mem::replace(&mut batch, Batch::of_lines(source.table));
            sink.take(full, source, rejects)?;
        }
    }
    sink.take(batch, source, rejects)
}

fn push_line(source: &TableSource, batch: &mut Batch, line: &Line) -> Result<(), Refusal> {
    let columns = source.table.columns();
    let values = parse(columns, &line.bytes)?;
    for (index, (column, value)) in columns.iter().zip(&values).enumerate() {
        let data = &mut batch.columns[index];
        let pushed = match (value, source.partition(column.name)) {
            (None, Some(cell)) => data.push_text(cell.as_bytes()),
            (None, None) => data.push_value(&Value::Null),
            // A nested value is the JSON text that `detail` wants; in other texts it is a mistake.
            (Some(Value::Nested(_)), _) if column.column_type == ColumnType::Str && column.name != "detail" => {
                Err(reason::NOT_TEXT)
            }
            (Some(value), _) => data.push_value(value),
        };
        let reason = match pushed {
            Ok(()) if column.is_optional || !data.is_null(batch.rows) => continue,
            Ok(()) => reason::MISSING,
            Err(reason) => reason,
        };
        batch.truncate(batch.rows);
        let detail = value.as_ref().map(describe).unwrap_or_default();
        return Err(Refusal { column: Some(column.name), reason, detail });
    }
    batch.rows += 1;
    if let Places::Lines(places) = &mut batch.places {
        places.push(line.number);
    }
    Ok(())
}

fn describe(value: &Value<'_>) -> String {
    match value {
        Value::Null => String::new(),
        Value::Bool => "a truth value".to_owned(),
        Value::Unsigned(number) => number.to_string(),
        Value::Signed(number) => number.to_string(),
        Value::Float(number) => format!("{number:?}"),
        Value::Text(text) => format!("{:?}", cut(text, 80)),
        Value::Nested(text) => cut(text, 80).to_owned(),
    }
}

/// The values of the columns a line names; the last of equal keys counts.
fn parse<'l>(columns: &'static [Column], line: &'l [u8]) -> Result<Vec<Option<Value<'l>>>, Refusal> {
    let refused = |reason, detail| Err(Refusal { column: None, reason, detail });
    if line.trim_ascii_start().first() != Some(&b'{') {
        let is_json = serde_json::from_slice::<IgnoredAny>(line).is_ok();
        return refused(if is_json { reason::NOT_AN_OBJECT } else { reason::INVALID_JSON }, String::new());
    }
    let mut json = serde_json::Deserializer::from_slice(line);
    let parsed = json.deserialize_map(RowVisitor { columns }).and_then(|values| json.end().map(|()| values));
    parsed.or_else(|error| {
        let is_text = std::str::from_utf8(line).is_ok();
        refused(if is_text { reason::INVALID_JSON } else { reason::INVALID_UTF8 }, error.to_string())
    })
}

struct RowVisitor {
    columns: &'static [Column],
}

impl<'de> Visitor<'de> for RowVisitor {
    type Value = Vec<Option<Value<'de>>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::new();
        values.resize_with(self.columns.len(), || None);
        while let Some(column) = map.next_key_seed(KeySeed { columns: self.columns })? {
            match column {
                Some(index) => values[index] = Some(map.next_value_seed(ValueSeed)?),
                None => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        Ok(values)
    }
}

/// Which column a key names.
struct KeySeed {
    columns: &'static [Column],
}

impl<'de> DeserializeSeed<'de> for KeySeed {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a column")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Self::Value, E> {
        Ok(self.columns.iter().position(|column| column.name == key))
    }
}

struct ValueSeed;

impl<'de> DeserializeSeed<'de> for ValueSeed {
    type Value = Value<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueSeed {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Value::Bool)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        Ok(Value::Unsigned(number))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Value::Signed(number))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
        Ok(Value::Float(number))
    }

    fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Value::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        let value = serde_json::Value::deserialize(MapAccessDeserializer::new(map))?;
        Ok(Value::Nested(value.to_string()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Self::Value, A::Error> {
        let value = serde_json::Value::deserialize(SeqAccessDeserializer::new(list))?;
        Ok(Value::Nested(value.to_string()))
    }
}
