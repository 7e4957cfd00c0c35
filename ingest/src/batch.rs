//! Some decoded rows of one table, by column: what every decoder hands on.

use std::collections::HashMap;

use trainwarden_telemetry::{ColumnType, Table};

use crate::{IngestError, NO_TIME, NO_U32, NO_U64, NameId, Names, Place, Rejects};

/// No number: a NaN with bits of its own. Logged NaNs all carry the usual bits, so they are told apart.
pub(crate) const NO_VALUE: f64 = f64::from_bits(0x7ff8_dead_dead_dead);

/// True for [`NO_VALUE`] alone.
pub(crate) fn is_no_value(number: f64) -> bool {
    number.to_bits() == NO_VALUE.to_bits()
}

/// The bits every logged NaN gets, so that formats agree.
pub(crate) fn canonical(number: f64) -> f64 {
    if number.is_nan() { f64::NAN } else { number }
}

const NO_CODE: u32 = u32::MAX;

/// A column of text: a code a row into the texts of this batch.
#[derive(Debug, Default)]
pub(crate) struct TextColumn {
    codes: Vec<u32>,
    texts: Vec<Box<str>>,
    codes_by_text: HashMap<Box<str>, u32>,
    bytes: usize,
    /// For each text the run it was last looked up in, and its number there.
    known: Vec<(u32, NameId)>,
}

impl TextColumn {
    /// Adds a row; an empty text is no text, because CSV cannot tell the two apart.
    pub(crate) fn push(&mut self, text: &str) {
        let code = if text.is_empty() { NO_CODE } else { self.code(text) };
        self.codes.push(code);
    }

    pub(crate) fn push_null(&mut self) {
        self.codes.push(NO_CODE);
    }

    /// Adds a text without looking whether it is there, and gives its code for [`TextColumn::push_code`].
    pub(crate) fn add_text(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return NO_CODE;
        }
        let code = u32::try_from(self.texts.len()).expect("a batch has fewer than 2^32 texts");
        self.bytes += text.len();
        self.texts.push(text.into());
        code
    }

    pub(crate) fn push_code(&mut self, code: u32) {
        self.codes.push(code);
    }

    /// The text of a row.
    pub(crate) fn get(&self, row: usize) -> Option<&str> {
        self.texts.get(self.codes[row] as usize).map(AsRef::as_ref)
    }

    /// The number of a row's text in the run numbered `run`; `intern` is asked only where the last answer is stale.
    pub(crate) fn number(&mut self, row: usize, run: u32, names: &mut Names) -> NameId {
        self.lookup(row, run, |text| names.intern(text)).unwrap_or(NameId::NONE)
    }

    /// As [`TextColumn::number`], with any numbering of the texts; `None` where there is no text.
    pub(crate) fn lookup(&mut self, row: usize, key: u32, number: impl FnOnce(&str) -> NameId) -> Option<NameId> {
        let code = self.codes[row] as usize;
        let text = self.texts.get(code)?;
        if self.known.len() < self.texts.len() {
            self.known.resize(self.texts.len(), (NO_CODE, NameId::NONE));
        }
        let known = &mut self.known[code];
        if known.0 != key || known.1 == NameId::NONE {
            *known = (key, number(text));
        }
        Some(known.1)
    }

    fn code(&mut self, text: &str) -> u32 {
        // Rows of one run and metric stand together, so the last text is mostly the next one.
        if let Some(&last) = self.codes.last()
            && self.texts.get(last as usize).is_some_and(|known| &**known == text)
        {
            return last;
        }
        if let Some(&code) = self.codes_by_text.get(text) {
            return code;
        }
        let code = self.add_text(text);
        self.codes_by_text.insert(text.into(), code);
        code
    }
}

/// One column, nulls marked as in [`crate::SampleRow`].
#[derive(Debug)]
pub(crate) enum Data {
    Text(TextColumn),
    U32(Vec<u32>),
    U64(Vec<u64>),
    F64(Vec<f64>),
    Time(Vec<i64>),
}

impl Data {
    pub(crate) fn new(column_type: ColumnType) -> Self {
        match column_type {
            ColumnType::Str => Self::Text(TextColumn::default()),
            ColumnType::U32 => Self::U32(Vec::new()),
            ColumnType::U64 => Self::U64(Vec::new()),
            ColumnType::F64 => Self::F64(Vec::new()),
            ColumnType::Time => Self::Time(Vec::new()),
        }
    }

    pub(crate) fn push_null(&mut self) {
        match self {
            Self::Text(column) => column.push_null(),
            Self::U32(column) => column.push(NO_U32),
            Self::U64(column) => column.push(NO_U64),
            Self::F64(column) => column.push(NO_VALUE),
            Self::Time(column) => column.push(NO_TIME),
        }
    }

    pub(crate) fn truncate(&mut self, rows: usize) {
        match self {
            Self::Text(column) => column.codes.truncate(rows),
            Self::U32(column) => column.truncate(rows),
            Self::U64(column) => column.truncate(rows),
            Self::F64(column) => column.truncate(rows),
            Self::Time(column) => column.truncate(rows),
        }
    }

    /// Keeps the rows at `indices`, which ascend.
    fn keep(&mut self, indices: &[u32]) {
        fn gather<T: Copy>(column: &mut Vec<T>, indices: &[u32]) {
            *column = indices.iter().map(|&index| column[index as usize]).collect();
        }
        match self {
            Self::Text(column) => gather(&mut column.codes, indices),
            Self::U32(column) => gather(column, indices),
            Self::U64(column) => gather(column, indices),
            Self::F64(column) => gather(column, indices),
            Self::Time(column) => gather(column, indices),
        }
    }

    pub(crate) fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Text(column) => column.codes[row] == NO_CODE,
            Self::U32(column) => column[row] == NO_U32,
            Self::U64(column) => column[row] == NO_U64,
            Self::F64(column) => is_no_value(column[row]),
            Self::Time(column) => column[row] == NO_TIME,
        }
    }
}

/// Where the rows of a batch stood.
#[derive(Debug)]
pub(crate) enum Places {
    /// The line of each row.
    Lines(Vec<u64>),
    /// The rows of a Parquet file from the given number on, without those at the given indices.
    Rows { first: u64, indices: Option<Vec<u32>> },
}

/// Good rows of one table: every cell fits its column, and no required one is null.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) table: Table,
    pub(crate) rows: usize,
    /// In the order of [`Table::columns`].
    pub(crate) columns: Vec<Data>,
    pub(crate) places: Places,
}

impl Batch {
    /// No rows yet, each of which will come from a line of text.
    pub(crate) fn of_lines(table: Table) -> Self {
        let columns = table.columns().iter().map(|column| Data::new(column.column_type)).collect();
        Self { table, rows: 0, columns, places: Places::Lines(Vec::new()) }
    }

    /// Where a row stood.
    pub(crate) fn place(&self, row: usize) -> Place {
        match &self.places {
            Places::Lines(lines) => Place::Line(lines[row]),
            Places::Rows { first, indices: None } => Place::Row(first + row as u64),
            Places::Rows { first, indices: Some(indices) } => Place::Row(first + u64::from(indices[row])),
        }
    }

    /// Bytes of text held.
    pub(crate) fn text_bytes(&self) -> usize {
        let bytes = |column: &Data| if let Data::Text(column) = column { column.bytes } else { 0 };
        self.columns.iter().map(bytes).sum()
    }

    /// Keeps the first rows.
    pub(crate) fn truncate(&mut self, rows: usize) {
        self.columns.iter_mut().for_each(|column| column.truncate(rows));
        self.rows = rows;
    }

    /// Keeps the rows at `indices`, which ascend.
    pub(crate) fn keep(&mut self, indices: Vec<u32>) {
        self.columns.iter_mut().for_each(|column| column.keep(&indices));
        self.rows = indices.len();
        if let Places::Rows { indices: kept, .. } = &mut self.places {
            *kept = Some(indices);
        }
    }

    fn take(&mut self, name: &str) -> Data {
        let index = self.table.columns().iter().position(|column| column.name == name);
        let index = index.unwrap_or_else(|| panic!("table {} has no column {name}", self.table));
        std::mem::replace(&mut self.columns[index], Data::U32(Vec::new()))
    }

    /// Takes a column of text out.
    pub(crate) fn text(&mut self, name: &str) -> TextColumn {
        match self.take(name) {
            Data::Text(column) => column,
            other => panic!("column {name} is taken once, as text: {other:?}"),
        }
    }

    /// Takes a column of 32-bit numbers out.
    pub(crate) fn u32s(&mut self, name: &str) -> Vec<u32> {
        match self.take(name) {
            Data::U32(column) => column,
            other => panic!("column {name} is taken once, as u32: {other:?}"),
        }
    }

    /// Takes a column of 64-bit numbers out.
    pub(crate) fn u64s(&mut self, name: &str) -> Vec<u64> {
        match self.take(name) {
            Data::U64(column) => column,
            other => panic!("column {name} is taken once, as u64: {other:?}"),
        }
    }

    /// Takes a column of measured numbers out.
    pub(crate) fn f64s(&mut self, name: &str) -> Vec<f64> {
        match self.take(name) {
            Data::F64(column) => column,
            other => panic!("column {name} is taken once, as f64: {other:?}"),
        }
    }

    /// Takes a column of times out.
    pub(crate) fn times(&mut self, name: &str) -> Vec<i64> {
        match self.take(name) {
            Data::Time(column) => column,
            other => panic!("column {name} is taken once, as times: {other:?}"),
        }
    }
}

/// Whoever takes decoded rows.
pub(crate) trait Sink {
    /// Takes the rows of a batch that came from `source`.
    fn take(
        &mut self,
        batch: Batch,
        source: &crate::folder::TableSource,
        rejects: &mut Rejects,
    ) -> Result<(), IngestError>;
}
