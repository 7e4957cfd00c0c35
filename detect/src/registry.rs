//! The registry: one variant and one arm a detector; the order is the order of judging.

use crate::Detector;
use crate::detectors::desync::Desync;
use crate::detectors::hang::Hang;
use crate::detectors::kills::Kills;
use crate::detectors::nonfinite::Nonfinite;
use crate::detectors::replayed::Replayed;
use crate::detectors::silence::Silence;

/// Which detectors there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DetectorKind {
    /// A NaN or an infinity was logged.
    Nonfinite,
    /// Ranks wait in a call that somebody never finishes.
    Hang,
    /// Members of a communicator enter different operations.
    Desync,
    /// Processes were killed.
    Kills,
    /// A rank stopped speaking.
    Silence,
    /// Telemetry was sent before.
    Replayed,
}

impl DetectorKind {
    /// Every detector, in the order of judging: law, then peers, then past, so that causes are named before effects.
    pub const ALL: &'static [Self] =
        &[Self::Nonfinite, Self::Desync, Self::Hang, Self::Kills, Self::Silence, Self::Replayed];

    /// A detector that has seen nothing.
    #[must_use]
    pub fn build(self) -> Box<dyn Detector> {
        match self {
            Self::Nonfinite => Box::<Nonfinite>::default(),
            Self::Hang => Box::<Hang>::default(),
            Self::Desync => Box::<Desync>::default(),
            Self::Kills => Box::<Kills>::default(),
            Self::Silence => Box::<Silence>::default(),
            Self::Replayed => Box::<Replayed>::default(),
        }
    }
}
