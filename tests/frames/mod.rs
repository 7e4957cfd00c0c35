//! Run folders as the frames that `send` makes of them, judged without a service around.

#![allow(dead_code, reason = "each test target uses its part")]

use std::ops::Range;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use trainwarden::incident_list::sorted;
use trainwarden::output;
use trainwarden::partition_judge::{Admission, PartitionJudge};
use trainwarden::run_judge::{LATENESS_NS, LATENESS_STEPS};
use trainwarden::send::{SendOptions, send};
use trainwarden_ingest::wire::{OpenedFrame, TrustedKeys};
use trainwarden_ingest::{LogClock, LogRecord, Published, Publisher};
use trainwarden_store::{Commit, PartitionState};

/// Takes frames and keeps them.
#[derive(Default)]
struct Kept(Mutex<Vec<Vec<u8>>>);

impl Publisher for Kept {
    fn publish(&self, _key: &str, value: &[u8], published: Published) {
        let mut frames = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        frames.push(value.to_vec());
        published(Ok((0, frames.len() as u64 - 1)));
    }

    fn publish_to(&self, _partition: u32, value: &[u8], published: Published) {
        self.publish("", value, published);
    }

    fn partitions(&self) -> u32 {
        1
    }
}

/// The frames of a run folder, in the order of sending.
pub(crate) fn frames_of(folder: &Path) -> Vec<Vec<u8>> {
    let kept = Kept::default();
    let (sent, _) = send(&[folder.to_owned()], &kept, &SendOptions::default()).expect("a folder can be sent");
    let frames = kept.0.into_inner().unwrap_or_else(PoisonError::into_inner);
    assert_eq!(sent.frames, frames.len() as u64);
    frames
}

/// What recorded telemetry may be sent as.
pub(crate) fn admission() -> Admission {
    Admission { takes_backfill: true, ..Admission::default() }
}

/// Frames as a log would hold them, one a second.
pub(crate) fn records(frames: &[Vec<u8>]) -> Vec<LogRecord> {
    let second = |offset: u64| i64::try_from(offset).expect("few frames") * 1_000_000_000;
    let place = |(offset, value): (u64, &Vec<u8>)| LogRecord {
        partition: 0,
        offset,
        append_time: second(offset),
        value: value.clone(),
    };
    (0..).zip(frames).map(place).collect()
}

/// Stretches of frames that may change places: no row of one comes later than rows that are so much younger.
pub(crate) fn stretches(frames: &[Vec<u8>]) -> Vec<Range<usize>> {
    let mut stretches: Vec<Range<usize>> = Vec::new();
    let mut end = i64::MIN;
    for (index, frame) in frames.iter().enumerate() {
        let frame = OpenedFrame::open(frame, &TrustedKeys::default()).expect("a frame that was just made");
        let clock = frame.backfill().expect("a known clock").expect("recorded telemetry");
        let lateness = if clock == LogClock::Steps { LATENESS_STEPS } else { LATENESS_NS };
        let sent_at = frame.envelope.sent_at;
        match stretches.last_mut() {
            // Ranks and communicators come first and have no time.
            Some(last) if sent_at < end || end == i64::MIN => last.end = index + 1,
            _ => stretches.push(index..index + 1),
        }
        // A frame spans a quarter of the lateness before the time it is sent at.
        if sent_at != 0 && sent_at >= end {
            end = sent_at - lateness / 4 + lateness;
        }
    }
    stretches
}

/// What a judge tells of records in the end, as `incidents --output json` prints it.
///
/// * `restarts`: before which records it is killed and goes on from its last commit; commits come every `commit_every`.
pub(crate) fn told(records: &[LogRecord], restarts: &[usize], commit_every: usize) -> String {
    let mut store = Kiln::default();
    let mut judge = PartitionJudge::new(0);
    let mut at = 0;
    let mut restarts = restarts.to_vec();
    while at < records.len() {
        if restarts.first() == Some(&at) {
            restarts.remove(0);
            judge = PartitionJudge::restore(0, &store.state()).expect("a snapshot restores");
            at = usize::try_from(judge.next()).expect("few records");
            continue;
        }
        judge.take(&records[at], &admission());
        at += 1;
        if at % commit_every == 0 {
            // One run a commit: a restart may find some runs further than others.
            store.commit(judge.take_snapshot(1).expect("a state serialises"));
        } else if let Some(news) = judge.take_news() {
            store.commit(news);
        }
    }
    store.commit(judge.take_snapshot(usize::MAX).expect("a state serialises"));
    store.incidents()
}

/// What a state store keeps, in memory.
#[derive(Default)]
struct Kiln {
    state: PartitionState,
    incidents: std::collections::BTreeMap<String, (u64, String)>,
    changes: std::collections::BTreeMap<(String, u64), String>,
}

impl Kiln {
    fn commit(&mut self, commit: Commit) {
        self.state.position = commit.position.unwrap_or(self.state.position);
        for run in commit.runs {
            self.state.runs.retain(|known| known.run != run.run);
            self.state.runs.push(run);
        }
        for change in commit.changes {
            let known = self.changes.insert((change.run, change.number), change.json.clone());
            assert!(known.is_none_or(|known| known == change.json), "a change is the same whenever it is worked out");
        }
        for row in commit.incidents {
            let known = self.incidents.get(&row.id).map(|(as_of, _)| *as_of);
            if known.is_none_or(|known| row.as_of >= known) {
                self.incidents.insert(row.id, (row.as_of, row.json));
            }
        }
    }

    fn state(&self) -> PartitionState {
        self.state.clone()
    }

    fn incidents(&self) -> String {
        let lines: Vec<String> = self.incidents.values().map(|(_, json)| json.clone()).collect();
        let mut bytes = Vec::new();
        output::write_json(&mut bytes, &sorted(&lines).expect("incidents")).expect("memory takes bytes");
        String::from_utf8(bytes).expect("JSON is UTF-8")
    }
}
