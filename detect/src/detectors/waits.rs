//! Who waits for whom: the graph of ranks over overdue communication calls, kept up call by call.
//!
//! An edge leads from a rank that entered a call to each rank that has not; who is waited for and waits for nobody
//! holds up the others. Edges are counted per rank, so that a burst of overdue calls costs each its own size.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use trainwarden_telemetry::{CollectiveCall, Rank};

/// Overdue calls kept per communicator; of later ones only how far each rank came. A stuck rank issues some dozens of
/// calls ahead before its host blocks.
const CALLS_MAX: usize = 128;
/// Communicators kept: ten per rank in the largest runs of 100,000 ranks share most, so this holds them.
const COMMUNICATORS_MAX: usize = 131_072;
/// Unfinished point-to-point pairs kept: two neighbours for 100,000 ranks.
const PAIRS_MAX: usize = 262_144;
/// Weak suspects are named when at least this many ranks wait for each: a dump is read rank by rank, and until most
/// were seen, all the others look absent.
const WAITING_PER_WEAK_SUSPECT: usize = 4;
/// Operations no member can finish before all have given their part: who has not finished where others have, is stuck.
const SYMMETRIC: [&str; 6] = ["all_reduce", "allreduce", "all_gather", "allgather", "reduce_scatter", "all_to_all"];

/// What the overdue calls say of one rank.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tally {
    /// Waiters, over calls this rank is known not to have entered.
    pub(crate) blocks: u32,
    /// Waiters, over calls and pairs where this rank was never heard of.
    pub(crate) blocks_weakly: u32,
    /// Ranks this one waits for, over calls and pairs.
    pub(crate) waits: u32,
    /// Calls that this rank has not finished and others have.
    pub(crate) lags: u32,
    /// Calls entered and not finished.
    pub(crate) unfinished: u32,
    /// Unfinished calls where the device state of this rank is in the minority.
    pub(crate) differs: u32,
}

impl Tally {
    fn is_candidate(&self) -> bool {
        self.blocks > 0 || self.blocks_weakly > 0 || self.lags > 0 || self.differs > 0
    }

    fn add(&mut self, other: &Self) {
        self.blocks += other.blocks;
        self.blocks_weakly += other.blocks_weakly;
        self.waits += other.waits;
        self.lags += other.lags;
        self.unfinished += other.unfinished;
        self.differs += other.differs;
    }

    fn subtract(&mut self, other: &Self) {
        self.blocks -= other.blocks;
        self.blocks_weakly -= other.blocks_weakly;
        self.waits -= other.waits;
        self.lags -= other.lags;
        self.unfinished -= other.unfinished;
        self.differs -= other.differs;
    }
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Communicator {
    /// Every member finished up to here.
    through: Option<u64>,
    overdue: BTreeMap<u64, OverdueCall>,
    /// Highest call each rank entered, while calls are overdue.
    reached: BTreeMap<Rank, u64>,
    tallies: BTreeMap<Rank, Tally>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct OverdueCall {
    is_symmetric: bool,
    /// Rank and whether its device started.
    unfinished: Vec<(Rank, bool)>,
    finished: Vec<Rank>,
    missing: Vec<Rank>,
}

impl Communicator {
    fn tally(&self) -> BTreeMap<Rank, Tally> {
        let mut tallies: BTreeMap<Rank, Tally> = BTreeMap::new();
        for (&seq, call) in &self.overdue {
            let has_passed = |rank: &Rank| self.reached.get(rank).is_some_and(|&reached| reached > seq);
            let absent: Vec<Rank> = call.missing.iter().copied().filter(|rank| !has_passed(rank)).collect();
            let ahead = call.finished.len() + call.missing.len() - absent.len();
            let waiters = call.unfinished.len() as u32;
            let is_lagging = call.is_symmetric && ahead > 0 && call.unfinished.len() <= ahead;
            for &(rank, _) in &call.unfinished {
                let tally = tallies.entry(rank).or_default();
                tally.unfinished += 1;
                tally.waits += absent.len() as u32;
                tally.lags += u32::from(is_lagging);
            }
            for rank in &absent {
                let tally = tallies.entry(*rank).or_default();
                let is_known = self.through.is_some() || self.reached.contains_key(rank);
                match is_known {
                    true => tally.blocks += waiters,
                    false => tally.blocks_weakly += waiters,
                }
            }
        }
        self.tally_minority(&mut tallies);
        tallies
    }

    /// In the first overdue call: who started where most did not, or the other way round.
    fn tally_minority(&self, tallies: &mut BTreeMap<Rank, Tally>) {
        let Some(first) = self.overdue.values().next() else { return };
        let started = first.unfinished.iter().filter(|(_, has_started)| *has_started).count();
        let has_majority_started = started * 2 > first.unfinished.len();
        if started * 2 == first.unfinished.len() {
            return;
        }
        for (rank, _) in first.unfinished.iter().filter(|(_, has_started)| *has_started != has_majority_started) {
            tallies.entry(*rank).or_default().differs += 1;
        }
    }
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Pair {
    last: u64,
    /// Whether the awaited rank had been heard of when the wait began.
    is_heard: bool,
}

/// The overdue calls of one attempt and what they say of each rank.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Waits {
    communicators: BTreeMap<String, Communicator>,
    /// Unfinished point-to-point calls by (waiting, awaited).
    pairs: BTreeMap<(Rank, Rank), Pair>,
    /// Ranks that finished a point-to-point call: their silence now means more than that of a rank never heard of.
    heard: BTreeSet<Rank>,
    tallies: BTreeMap<Rank, Tally>,
    /// Ranks with an unfinished call.
    waiting: usize,
    /// Ranks that could be suspects, so that looking for them does not read every rank at every call.
    candidates: BTreeSet<Rank>,
}

impl Waits {
    /// True when no call is overdue.
    pub(crate) fn is_empty(&self) -> bool {
        self.tallies.is_empty()
    }

    /// How many ranks have an unfinished call.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting
    }

    /// Takes in a closed call: an overdue one adds edges, a finished one removes those of earlier calls.
    ///
    /// Returns true when the call is overdue: some rank that entered has not finished.
    pub(crate) fn observe(&mut self, call: &CollectiveCall) -> bool {
        for entry in &call.entries {
            let Some(peer) = entry.peer else { continue };
            match entry.end {
                None => self.add_pair(entry.rank, peer, call.seq),
                Some(_) => {
                    self.heard.insert(entry.rank);
                    self.remove_pair(entry.rank, peer, call.seq);
                }
            }
        }
        let mut collective = call.entries.iter().filter(|entry| entry.peer.is_none()).peekable();
        let has_collective = collective.peek().is_some();
        let is_unfinished = collective.any(|entry| entry.end.is_none());
        if has_collective {
            self.observe_collective(call, is_unfinished);
        }
        call.entries.iter().any(|entry| entry.end.is_none())
    }

    fn observe_collective(&mut self, call: &CollectiveCall, is_unfinished: bool) {
        if !self.communicators.contains_key(&call.comm) {
            if self.communicators.len() == COMMUNICATORS_MAX {
                return;
            }
            self.communicators.insert(call.comm.clone(), Communicator::default());
        }
        let communicator = self.communicators.get_mut(&call.comm).expect("it was inserted above");
        match is_unfinished {
            true => add_overdue(communicator, call),
            false => {
                communicator.through = communicator.through.max(Some(call.seq));
                if communicator.overdue.is_empty() {
                    return;
                }
                communicator.overdue = communicator.overdue.split_off(&call.seq.saturating_add(1));
                if communicator.overdue.is_empty() {
                    communicator.reached.clear();
                }
            }
        }
        let after = communicator.tally();
        let before = std::mem::replace(&mut communicator.tallies, after.clone());
        self.replace(&before, &after);
    }

    fn replace(&mut self, before: &BTreeMap<Rank, Tally>, after: &BTreeMap<Rank, Tally>) {
        for (rank, tally) in after {
            self.change(*rank, |total| total.add(tally));
        }
        for (rank, tally) in before {
            self.change(*rank, |total| total.subtract(tally));
        }
    }

    fn change(&mut self, rank: Rank, change: impl FnOnce(&mut Tally)) {
        let total = self.tallies.entry(rank).or_default();
        self.waiting -= usize::from(total.unfinished > 0);
        change(total);
        self.waiting += usize::from(total.unfinished > 0);
        match total.is_candidate() {
            true => self.candidates.insert(rank),
            false => self.candidates.remove(&rank),
        };
        if *total == Tally::default() {
            self.tallies.remove(&rank);
        }
    }

    /// A pair whose other side has its own part pending waits for the device, not for a rank: it makes no edge.
    fn add_pair(&mut self, from: Rank, to: Rank, seq: u64) {
        if let Some(pair) = self.pairs.get_mut(&(from, to)) {
            pair.last = pair.last.max(seq);
            return;
        }
        if self.pairs.len() == PAIRS_MAX || from == to {
            return;
        }
        let pair = Pair { last: seq, is_heard: self.heard.contains(&to) };
        self.pairs.insert((from, to), pair);
        self.replace(&BTreeMap::new(), &inside(from));
        match self.pairs.get(&(to, from)).copied() {
            Some(answer) => self.replace(&edge(to, from, answer), &BTreeMap::new()),
            None => self.replace(&BTreeMap::new(), &edge(from, to, pair)),
        }
    }

    fn remove_pair(&mut self, from: Rank, to: Rank, seq: u64) {
        let Some(pair) = self.pairs.get(&(from, to)).copied().filter(|pair| pair.last <= seq) else { return };
        self.pairs.remove(&(from, to));
        match self.pairs.get(&(to, from)).copied() {
            Some(answer) => self.replace(&BTreeMap::new(), &edge(to, from, answer)),
            None => self.replace(&edge(from, to, pair), &BTreeMap::new()),
        }
        self.replace(&inside(from), &BTreeMap::new());
    }

    /// Who holds up the others, most suspicious first; empty when nobody stands out.
    ///
    /// In this order: ranks that a call still needs and that wait for nobody, together with ranks stuck in calls that
    /// others finished; ranks never heard of that are waited for; in a ring of waiting, the rank most wait for; inside
    /// a call all have entered, those whose device state differs.
    pub(crate) fn suspects(&self) -> Vec<(Rank, Tally)> {
        let is_sink = |tally: &Tally| tally.waits == 0 && tally.blocks > 0;
        let strong = self.pick(|tally| is_sink(tally) || tally.lags > 0);
        if !strong.is_empty() {
            return strong;
        }
        let weak = self.pick(|tally| tally.waits == 0 && tally.unfinished == 0 && tally.blocks_weakly > 0);
        if !weak.is_empty() && weak.len() * WAITING_PER_WEAK_SUSPECT <= self.waiting() {
            return weak;
        }
        let in_ring = self.pick(|tally| tally.blocks > 0);
        if let [first, rest @ ..] = in_ring.as_slice() {
            let is_clear = rest.first().is_none_or(|second| second.1.blocks < first.1.blocks);
            return if is_clear { vec![*first] } else { Vec::new() };
        }
        match weak.is_empty() {
            true => self.pick(|tally| tally.differs > 0),
            false => Vec::new(),
        }
    }

    fn pick(&self, accepts: impl Fn(&Tally) -> bool) -> Vec<(Rank, Tally)> {
        let of = |rank: &Rank| (*rank, self.tallies[rank]);
        let mut picked: Vec<(Rank, Tally)> =
            self.candidates.iter().map(of).filter(|(_, tally)| accepts(tally)).collect();
        // A sort that is stable leaves equals in the order of ranks.
        picked.sort_by_key(|(_, tally)| std::cmp::Reverse((tally.blocks, tally.blocks_weakly, tally.lags)));
        picked
    }
}

fn inside(rank: Rank) -> BTreeMap<Rank, Tally> {
    BTreeMap::from([(rank, Tally { unfinished: 1, ..Tally::default() })])
}

fn edge(from: Rank, to: Rank, pair: Pair) -> BTreeMap<Rank, Tally> {
    let waits = Tally { waits: 1, ..Tally::default() };
    let blocks = match pair.is_heard {
        true => Tally { blocks: 1, ..Tally::default() },
        false => Tally { blocks_weakly: 1, ..Tally::default() },
    };
    BTreeMap::from([(from, waits), (to, blocks)])
}

fn add_overdue(communicator: &mut Communicator, call: &CollectiveCall) {
    let entries = || call.entries.iter().filter(|entry| entry.peer.is_none());
    for entry in entries() {
        let reached = communicator.reached.entry(entry.rank).or_insert(call.seq);
        *reached = (*reached).max(call.seq);
    }
    if communicator.overdue.len() == CALLS_MAX {
        return;
    }
    // A rank with only a point-to-point part under this number has not entered the collective.
    let only_pairs = call.entries.iter().map(|entry| entry.rank).filter(|rank| entries().all(|e| e.rank != *rank));
    let overdue = OverdueCall {
        is_symmetric: entries().all(|entry| SYMMETRIC.iter().any(|op| entry.op.contains(op))),
        unfinished: entries().filter(|e| e.end.is_none()).map(|e| (e.rank, e.start.is_some())).collect(),
        finished: entries().filter(|entry| entry.end.is_some()).map(|entry| entry.rank).collect(),
        missing: call.missing.iter().copied().chain(only_pairs).collect(),
    };
    communicator.overdue.insert(call.seq, overdue);
}
