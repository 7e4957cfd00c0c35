//! What goes next to one receiver.

use std::collections::{BTreeMap, BTreeSet};

use super::{Backoff, Circuit};

/// Lanes, the first first.
pub const LANES: [u8; 2] = [0, 1];
/// Notices of each lane that are held in memory.
pub const WINDOW_ROWS: usize = 256;
/// Waits of one notice that failed while others arrive.
const RETRY: Backoff = Backoff { first_ns: 1_000_000_000, longest_ns: 300_000_000_000 };
/// Refusals of one notice after which it is given up, if its receiver took others meanwhile.
const REFUSALS_MAX: u32 = 4;

/// Which notices a worker takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// Every one, the first lane first.
    Any,
    /// Those of the first lane only: kept free, so that a slow receiver of the rest does not hold them up.
    Urgent,
}

/// What a worker does now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// It tries this notice: number and JSON.
    Attempt(u64, String),
    /// It waits until then, in nanoseconds since the epoch, or until there is more.
    Wait(i64),
    /// There is nothing for it.
    Idle,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The receiver has it.
    Arrived,
    /// The receiver could not be reached, or could not take anything; it may have asked for a pause, in nanoseconds.
    Failed(Option<i64>),
    /// The receiver does not take this one.
    Refused,
}

/// What becomes of a notice after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is to leave the outbox.
    Arrived,
    /// It is tried again.
    Again,
    /// Its receiver refuses it for good and takes others: it is to be set aside.
    GivenUp,
}

#[derive(Clone, Debug)]
struct Waiting {
    lane: u8,
    incident: String,
    json: String,
    is_on_its_way: bool,
    failures: u32,
    refusals: u32,
    /// How many others had arrived when it was first refused.
    arrived_before: u64,
    not_before: i64,
}

/// Plans the attempts at one receiver.
///
/// Notices of one incident go one after the other, in the order of their numbers; an end never overtakes its beginning.
#[derive(Clone, Debug)]
pub struct Planner {
    seed: u64,
    rows: BTreeMap<u64, Waiting>,
    /// Numbers by incident: only the first of each may go.
    incidents: BTreeMap<String, BTreeSet<u64>>,
    /// The firsts of their incidents that nobody tries, by time, lane and number.
    due: BTreeSet<(i64, u8, u64)>,
    /// Those of them whose time has come, by lane and number.
    ready: BTreeSet<(u8, u64)>,
    /// Lanes of which everything is held here.
    is_whole: [bool; LANES.len()],
    /// Those that are done and that the outbox still holds.
    settling: BTreeSet<u64>,
    circuit: Circuit,
    arrived: u64,
}

impl Planner {
    /// A planner with nothing to send.
    ///
    /// * `seed`: of its waits.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            rows: BTreeMap::new(),
            incidents: BTreeMap::new(),
            due: BTreeSet::new(),
            ready: BTreeSet::new(),
            is_whole: [false; LANES.len()],
            settling: BTreeSet::new(),
            circuit: Circuit::default(),
            arrived: 0,
        }
    }

    /// Takes in the beginning of a lane as the outbox holds it; what is known already stays as it is.
    ///
    /// * `rows`: number, incident and JSON, by number: the first [`WINDOW_ROWS`], or all where there are fewer.
    pub fn offer(&mut self, lane: u8, rows: Vec<(u64, String, String)>) {
        self.is_whole[usize::from(lane)] = rows.len() < WINDOW_ROWS;
        for (number, incident, json) in rows {
            if self.settling.contains(&number) {
                continue;
            }
            self.leave_queue(&incident);
            let (failures, refusals, arrived_before, not_before) = (0, 0, 0, i64::MIN);
            let is_on_its_way = false;
            let waiting = Waiting {
                lane,
                incident: incident.clone(),
                json,
                is_on_its_way,
                failures,
                refusals,
                arrived_before,
                not_before,
            };
            self.rows.entry(number).or_insert(waiting).lane = lane;
            self.incidents.entry(incident.clone()).or_default().insert(number);
            self.enter_queue(&incident);
        }
    }

    /// The outbox may have got more.
    pub fn expect_more(&mut self) {
        self.is_whole = [false; LANES.len()];
    }

    /// The lanes of which the outbox may hold more than is known here, and little is left here.
    pub fn lanes_to_refill(&self) -> impl Iterator<Item = u8> + '_ {
        let held = |lane: u8| self.rows.values().filter(|row| row.lane == lane).take(WINDOW_ROWS / 2).count();
        LANES.into_iter().filter(move |lane| !self.is_whole[usize::from(*lane)] && held(*lane) < WINDOW_ROWS / 2)
    }

    /// How many notices are held.
    #[must_use]
    pub fn held(&self) -> usize {
        self.rows.len() + self.settling.len()
    }

    /// Whether the receiver is left alone.
    #[must_use]
    pub fn circuit(&self) -> &Circuit {
        &self.circuit
    }

    /// What a worker does now; an attempt is on its way until [`Planner::done`].
    pub fn next(&mut self, now: i64, slot: Slot) -> Next {
        while let Some((not_before, lane, number)) = self.due.first().copied().filter(|(at, ..)| *at <= now) {
            self.due.remove(&(not_before, lane, number));
            self.ready.insert((lane, number));
        }
        let is_taken = |lane: u8| slot == Slot::Any || lane == LANES[0];
        let ready = self.ready.first().copied().filter(|(lane, _)| is_taken(*lane));
        let due = self.due.iter().find(|(_, lane, _)| is_taken(*lane)).map(|(at, ..)| *at);
        let rests_until = self.circuit.opens_at(now);
        match ready {
            Some((lane, number)) if self.circuit.lets_through(now) => {
                self.circuit.begin();
                self.ready.remove(&(lane, number));
                let row = self.rows.get_mut(&number).expect("what is queued is held");
                row.is_on_its_way = true;
                Next::Attempt(number, row.json.clone())
            }
            Some(_) => rests_until.map_or(Next::Idle, Next::Wait),
            None => due.map_or(Next::Idle, |due| Next::Wait(rests_until.map_or(due, |until| until.max(due)))),
        }
    }

    /// An attempt has ended.
    pub fn done(&mut self, number: u64, outcome: Outcome, now: i64) -> Fate {
        let seed = self.seed ^ number.rotate_left(32);
        let Some(row) = self.rows.get_mut(&number) else { return Fate::Again };
        row.is_on_its_way = false;
        let fate = match outcome {
            Outcome::Arrived => {
                self.circuit.succeed();
                self.arrived += 1;
                Fate::Arrived
            }
            Outcome::Failed(asked_ns) => {
                self.circuit.fail(now, asked_ns, seed);
                Fate::Again
            }
            Outcome::Refused => {
                if row.refusals == 0 {
                    row.arrived_before = self.arrived;
                }
                row.refusals += 1;
                self.circuit.fail(now, None, seed);
                // One that refuses everything is set up wrongly, and nothing is the fault of this notice.
                let takes_others = self.arrived > row.arrived_before;
                if row.refusals >= REFUSALS_MAX && takes_others { Fate::GivenUp } else { Fate::Again }
            }
        };
        let incident = row.incident.clone();
        if fate == Fate::Again {
            row.not_before = now.saturating_add(RETRY.wait_ns(row.failures, seed));
            row.failures += 1;
        } else {
            self.rows.remove(&number);
            self.settling.insert(number);
            let numbers = self.incidents.entry(incident.clone()).or_default();
            numbers.remove(&number);
            if numbers.is_empty() {
                self.incidents.remove(&incident);
            }
        }
        self.enter_queue(&incident);
        fate
    }

    /// The outbox holds these no more.
    pub fn settled(&mut self, numbers: impl IntoIterator<Item = u64>) {
        for number in numbers {
            self.settling.remove(&number);
        }
    }

    /// The first of an incident is queued, unless it is on its way.
    fn enter_queue(&mut self, incident: &str) {
        let first = self.incidents.get(incident).and_then(|numbers| numbers.first());
        if let Some(number) = first {
            let row = &self.rows[number];
            if !row.is_on_its_way {
                self.due.insert((row.not_before, row.lane, *number));
            }
        }
    }

    /// The first of an incident is queued no more: it may change its lane, or not be the first any more.
    fn leave_queue(&mut self, incident: &str) {
        let first = self.incidents.get(incident).and_then(|numbers| numbers.first());
        if let Some(number) = first {
            let row = &self.rows[number];
            self.due.remove(&(row.not_before, row.lane, *number));
            self.ready.remove(&(row.lane, *number));
        }
    }
}

#[cfg(test)]
mod tests;
