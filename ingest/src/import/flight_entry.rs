//! One entry of a flight recorder dump, and what it says of a call.

use std::collections::BTreeMap;

use serde_json::Value;

/// One entry of a dump.
pub(super) struct Call {
    pub(super) rank: u32,
    pub(super) comm: String,
    pub(super) seq: u64,
    pub(super) op: String,
    pub(super) bytes: Option<u64>,
    pub(super) signature: Option<String>,
    pub(super) enqueued: Option<i64>,
    pub(super) start: Option<i64>,
    pub(super) end: Option<i64>,
    pub(super) peer: Option<u32>,
}

/// `desc/name`: the description says what the group is for, the name tells groups of one description apart.
pub(super) fn comm_name(name: &str, desc: &str) -> String {
    if desc.is_empty() || desc == "undefined" { name.to_owned() } else { format!("{desc}/{name}") }
}

/// Members of a communicator: beyond the largest jobs, and small enough to hold.
const MEMBERS_MAX: usize = 1 << 20;

/// The ranks of a process group: a JSON list, or (as PyTorch writes it) a text that holds one.
pub(super) fn members(ranks: Option<&Value>) -> Option<Vec<u32>> {
    let ranks: Vec<u32> = match ranks? {
        Value::String(text) => serde_json::from_str(text).ok()?,
        list => serde_json::from_value(list.clone()).ok()?,
    };
    (ranks.len() <= MEMBERS_MAX).then_some(ranks)
}

pub(super) fn call(rank: u32, entry: &Value, groups: &BTreeMap<String, Vec<u32>>) -> Result<Call, String> {
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
pub(super) fn signature(op: &str, entry: &Value) -> Option<String> {
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

    const ENTRY: &str = r#"{"input_sizes": [[4, 2]], "input_dtypes": ["BFloat16"],
        "output_sizes": [[8, 2]], "output_dtypes": ["BFloat16"]}"#;

    #[test]
    fn shapes_that_may_differ_between_ranks_are_no_part_of_the_signature() {
        let entry: Value = serde_json::from_str(ENTRY).expect("the text is JSON");
        assert_eq!(signature("all_to_all", &entry).as_deref(), Some("BFloat16->BFloat16"));
        assert_eq!(signature("_all_gather_base", &entry).as_deref(), Some("BFloat16[4,2]->BFloat16[8,2]"));
    }
}
