//! Batches that are spoilt on the disk of a broker.

use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;

/// How a batch is spoilt on the disk of a broker.
#[derive(Clone, Copy)]
pub(crate) enum Spoil {
    /// A byte of a record is another one; the checksum tells.
    Checksum,
    /// The batch says that it is compressed, and is not; its checksum is right.
    Compression,
    /// The lengths inside are nonsense; the checksum is right. librdkafka does not say a word of these.
    Records,
}

/// Spoils the batches that hold given offsets.
pub(crate) fn spoil_batches(segment: &Path, spoil: Spoil, offsets: &[u64]) {
    // Magic 2: base offset 8, length 4, leader epoch 4, magic 1, checksum 4, attributes 2, last offset delta 4, ...
    let mut file = OpenOptions::new().read(true).write(true).open(segment).unwrap();
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).unwrap();
    let mut at = 0;
    while at + 61 <= bytes.len() {
        let base = u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
        let length = u32::from_be_bytes(bytes[at + 8..at + 12].try_into().unwrap()) as usize;
        let last = base + u64::from(u32::from_be_bytes(bytes[at + 23..at + 27].try_into().unwrap()));
        let batch = &mut bytes[at..at + 12 + length];
        if offsets.iter().any(|offset| (base..=last).contains(offset)) {
            match spoil {
                Spoil::Checksum => batch[length + 11] ^= 0xff,
                Spoil::Compression => batch[22] = 4,
                Spoil::Records => batch[61..].fill(0xff),
            }
            if !matches!(spoil, Spoil::Checksum) {
                let checksum = crc32c(&batch[21..]);
                batch[17..21].copy_from_slice(&checksum.to_be_bytes());
            }
            file.seek(SeekFrom::Start(at as u64)).unwrap();
            file.write_all(batch).unwrap();
        }
        at += 12 + length;
    }
}

/// The checksum of a batch: CRC-32C, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg()))
    })
}
