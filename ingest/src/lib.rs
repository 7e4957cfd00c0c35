//! Telemetry in: run folders and foreign formats are decoded, put in log order and aligned.

mod align;
mod limits;
mod row;

pub use align::{Aligner, Counts, Membership};
pub use row::{CollectiveRow, DigestRow, LogClock, NO_TIME, NO_U32, NO_U64, NameId, Names, Record, Row, SampleRow};
