//! How far a long command is, on a terminal.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

/// A command that ends sooner shows nothing.
const SILENT_FOR: Duration = Duration::from_secs(2);
/// Pause between two updates: often enough to be seen moving.
const PAUSE: Duration = Duration::from_millis(200);
/// Rows between two looks at the clock, so that rows of a microsecond do not pay for it.
const ROWS_BETWEEN_LOOKS: u64 = 1 << 14;

/// Rewrites one line on standard error, where that is a terminal. What a command finds never depends on it.
#[derive(Debug)]
pub struct Progress {
    next: Option<Instant>,
    rows: u64,
    is_shown: bool,
}

impl Progress {
    /// Shows nothing yet.
    #[must_use]
    pub fn new() -> Self {
        let next = io::stderr().is_terminal().then(|| Instant::now() + SILENT_FOR);
        Self { next, rows: 0, is_shown: false }
    }

    /// One more row was judged.
    pub fn row(&mut self) {
        self.rows += 1;
        if !self.rows.is_multiple_of(ROWS_BETWEEN_LOOKS) || self.next.is_none_or(|next| Instant::now() < next) {
            return;
        }
        self.next = Some(Instant::now() + PAUSE);
        self.is_shown = true;
        let _ = write!(io::stderr(), "\r\x1b[K{} rows judged", self.rows);
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Progress {
    /// Clears the line.
    fn drop(&mut self) {
        if self.is_shown {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
