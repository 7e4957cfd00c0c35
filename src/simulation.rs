//! Simulated clusters as run folders, and as the rows of one.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use trainwarden_ingest::{
    CollectiveOut, DigestOut, EventOut, FolderWriter, Format, IngestError, MemberOut, PlacementOut, RowSink, SampleOut,
};
use trainwarden_simulate::{Row, Scenario, Truth, simulate};

/// The file beside the tables that says what was planted.
pub const TRUTH_FILE: &str = "truth.json";

/// Reads a scenario from a TOML file.
///
/// # Errors
/// When the file cannot be read or is no scenario.
pub fn read_scenario(path: &Path) -> Result<Scenario> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read `{}`", path.display()))?;
    Scenario::from_toml(&text).with_context(|| format!("`{}` is no scenario", path.display()))
}

/// Reads the scenarios of a folder, by the names of their files without the ending `.toml`.
///
/// # Errors
/// When the folder cannot be listed, or one of the files is no scenario.
pub fn read_scenarios(dir: &Path) -> Result<BTreeMap<String, Scenario>> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot list `{}`", dir.display()))?;
    let mut scenarios = BTreeMap::new();
    for entry in entries {
        let path = entry.with_context(|| format!("cannot list `{}`", dir.display()))?.path();
        if path.extension().is_some_and(|extension| extension == "toml")
            && let Some(name) = path.file_stem()
        {
            scenarios.insert(name.to_string_lossy().into_owned(), read_scenario(&path)?);
        }
    }
    Ok(scenarios)
}

/// Simulates a scenario into a run folder.
///
/// * `dir`: is created when it does not exist; its tables of that form, and `truth.json`, are replaced.
/// * Returns how many rows were written.
///
/// # Errors
/// When the folder cannot be written.
pub fn write(scenario: &Scenario, dir: &Path, format: Format) -> Result<u64> {
    let mut writer = FolderWriter::create(dir, format)?;
    let mut rows = 0;
    simulate(scenario, &mut |attempt, row| {
        rows += 1;
        put(&mut writer, (&scenario.run, attempt), &row)
    })?;
    writer.finish()?;
    let path = dir.join(TRUTH_FILE);
    let truth = serde_json::to_string_pretty(&Truth::of(scenario)).context("cannot write the truth as JSON")?;
    fs::write(&path, truth + "\n").map_err(|source| IngestError::WriteFile { path, source })?;
    Ok(rows)
}

/// Gives a simulated row to a sink, as a row of a run and one of its launches.
///
/// # Errors
/// Those of the sink.
pub fn put(sink: &mut dyn RowSink, (run, attempt): (&str, u32), row: &Row<'_>) -> Result<(), IngestError> {
    match *row {
        Row::Sample { rank, step, time, metric, value } => {
            sink.sample(&SampleOut { run, attempt, rank, step: Some(step), time: Some(time), metric, value })
        }
        Row::Collective { rank, comm, seq, op, bytes, start, end, step } => sink.collective(&CollectiveOut {
            run,
            attempt,
            rank,
            comm,
            seq,
            op,
            bytes: Some(bytes),
            signature: None,
            enqueued: Some(start),
            start: Some(start),
            end,
            step: Some(step),
            peer: None,
        }),
        Row::Digest { rank, step, time, kind, name, digest } => sink.digest(&DigestOut {
            run,
            attempt,
            rank,
            step: Some(step),
            time: Some(time),
            kind,
            name,
            digest,
            group: None,
        }),
        Row::Event { time, source, kind, actor, node, rank, subject, detail } => {
            let (run, attempt) = (Some(run), Some(attempt));
            sink.event(&EventOut { time, source, kind, actor, run, attempt, node, rank, subject, detail })
        }
        Row::Placement { rank, node, device, local_rank, dp, tp, pp } => sink.placement(&PlacementOut {
            run,
            attempt,
            rank,
            node: Some(node),
            device: Some(device),
            local_rank: Some(local_rank),
            dp: Some(dp),
            tp: Some(tp),
            pp: Some(pp),
            ep: None,
            cp: None,
        }),
        Row::Member { comm, rank } => sink.member(&MemberOut { run, attempt, comm, rank }),
    }
}
