//! Where a simulated run is: which launch, which step, at what time of the day.

const DAY_S: i64 = 86_400;
const HOUR_S: i64 = 3_600;
const SECOND_NS: i64 = 1_000_000_000;

/// A place in the life of a run. Steps may come again in a later launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    /// Which launch, from 0.
    pub(crate) attempt: u32,
    /// The optimizer step.
    pub(crate) step: u64,
    /// Nanoseconds since the epoch.
    pub(crate) now_ns: i64,
}

impl Moment {
    /// The place in the order of all steps of all launches.
    pub(crate) fn place(self) -> (u32, u64) {
        (self.attempt, self.step)
    }

    /// A number of its own for each step of each launch: what is noise differs when a step is done again.
    pub(crate) fn tick(self) -> u64 {
        self.step | u64::from(self.attempt) << 40
    }

    /// Hour of the day, UTC, 0 to 23.
    pub(crate) fn hour(self) -> i64 {
        self.now_ns.div_euclid(SECOND_NS).rem_euclid(DAY_S) / HOUR_S
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_done_again_is_another_moment_and_hours_are_those_of_the_day() {
        let first = Moment { attempt: 0, step: 7, now_ns: 1_767_225_600 * SECOND_NS };
        let again = Moment { attempt: 1, now_ns: first.now_ns + 26 * HOUR_S * SECOND_NS, ..first };
        assert_eq!((first.tick(), first.hour()), (7, 0));
        assert_ne!(first.tick(), again.tick());
        assert_eq!(again.hour(), 2);
    }
}
