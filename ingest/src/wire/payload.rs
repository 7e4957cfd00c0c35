//! Rows into the bytes of a payload, and back.

use std::io::{Cursor, Read};

use arrow::array::RecordBatch;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use prost::Message;
use trainwarden_proto::v1::{Columns, Encoding};
use trainwarden_telemetry::Table;

use super::{FrameError, packed};
use crate::limits::{PACKED_ROWS_MAX, PAYLOAD_BYTES_MAX};

/// Payloads below this stay as they are: the compressor's own frame would eat what it saves.
const COMPRESSED_BYTES_MIN: usize = 256;
/// Speed matters more than the last percent.
const ZSTD_LEVEL: i32 = 1;

/// A payload, its encoding, and its bytes before compression.
pub(super) struct Payload {
    pub(super) bytes: Vec<u8>,
    pub(super) encoding: Encoding,
    pub(super) unpacked_bytes: u64,
}

/// Encodes rows; small batches as packed columns, because an Arrow stream costs its schema each time.
pub(super) fn encode(batch: &RecordBatch) -> Payload {
    let is_small = batch.num_rows() <= PACKED_ROWS_MAX;
    let plain = if is_small { packed::pack(batch).encode_to_vec() } else { arrow_stream(batch) };
    let unpacked_bytes = plain.len() as u64;
    let (packed_encoding, plain_encoding) = match is_small {
        true => (Encoding::ColumnsZstd, Encoding::Columns),
        false => (Encoding::ArrowZstd, Encoding::Arrow),
    };
    if plain.len() < COMPRESSED_BYTES_MIN {
        return Payload { bytes: plain, encoding: plain_encoding, unpacked_bytes };
    }
    let bytes = zstd::bulk::compress(&plain, ZSTD_LEVEL).expect("compressing into memory does not fail");
    Payload { bytes, encoding: packed_encoding, unpacked_bytes }
}

fn arrow_stream(batch: &RecordBatch) -> Vec<u8> {
    let in_memory = "writing a batch that fits its own schema into memory does not fail";
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).expect(in_memory);
    writer.write(batch).expect(in_memory);
    writer.finish().expect(in_memory);
    writer.into_inner().expect(in_memory)
}

/// Decodes a payload into batches of rows.
pub(super) fn decode(table: Table, encoding: Encoding, payload: &[u8]) -> Result<Vec<RecordBatch>, FrameError> {
    match encoding {
        Encoding::ArrowZstd => arrow_batches(&decompressed(payload)?),
        Encoding::Arrow => arrow_batches(payload),
        Encoding::ColumnsZstd => columns(table, &decompressed(payload)?),
        Encoding::Columns => columns(table, payload),
        Encoding::Unspecified => Err(FrameError::Unknown { field: "encoding", value: encoding.into() }),
    }
}

fn decompressed(payload: &[u8]) -> Result<Vec<u8>, FrameError> {
    let damaged = |error: std::io::Error| FrameError::Damaged { reason: error.to_string() };
    // One frame that says its size is unpacked in one go; whatever else there is takes the careful way.
    if let Ok(Some(size)) = zstd::zstd_safe::get_frame_content_size(payload)
        && size <= PAYLOAD_BYTES_MAX
        && let Ok(plain) = zstd::bulk::decompress(payload, size as usize)
    {
        return Ok(plain);
    }
    let decoder = zstd::Decoder::with_buffer(payload).map_err(damaged)?;
    let mut plain = Vec::new();
    // One byte more than allowed tells a bomb from a payload that just fits.
    decoder.take(PAYLOAD_BYTES_MAX + 1).read_to_end(&mut plain).map_err(damaged)?;
    if plain.len() as u64 > PAYLOAD_BYTES_MAX {
        return Err(FrameError::Oversized { bytes: plain.len() as u64, bytes_max: PAYLOAD_BYTES_MAX });
    }
    Ok(plain)
}

fn arrow_batches(plain: &[u8]) -> Result<Vec<RecordBatch>, FrameError> {
    crate::read_parquet::guarded(|| {
        let reader = StreamReader::try_new(Cursor::new(plain), None)?;
        Ok(reader.collect::<Result<Vec<_>, _>>()?)
    })
    .map_err(|reason| FrameError::Damaged { reason })
}

fn columns(table: Table, plain: &[u8]) -> Result<Vec<RecordBatch>, FrameError> {
    let columns = Columns::decode(plain).map_err(|error| FrameError::Damaged { reason: error.to_string() })?;
    Ok(vec![packed::unpack(table, columns)?])
}
