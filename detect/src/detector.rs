//! The seam between alignment and judgement.

use serde::Serialize;
use serde::de::DeserializeOwned;
use trainwarden_kernels::Backend;
use trainwarden_telemetry::{Kind, Observation, Verdict};

use crate::{DetectError, Scene, snapshot};

/// What a detector compares with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Against {
    /// What must hold exactly.
    Law,
    /// Other ranks that do the same work, now.
    Peers,
    /// The same series, before.
    Past,
}

/// What a detector is, for `trainwarden detectors` and the docs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Name, also of its file and its page.
    pub name: &'static str,
    /// What it compares with.
    pub against: Against,
    /// The tables, metrics or digest kinds it looks at.
    pub watches: &'static [&'static str],
    /// The kinds of incident it can speak of.
    pub kinds: &'static [Kind],
}

/// Judges the observations of one run, in the order alignment gives them.
///
/// The caller promises: one detector sees one run; the scene already knows the observation; rows of one metric come in
/// step order. The detector promises: the same observations give the same verdicts, whatever the process, the batch
/// splits of panels, or a [`snapshot`](Self::snapshot) and [`restore`](Self::restore) in between; its state is bounded;
/// no verdict depends on anything later.
pub trait Detector: Send {
    /// What this detector is.
    fn spec(&self) -> &'static Spec;

    /// Judges one observation; most concern few detectors, so the usual answer is empty.
    ///
    /// # Errors
    /// [`DetectError`] when a statistic cannot be computed. The observation is then skipped and counted by the caller.
    fn judge(
        &mut self,
        seen: &Observation,
        scene: &Scene,
        backend: &mut dyn Backend,
    ) -> Result<Vec<Verdict>, DetectError>;

    /// The whole state, bounded, versioned.
    ///
    /// # Errors
    /// [`DetectError::Snapshot`] when the state does not serialise (a bug).
    fn snapshot(&self) -> Result<Vec<u8>, DetectError>;

    /// Becomes what the snapshot was taken of.
    ///
    /// # Errors
    /// [`DetectError::Restore`] when the bytes are not a snapshot of this detector and version; the state is unchanged.
    fn restore(&mut self, snapshot: &[u8]) -> Result<(), DetectError>;
}

/// What the file of a detector provides: a state that serialises, and judgement. The seam follows from it.
pub(crate) trait Judge: Send + Serialize + DeserializeOwned {
    /// What this detector is.
    const SPEC: Spec;
    /// Version of the state's layout: a snapshot of another one is refused.
    const VERSION: u8;

    /// See [`Detector::judge`].
    fn judge(
        &mut self,
        seen: &Observation,
        scene: &Scene,
        backend: &mut dyn Backend,
    ) -> Result<Vec<Verdict>, DetectError>;
}

impl<T: Judge> Detector for T {
    fn spec(&self) -> &'static Spec {
        const { &T::SPEC }
    }

    fn judge(
        &mut self,
        seen: &Observation,
        scene: &Scene,
        backend: &mut dyn Backend,
    ) -> Result<Vec<Verdict>, DetectError> {
        Judge::judge(self, seen, scene, backend)
    }

    fn snapshot(&self) -> Result<Vec<u8>, DetectError> {
        snapshot::save(T::SPEC.name, T::VERSION, self)
    }

    fn restore(&mut self, bytes: &[u8]) -> Result<(), DetectError> {
        *self = snapshot::load(T::SPEC.name, T::VERSION, bytes)?;
        Ok(())
    }
}
