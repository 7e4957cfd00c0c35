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

use super::table::open;
use super::trace::UNPLACED;
use super::{ImportError, ImportReport, Sink, stem};
use crate::{CollectiveOut, MemberOut, PlacementOut};

/// A dump of a rank has 2,000 entries and a few megabytes; what decompresses to more than this is no dump.
const FILE_BYTES_MAX: u64 = 2 << 30;
/// Members of a communicator: beyond the largest jobs, and small enough to hold.
const MEMBERS_MAX: usize = 1 << 20;

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
}

/// Where a rank is in the parallel grid.
#[derive(Clone, Copy, Debug, Default)]
struct Roles {
    dp: Option<u32>,
    tp: Option<u32>,
    pp: Option<u32>,
    ep: Option<u32>,
    cp: Option<u32>,
}

/// One entry of a dump.
struct Call {
    rank: u32,
    comm: String,
    seq: u64,
    op: String,
    bytes: Option<u64>,
    signature: Option<String>,
    enqueued: Option<i64>,
    start: Option<i64>,
    end: Option<i64>,
    peer: Option<u32>,
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

    /// The place of a rank in the list of such a group is its index in that dimension. These are Megatron's names.
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
            "EXPERT_MODEL_PARALLEL_GROUP" => roles.ep = Some(index),
            "CONTEXT_PARALLEL_GROUP" => roles.cp = Some(index),
            // With context parallelism this is a finer index than dp, and without it the only one that is told.
            "DATA_PARALLEL_GROUP_WITH_CP" => roles.dp = roles.dp.or(Some(index)),
            _ => {}
        }
    }

    fn write(&self, run: &str, sink: &mut Sink<'_>) -> Result<(), ImportError> {
        let ranks: BTreeSet<u32> = self.members.values().flatten().chain(&self.ranks).copied().collect();
        for rank in ranks {
            let Roles { dp, tp, pp, ep, cp } = self.roles.get(&rank).copied().unwrap_or_default();
            sink.placement(&PlacementOut { run, rank, dp, tp, pp, ep, cp, ..UNPLACED })?;
        }
        for (comm, ranks) in &self.members {
            for &rank in ranks {
                sink.member(&MemberOut { run, attempt: 0, comm, rank })?;
            }
        }
        for call in &self.calls {
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
            })?;
        }
        Ok(())
    }
}

/// `desc/name`: the description says what the group is for, the name tells groups of one description apart.
fn comm_name(name: &str, desc: &str) -> String {
    if desc.is_empty() || desc == "undefined" { name.to_owned() } else { format!("{desc}/{name}") }
}

/// The ranks of a process group: a JSON list, or (as PyTorch writes it) a text that holds one.
fn members(ranks: Option<&Value>) -> Option<Vec<u32>> {
    let ranks: Vec<u32> = match ranks? {
        Value::String(text) => serde_json::from_str(text).ok()?,
        list => serde_json::from_value(list.clone()).ok()?,
    };
    (ranks.len() <= MEMBERS_MAX).then_some(ranks)
}

fn call(rank: u32, entry: &Value, groups: &BTreeMap<String, Vec<u32>>) -> Result<Call, String> {
    let text = |key: &str| entry.get(key).and_then(Value::as_str);
    let (name, desc) = process_group(entry).ok_or("`process_group` is no name and description")?;
    let profiling_name = text("profiling_name").ok_or("`profiling_name` is no text")?;
    // The part before the colon is the backend: `nccl:all_reduce`.
    let op = profiling_name.split_once(':').map_or(profiling_name, |(_, op)| op);
    let ends = transfer(op);
    let is_p2p = entry.get("is_p2p").and_then(Value::as_bool).unwrap_or(ends.is_some());
    let sequence = if is_p2p { "p2p_seq_id" } else { "collective_seq_id" };
    let seq = entry.get(sequence).and_then(Value::as_u64).ok_or_else(|| format!("`{sequence}` is no number from 0"))?;
    let (start, end) = begin_and_end(entry)?;
    let call = Call {
        rank,
        comm: comm_name(name, desc),
        seq,
        op: op.to_owned(),
        bytes: bytes(entry),
        signature: signature(op, entry),
        enqueued: entry.get("time_created_ns").and_then(Value::as_i64),
        start,
        end,
        peer: None,
    };
    match ends {
        Some((direction, _, other)) if is_p2p => {
            // The numbers in the name are places in the group; the group's list makes them ranks.
            let peer = groups.get(name).and_then(|ranks| ranks.get(other as usize)).copied();
            let arrow = if direction == "send" { "->" } else { "<-" };
            let other = peer.map_or_else(|| format!("?{other}"), |peer| peer.to_string());
            let comm = format!("{}/{direction} {rank}{arrow}{other}", call.comm);
            Ok(Call { comm, op: direction.to_owned(), peer, ..call })
        }
        _ if is_p2p => Ok(Call { comm: format!("{}/{op} {rank}", call.comm), ..call }),
        _ => Ok(call),
    }
}

fn process_group(entry: &Value) -> Option<(&str, &str)> {
    let group = entry.get("process_group")?;
    Some((group.get(0)?.as_str()?, group.get(1).and_then(Value::as_str).unwrap_or_default()))
}

/// Direction, own and other place in the group of `send 0->3` or `recv 3<-0`.
fn transfer(op: &str) -> Option<(&str, u32, u32)> {
    let (direction, ends) = op.split_once(' ')?;
    let (own, other) = ends.split_once("->").or_else(|| ends.split_once("<-"))?;
    Some((direction, own.trim().parse().ok()?, other.trim().parse().ok()?))
}

/// When the device began and ended: only what the state says happened. Where the recorder knows that it happened and
/// not when, which is so without `TORCH_NCCL_ENABLE_TIMING`, the last time known before stands for it.
fn begin_and_end(entry: &Value) -> Result<(Option<i64>, Option<i64>), String> {
    let time = |key: &str| entry.get(key).and_then(Value::as_i64);
    let created = time("time_created_ns");
    let started = time("time_discovered_started_ns").or(created);
    match entry.get("state").and_then(Value::as_str) {
        Some("scheduled") => Ok((None, None)),
        Some("started") => Ok((started, None)),
        Some("completed") => {
            let end = time("time_discovered_completed_ns").or(started);
            let is_timeless = end.is_none();
            if is_timeless { Err("a completed call has no time at all".to_owned()) } else { Ok((started.or(end), end)) }
        }
        _ => Err("`state` is none of `scheduled`, `started`, `completed`".to_owned()),
    }
}

/// Bytes of the inputs; `None` when a type or a shape is unknown.
fn bytes(entry: &Value) -> Option<u64> {
    let sizes = entry.get("input_sizes")?.as_array()?;
    let types = entry.get("input_dtypes")?.as_array()?;
    let mut total = 0_u64;
    for (index, shape) in sizes.iter().enumerate() {
        // One type may stand for all inputs.
        let of_type = type_bytes(types.get(index).or_else(|| types.first())?.as_str()?)?;
        let elements = shape.as_array()?.iter().try_fold(1_u64, |count, length| count.checked_mul(length.as_u64()?))?;
        total = total.checked_add(elements.checked_mul(of_type)?)?;
    }
    Some(total)
}

/// Bytes of one number of a PyTorch type, by the names of `c10::ScalarType`.
fn type_bytes(name: &str) -> Option<u64> {
    match name {
        "Byte" | "Char" | "Bool" => Some(1),
        "Short" | "Half" | "BFloat16" | "UInt16" => Some(2),
        "Int" | "Float" | "UInt32" | "ComplexHalf" => Some(4),
        "Long" | "Double" | "UInt64" | "ComplexFloat" => Some(8),
        "ComplexDouble" => Some(16),
        _ => name.starts_with("Float8").then_some(1),
    }
}

/// Types and shapes as `BFloat16[4096,5120]->BFloat16[8192,5120]`: what must be equal on all ranks of a call. In an
/// exchange where ranks may give different amounts, or where only the root gives or gets, that is the types alone.
fn signature(op: &str, entry: &Value) -> Option<String> {
    const OF_UNEQUAL_SHAPES: [&str; 4] = ["all_to_all", "alltoall", "gather", "scatter"];
    let has_equal_shapes = !OF_UNEQUAL_SHAPES.iter().any(|part| op.starts_with(part));
    let side = |types: &str, sizes: &str| {
        let types = entry.get(types)?.as_array()?.iter().map(Value::as_str).collect::<Option<Vec<_>>>()?;
        if !has_equal_shapes {
            return Some(types.join(","));
        }
        let sizes = entry.get(sizes)?.as_array()?;
        let of_index = |index: usize| types.get(index).or_else(|| types.first()).copied().unwrap_or_default();
        let sides: Vec<String> =
            sizes.iter().enumerate().map(|(index, shape)| format!("{}{shape}", of_index(index))).collect();
        Some(sides.join(","))
    };
    Some(format!("{}->{}", side("input_dtypes", "input_sizes")?, side("output_dtypes", "output_sizes")?))
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
    fn shapes_that_may_differ_between_ranks_are_no_part_of_the_signature() {
        let entry: Value = serde_json::from_str(&entry("nccl:all_to_all", "\"collective_seq_id\": 1", "started"))
            .expect("the text is JSON");
        assert_eq!(signature("all_to_all", &entry).as_deref(), Some("BFloat16->BFloat16"));
        assert_eq!(signature("_all_gather_base", &entry).as_deref(), Some("BFloat16[4,2]->BFloat16[8,2]"));
    }
}
