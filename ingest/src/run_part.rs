//! The rows of a decoded batch in compact form, to the runs they belong to.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use trainwarden_telemetry::{Attempt, Communicators, Event, Placement, Rank, Role, RunId, Table, Timestamp};

use crate::batch::{Batch, TextColumn};
use crate::run_rows::TimedEvent;
use crate::{CollectiveRow, DigestRow, NO_TIME, NO_U32, Names, Place, SampleRow};

/// What takes the rows of one run.
pub(crate) trait RunPart {
    /// The texts of the run.
    fn names(&mut self) -> &mut Names;
    fn sample(&mut self, row: SampleRow);
    fn collective(&mut self, row: CollectiveRow);
    fn digest(&mut self, row: DigestRow);
    fn event(&mut self, event: TimedEvent);
    /// The ranks told of an attempt.
    fn placements(&mut self, attempt: u32) -> &mut BTreeMap<Rank, Placement>;
    /// The communicators told of an attempt.
    fn communicators(&mut self, attempt: u32) -> &mut Communicators;
}

/// What takes the rows of every run.
pub(crate) trait Runs {
    type Part: RunPart;

    /// The part of a row's run, and a number that stands for the run.
    fn part(&mut self, runs: &mut TextColumn, row: usize) -> (u32, &mut Self::Part);

    /// An event that names no run.
    fn shared_event(&mut self, event: TimedEvent);
}

/// Takes every row of a batch; log time is the row's `received`, else its own, else [`NO_TIME`].
///
/// `conflict` learns of each rank that is told of twice in different ways.
pub(crate) fn take_rows<R: Runs>(batch: Batch, runs: &mut R, conflict: &mut dyn FnMut(Place, String)) {
    match batch.table {
        Table::Samples => take_samples(batch, runs),
        Table::Collectives => take_collectives(batch, runs),
        Table::Digests => take_digests(batch, runs),
        Table::Events => take_events(batch, runs),
        Table::Ranks => take_placements(batch, runs, conflict),
        Table::Groups => take_members(batch, runs),
    }
}

fn take_samples<R: Runs>(mut batch: Batch, parts: &mut R) {
    let (mut runs, mut metrics) = (batch.text("run"), batch.text("metric"));
    let (attempts, ranks, steps) = (batch.u32s("attempt"), batch.u32s("rank"), batch.u64s("step"));
    let (times, received, values) = (batch.times("time"), batch.times("received"), batch.f64s("value"));
    for row in 0..batch.rows {
        let (number, part) = parts.part(&mut runs, row);
        let metric = metrics.number(row, number, part.names());
        part.sample(SampleRow {
            log_time: first_time([received[row], times[row]]),
            step: steps[row],
            time: times[row],
            value: values[row],
            attempt: attempt_of(attempts[row]),
            rank: ranks[row],
            metric,
            reserved: 0,
        });
    }
}

fn take_collectives<R: Runs>(mut batch: Batch, parts: &mut R) {
    let mut runs = batch.text("run");
    let [mut comms, mut ops, mut signatures] = ["comm", "op", "signature"].map(|name| batch.text(name));
    let [attempts, ranks, peers] = ["attempt", "rank", "peer"].map(|name| batch.u32s(name));
    let [seqs, bytes, steps] = ["seq", "bytes", "step"].map(|name| batch.u64s(name));
    let [enqueued, starts, ends, received] = ["enqueued", "start", "end", "received"].map(|name| batch.times(name));
    for row in 0..batch.rows {
        let (number, part) = parts.part(&mut runs, row);
        let comm = comms.number(row, number, part.names());
        let op = ops.number(row, number, part.names());
        let signature = signatures.number(row, number, part.names());
        part.collective(CollectiveRow {
            log_time: first_time([received[row], ends[row], starts[row], enqueued[row]]),
            seq: seqs[row],
            bytes: bytes[row],
            step: steps[row],
            enqueued: enqueued[row],
            start: starts[row],
            end: ends[row],
            attempt: attempt_of(attempts[row]),
            rank: ranks[row],
            peer: peers[row],
            comm,
            op,
            signature,
        });
    }
}

fn take_digests<R: Runs>(mut batch: Batch, parts: &mut R) {
    let mut runs = batch.text("run");
    let [mut kinds, mut names, mut digests, mut groups] =
        ["kind", "name", "digest", "group"].map(|name| batch.text(name));
    let (attempts, ranks, steps) = (batch.u32s("attempt"), batch.u32s("rank"), batch.u64s("step"));
    let (times, received) = (batch.times("time"), batch.times("received"));
    for row in 0..batch.rows {
        let (number, part) = parts.part(&mut runs, row);
        let kind = kinds.number(row, number, part.names());
        let name = names.number(row, number, part.names());
        let digest = digests.number(row, number, part.names());
        let group = groups.number(row, number, part.names());
        part.digest(DigestRow {
            log_time: first_time([received[row], times[row]]),
            step: steps[row],
            time: times[row],
            attempt: attempt_of(attempts[row]),
            rank: ranks[row],
            kind,
            name,
            digest,
            group,
        });
    }
}

fn take_events<R: Runs>(mut batch: Batch, parts: &mut R) {
    let mut runs = batch.text("run");
    let [sources, kinds, actors, nodes, subjects, details] =
        ["source", "kind", "actor", "node", "subject", "detail"].map(|name| batch.text(name));
    let (attempts, ranks) = (batch.u32s("attempt"), batch.u32s("rank"));
    let (times, received) = (batch.times("time"), batch.times("received"));
    let owned = |column: &TextColumn, row| column.get(row).map(str::to_owned);
    for row in 0..batch.rows {
        let event = Arc::new(Event {
            time: Timestamp(times[row]),
            source: owned(&sources, row).unwrap_or_default(),
            kind: owned(&kinds, row).unwrap_or_default(),
            actor: owned(&actors, row),
            run: runs.get(row).map(RunId::new),
            attempt: Attempt(attempt_of(attempts[row])),
            node: owned(&nodes, row),
            rank: told(ranks[row]).map(Rank),
            subject: owned(&subjects, row),
            detail: owned(&details, row),
        });
        let timed = (first_time([received[row], times[row]]), event);
        if timed.1.run.is_some() {
            parts.part(&mut runs, row).1.event(timed);
        } else {
            parts.shared_event(timed);
        }
    }
}

fn take_placements<R: Runs>(mut batch: Batch, parts: &mut R, conflict: &mut dyn FnMut(Place, String)) {
    let mut runs = batch.text("run");
    let [nodes, devices] = ["node", "device"].map(|name| batch.text(name));
    let [attempts, ranks] = ["attempt", "rank"].map(|name| batch.u32s(name));
    let [locals, dps, tps, pps, eps, cps] = ["local_rank", "dp", "tp", "pp", "ep", "cp"].map(|name| batch.u32s(name));
    for row in 0..batch.rows {
        let placement = Placement {
            node: nodes.get(row).map(str::to_owned),
            device: devices.get(row).map(str::to_owned),
            local_rank: told(locals[row]),
            dp: told(dps[row]),
            role: Role { pp: told(pps[row]), ep: told(eps[row]), cp: told(cps[row]), tp: told(tps[row]) },
        };
        let (_, part) = parts.part(&mut runs, row);
        let roster = part.placements(attempt_of(attempts[row]));
        if let Err(detail) = place_rank(roster, Rank(ranks[row]), placement) {
            conflict(batch.place(row), detail);
        }
    }
}

fn take_members<R: Runs>(mut batch: Batch, parts: &mut R) {
    let [mut runs, comms] = ["run", "comm"].map(|name| batch.text(name));
    let [attempts, ranks] = ["attempt", "rank"].map(|name| batch.u32s(name));
    for row in 0..batch.rows {
        let (_, part) = parts.part(&mut runs, row);
        let members = &mut part.communicators(attempt_of(attempts[row])).members;
        let comm = comms.get(row).expect("decoders set rows without a communicator aside");
        match members.get_mut(comm) {
            Some(ranks_told) => _ = ranks_told.insert(Rank(ranks[row])),
            None => _ = members.insert(comm.to_owned(), [Rank(ranks[row])].into()),
        }
    }
}

/// The first time of a row that it carries.
fn first_time<const N: usize>(times: [i64; N]) -> i64 {
    times.into_iter().find(|&time| time != NO_TIME).unwrap_or(NO_TIME)
}

/// Null is the first launch.
fn attempt_of(attempt: u32) -> u32 {
    told(attempt).unwrap_or(0)
}

fn told(number: u32) -> Option<u32> {
    (number != NO_U32).then_some(number)
}

/// Adds a rank to a roster. Of two different rows for one rank the smaller stays, whichever came first, and the fact is
/// the error.
pub(crate) fn place_rank(
    roster: &mut BTreeMap<Rank, Placement>,
    rank: Rank,
    placement: Placement,
) -> Result<(), String> {
    fn order(placement: &Placement) -> impl Ord + '_ {
        let Placement { node, device, local_rank, dp, role } = placement;
        (node, device, local_rank, dp, role)
    }
    match roster.entry(rank) {
        Entry::Vacant(entry) => _ = entry.insert(placement),
        Entry::Occupied(entry) if *entry.get() == placement => {}
        Entry::Occupied(mut entry) => {
            let is_smaller = order(&placement) < order(entry.get());
            let other = if is_smaller { entry.insert(placement) } else { placement };
            return Err(format!("{rank} on {} too", other.node.as_deref().unwrap_or("no node")));
        }
    }
    Ok(())
}
