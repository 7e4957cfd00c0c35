//! Everything a report is made of: the incident, the others, what the telemetry shows, and where it all comes from.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use trainwarden_store::{ArchiveOptions, PartName};
use trainwarden_telemetry::{Incident, RunId, Table};

use super::witness::{Sight, look};
use crate::config::ImpactConfig;
use crate::incident_list::{IncidentFilter, Place};
use crate::replay::replay;

/// Bytes read at once.
const READ_BYTES: usize = 1 << 16;

/// Where an incident and its telemetry are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Run folders, which are judged anew.
    Folders(Vec<PathBuf>),
    /// The folder of a service, running or not.
    Data(PathBuf),
}

/// The input, so that another one can be told from it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) paths: Vec<PathBuf>,
    pub(super) files: u64,
    pub(super) bytes: u64,
    /// BLAKE3 over names and content of the files; empty where there are none.
    pub(super) digest: String,
    /// What is missing, and why.
    pub(super) notes: Vec<String>,
}

/// One incident with all that is known around it.
#[derive(Debug)]
pub(super) struct CaseFile {
    pub(super) incident: Incident,
    /// Every incident at hand, this one included.
    pub(super) all: Vec<Incident>,
    /// Runs at hand.
    pub(super) runs: BTreeSet<RunId>,
    pub(super) sight: Sight,
    pub(super) origin: Origin,
}

impl CaseFile {
    /// Gathers what is known of an incident.
    ///
    /// * `id`: its id, or the begin of it that no other has.
    ///
    /// # Errors
    /// When nothing or more than one is meant, or the input cannot be read.
    pub(super) fn gather(input: &Input, id: &str, impact: &ImpactConfig) -> Result<Self> {
        match input {
            Input::Folders(paths) => Self::of_folders(paths, id, impact),
            Input::Data(data) => Self::of_data(data, id, impact),
        }
    }

    fn of_folders(paths: &[PathBuf], id: &str, impact: &ImpactConfig) -> Result<Self> {
        let (mut findings, rejects) = replay(paths, None)?;
        findings.price(impact);
        let incident = one_of(&findings.incidents, id)?.clone();
        let sight = look(paths, &incident)?;
        let origin = Origin { notes: rejects.summary(), ..Origin::of(paths)? };
        let runs = findings.rows.keys().cloned().collect();
        Ok(Self { incident, all: findings.incidents, runs, sight, origin })
    }

    fn of_data(data: &Path, id: &str, impact: &ImpactConfig) -> Result<Self> {
        let mut all = Place::find(data).list(&IncidentFilter::default())?;
        all.iter_mut().for_each(|incident| impact.price(incident));
        let mut incident = one_of(&all, id)?.clone();
        let runs = all.iter().map(|incident| incident.run.clone()).collect();
        let paths = archived(data, &incident.run);
        if paths.is_empty() {
            let note = format!(
                "`{}` holds no archived rows of this run (yet): there are no plots. A service archives a part when it \
                 is full or its quarter of an hour is over.",
                archive_of(data).display()
            );
            let origin = Origin { paths: vec![data.to_owned()], notes: vec![note], ..Origin::default() };
            return Ok(Self { incident, all, runs, sight: Sight::default(), origin });
        }
        let mut origin = Origin::of(&paths)?;
        origin.paths = vec![data.to_owned()];
        let (findings, _) = replay(&paths, None)?;
        match findings.incidents.iter().find(|other| other.id == incident.id) {
            Some(judged) => take_workings(&mut incident, judged),
            None => origin.notes.push(
                "Judging the archived rows anew does not give this incident, so its figures are those of the state \
                 alone: rows are missing in the archive, or came late when it was judged."
                    .to_owned(),
            ),
        }
        let sight = look(&paths, &incident)?;
        Ok(Self { incident, all, runs, sight, origin })
    }
}

/// The incident that is meant.
///
/// * `id`: its id, or the begin of it, with or without `inc_`.
///
/// # Errors
/// When none or several begin so, with what there is.
pub fn one_of<'a>(incidents: &'a [Incident], id: &str) -> Result<&'a Incident> {
    let begins = |incident: &&Incident| {
        let full = incident.id.0.as_str();
        !id.is_empty() && (full.starts_with(id) || full.strip_prefix("inc_").is_some_and(|hash| hash.starts_with(id)))
    };
    if let Some(exact) = incidents.iter().find(|incident| incident.id.0 == id) {
        return Ok(exact);
    }
    let meant: Vec<&Incident> = incidents.iter().filter(begins).collect();
    match meant.as_slice() {
        [one] => Ok(one),
        [] => {
            let known: Vec<&str> = incidents.iter().take(8).map(|incident| incident.id.0.as_str()).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            anyhow::bail!("there is no incident `{id}` here; there are: {known}")
        }
        many => {
            let ids: Vec<&str> = many.iter().take(8).map(|incident| incident.id.0.as_str()).collect();
            anyhow::bail!("`{id}` may be {} incidents: {}", many.len(), ids.join(", "))
        }
    }
}

/// The archive of a data folder, where no other place is configured.
pub(super) fn archive_of(data: &Path) -> PathBuf {
    ArchiveOptions::default().folder(data)
}

/// The folders of the archive that hold rows of a run, and of none.
fn archived(data: &Path, run: &RunId) -> Vec<PathBuf> {
    let folders = [PartName::run_folder(Some(&run.0)), PartName::run_folder(None)];
    let of_table = |table: &Table| {
        let table = archive_of(data).join(format!("table={table}"));
        folders.clone().map(|folder| table.join(format!("run={folder}")))
    };
    let paths: Vec<PathBuf> = Table::ALL.iter().flat_map(of_table).filter(|path| path.is_dir()).collect();
    let own = format!("run={}", folders[0]);
    if paths.iter().any(|path| path.ends_with(&own)) { paths } else { Vec::new() }
}

/// Evidence that was worked out again, from who has just done so.
fn take_workings(incident: &mut Incident, judged: &Incident) {
    for evidence in &mut incident.evidence {
        if let Some(same) = judged.evidence.iter().find(|other| *other == evidence) {
            evidence.working = same.working.clone();
        }
    }
}

impl Origin {
    fn of(paths: &[PathBuf]) -> Result<Self> {
        let mut origin = Self { paths: paths.to_vec(), ..Self::default() };
        let mut hasher = blake3::Hasher::new();
        for path in paths {
            let mut files = Vec::new();
            list(path, &mut files)?;
            files.sort();
            for file in files {
                let name = file.strip_prefix(path).unwrap_or(&file).to_string_lossy().into_owned();
                hasher.update(name.as_bytes());
                origin.bytes += hash(&file, &mut hasher)?;
                origin.files += 1;
            }
        }
        origin.digest = hasher.finalize().to_hex().to_string();
        Ok(origin)
    }
}

fn list(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let failed = || format!("cannot list `{}`", path.display());
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    for entry in fs::read_dir(path).with_context(failed)? {
        let entry = entry.with_context(failed)?.path();
        // Links may lead in circles; what hangs on them is read, and not part of the digest.
        let is_link = fs::symlink_metadata(&entry).is_ok_and(|metadata| metadata.is_symlink());
        if !is_link {
            list(&entry, files)?;
        }
    }
    Ok(())
}

fn hash(path: &Path, hasher: &mut blake3::Hasher) -> Result<u64> {
    let failed = || format!("cannot read `{}`", path.display());
    let mut file = File::open(path).with_context(failed)?;
    let (mut buffer, mut bytes) = (vec![0; READ_BYTES], 0);
    loop {
        match file.read(&mut buffer).with_context(failed)? {
            0 => break,
            read => {
                hasher.update(&buffer[..read]);
                bytes += read as u64;
            }
        }
    }
    hasher.update(&bytes.to_le_bytes());
    Ok(bytes)
}
