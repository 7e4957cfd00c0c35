//! Every question is written down: those who investigate are insiders too.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use trainwarden_query::{Answer, QueryError};

use crate::output::tell;
use crate::serve::desk::now_ns;

/// The file inside a data folder.
const FILE: &str = "queries.jsonl";

/// A line for each question.
#[derive(Clone, Debug)]
pub struct Journal {
    path: PathBuf,
}

impl Journal {
    /// The journal of a data folder.
    #[must_use]
    pub fn of(data: &Path) -> Self {
        Self { path: data.join(FILE) }
    }

    /// Writes a question down; where that fails, it is told and the answer is given all the same.
    ///
    /// * `from`: who asked: an address, or `command line`.
    pub fn note(&self, from: &str, sql: &str, answer: &Result<Answer, QueryError>, took: Duration) {
        let (rows, error) = match answer {
            Ok(answer) => (Some(answer.rows), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let line = json!({
            "time": now_ns(), "from": from, "sql": sql, "rows": rows, "error": error, "seconds": took.as_secs_f64(),
        });
        let file = OpenOptions::new().create(true).append(true).open(&self.path);
        // One write a line: lines of two processes do not mix.
        let written = file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
        if let Err(error) = written {
            tell(&format!("the question is not written down in `{}`: {error}", self.path.display()));
        }
    }
}
