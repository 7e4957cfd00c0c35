//! One column of the rows that wait for a cut: values side by side, texts as codes.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, StringArray, TimestampNanosecondArray, UInt32Array, UInt64Array,
};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int32Type, TimeUnit, TimestampNanosecondType, UInt32Type, UInt64Type};
use trainwarden_telemetry::{Column, ColumnType, Table};

use crate::ArchiveError;

/// Bytes of one distinct text beside its characters: its place in the list and in the index.
const TEXT_OVERHEAD_BYTES: u64 = 64;

/// The values of one column, row by row; the place of a null holds zero.
#[derive(Debug)]
pub(crate) struct ColumnRows {
    pub(crate) column: Column,
    pub(crate) values: Values,
    /// True where a row has no value; absent as long as all have.
    nulls: Option<Vec<bool>>,
}

/// Values of one type.
#[derive(Debug)]
pub(crate) enum Values {
    U32(Vec<u32>),
    U64(Vec<u64>),
    F64(Vec<f64>),
    Time(Vec<i64>),
    Text(Texts),
}

/// Texts of a column: each distinct one once.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    pub(crate) codes: Vec<u32>,
    pub(crate) distinct: Vec<Arc<str>>,
    index: HashMap<Arc<str>, u32>,
    bytes: u64,
}

/// One value that all rows of a record share.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Shared<'a> {
    Null,
    Time(i64),
    Number(u64),
    Text(&'a str),
}

impl ColumnRows {
    pub(crate) fn new(column: Column) -> Self {
        let values = match column.column_type {
            ColumnType::Str => Values::Text(Texts::default()),
            ColumnType::U32 => Values::U32(Vec::new()),
            ColumnType::U64 => Values::U64(Vec::new()),
            ColumnType::F64 => Values::F64(Vec::new()),
            ColumnType::Time => Values::Time(Vec::new()),
        };
        Self { column, values, nulls: None }
    }

    pub(crate) fn len(&self) -> usize {
        match &self.values {
            Values::U32(values) => values.len(),
            Values::U64(values) => values.len(),
            Values::F64(values) => values.len(),
            Values::Time(values) => values.len(),
            Values::Text(texts) => texts.codes.len(),
        }
    }

    /// Bytes that the content takes: the same for the same rows, however they came.
    pub(crate) fn content_bytes(&self) -> u64 {
        let width = match &self.values {
            Values::U32(_) | Values::Text(_) => 4,
            Values::U64(_) | Values::F64(_) | Values::Time(_) => 8,
        };
        let texts = if let Values::Text(texts) = &self.values { texts.bytes } else { 0 };
        self.len() as u64 * width + texts
    }

    pub(crate) fn is_null(&self, row: usize) -> bool {
        self.nulls.as_ref().is_some_and(|nulls| nulls[row])
    }

    /// Appends a column of a batch.
    ///
    /// # Errors
    /// [`ArchiveError::WrongType`]; nothing was appended then.
    pub(crate) fn append(&mut self, table: Table, array: &ArrayRef) -> Result<(), ArchiveError> {
        let array = self.fitting(table, array)?;
        let before = self.len();
        match &mut self.values {
            Values::U32(values) => values.extend_from_slice(array.as_primitive::<UInt32Type>().values()),
            Values::U64(values) => values.extend_from_slice(array.as_primitive::<UInt64Type>().values()),
            Values::F64(values) => values.extend_from_slice(array.as_primitive::<Float64Type>().values()),
            Values::Time(values) => {
                values.extend_from_slice(array.as_primitive::<TimestampNanosecondType>().values());
            }
            Values::Text(texts) => texts.append(&array),
        }
        if array.null_count() > 0 {
            let nulls = self.nulls.get_or_insert_with(|| vec![false; before]);
            nulls.extend((0..array.len()).map(|row| array.is_null(row)));
        } else if let Some(nulls) = &mut self.nulls {
            nulls.resize(before + array.len(), false);
        }
        Ok(())
    }

    /// The array in the type of this column. Texts may come coded or as views; every other type must be right.
    fn fitting(&self, table: Table, array: &ArrayRef) -> Result<ArrayRef, ArchiveError> {
        let wanted = self.column.column_type.arrow();
        let found = array.data_type();
        let coded = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        let is_time = |data_type: &DataType| matches!(data_type, DataType::Timestamp(TimeUnit::Nanosecond, _));
        if *found == wanted || (wanted == DataType::Utf8 && *found == coded) || (is_time(&wanted) && is_time(found)) {
            return Ok(Arc::clone(array));
        }
        let is_text = matches!(found, DataType::LargeUtf8 | DataType::Utf8View | DataType::Dictionary(..));
        let text = if wanted == DataType::Utf8 && is_text { cast(array, &wanted).ok() } else { None };
        text.ok_or_else(|| ArchiveError::WrongType {
            table: table.as_str(),
            column: self.column.name,
            found: found.to_string(),
            expected: wanted.to_string(),
        })
    }

    /// Appends one value for `rows` rows.
    pub(crate) fn append_shared(&mut self, shared: Shared<'_>, rows: usize) {
        let before = self.len();
        let end = before + rows;
        match (&mut self.values, shared) {
            (Values::U32(values), _) => values.resize(end, 0),
            (Values::F64(values), _) => values.resize(end, 0.0),
            (Values::U64(values), Shared::Number(number)) => values.resize(end, number),
            (Values::U64(values), _) => values.resize(end, 0),
            (Values::Time(values), Shared::Time(time)) => values.resize(end, time),
            (Values::Time(values), _) => values.resize(end, 0),
            (Values::Text(texts), Shared::Text(text)) => {
                let code = texts.code(text);
                texts.codes.resize(end, code);
            }
            (Values::Text(texts), _) => texts.codes.resize(end, 0),
        }
        if matches!(shared, Shared::Null) {
            let nulls = self.nulls.get_or_insert_with(|| vec![false; before]);
            nulls.resize(end, true);
        } else if let Some(nulls) = &mut self.nulls {
            nulls.resize(end, false);
        }
    }

    /// Fills the nulls of the last `rows` rows.
    pub(crate) fn fill(&mut self, shared: Shared<'_>, rows: usize) {
        if matches!(shared, Shared::Null) {
            return;
        }
        let Some(nulls) = &mut self.nulls else { return };
        let first = nulls.len() - rows;
        for row in first..nulls.len() {
            if !std::mem::replace(&mut nulls[row], false) {
                continue;
            }
            match (&mut self.values, shared) {
                (Values::U64(values), Shared::Number(number)) => values[row] = number,
                (Values::Time(values), Shared::Time(time)) => values[row] = time,
                (Values::Text(texts), Shared::Text(text)) => texts.codes[row] = texts.code(text),
                _ => nulls[row] = true,
            }
        }
    }

    /// A number that sorts as the values do, null first.
    pub(crate) fn key(&self, row: usize) -> u64 {
        if self.is_null(row) {
            return 0;
        }
        let key = match &self.values {
            Values::U32(values) => u64::from(values[row]),
            Values::U64(values) => values[row],
            Values::Time(values) => values[row].cast_unsigned() ^ (1 << 63),
            Values::F64(_) => 0,
            Values::Text(texts) => u64::from(texts.codes[row]),
        };
        key.saturating_add(1)
    }

    /// The values of one row group, in the order of the file.
    ///
    /// Rows lie by time and files by series: reading row by row and writing to all series at once stays in the cache,
    /// the other way round misses it with every value.
    ///
    /// * `places`: of each row, where it goes.
    /// * `range`: the places that are in the row group.
    pub(crate) fn arranged(&self, places: &[u32], range: &Range<usize>) -> Arranged<'_> {
        let values = match &self.values {
            Values::U32(values) => ArrangedValues::U32(scattered(values, places, range)),
            Values::U64(values) => ArrangedValues::U64(scattered(values, places, range)),
            Values::F64(values) => ArrangedValues::F64(scattered(values, places, range)),
            Values::Time(values) => ArrangedValues::Time(scattered(values, places, range)),
            Values::Text(texts) => ArrangedValues::Text(scattered(&texts.codes, places, range), texts),
        };
        Arranged { values, nulls: self.nulls.as_ref().map(|nulls| scattered(nulls, places, range)) }
    }
}

fn scattered<T: Copy + Default>(values: &[T], places: &[u32], range: &Range<usize>) -> Vec<T> {
    let mut arranged = vec![T::default(); range.len()];
    for (value, place) in values.iter().zip(places) {
        let inside = (*place as usize).checked_sub(range.start);
        if let Some(slot) = inside.and_then(|place| arranged.get_mut(place)) {
            *slot = *value;
        }
    }
    arranged
}

/// One column of a row group, in the order of the file; the place of a null holds zero.
#[derive(Debug)]
pub(crate) struct Arranged<'a> {
    pub(crate) values: ArrangedValues<'a>,
    nulls: Option<Vec<bool>>,
}

/// Values of one type; texts as codes.
#[derive(Debug)]
pub(crate) enum ArrangedValues<'a> {
    U32(Vec<u32>),
    U64(Vec<u64>),
    F64(Vec<f64>),
    Time(Vec<i64>),
    Text(Vec<u32>, &'a Texts),
}

impl Arranged<'_> {
    pub(crate) fn is_null(&self, row: usize) -> bool {
        self.nulls.as_ref().is_some_and(|nulls| nulls[row])
    }

    pub(crate) fn into_array(self) -> ArrayRef {
        let nulls = self.nulls.map(|nulls| nulls.into_iter().map(|is_null| !is_null).collect::<NullBuffer>());
        let is_valid = |row: usize| nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row));
        match self.values {
            ArrangedValues::U32(values) => Arc::new(UInt32Array::new(values.into(), nulls)),
            ArrangedValues::U64(values) => Arc::new(UInt64Array::new(values.into(), nulls)),
            ArrangedValues::F64(values) => Arc::new(Float64Array::new(values.into(), nulls)),
            ArrangedValues::Time(values) => {
                Arc::new(TimestampNanosecondArray::new(values.into(), nulls).with_timezone("UTC"))
            }
            ArrangedValues::Text(codes, texts) => {
                let text = |code: u32| &*texts.distinct[code as usize];
                let texts = codes.into_iter().enumerate().map(|(row, code)| is_valid(row).then(|| text(code)));
                Arc::new(texts.collect::<StringArray>())
            }
        }
    }
}

impl Texts {
    fn code(&mut self, text: &str) -> u32 {
        if let Some(code) = self.index.get(text) {
            return *code;
        }
        let code = u32::try_from(self.distinct.len()).expect("a part has fewer rows than a u32 counts");
        let text: Arc<str> = Arc::from(text);
        self.bytes += text.len() as u64 + TEXT_OVERHEAD_BYTES;
        self.distinct.push(Arc::clone(&text));
        self.index.insert(text, code);
        code
    }

    fn append(&mut self, array: &ArrayRef) {
        self.codes.reserve(array.len());
        if let Some(coded) = array.as_dictionary_opt::<Int32Type>() {
            let texts = coded.values().as_string::<i32>();
            // A code that no row uses must not enter: what is counted hangs on the content alone.
            let mut known: Vec<Option<u32>> = vec![None; texts.len()];
            for key in coded.keys() {
                let key = key.and_then(|key| usize::try_from(key).ok()).filter(|key| texts.is_valid(*key));
                let code = key.map_or(0, |key| *known[key].get_or_insert_with(|| self.code(texts.value(key))));
                self.codes.push(code);
            }
            return;
        }
        for text in array.as_string::<i32>() {
            let code = text.map_or(0, |text| self.code(text));
            self.codes.push(code);
        }
    }

    /// For each code its place in the order of the texts.
    pub(crate) fn places(&self) -> Vec<u32> {
        let mut sorted: Vec<u32> = (0..).take(self.distinct.len()).collect();
        sorted.sort_unstable_by(|a, b| self.distinct[*a as usize].cmp(&self.distinct[*b as usize]));
        let mut places = vec![0; sorted.len()];
        for (place, code) in (0..).zip(sorted) {
            places[code as usize] = place;
        }
        places
    }
}
