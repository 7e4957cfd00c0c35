//! The seam of a stream: rows come one by one, nearly in the order of their times; parts of the log go out, in order.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use trainwarden_telemetry::{Attempt, Communicators, Event, Placement, Rank, Role, Roster, RunId, Timestamp};

use crate::bucket::Bucket;
use crate::limits::{DEADLINE_NS, FEED_BUCKETS};
use crate::run_part::{RunPart, place_rank};
use crate::run_rows::TimedEvent;
use crate::{
    CollectiveOut, CollectiveRow, DigestOut, DigestRow, EventOut, IngestError, MemberOut, Membership, NO_TIME, NO_U32,
    NO_U64, NameId, Names, PlacementOut, Record, RowSink, SampleOut, SampleRow,
};

/// The next part of a run's log. Parts are to be taken in the order in which the feed gave them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogPart {
    /// Texts that came new, for [`Names::append`].
    pub texts: Vec<Arc<str>>,
    /// Ranks and communicators of the attempts that begin in this part.
    pub membership: Membership,
    /// Its rows.
    pub rows: LogRows,
}

/// Rows of a part of a log.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogRows(Vec<Bucket>);

impl LogRows {
    /// The rows in log order.
    pub fn records(&self) -> impl Iterator<Item = Record> {
        self.0.iter().flat_map(Bucket::records)
    }
}

/// Puts the rows of one run in log order while they come.
///
/// Log time is the rows' own, and a row may be up to `slack` older than the newest one before it: what is younger than
/// that is kept, and the rest can be released. So the rows of a feed are the log of the same rows in a folder, as long
/// as none is late. The log time of a row without a time, and of one that is late, is what the log has come to.
/// Or log time is that of the log they stand in, told by [`Feed::arrive`]: then rows are in order as they come, and the
/// first rows of an attempt wait until every rank that spoke is placed, at most for the deadline.
///
/// Ranks and communicators of an attempt must come before its first row is released.
///
/// Taking rows never fails.
#[derive(Debug, Serialize, Deserialize)]
pub struct Feed {
    slack_ns: i64,
    /// Log time of what comes now, where it is not the rows' own.
    arrival: Option<i64>,
    names: Names,
    texts_given: usize,
    placements: BTreeMap<u32, BTreeMap<Rank, Placement>>,
    communicators: BTreeMap<u32, Communicators>,
    /// Attempts of which a row came, and those whose membership went out.
    attempts: BTreeSet<u32>,
    told: BTreeSet<u32>,
    roster: Arc<Roster>,
    /// Ranks that spoke in the attempts that wait, and since when each waits; only where log time is told.
    speakers: BTreeMap<u32, (i64, BTreeSet<Rank>)>,
    /// Rows by their log time in buckets.
    waiting: BTreeMap<i64, Bucket>,
    /// Log times of the bucket of the last row, and its number.
    #[serde(skip)]
    hot: (Range<i64>, i64),
    newest: i64,
    /// Everything before this log time went out.
    released: i64,
    late: u64,
}

impl Feed {
    /// A feed without rows.
    ///
    /// * `slack_ns`: how much older than the newest row before it a row may be; at least 1 ns.
    #[must_use]
    pub fn new(slack_ns: i64) -> Self {
        Self {
            slack_ns: slack_ns.max(1),
            arrival: None,
            names: Names::default(),
            texts_given: 0,
            placements: BTreeMap::new(),
            communicators: BTreeMap::new(),
            attempts: BTreeSet::new(),
            told: BTreeSet::new(),
            roster: Arc::default(),
            speakers: BTreeMap::new(),
            waiting: BTreeMap::new(),
            hot: (0..0, 0),
            newest: i64::MIN,
            released: i64::MIN,
            late: 0,
        }
    }

    /// What comes from now on has this log time, whatever its rows say; it never descends.
    pub fn arrive(&mut self, log_time: i64) {
        let log_time = log_time.max(self.released);
        self.arrival = Some(log_time);
        self.newest = self.newest.max(log_time);
    }

    /// Takes in what a person did: it stands where the log has come to, whatever clock the rows have.
    pub fn act(&mut self, event: Arc<Event>) {
        RunPart::event(self, (NO_TIME, event));
    }

    /// Rows that came when later ones had been released already.
    #[must_use]
    pub fn late(&self) -> u64 {
        self.late
    }

    /// The texts that rows refer to.
    #[must_use]
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Forgets every text that no waiting row refers to. Whoever keeps numbers of texts must forget them too.
    pub fn forget_names(&mut self) {
        let old = mem::take(&mut self.names);
        self.waiting.values_mut().for_each(|bucket| bucket.rename(&old, &mut self.names));
        self.texts_given = 0;
    }

    /// Everything that no row within the slack can come before any more.
    #[must_use]
    pub fn release(&mut self) -> LogPart {
        let arrival = self.arrival;
        let settled = match arrival {
            Some(now) if self.is_held(now) => return LogPart::default(),
            Some(_) => i64::MAX,
            None => self.newest.saturating_sub(self.slack_ns).div_euclid(self.bucket_ns()),
        };
        let later = self.waiting.split_off(&settled);
        let ready = mem::replace(&mut self.waiting, later);
        if !ready.is_empty() && self.arrival.is_none() {
            self.released = settled.saturating_mul(self.bucket_ns());
        }
        self.part(ready)
    }

    /// Everything that is left: the stream is over.
    #[must_use]
    pub fn finish(&mut self) -> LogPart {
        let ready = mem::take(&mut self.waiting);
        self.part(ready)
    }

    /// True while the first rows of an attempt wait for its ranks.
    fn is_held(&mut self, now: i64) -> bool {
        let placements = &self.placements;
        self.speakers.retain(|attempt, (since, ranks)| {
            let placed = placements.get(attempt);
            let is_complete = placed.is_some_and(|placed| ranks.iter().all(|rank| placed.contains_key(rank)));
            !is_complete && now < since.saturating_add(DEADLINE_NS)
        });
        !self.speakers.is_empty()
    }

    fn part(&mut self, ready: BTreeMap<i64, Bucket>) -> LogPart {
        let mut rows: Vec<Bucket> = ready.into_values().collect();
        rows.iter_mut().for_each(Bucket::sort);
        let texts = self.names.since(self.texts_given).to_vec();
        self.texts_given += texts.len();
        LogPart { texts, membership: self.membership(&rows), rows: LogRows(rows) }
    }

    /// What was told of the attempts that begin with these rows; one without ranks has those of the attempt before,
    /// one without communicators has none.
    fn membership(&mut self, rows: &[Bucket]) -> Membership {
        let mut membership = Membership::default();
        if self.attempts.len() == self.told.len() {
            return membership;
        }
        let begun: BTreeSet<u32> = rows.iter().flat_map(Bucket::attempts).collect();
        for attempt in begun.difference(&self.told) {
            let later = self.placements.split_off(&(attempt + 1));
            if let Some((_, placements)) = mem::replace(&mut self.placements, later).pop_last() {
                self.roster = Arc::new(Roster { placements });
            }
            membership.rosters.insert(*attempt, Arc::clone(&self.roster));
            let communicators = self.communicators.remove(attempt).unwrap_or_default();
            membership.communicators.insert(*attempt, Arc::new(communicators));
        }
        self.told.extend(membership.rosters.keys());
        membership
    }

    fn bucket_ns(&self) -> i64 {
        (self.slack_ns / FEED_BUCKETS).max(1)
    }

    /// The place of a row in the log; `told` is its own time.
    fn log_time(&mut self, told: i64) -> i64 {
        if let Some(arrival) = self.arrival {
            return arrival;
        }
        let time = if told == NO_TIME { self.newest.max(0) } else { told };
        self.newest = self.newest.max(time);
        self.late += u64::from(time < self.released);
        time.max(self.released)
    }

    /// The bucket for a row of a rank of an attempt.
    fn bucket(&mut self, log_time: i64, attempt: u32, rank: u32) -> &mut Bucket {
        if self.attempts.last() != Some(&attempt) {
            let is_new = self.attempts.insert(attempt);
            if is_new && let Some(now) = self.arrival {
                self.speakers.insert(attempt, (now, BTreeSet::new()));
            }
        }
        if let Some((_, ranks)) = self.speakers.get_mut(&attempt) {
            ranks.extend((rank != NO_U32).then_some(Rank(rank)));
        }
        self.keep(log_time)
    }

    /// The bucket for a row that begins no attempt.
    fn keep(&mut self, log_time: i64) -> &mut Bucket {
        if !self.hot.0.contains(&log_time) {
            let (width, number) = (self.bucket_ns(), log_time.div_euclid(self.bucket_ns()));
            self.hot = (number.saturating_mul(width)..number.saturating_add(1).saturating_mul(width), number);
        }
        self.waiting.entry(self.hot.1).or_default()
    }

    fn name(&mut self, text: Option<&str>) -> NameId {
        text.filter(|text| !text.is_empty()).map_or(NameId::NONE, |text| self.names.intern(text))
    }
}

impl RunPart for Feed {
    fn names(&mut self) -> &mut Names {
        &mut self.names
    }

    fn sample(&mut self, row: SampleRow) {
        let log_time = self.log_time(row.log_time);
        self.bucket(log_time, row.attempt, row.rank).samples.push(SampleRow { log_time, ..row });
    }

    fn collective(&mut self, row: CollectiveRow) {
        let log_time = self.log_time(row.log_time);
        self.bucket(log_time, row.attempt, row.rank).collectives.push(CollectiveRow { log_time, ..row });
    }

    fn digest(&mut self, row: DigestRow) {
        let log_time = self.log_time(row.log_time);
        self.bucket(log_time, row.attempt, row.rank).digests.push(DigestRow { log_time, ..row });
    }

    fn event(&mut self, (log_time, event): TimedEvent) {
        let log_time = self.log_time(log_time);
        let rank = event.rank.map_or(NO_U32, |rank| rank.0);
        let bucket = match event.run {
            Some(_) => self.bucket(log_time, event.attempt.0, rank),
            // No attempt of this run begins with it.
            None => self.keep(log_time),
        };
        bucket.events.push((log_time, event));
    }

    fn placements(&mut self, attempt: u32) -> &mut BTreeMap<Rank, Placement> {
        self.placements.entry(attempt).or_default()
    }

    fn communicators(&mut self, attempt: u32) -> &mut Communicators {
        self.communicators.entry(attempt).or_default()
    }
}

impl RowSink for Feed {
    fn sample(&mut self, row: &SampleOut<'_>) -> Result<(), IngestError> {
        let time = row.time.unwrap_or(NO_TIME);
        let sample = SampleRow {
            log_time: time,
            step: row.step.unwrap_or(NO_U64),
            time,
            value: row.value,
            attempt: row.attempt,
            rank: row.rank.unwrap_or(NO_U32),
            metric: self.name(Some(row.metric)),
            reserved: 0,
        };
        RunPart::sample(self, sample);
        Ok(())
    }

    fn collective(&mut self, row: &CollectiveOut<'_>) -> Result<(), IngestError> {
        let collective = CollectiveRow {
            log_time: row.end.or(row.start).or(row.enqueued).unwrap_or(NO_TIME),
            seq: row.seq,
            bytes: row.bytes.unwrap_or(NO_U64),
            step: row.step.unwrap_or(NO_U64),
            enqueued: row.enqueued.unwrap_or(NO_TIME),
            start: row.start.unwrap_or(NO_TIME),
            end: row.end.unwrap_or(NO_TIME),
            attempt: row.attempt,
            rank: row.rank,
            peer: row.peer.unwrap_or(NO_U32),
            comm: self.name(Some(row.comm)),
            op: self.name(Some(row.op)),
            signature: self.name(row.signature),
        };
        RunPart::collective(self, collective);
        Ok(())
    }

    fn digest(&mut self, row: &DigestOut<'_>) -> Result<(), IngestError> {
        let time = row.time.unwrap_or(NO_TIME);
        let digest = DigestRow {
            log_time: time,
            step: row.step.unwrap_or(NO_U64),
            time,
            attempt: row.attempt,
            rank: row.rank.unwrap_or(NO_U32),
            kind: self.name(Some(row.kind)),
            name: self.name(Some(row.name)),
            digest: self.name(Some(row.digest)),
            group: self.name(row.group),
        };
        RunPart::digest(self, digest);
        Ok(())
    }

    fn event(&mut self, row: &EventOut<'_>) -> Result<(), IngestError> {
        let event = Arc::new(Event {
            time: Timestamp(row.time),
            source: row.source.to_owned(),
            kind: row.kind.to_owned(),
            actor: owned(row.actor),
            run: row.run.map(RunId::new),
            attempt: Attempt(row.attempt.unwrap_or(0)),
            node: owned(row.node),
            rank: row.rank.map(Rank),
            subject: owned(row.subject),
            detail: owned(row.detail),
        });
        RunPart::event(self, (row.time, event));
        Ok(())
    }

    fn placement(&mut self, row: &PlacementOut<'_>) -> Result<(), IngestError> {
        let placement = Placement {
            node: owned(row.node),
            device: owned(row.device),
            local_rank: row.local_rank,
            dp: row.dp,
            role: Role { pp: row.pp, ep: row.ep, cp: row.cp, tp: row.tp },
        };
        // Of two different rows for one rank the smaller stays, as in a folder; a stream has nobody to tell it to.
        let _ = place_rank(self.placements(row.attempt), Rank(row.rank), placement);
        Ok(())
    }

    fn member(&mut self, row: &MemberOut<'_>) -> Result<(), IngestError> {
        let members = &mut self.communicators(row.attempt).members;
        match members.get_mut(row.comm) {
            Some(ranks) => _ = ranks.insert(Rank(row.rank)),
            None => _ = members.insert(row.comm.to_owned(), [Rank(row.rank)].into()),
        }
        Ok(())
    }
}

/// A text of its own; an empty one is none.
fn owned(text: Option<&str>) -> Option<String> {
    text.filter(|text| !text.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests;
