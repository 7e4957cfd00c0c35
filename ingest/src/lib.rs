//! Telemetry in: run folders and foreign formats are decoded, put in log order and aligned.

mod align;
mod error;
pub mod import;
mod limits;
mod row;
mod write;
mod write_file;

pub use align::{Aligner, Counts, Membership};
pub use error::{Fault, IngestError};
pub use row::{CollectiveRow, DigestRow, LogClock, NO_TIME, NO_U32, NO_U64, NameId, Names, Record, Row, SampleRow};
pub use write::{CollectiveOut, DigestOut, EventOut, FolderWriter, Format, MemberOut, PlacementOut, SampleOut};
