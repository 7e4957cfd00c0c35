//! One column chunk that we put together page by page, because each page has its own encoding.

use bytes::Bytes;
use parquet::basic::{Compression, Encoding, PageType, Type, ZstdLevel};
use parquet::column::page::{CompressedPage, Page, PageWriter};
use parquet::column::writer::ColumnCloseResult;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, ColumnIndexBuilder, OffsetIndexBuilder};
use parquet::file::page_index::column_index::ColumnIndexMetaData;
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

/// The smallest and the largest value of a page.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Bounds {
    /// As Parquet writes them.
    Known(Vec<u8>, Vec<u8>),
    /// They would not be true for every reader, or are too long.
    Unknown,
    /// Every row is null.
    NoValue,
}

/// What the index of pages says of one.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) bounds: Bounds,
    pub(crate) rows: usize,
    pub(crate) nulls: usize,
}

/// A chunk while it is written.
pub(crate) struct Chunk {
    descriptor: ColumnDescPtr,
    sink: TrackedWrite<Vec<u8>>,
    encodings: Vec<Encoding>,
    plain_bytes: i64,
    dictionary_offset: Option<i64>,
    data_offset: Option<i64>,
    offsets: OffsetIndexBuilder,
    pages: Vec<Facts>,
}

impl Chunk {
    pub(crate) fn new(descriptor: ColumnDescPtr) -> Self {
        Self {
            descriptor,
            sink: TrackedWrite::new(Vec::new()),
            encodings: vec![Encoding::RLE],
            plain_bytes: 0,
            dictionary_offset: None,
            data_offset: None,
            offsets: OffsetIndexBuilder::new(),
            pages: Vec::new(),
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

    pub(crate) fn write_page(&mut self, body: PageBody, encoding: Encoding, facts: Facts) -> Result<(), ParquetError> {
        let page = Page::DataPage {
            buf: body.compressed,
            num_values: u32::try_from(facts.rows)?,
            encoding,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        };
        let (offset, length) = self.write(page, body.length)?;
        self.data_offset.get_or_insert(offset);
        self.note(encoding);
        self.offsets.append_offset_and_size(offset, i32::try_from(length)?);
        self.offsets.append_row_count(i64::try_from(facts.rows)?);
        self.pages.push(facts);
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
        let rows: usize = self.pages.iter().map(|page| page.rows).sum();
        let compression = Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?);
        let kind = self.descriptor.physical_type();
        let mut metadata = ColumnChunkMetaData::builder(self.descriptor)
            .set_encodings(self.encodings)
            .set_compression(compression)
            .set_num_values(i64::try_from(rows)?)
            .set_total_compressed_size(length)
            .set_total_uncompressed_size(self.plain_bytes)
            .set_data_page_offset(self.data_offset.unwrap_or(0))
            .set_dictionary_page_offset(self.dictionary_offset);
        if let Some(statistics) = statistics(kind, &self.pages)? {
            metadata = metadata.set_statistics(statistics);
        }
        let close = ColumnCloseResult {
            bytes_written: u64::try_from(length)?,
            rows_written: u64::try_from(rows)?,
            metadata: metadata.build()?,
            bloom_filter: None,
            column_index: column_index(kind, &self.pages)?,
            offset_index: Some(self.offsets.build()),
        };
        Ok((bytes, close))
    }
}

/// The bounds of all pages; `None` where those of one are not known.
fn column_index(kind: Type, pages: &[Facts]) -> Result<Option<ColumnIndexMetaData>, ParquetError> {
    let mut index = ColumnIndexBuilder::new(kind);
    for page in pages {
        let nulls = i64::try_from(page.nulls)?;
        match &page.bounds {
            Bounds::Known(low, high) => index.append(false, low.clone(), high.clone(), nulls),
            Bounds::NoValue => index.append(true, Vec::new(), Vec::new(), nulls),
            Bounds::Unknown => return Ok(None),
        }
    }
    index.build().map(Some)
}

fn statistics(kind: Type, pages: &[Facts]) -> Result<Option<Statistics>, ParquetError> {
    let nulls = Some(u64::try_from(pages.iter().map(|page| page.nulls).sum::<usize>())?);
    let mut bounds: Vec<(&[u8], &[u8])> = Vec::new();
    for page in pages {
        match &page.bounds {
            Bounds::Known(low, high) => bounds.push((low, high)),
            Bounds::NoValue => {}
            Bounds::Unknown => return Ok(None),
        }
    }
    if kind == Type::DOUBLE {
        let double = |bytes: &[u8]| f64::from_le_bytes(bytes.try_into().expect("a double has eight bytes"));
        let low = bounds.iter().map(|(low, _)| double(low)).min_by(f64::total_cmp);
        let high = bounds.iter().map(|(_, high)| double(high)).max_by(f64::total_cmp);
        return Ok(Some(Statistics::double(low, high, None, nulls, false)));
    }
    let low = bounds.iter().map(|(low, _)| *low).min().map(|low| ByteArray::from(low.to_vec()));
    let high = bounds.iter().map(|(_, high)| *high).max().map(|high| ByteArray::from(high.to_vec()));
    Ok(Some(Statistics::byte_array(low, high, None, nulls, false)))
}
