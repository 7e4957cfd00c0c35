//! A frame that was read from the log: checked, its rows still packed.

use std::collections::BTreeMap;

use ed25519_dalek::{Signature, SigningKey, VerifyingKey};
use prost::Message;
use trainwarden_proto::v1::{Encoding, Envelope, Frame, LogClock as WireClock, Mark};
use trainwarden_telemetry::Table;

use super::FrameError;
use crate::LogClock;
use crate::limits::PAYLOAD_BYTES_MAX;

/// Whose signatures count. Without a key every frame is taken.
#[derive(Clone, Debug, Default)]
pub struct TrustedKeys(BTreeMap<(String, u32), VerifyingKey>);

impl TrustedKeys {
    /// Trusts a sender's key of one epoch.
    ///
    /// * `key`: Ed25519 public key, 32 bytes.
    ///
    /// # Errors
    /// When the bytes are no public key.
    pub fn trust(&mut self, sender: &str, epoch: u32, key: &[u8]) -> Result<(), String> {
        let bytes: [u8; 32] = key.try_into().map_err(|_| format!("a public key has 32 bytes, not {}", key.len()))?;
        let key = VerifyingKey::from_bytes(&bytes).map_err(|error| error.to_string())?;
        self.0.insert((sender.to_owned(), epoch), key);
        Ok(())
    }

    /// Trusts what is signed with a secret key of our own.
    ///
    /// * `key`: Ed25519 secret key.
    pub fn trust_secret(&mut self, sender: &str, epoch: u32, key: &[u8; 32]) {
        self.0.insert((sender.to_owned(), epoch), SigningKey::from_bytes(key).verifying_key());
    }

    /// True when there is a key, and so every frame needs a signature.
    #[must_use]
    pub fn is_required(&self) -> bool {
        !self.0.is_empty()
    }

    fn verify(&self, frame: &Frame, envelope: &Envelope) -> Result<(), FrameError> {
        // A tick says nothing but that time goes on, and the log says that itself.
        if !self.is_required() || envelope.mark() == Mark::Tick {
            return Ok(());
        }
        let (sender, epoch) = (envelope.sender.clone(), envelope.key_epoch);
        let refused = |reason| FrameError::Unsigned { sender: sender.clone(), epoch, reason };
        let key = self.0.get(&(sender.clone(), epoch)).ok_or_else(|| refused("has no trusted key"))?;
        let signature = Signature::from_slice(&frame.signature).map_err(|_| refused("did not sign the frame"))?;
        key.verify_strict(&frame.envelope, &signature).map_err(|_| refused("did not sign these bytes"))
    }
}

/// A frame whose envelope, digest and signature are good.
#[derive(Clone, Debug)]
pub struct OpenedFrame {
    /// What the sender says of it.
    pub envelope: Envelope,
    /// BLAKE3 of the envelope, first half.
    pub hash: u128,
    payload: prost::bytes::Bytes,
}

impl OpenedFrame {
    /// Opens a frame.
    ///
    /// # Errors
    /// [`FrameError`]: the frame is to be set aside.
    pub fn open(bytes: &[u8], keys: &TrustedKeys) -> Result<Self, FrameError> {
        let undecodable = |error: prost::DecodeError| FrameError::Undecodable { reason: error.to_string() };
        let frame = Frame::decode(bytes).map_err(undecodable)?;
        let envelope = Envelope::decode(frame.envelope.clone()).map_err(undecodable)?;
        if Mark::try_from(envelope.mark).is_err() {
            return Err(FrameError::Unknown { field: "mark", value: envelope.mark });
        }
        let told = envelope.payload_bytes.max(frame.payload.len() as u64);
        if told > PAYLOAD_BYTES_MAX {
            return Err(FrameError::Oversized { bytes: told, bytes_max: PAYLOAD_BYTES_MAX });
        }
        if !frame.payload.is_empty() && envelope.digest != *blake3::hash(&frame.payload).as_bytes().as_slice() {
            return Err(FrameError::WrongDigest);
        }
        keys.verify(&frame, &envelope)?;
        let hash = blake3::hash(&frame.envelope);
        let half: [u8; 16] = hash.as_bytes()[..16].try_into().expect("half of 32 bytes");
        Ok(Self { envelope, hash: u128::from_be_bytes(half), payload: frame.payload })
    }

    /// What log time counts, where the rows carry their own.
    ///
    /// # Errors
    /// [`FrameError::Unknown`]
    pub fn backfill(&self) -> Result<Option<LogClock>, FrameError> {
        let Some(backfill) = &self.envelope.backfill else { return Ok(None) };
        match backfill.clock() {
            WireClock::Nanoseconds => Ok(Some(LogClock::Nanoseconds)),
            WireClock::Steps => Ok(Some(LogClock::Steps)),
            WireClock::Unspecified => Err(FrameError::Unknown { field: "backfill.clock", value: backfill.clock }),
        }
    }

    /// The table of the rows; `None` for a frame without rows.
    ///
    /// # Errors
    /// [`FrameError::Unknown`]
    pub fn table(&self) -> Result<Option<Table>, FrameError> {
        use trainwarden_proto::v1::Table as Wire;
        if self.payload.is_empty() {
            return Ok(None);
        }
        let unknown = FrameError::Unknown { field: "table", value: self.envelope.table };
        match Wire::try_from(self.envelope.table) {
            Ok(Wire::Samples) => Ok(Some(Table::Samples)),
            Ok(Wire::Collectives) => Ok(Some(Table::Collectives)),
            Ok(Wire::Digests) => Ok(Some(Table::Digests)),
            Ok(Wire::Events) => Ok(Some(Table::Events)),
            Ok(Wire::Ranks) => Ok(Some(Table::Ranks)),
            Ok(Wire::Groups) => Ok(Some(Table::Groups)),
            Ok(Wire::Unspecified) | Err(_) => Err(unknown),
        }
    }

    pub(super) fn encoding(&self) -> Result<Encoding, FrameError> {
        let unknown = FrameError::Unknown { field: "encoding", value: self.envelope.encoding };
        Encoding::try_from(self.envelope.encoding).map_err(|_| unknown)
    }

    pub(super) fn payload(&self) -> &[u8] {
        &self.payload
    }
}

/// How the contract calls a table.
pub(super) fn wire_table(table: Table) -> trainwarden_proto::v1::Table {
    use trainwarden_proto::v1::Table as Wire;
    match table {
        Table::Samples => Wire::Samples,
        Table::Collectives => Wire::Collectives,
        Table::Digests => Wire::Digests,
        Table::Events => Wire::Events,
        Table::Ranks => Wire::Ranks,
        Table::Groups => Wire::Groups,
    }
}
