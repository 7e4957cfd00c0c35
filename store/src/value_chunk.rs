//! The column `value`: doubles, each metric in the encoding that makes it small.
//!
//! Metrics differ: a temperature has ten values, a counter never the same one twice. One column chunk may hold pages of
//! different encodings, and every reader of Parquet decodes page by page; so each metric of a row group is written as a
//! dictionary, split into streams of bytes, or as it is, whichever is the smallest once compressed.
//!
//! Numbers with few decimals are whole numbers in disguise, and Parquet has no encoding of doubles that says so. The
//! dictionary comes close: it holds each number once, ascending, and the rows hold its place, which is the scaled whole
//! number less its gaps.

use std::ops::Range;

use bytes::Bytes;
use parquet::basic::Encoding;
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::ParquetError;
use parquet::schema::types::ColumnDescPtr;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::chunk::{Bounds, Chunk, Facts, PageBody};
use crate::hybrid::compress_codes;
use crate::limits::VALUE_PAGE_ROWS;

/// Share of distinct values in a page above which a dictionary holds nearly every value and cannot help.
const DISTINCT_SHARE_MAX: f64 = 0.97;
/// Distinct values of a page up to which a place takes one byte, and nothing else can be smaller.
const FEW_DISTINCT: usize = 256;

type BitsMap = FxHashMap<u64, u32>;

/// How one segment is written.
#[derive(Debug)]
enum Plan {
    /// In this encoding; the first page is done.
    Pages(Encoding, PageBody),
    /// The distinct values, ascending by their bits.
    Dictionary(Vec<u64>),
}

/// Writes the chunk.
///
/// * `values`: in the order of the row group.
/// * `segments`: ranges of rows that are one metric each, or few; together all rows.
pub(crate) fn write_values(
    descriptor: ColumnDescPtr,
    values: &[f64],
    segments: &[Range<usize>],
) -> Result<(Bytes, ColumnCloseResult), ParquetError> {
    let plans: Vec<Plan> = segments.iter().map(|range| plan(&values[range.clone()])).collect::<Result<_, _>>()?;
    let dictionary = dictionary_of(&plans);
    let mut chunk = Chunk::new(descriptor);
    if !dictionary.is_empty() {
        chunk.write_dictionary(PageBody::compress_dictionary(&plain_bits(&dictionary))?, dictionary.len())?;
    }
    let places: BitsMap = dictionary.iter().copied().zip(0..).collect();
    for (plan, range) in plans.into_iter().zip(segments) {
        let mut pages = values[range.clone()].chunks(VALUE_PAGE_ROWS);
        match plan {
            Plan::Pages(encoding, first) => {
                let page = pages.next().expect("a segment has rows");
                chunk.write_page(first, encoding, facts(page))?;
                for page in pages {
                    chunk.write_page(PageBody::compress(&encoded(encoding, page))?, encoding, facts(page))?;
                }
            }
            Plan::Dictionary(_) => {
                for page in pages {
                    let body = compress_codes(&[], &codes(page, &places))?;
                    chunk.write_page(body, Encoding::RLE_DICTIONARY, facts(page))?;
                }
            }
        }
    }
    chunk.finish()
}

/// The smallest way to write some values, judged by their first page.
fn plan(values: &[f64]) -> Result<Plan, ParquetError> {
    let page = &values[..values.len().min(VALUE_PAGE_ROWS)];
    let of_page = distinct_of(page);
    if of_page.len() <= FEW_DISTINCT && of_page.len() * 8 <= page.len() {
        return Ok(Plan::Dictionary(distinct_of(values)));
    }
    let split = PageBody::compress(&encoded(Encoding::BYTE_STREAM_SPLIT, page))?;
    let plain = PageBody::compress(&encoded(Encoding::PLAIN, page))?;
    let pages = if split.compressed.len() < plain.compressed.len() {
        Plan::Pages(Encoding::BYTE_STREAM_SPLIT, split)
    } else {
        Plan::Pages(Encoding::PLAIN, plain)
    };
    if of_page.len() as f64 > DISTINCT_SHARE_MAX * page.len() as f64 {
        return Ok(pages);
    }
    let Plan::Pages(_, first) = &pages else { return Ok(pages) };
    let distinct = distinct_of(values);
    let share = page.len() as f64 / values.len() as f64;
    let dictionary = PageBody::compress_dictionary(&plain_bits(&distinct))?.compressed.len() as f64 * share;
    let places: BitsMap = distinct.iter().copied().zip(0..).collect();
    let places = compress_codes(&[], &codes(page, &places))?.compressed.len() as f64;
    Ok(if dictionary + places < first.compressed.len() as f64 { Plan::Dictionary(distinct) } else { pages })
}

fn encoded(encoding: Encoding, values: &[f64]) -> Vec<u8> {
    if encoding == Encoding::BYTE_STREAM_SPLIT {
        return split_bytes(values);
    }
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn plain_bits(distinct: &[u64]) -> Vec<u8> {
    distinct.iter().flat_map(|bits| bits.to_le_bytes()).collect()
}

fn codes(values: &[f64], places: &BitsMap) -> Vec<u32> {
    values.iter().map(|value| places[&value.to_bits()]).collect()
}

/// Source: Apache Parquet, "Encodings", BYTE_STREAM_SPLIT.
fn split_bytes(values: &[f64]) -> Vec<u8> {
    let mut streams = vec![0; values.len() * 8];
    for (row, value) in values.iter().enumerate() {
        for (byte, part) in value.to_le_bytes().into_iter().enumerate() {
            streams[byte * values.len() + row] = part;
        }
    }
    streams
}

/// The values as bits, each once, ascending.
fn distinct_of(values: &[f64]) -> Vec<u64> {
    let known: FxHashSet<u64> = values.iter().map(|value| value.to_bits()).collect();
    let mut distinct: Vec<u64> = known.into_iter().collect();
    distinct.sort_unstable();
    distinct
}

/// One dictionary for the chunk: the segments with the fewest values first, so that their places need few bits.
fn dictionary_of(plans: &[Plan]) -> Vec<u64> {
    let mut own: Vec<&Vec<u64>> = plans
        .iter()
        .filter_map(|plan| if let Plan::Dictionary(distinct) = plan { Some(distinct) } else { None })
        .collect();
    own.sort_by_key(|distinct| distinct.len());
    let mut known: FxHashSet<u64> = FxHashSet::default();
    own.into_iter().flatten().copied().filter(|bits| known.insert(*bits)).collect()
}

fn facts(values: &[f64]) -> Facts {
    Facts { bounds: bounds(values), rows: values.len(), nulls: 0 }
}

/// The smallest and the largest value; unknown with a NaN among them, which readers place differently.
fn bounds(values: &[f64]) -> Bounds {
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for value in values {
        if value.is_nan() {
            return Bounds::Unknown;
        }
        (low, high) = (low.min(*value), high.max(*value));
    }
    // Which of two zeros stands there must not cut off the other.
    let (low, high) = (if low == 0.0 { -0.0 } else { low }, if high == 0.0 { 0.0 } else { high });
    Bounds::Known(low.to_le_bytes().to_vec(), high.to_le_bytes().to_vec())
}
