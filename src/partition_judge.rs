//! Judges one partition of the log: its runs, what they told, and what could not be read.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde_json::json;
use trainwarden_ingest::wire::{FrameError, OpenedFrame, TrustedKeys};
use trainwarden_ingest::{Counts, LogRecord};
use trainwarden_proto::v1::Mark;
use trainwarden_store::{Commit, IncidentRow, PartitionState, RejectRow, RunSnapshot, ToldChange};
use trainwarden_telemetry::{Change, IncidentId, RunId, Table};

use crate::config::ImpactConfig;
use crate::planned_pause::PlannedPause;
use crate::run_judge::RunJudge;

/// How much of a record that cannot be read is kept as evidence.
const EVIDENCE_BYTES: usize = 512;
/// How much of a text from the wire is repeated in a reject.
const TEXT_BYTES_MAX: usize = 256;

/// Why writing JSON cannot fail.
const IN_MEMORY: &str = "an incident serialises: it is plain data";

/// What is taken from the log.
#[derive(Clone, Debug, Default)]
pub struct Admission {
    /// Whose signatures count.
    pub keys: TrustedKeys,
    /// Recorded telemetry, whose log time is its own, is judged.
    pub takes_backfill: bool,
}

/// Judges one partition.
///
/// Pure: what it tells depends on its records in the order of offsets and on nothing else.
pub struct PartitionJudge {
    partition: u32,
    next: u64,
    runs: BTreeMap<RunId, RunJudge>,
    /// Runs that changed since the last snapshot.
    dirty: BTreeSet<RunId>,
    changes: Vec<ToldChange>,
    /// Incidents as they stood in the last commit, by id.
    written: BTreeMap<IncidentId, String>,
    rejects: Vec<RejectRow>,
    reject_counts: BTreeMap<&'static str, u64>,
    records: u64,
    /// What lost time costs. No part of what is judged: put on what is told.
    impact: ImpactConfig,
}

impl PartitionJudge {
    /// A judge that has seen nothing of a partition.
    #[must_use]
    pub fn new(partition: u32) -> Self {
        Self {
            partition,
            next: 0,
            runs: BTreeMap::new(),
            dirty: BTreeSet::new(),
            changes: Vec::new(),
            written: BTreeMap::new(),
            rejects: Vec::new(),
            reject_counts: BTreeMap::new(),
            records: 0,
            impact: ImpactConfig::default(),
        }
    }

    /// The same judge, which tells what lost time costs.
    #[must_use]
    pub fn priced(self, impact: &ImpactConfig) -> Self {
        Self { impact: impact.clone(), ..self }
    }

    /// The judge whose commits gave this state.
    ///
    /// # Errors
    /// When a snapshot is of another version or damaged.
    pub fn restore(partition: u32, state: &PartitionState) -> Result<Self> {
        let mut judge = Self { next: state.position, ..Self::new(partition) };
        for RunSnapshot { run, bytes } in &state.runs {
            let run = RunId::new(run);
            let restored = RunJudge::restore(&run, bytes).with_context(|| format!("cannot go on with run `{run}`"))?;
            judge.runs.insert(run, restored);
        }
        Ok(judge)
    }

    /// The next offset it wants.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// True when it knows a run whose silence the log's clock must show.
    #[must_use]
    pub fn has_live_run(&self) -> bool {
        self.runs.values().any(RunJudge::is_live)
    }

    /// Takes the next record in; one that was taken before is passed over.
    pub fn take(&mut self, record: &LogRecord, admission: &Admission) {
        if record.offset < self.next {
            return;
        }
        self.next = record.offset + 1;
        self.records += 1;
        if let Err(error) = self.open(record, admission) {
            self.set_aside(record, &error);
        }
    }

    /// Records that nobody can read were passed over.
    pub fn skip(&mut self, first: u64, next: u64, reason: &str) {
        self.next = self.next.max(next);
        *self.reject_counts.entry("unreadable").or_default() += next.saturating_sub(first);
        let json = json!({"reason": "unreadable", "detail": cut(reason), "next": next}).to_string();
        self.rejects.push(RejectRow { offset: first, json });
    }

    /// What was told and set aside since it was asked before; nothing when there is nothing.
    pub fn take_news(&mut self) -> Option<Commit> {
        if self.changes.is_empty() && self.rejects.is_empty() {
            return None;
        }
        let told: BTreeSet<RunId> = self.changes.iter().map(|change| RunId::new(&change.run)).collect();
        let incidents = self.take_incidents(&told);
        let (changes, rejects) = (std::mem::take(&mut self.changes), std::mem::take(&mut self.rejects));
        let (partition, as_of) = (self.partition, self.next);
        Some(Commit { partition, as_of, changes, incidents, rejects, ..Commit::default() })
    }

    /// The news, with runs that changed since their last snapshot. When none is left, the commit has the position; until
    /// then this is to be called again.
    ///
    /// * `bytes_max`: bytes of snapshots after which the commit takes no more runs.
    ///
    /// # Errors
    /// When a state does not serialise (a bug).
    pub fn take_snapshot(&mut self, bytes_max: usize) -> Result<Commit> {
        let news = self.take_news().unwrap_or_default();
        let (partition, as_of) = (self.partition, self.next);
        let (mut runs, mut taken, mut bytes) = (Vec::new(), BTreeSet::new(), 0);
        while bytes < bytes_max
            && let Some(run) = self.dirty.pop_first()
        {
            let snapshot = self.runs[&run].snapshot()?;
            bytes += snapshot.len();
            runs.push(RunSnapshot { run: run.0.to_string(), bytes: snapshot });
            taken.insert(run);
        }
        let incidents = [news.incidents, self.take_incidents(&taken)].concat();
        let position = self.dirty.is_empty().then_some(self.next);
        Ok(Commit { partition, as_of, position, runs, incidents, ..news })
    }

    /// The incidents of runs that stand otherwise than in the last commit.
    fn take_incidents(&mut self, runs: &BTreeSet<RunId>) -> Vec<IncidentRow> {
        let mut rows = Vec::new();
        for judge in runs.iter().filter_map(|run| self.runs.get(run)) {
            for incident in judge.incidents() {
                let mut incident = incident.clone();
                self.impact.price(&mut incident);
                let json = serde_json::to_string(&incident).expect(IN_MEMORY);
                if self.written.get(&incident.id) != Some(&json) {
                    self.written.insert(incident.id.clone(), json.clone());
                    rows.push(IncidentRow { id: incident.id.0.clone(), as_of: judge.next(), json });
                }
            }
        }
        rows
    }

    /// Records taken, and those set aside by reason.
    #[must_use]
    pub fn counts(&self) -> (u64, &BTreeMap<&'static str, u64>) {
        (self.records, &self.reject_counts)
    }

    /// The pauses that people planned, by run and beginning.
    #[must_use]
    pub fn planned_pauses(&self) -> Vec<PlannedPause> {
        let of_run = |(run, judge): (&RunId, &RunJudge)| -> Vec<PlannedPause> {
            let pauses = judge.planned_pauses();
            let mut pauses: Vec<_> = pauses.iter().map(|pause| PlannedPause::new(run, pause)).collect();
            pauses.sort();
            pauses
        };
        self.runs.iter().flat_map(of_run).collect()
    }

    /// What alignment counted over all runs.
    #[must_use]
    pub fn alignment(&self) -> Counts {
        self.runs.values().fold(Counts::default(), |mut counts, run| {
            counts += run.counts();
            counts
        })
    }

    fn open(&mut self, record: &LogRecord, admission: &Admission) -> Result<(), FrameError> {
        let frame = OpenedFrame::open(&record.value, &admission.keys)?;
        if frame.envelope.mark() == Mark::Tick {
            self.tick(record);
            return Ok(());
        }
        if frame.envelope.backfill.is_some() && !admission.takes_backfill {
            return Err(FrameError::Unsigned {
                sender: frame.envelope.sender,
                epoch: frame.envelope.key_epoch,
                reason: "may not send recorded telemetry here: set `ingest.backfill`",
            });
        }
        if frame.envelope.run.is_empty() {
            return self.take_of_every_run(&frame, record);
        }
        let run = RunId::new(&frame.envelope.run);
        if !self.runs.contains_key(&run) {
            self.runs.insert(run.clone(), RunJudge::new(&run));
        }
        let judge = self.runs.get_mut(&run).expect("inserted above");
        let first = judge.told();
        let changes = judge.take(&frame, (record.offset, record.append_time))?;
        self.tell(&run, first, changes);
        self.dirty.insert(run);
        Ok(())
    }

    /// Takes events that concern every run into each one that is live here; those that come later do not learn of them.
    fn take_of_every_run(&mut self, frame: &OpenedFrame, record: &LogRecord) -> Result<(), FrameError> {
        if frame.table()? != Some(Table::Events) {
            return Err(FrameError::Undecodable { reason: "it is of no run".to_owned() });
        }
        // What cannot be read is told also where no run is live.
        frame.batches()?;
        let place = (record.offset, record.append_time);
        self.judge_live(|judge| judge.take(frame, place))
    }

    fn tick(&mut self, record: &LogRecord) {
        let place = (record.offset, record.append_time);
        self.judge_live(|judge| Ok(judge.tick(place))).expect("a tick is never set aside");
    }

    /// Lets every live run judge, and tells what changed by it.
    fn judge_live(
        &mut self,
        mut judged: impl FnMut(&mut RunJudge) -> Result<Vec<Change>, FrameError>,
    ) -> Result<(), FrameError> {
        let mut told = Vec::new();
        for (run, judge) in self.runs.iter_mut().filter(|(_, judge)| judge.is_live()) {
            let first = judge.told();
            told.push((run.clone(), first, judged(judge)?));
            self.dirty.insert(run.clone());
        }
        for (run, first, changes) in told {
            self.tell(&run, first, changes);
        }
        Ok(())
    }

    fn tell(&mut self, run: &RunId, first: u64, changes: Vec<Change>) {
        for (number, mut change) in (first..).zip(changes) {
            self.impact.price(&mut change.incident);
            let json = serde_json::to_string(&change).expect(IN_MEMORY);
            self.changes.push(ToldChange { run: run.0.to_string(), number, json });
        }
    }

    fn set_aside(&mut self, record: &LogRecord, error: &FrameError) {
        *self.reject_counts.entry(error.reason()).or_default() += 1;
        let head = &record.value[..record.value.len().min(EVIDENCE_BYTES)];
        let evidence = json!({
            "reason": error.reason(),
            "detail": cut(&error.to_string()),
            "append_time": record.append_time,
            "bytes": record.value.len(),
            "blake3": blake3::hash(&record.value).to_hex().as_str(),
            "head": head.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
        });
        self.rejects.push(RejectRow { offset: record.offset, json: evidence.to_string() });
    }
}

fn cut(text: &str) -> &str {
    &text[..text.floor_char_boundary(TEXT_BYTES_MAX)]
}
