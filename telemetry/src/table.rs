//! The tables of the outside contract: names, columns, types, and which columns may be missing.

use std::fmt;
use std::sync::Arc;

use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};

/// A table telemetry arrives in. One name everywhere: Arrow schema, folder, file, SQL table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// One measured number a row.
    Samples,
    /// One rank's part in one communication call a row.
    Collectives,
    /// One fingerprint a row.
    Digests,
    /// One change, act or mark a row.
    Events,
    /// Where one rank runs and what it computes.
    Ranks,
    /// One member of one communicator a row.
    Groups,
}

/// Type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnType {
    /// UTF-8 text.
    Str,
    /// Unsigned 32-bit integer.
    U32,
    /// Unsigned 64-bit integer.
    U64,
    /// Double-precision number.
    F64,
    /// UTC nanoseconds since the epoch.
    Time,
}

impl ColumnType {
    /// The Arrow type.
    #[must_use]
    pub fn arrow(self) -> DataType {
        match self {
            Self::Str => DataType::Utf8,
            Self::U32 => DataType::UInt32,
            Self::U64 => DataType::UInt64,
            Self::F64 => DataType::Float64,
            Self::Time => DataType::Timestamp(TimeUnit::Nanosecond, Some(Arc::from("UTC"))),
        }
    }
}

/// One column of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Name, as in files.
    pub name: &'static str,
    /// Type.
    pub column_type: ColumnType,
    /// True when a file without it, and a row with it empty, is good.
    pub is_optional: bool,
}

const fn need(name: &'static str, column_type: ColumnType) -> Column {
    Column { name, column_type, is_optional: false }
}

const fn may(name: &'static str, column_type: ColumnType) -> Column {
    Column { name, column_type, is_optional: true }
}

use ColumnType::{F64, Str, Time, U32, U64};

const SAMPLES: &[Column] = &[
    need("run", Str),
    may("attempt", U32),
    may("rank", U32),
    may("step", U64),
    may("time", Time),
    need("metric", Str),
    need("value", F64),
    may("received", Time),
    may("sender", Str),
    may("sequence", U64),
];
const COLLECTIVES: &[Column] = &[
    need("run", Str),
    may("attempt", U32),
    need("rank", U32),
    need("comm", Str),
    need("seq", U64),
    need("op", Str),
    may("bytes", U64),
    may("signature", Str),
    may("enqueued", Time),
    may("start", Time),
    may("end", Time),
    may("step", U64),
    may("peer", U32),
    may("algo", Str),
    may("proto", Str),
    may("received", Time),
    may("sender", Str),
    may("sequence", U64),
];
const DIGESTS: &[Column] = &[
    need("run", Str),
    may("attempt", U32),
    may("rank", U32),
    may("step", U64),
    may("time", Time),
    need("kind", Str),
    need("name", Str),
    need("digest", Str),
    may("group", Str),
    may("received", Time),
    may("sender", Str),
    may("sequence", U64),
];
const EVENTS: &[Column] = &[
    need("time", Time),
    need("source", Str),
    need("kind", Str),
    may("actor", Str),
    may("run", Str),
    may("attempt", U32),
    may("node", Str),
    may("rank", U32),
    may("subject", Str),
    may("detail", Str),
    may("received", Time),
    may("sender", Str),
    may("sequence", U64),
];
const RANKS: &[Column] = &[
    need("run", Str),
    may("attempt", U32),
    need("rank", U32),
    may("node", Str),
    may("device", Str),
    may("local_rank", U32),
    may("dp", U32),
    may("tp", U32),
    may("pp", U32),
    may("ep", U32),
    may("cp", U32),
    may("received", Time),
    may("sender", Str),
    may("sequence", U64),
];
const GROUPS: &[Column] = &[
    need("run", Str),
    may("attempt", U32),
    need("comm", Str),
    need("rank", U32),
    may("received", Time),
    may("sender", Str),
    may("sequence", U64),
];

impl Table {
    /// Every table telemetry arrives in.
    pub const ALL: [Self; 6] =
        [Self::Samples, Self::Collectives, Self::Digests, Self::Events, Self::Ranks, Self::Groups];

    /// The name outside.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Samples => "samples",
            Self::Collectives => "collectives",
            Self::Digests => "digests",
            Self::Events => "events",
            Self::Ranks => "ranks",
            Self::Groups => "groups",
        }
    }

    /// The table of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.as_str() == name)
    }

    /// Columns in the order of the contract; the last three (`received`, `sender`, `sequence`) may be in any archive.
    #[must_use]
    pub fn columns(self) -> &'static [Column] {
        match self {
            Self::Samples => SAMPLES,
            Self::Collectives => COLLECTIVES,
            Self::Digests => DIGESTS,
            Self::Events => EVENTS,
            Self::Ranks => RANKS,
            Self::Groups => GROUPS,
        }
    }

    /// The Arrow schema; optional columns are nullable.
    #[must_use]
    pub fn schema(self) -> SchemaRef {
        let fields: Vec<Field> = self
            .columns()
            .iter()
            .map(|column| Field::new(column.name, column.column_type.arrow(), column.is_optional))
            .collect();
        Arc::new(Schema::new(fields))
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
