//! One column chunk that we put together page by page, because each page has its own encoding.

use bytes::Bytes;
use parquet::basic::{Compression, Encoding, PageType, Type, ZstdLevel};
use parquet::column::page::{CompressedPage, Page, PageWriter};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, ColumnIndexBuilder, OffsetIndexBuilder};
use parquet::file::statistics::Statistics;
use parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use parquet::schema::types::ColumnDescPtr;

use crate::limits::{DICTIONARY_ZSTD_LEVEL, ZSTD_LEVEL};

/// A page before it is compressed, and after: the two lengths are in its header.
#[derive(Clone, Debug)]
pub(crate) struct PageBody {
    pub(crate) compressed: Bytes,
    pub(crate) length: usize,
}

impl PageBody {
    pub(crate) fn compress(plain: &[u8]) -> Result<Self, ParquetError> {
        Self::compress_at(plain, ZSTD_LEVEL)
    }

    /// A dictionary is compressed once and holds what many pages share: it is worth more work.
    pub(crate) fn compress_dictionary(plain: &[u8]) -> Result<Self, ParquetError> {
        Self::compress_at(plain, DICTIONARY_ZSTD_LEVEL)
    }

    fn compress_at(plain: &[u8], level: i32) -> Result<Self, ParquetError> {
        Ok(Self { compressed: zstd::bulk::compress(plain, level)?.into(), length: plain.len() })
    }
}

/// The smallest and the largest value of a page, as Parquet writes them; `None` where they would not be true.
pub(crate) type Bounds = Option<(f64, f64)>;

/// A chunk of required doubles while it is written.
pub(crate) struct Chunk {
    descriptor: ColumnDescPtr,
    sink: TrackedWrite<Vec<u8>>,
    encodings: Vec<Encoding>,
    plain_bytes: i64,
    rows: i64,
    dictionary_offset: Option<i64>,
    data_offset: Option<i64>,
    offsets: OffsetIndexBuilder,
    bounds: Vec<Bounds>,
}

impl Chunk {
    pub(crate) fn new(descriptor: ColumnDescPtr) -> Self {
        Self {
            descriptor,
            sink: TrackedWrite::new(Vec::new()),
            encodings: vec![Encoding::RLE],
            plain_bytes: 0,
            rows: 0,
            dictionary_offset: None,
            data_offset: None,
            offsets: OffsetIndexBuilder::new(),
            bounds: Vec::new(),
        }
    }

    /// The dictionary, before every other page.
    pub(crate) fn write_dictionary(&mut self, body: PageBody, values: usize) -> Result<(), ParquetError> {
        let num_values = u32::try_from(values)?;
        let page =
            Page::DictionaryPage { buf: body.compressed, num_values, encoding: Encoding::PLAIN, is_sorted: false };
        let (offset, _) = self.write(page, body.length)?;
        self.dictionary_offset = Some(offset);
        self.note(Encoding::PLAIN);
        Ok(())
    }

    pub(crate) fn write_page(
        &mut self,
        body: PageBody,
        encoding: Encoding,
        rows: usize,
        bounds: Bounds,
    ) -> Result<(), ParquetError> {
        let page = Page::DataPage {
            buf: body.compressed,
            num_values: u32::try_from(rows)?,
            encoding,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        };
        let (offset, length) = self.write(page, body.length)?;
        self.data_offset.get_or_insert(offset);
        self.note(encoding);
        let rows = i64::try_from(rows)?;
        self.offsets.append_offset_and_size(offset, i32::try_from(length)?);
        self.offsets.append_row_count(rows);
        self.rows += rows;
        self.bounds.push(bounds);
        Ok(())
    }

    fn note(&mut self, encoding: Encoding) {
        if !self.encodings.contains(&encoding) {
            self.encodings.push(encoding);
        }
    }

    /// Writes a page; its offset and its length with the header.
    fn write(&mut self, page: Page, plain_length: usize) -> Result<(i64, u64), ParquetError> {
        let is_data = page.page_type() != PageType::DICTIONARY_PAGE;
        let spec = SerializedPageWriter::new(&mut self.sink).write_page(CompressedPage::new(page, plain_length))?;
        debug_assert!(is_data || spec.offset == 0, "the dictionary comes first");
        self.plain_bytes += i64::try_from(spec.uncompressed_size)?;
        Ok((i64::try_from(spec.offset)?, spec.bytes_written))
    }

    /// The bytes, and what the footer says of them.
    pub(crate) fn finish(self) -> Result<(Bytes, ColumnCloseResult), ParquetError> {
        let bytes: Bytes = self.sink.into_inner()?.into();
        let length = i64::try_from(bytes.len())?;
        let compression = Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?);
        let mut metadata = ColumnChunkMetaData::builder(self.descriptor)
            .set_encodings(self.encodings)
            .set_compression(compression)
            .set_num_values(self.rows)
            .set_total_compressed_size(length)
            .set_total_uncompressed_size(self.plain_bytes)
            .set_data_page_offset(self.data_offset.unwrap_or(0))
            .set_dictionary_page_offset(self.dictionary_offset);
        let bounds: Option<Vec<(f64, f64)>> = self.bounds.iter().copied().collect();
        let mut column_index = None;
        if let Some(bounds) = bounds.filter(|bounds| !bounds.is_empty()) {
            let mut index = ColumnIndexBuilder::new(Type::DOUBLE);
            for (low, high) in &bounds {
                index.append(false, low.to_le_bytes().to_vec(), high.to_le_bytes().to_vec(), 0);
            }
            column_index = Some(index.build()?);
            let low = bounds.iter().map(|(low, _)| *low).fold(f64::INFINITY, f64::min);
            let high = bounds.iter().map(|(_, high)| *high).fold(f64::NEG_INFINITY, f64::max);
            let (low, high) = (if low == 0.0 { -0.0 } else { low }, if high == 0.0 { 0.0 } else { high });
            metadata = metadata.set_statistics(Statistics::double(Some(low), Some(high), None, Some(0), false));
        }
        let close = ColumnCloseResult {
            bytes_written: u64::try_from(length)?,
            rows_written: u64::try_from(self.rows)?,
            metadata: metadata.build()?,
            bloom_filter: None,
            column_index,
            offset_index: Some(self.offsets.build()),
        };
        Ok((bytes, close))
    }
}
