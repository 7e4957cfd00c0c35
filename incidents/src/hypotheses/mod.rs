//! What may be behind an incident: base rates by kind, and what the facts of the incident make of them.
//!
//! One table ([`table`]) holds every number and its source, [`facts()`] reads the facts off an incident and its
//! surroundings, [`posterior()`] puts them together by Bayes. A hypothesis is about a sort of cause; it never names a
//! person.

mod facts;
mod posterior;
mod table;

pub(crate) use facts::{Surroundings, facts};
pub(crate) use posterior::posterior;

#[cfg(test)]
mod tests;
