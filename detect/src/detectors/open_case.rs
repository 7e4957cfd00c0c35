//! What several detectors share: a case that was told, and that is over when enough rows in a row were calm.

use serde::{Deserialize, Serialize};
use trainwarden_telemetry::{Label, Phase, Verdict};

/// A case that was told and is not over.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct OpenCase {
    /// What was said last.
    pub(crate) said: Verdict,
    calm_rows: u32,
    /// The last row (or call) that belongs to it.
    last: Label,
}

impl OpenCase {
    /// * `last`: the last row that belongs to it so far.
    pub(crate) fn new(said: Verdict, last: Label) -> Self {
        Self { said, calm_rows: 0, last }
    }

    /// A row belongs to the case.
    pub(crate) fn goes_on(&mut self, label: Label) {
        (self.calm_rows, self.last) = (0, label);
    }

    /// Counts a row; gives the closing verdict when so many in a row were calm.
    ///
    /// * `goes_on`: true when the row still belongs to the case.
    /// * `clear_rows`: calm rows that end it.
    pub(crate) fn follow(&mut self, goes_on: bool, label: Label, clear_rows: u32) -> Option<Verdict> {
        match goes_on {
            true => self.goes_on(label),
            false => self.calm_rows += 1,
        }
        let is_over = self.calm_rows >= clear_rows;
        is_over.then(|| Verdict { phase: Phase::Cleared, last: self.last, ..self.said.clone() })
    }
}
