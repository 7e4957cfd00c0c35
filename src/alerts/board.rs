//! How each receiver is: what waits, what arrived, whether it is left alone.

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How one receiver is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SinkStatus {
    /// Notices in the outbox.
    pub pending: u64,
    /// Notices that arrived since the start.
    pub delivered: u64,
    /// Attempts that failed since the start.
    pub failed: u64,
    /// Notices that it refused for good since the start.
    pub refused: u64,
    /// Why it is left alone, if it is.
    pub open_circuit: Option<String>,
}

#[derive(Debug, Default)]
struct State {
    sinks: BTreeMap<String, SinkStatus>,
    /// Counts the commits that brought notices.
    rings: u64,
}

/// The board that tellers and couriers write on, and the bell between them.
#[derive(Debug, Default)]
pub struct Board {
    state: Mutex<State>,
    bell: Condvar,
}

impl Board {
    /// How each receiver is, by name.
    #[must_use]
    pub fn sinks(&self) -> BTreeMap<String, SinkStatus> {
        self.state().sinks.clone()
    }

    /// How many notices wait for a receiver.
    pub fn set_pending(&self, sink: &str, pending: u64) {
        self.state().sinks.entry(sink.to_owned()).or_default().pending = pending;
    }

    /// Notices for these receivers are durable: whoever sends them is woken.
    pub fn ring(&self, sinks: impl IntoIterator<Item = impl AsRef<str>>) {
        let mut state = self.state();
        for sink in sinks {
            state.sinks.entry(sink.as_ref().to_owned()).or_default().pending += 1;
        }
        state.rings += 1;
        drop(state);
        self.bell.notify_all();
    }

    /// How often it rang.
    #[must_use]
    pub fn rings(&self) -> u64 {
        self.state().rings
    }

    /// Waits until it has rung more often than that, at most so long.
    pub(super) fn wait(&self, rings: u64, longest: Duration) {
        let state = self.state();
        // How it ended is seen by who waits.
        let _ = self.bell.wait_timeout_while(state, longest, |state| state.rings == rings);
    }

    pub(super) fn change(&self, sink: &str, change: impl FnOnce(&mut SinkStatus)) {
        change(self.state().sinks.entry(sink.to_owned()).or_default());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is whole: a panic elsewhere cannot have broken it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
