//! Takes notices out of the outbox and sends them to one receiver.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use anyhow::Result;
use tracing::{debug, error, warn};
use trainwarden_incidents::deliver::{Fate, Next, Outcome, Planner, Slot, WINDOW_ROWS};
use trainwarden_incidents::sinks::{Sink as _, SinkError};
use trainwarden_incidents::{Announced, Notice};
use trainwarden_store::{AnnouncedRow, StateStore};
use trainwarden_telemetry::{ChangeKind, Incident, State};

use super::{Board, Endpoint};
use crate::serve::desk::now_ns;

/// Notices that arrived are taken out of the outbox together: so many at most are sent twice after a kill.
const SETTLED_TOGETHER_MAX: usize = 32;
/// Longest rest of a thread, after which it looks whether the service stops.
const REST_MAX: Duration = Duration::from_millis(200);
/// Pause before something that failed here is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// How long an end is said again to a receiver that wants repeats: as Prometheus does.
const ENDS_REPEATED_NS: i64 = 15 * 60 * 1_000_000_000;

/// What one step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// An attempt was made.
    Attempted,
    /// There is nothing to do until then, in nanoseconds of the clock that was given, or until more comes.
    Rests(Option<i64>),
}

/// Done with and still in the outbox.
#[derive(Debug, Default)]
struct Done {
    arrived: Vec<u64>,
    refused: Vec<(u64, String)>,
}

/// Sends to one receiver.
#[derive(Debug)]
pub struct Courier {
    endpoint: Endpoint,
    store: Arc<StateStore>,
    board: Arc<Board>,
    planner: Mutex<Planner>,
    done: Mutex<Done>,
    /// How often the bell had rung when the outbox was read.
    heard: Mutex<Option<u64>>,
    /// Attempts read, repeats write: no repeat says that something is open whose end is on its way.
    sending: RwLock<()>,
}

impl Courier {
    /// A courier that has read nothing.
    #[must_use]
    pub fn new(endpoint: Endpoint, store: Arc<StateStore>, board: Arc<Board>) -> Self {
        // Receivers that failed together come back apart.
        let seed = endpoint.name.bytes().fold(now_ns() as u64, |seed, byte| seed.rotate_left(8) ^ u64::from(byte));
        let planner = Mutex::new(Planner::new(seed));
        Self {
            endpoint,
            store,
            board,
            planner,
            done: Mutex::default(),
            heard: Mutex::default(),
            sending: RwLock::default(),
        }
    }

    /// Wakes its threads.
    pub fn wake(&self) {
        self.board.ring(std::iter::empty::<&str>());
    }

    /// Works until the service stops; what was sent is taken out of the outbox before it returns.
    pub fn run(&self, slot: Slot, stop: &AtomicBool) {
        // A clock that is set back or forward does not change how long a failure waits.
        let (start, started) = (now_ns(), Instant::now());
        let now = || start.saturating_add(i64::try_from(started.elapsed().as_nanos()).unwrap_or(i64::MAX));
        let mut repeat_at = now();
        while !stop.load(Ordering::Relaxed) {
            let rings = self.board.rings();
            if slot == Slot::Any && now() >= repeat_at {
                repeat_at = now().saturating_add(self.repeat());
            }
            match self.step(now(), slot) {
                Ok(Step::Attempted) => {}
                Ok(Step::Rests(until)) => {
                    let wait = until.map_or(REST_MAX, |until| {
                        Duration::from_nanos(until.saturating_sub(now()).max(0) as u64).min(REST_MAX)
                    });
                    self.board.wait(rings, wait.max(Duration::from_millis(1)));
                }
                Err(error) => {
                    warn!(
                        sink = self.endpoint.name,
                        error = format!("{error:#}"),
                        "the outbox does not work; trying again"
                    );
                    std::thread::sleep(RETRY_AFTER);
                }
            }
        }
        if let Err(error) = self.settle(0) {
            let error = format!("{error:#}");
            warn!(sink = self.endpoint.name, error, "what arrived is sent again after the next start");
        }
    }

    /// Makes one attempt, where there is one to make.
    ///
    /// * `now`: nanoseconds of a clock that only goes forward.
    ///
    /// # Errors
    /// When the state cannot be read or written; the same may be tried again.
    pub fn step(&self, now: i64, slot: Slot) -> Result<Step> {
        self.refill()?;
        let next = self.planner().next(now, slot);
        let (number, json) = match next {
            Next::Attempt(number, json) => (number, json),
            Next::Wait(until) => {
                self.settle(0)?;
                return Ok(Step::Rests(Some(until)));
            }
            Next::Idle => {
                self.settle(0)?;
                return Ok(Step::Rests(None));
            }
        };
        let outcome = self.attempt(&json);
        let fate =
            self.planner().done(number, outcome.as_ref().map_or_else(SinkError::outcome, |_| Outcome::Arrived), now);
        self.note(number, &json, &outcome, fate);
        self.settle(SETTLED_TOGETHER_MAX)?;
        Ok(Step::Attempted)
    }

    fn attempt(&self, json: &str) -> Result<String, SinkError> {
        let notice: Notice = match serde_json::from_str(json) {
            Ok(notice) => notice,
            Err(error) => return Err(SinkError::Refused { status: 0, body: format!("no notice of ours: {error}") }),
        };
        let _sending = self.sending.read().unwrap_or_else(PoisonError::into_inner);
        self.endpoint.sink.attempt(&notice, &*self.endpoint.outside)
    }

    /// Writes down what became of an attempt.
    fn note(&self, number: u64, json: &str, outcome: &Result<String, SinkError>, fate: Fate) {
        let name = &self.endpoint.name;
        let is_open = self.planner().circuit().is_open();
        let reason = outcome.as_ref().err().map(|error| format!("{error}"));
        let mut was_open = false;
        self.board.change(name, |status| {
            was_open = status.open_circuit.is_some();
            status.delivered += u64::from(fate == Fate::Arrived);
            status.failed += u64::from(reason.is_some());
            status.refused += u64::from(fate == Fate::GivenUp);
            status.open_circuit = reason.clone().filter(|_| is_open).or(status.open_circuit.take().filter(|_| is_open));
        });
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        match (fate, reason) {
            (Fate::Arrived, _) => {
                debug!(sink = name, number, "a notice arrived");
                done.arrived.push(number);
            }
            (Fate::GivenUp, reason) => {
                let reason = reason.unwrap_or_default();
                error!(sink = name, number, reason, "a notice is refused for good and set aside");
                let notice: serde_json::Value = serde_json::from_str(json).unwrap_or_default();
                done.refused.push((number, serde_json::json!({"reason": reason, "notice": notice}).to_string()));
            }
            (Fate::Again, Some(reason)) if is_open && !was_open => {
                error!(sink = name, reason, "a receiver is left alone until it answers; its notices wait");
            }
            (Fate::Again, reason) => debug!(sink = name, number, reason, "a notice is tried again"),
        }
    }

    /// Takes out of the outbox what is done, where there is more of it than `kept_max`.
    fn settle(&self, kept_max: usize) -> Result<()> {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        let count = done.arrived.len() + done.refused.len();
        if count == 0 || count < kept_max {
            return Ok(());
        }
        self.store.settle(&self.endpoint.name, &done.arrived, &done.refused)?;
        let Done { arrived, refused } = std::mem::take(&mut *done);
        drop(done);
        self.planner().settled(arrived.into_iter().chain(refused.into_iter().map(|(number, _)| number)));
        self.board.change(&self.endpoint.name, |status| status.pending = status.pending.saturating_sub(count as u64));
        Ok(())
    }

    /// Reads the beginning of the lanes where little of them is left, or more has come.
    fn refill(&self) -> Result<()> {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let rings = self.board.rings();
        let mut planner = self.planner();
        if *heard != Some(rings) {
            planner.expect_more();
        }
        for lane in planner.lanes_to_refill().collect::<Vec<u8>>() {
            let rows = self.store.waiting((&self.endpoint.name, lane), 0, WINDOW_ROWS)?;
            let named = rows.into_iter().map(|(number, json)| {
                let incident = serde_json::from_str::<Notice>(&json).map(|notice| notice.incident.id.0);
                (number, incident.unwrap_or_default(), json)
            });
            planner.offer(lane, named.collect());
        }
        *heard = Some(rings);
        Ok(())
    }

    /// Says again what is open, where the receiver wants it; gives the pause until the next time, in nanoseconds.
    fn repeat(&self) -> i64 {
        let Some(every) = self.endpoint.sink.repeats_every() else { return i64::MAX };
        let pause = i64::try_from(every.as_nanos()).unwrap_or(i64::MAX);
        // A notice that waits finds out when it is back.
        if self.planner().circuit().is_open() {
            return pause / 4;
        }
        let _sending = self.sending.write().unwrap_or_else(PoisonError::into_inner);
        let outcome = self.open_notices().map(|notices| match notices.is_empty() {
            true => Ok(String::new()),
            false => self.endpoint.sink.repeat(&notices, &*self.endpoint.outside),
        });
        match outcome {
            Ok(Ok(_)) => pause,
            Ok(Err(error)) => {
                warn!(sink = self.endpoint.name, %error, "what is open could not be said again");
                pause / 4
            }
            Err(error) => {
                warn!(sink = self.endpoint.name, error = format!("{error:#}"), "what is open could not be read");
                pause / 4
            }
        }
    }

    /// What is open, or ended a while ago, of all that this receiver was told of.
    fn open_notices(&self) -> Result<Vec<Notice>> {
        let now = self.endpoint.outside.now();
        let mut notices = Vec::new();
        for AnnouncedRow { incident, json } in self.store.all_announced()? {
            let known: Announced = serde_json::from_str(&json)?;
            if known.over_since.is_some_and(|since| now.saturating_sub(since) > ENDS_REPEATED_NS) {
                continue;
            }
            let Some(json) = self.store.incident(&incident)? else { continue };
            let incident: Incident = serde_json::from_str(&json)?;
            // Ended, but not told here: another worker has told it.
            let is_told_elsewhere =
                known.over_since.is_none() && known.held.is_none() && incident.state == State::Resolved;
            if is_told_elsewhere || !self.endpoint.route.takes(&incident) {
                continue;
            }
            let kind = if known.over_since.is_some() { ChangeKind::Resolved } else { ChangeKind::Opened };
            notices.push(Notice::new(&self.endpoint.name, (0, kind), &incident, known.over_since.unwrap_or(now)));
        }
        Ok(notices)
    }

    fn planner(&self) -> MutexGuard<'_, Planner> {
        self.planner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
