//! `quality`: how good detection is on a corpus of real telemetry with labels, by the corpus' own rules, and on
//! simulated scenarios, where the truth is known.

mod corpus;
mod report;
mod scenarios;
mod score;
mod workers;

pub use corpus::{Corpus, CorpusFile, Label, Moment};
pub use report::{write_json, write_table};
pub use scenarios::{ScenarioScore, TWIN, score_scenario};
pub use score::{Alarm, FalseAlarm, Hit, KindScore, Quality, Scored, Sought, score};
pub use workers::each;
