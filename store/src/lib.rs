//! What survives a restart: the state store, and the archive of what came through the log.
//!
//! [`OpenParts`] collects the rows of one partition of the log and says where to cut, by the content of the log alone.
//! [`ClosedPart::encode`] makes a file of what was cut, the same bytes each time. [`Archive`] keeps the files, and
//! removes the oldest ones. The way of the rows is plain functions; only what waits for a store is async.

#![cfg_attr(test, expect(unused_crate_dependencies, reason = "the tests in other files use them"))]

mod archive;
mod archive_error;
mod chunk;
mod column_rows;
mod error;
mod hybrid;
mod limits;
mod open_parts;
mod order;
mod part_file;
mod part_name;
mod retention;
mod state;
mod text_chunk;
mod value_chunk;

pub use archive::{Archive, ArchiveOptions, StoredPart, Written};
pub use archive_error::ArchiveError;
pub use error::StoreError;
pub use open_parts::{ClosedPart, Cut, OpenParts, Part, PartLimits, Record};
pub use part_name::{Date, PartName};
pub use retention::{Removed, RemovedPart, Why};
pub use state::{
    AnnouncedRow, Commit, IncidentRow, NoticeRow, OutboxEdit, PartitionState, RejectRow, RunSnapshot, StateStore,
    ToldChange,
};
