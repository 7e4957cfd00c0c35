//! Telemetry in: run folders and foreign formats are decoded, put in log order and aligned.

mod row;

pub use row::{CollectiveRow, DigestRow, LogClock, NO_TIME, NO_U32, NO_U64, NameId, Names, Record, Row, SampleRow};
