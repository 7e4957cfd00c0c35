//! Forensic SQL over the archive, run folders and incidents.
//!
//! A question is asked by [`Runner::ask`], which starts this program once more; that process locks itself in
//! ([`answer_stdin`]) before it parses a byte, answers, and ends. So a hostile statement reads nothing but the rows, and
//! takes nobody with it.

mod child;
mod engine;
mod error;
mod explain;
mod functions;
mod gate;
mod limits;
mod output;
mod parameters;
mod runner;
mod sandbox;
mod saved;
mod tables;
#[cfg(test)]
mod testing;

pub use child::{Outcome, Request, answer_stdin};
pub use engine::{CATALOG, SCHEMA, Sources, table_schemas};
pub use error::{Problem, QueryError};
pub use functions::FUNCTIONS;
pub use limits::Limits;
pub use output::Form;
pub use parameters::Parameters;
pub use runner::{Answer, Cancel, Runner};
pub use sandbox::Locks;
pub use saved::{Saved, saved, saved_named};

/// Tables and what they hold.
pub const TABLES: &[(&str, &str)] = tables::docs::TABLES;
/// Tables, with the meaning of every column.
pub use tables::docs::of as column_doc;

/// Names of tables, their columns and our functions, for completion.
#[must_use]
pub fn words() -> Vec<String> {
    let telemetry = trainwarden_telemetry::Table::ALL;
    let columns = telemetry.iter().flat_map(|table| table.columns().iter().map(|column| column.name.to_owned()));
    let mut words: Vec<String> = columns.chain(TABLES.iter().map(|(name, _)| (*name).to_owned())).collect();
    words.extend(FUNCTIONS.iter().map(|(name, ..)| (*name).to_owned()));
    let found = tables::incidents::incidents(&[], &[]).schema();
    words.extend(found.fields().iter().map(|field| field.name().clone()));
    words.extend(tables::incidents::verdicts(&[]).schema().fields().iter().map(|field| field.name().clone()));
    words.sort();
    words.dedup();
    words
}
