//! Stages 4 to 7 of the way of the data, for one run: align, measure, judge, correlate.
//!
//! Pure: what comes out depends on the records in log order and on nothing else.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::ser::{Error, SerializeSeq, SerializeStruct};
use serde::{Deserialize, Serialize, Serializer};
use serde_bytes::ByteBuf;
use trainwarden_detect::{Budget, Detector, DetectorKind, Scene};
use trainwarden_incidents::Correlator;
use trainwarden_ingest::{Aligner, Counts, LogClock, Membership, Names, Record};
use trainwarden_kernels::Cpu;
use trainwarden_telemetry::{Change, Incident, Observation, RunId};

/// Judges the log of one run.
pub struct Pipeline {
    aligner: Aligner,
    scene: Scene,
    detectors: Vec<Box<dyn Detector>>,
    correlator: Correlator,
    backend: Cpu,
    ready: Vec<Observation>,
    errors: BTreeMap<String, u64>,
}

/// Everything a pipeline knows, as it is read from a snapshot.
#[derive(Deserialize)]
pub(crate) struct PipelineState {
    aligner: Aligner,
    scene: Scene,
    detectors: Vec<ByteBuf>,
    correlator: Correlator,
    errors: BTreeMap<String, u64>,
}

/// Writes under the same names what `PipelineState` reads; one detector is held as bytes at a time.
impl Serialize for Pipeline {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Snapshots<'a>(&'a [Box<dyn Detector>]);
        impl Serialize for Snapshots<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut list = serializer.serialize_seq(Some(self.0.len()))?;
                for detector in self.0 {
                    list.serialize_element(&ByteBuf::from(detector.snapshot().map_err(S::Error::custom)?))?;
                }
                list.end()
            }
        }
        let mut state = serializer.serialize_struct("PipelineState", 5)?;
        state.serialize_field("aligner", &self.aligner)?;
        state.serialize_field("scene", &self.scene)?;
        state.serialize_field("detectors", &Snapshots(&self.detectors))?;
        state.serialize_field("correlator", &self.correlator)?;
        state.serialize_field("errors", &self.errors)?;
        state.end()
    }
}

impl Pipeline {
    /// A pipeline that has seen nothing of the run.
    #[must_use]
    pub fn new(run: &RunId, clock: LogClock, membership: Membership, budget: Budget) -> Self {
        Self {
            aligner: Aligner::new(clock, membership),
            scene: Scene::new(run.clone(), budget),
            detectors: DetectorKind::ALL.iter().map(|kind| kind.build()).collect(),
            correlator: Correlator::new(run.clone()),
            backend: Cpu::new(),
            ready: Vec::new(),
            errors: BTreeMap::new(),
        }
    }

    /// Learns who is in attempts that have not begun, where the log itself is not known beforehand.
    pub fn tell(&mut self, membership: Membership) {
        self.aligner.tell(membership);
    }

    /// Takes the next record of the log in; gives what changed by it.
    pub fn push(&mut self, record: &Record, names: &Names) -> Vec<Change> {
        self.aligner.push(record, names, &mut self.ready);
        self.judge()
    }

    /// Log time goes on without a record; gives what changed by it.
    pub fn tick(&mut self, log_time: i64) -> Vec<Change> {
        self.aligner.tick(log_time, &mut self.ready);
        self.judge()
    }

    /// The next record comes with other names than those before.
    pub fn forget_names(&mut self) {
        self.aligner.forget_names();
    }

    /// The log ends: what is open is judged as of its deadline.
    pub fn finish(&mut self) -> Vec<Change> {
        self.aligner.finish(&mut self.ready);
        self.judge()
    }

    fn judge(&mut self) -> Vec<Change> {
        let mut changes = Vec::new();
        for seen in self.ready.drain(..) {
            self.scene.observe(&seen);
            changes.extend(self.correlator.observe(&seen));
            for detector in &mut self.detectors {
                match detector.judge(&seen, &self.scene, &mut self.backend) {
                    Ok(verdicts) => changes.extend(verdicts.iter().flat_map(|verdict| self.correlator.take(verdict))),
                    Err(_) => *self.errors.entry(detector.spec().name.to_owned()).or_default() += 1,
                }
            }
        }
        changes
    }

    /// Every incident of the run as it stands, in the order of opening.
    pub fn incidents(&self) -> impl Iterator<Item = &Incident> {
        self.correlator.incidents()
    }

    /// What detectors may know of the run.
    #[must_use]
    pub fn scene(&self) -> &Scene {
        &self.scene
    }

    /// What alignment counted so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.aligner.counts()
    }

    /// Panels that a detector could not judge, by detector.
    #[must_use]
    pub fn errors(&self) -> &BTreeMap<String, u64> {
        &self.errors
    }

    /// The whole state as bytes.
    ///
    /// # Errors
    /// When a state does not serialise (a bug).
    pub fn snapshot(&self) -> Result<Vec<u8>> {
        rmp_serde::to_vec_named(self).context("pipeline state does not serialise")
    }

    /// The pipeline a snapshot was taken of.
    ///
    /// # Errors
    /// When the bytes are no snapshot of this version.
    pub fn restore(snapshot: &[u8]) -> Result<Self> {
        Self::from_state(rmp_serde::from_slice(snapshot).context("not a pipeline snapshot of this version")?)
    }

    /// The pipeline that had this state.
    ///
    /// # Errors
    /// When it is of another version.
    pub(crate) fn from_state(state: PipelineState) -> Result<Self> {
        let mut detectors: Vec<Box<dyn Detector>> = DetectorKind::ALL.iter().map(|kind| kind.build()).collect();
        anyhow::ensure!(detectors.len() == state.detectors.len(), "the snapshot has other detectors than this version");
        for (detector, bytes) in detectors.iter_mut().zip(&state.detectors) {
            detector.restore(bytes)?;
        }
        Ok(Self {
            aligner: state.aligner,
            scene: state.scene,
            detectors,
            correlator: state.correlator,
            backend: Cpu::new(),
            ready: Vec::new(),
            errors: state.errors,
        })
    }
}
