//! Per-operation traces of ranks: a row is one operation of one rank in one step.
//!
//! Starts are relative to their step and only some steps were traced, so there is no time of day in such a file. The
//! rows get a clock that runs while steps were traced: each step begins where the traced step before it ended.
//!
//! Operations become seconds a rank and step. Overlapping operations count once: a send and a receive that were issued
//! as one batch stand in the trace as two rows of the same interval. Collectives are written for operations whose
//! members are in the trace. Sends and receives are not: their sequence numbers count per rank, the other side is not
//! named, and batches make one transfer two rows, so the two sides could not be told to be one call.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::sums::{MiniBatches, StepSums};
use super::table::{CsvFile, index, number, whole};
use super::{ImportError, Sink, stem};
use crate::{CollectiveOut, MemberOut, PlacementOut, SampleOut};

pub(super) const NANOSECONDS_PER_SECOND: f64 = 1e9;
/// A start or duration beyond this many seconds is a broken number: it is 31 years.
const SECONDS_MAX: f64 = 1e9;
const LAYOUTS: &str =
    "`step,rank,op,start_s,duration_s,…`, `step,rank,forward_s,backward_s,…` or `time,worker,batch_time_norm`";

/// Reads trace files; with a run name all of them are parts of that run.
pub(super) fn read(files: &[PathBuf], run: Option<&str>, sink: &mut Sink<'_>) -> Result<(), ImportError> {
    let mut tables = Tables::default();
    for path in files {
        let Some(file) = CsvFile::open(path, &mut sink.report)? else { continue };
        tables.read(file, sink)?;
        if run.is_none() {
            tables.write(&stem(path), sink)?;
            tables = Tables::default();
        }
    }
    run.map_or(Ok(()), |run| tables.write(run, sink))
}

/// What one run has, in each layout.
#[derive(Default)]
struct Tables {
    trace: Trace,
    sums: StepSums,
    batches: MiniBatches,
}

impl Tables {
    fn read(&mut self, file: CsvFile, sink: &mut Sink<'_>) -> Result<(), ImportError> {
        let has = |names: &[&str]| names.iter().all(|name| file.column(name).is_some());
        if has(&["step", "rank", "op", "start_s", "duration_s"]) {
            self.trace.read(file, sink);
        } else if has(&["step", "rank", "forward_s", "backward_s"]) {
            self.sums.read(file, sink);
        } else if has(&["time", "worker"]) && file.header.len() > 2 {
            self.batches.read(file, sink);
        } else {
            let columns = file.columns_quoted();
            return Err(ImportError::UnknownLayout { path: file.path, what: "trace", columns, accepted: LAYOUTS });
        }
        Ok(())
    }

    fn write(self, run: &str, sink: &mut Sink<'_>) -> Result<(), ImportError> {
        self.trace.write(run, sink)?;
        self.sums.write(run, sink)?;
        self.batches.write(run, sink)
    }
}

/// Counts launches: where the step of a rank falls back, a new one has begun.
#[derive(Default)]
pub(super) struct Launches {
    ranks: BTreeMap<u32, (u64, u32)>,
}

impl Launches {
    pub(super) fn attempt(&mut self, rank: u32, step: u64) -> u32 {
        let (last_step, attempt) = self.ranks.entry(rank).or_insert((step, 0));
        *attempt = if step < *last_step { attempt.saturating_add(1) } else { *attempt };
        *last_step = step;
        *attempt
    }
}

/// Data-parallel index and pipeline stage of each rank.
#[derive(Default)]
pub(super) struct Places {
    ranks: BTreeMap<u32, (Option<u32>, Option<u32>)>,
}

impl Places {
    /// Reads `dp_rank` and `stage` of the present row; the first word on a rank counts.
    pub(super) fn learn(&mut self, file: &CsvFile, rank: u32) -> Result<(), String> {
        let cell = |name: &str| file.column(name).map_or(Ok(None), |column| index(file.cell(column)));
        let place = (cell("dp_rank")?, cell("stage")?);
        self.ranks.entry(rank).or_insert(place);
        Ok(())
    }

    pub(super) fn write(&self, run: &str, attempts: &BTreeSet<u32>, sink: &mut Sink<'_>) -> Result<(), ImportError> {
        for &attempt in attempts {
            for (&rank, &(dp, pp)) in &self.ranks {
                let told = PlacementOut { run, attempt, rank, dp, pp, ..UNPLACED };
                sink.placement(&told)?;
            }
        }
        Ok(())
    }
}

/// A placement of which nothing is known.
pub(super) const UNPLACED: PlacementOut<'static> = PlacementOut {
    run: "",
    attempt: 0,
    rank: 0,
    node: None,
    device: None,
    local_rank: None,
    dp: None,
    tp: None,
    pp: None,
    ep: None,
    cp: None,
};

/// One operation; times in nanoseconds from the begin of its step.
#[derive(Clone, Copy)]
struct Operation {
    attempt: u32,
    step: u64,
    rank: u32,
    op: usize,
    start: i64,
    end: i64,
}

/// The operations of one run, all in memory: 48 bytes each.
#[derive(Default)]
struct Trace {
    operations: Vec<Operation>,
    names: Vec<String>,
    places: Places,
    launches: Launches,
}

impl Trace {
    fn read(&mut self, mut file: CsvFile, sink: &mut Sink<'_>) {
        while let Some(line) = file.next_line(&mut sink.report) {
            if let Err(reason) = self.add(&file) {
                sink.report.set_row_aside(&file.path, format!("line {line}"), reason);
            }
        }
    }

    fn add(&mut self, file: &CsvFile) -> Result<(), String> {
        let cell = |name: &str| file.column(name).map_or("", |column| file.cell(column));
        let step = whole(cell("step"))?.ok_or("the step is empty")?;
        let rank = index(cell("rank"))?.ok_or("the rank is empty")?;
        let (start, duration) = (nanoseconds(cell("start_s"))?, nanoseconds(cell("duration_s"))?);
        if cell("op").is_empty() || duration < 0 {
            return Err("an operation has a name and a duration from 0".to_owned());
        }
        self.places.learn(file, rank)?;
        let op = self.name_index(cell("op"));
        let attempt = self.launches.attempt(rank, step);
        self.operations.push(Operation { attempt, step, rank, op, start, end: start + duration });
        Ok(())
    }

    fn name_index(&mut self, name: &str) -> usize {
        // A trace has a dozen names: looking through them is as fast as a map.
        self.names.iter().position(|known| known == name).unwrap_or_else(|| {
            self.names.push(name.to_owned());
            self.names.len() - 1
        })
    }

    fn write(mut self, run: &str, sink: &mut Sink<'_>) -> Result<(), ImportError> {
        if self.operations.is_empty() {
            return Ok(());
        }
        sink.report.note("the trace has no time of day: each step begins where the traced step before it ended".into());
        self.operations.sort_by_key(|op| (op.attempt, op.step, op.rank, op.start, op.op));
        let attempts = self.operations.iter().map(|op| op.attempt).collect();
        self.places.write(run, &attempts, sink)?;
        let groups = self.groups();
        write_members(run, &attempts, &groups, sink)?;
        let mut sequence = BTreeMap::new();
        let mut clock = 0_i64;
        for step in self.operations.chunk_by(|a, b| (a.attempt, a.step) == (b.attempt, b.step)) {
            let begin = step.iter().map(|op| op.start).min().unwrap_or(0);
            let end = step.iter().map(|op| op.end).max().unwrap_or(0);
            let span = end - begin;
            let offset = clock.saturating_sub(begin);
            let step = TracedStep { run, operations: step, offset, end: clock.saturating_add(span) };
            step.write_samples(&self.names, span, sink)?;
            step.write_collectives(&groups, &mut sequence, sink)?;
            clock = step.end;
        }
        Ok(())
    }

    /// The communicators whose members are in the trace.
    fn groups(&self) -> Groups {
        let mut members: BTreeMap<String, BTreeSet<u32>> = BTreeMap::new();
        let mut comms: BTreeMap<(usize, u32), String> = BTreeMap::new();
        for operation in &self.operations {
            let key = (operation.op, operation.rank);
            let name = &self.names[operation.op];
            if let Some(comm) = comms.get(&key).cloned().or_else(|| self.comm(name, operation.rank)) {
                members.entry(comm.clone()).or_default().insert(operation.rank);
                comms.insert(key, comm);
            }
        }
        // A group of one is a part of a group that was not traced.
        members.retain(|_, ranks| ranks.len() > 1);
        comms.retain(|_, comm| members.contains_key(comm));
        let names = self.names.clone();
        Groups { members, comms, names }
    }

    /// The communicator an operation of a rank uses, where it follows from data-parallel index and stage.
    fn comm(&self, op: &str, rank: u32) -> Option<String> {
        let &(dp, stage) = self.places.ranks.get(&rank)?;
        if !is_collective(op) {
            None
        } else if op.starts_with("params") || op.starts_with("grads") {
            // A sharded optimizer gathers parameters and scatters gradients between the replicas of a stage.
            Some(format!("{op}/stage {}", stage?))
        } else if op.starts_with("embedding") {
            // First and last stage of a replica share the embedding.
            Some(format!("{op}/dp {}", dp?))
        } else {
            None
        }
    }
}

/// Communicators of a trace.
struct Groups {
    members: BTreeMap<String, BTreeSet<u32>>,
    /// By index of the operation and rank.
    comms: BTreeMap<(usize, u32), String>,
    names: Vec<String>,
}

fn write_members(run: &str, attempts: &BTreeSet<u32>, groups: &Groups, sink: &mut Sink<'_>) -> Result<(), ImportError> {
    for &attempt in attempts {
        for (comm, ranks) in &groups.members {
            for &rank in ranks {
                sink.member(&MemberOut { run, attempt, comm, rank })?;
            }
        }
    }
    Ok(())
}

struct TracedStep<'a> {
    run: &'a str,
    operations: &'a [Operation],
    /// What makes a time in the step a time of the run.
    offset: i64,
    end: i64,
}

impl TracedStep<'_> {
    fn write_samples(&self, names: &[String], span: i64, sink: &mut Sink<'_>) -> Result<(), ImportError> {
        let Operation { attempt, step, .. } = self.operations[0];
        let sample = SampleOut {
            run: self.run,
            attempt,
            rank: None,
            step: Some(step),
            time: Some(self.end),
            metric: "step_time_s",
            value: span as f64 / NANOSECONDS_PER_SECOND,
        };
        sink.sample(&sample)?;
        for operations in self.operations.chunk_by(|a, b| a.rank == b.rank) {
            let mut intervals: BTreeMap<String, Vec<(i64, i64)>> = BTreeMap::new();
            for operation in operations {
                let metric = metric_of(&names[operation.op]);
                intervals.entry(metric).or_default().push((operation.start, operation.end));
            }
            for (metric, intervals) in intervals {
                let value = covered(&intervals) as f64 / NANOSECONDS_PER_SECOND;
                sink.sample(&SampleOut { rank: Some(operations[0].rank), metric: &metric, value, ..sample })?;
            }
        }
        Ok(())
    }

    /// Writes the calls of the step. The n-th call of a step has one number on all ranks, so that a call a rank left
    /// out does not shift its later ones.
    fn write_collectives(
        &self,
        groups: &Groups,
        sequence: &mut BTreeMap<String, u64>,
        sink: &mut Sink<'_>,
    ) -> Result<(), ImportError> {
        let mut calls: BTreeMap<(&str, u32), u64> = BTreeMap::new();
        for operation in self.operations {
            let Some(comm) = groups.comms.get(&(operation.op, operation.rank)) else { continue };
            let count = calls.entry((comm, operation.rank)).or_default();
            let row = CollectiveOut {
                run: self.run,
                attempt: operation.attempt,
                rank: operation.rank,
                comm,
                seq: sequence.get(comm).unwrap_or(&0) + *count,
                op: &groups.names[operation.op],
                bytes: None,
                signature: None,
                enqueued: None,
                start: Some(self.offset.saturating_add(operation.start)),
                end: Some(self.offset.saturating_add(operation.end)),
                step: Some(operation.step),
                peer: None,
            };
            *count += 1;
            sink.collective(&row)?;
        }
        let mut longest: BTreeMap<&str, u64> = BTreeMap::new();
        for ((comm, _), count) in calls {
            let most = longest.entry(comm).or_default();
            *most = count.max(*most);
        }
        for (comm, count) in longest {
            *sequence.entry(comm.to_owned()).or_default() += count;
        }
        Ok(())
    }
}

/// Nanoseconds that at least one of the intervals covers.
fn covered(intervals: &[(i64, i64)]) -> i64 {
    let mut total = 0;
    let mut reached = i64::MIN;
    // The operations come sorted by start.
    for &(start, end) in intervals {
        total += (end - start.max(reached)).max(0);
        reached = reached.max(end);
    }
    total
}

fn nanoseconds(text: &str) -> Result<i64, String> {
    match number(text)? {
        Some(seconds) if seconds.abs() <= SECONDS_MAX => Ok((seconds * NANOSECONDS_PER_SECOND).round() as i64),
        _ => Err(format!("`{text}` is no number of seconds")),
    }
}

fn is_collective(op: &str) -> bool {
    const PARTS: [&str; 6] = ["gather", "reduce", "scatter", "broadcast", "all-to-all", "barrier"];
    PARTS.iter().any(|part| op.contains(part))
}

/// The metric an operation's time goes to.
fn metric_of(op: &str) -> String {
    let metric = match op {
        _ if op.contains("forward") && op.contains("compute") => "forward_time_s",
        _ if op.contains("backward") && op.contains("compute") => "backward_time_s",
        _ if op.starts_with("optimizer") => "optimizer_time_s",
        _ if is_collective(op) || op.ends_with("send") || op.ends_with("recv") => "comm_time_s",
        _ => return format!("{}_time_s", super::metric_name(op)),
    };
    metric.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::ImportSource;
    use crate::import::testing::{imported, try_import};

    const TRACE: &str = "step,rank,dp_rank,stage,op,start_s,duration_s\n\
        16,0,0,0,params-all-gather,0.5,0.5\n16,4,1,0,params-all-gather,0.0,1.0\n\
        16,0,0,0,forward-compute,1.0,2.0\n16,4,1,0,forward-compute,1.0,1.0\n\
        16,0,0,0,forward-send,3.0,0.5\n16,0,0,0,backward-recv,3.0,0.5\n16,0,0,0,gc,3.5,0.5\n\
        21,0,0,0,params-all-gather,0.0,1.0\n21,4,1,0,params-all-gather,0.0,1.0\n";

    #[test]
    fn operations_become_seconds_a_rank_and_step_and_overlaps_count_once() {
        let folder = imported(&ImportSource::Trace, &[("trace_x.csv", TRACE)], None);
        let expected = "trace_x,0,,16,4000000000,step_time_s,4.0\n\
            trace_x,0,0,16,4000000000,comm_time_s,1.0\ntrace_x,0,0,16,4000000000,forward_time_s,2.0\n\
            trace_x,0,0,16,4000000000,gc_time_s,0.5\n\
            trace_x,0,4,16,4000000000,comm_time_s,1.0\ntrace_x,0,4,16,4000000000,forward_time_s,1.0\n\
            trace_x,0,,21,5000000000,step_time_s,1.0\n\
            trace_x,0,0,21,5000000000,comm_time_s,1.0\ntrace_x,0,4,21,5000000000,comm_time_s,1.0\n";
        assert_eq!(folder.rows("samples"), expected);
        assert_eq!(folder.rows("ranks"), "trace_x,0,0,,,,0,,0,,\ntrace_x,0,4,,,,1,,0,,\n");
    }

    #[test]
    fn collectives_align_over_their_members_and_the_late_rank_starts_later() {
        let folder = imported(&ImportSource::Trace, &[("t.csv", TRACE)], None);
        let comm = "params-all-gather/stage 0";
        let expected = format!(
            "t,0,0,{comm},0,params-all-gather,,,,500000000,1000000000,16,\n\
             t,0,4,{comm},0,params-all-gather,,,,0,1000000000,16,\n\
             t,0,0,{comm},1,params-all-gather,,,,4000000000,5000000000,21,\n\
             t,0,4,{comm},1,params-all-gather,,,,4000000000,5000000000,21,\n"
        );
        assert_eq!(folder.rows("collectives"), expected);
        assert_eq!(folder.rows("groups"), format!("t,0,{comm},0\nt,0,{comm},4\n"));
    }

    #[test]
    fn a_group_of_which_one_rank_was_traced_is_no_collective() {
        let text = "step,rank,dp_rank,stage,op,start_s,duration_s\n\
            1,0,0,0,params-all-gather,0,1\n1,1,0,1,params-all-gather,0,1\n1,0,0,0,layernorm-grads-all-reduce,1,1\n";
        let folder = imported(&ImportSource::Trace, &[("t.csv", text)], None);
        assert_eq!((folder.rows("collectives"), folder.rows("groups")), (String::new(), String::new()));
        assert!(folder.rows("samples").contains("t,0,0,1,2000000000,comm_time_s,2.0"));
    }

    #[test]
    fn a_broken_operation_is_set_aside_and_a_foreign_header_is_refused() {
        let text =
            format!("{TRACE}x,0,0,0,gc,0,1\n22,0,0,0,gc,nan,1\n22,0,0,0,gc,0,-1\n22,0,0,0,,0,1\n22,,0,0,gc,0,1\n");
        let folder = imported(&ImportSource::Trace, &[("t.csv", &text)], None);
        assert_eq!((folder.report.rows_read, folder.report.rows_aside), (14, 5));
        let error = try_import(&ImportSource::Trace, &[("t.csv", "step,loss\n0,1\n")], None).expect_err("no trace");
        assert!(matches!(error, ImportError::UnknownLayout { .. }), "{error}");
    }

    #[test]
    fn steps_that_fall_back_are_a_new_attempt() {
        let text = "step,rank,op,start_s,duration_s\n5,0,gc,0,1\n6,0,gc,0,1\n5,0,gc,0,1\n";
        let folder = imported(&ImportSource::Trace, &[("t.csv", text)], None);
        let last = folder.rows("samples").lines().last().map(str::to_owned);
        assert_eq!(last.as_deref(), Some("t,1,0,5,3000000000,gc_time_s,1.0"));
    }
}
