//! Names of measured quantities; the unit is the end of the name.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Name of a measured quantity, such as `step_time_s`. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Metric(Arc<str>);

impl Metric {
    /// The metric of this name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self(Arc::from(name))
    }

    /// The name, as in the tables.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True for a running total (`_total`): its difference from row to row is judged.
    #[must_use]
    pub fn is_counter(&self) -> bool {
        self.0.ends_with("_total")
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
