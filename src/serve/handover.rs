//! What the workers of a group leave for one another on Kafka: state by partition, and every incident.
//!
//! State goes to a compacted topic with the partitions of the log. A snapshot is cut into chunks, which are written under
//! two names in turn, so that a snapshot that was half written when its worker died leaves the one before whole.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tracing::warn;
use trainwarden_ingest::kafka::{Compacted, Follower, KafkaOptions};
use trainwarden_store::{Commit, IncidentRow, PartitionState, RunSnapshot, StateStore};
use trainwarden_telemetry::Incident;

use super::desk::Desk;

/// Bytes of a chunk: far below what a topic takes, so that compaction has small steps.
const CHUNK_BYTES: usize = 512 << 10;
/// How long the state of a partition may take to be read.
const READ_WAIT: Duration = Duration::from_secs(60);
/// How long the follower waits before it looks whether the service stops.
const FOLLOW_WAIT: Duration = Duration::from_millis(200);

/// A piece of a snapshot of one run.
#[derive(Serialize, Deserialize)]
struct Chunk {
    run: String,
    /// The next record that the snapshot does not know.
    position: u64,
    index: u32,
    count: u32,
    #[serde(with = "serde_bytes_vec")]
    bytes: Vec<u8>,
}

/// Bytes as one string of bytes, not as a list of numbers.
mod serde_bytes_vec {
    use serde::{Deserializer, Serializer, de::Visitor};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

/// An incident as it is told to the other workers.
#[derive(Serialize, Deserialize)]
struct ToldIncident {
    /// The next record of its partition that it does not know.
    as_of: u64,
    incident: Incident,
}

/// Hands state to the next worker of a partition, and incidents to all.
pub(super) struct Handover {
    state: Compacted,
    incidents: Compacted,
    /// Which of its two names each run was written under last.
    turns: BTreeMap<(u32, String), bool>,
}

impl Handover {
    /// Opens the topics, which must exist.
    pub(super) fn open(options: &KafkaOptions) -> Result<Self> {
        let state = Compacted::open(options, &options.topics.state)?;
        let incidents = Compacted::open(options, &options.topics.incidents)?;
        Ok(Self { state, incidents, turns: BTreeMap::new() })
    }

    /// What the last worker of a partition left; nothing where there was none.
    pub(super) fn load(&mut self, partition: u32) -> Result<PartitionState> {
        let latest = self.state.read(&[partition], READ_WAIT)?;
        let mut position = 0;
        let mut parts: BTreeMap<(String, bool), Vec<Chunk>> = BTreeMap::new();
        for ((_, key), value) in &latest {
            if key == POSITION_KEY {
                position = rmp_serde::from_slice(value).context("the position of a partition is damaged")?;
            } else if let Some(turn) = turn_of(key) {
                let chunk: Chunk = rmp_serde::from_slice(value).context("a snapshot is damaged")?;
                parts.entry((chunk.run.clone(), turn)).or_default().push(chunk);
            }
        }
        let mut newest: BTreeMap<String, (u64, bool, Vec<u8>)> = BTreeMap::new();
        for ((run, turn), chunks) in parts {
            let Some((at, bytes)) = joined(chunks) else { continue };
            let known = newest.get(&run).map(|(at, ..)| *at);
            if known.is_none_or(|known| at >= known) {
                newest.insert(run, (at, turn, bytes));
            }
        }
        let mut runs = Vec::new();
        for (run, (_, turn, bytes)) in newest {
            self.turns.insert((partition, run.clone()), turn);
            runs.push(RunSnapshot { run, bytes });
        }
        Ok(PartitionState { position, runs })
    }

    /// Leaves a snapshot for the next worker; its runs first, so that the position never promises what is not there.
    pub(super) fn leave(&mut self, commit: &Commit) -> Result<()> {
        for RunSnapshot { run, bytes } in &commit.runs {
            let turn = self.turns.entry((commit.partition, run.clone())).or_default();
            let pieces: Vec<&[u8]> = bytes.chunks(CHUNK_BYTES).collect();
            let count = u32::try_from(pieces.len()).context("a snapshot is too large")?;
            let mut pairs = Vec::new();
            for (index, bytes) in (0..).zip(pieces) {
                let (run, position, bytes) = (run.clone(), commit.as_of, bytes.to_vec());
                let chunk = Chunk { run, position, index, count, bytes };
                let value = rmp_serde::to_vec(&chunk).context("a snapshot does not serialise")?;
                pairs.push((key_of(&chunk.run, !*turn, index), value));
            }
            let pairs: Vec<_> = pairs.iter().map(|(key, value)| (key.as_str(), Some(value.as_slice()))).collect();
            self.state.write(commit.partition, &pairs)?;
            *turn = !*turn;
        }
        let Some(position) = commit.position else { return Ok(()) };
        let value = rmp_serde::to_vec(&position).context("a number serialises")?;
        Ok(self.state.write(commit.partition, &[(POSITION_KEY, Some(&value))])?)
    }

    /// Tells all workers how incidents stand.
    pub(super) fn tell(&self, partition: u32, incidents: &[IncidentRow]) -> Result<()> {
        let told = |row: &IncidentRow| format!("{{\"as_of\":{},\"incident\":{}}}", row.as_of, row.json);
        let values: Vec<String> = incidents.iter().map(told).collect();
        let pairs: Vec<_> =
            incidents.iter().zip(&values).map(|(row, value)| (row.id.as_str(), Some(value.as_bytes()))).collect();
        Ok(self.incidents.write(partition, &pairs)?)
    }

    /// Follows what all workers tell.
    pub(super) fn follow(&self) -> Result<Follower> {
        let partitions: Vec<u32> = (0..self.incidents.partitions()).collect();
        Ok(self.incidents.follow(&partitions)?)
    }
}

const POSITION_KEY: &str = "position";

/// The name of a chunk: the run may hold any character, so it stands last.
fn key_of(run: &str, turn: bool, index: u32) -> String {
    format!("run/{}/{index}/{run}", u8::from(turn))
}

fn turn_of(key: &str) -> Option<bool> {
    let turn = key.strip_prefix("run/")?.split('/').next()?;
    Some(turn == "1")
}

/// The chunks of one snapshot put together; `None` where one is missing or of another snapshot.
fn joined(mut chunks: Vec<Chunk>) -> Option<(u64, Vec<u8>)> {
    chunks.sort_by_key(|chunk| chunk.index);
    let (position, count) = chunks.first().map(|first| (first.position, first.count))?;
    chunks.truncate(count as usize);
    let is_whole = chunks.len() == count as usize
        && (0..)
            .zip(&chunks)
            .all(|(index, chunk)| chunk.index == index && chunk.position == position && chunk.count == count);
    is_whole.then(|| (position, chunks.into_iter().flat_map(|chunk| chunk.bytes).collect()))
}

/// Writes what all workers tell into the state of this one, until the service stops.
pub(super) fn follow_incidents(mut follower: Follower, store: &StateStore, desk: &Arc<Desk>, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        let mut incidents = Vec::new();
        let mut wait = FOLLOW_WAIT;
        loop {
            match follower.next(wait) {
                Ok(Some(change)) => incidents.extend(change.value.and_then(|value| told(&value))),
                Ok(None) => break,
                Err(error) => {
                    warn!(%error, "what other workers tell cannot be read; trying again");
                    std::thread::sleep(FOLLOW_WAIT);
                    break;
                }
            }
            wait = Duration::ZERO;
        }
        if incidents.is_empty() {
            continue;
        }
        let commit = Commit { incidents, ..Commit::default() };
        while let Err(error) = store.commit(&commit) {
            desk.store_failed(&error.to_string());
            if stop.load(Ordering::Relaxed) {
                return;
            }
            std::thread::sleep(FOLLOW_WAIT);
        }
    }
}

/// What another worker told; what is no incident is passed over.
fn told(value: &[u8]) -> Option<IncidentRow> {
    let ToldIncident { as_of, incident } = serde_json::from_slice(value).ok()?;
    let json = serde_json::to_string(&incident).ok()?;
    Some(IncidentRow { id: incident.id.0, as_of, json })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(index: u32, count: u32, position: u64) -> Chunk {
        Chunk { run: "r".to_owned(), position, index, count, bytes: vec![index as u8] }
    }

    #[test]
    fn only_whole_snapshots_count_and_leftovers_of_longer_ones_do_not_matter() {
        assert_eq!(joined(vec![chunk(1, 2, 7), chunk(0, 2, 7)]), Some((7, vec![0, 1])));
        assert_eq!(joined(vec![chunk(0, 1, 9), chunk(1, 2, 7)]), Some((9, vec![0])));
        assert_eq!(joined(vec![chunk(0, 2, 9), chunk(1, 2, 7)]), None);
        assert_eq!(joined(vec![chunk(1, 2, 7)]), None);
        assert_eq!(joined(Vec::new()), None);
    }

    #[test]
    fn names_tell_the_two_turns_apart_whatever_the_run_is_called() {
        assert_ne!(key_of("a/1/0/b", false, 0), key_of("a/1/0/b", true, 0));
        assert_eq!(turn_of(&key_of("a/0/x", true, 3)), Some(true));
        assert_eq!(turn_of(&key_of("run/1", false, 3)), Some(false));
        assert_eq!(turn_of(POSITION_KEY), None);
    }
}
