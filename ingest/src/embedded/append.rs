//! The thread that appends: what waits is written and synced together.

use std::collections::BTreeMap;
use std::sync::mpsc::Receiver;

use super::{LogTime, Shared};
use crate::limits::{APPEND_BYTES_AT_ONCE, APPENDS_WAITING_MAX};
use crate::{Published, SourceError};

/// A record on its way.
pub(super) struct Append {
    pub(super) partition: u32,
    pub(super) value: Vec<u8>,
    pub(super) published: Published,
}

/// Appends until nobody can publish any more.
pub(super) fn append_loop(shared: &Shared, appends: &Receiver<Append>, now: &LogTime) {
    while let Ok(first) = appends.recv() {
        let mut bytes = first.value.len();
        let mut together: BTreeMap<u32, Vec<Append>> = BTreeMap::new();
        together.entry(first.partition).or_default().push(first);
        for _ in 1..APPENDS_WAITING_MAX {
            if bytes >= APPEND_BYTES_AT_ONCE {
                break;
            }
            let Ok(next) = appends.try_recv() else { break };
            bytes += next.value.len();
            together.entry(next.partition).or_default().push(next);
        }
        for (partition, appends) in together {
            append(shared, partition, appends, now());
        }
    }
}

fn append(shared: &Shared, partition: u32, appends: Vec<Append>, now: i64) {
    let values: Vec<&[u8]> = appends.iter().map(|append| append.value.as_slice()).collect();
    let appended = match shared.state().partitions.get_mut(partition as usize) {
        Some(known) => known.append(&values, now),
        None => Err(SourceError::Refused {
            log: shared.dir.display().to_string(),
            act: "append",
            reason: format!("it has no partition {partition}"),
        }),
    };
    if appended.is_ok() {
        shared.grown.notify_all();
    }
    for (index, append) in (0_u64..).zip(appends) {
        (append.published)(match &appended {
            Ok(first) => Ok((partition, first + index)),
            Err(error) => Err(again(error)),
        });
    }
}

/// The same failure for each of the records that it hit.
fn again(error: &SourceError) -> SourceError {
    match error {
        SourceError::Disk { act, path, source } => SourceError::Disk {
            act,
            path: path.clone(),
            // An I/O error has no copy; kind and text are what callers use.
            source: std::io::Error::new(source.kind(), source.to_string()),
        },
        SourceError::Refused { log, act, reason } => {
            SourceError::Refused { log: log.clone(), act, reason: reason.clone() }
        }
        SourceError::TooLarge { log, bytes, bytes_max } => {
            SourceError::TooLarge { log: log.clone(), bytes: *bytes, bytes_max: *bytes_max }
        }
        SourceError::Unreachable { log, reason } => {
            SourceError::Unreachable { log: log.clone(), reason: reason.clone() }
        }
    }
}
