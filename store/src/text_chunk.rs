//! A column of texts that repeat: rows in the order of a part are long runs of one text, so it is a dictionary and runs.

use bytes::Bytes;
use parquet::basic::Encoding;
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::ParquetError;
use parquet::schema::types::ColumnDescPtr;

use crate::chunk::{Bounds, Chunk, Facts, PageBody};
use crate::column_rows::{Arranged, Texts};
use crate::hybrid::{compress_codes, write_hybrid};
use crate::limits::{DICTIONARY_BYTES_MAX, VALUE_PAGE_ROWS};

/// Longest text that statistics hold.
const BOUND_BYTES_MAX: usize = 256;

/// Writes the chunk; `None` where the texts are too many or too long for a dictionary.
pub(crate) fn write_texts(
    descriptor: ColumnDescPtr,
    column: &Arranged<'_>,
    codes: &[u32],
    texts: &Texts,
) -> Result<Option<(Bytes, ColumnCloseResult)>, ParquetError> {
    let Some(dictionary) = Dictionary::of(column, codes, texts) else { return Ok(None) };
    let is_optional = descriptor.max_def_level() > 0;
    let mut chunk = Chunk::new(descriptor);
    let mut plain = Vec::new();
    for text in &dictionary.texts {
        plain.extend_from_slice(&u32::try_from(text.len())?.to_le_bytes());
        plain.extend_from_slice(text.as_bytes());
    }
    chunk.write_dictionary(PageBody::compress_dictionary(&plain)?, dictionary.texts.len())?;
    let mut start = 0;
    for page in codes.chunks(VALUE_PAGE_ROWS) {
        let is_there = |row: usize| !column.is_null(start + row);
        let known = page.iter().enumerate().filter(|(row, _)| is_there(*row));
        let places: Vec<u32> = known.map(|(_, code)| dictionary.place_of[*code as usize]).collect();
        let front = if is_optional { levels((0..page.len()).map(|row| u32::from(is_there(row)))) } else { Vec::new() };
        let facts = Facts { bounds: dictionary.bounds(&places), rows: page.len(), nulls: page.len() - places.len() };
        chunk.write_page(compress_codes(&front, &places)?, Encoding::RLE_DICTIONARY, facts)?;
        start += page.len();
    }
    chunk.finish().map(Some)
}

/// Which rows have a value, as the first data of a page: their length in bytes, then they.
fn levels(is_there: impl Iterator<Item = u32>) -> Vec<u8> {
    let mut levels = vec![0; 4];
    write_hybrid(&mut levels, &is_there.collect::<Vec<_>>(), 1);
    let length = u32::try_from(levels.len() - 4).expect("a page has few rows");
    levels[..4].copy_from_slice(&length.to_le_bytes());
    levels
}

/// The texts of some rows, ascending.
struct Dictionary<'a> {
    texts: Vec<&'a str>,
    /// For each code of the part its place here.
    place_of: Vec<u32>,
}

impl<'a> Dictionary<'a> {
    fn of(column: &Arranged<'_>, codes: &[u32], texts: &'a Texts) -> Option<Self> {
        let mut is_used = vec![false; texts.distinct.len()];
        for (_, code) in codes.iter().enumerate().filter(|(row, _)| !column.is_null(*row)) {
            is_used[*code as usize] = true;
        }
        let mut used: Vec<usize> = (0..is_used.len()).filter(|code| is_used[*code]).collect();
        let bytes: usize = used.iter().map(|code| texts.distinct[*code].len() + 4).sum();
        if used.is_empty() || used.len() > codes.len() / 2 + 1 || bytes > DICTIONARY_BYTES_MAX {
            return None;
        }
        used.sort_unstable_by(|a, b| texts.distinct[*a].cmp(&texts.distinct[*b]));
        let mut place_of = vec![0; is_used.len()];
        for (place, code) in (0..).zip(&used) {
            place_of[*code] = place;
        }
        Some(Self { texts: used.into_iter().map(|code| &*texts.distinct[code]).collect(), place_of })
    }

    fn bounds(&self, codes: &[u32]) -> Bounds {
        let text = |code: Option<&u32>| code.map(|code| self.texts[*code as usize].as_bytes());
        match (text(codes.iter().min()), text(codes.iter().max())) {
            (Some(low), Some(high)) if low.len().max(high.len()) <= BOUND_BYTES_MAX => {
                Bounds::Known(low.to_vec(), high.to_vec())
            }
            (Some(_), Some(_)) => Bounds::Unknown,
            _ => Bounds::NoValue,
        }
    }
}
