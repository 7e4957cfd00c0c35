//! Alignment: rows in log order become panels, sets and calls, closed by completeness or deadline and in step order.
//!
//! Rows are judged in the order in which their first cells came, over all series of the run, so that a cause is seen
//! before its effects and a log cut short says what the whole one had said so far.
//! Nothing here looks ahead or at a clock: what is handed on depends on the rows up to this log time only, and not on
//! the order of rows of equal log time. Late rows are counted, not judged.

mod collectives;
mod digests;
mod lane;
mod pace;
mod samples;

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::AddAssign;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use trainwarden_telemetry::{
    Attempt, AttemptStart, Communicators, DigestKind, Event, Label, Metric, Observation, Quiet, Roster, Step, Timestamp,
};

use self::collectives::{CollectiveKey, CollectiveLane};
use self::digests::{DigestKey, DigestLane};
use self::lane::{Placed, Wait};
use self::pace::Pace;
use self::samples::{SampleKey, SampleLane};
use crate::limits::{LANES_MAX, RUN_SILENCE_NS};
use crate::row::{CollectiveRow, DigestRow, LogClock, NO_U32, NO_U64, NameId, Names, Record, Row, SampleRow};

/// What alignment counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Rows that came after their panel was judged.
    pub late: u64,
    /// Rows equal to one that was there.
    pub repeated: u64,
    /// Rows unequal to one of the same key.
    pub conflicting: u64,
    /// Fingerprints of a kind that nothing judges.
    pub unjudged: u64,
    /// Rows of a metric, name or communicator that came when too many others were aligned.
    pub crowded: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.late += other.late;
        self.repeated += other.repeated;
        self.conflicting += other.conflicting;
        self.unjudged += other.unjudged;
        self.crowded += other.crowded;
    }
}

/// Who is in each attempt, as the tables `ranks` and `groups` told before its first row.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Membership {
    /// Rosters by attempt; an attempt without one takes that of the attempt before.
    pub rosters: BTreeMap<u32, Arc<Roster>>,
    /// Communicators by attempt, likewise.
    pub communicators: BTreeMap<u32, Arc<Communicators>>,
}

impl Membership {
    fn roster(&self, attempt: u32) -> Arc<Roster> {
        self.rosters.range(..=attempt).next_back().map(|(_, roster)| Arc::clone(roster)).unwrap_or_default()
    }

    fn communicators(&self, attempt: u32) -> Arc<Communicators> {
        self.communicators.range(..=attempt).next_back().map(|(_, told)| Arc::clone(told)).unwrap_or_default()
    }
}

/// One place rows of one order wait in.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum AnyLane {
    Samples(Box<SampleLane>),
    Digests(Box<DigestLane>),
    Collectives(Box<CollectiveLane>),
}

impl AnyLane {
    fn closes_at(&self) -> Option<i64> {
        match self {
            Self::Samples(lane) => lane.closes_at(),
            Self::Digests(lane) => lane.closes_at(),
            Self::Collectives(lane) => lane.closes_at(),
        }
    }

    fn opened_at(&self) -> Option<i64> {
        match self {
            Self::Samples(lane) => lane.opened_at(),
            Self::Digests(lane) => lane.opened_at(),
            Self::Collectives(lane) => lane.opened_at(),
        }
    }

    fn close(&mut self) -> Vec<Placed> {
        match self {
            Self::Samples(lane) => lane.close(),
            Self::Digests(lane) => lane.close(),
            Self::Collectives(lane) => lane.close(),
        }
    }
}

/// Aligns the log of one run.
#[derive(Debug, Serialize, Deserialize)]
pub struct Aligner {
    clock: LogClock,
    membership: Membership,
    now: Option<i64>,
    /// What can be judged, by its place in the log, until nothing before it is open any more.
    waiting: BTreeMap<i64, Vec<Observation>>,
    /// When the oldest open row of each lane was opened.
    openings: BTreeSet<(i64, usize)>,
    opened: Vec<Option<i64>>,
    /// Attempts that were announced, and when.
    begun: BTreeMap<u32, i64>,
    paces: BTreeMap<u32, Pace>,
    lanes: Vec<AnyLane>,
    /// When which lane closes next.
    schedule: BTreeSet<(i64, usize)>,
    scheduled: Vec<Option<i64>>,
    samples: BTreeMap<SampleKey, usize>,
    digests: BTreeMap<DigestKey, usize>,
    collectives: BTreeMap<CollectiveKey, usize>,
    counts: Counts,
    /// The last row of the run: attempt, step and log time.
    last_row: Option<(u32, u64, i64)>,
    /// The silence after it was handed on.
    is_quiet: bool,
    /// Lanes by numbers of names: a cache that is empty after a restart.
    #[serde(skip)]
    sample_cache: FxHashMap<(u32, NameId, bool, bool), usize>,
    #[serde(skip)]
    digest_cache: FxHashMap<(u32, NameId, NameId, bool), usize>,
    #[serde(skip)]
    collective_cache: FxHashMap<(u32, NameId, bool), usize>,
}

impl Aligner {
    /// An aligner that has seen nothing.
    #[must_use]
    pub fn new(clock: LogClock, membership: Membership) -> Self {
        Self {
            clock,
            membership,
            now: None,
            waiting: BTreeMap::new(),
            openings: BTreeSet::new(),
            opened: Vec::new(),
            begun: BTreeMap::new(),
            paces: BTreeMap::new(),
            lanes: Vec::new(),
            schedule: BTreeSet::new(),
            scheduled: Vec::new(),
            samples: BTreeMap::new(),
            digests: BTreeMap::new(),
            collectives: BTreeMap::new(),
            counts: Counts::default(),
            last_row: None,
            is_quiet: false,
            sample_cache: FxHashMap::default(),
            digest_cache: FxHashMap::default(),
            collective_cache: FxHashMap::default(),
        }
    }

    /// What was counted so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Learns who is in attempts that have not begun; what is told of one that has, comes too late for it.
    pub fn tell(&mut self, membership: Membership) {
        self.membership.rosters.extend(membership.rosters);
        self.membership.communicators.extend(membership.communicators);
    }

    /// Takes the next record in; log time never descends. Appends what can be judged now to `ready`.
    pub fn push(&mut self, record: &Record, names: &Names, ready: &mut Vec<Observation>) {
        if self.now.is_none_or(|now| record.log_time > now) {
            self.advance(record.log_time, ready);
        }
        match &record.row {
            Row::Sample(row) => self.push_sample(row, names),
            Row::Digest(row) => self.push_digest(row, names),
            Row::Collective(row) => self.push_collective(row, names),
            Row::Event(event) => self.push_event(event, record.log_time),
        }
    }

    /// Log time goes on without a record; appends what can be judged now to `ready`.
    pub fn tick(&mut self, log_time: i64, ready: &mut Vec<Observation>) {
        if self.now.is_none_or(|now| log_time <= now) {
            return;
        }
        if let Some((attempt, step, at)) = self.last_row.filter(|_| !self.is_quiet) {
            let overdue = at.saturating_add(RUN_SILENCE_NS);
            if log_time > overdue {
                let step = (step != NO_U64).then_some(Step(step));
                let last = Label { step, time: Some(Timestamp(at)) };
                let quiet = Quiet { attempt: Attempt(attempt), last, overdue: Timestamp(overdue) };
                self.waiting.entry(overdue).or_default().push(Observation::Quiet(quiet));
                self.is_quiet = true;
            }
        }
        self.advance(log_time, ready);
    }

    /// Forgets what numbers of texts stand for: the next record comes with other [`Names`].
    pub fn forget_names(&mut self) {
        self.sample_cache.clear();
        self.digest_cache.clear();
        self.collective_cache.clear();
    }

    /// The input ends: everything open is judged as of its deadline.
    pub fn finish(&mut self, ready: &mut Vec<Observation>) {
        self.advance(i64::MAX, ready);
    }

    /// Moves log time to `to`: closes what is due before it, then hands on what nothing open comes before.
    fn advance(&mut self, to: i64, ready: &mut Vec<Observation>) {
        if let Some(now) = self.now {
            for pace in self.paces.values_mut() {
                pace.leave(now);
            }
        }
        while let Some((_, lane)) = self.schedule.first().copied().filter(|(at, _)| *at < to) {
            let closed = self.lanes[lane].close();
            self.hold(lane, closed);
        }
        self.now = Some(to);
        let open = self.openings.first().map_or(to, |(at, _)| *at);
        while let Some(entry) = self.waiting.first_entry().filter(|entry| *entry.key() < open) {
            let mut seen = entry.remove();
            seen.sort_by(canonical);
            seen.dedup();
            ready.append(&mut seen);
        }
    }

    /// Keeps what a lane gave until its turn, and notes when the lane closes next.
    fn hold(&mut self, lane: usize, placed: Vec<Placed>) {
        for Placed { at, seen } in placed {
            self.waiting.entry(at).or_default().push(seen);
        }
        let next = (self.lanes[lane].closes_at(), self.lanes[lane].opened_at());
        renew(&mut self.schedule, &mut self.scheduled[lane], next.0, lane);
        renew(&mut self.openings, &mut self.opened[lane], next.1, lane);
    }

    fn push_sample(&mut self, row: &SampleRow, names: &Names) {
        self.begin(row.attempt, row.log_time);
        let wait = self.wait(row.attempt, row.step, row.log_time);
        let Some(lane) = self.sample_lane(row, names) else {
            self.counts.crowded += 1;
            return;
        };
        let AnyLane::Samples(samples) = &mut self.lanes[lane] else { unreachable_lane() };
        let rows = samples.place(row, wait, &mut self.counts);
        self.hold(lane, rows);
    }

    fn push_digest(&mut self, row: &DigestRow, names: &Names) {
        self.begin(row.attempt, row.log_time);
        let wait = self.wait(row.attempt, row.step, row.log_time);
        let Some(kind) = DigestKind::from_name(names.get(row.kind).unwrap_or_default()) else {
            self.counts.unjudged += 1;
            return;
        };
        let Some(lane) = self.digest_lane(kind, row, names) else {
            self.counts.crowded += 1;
            return;
        };
        let AnyLane::Digests(digests) = &mut self.lanes[lane] else { unreachable_lane() };
        let rows = digests.place(row, names, wait, &mut self.counts);
        self.hold(lane, rows);
    }

    fn push_collective(&mut self, row: &CollectiveRow, names: &Names) {
        self.begin(row.attempt, row.log_time);
        let wait = self.wait(row.attempt, row.step, row.log_time);
        let Some(lane) = self.collective_lane(row, names) else {
            self.counts.crowded += 1;
            return;
        };
        let AnyLane::Collectives(calls) = &mut self.lanes[lane] else { unreachable_lane() };
        let rows = calls.place(row, names, wait, &mut self.counts);
        self.hold(lane, rows);
    }

    fn push_event(&mut self, event: &Event, log_time: i64) {
        // A mark stands where it was set, however late it comes: the end of a pause, and not behind the rows after it.
        let own = match self.clock {
            LogClock::Nanoseconds => event.time.0.min(log_time),
            LogClock::Steps => log_time,
        };
        let at = match &event.run {
            Some(_) => own.max(self.begin(event.attempt.0, own)),
            None => own,
        };
        self.waiting.entry(at).or_default().push(Observation::Event(event.clone()));
    }

    /// Announces an attempt with its first row; gives the log time that it was announced at.
    fn begin(&mut self, attempt: u32, log_time: i64) -> i64 {
        if let Some(at) = self.begun.get(&attempt) {
            return *at;
        }
        self.begun.insert(attempt, log_time);
        let roster = self.membership.roster(attempt);
        let communicators = self.membership.communicators(attempt);
        let start = AttemptStart { attempt: Attempt(attempt), roster, communicators };
        self.waiting.entry(log_time).or_default().push(Observation::Attempt(start));
        log_time
    }

    fn wait(&mut self, attempt: u32, step: u64, opened_at: i64) -> Wait {
        self.last_row = Some((attempt, step, opened_at));
        self.is_quiet = false;
        let pace = self.paces.entry(attempt).or_default();
        if step != NO_U64 {
            pace.see(step);
        }
        Wait { opened_at, deadline: pace.deadline(self.clock) }
    }

    /// A new lane; `None` when there are as many as may be.
    fn add(&mut self, lane: impl FnOnce() -> AnyLane) -> Option<usize> {
        if self.lanes.len() >= LANES_MAX {
            return None;
        }
        self.lanes.push(lane());
        self.scheduled.push(None);
        self.opened.push(None);
        Some(self.lanes.len() - 1)
    }

    fn sample_lane(&mut self, row: &SampleRow, names: &Names) -> Option<usize> {
        let (is_ranked, is_stepped) = (row.rank != NO_U32, row.is_stepped());
        let cached = (row.attempt, row.metric, is_ranked, is_stepped);
        if let Some(lane) = self.sample_cache.get(&cached) {
            return Some(*lane);
        }
        let metric = Metric::new(names.get(row.metric).unwrap_or_default());
        let key = SampleKey { attempt: row.attempt, metric, is_ranked, is_stepped };
        let lane = match self.samples.get(&key) {
            Some(lane) => *lane,
            None => {
                let roster = self.membership.roster(row.attempt);
                let lane = || AnyLane::Samples(Box::new(SampleLane::new(key.clone(), Some(&roster))));
                let lane = self.add(lane)?;
                self.samples.insert(key, lane);
                lane
            }
        };
        self.sample_cache.insert(cached, lane);
        Some(lane)
    }

    fn digest_lane(&mut self, kind: DigestKind, row: &DigestRow, names: &Names) -> Option<usize> {
        let is_stepped = row.step != NO_U64;
        let cached = (row.attempt, row.kind, row.name, is_stepped);
        if let Some(lane) = self.digest_cache.get(&cached) {
            return Some(*lane);
        }
        let name = names.get(row.name).unwrap_or_default().to_owned();
        let key = DigestKey { attempt: row.attempt, kind, name, is_stepped };
        let lane = match self.digests.get(&key) {
            Some(lane) => *lane,
            None => {
                let lane = self.add(|| AnyLane::Digests(Box::new(DigestLane::new(key.clone()))))?;
                self.digests.insert(key, lane);
                lane
            }
        };
        self.digest_cache.insert(cached, lane);
        Some(lane)
    }

    fn collective_lane(&mut self, row: &CollectiveRow, names: &Names) -> Option<usize> {
        let is_pairwise = row.peer != NO_U32;
        let cached = (row.attempt, row.comm, is_pairwise);
        if let Some(lane) = self.collective_cache.get(&cached) {
            return Some(*lane);
        }
        let comm = names.get(row.comm).unwrap_or_default().to_owned();
        let key = CollectiveKey { attempt: row.attempt, comm, is_pairwise };
        let lane = match self.collectives.get(&key) {
            Some(lane) => *lane,
            None => {
                let told = self.membership.communicators(row.attempt);
                let lane = || AnyLane::Collectives(Box::new(CollectiveLane::new(key.clone(), Some(&told))));
                let lane = self.add(lane)?;
                self.collectives.insert(key, lane);
                lane
            }
        };
        self.collective_cache.insert(cached, lane);
        Some(lane)
    }
}

/// Moves a lane to its new place in an index by log time.
fn renew(index: &mut BTreeSet<(i64, usize)>, known: &mut Option<i64>, next: Option<i64>, lane: usize) {
    if *known == next {
        return;
    }
    if let Some(before) = known.take() {
        index.remove(&(before, lane));
    }
    index.extend(next.map(|at| (at, lane)));
    *known = next;
}

fn unreachable_lane() -> ! {
    unreachable!("each index leads to lanes of its own table: they are filled in the same place")
}

/// Median of times, the smaller middle of an even count; `None` of none.
fn median_time(times: impl Iterator<Item = i64>) -> Option<Timestamp> {
    let mut times: Vec<i64> = times.collect();
    if times.is_empty() {
        return None;
    }
    let middle = (times.len() - 1) / 2;
    let (_, median, _) = times.select_nth_unstable(middle);
    Some(Timestamp(*median))
}

/// The order of what is handed on at one log time: attempts, events, contradictions, fingerprints, calls, panels; then
/// attempt, step and name.
fn canonical(one: &Observation, other: &Observation) -> Ordering {
    order(one).cmp(&order(other)).then_with(|| match (one, other) {
        (Observation::Event(one), Observation::Event(other)) => one.cmp(other),
        (Observation::Conflict(one), Observation::Conflict(other)) => {
            let bits = |values: Option<(f64, f64)>| values.map(|(judged, aside)| (judged.to_bits(), aside.to_bits()));
            (one.rank, bits(one.values)).cmp(&(other.rank, bits(other.values)))
        }
        _ => Ordering::Equal,
    })
}

type Place<'a> = (u8, u32, Option<u64>, Option<i64>, &'a str, &'a str, bool);

fn order(seen: &Observation) -> Place<'_> {
    match seen {
        Observation::Attempt(start) => (0, start.attempt.0, None, None, "", "", false),
        Observation::Event(event) => (1, event.attempt.0, None, Some(event.time.0), &event.kind, &event.source, false),
        Observation::Conflict(conflict) => {
            let (step, time) = (conflict.label.step.map(|step| step.0), conflict.label.time.map(|time| time.0));
            (2, conflict.attempt.0, step, time, &conflict.subject, "", false)
        }
        Observation::Digests(set) => {
            let (step, time) = (set.label.step.map(|step| step.0), set.label.time.map(|time| time.0));
            (3, set.attempt.0, step, time, set.kind.as_str(), &set.name, false)
        }
        Observation::Collective(call) => {
            let is_pairwise = call.entries.iter().any(|entry| entry.peer.is_some());
            (4, call.attempt.0, call.step().map(|step| step.0), None, &call.comm, "", is_pairwise)
        }
        Observation::Panel(panel) => {
            let label = panel.labels.first().copied().unwrap_or_default();
            let (step, time) = (label.step.map(|step| step.0), label.time.map(|time| time.0));
            (5, panel.attempt.0, step, time, panel.metric.as_str(), "", !panel.is_whole_run())
        }
        Observation::Quiet(quiet) => (6, quiet.attempt.0, None, Some(quiet.overdue.0), "", "", false),
    }
}

#[cfg(test)]
mod tests;
