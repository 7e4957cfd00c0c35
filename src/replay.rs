//! `replay`: the pipeline over run folders.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use trainwarden_detect::Budget;
use trainwarden_ingest::{Counts, IngestError, Log, Membership, Rejects, RunLog};
use trainwarden_telemetry::{Change, Incident, RunId};

use crate::config::ImpactConfig;
use crate::incident_list;
use crate::pipeline::Pipeline;
use crate::progress::Progress;

/// What a replay found.
#[derive(Debug, Default)]
pub struct Findings {
    /// Every incident in its final state, sorted by run, attempt, start and id.
    pub incidents: Vec<Incident>,
    /// Every change, runs in the order of their names.
    pub changes: Vec<Change>,
    /// Rows judged, by run.
    pub rows: BTreeMap<RunId, u64>,
    /// What alignment counted over all runs.
    pub counts: Counts,
    /// Panels that a detector could not judge, by detector.
    pub errors: BTreeMap<String, u64>,
}

impl Findings {
    /// Adds what a pipeline says at the end of its run, but for its changes.
    pub(crate) fn add(&mut self, run: &RunId, rows: u64, pipeline: &Pipeline) {
        self.incidents.extend(pipeline.incidents().cloned());
        self.rows.insert(run.clone(), rows);
        self.counts += pipeline.counts();
        for (detector, errors) in pipeline.errors() {
            *self.errors.entry(detector.clone()).or_default() += errors;
        }
    }

    /// Puts the price on what incidents lost, where there is one.
    pub fn price(&mut self, impact: &ImpactConfig) {
        let told = self.changes.iter_mut().map(|change| &mut change.incident);
        self.incidents.iter_mut().chain(told).for_each(|incident| impact.price(incident));
    }

    /// Puts incidents in the order in which they are told.
    pub(crate) fn sort(&mut self) {
        incident_list::sort(&mut self.incidents);
    }
}

/// Replays run folders.
///
/// * `rejects_dir`: where broken rows are kept; `None` = they are only counted.
/// * Returns what was found, and the account of the rows set aside.
///
/// # Errors
/// When a path does not exist or holds no table, or a disk fails. A broken row is no error.
pub fn replay(paths: &[PathBuf], rejects_dir: Option<&Path>) -> Result<(Findings, Rejects)> {
    let mut rejects = rejects_dir.map_or_else(Rejects::new, Rejects::keep_in);
    let mut progress = Progress::new();
    let log = Log::read(paths, &mut rejects)?;
    let mut findings = Findings::default();
    for (run, run_log) in log.runs {
        replay_run(&run, run_log, &mut findings, &mut progress)
            .with_context(|| format!("cannot replay run `{run}`"))?;
    }
    findings.sort();
    rejects.finish()?;
    Ok((findings, rejects))
}

fn replay_run(run: &RunId, log: RunLog, findings: &mut Findings, progress: &mut Progress) -> Result<(), IngestError> {
    let RunLog { names, rosters, communicators, clock, rows: log_rows } = log;
    let mut pipeline = Pipeline::new(run, clock, Membership { rosters, communicators }, Budget::default());
    let mut rows = 0;
    for record in log_rows.into_records(clock) {
        findings.changes.extend(pipeline.push(&record?, &names));
        rows += 1;
        progress.row();
    }
    findings.changes.extend(pipeline.finish());
    findings.add(run, rows, &pipeline);
    Ok(())
}
