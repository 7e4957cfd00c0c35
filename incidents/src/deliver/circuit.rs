//! Whether a receiver is left alone for now.

use super::Backoff;

/// Failures in a row after which a receiver is left alone.
const FAILURES_MAX: u32 = 5;
/// How long a receiver is left alone: some seconds at first, at most five minutes, so that one that is back is found soon.
const REST: Backoff = Backoff { first_ns: 2_000_000_000, longest_ns: 300_000_000_000 };

/// Counts failures in a row; after some of them lets one attempt through at a time, ever more seldom, until one succeeds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Circuit {
    failures: u32,
    /// Until when nothing is tried, in nanoseconds since the epoch.
    rests_until: Option<i64>,
    is_probing: bool,
}

impl Circuit {
    /// True where an attempt may begin; while the circuit is open only one at a time.
    #[must_use]
    pub fn lets_through(&self, now: i64) -> bool {
        self.rests_until.is_none_or(|until| now >= until && !self.is_probing)
    }

    /// When the next attempt may begin; nothing where one may now, or one is on its way.
    #[must_use]
    pub fn opens_at(&self, now: i64) -> Option<i64> {
        self.rests_until.filter(|until| *until > now)
    }

    /// True from the failure that opened it to the next success.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.rests_until.is_some()
    }

    /// An attempt begins.
    pub fn begin(&mut self) {
        self.is_probing = self.is_open();
    }

    /// An attempt succeeded.
    pub fn succeed(&mut self) {
        *self = Self::default();
    }

    /// An attempt failed.
    ///
    /// * `asked_ns`: how long the receiver asked to be left alone, if it did.
    pub fn fail(&mut self, now: i64, asked_ns: Option<i64>, seed: u64) {
        self.failures = self.failures.saturating_add(1);
        self.is_probing = false;
        let rest = self.failures.checked_sub(FAILURES_MAX).map(|more| REST.wait_ns(more, seed));
        // Whoever asks for a day is asked again much sooner.
        let asked = asked_ns.map(|asked| asked.clamp(0, REST.longest_ns));
        if let Some(rest) = rest.max(asked) {
            self.rests_until = Some(now.saturating_add(rest));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_failures_open_it_one_attempt_probes_and_a_success_closes_it() {
        let mut circuit = Circuit::default();
        for _ in 0..4 {
            circuit.fail(0, None, 1);
        }
        assert!(circuit.lets_through(0) && !circuit.is_open());
        circuit.fail(0, None, 1);
        let until = circuit.opens_at(0).expect("it rests");
        assert!(!circuit.lets_through(until - 1) && circuit.lets_through(until));
        circuit.begin();
        assert!(!circuit.lets_through(until), "one probes, the others wait");
        circuit.fail(until, None, 1);
        assert!(circuit.opens_at(until).expect("it rests") - until > until, "it rests longer");
        circuit.succeed();
        assert_eq!(circuit, Circuit::default());
    }

    #[test]
    fn a_receiver_that_asks_for_a_pause_gets_it_at_once_and_not_for_ever() {
        let mut circuit = Circuit::default();
        circuit.fail(10, Some(7), 1);
        assert_eq!(circuit.opens_at(10), Some(17));
        circuit.fail(10, Some(i64::MAX), 1);
        assert_eq!(circuit.opens_at(10), Some(10 + REST.longest_ns));
    }
}
