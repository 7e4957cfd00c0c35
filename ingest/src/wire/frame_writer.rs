//! What a sender makes of its rows.

use arrow::array::RecordBatch;
use ed25519_dalek::{Signer, SigningKey};
use prost::Message;
use trainwarden_proto::v1::{Backfill, Envelope, Frame, LogClock as WireClock, Mark};
use trainwarden_telemetry::Table;

use super::frame::wire_table;
use super::payload::{self, Payload};
use crate::LogClock;

/// Bits of a sequence that is made of what its frame holds; those above count milliseconds since the epoch.
const SEQUENCE_DIGEST_BITS: u32 = 20;

/// Makes the frames of one sender and run, each chained to the one before.
///
/// The same rows, in the same batches and sent at the same time, make the same bytes.
#[derive(Debug)]
pub struct FrameWriter {
    sender: String,
    run: String,
    backfill: Option<Backfill>,
    key: Option<(u32, SigningKey)>,
    sequence: u64,
    previous_hash: Vec<u8>,
}

impl FrameWriter {
    /// A sender that has sent nothing of the run.
    ///
    /// * `run`: empty for events that concern every run.
    /// * `backfill`: what log time counts, where rows carry their own in `received`; `None` = live.
    #[must_use]
    pub fn new(sender: &str, run: &str, backfill: Option<LogClock>) -> Self {
        let clock = backfill.map(|clock| match clock {
            LogClock::Nanoseconds => WireClock::Nanoseconds,
            LogClock::Steps => WireClock::Steps,
        });
        Self {
            sender: sender.to_owned(),
            run: run.to_owned(),
            backfill: clock.map(|clock| Backfill { clock: clock.into() }),
            key: None,
            sequence: 0,
            previous_hash: Vec::new(),
        }
    }

    /// Signs what is sent from now on.
    ///
    /// * `key`: Ed25519 secret key.
    pub fn sign_with(&mut self, epoch: u32, key: &[u8; 32]) {
        self.key = Some((epoch, SigningKey::from_bytes(key)));
    }

    /// The sequence of the next frame.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// A frame of rows of one table.
    ///
    /// * `sent_at`: the sender's clock, in nanoseconds since the epoch; 0 where it does not matter.
    pub fn rows(&mut self, table: Table, batch: &RecordBatch, sent_at: i64) -> Vec<u8> {
        self.marked(Mark::Unspecified, (table, payload::encode(batch)), sent_at)
    }

    /// A frame of events that a person caused.
    ///
    /// * `sent_at`: as in [`FrameWriter::rows`].
    pub fn act(&mut self, events: &RecordBatch, sent_at: i64) -> Vec<u8> {
        self.marked(Mark::Act, (Table::Events, payload::encode(events)), sent_at)
    }

    fn marked(&mut self, mark: Mark, (table, payload): (Table, Payload), sent_at: i64) -> Vec<u8> {
        let envelope = Envelope {
            digest: blake3::hash(&payload.bytes).as_bytes().to_vec().into(),
            table: wire_table(table).into(),
            encoding: payload.encoding.into(),
            payload_bytes: payload.unpacked_bytes,
            mark: mark.into(),
            ..self.envelope(sent_at)
        };
        self.seal(&envelope, payload.bytes)
    }

    /// A frame of rows from a sender that keeps no count: its sequence is made of `sent_at` and the rows, and it is
    /// chained to none. The same rows sent at the same time make the same bytes, wherever they are made.
    ///
    /// * `sent_at`: as in [`FrameWriter::rows`]; frames with a smaller one are forgotten first.
    pub fn uncounted_rows(&mut self, table: Table, batch: &RecordBatch, sent_at: i64) -> Vec<u8> {
        let payload = payload::encode(batch);
        let digest = blake3::hash(&payload.bytes);
        let head: [u8; 8] = digest.as_bytes()[..8].try_into().expect("a digest has 32 bytes");
        let sent_at_ms = sent_at.max(0).unsigned_abs() / 1_000_000;
        // Two frames of one millisecond share a sequence once in a million; both are taken then.
        self.sequence =
            (sent_at_ms << SEQUENCE_DIGEST_BITS) | (u64::from_be_bytes(head) >> (64 - SEQUENCE_DIGEST_BITS));
        self.previous_hash.clear();
        self.marked(Mark::Unspecified, (table, payload), sent_at)
    }

    /// The frame that ends the sender's input of the run.
    pub fn end(&mut self, sent_at: i64) -> Vec<u8> {
        let envelope = Envelope { mark: Mark::End.into(), ..self.envelope(sent_at) };
        self.seal(&envelope, Vec::new())
    }

    /// A frame that says only that time goes on.
    #[must_use]
    pub fn tick(sender: &str, sent_at: i64) -> Vec<u8> {
        let sender = sender.to_owned();
        let envelope = Envelope { sender, sent_at, mark: Mark::Tick.into(), ..Envelope::default() };
        let envelope = envelope.encode_to_vec().into();
        Frame { envelope, ..Frame::default() }.encode_to_vec()
    }

    fn envelope(&self, sent_at: i64) -> Envelope {
        Envelope {
            sender: self.sender.clone(),
            key_epoch: self.key.as_ref().map_or(0, |(epoch, _)| *epoch),
            sequence: self.sequence,
            previous_hash: self.previous_hash.clone().into(),
            run: self.run.clone(),
            sent_at,
            backfill: self.backfill,
            ..Envelope::default()
        }
    }

    fn seal(&mut self, envelope: &Envelope, payload: Vec<u8>) -> Vec<u8> {
        let envelope = envelope.encode_to_vec();
        let signature = self.key.as_ref().map(|(_, key)| key.sign(&envelope).to_bytes().to_vec()).unwrap_or_default();
        self.previous_hash = blake3::hash(&envelope).as_bytes().to_vec();
        self.sequence += 1;
        Frame { envelope: envelope.into(), signature: signature.into(), payload: payload.into() }.encode_to_vec()
    }
}
