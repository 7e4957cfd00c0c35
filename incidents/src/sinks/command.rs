//! A program: the notice as JSON on its standard input, and it has arrived when the program ends with 0.

use super::webhook::payload;
use super::{Outside, Sink, SinkError, Words};
use crate::Notice;

/// A program that is run for each notice; no shell reads its arguments.
#[derive(Clone, Debug)]
pub struct CommandSink {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// What is said in words.
    pub words: Words,
}

impl Sink for CommandSink {
    fn attempt(&self, notice: &Notice, outside: &dyn Outside) -> Result<String, SinkError> {
        let printed = outside.run(&self.argv, &payload(notice, &self.words)?)?;
        Ok(format!("ended with 0 {}", printed.trim()).trim_end().to_owned())
    }
}
