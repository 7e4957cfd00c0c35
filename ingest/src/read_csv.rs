//! Decodes CSV: a header, then a row a line; quoted fields may hold commas, quotes and line ends (RFC 4180).

use trainwarden_telemetry::Column;

use crate::batch::{Batch, Places, Sink};
use crate::cell::{Reason, Refusal};
use crate::folder::TableSource;
use crate::limits::{BATCH_ROWS, BATCH_TEXT_BYTES, RECORD_BYTES_MAX, RECORD_LINES_MAX};
use crate::lines::{Line, Lines};
use crate::reject::{cut, reason};
use crate::{IngestError, Place, Reject, Rejects};

/// Reads a CSV file and hands its good rows on.
pub(crate) fn read_csv(source: &TableSource, sink: &mut dyn Sink, rejects: &mut Rejects) -> Result<(), IngestError> {
    let mut lines = Lines::open(source)?;
    let mut fields = Fields::default();
    let Some(header) = next_filled(&mut lines, rejects)? else { return Ok(()) };
    fields.split(&header.bytes);
    let Some(mut rows) = Rows::new(source, &fields, rejects) else { return Ok(()) };
    while let Some(line) = next_filled(&mut lines, rejects)? {
        read_record(line, &mut lines, &mut fields, &mut rows, rejects)?;
        if rows.is_full() {
            sink.take(rows.take(), source, rejects)?;
        }
    }
    sink.take(rows.take(), source, rejects)
}

/// The next line that is not blank.
fn next_filled(lines: &mut Lines<'_>, rejects: &mut Rejects) -> Result<Option<Line>, IngestError> {
    while let Some(line) = lines.next(rejects)? {
        if !line.bytes.trim_ascii().is_empty() {
            return Ok(Some(line));
        }
        lines.reuse(line);
    }
    Ok(None)
}

/// Reads the record that begins in `line`.
///
/// A quote that stays open takes in the lines behind it only when the result is a good row: otherwise one line is set
/// aside and those behind it are read on their own.
fn read_record(
    first: Line,
    lines: &mut Lines<'_>,
    fields: &mut Fields,
    rows: &mut Rows<'_>,
    rejects: &mut Rejects,
) -> Result<(), IngestError> {
    if fields.split(&first.bytes) {
        if let Err(refusal) = rows.push(first.number, fields) {
            rejects.add(&rows.source.refused(&first, refusal));
        }
        lines.reuse(first);
        return Ok(());
    }
    let mut whole = first.bytes.clone();
    let mut further: Vec<Line> = Vec::new();
    while further.len() + 1 < RECORD_LINES_MAX && whole.len() < RECORD_BYTES_MAX {
        let Some(line) = lines.next(rejects)? else { break };
        whole.push(b'\n');
        whole.extend_from_slice(&line.bytes);
        further.push(line);
        // Only a line with a quote can close the field.
        if further.last().is_some_and(|line| line.bytes.contains(&b'"')) && fields.split(&whole) {
            if rows.push(first.number, fields).is_ok() {
                return Ok(());
            }
            break;
        }
    }
    lines.give_back(further.into_iter());
    let refusal = Refusal { column: None, reason: reason::OPEN_QUOTE, detail: String::new() };
    rejects.add(&rows.source.refused(&first, refusal));
    Ok(())
}

/// Rows on their way into a batch.
struct Rows<'a> {
    source: &'a TableSource,
    /// Number of fields in the header.
    width: usize,
    /// For each column of the table the field that holds it.
    fields: Vec<Option<usize>>,
    batch: Batch,
}

impl<'a> Rows<'a> {
    /// `None`, and a reject, when a required column is missing.
    fn new(source: &'a TableSource, header: &Fields, rejects: &mut Rejects) -> Option<Self> {
        let names: Vec<&[u8]> = header.iter().map(<[u8]>::trim_ascii).collect();
        let position = |column: &Column| names.iter().position(|name| *name == column.name.as_bytes());
        let columns = source.table.columns();
        let fields: Vec<Option<usize>> = columns.iter().map(position).collect();
        for (column, field) in columns.iter().zip(&fields) {
            if field.is_none() && !column.is_optional && source.partition(column.name).is_none() {
                let names = names.iter().map(|name| String::from_utf8_lossy(name)).collect::<Vec<_>>().join(",");
                let detail = format!("the header is \"{}\"", cut(&names, 80));
                let reject = source.reject(Place::File, reason::NO_COLUMN, detail);
                rejects.add(&Reject { column: Some(column.name), ..reject });
                return None;
            }
        }
        Some(Self { source, width: names.len(), fields, batch: Batch::of_lines(source.table) })
    }

    fn is_full(&self) -> bool {
        self.batch.rows >= BATCH_ROWS || self.batch.text_bytes() >= BATCH_TEXT_BYTES
    }

    fn take(&mut self) -> Batch {
        std::mem::replace(&mut self.batch, Batch::of_lines(self.source.table))
    }

    fn push(&mut self, line: u64, fields: &Fields) -> Result<(), Refusal> {
        if fields.len() != self.width {
            let detail = format!("{}, the header has {}", fields.len(), self.width);
            return Err(Refusal { column: None, reason: reason::FIELD_COUNT, detail });
        }
        for (index, column) in self.source.table.columns().iter().enumerate() {
            let cell = match self.fields[index] {
                Some(field) => fields.get(field),
                None => self.source.partition(column.name).unwrap_or_default().as_bytes(),
            };
            if let Err(reason) = push_cell(&mut self.batch, index, column, cell) {
                self.batch.truncate(self.batch.rows);
                let cell = String::from_utf8_lossy(cell);
                let detail = if cell.is_empty() { String::new() } else { format!("{:?}", cut(&cell, 80)) };
                return Err(Refusal { column: Some(column.name), reason, detail });
            }
        }
        self.batch.rows += 1;
        if let Places::Lines(places) = &mut self.batch.places {
            places.push(line);
        }
        Ok(())
    }
}

fn push_cell(batch: &mut Batch, index: usize, column: &Column, cell: &[u8]) -> Result<(), Reason> {
    let data = &mut batch.columns[index];
    data.push_text(cell)?;
    if !column.is_optional && data.is_null(batch.rows) {
        return Err(reason::MISSING);
    }
    Ok(())
}

/// The fields of one record, quotes taken off.
#[derive(Debug, Default)]
struct Fields {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Fields {
    /// Takes a record apart; false when a quoted field is still open at its end.
    fn split(&mut self, record: &[u8]) -> bool {
        self.bytes.clear();
        self.ends.clear();
        let mut rest = record;
        loop {
            if rest.first() == Some(&b'"') {
                let Some(after) = self.unquote(&rest[1..]) else { return false };
                rest = after;
            }
            // Text behind a closing quote belongs to the field, as other readers have it.
            let end = rest.iter().position(|&byte| byte == b',');
            self.bytes.extend_from_slice(&rest[..end.unwrap_or(rest.len())]);
            self.ends.push(self.bytes.len());
            match end {
                Some(end) => rest = &rest[end + 1..],
                None => return true,
            }
        }
    }

    /// Reads a field behind its opening quote and returns what follows the closing one; `None` when there is none.
    fn unquote<'r>(&mut self, mut rest: &'r [u8]) -> Option<&'r [u8]> {
        loop {
            let quote = rest.iter().position(|&byte| byte == b'"')?;
            self.bytes.extend_from_slice(&rest[..quote]);
            rest = &rest[quote + 1..];
            match rest.split_first() {
                Some((b'"', tail)) => {
                    self.bytes.push(b'"');
                    rest = tail;
                }
                _ => return Some(rest),
            }
        }
    }

    fn len(&self) -> usize {
        self.ends.len()
    }

    fn get(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.bytes[start..self.ends[index]]
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|index| self.get(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_split_and_unquoted() {
        let mut fields = Fields::default();
        let cases: [(&str, &[&str]); 6] = [
            ("a,b,", &["a", "b", ""]),
            ("\"a,b\",c", &["a,b", "c"]),
            ("\"say \"\"x\"\"\",\"\"", &["say \"x\"", ""]),
            ("\"a\"b,c", &["ab", "c"]),
            ("a\"b,c", &["a\"b", "c"]),
            ("", &[""]),
        ];
        for (record, expected) in cases {
            assert!(fields.split(record.as_bytes()), "{record}");
            let found: Vec<&str> = fields.iter().map(|field| std::str::from_utf8(field).expect("text")).collect();
            assert_eq!(found, expected, "{record}");
        }
        assert!(!fields.split(b"a,\"b"), "the quote stays open");
    }
}
