//! What survives a restart: the state store and the archive.

mod error;
mod state;

pub use error::StoreError;
pub use state::{Commit, PartitionState, RejectRow, RunSnapshot, StateStore, ToldChange};
