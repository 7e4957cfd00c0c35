//! Rows of one metric, open for the cells of its ranks.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use ndarray::Array2;
use serde::{Deserialize, Serialize};
use trainwarden_telemetry::{Attempt, Conflict, Label, Metric, Observation, Panel, Rank, Roster, Step, Timestamp};

use super::lane::{Lane, OpenRow, Placed, Wait};
use super::{Counts, median_time};
use crate::limits::{CLOSED_ROWS_KEPT, DENSE_RANKS_MAX, OPEN_CELLS_MAX};
use crate::row::{NO_TIME, NO_U32, NO_U64, SampleRow};

/// Which rows belong into one panel.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct SampleKey {
    pub(crate) attempt: u32,
    pub(crate) metric: Metric,
    /// Rows with ranks, or one value a row for the whole run.
    pub(crate) is_ranked: bool,
    /// Rows labelled by step, or by time.
    pub(crate) is_stepped: bool,
}

/// One value: the judged one, and the largest one set aside that contradicts it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Cell {
    time: i64,
    value: f64,
    is_present: bool,
}

const ABSENT: Cell = Cell { time: NO_TIME, value: f64::NAN, is_present: false };

impl Cell {
    /// The order in which unequal rows of one key are preferred: the smallest is judged.
    fn order(&self) -> (i64, u64) {
        (self.time, self.value.to_bits())
    }
}

/// The cells of one row, by slot: slots are given to ranks as they appear.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Cells {
    slots: Vec<Cell>,
    aside: BTreeMap<u32, Cell>,
    told_present: usize,
}

/// A row that closed recently, to tell a repeated row from a contradicting one.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct ClosedRow {
    key: u64,
    cell: Cell,
}

/// Aligns the rows of one metric of one attempt.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SampleLane {
    pub(crate) key: SampleKey,
    lane: Lane<Cells>,
    /// Rank of each slot, and the first key it appeared at.
    slots: Vec<(u32, u64)>,
    dense: Vec<u32>,
    sparse: BTreeMap<u32, u32>,
    /// Slots in the order of their ranks.
    order: Vec<u32>,
    /// Told ranks; a lane with a rank outside of them never knows that it is complete.
    told: Option<Arc<BTreeSet<u32>>>,
    has_untold: bool,
    /// Last value of each slot, of a counter only.
    totals: Vec<Option<f64>>,
    closed: VecDeque<ClosedRow>,
}

impl SampleLane {
    pub(crate) fn new(key: SampleKey, roster: Option<&Roster>) -> Self {
        let told = roster.filter(|roster| roster.is_told());
        Self {
            key,
            lane: Lane::default(),
            slots: Vec::new(),
            dense: Vec::new(),
            sparse: BTreeMap::new(),
            order: Vec::new(),
            told: told.map(|roster| Arc::new(roster.placements.keys().map(|rank| rank.0).collect())),
            has_untold: false,
            totals: Vec::new(),
            closed: VecDeque::new(),
        }
    }

    pub(crate) fn closes_at(&self) -> Option<i64> {
        self.lane.closes_at()
    }

    pub(crate) fn opened_at(&self) -> Option<i64> {
        self.lane.opened_at()
    }

    /// Takes a row in. Gives the rows that a full lane closes early, and contradictions of closed rows.
    pub(crate) fn place(&mut self, row: &SampleRow, wait: Wait, counts: &mut Counts) -> Vec<Placed> {
        let key = if self.key.is_stepped { row.step } else { time_key(row.time_or_log()) };
        let cell = Cell { time: row.time, value: row.value, is_present: true };
        if self.lane.is_closed(key) {
            return self.place_late(key, cell, row, counts);
        }
        let slot = self.slot(row.rank, key);
        let width = self.slots.len();
        let expected = match (&self.told, self.key.is_ranked) {
            (_, false) => 1,
            (Some(told), true) if !self.has_untold => told.len(),
            _ => usize::MAX,
        };
        let rows = self.lane.rows.len();
        let open = self.lane.open(key, wait, Cells::default);
        if open.cells.slots.len() < width {
            open.cells.slots.resize(width, ABSENT);
        }
        open.cells.put(slot, cell, counts);
        if open.cells.told_present == expected && self.key.is_stepped {
            open.complete_at.get_or_insert(row.log_time);
        }
        if self.lane.rows.len() > rows && self.lane.rows.len() * width > OPEN_CELLS_MAX {
            let closed = self.lane.close_first(row.log_time);
            return self.observations(closed);
        }
        Vec::new()
    }

    fn place_late(&mut self, key: u64, cell: Cell, row: &SampleRow, counts: &mut Counts) -> Vec<Placed> {
        let Some(closed) = self.closed.iter().find(|closed| closed.key == key) else {
            counts.late += 1;
            return Vec::new();
        };
        if closed.cell.order() == cell.order() {
            counts.repeated += 1;
            return Vec::new();
        }
        counts.conflicting += 1;
        let values = Some((closed.cell.value, cell.value));
        vec![Placed { at: row.log_time, seen: self.conflict(key, row.rank, values, closed.cell.time) }]
    }

    fn slot(&mut self, rank: u32, key: u64) -> u32 {
        let known = match rank {
            NO_U32 => (!self.slots.is_empty()).then_some(0),
            rank if rank < DENSE_RANKS_MAX => self.dense.get(rank as usize).copied().filter(|slot| *slot != NO_U32),
            rank => self.sparse.get(&rank).copied(),
        };
        if let Some(slot) = known {
            let first = &mut self.slots[slot as usize].1;
            *first = key.min(*first);
            return slot;
        }
        let slot = self.slots.len() as u32;
        self.slots.push((rank, key));
        if self.key.metric.is_counter() {
            self.totals.push(None);
        }
        if rank < DENSE_RANKS_MAX {
            if self.dense.len() <= rank as usize {
                self.dense.resize(rank as usize + 1, NO_U32);
            }
            self.dense[rank as usize] = slot;
        } else if rank != NO_U32 {
            self.sparse.insert(rank, slot);
        }
        self.has_untold |= self.told.as_ref().is_some_and(|told| !told.contains(&rank));
        let at = self.order.partition_point(|other| self.slots[*other as usize].0 < rank);
        self.order.insert(at, slot);
        slot
    }

    /// Closes what [`closes_at`](Self::closes_at) announced.
    pub(crate) fn close(&mut self) -> Vec<Placed> {
        let closed = self.lane.close();
        self.observations(closed)
    }

    fn observations(&mut self, closed: Vec<(u64, OpenRow<Cells>)>) -> Vec<Placed> {
        let mut observations = Vec::new();
        for (key, row) in closed {
            for (slot, aside) in &row.cells.aside {
                let judged = row.cells.slots[*slot as usize];
                let rank = self.slots[*slot as usize].0;
                let values = Some((judged.value, aside.value));
                let seen = self.conflict(key, rank, values, judged.time);
                observations.push(Placed { at: row.opened_at, seen });
            }
            if !self.key.is_ranked {
                if self.closed.len() == CLOSED_ROWS_KEPT {
                    self.closed.pop_front();
                }
                self.closed.push_back(ClosedRow { key, cell: row.cells.slots[0] });
            }
            let seen = Observation::Panel(self.panel(key, &row));
            observations.push(Placed { at: row.opened_at, seen });
        }
        observations
    }

    fn conflict(&self, key: u64, rank: u32, values: Option<(f64, f64)>, time: i64) -> Observation {
        let time = (time != NO_TIME).then_some(Timestamp(time));
        Observation::Conflict(Conflict {
            attempt: Attempt(self.key.attempt),
            subject: self.key.metric.to_string(),
            label: Label { step: self.key.is_stepped.then_some(Step(key)), time },
            rank: (rank != NO_U32).then_some(Rank(rank)),
            values,
        })
    }

    /// One row as a panel. Its columns are the ranks known at its key, not those that appeared at later ones.
    fn panel(&mut self, key: u64, row: &OpenRow<Cells>) -> Panel {
        let columns: Vec<u32> = self.order.iter().copied().filter(|slot| self.slots[*slot as usize].1 <= key).collect();
        let width = columns.len();
        let mut values = Vec::with_capacity(width);
        let mut present = Vec::with_capacity(width);
        let mut clocks = Vec::with_capacity(width);
        for &slot in &columns {
            let cell = row.cells.slots.get(slot as usize).copied().unwrap_or(ABSENT);
            let value = self.judged_value(slot, cell);
            values.push(narrowed(value.unwrap_or(f64::NAN)));
            present.push(value.is_some());
            clocks.push(cell.time);
        }
        let ranks: Vec<Rank> = match self.key.is_ranked {
            true => columns.iter().map(|slot| Rank(self.slots[*slot as usize].0)).collect(),
            false => Vec::new(),
        };
        let step = self.key.is_stepped.then_some(Step(key));
        let median = median_time(clocks.iter().copied().filter(|time| *time != NO_TIME));
        let time = median.or_else(|| (!self.key.is_stepped).then(|| Timestamp(key_time(key))));
        let one_row = "one cell a column";
        Panel {
            attempt: Attempt(self.key.attempt),
            metric: self.key.metric.clone(),
            labels: vec![Label { step, time }],
            ranks: ranks.into(),
            values: Array2::from_shape_vec((1, width), values).expect(one_row),
            present: Array2::from_shape_vec((1, width), present).expect(one_row),
            clocks: Array2::from_shape_vec((1, width), clocks).expect(one_row),
            deadline_ns: Some(row.waited),
        }
    }

    /// The value itself, or of a counter what it grew by since the rank's row before.
    fn judged_value(&mut self, slot: u32, cell: Cell) -> Option<f64> {
        if !cell.is_present {
            return None;
        }
        if !self.key.metric.is_counter() {
            return Some(cell.value);
        }
        let before = self.totals[slot as usize].replace(cell.value);
        before.map(|before| cell.value - before)
    }
}

impl Cells {
    fn put(&mut self, slot: u32, cell: Cell, counts: &mut Counts) {
        let judged = &mut self.slots[slot as usize];
        if !judged.is_present {
            *judged = cell;
            self.told_present += 1;
            return;
        }
        if judged.order() == cell.order() {
            counts.repeated += 1;
            return;
        }
        counts.conflicting += 1;
        let (smaller, larger) = if cell.order() < judged.order() { (cell, *judged) } else { (*judged, cell) };
        *judged = smaller;
        let aside = self.aside.entry(slot).or_insert(larger);
        if larger.order() > aside.order() {
            *aside = larger;
        }
    }
}

impl SampleRow {
    /// The sender's time, else the log's.
    fn time_or_log(&self) -> i64 {
        if self.time == NO_TIME { self.log_time } else { self.time }
    }

    /// True when the row has a step.
    pub(crate) fn is_stepped(&self) -> bool {
        self.step != NO_U64
    }
}

/// A value as panels hold it. A number too large for them stays a number: infinity would be evidence nobody logged.
fn narrowed(value: f64) -> f32 {
    let narrow = value as f32;
    if value.is_finite() { narrow.clamp(f32::MIN, f32::MAX) } else { narrow }
}

/// Times as keys: the order of signed times, in unsigned numbers.
pub(crate) fn time_key(time: i64) -> u64 {
    (time as u64) ^ (1 << 63)
}

fn key_time(key: u64) -> i64 {
    (key ^ (1 << 63)) as i64
}
