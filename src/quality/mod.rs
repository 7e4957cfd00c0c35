//! `quality`: how good detection is on a corpus of real telemetry with labels, by the corpus' own rules.

mod corpus;
mod report;
mod score;

pub use corpus::{Corpus, CorpusFile, Label, Moment};
pub use report::{write_json, write_table};
pub use score::{FalseAlarm, KindScore, Quality, Scored, score};
