//! Judges one run from the frames of its log: what `serve` keeps of a run, and writes down.

use std::collections::BTreeMap;
use std::io::{BufReader, BufWriter};
use std::sync::Arc;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use trainwarden_detect::{Budget, Pause, Scene};
use trainwarden_incidents::acknowledge;
use trainwarden_ingest::wire::{FrameError, OpenedFrame, Seen, Sight};
use trainwarden_ingest::{Counts, Feed, LogClock, LogPart, Membership};
use trainwarden_proto::v1::Mark;
use trainwarden_telemetry::{Change, Event, Incident, Observation, RunId};

use crate::pipeline::{Pipeline, PipelineState};

/// How much later than younger rows a row of recorded telemetry may come, in nanoseconds of log time.
pub const LATENESS_NS: i64 = 2_000_000_000;
/// ... and in steps, where a run has no times.
pub const LATENESS_STEPS: i64 = 8;
/// Texts after which numbers are given anew: each digest is a text of its own, and a run lasts for months.
const NAMES_MAX: usize = 1 << 16;
/// Of a snapshot: it is taken every few seconds, and speed matters more than the last percent.
const ZSTD_LEVEL: i32 = 1;
/// Bytes that go to the compressor at once.
const WRITE_BYTES: usize = 64 << 10;
const UNWRITTEN: &str = "the state of a run does not serialise";
const UNCOMPRESSED: &str = "the state of a run does not compress";
const DAMAGED: &str = "the snapshot of a run is damaged";
/// Version of a snapshot. Another one is not read: the log is judged again from its oldest record.
const SNAPSHOT_VERSION: u8 = 3;

/// What was counted of the frames of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameCounts {
    /// Taken.
    pub frames: u64,
    /// The same frame was there already.
    pub repeated: u64,
    /// Other rows under a sequence that was there already.
    pub contradicting: u64,
    /// Rows with an empty required cell, or one that does not fit its column.
    pub rows_set_aside: u64,
}

/// Judges one run.
pub struct RunJudge {
    run: RunId,
    log: RunLogState,
    /// Nothing before the first telemetry, and where the input has ended: then `log.before_end` has it.
    judging: Option<Judging>,
}

/// What is known of the log of the run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct RunLogState {
    /// Telemetry has come.
    has_begun: bool,
    /// What log time counts, where rows carry their own.
    backfill: Option<LogClock>,
    /// The next offset that is not known: a worker that takes over may know some runs further than others.
    next: u64,
    senders: BTreeMap<String, Seen>,
    /// Senders of what concerns every run.
    #[serde(default)]
    outsiders: BTreeMap<String, Seen>,
    /// The sequence of each sender's last frame, where it said so.
    ends: BTreeMap<String, u64>,
    counts: FrameCounts,
    /// How many changes were told.
    told: u64,
    /// Everything before the end was judged, should the input go on after all.
    before_end: Option<ByteBuf>,
    /// What the end left.
    at_end: Vec<Incident>,
    /// What people did that no judging knows yet: before the first telemetry, or since the end.
    acts: Vec<Arc<Event>>,
}

struct Judging {
    feed: Feed,
    pipeline: Pipeline,
}

/// The form of a snapshot, as it is read.
#[derive(Deserialize)]
struct Snapshot {
    log: RunLogState,
    judging: Option<JudgingState>,
}

/// ... and as it is written.
#[derive(Serialize)]
struct SnapshotOf<'a> {
    log: &'a RunLogState,
    judging: Option<JudgingOf<'a>>,
}

/// The feed in its own, unnamed form: it holds rows.
type JudgingState = (ByteBuf, PipelineState);
type JudgingOf<'a> = (ByteBuf, &'a Pipeline);

impl RunJudge {
    /// A judge of a run of which nothing has come.
    #[must_use]
    pub fn new(run: &RunId) -> Self {
        Self { run: run.clone(), log: RunLogState::default(), judging: None }
    }

    /// Takes a frame of the run in; gives what changed by it. One that was taken before changes nothing.
    ///
    /// * `place`: offset and append time of its record.
    ///
    /// # Errors
    /// [`FrameError`]: the frame is to be set aside, and nothing of it was taken.
    pub fn take(&mut self, frame: &OpenedFrame, place: (u64, i64)) -> Result<Vec<Change>, FrameError> {
        let (offset, append_time) = place;
        if offset < self.log.next {
            return Ok(Vec::new());
        }
        if frame.envelope.mark() == Mark::Act {
            return self.take_act(frame, place);
        }
        let table = frame.table()?;
        let batches = frame.batches()?;
        let envelope = &frame.envelope;
        let is_of_every_run = envelope.run.is_empty();
        if !is_of_every_run {
            self.begin(frame)?;
        }
        self.log.next = offset + 1;
        if is_of_every_run && self.judging.is_none() {
            return Ok(Vec::new());
        }
        // Who tells every run of something does not say when this one ends.
        let senders = if is_of_every_run { &mut self.log.outsiders } else { &mut self.log.senders };
        let sight = senders.entry(envelope.sender.clone()).or_default().note(envelope.sequence, frame.hash);
        let is_recorded = self.log.backfill.is_some();
        if sight == Sight::Repeated || (sight == Sight::Forgotten && is_recorded) {
            self.log.counts.repeated += 1;
            return Ok(Vec::new());
        }
        self.log.counts.contradicting += u64::from(sight == Sight::Contradicting);
        self.log.counts.frames += 1;
        self.resume();
        let judging = self.judging.as_mut().expect("resumed above");
        if !is_recorded {
            judging.feed.arrive(append_time);
        }
        if let Some(table) = table {
            let run = if is_of_every_run { "" } else { &*self.run.0 };
            self.log.counts.rows_set_aside += judging.feed.take(table, run, &batches);
        }
        std::mem::take(&mut self.log.acts).into_iter().for_each(|act| judging.feed.act(act));
        if envelope.mark() == Mark::End {
            self.log.ends.insert(envelope.sender.clone(), envelope.sequence);
        }
        let mut changes = judging.release();
        if self.log.is_over() {
            changes.extend(self.end());
        }
        self.log.told += changes.len() as u64;
        Ok(changes)
    }

    /// What a person did. It is no telemetry: a run that has ended stays ended, and one that has not begun does not begin.
    fn take_act(&mut self, frame: &OpenedFrame, (offset, append_time): (u64, i64)) -> Result<Vec<Change>, FrameError> {
        let acts = frame.events()?;
        self.log.next = offset + 1;
        self.log.counts.frames += 1;
        let mut changes = Vec::new();
        if let Some(judging) = &mut self.judging {
            if self.log.backfill.is_none() {
                judging.feed.arrive(append_time);
            }
            acts.into_iter().for_each(|act| judging.feed.act(act));
            changes = judging.release();
        } else {
            let acknowledged = acts.iter().filter(|act| act.kind == "ack").filter_map(|act| act.subject.as_ref());
            for id in acknowledged {
                let incident = self.log.at_end.iter_mut().find(|incident| incident.id.0 == *id);
                changes.extend(incident.and_then(acknowledge));
            }
            self.log.acts.extend(acts);
        }
        self.log.told += changes.len() as u64;
        Ok(changes)
    }

    /// The first telemetry of the run says what its log time counts.
    fn begin(&mut self, first: &OpenedFrame) -> Result<(), FrameError> {
        if !self.log.has_begun {
            self.log.backfill = first.backfill()?;
            self.log.has_begun = true;
            self.judging = Some(Judging::new(&self.run, self.log.backfill));
        }
        Ok(())
    }

    /// The log's own time goes on; it is that of live runs only.
    pub fn tick(&mut self, (offset, append_time): (u64, i64)) -> Vec<Change> {
        if offset < self.log.next {
            return Vec::new();
        }
        self.log.next = offset + 1;
        let (None, Some(judging)) = (self.log.backfill, &mut self.judging) else { return Vec::new() };
        judging.feed.arrive(append_time);
        let mut changes = judging.release();
        changes.extend(judging.pipeline.tick(append_time));
        self.log.told += changes.len() as u64;
        changes
    }

    /// True for a run whose rows are judged as they are appended.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.log.has_begun && self.log.backfill.is_none()
    }

    /// Every incident of the run as it stands.
    pub fn incidents(&self) -> impl Iterator<Item = &Incident> {
        self.judging.iter().flat_map(|judging| judging.pipeline.incidents()).chain(&self.log.at_end)
    }

    /// The pauses that people planned for it, also before its first telemetry; once the input has ended, those since.
    #[must_use]
    pub fn planned_pauses(&self) -> Vec<Pause> {
        let mut waiting = Scene::new(self.run.clone(), Budget::default());
        self.log.acts.iter().for_each(|act| waiting.observe(&Observation::Event((**act).clone())));
        let known = self.judging.iter().flat_map(|judging| judging.pipeline.scene().planned_pauses());
        known.chain(waiting.planned_pauses()).cloned().collect()
    }

    /// The next record that it does not know.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.log.next
    }

    /// How many changes were told so far.
    #[must_use]
    pub fn told(&self) -> u64 {
        self.log.told
    }

    /// What was counted of its frames.
    #[must_use]
    pub fn frame_counts(&self) -> FrameCounts {
        self.log.counts
    }

    /// What alignment counted; nothing once the input has ended.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.judging.as_ref().map(|judging| judging.pipeline.counts()).unwrap_or_default()
    }

    /// Everything the judge knows, compressed.
    ///
    /// # Errors
    /// When a state does not serialise (a bug).
    pub fn snapshot(&self) -> Result<Vec<u8>> {
        let judging = self.judging.as_ref().map(Judging::state).transpose()?;
        // Compressed while it is written: a large run has a hundred megabytes of state.
        let packer = zstd::Encoder::new(vec![SNAPSHOT_VERSION], ZSTD_LEVEL).context(UNCOMPRESSED)?;
        let mut writer = BufWriter::with_capacity(WRITE_BYTES, packer);
        rmp_serde::encode::write_named(&mut writer, &SnapshotOf { log: &self.log, judging }).context(UNWRITTEN)?;
        let packer = writer.into_inner().map_err(|error| error.into_error()).context(UNCOMPRESSED)?;
        packer.finish().context(UNCOMPRESSED)
    }

    /// The judge a snapshot was taken of.
    ///
    /// # Errors
    /// When the bytes are no snapshot of this version.
    pub fn restore(run: &RunId, snapshot: &[u8]) -> Result<Self> {
        let (version, bytes) = snapshot.split_first().context("the snapshot of a run is empty")?;
        anyhow::ensure!(
            *version == SNAPSHOT_VERSION,
            "the snapshot of run `{run}` is of version {version}, and this program reads {SNAPSHOT_VERSION}"
        );
        let plain = zstd::Decoder::new(bytes).context(DAMAGED)?;
        let Snapshot { log, judging } = rmp_serde::from_read(BufReader::new(plain)).context(DAMAGED)?;
        let judging = judging.map(Judging::from_state).transpose()?;
        Ok(Self { run: run.clone(), log, judging })
    }

    /// Judges what is left, and keeps what was known before in case the input goes on.
    fn end(&mut self) -> Vec<Change> {
        let Some(mut judging) = self.judging.take() else { return Vec::new() };
        // What serialised a moment ago in every commit does so now.
        self.log.before_end = Some(judging.snapshot().expect("the state of a run serialises").into());
        let rest = judging.feed.finish();
        let mut changes = push_part(&mut judging.pipeline, rest, judging.feed.names());
        changes.extend(judging.pipeline.finish());
        self.log.at_end = judging.pipeline.incidents().cloned().collect();
        changes
    }

    /// An input that goes on after its end is judged as if the end had not been.
    fn resume(&mut self) {
        if let Some(bytes) = self.log.before_end.take() {
            self.judging = Some(Judging::restore(&bytes).expect("what was taken in this process restores"));
            self.log.ends.clear();
            self.log.at_end.clear();
        }
    }
}

impl RunLogState {
    /// True when every sender has said that it ends, and every frame before was taken.
    fn is_over(&self) -> bool {
        let is_over = |(sender, seen): (&String, &Seen)| {
            self.ends.get(sender).is_some_and(|last| seen.is_complete_before(last + 1))
        };
        !self.senders.is_empty() && self.senders.iter().all(is_over)
    }
}

impl Judging {
    fn new(run: &RunId, backfill: Option<LogClock>) -> Self {
        let clock = backfill.unwrap_or(LogClock::Nanoseconds);
        let slack = match clock {
            LogClock::Nanoseconds => LATENESS_NS,
            LogClock::Steps => LATENESS_STEPS,
        };
        let pipeline = Pipeline::new(run, clock, Membership::default(), Budget::default());
        Self { feed: Feed::new(slack), pipeline }
    }

    fn release(&mut self) -> Vec<Change> {
        let part = self.feed.release();
        let changes = push_part(&mut self.pipeline, part, self.feed.names());
        if self.feed.names().len() > NAMES_MAX {
            self.feed.forget_names();
            self.pipeline.forget_names();
        }
        changes
    }

    fn state(&self) -> Result<JudgingOf<'_>> {
        Ok((rmp_serde::to_vec(&self.feed).context(UNWRITTEN)?.into(), &self.pipeline))
    }

    fn from_state((feed, pipeline): JudgingState) -> Result<Self> {
        let feed = rmp_serde::from_slice(&feed).context(DAMAGED)?;
        Ok(Self { feed, pipeline: Pipeline::from_state(pipeline)? })
    }

    fn snapshot(&self) -> Result<Vec<u8>> {
        rmp_serde::to_vec_named(&self.state()?).context(UNWRITTEN)
    }

    fn restore(bytes: &[u8]) -> Result<Self> {
        Self::from_state(rmp_serde::from_slice(bytes).context(DAMAGED)?)
    }
}

fn push_part(pipeline: &mut Pipeline, part: LogPart, names: &trainwarden_ingest::Names) -> Vec<Change> {
    pipeline.tell(part.membership);
    part.rows.records().flat_map(|record| pipeline.push(&record, names)).collect()
}

#[cfg(test)]
mod tests;
