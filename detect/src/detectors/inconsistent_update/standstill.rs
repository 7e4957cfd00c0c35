//! Whether the weights move at all.

use serde::{Deserialize, Serialize};
use trainwarden_telemetry::{Label, Step};

use super::rows::Row;
use super::{Break, MOVING_ROWS, STILL_ROWS, STILL_ROWS_FIRST, Word};

/// What is known of standing still in one attempt.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Standstill {
    moving_rows: u32,
    has_moved: bool,
    still_rows: u32,
    first: Option<(Label, Option<Step>)>,
}

impl Standstill {
    /// Judges a row.
    ///
    /// * `before`: the step of the row before.
    pub(super) fn judge(&mut self, row: &Row, before: Option<Step>) -> Option<Word> {
        let (update, _, _) = (row.update()?, row.gradient()?, row.rate()?);
        if update > 0.0 {
            self.moving_rows += 1;
            self.has_moved |= self.moving_rows >= MOVING_ROWS;
            (self.still_rows, self.first) = (0, None);
            return (self.moving_rows >= MOVING_ROWS).then_some(Word::Back);
        }
        self.moving_rows = 0;
        self.still_rows += 1;
        let (first, before) = *self.first.get_or_insert((row.label, before));
        let least = if self.has_moved { STILL_ROWS } else { STILL_ROWS_FIRST };
        if self.still_rows < least {
            return None;
        }
        let summary = "no weight moves while gradient and learning rate are not zero,".to_owned();
        Some(Word::Wrong(Box::new(Break { first, before, observed: 0.0, expected: None, summary })))
    }
}
