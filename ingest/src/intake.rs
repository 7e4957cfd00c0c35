//! Decoded rows to the runs they belong to, in compact form.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use trainwarden_telemetry::{Attempt, Communicators, Event, Placement, Rank, Role, RunId, Table, Timestamp};

use crate::batch::{Batch, Sink, TextColumn};
use crate::folder::TableSource;
use crate::reject::reason;
use crate::run_rows::{RunRows, TimedEvent};
use crate::sorter::SpillFile;
use crate::{CollectiveRow, DigestRow, IngestError, NO_TIME, NO_U32, NameId, Names, Reject, Rejects, SampleRow};

/// What one run has said so far.
#[derive(Debug)]
pub(crate) struct RunIntake {
    pub(crate) names: Names,
    pub(crate) rows: RunRows,
    pub(crate) placements: BTreeMap<u32, BTreeMap<Rank, Placement>>,
    pub(crate) communicators: BTreeMap<u32, Communicators>,
}

/// Takes batches of every table and keeps their rows by run; too many rows for the memory go to disk.
#[derive(Debug)]
pub(crate) struct Intake {
    ids: HashMap<Arc<str>, u32>,
    runs: Vec<RunIntake>,
    /// Events that name no run, with their log times.
    events: Vec<TimedEvent>,
    spill: Arc<SpillFile>,
    memory_bytes_max: usize,
}

impl Intake {
    pub(crate) fn new(memory_bytes_max: usize) -> Self {
        Self { ids: HashMap::new(), runs: Vec::new(), events: Vec::new(), spill: Arc::default(), memory_bytes_max }
    }

    /// The runs, by name, and the events that belong to all.
    pub(crate) fn finish(self) -> (BTreeMap<RunId, RunIntake>, Vec<TimedEvent>) {
        let mut runs: Vec<Option<RunIntake>> = self.runs.into_iter().map(Some).collect();
        let by_name = self.ids.into_iter().map(|(id, index)| {
            let run = runs[index as usize].take().expect("each number belongs to one name");
            (RunId(id), run)
        });
        (by_name.collect(), self.events)
    }

    /// The number of a row's run.
    fn run_of(&mut self, runs: &mut TextColumn, row: usize) -> u32 {
        let number = runs.lookup(row, 0, |name| {
            let known = self.ids.get(name).copied();
            NameId(known.unwrap_or_else(|| self.add_run(name)))
        });
        number.expect("decoders set rows without a run aside").0
    }

    fn add_run(&mut self, name: &str) -> u32 {
        let number = u32::try_from(self.runs.len()).expect("fewer than 2^32 runs: memory ends before");
        self.ids.insert(Arc::from(name), number);
        self.runs.push(RunIntake {
            names: Names::default(),
            rows: RunRows::new(&self.spill),
            placements: BTreeMap::new(),
            communicators: BTreeMap::new(),
        });
        number
    }

    fn samples(&mut self, mut batch: Batch) {
        let (mut runs, mut metrics) = (batch.text("run"), batch.text("metric"));
        let (attempts, ranks, steps) = (batch.u32s("attempt"), batch.u32s("rank"), batch.u64s("step"));
        let (times, received, values) = (batch.times("time"), batch.times("received"), batch.f64s("value"));
        for row in 0..batch.rows {
            let number = self.run_of(&mut runs, row);
            let run = &mut self.runs[number as usize];
            run.rows.samples.push(SampleRow {
                log_time: first_time([received[row], times[row]]),
                step: steps[row],
                time: times[row],
                value: values[row],
                attempt: attempt_of(attempts[row]),
                rank: ranks[row],
                metric: metrics.number(row, number, &mut run.names),
                reserved: 0,
            });
        }
    }

    fn collectives(&mut self, mut batch: Batch) {
        let mut runs = batch.text("run");
        let [mut comms, mut ops, mut signatures] = ["comm", "op", "signature"].map(|name| batch.text(name));
        let [attempts, ranks, peers] = ["attempt", "rank", "peer"].map(|name| batch.u32s(name));
        let [seqs, bytes, steps] = ["seq", "bytes", "step"].map(|name| batch.u64s(name));
        let [enqueued, starts, ends, received] = ["enqueued", "start", "end", "received"].map(|name| batch.times(name));
        for row in 0..batch.rows {
            let number = self.run_of(&mut runs, row);
            let run = &mut self.runs[number as usize];
            run.rows.collectives.push(CollectiveRow {
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
                comm: comms.number(row, number, &mut run.names),
                op: ops.number(row, number, &mut run.names),
                signature: signatures.number(row, number, &mut run.names),
            });
        }
    }

    fn digests(&mut self, mut batch: Batch) {
        let mut runs = batch.text("run");
        let [mut kinds, mut names, mut digests, mut groups] =
            ["kind", "name", "digest", "group"].map(|name| batch.text(name));
        let (attempts, ranks, steps) = (batch.u32s("attempt"), batch.u32s("rank"), batch.u64s("step"));
        let (times, received) = (batch.times("time"), batch.times("received"));
        for row in 0..batch.rows {
            let number = self.run_of(&mut runs, row);
            let run = &mut self.runs[number as usize];
            run.rows.digests.push(DigestRow {
                log_time: first_time([received[row], times[row]]),
                step: steps[row],
                time: times[row],
                attempt: attempt_of(attempts[row]),
                rank: ranks[row],
                kind: kinds.number(row, number, &mut run.names),
                name: names.number(row, number, &mut run.names),
                digest: digests.number(row, number, &mut run.names),
                group: groups.number(row, number, &mut run.names),
            });
        }
    }

    fn events(&mut self, mut batch: Batch) {
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
                let number = self.run_of(&mut runs, row);
                self.runs[number as usize].rows.events.push(timed);
            } else {
                self.events.push(timed);
            }
        }
    }

    fn placements(&mut self, mut batch: Batch, source: &TableSource, rejects: &mut Rejects) {
        let mut runs = batch.text("run");
        let [nodes, devices] = ["node", "device"].map(|name| batch.text(name));
        let [attempts, ranks] = ["attempt", "rank"].map(|name| batch.u32s(name));
        let [locals, dps, tps, pps, eps, cps] =
            ["local_rank", "dp", "tp", "pp", "ep", "cp"].map(|name| batch.u32s(name));
        for row in 0..batch.rows {
            let placement = Placement {
                node: nodes.get(row).map(str::to_owned),
                device: devices.get(row).map(str::to_owned),
                local_rank: told(locals[row]),
                dp: told(dps[row]),
                role: Role { pp: told(pps[row]), ep: told(eps[row]), cp: told(cps[row]), tp: told(tps[row]) },
            };
            let number = self.run_of(&mut runs, row);
            let roster = self.runs[number as usize].placements.entry(attempt_of(attempts[row])).or_default();
            if let Err(detail) = place_rank(roster, Rank(ranks[row]), placement) {
                let reject = source.reject(batch.place(row), reason::CONFLICTING, detail);
                rejects.add(&Reject { column: Some("rank"), ..reject });
            }
        }
    }

    fn members(&mut self, mut batch: Batch) {
        let [mut runs, comms] = ["run", "comm"].map(|name| batch.text(name));
        let [attempts, ranks] = ["attempt", "rank"].map(|name| batch.u32s(name));
        for row in 0..batch.rows {
            let number = self.run_of(&mut runs, row);
            let attempt = attempt_of(attempts[row]);
            let members = &mut self.runs[number as usize].communicators.entry(attempt).or_default().members;
            let comm = comms.get(row).expect("decoders set rows without a communicator aside");
            match members.get_mut(comm) {
                Some(ranks_told) => _ = ranks_told.insert(Rank(ranks[row])),
                None => _ = members.insert(comm.to_owned(), [Rank(ranks[row])].into()),
            }
        }
    }

    /// Puts the largest tables on disk when memory is full.
    fn make_room(&mut self) -> Result<(), IngestError> {
        let used: usize = self.runs.iter().map(|run| run.rows.memory_bytes()).sum();
        if used <= self.memory_bytes_max {
            return Ok(());
        }
        let mut order: Vec<(usize, usize)> =
            self.runs.iter().enumerate().map(|(index, run)| (run.rows.memory_bytes(), index)).collect();
        order.sort_unstable_by(|left, right| right.cmp(left));
        let mut left = used;
        for (bytes, index) in order {
            // Half is emptied at once, so that many small runs do not go to disk one after the other.
            if left <= self.memory_bytes_max / 2 {
                break;
            }
            self.runs[index].rows.spill()?;
            left -= bytes;
        }
        Ok(())
    }
}

impl Sink for Intake {
    fn take(&mut self, batch: Batch, source: &TableSource, rejects: &mut Rejects) -> Result<(), IngestError> {
        match batch.table {
            Table::Samples => self.samples(batch),
            Table::Collectives => self.collectives(batch),
            Table::Digests => self.digests(batch),
            Table::Events => self.events(batch),
            Table::Ranks => self.placements(batch, source, rejects),
            Table::Groups => self.members(batch),
        }
        self.make_room()
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
