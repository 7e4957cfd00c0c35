//! A folder of telemetry files with an index (`runs.csv`) and labels (`labels.json`).

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;
use trainwarden_telemetry::{Incident, Label as RowLabel};

/// A corpus on disk.
#[derive(Debug)]
pub struct Corpus {
    /// Its folder.
    pub dir: PathBuf,
    /// The files its index lists, sorted by name.
    pub files: Vec<CorpusFile>,
    /// Every label.
    pub labels: Vec<Label>,
}

/// One line of the index.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct CorpusFile {
    /// Path inside the corpus.
    pub file: String,
    /// Rows of the file.
    pub rows: u64,
    /// `yes` where nothing is known to be wrong.
    pub clean: String,
}

/// One thing somebody found in a file.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Label {
    /// Path inside the corpus.
    pub file: String,
    /// Column it is about.
    pub series: String,
    /// What it is.
    pub kind: String,
    /// `major`, `moderate`, `minor` or `by_design`.
    pub severity: String,
    /// How it is known: `documented`, `high` or `visible`.
    pub confidence: String,
    /// `step`, `time`, `timestamp` or `dump`.
    pub unit: String,
    start: serde_json::Value,
    end: serde_json::Value,
    #[serde(default)]
    rank: serde_json::Value,
    /// First row of NaN, where known.
    pub first_nan_step: Option<u64>,
}

/// A place in a file: a step, or nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// Optimizer step.
    Step(i64),
    /// Nanoseconds since the file's epoch.
    Time(i64),
}

impl Corpus {
    /// Reads index and labels.
    ///
    /// # Errors
    /// When one of both is missing or broken.
    pub fn open(dir: &Path) -> Result<Self> {
        let index = dir.join("runs.csv");
        let mut reader =
            csv::Reader::from_path(&index).with_context(|| format!("cannot read `{}`", index.display()))?;
        let files: Result<Vec<CorpusFile>, csv::Error> = reader.deserialize().collect();
        let mut files = files.with_context(|| format!("`{}` is no index of a corpus", index.display()))?;
        files.sort_by(|one, other| one.file.cmp(&other.file));
        let path = dir.join("labels.json");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read `{}`", path.display()))?;
        let labels = serde_json::from_str(&text).with_context(|| format!("`{}` holds no labels", path.display()))?;
        Ok(Self { dir: dir.to_owned(), files, labels })
    }

    /// The labels of a file.
    pub fn labels_of<'a>(&'a self, file: &'a CorpusFile) -> impl Iterator<Item = &'a Label> {
        self.labels.iter().filter(|label| label.file == file.file)
    }
}

impl CorpusFile {
    /// True for the files false alarms are counted on: clean training runs.
    #[must_use]
    pub fn is_clean_training(&self) -> bool {
        self.clean == "yes" && self.file.starts_with("train/")
    }
}

impl Label {
    /// Where it begins and ends; `None` for a dump, which has one moment only.
    #[must_use]
    pub fn span(&self) -> Option<(Moment, Moment)> {
        Some((self.moment(&self.start)?, self.moment(&self.end)?))
    }

    fn moment(&self, value: &serde_json::Value) -> Option<Moment> {
        match self.unit.as_str() {
            "step" => value.as_f64().map(|step| Moment::Step(step as i64)),
            "time" => value.as_f64().map(|seconds| Moment::Time((seconds * 1e9) as i64)),
            "timestamp" => trainwarden_ingest::import::parse_timestamp(value.as_str()?).map(Moment::Time),
            _ => None,
        }
    }

    /// The ranks it names.
    #[must_use]
    pub fn ranks(&self) -> Vec<u32> {
        let one = |value: &serde_json::Value| value.as_u64().and_then(|rank| u32::try_from(rank).ok());
        match &self.rank {
            serde_json::Value::Array(ranks) => ranks.iter().filter_map(one).collect(),
            rank => one(rank).into_iter().collect(),
        }
    }

    /// True when the source says so in words.
    #[must_use]
    pub fn is_documented(&self) -> bool {
        self.confidence.starts_with("documented")
    }
}

impl Moment {
    /// When an incident was detected, in the unit of `self`.
    #[must_use]
    pub fn of_detection(self, incident: &Incident) -> Option<Moment> {
        self.of_label(RowLabel { step: incident.detected_step, time: incident.detected_at })
    }

    /// When an incident began, in the unit of `self`.
    #[must_use]
    pub fn of_beginning(self, incident: &Incident) -> Option<Moment> {
        let step = incident.onset.map(|onset| onset.step).or(incident.first_step);
        self.of_label(RowLabel { step, time: incident.started_at })
    }

    /// When an incident was last seen, in the unit of `self`.
    #[must_use]
    pub fn of_end(self, incident: &Incident) -> Option<Moment> {
        self.of_label(RowLabel { step: incident.last_step, time: incident.detected_at })
    }

    fn of_label(self, label: RowLabel) -> Option<Moment> {
        match self {
            Self::Step(_) => label.step.map(|step| Self::Step(step.0 as i64)),
            Self::Time(_) => label.time.map(|time| Self::Time(time.0)),
        }
    }

    /// This moment moved by so many steps; times do not move.
    #[must_use]
    pub fn plus_steps(self, steps: i64) -> Moment {
        match self {
            Self::Step(step) => Self::Step(step + steps),
            Self::Time(time) => Self::Time(time),
        }
    }
}
