//! The column `value`: doubles, each metric in the encoding that makes it small.
//!
//! Metrics differ: a temperature has ten values, a counter never the same one twice. One column chunk may hold pages of
//! different encodings, and every reader of Parquet decodes page by page; so each metric of a row group is written as a
//! dictionary, split into streams of bytes, or as it is, whichever is the smallest once compressed.
//!
//! Numbers with few decimals are whole numbers in disguise, and Parquet has no encoding of doubles that says so. The
//! dictionary comes close: it holds each number once, ascending, and the rows hold its place, which is the scaled whole
//! number less its gaps.

use std::collections::HashMap;
use std::ops::Range;

use bytes::Bytes;
use parquet::basic::Encoding;
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::ParquetError;
use parquet::schema::types::ColumnDescPtr;

use crate::chunk::{Bounds, Chunk, PageBody};
use crate::limits::VALUE_PAGE_ROWS;

/// Share of distinct values above which a dictionary holds nearly every value and cannot help.
const DISTINCT_SHARE_MAX: f64 = 0.9;

/// How one segment is written.
#[derive(Debug)]
enum Plan {
    Pages(Encoding, Vec<PageBody>),
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
        let plain: Vec<u8> = dictionary.iter().flat_map(|bits| bits.to_le_bytes()).collect();
        chunk.write_dictionary(PageBody::compress_dictionary(&plain)?, dictionary.len())?;
    }
    let places: HashMap<u64, u32> = dictionary.iter().copied().zip(0..).collect();
    for (plan, range) in plans.into_iter().zip(segments) {
        let values = &values[range.clone()];
        let pages = values.chunks(VALUE_PAGE_ROWS);
        match plan {
            Plan::Pages(encoding, bodies) => {
                for (page, body) in pages.zip(bodies) {
                    chunk.write_page(body, encoding, page.len(), bounds(page))?;
                }
            }
            Plan::Dictionary(_) => {
                for page in pages {
                    let codes: Vec<u32> = page.iter().map(|value| places[&value.to_bits()]).collect();
                    chunk.write_page(smallest_codes(&codes)?, Encoding::RLE_DICTIONARY, page.len(), bounds(page))?;
                }
            }
        }
    }
    chunk.finish()
}

/// The smallest way to write some values, the dictionary counted with what it adds.
fn plan(values: &[f64]) -> Result<Plan, ParquetError> {
    let split = bodies(values, split_bytes)?;
    let plain = bodies(values, plain_bytes)?;
    let distinct = distinct_of(values);
    let size = |bodies: &[PageBody]| bodies.iter().map(|body| body.compressed.len()).sum::<usize>();
    let pages_size = size(&split).min(size(&plain));
    if distinct.len() as f64 <= DISTINCT_SHARE_MAX * values.len() as f64
        && dictionary_size(values, &distinct)? < pages_size
    {
        return Ok(Plan::Dictionary(distinct));
    }
    Ok(if size(&split) < size(&plain) {
        Plan::Pages(Encoding::BYTE_STREAM_SPLIT, split)
    } else {
        Plan::Pages(Encoding::PLAIN, plain)
    })
}

fn bodies(values: &[f64], encode: fn(&[f64]) -> Vec<u8>) -> Result<Vec<PageBody>, ParquetError> {
    values.chunks(VALUE_PAGE_ROWS).map(|page| PageBody::compress(&encode(page))).collect()
}

fn plain_bytes(values: &[f64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
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

fn distinct_of(values: &[f64]) -> Vec<u64> {
    let mut distinct: Vec<u64> = values.iter().map(|value| value.to_bits()).collect();
    distinct.sort_unstable();
    distinct.dedup();
    distinct
}

/// Bytes of the values as places in a dictionary of their own, and of that dictionary.
fn dictionary_size(values: &[f64], distinct: &[u64]) -> Result<usize, ParquetError> {
    let plain: Vec<u8> = distinct.iter().flat_map(|bits| bits.to_le_bytes()).collect();
    let mut size = PageBody::compress_dictionary(&plain)?.compressed.len();
    let places: HashMap<u64, u32> = distinct.iter().copied().zip(0..).collect();
    for page in values.chunks(VALUE_PAGE_ROWS) {
        let codes: Vec<u32> = page.iter().map(|value| places[&value.to_bits()]).collect();
        size += smallest_codes(&codes)?.compressed.len();
    }
    Ok(size)
}

/// One dictionary for the chunk: the segments with the fewest values first, so that their places need few bits.
fn dictionary_of(plans: &[Plan]) -> Vec<u64> {
    let mut own: Vec<&Vec<u64>> = plans
        .iter()
        .filter_map(|plan| if let Plan::Dictionary(distinct) = plan { Some(distinct) } else { None })
        .collect();
    own.sort_by_key(|distinct| distinct.len());
    let mut known = std::collections::HashSet::new();
    own.into_iter().flatten().copied().filter(|bits| known.insert(*bits)).collect()
}

/// Places in as many bits as the largest needs, or in whole bytes, where the compressor sees what repeats.
fn smallest_codes(codes: &[u32]) -> Result<PageBody, ParquetError> {
    let largest = codes.iter().copied().max().unwrap_or(0);
    let width = u32::BITS - largest.leading_zeros();
    let exact = PageBody::compress(&code_bytes(codes, width))?;
    if width.is_multiple_of(8) {
        return Ok(exact);
    }
    let whole = PageBody::compress(&code_bytes(codes, width.next_multiple_of(8)))?;
    Ok(if whole.compressed.len() < exact.compressed.len() { whole } else { exact })
}

/// The width, then runs of one place and groups of eight places.
///
/// Source: Apache Parquet, "Encodings", RLE / Bit-Packing Hybrid.
fn code_bytes(codes: &[u32], width: u32) -> Vec<u8> {
    let mut out = vec![u8::try_from(width).expect("a width is at most 32")];
    let mut literals: Vec<u32> = Vec::new();
    let mut row = 0;
    while row < codes.len() {
        let code = codes[row];
        let run = codes[row..].iter().take_while(|other| **other == code).count();
        // Places that are not in a run come in whole groups of eight; only the last may be padded.
        let fill = (8 - literals.len() % 8) % 8;
        if run >= fill + 8 {
            literals.extend(std::iter::repeat_n(code, fill));
            write_literals(&mut out, &mut literals, width);
            write_varint(&mut out, ((run - fill) as u64) << 1);
            out.extend_from_slice(&code.to_le_bytes()[..width.div_ceil(8) as usize]);
        } else {
            literals.extend(std::iter::repeat_n(code, run));
        }
        row += run;
    }
    write_literals(&mut out, &mut literals, width);
    out
}

fn write_literals(out: &mut Vec<u8>, literals: &mut Vec<u32>, width: u32) {
    if literals.is_empty() {
        return;
    }
    literals.resize(literals.len().next_multiple_of(8), 0);
    write_varint(out, ((literals.len() / 8) as u64) << 1 | 1);
    let (mut bits, mut filled) = (0_u64, 0);
    for code in literals.drain(..) {
        bits |= u64::from(code) << filled;
        filled += width;
        while filled >= 8 {
            out.push((bits & 0xff) as u8);
            bits >>= 8;
            filled -= 8;
        }
    }
}

fn write_varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// The smallest and the largest value; `None` with a NaN among them, which readers place differently.
fn bounds(values: &[f64]) -> Bounds {
    let mut bounds = (f64::INFINITY, f64::NEG_INFINITY);
    for value in values {
        if value.is_nan() {
            return None;
        }
        bounds = (bounds.0.min(*value), bounds.1.max(*value));
    }
    let (low, high) = bounds;
    Some((if low == 0.0 { -0.0 } else { low }, if high == 0.0 { 0.0 } else { high }))
}
