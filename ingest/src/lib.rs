//! Telemetry in: run folders and foreign formats are decoded, put in log order and aligned.

mod align;
mod batch;
mod bucket;
mod cell;
mod clock;
mod columns;
mod embedded;
mod error;
mod feed;
mod folder;
pub mod import;
mod intake;
#[cfg(feature = "kafka")]
pub mod kafka;
mod limits;
mod lines;
mod log;
pub mod otlp;
mod read_csv;
mod read_jsonl;
mod read_parquet;
mod reject;
mod row;
mod row_sink;
mod run_part;
mod run_rows;
mod sorter;
mod source;
pub mod wire;
mod write;
mod write_file;

pub use align::{Aligner, Counts, Membership};
pub use embedded::{EmbeddedLog, EmbeddedOptions, EmbeddedSource, LogTime};
pub use error::IngestError;
pub use feed::{Feed, LogPart, LogRows};
pub use log::{Log, RunLog};
pub use reject::{Place, Reject, Rejects, reason};
pub use row::{CollectiveRow, DigestRow, LogClock, NO_TIME, NO_U32, NO_U64, NameId, Names, Record, Row, SampleRow};
pub use row_sink::RowSink;
pub use run_rows::{Records, RunRows};
pub use source::{Delivery, LogRecord, Published, Publisher, Source, SourceError, partition_of};
pub use write::{CollectiveOut, DigestOut, EventOut, FolderWriter, Format, MemberOut, PlacementOut, SampleOut};
