//! What the status of a rank's process groups says of calls that its dump no longer has.
//!
//! Calls a rank has finished leave its dump, while a peer that hangs still shows them. Without the status such a rank
//! would look as if it had never come, and the one that hangs as if it waited for it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::flight_entry::{Call, comm_name};

/// The last collective each rank completed in each group.
#[derive(Default)]
pub(super) struct Completed {
    /// By rank and communicator.
    last: BTreeMap<(u32, String), u64>,
    /// Groups that carry transfers between two ranks: their status counts those too, so it says nothing of collectives.
    mixed: BTreeSet<String>,
}

impl Completed {
    /// Reads `pg_status` of a rank's dump.
    pub(super) fn learn(&mut self, rank: u32, dump: &Map<String, Value>, entries: &[Value]) {
        for entry in entries {
            if entry.get("is_p2p").and_then(Value::as_bool) == Some(true) {
                self.mixed.extend(comm_of(entry));
            }
        }
        let Some(status) = dump.get("pg_status").and_then(Value::as_object) else { return };
        for (id, comm) in comms_by_id(dump, status, entries) {
            let last = status.get(&id).and_then(|status| status.get("last_completed_collective"));
            if let Some(last) = last.and_then(Value::as_u64) {
                self.last.insert((rank, comm), last);
            }
        }
    }

    /// A finished row for each call that peers show, and that a member without an entry has completed.
    pub(super) fn unrecorded(&self, calls: &[Call], members: &BTreeMap<String, BTreeSet<u32>>) -> Vec<Call> {
        let mut shown: BTreeMap<(&str, u64), Vec<&Call>> = BTreeMap::new();
        for call in calls.iter().filter(|call| !self.mixed.contains(&call.comm)) {
            shown.entry((&call.comm, call.seq)).or_default().push(call);
        }
        let mut finished = Vec::new();
        for ((comm, seq), shown) in shown {
            // No call ends before its last member came; that it did end is all that is known.
            let time = shown.iter().filter_map(|call| call.enqueued).max();
            for &rank in members.get(comm).into_iter().flatten() {
                let is_shown = shown.iter().any(|call| call.rank == rank);
                let is_completed = self.last.get(&(rank, comm.to_owned())).is_some_and(|&last| last >= seq);
                if !is_shown && is_completed && time.is_some() {
                    let (comm, op) = (comm.to_owned(), shown[0].op.clone());
                    let (bytes, signature, enqueued, peer) = (None, None, None, None);
                    let (start, end) = (time, time);
                    finished.push(Call { rank, comm, seq, op, bytes, signature, enqueued, start, end, peer });
                }
            }
        }
        finished
    }
}

/// The communicator of each number in `pg_status`, which does not name it.
///
/// Entries carry both. For the other groups, both numbers and names count up in the order of creation, so that sorted
/// they pair up; that is taken only where there are as many of both and every entry agrees.
fn comms_by_id(dump: &Map<String, Value>, status: &Map<String, Value>, entries: &[Value]) -> BTreeMap<String, String> {
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    for entry in entries {
        if let (Some(id), Some(comm)) = (entry.get("pg_id").and_then(Value::as_u64), comm_of(entry)) {
            known.insert(id.to_string(), comm);
        }
    }
    let paired = paired_in_order(dump, status).unwrap_or_default();
    let agrees = known.iter().all(|(id, comm)| paired.get(id) == Some(comm));
    if agrees { paired } else { known }
}

fn paired_in_order(dump: &Map<String, Value>, status: &Map<String, Value>) -> Option<BTreeMap<String, String>> {
    let mut ids: Vec<u64> = status.keys().map(|id| id.parse().ok()).collect::<Option<_>>()?;
    let mut groups: Vec<(u64, String)> = Vec::new();
    for (key, group) in dump.get("pg_config")?.as_object()? {
        let name = group.get("name").and_then(Value::as_str).unwrap_or(key);
        let desc = group.get("desc").and_then(Value::as_str).unwrap_or_default();
        groups.push((name.parse().ok()?, comm_name(name, desc)));
    }
    ids.sort_unstable();
    groups.sort_unstable();
    let pairs = ids.iter().zip(&groups).map(|(id, (_, comm))| (id.to_string(), comm.clone()));
    (ids.len() == groups.len()).then(|| pairs.collect())
}

fn comm_of(entry: &Value) -> Option<String> {
    let group = entry.get("process_group")?;
    Some(comm_name(group.get(0)?.as_str()?, group.get(1).and_then(Value::as_str).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(text: &str) -> Map<String, Value> {
        serde_json::from_str(text).expect("the text is a JSON object")
    }

    const DUMP: &str = r#"{"pg_config": {"43": {"name": "43", "desc": "PP"}, "5": {"name": "5", "desc": "TP"}},
        "pg_status": {"12": {"last_completed_collective": 9}, "3": {"last_completed_collective": 7}}}"#;

    #[test]
    fn numbers_and_names_of_groups_pair_up_in_order() {
        let mut completed = Completed::default();
        completed.learn(0, &object(DUMP), &[]);
        let expected = BTreeMap::from([((0, "TP/5".to_owned()), 7), ((0, "PP/43".to_owned()), 9)]);
        assert_eq!(completed.last, expected);
    }

    #[test]
    fn an_entry_that_contradicts_the_order_stands_alone() {
        let mut completed = Completed::default();
        let entry = Value::Object(object(r#"{"pg_id": 12, "process_group": ["5", "TP"]}"#));
        completed.learn(0, &object(DUMP), &[entry]);
        assert_eq!(completed.last, BTreeMap::from([((0, "TP/5".to_owned()), 9)]));
    }

    #[test]
    fn a_group_that_also_carries_transfers_is_left_out() {
        let call = |seq| Call {
            rank: 1,
            comm: "TP/5".to_owned(),
            seq,
            op: "all_reduce".to_owned(),
            bytes: None,
            signature: None,
            enqueued: Some(100),
            start: None,
            end: None,
            peer: None,
        };
        let members = BTreeMap::from([("TP/5".to_owned(), BTreeSet::from([0, 1, 2]))]);
        let mut completed = Completed::default();
        completed.learn(0, &object(DUMP), &[]);
        let finished = completed.unrecorded(&[call(7), call(8)], &members);
        assert_eq!(
            finished.iter().map(|call| (call.rank, call.seq, call.end)).collect::<Vec<_>>(),
            [(0, 7, Some(100))]
        );
        let transfer = Value::Object(object(r#"{"is_p2p": true, "process_group": ["5", "TP"]}"#));
        completed.learn(2, &Map::new(), &[transfer]);
        assert_eq!(completed.unrecorded(&[call(7), call(8)], &members).len(), 0);
    }
}
