//! Small numbers in few bits: runs of one number, and groups of eight.

use crate::chunk::PageBody;
use parquet::errors::ParquetError;

/// Codes of a dictionary as the body of a page, in as many bits as the largest needs, or in whole bytes, where the
/// compressor sees what repeats.
///
/// * `front`: what stands before the codes in the page.
pub(crate) fn compress_codes(front: &[u8], codes: &[u32]) -> Result<PageBody, ParquetError> {
    let largest = codes.iter().copied().max().unwrap_or(0);
    let width = u32::BITS - largest.leading_zeros();
    let body = |width: u32| {
        let mut page = front.to_vec();
        page.push(u8::try_from(width).expect("a width is at most 32"));
        write_hybrid(&mut page, codes, width);
        PageBody::compress(&page)
    };
    let exact = body(width)?;
    if width.is_multiple_of(8) {
        return Ok(exact);
    }
    let whole = body(width.next_multiple_of(8))?;
    Ok(if whole.compressed.len() < exact.compressed.len() { whole } else { exact })
}

/// Writes numbers of `width` bits.
///
/// Source: Apache Parquet, "Encodings", RLE / Bit-Packing Hybrid.
pub(crate) fn write_hybrid(out: &mut Vec<u8>, numbers: &[u32], width: u32) {
    let mut literals: Vec<u32> = Vec::new();
    let mut row = 0;
    while row < numbers.len() {
        let number = numbers[row];
        let run = numbers[row..].iter().take_while(|other| **other == number).count();
        // Numbers that are not in a run come in whole groups of eight; only the last may be padded.
        let fill = (8 - literals.len() % 8) % 8;
        if run >= fill + 8 {
            literals.extend(std::iter::repeat_n(number, fill));
            write_literals(out, &mut literals, width);
            write_varint(out, ((run - fill) as u64) << 1);
            out.extend_from_slice(&number.to_le_bytes()[..width.div_ceil(8) as usize]);
        } else {
            literals.extend(std::iter::repeat_n(number, run));
        }
        row += run;
    }
    write_literals(out, &mut literals, width);
}

fn write_literals(out: &mut Vec<u8>, literals: &mut Vec<u32>, width: u32) {
    if literals.is_empty() {
        return;
    }
    literals.resize(literals.len().next_multiple_of(8), 0);
    write_varint(out, (((literals.len() / 8) as u64) << 1) | 1);
    let (mut bits, mut filled) = (0_u64, 0);
    for number in literals.drain(..) {
        bits |= u64::from(number) << filled;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_and_groups_are_written_as_the_format_says() {
        let written = |numbers: &[u32], width| {
            let mut out = Vec::new();
            write_hybrid(&mut out, numbers, width);
            out
        };
        // The example of the format's own page: 0 to 7 in three bits each.
        assert_eq!(written(&[0, 1, 2, 3, 4, 5, 6, 7], 3), [0b11, 0b1000_1000, 0b1100_0110, 0b1111_1010]);
        assert_eq!(written(&[5; 100], 8), [0b1100_1000, 1, 5]);
        // Five literals take three of the run to be a group; seven of it are then too few for a run of their own.
        let mixed = written(&[1, 2, 1, 2, 1, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7], 8);
        assert_eq!(mixed, [0b11, 1, 2, 1, 2, 1, 7, 7, 7, 0b1_0000, 7]);
        assert_eq!(written(&[0; 9], 0), [18]);
        assert_eq!(written(&[], 4), [0; 0]);
    }
}
