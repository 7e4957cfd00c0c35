//! What several detectors share: the labels of the last rows, to tell when something began.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use trainwarden_telemetry::Label;

use crate::series::push;

/// The labels of the last rows, oldest first.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct LabelHistory(VecDeque<Label>);

impl LabelHistory {
    /// A row came; of more than `most` the oldest is forgotten.
    pub(crate) fn push(&mut self, label: Label, most: usize) {
        push(&mut self.0, label, most);
    }

    /// The label of a row `age` rows back, the newest being 1; the oldest that is known where that is further back.
    pub(crate) fn back(&self, age: u32) -> Label {
        let back = (age.max(1) as usize).min(self.0.len());
        self.0.get(self.0.len() - back).copied().unwrap_or_default()
    }
}
