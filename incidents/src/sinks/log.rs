//! The log of the service itself.

use super::{Outside, Sink, SinkError, Words};
use crate::Notice;

/// Writes notices into the log of the service.
#[derive(Clone, Debug)]
pub struct LogSink {
    /// What is said in words.
    pub words: Words,
}

impl Sink for LogSink {
    fn attempt(&self, notice: &Notice, outside: &dyn Outside) -> Result<String, SinkError> {
        let told = self.words.of(notice)?;
        outside.log(notice, &told.title);
        Ok("written".to_owned())
    }
}
