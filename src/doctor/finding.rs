//! One thing that was looked at.

use std::fmt;

/// How a thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// As it should be.
    Good,
    /// It works, and somebody should look.
    Warning,
    /// It does not work, or will not.
    Wrong,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Good => "ok",
            Self::Warning => "warning",
            Self::Wrong => "wrong",
        })
    }
}

/// One thing that was looked at: how it is, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How it is.
    pub verdict: Verdict,
    /// Which part of the surroundings: `kafka`, `clock`, `disk`, `keys`, `port`, `state`, `limits`.
    pub group: &'static str,
    /// What was seen.
    pub what: String,
    /// What to do; empty where nothing is to be done.
    pub advice: String,
    /// True when something outside could not be reached.
    pub is_unreachable: bool,
}

impl Finding {
    pub(super) fn good(group: &'static str, what: impl Into<String>) -> Self {
        Self { verdict: Verdict::Good, group, what: what.into(), advice: String::new(), is_unreachable: false }
    }

    pub(super) fn warning(group: &'static str, what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warning, advice: advice.into(), ..Self::good(group, what) }
    }

    pub(super) fn wrong(group: &'static str, what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { verdict: Verdict::Wrong, advice: advice.into(), ..Self::good(group, what) }
    }

    /// What is wrong because somebody outside does not answer.
    #[cfg(feature = "kafka")]
    pub(super) fn unreachable(group: &'static str, what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { is_unreachable: true, ..Self::wrong(group, what, advice) }
    }
}
