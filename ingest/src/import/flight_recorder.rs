//! PyTorch NCCL flight recorder dumps, as JSON: the last communication calls of each rank, and their state.
//!
//! A file holds one object `{"0": dump, "1": dump, …}`, or the dump of one rank, which its field `rank` or the number
//! at the end of the file's name tells. Every rank's process groups are read, also those of ranks that left no entry:
//! a rank that is silent while its group waits is found only when it is known to be a member.
//!
//! Calls between two ranks are kept apart from those of the whole group. PyTorch numbers them per rank and process
//! group, over all partners: the two ends of one transfer have different numbers. So each end gets a communicator of
//! its own, such as `PIPELINE_MODEL_PARALLEL_GROUP/43/send 0->12` (global ranks), and names the other end as `peer`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::flight_entry::{Call, call, comm_name, members};
use super::flight_status::Completed;
use super::table::open;
use super::trace::UNPLACED;
use super::{ImportError, ImportReport, Sink, stem};
use crate::{CollectiveOut, MemberOut, PlacementOut};

/// A dump of a rank has 2,000 entries and a few megabytes at most, and parsed it takes several times its size.
const FILE_BYTES_MAX: u64 = 512 << 20;

/// Reads dumps; without a run name, dumps of single ranks share the run their file names have in common.
pub(super) fn read(files: &[PathBuf], run: Option<&str>, sink: &mut Sink<'_>) -> Result<(), ImportError> {
    let mut runs: BTreeMap<String, Dumps> = BTreeMap::new();
    for path in files {
        let Some(document) = document(path, &mut sink.report)? else { continue };
        let is_one_rank = document.contains_key("entries") || document.contains_key("pg_config");
        let name = run.map_or_else(|| if is_one_rank { shared_stem(path) } else { stem(path) }, str::to_owned);
        let dumps = runs.entry(name).or_default();
        if is_one_rank {
            dumps.add_single(path, &document, &mut sink.report);
        } else {
            for (key, dump) in &document {
                dumps.add_keyed(path, key, dump, &mut sink.report);
            }
        }
    }
    runs.iter().try_for_each(|(run, dumps)| dumps.write(run, sink))
}

fn document(path: &Path, report: &mut ImportReport) -> Result<Option<Map<String, Value>>, ImportError> {
    let text = open(path)?.take(FILE_BYTES_MAX);
    match serde_json::from_reader(text) {
        Ok(Value::Object(document)) => return Ok(Some(document)),
        Ok(_) => report.set_row_aside(path, "line 1".to_owned(), "the file holds no JSON object".to_owned()),
        Err(error) => {
            let reason = format!("the file is no JSON (dumps as pickle are not read): {error}");
            report.set_row_aside(path, format!("line {}", error.line()), reason);
        }
    }
    Ok(None)
}

/// The stem of a file of one rank without what names the rank: `nccl_trace_rank_3` and `_dump_3` are parts of
/// `nccl_trace` and `dump`.
fn shared_stem(path: &Path) -> String {
    const SEPARATORS: [char; 3] = ['_', '-', '.'];
    let stem = stem(path);
    let shared = stem.trim_end_matches(|letter: char| letter.is_ascii_digit()).trim_matches(SEPARATORS);
    let shared = shared.strip_suffix("rank").unwrap_or(shared).trim_matches(SEPARATORS);
    if shared.is_empty() { "flight_recorder".to_owned() } else { shared.to_owned() }
}

fn rank_in_name(path: &Path) -> Option<u32> {
    let stem = stem(path);
    let digits = stem.len() - stem.trim_end_matches(|letter: char| letter.is_ascii_digit()).len();
    stem[stem.len() - digits..].parse().ok()
}

/// The dumps of one run.
#[derive(Default)]
struct Dumps {
    ranks: BTreeSet<u32>,
    members: BTreeMap<String, BTreeSet<u32>>,
    roles: BTreeMap<u32, Roles>,
    calls: Vec<Call>,
    completed: Completed,
}

/// Where a rank is in the parallel grid.
#[derive(Clone, Copy, Debug, Default)]
struct Roles {
    dp: Option<u32>,
    tp: Option<u32>,
    pp: Option<u32>,
    cp: Option<u32>,
}

impl Dumps {
    fn add_single(&mut self, path: &Path, dump: &Map<String, Value>, report: &mut ImportReport) {
        let told = dump.get("rank").and_then(Value::as_u64).and_then(|rank| u32::try_from(rank).ok());
        match told.or_else(|| rank_in_name(path)) {
            Some(rank) => self.add(path, rank, dump, report),
            None => {
                let reason = "neither a field `rank` nor the file's name tells the rank".to_owned();
                report.set_row_aside(path, "the dump".to_owned(), reason);
            }
        }
    }

    fn add_keyed(&mut self, path: &Path, key: &str, dump: &Value, report: &mut ImportReport) {
        match (key.parse::<u32>(), dump) {
            (Ok(rank), Value::Object(dump)) => self.add(path, rank, dump, report),
            (Err(_), _) => report.set_row_aside(path, format!("key `{key}`"), format!("`{key}` is no rank")),
            _ => report.set_row_aside(path, format!("rank {key}"), "the dump is no JSON object".to_owned()),
        }
    }

    fn add(&mut self, path: &Path, rank: u32, dump: &Map<String, Value>, report: &mut ImportReport) {
        if !self.ranks.insert(rank) {
            let reason = "the rank has a dump already".to_owned();
            return report.set_row_aside(path, format!("rank {rank}"), reason);
        }
        let groups = self.add_groups(path, rank, dump.get("pg_config"), report);
        let entries = match dump.get("entries") {
            Some(Value::Array(entries)) => entries.as_slice(),
            Some(Value::Null) | None => &[],
            Some(_) => {
                report.set_row_aside(path, format!("rank {rank}"), "`entries` is no list".to_owned());
                &[]
            }
        };
        self.completed.learn(rank, dump, entries);
        for (index, entry) in entries.iter().enumerate() {
            report.rows_read += 1;
            match call(rank, entry, &groups) {
                Ok(call) => self.calls.push(call),
                Err(reason) => report.set_row_aside(path, format!("rank {rank}, entry {index}"), reason),
            }
        }
    }

    /// Reads the process groups a rank is in; the members of each by the group's name.
    fn add_groups(
        &mut self,
        path: &Path,
        rank: u32,
        config: Option<&Value>,
        report: &mut ImportReport,
    ) -> BTreeMap<String, Vec<u32>> {
        let mut groups = BTreeMap::new();
        let Some(Value::Object(config)) = config else { return groups };
        for (key, group) in config {
            let Some(ranks) = members(group.get("ranks")) else {
                let reason = "`ranks` is no list of ranks".to_owned();
                report.set_cell_aside(path, format!("rank {rank}, process group {key}"), reason);
                continue;
            };
            let name = group.get("name").and_then(Value::as_str).unwrap_or(key);
            let desc = group.get("desc").and_then(Value::as_str).unwrap_or_default();
            self.learn_role(rank, desc, &ranks);
            let known = self.members.entry(comm_name(name, desc)).or_default();
            if !known.is_empty() && !known.iter().eq(ranks.iter().collect::<BTreeSet<_>>()) {
                report.note(format!("ranks name different members of `{}`: all were taken", comm_name(name, desc)));
            }
            known.extend(&ranks);
            groups.insert(name.to_owned(), ranks);
        }
        groups
    }

    /// The place of a rank in the list of such a group is its index in that dimension. These are Megatron's names. The
    /// expert group is left out: it runs across tensor and data parallelism, and would leave a rank without a peer.
    fn learn_role(&mut self, rank: u32, desc: &str, ranks: &[u32]) {
        let Some(index) = ranks.iter().position(|&member| member == rank).and_then(|index| u32::try_from(index).ok())
        else {
            return;
        };
        let roles = self.roles.entry(rank).or_default();
        match desc {
            "DATA_PARALLEL_GROUP" => roles.dp = Some(index),
            "TENSOR_MODEL_PARALLEL_GROUP" => roles.tp = Some(index),
            "PIPELINE_MODEL_PARALLEL_GROUP" => roles.pp = Some(index),
            "CONTEXT_PARALLEL_GROUP" => roles.cp = Some(index),
            // With context parallelism this is a finer index than dp, and without it the only one that is told.
            "DATA_PARALLEL_GROUP_WITH_CP" => roles.dp = roles.dp.or(Some(index)),
            _ => {}
        }
    }

    fn write(&self, run: &str, sink: &mut Sink<'_>) -> Result<(), ImportError> {
        let ranks: BTreeSet<u32> = self.members.values().flatten().chain(&self.ranks).copied().collect();
        for rank in ranks {
            let Roles { dp, tp, pp, cp } = self.roles.get(&rank).copied().unwrap_or_default();
            sink.placement(&PlacementOut { run, rank, dp, tp, pp, cp, ..UNPLACED })?;
        }
        for (comm, ranks) in &self.members {
            for &rank in ranks {
                sink.member(&MemberOut { run, attempt: 0, comm, rank })?;
            }
        }
        let finished = self.completed.unrecorded(&self.calls, &self.members);
        if !finished.is_empty() {
            sink.report.note(
                "calls that `pg_status` says a rank completed, and its dump no longer has, got the latest time a peer \
                 issued them"
                    .to_owned(),
            );
        }
        self.calls.iter().chain(&finished).try_for_each(|call| write_call(run, call, sink))
    }
}

fn write_call(run: &str, call: &Call, sink: &mut Sink<'_>) -> Result<(), ImportError> {
    sink.collective(&CollectiveOut {
        run,
        attempt: 0,
        rank: call.rank,
        comm: &call.comm,
        seq: call.seq,
        op: &call.op,
        bytes: call.bytes,
        signature: call.signature.as_deref(),
        enqueued: call.enqueued,
        start: call.start,
        end: call.end,
        step: None,
        peer: call.peer,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::ImportSource;
    use crate::import::testing::{Folder, imported};

    fn entry(name: &str, sequence: &str, state: &str) -> String {
        format!(
            r#"{{"process_group": ["7", "PIPELINE_MODEL_PARALLEL_GROUP"], "profiling_name": "{name}", {sequence},
                "time_created_ns": 100, "time_discovered_started_ns": 200, "time_discovered_completed_ns": 300,
                "input_sizes": [[4, 2]], "input_dtypes": ["BFloat16"], "output_sizes": [[8, 2]],
                "output_dtypes": ["BFloat16"], "state": "{state}"}}"#
        )
    }

    fn dump(entries: &[String]) -> String {
        let group = r#"{"name": "7", "desc": "PIPELINE_MODEL_PARALLEL_GROUP", "ranks": "[0, 4]"}"#;
        format!(r#"{{"pg_config": {{"7": {group}}}, "entries": [{}]}}"#, entries.join(","))
    }

    fn read(files: &[(&str, &str)]) -> Folder {
        imported(&ImportSource::FlightRecorder, files, None)
    }

    #[test]
    fn the_state_of_a_call_decides_its_times() {
        let states = ["scheduled", "started", "completed"];
        let entries: Vec<String> = (5..)
            .zip(states)
            .map(|(seq, state)| entry("nccl:all_gather", &format!("\"collective_seq_id\": {seq}"), state))
            .collect();
        let folder = read(&[("hang.json", &format!(r#"{{"0": {}}}"#, dump(&entries)))]);
        let call = |seq: u32, times: &str| {
            format!(
                "hang,0,0,PIPELINE_MODEL_PARALLEL_GROUP/7,{seq},all_gather,16,\"BFloat16[4,2]->BFloat16[8,2]\",100,{times},,\n"
            )
        };
        let expected = [call(5, ","), call(6, "200,"), call(7, "200,300")].concat();
        assert_eq!(folder.rows("collectives"), expected);
    }

    #[test]
    fn a_rank_without_a_dump_is_a_member_and_has_a_place() {
        let folder = read(&[("hang.json", &format!(r#"{{"0": {}}}"#, dump(&[])))]);
        let comm = "PIPELINE_MODEL_PARALLEL_GROUP/7";
        assert_eq!(folder.rows("groups"), format!("hang,0,{comm},0\nhang,0,{comm},4\n"));
        assert_eq!(folder.rows("ranks"), "hang,0,0,,,,,,0,,\nhang,0,4,,,,,,,,\n");
        assert_eq!(folder.rows("collectives"), "");
    }

    #[test]
    fn transfers_name_their_global_peer_and_stay_apart_from_collectives() {
        let send =
            entry("nccl:send 0->1", "\"p2p_seq_id\": 9, \"collective_seq_id\": 2, \"is_p2p\": true", "scheduled");
        let receive =
            entry("nccl:recv 1<-0", "\"p2p_seq_id\": 3, \"collective_seq_id\": 2, \"is_p2p\": true", "scheduled");
        let document = format!(r#"{{"0": {}, "4": {}}}"#, dump(&[send]), dump(&[receive]));
        let rows = read(&[("hang.json", &document)]).rows("collectives");
        let mut rows = rows.lines();
        let (send, receive) = (rows.next().unwrap_or_default(), rows.next().unwrap_or_default());
        assert!(send.starts_with("hang,0,0,PIPELINE_MODEL_PARALLEL_GROUP/7/send 0->4,9,send,16,"), "{send}");
        assert!(send.ends_with(",,,,4"), "{send}");
        assert!(receive.starts_with("hang,0,4,PIPELINE_MODEL_PARALLEL_GROUP/7/recv 4<-0,3,recv,16,"), "{receive}");
    }

    #[test]
    fn files_of_single_ranks_make_one_run() {
        let text = dump(&[]);
        let folder = read(&[("nccl_trace_rank_0.json", &text), ("nccl_trace_rank_4.json", &text)]);
        assert_eq!(folder.rows("ranks"), "nccl_trace,0,0,,,,,,0,,\nnccl_trace,0,4,,,,,,1,,\n");
        assert_eq!(shared_stem(Path::new("_dump_3")), "dump");
        assert_eq!(shared_stem(Path::new("3.json")), "flight_recorder");
    }

    #[test]
    fn broken_parts_are_set_aside_with_their_place() {
        let good = entry("nccl:all_reduce", "\"collective_seq_id\": 1", "started");
        let stateless = entry("nccl:all_reduce", "\"collective_seq_id\": 1", "dreaming");
        let unnumbered = entry("nccl:all_reduce", "\"collective_seq_id\": -1", "started");
        let dump = dump(&["7".to_owned(), stateless, unnumbered, good]);
        let document = format!(r#"{{"0": {dump}, "1": [], "x": {{}}, "2": {{"entries": 3}}}}"#);
        let folder = read(&[("a.json", &document), ("b.json", "{\"0\": "), ("c.json", &"[".repeat(100_000))]);
        let mut places: Vec<&str> = folder.report.aside.iter().map(|aside| aside.place.as_str()).collect();
        places.sort_unstable();
        let expected = [
            "key `x`",
            "line 1",
            "line 1",
            "rank 0, entry 0",
            "rank 0, entry 1",
            "rank 0, entry 2",
            "rank 1",
            "rank 2",
        ];
        assert_eq!(places, expected);
        assert_eq!(folder.rows("collectives").lines().count(), 1);
    }

    #[test]
    fn a_call_that_a_rank_completed_and_no_longer_shows_is_no_call_it_never_joined() {
        let waits =
            |seq: u32| entry("nccl:all_gather", &format!("\"pg_id\": 3, \"collective_seq_id\": {seq}"), "scheduled");
        let waiting = dump(&[waits(5), waits(6)]);
        let ahead = dump(&[]).replacen('{', "{\"pg_status\": {\"3\": {\"last_completed_collective\": 5}},", 1);
        let folder = read(&[("hang.json", &format!("{{\"0\": {waiting}, \"4\": {ahead}}}"))]);
        let of_rank_4: Vec<String> =
            folder.rows("collectives").lines().filter(|row| row.starts_with("hang,0,4")).map(str::to_owned).collect();
        assert_eq!(of_rank_4, ["hang,0,4,PIPELINE_MODEL_PARALLEL_GROUP/7,5,all_gather,,,,100,100,,"]);
    }

    #[test]
    fn a_rank_has_one_dump_and_may_be_in_no_group() {
        let folder = read(&[("a_1.json", "{\"entries\": []}"), ("a_01.json", "{\"entries\": []}")]);
        assert_eq!(folder.rows("ranks"), "a,0,1,,,,,,,,\n");
        assert_eq!(folder.report.aside[0].reason, "the rank has a dump already");
    }
}
