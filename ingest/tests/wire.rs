//! The wire contract: what was written is read, by this version and by later ones.

#![expect(unused_crate_dependencies, reason = "what this target does not use serves another one of the package")]

use std::path::Path;
use std::sync::Arc;

use prost::Message;
use trainwarden_ingest::wire::{BatchWriter, FrameError, FrameWriter, OpenedFrame, TrustedKeys};
use trainwarden_ingest::{
    CollectiveRow, DigestRow, Feed, LogClock, NO_TIME, NO_U32, NO_U64, NameId, Names, Record, Row, SampleRow,
};
use trainwarden_proto::v1::{Encoding, Frame};
use trainwarden_telemetry::{Attempt, Communicators, Event, Placement, Rank, Role, Roster, RunId, Table, Timestamp};

/// A few rows of every table, with everything that may be missing missing once, and no number a round one.
fn rows(names: &mut Names, samples: u32) -> Vec<Record> {
    let mut rows = Vec::new();
    let metric = names.intern("loss");
    for index in 0..samples {
        let values = [0.1, -0.0, f64::NAN, f64::INFINITY, 5e-324, 1e308];
        let is_bare = index % 7 == 3;
        let time = if is_bare { NO_TIME } else { 1_000_000_007 * i64::from(index) };
        let (step, rank) = if is_bare { (NO_U64, NO_U32) } else { (u64::from(index), index % 5) };
        let log_time = 11 * i64::from(index);
        let value = values[index as usize % values.len()];
        rows.push(Row::Sample(SampleRow { log_time, step, time, value, attempt: 1, rank, metric, reserved: 0 }));
    }
    let (comm, op, signature) = (names.intern("dp/0"), names.intern("all_reduce"), names.intern("f32[7]"));
    let call = CollectiveRow {
        log_time: 5,
        seq: 3,
        bytes: 28,
        step: 2,
        enqueued: 1,
        start: 2,
        end: 4,
        attempt: 0,
        rank: 9,
        peer: 1,
        comm,
        op,
        signature,
    };
    let hung =
        CollectiveRow { bytes: NO_U64, end: NO_TIME, start: NO_TIME, peer: NO_U32, signature: NameId::NONE, ..call };
    rows.extend([Row::Collective(call), Row::Collective(hung)]);
    let (kind, name, digest) = (names.intern("weight"), names.intern("größe"), names.intern("e8a0"));
    let digest =
        DigestRow { log_time: 6, step: 1, time: 6, attempt: 0, rank: 2, kind, name, digest, group: NameId::NONE };
    rows.push(Row::Digest(digest));
    for run in [Some(RunId::new("golden")), None] {
        rows.push(Row::Event(Arc::new(Event {
            time: Timestamp(-7),
            source: "sudo".to_owned(),
            kind: "exec".to_owned(),
            actor: None,
            run,
            attempt: Attempt(0),
            node: Some("n0".to_owned()),
            rank: Some(Rank(4)),
            subject: Some("nvidia-smi \"-lgc\"".to_owned()),
            detail: None,
        })));
    }
    let place = |row: Row| {
        let log_time = match &row {
            Row::Sample(row) => row.log_time,
            Row::Collective(row) => row.log_time,
            Row::Digest(row) => row.log_time,
            Row::Event(event) => event.time.0,
        };
        Record { log_time, row }
    };
    rows.into_iter().map(place).collect()
}

fn frames(records: &[Record], names: &Names) -> Vec<Vec<u8>> {
    let mut batch = BatchWriter::default();
    let role = Role { pp: Some(1), ..Role::default() };
    let placement = Placement { node: Some("n0".to_owned()), role, ..Placement::default() };
    batch.roster(1, &Roster { placements: [(Rank(0), placement)].into() });
    batch.communicators(1, &Communicators { members: [("dp/0".to_owned(), [Rank(0), Rank(9)].into())].into() });
    records.iter().for_each(|record| batch.push(record, names));
    let mut writer = FrameWriter::new("golden-sender", "golden", Some(LogClock::Nanoseconds));
    writer.sign_with(3, &[9; 32]);
    let mut frames: Vec<_> = batch.finish().iter().map(|(table, rows)| writer.rows(*table, rows, 77)).collect();
    frames.push(writer.end(78));
    frames
}

fn keys() -> TrustedKeys {
    let mut keys = TrustedKeys::default();
    let public = ed25519_dalek::SigningKey::from_bytes(&[9; 32]).verifying_key().to_bytes();
    keys.trust("golden-sender", 3, &public).expect("a public key");
    keys
}

/// Every row of the frames, as text, in the order of the log.
fn read(frames: &[Vec<u8>]) -> Vec<String> {
    let mut feed = Feed::new(1);
    for bytes in frames {
        let frame = OpenedFrame::open(bytes, &keys()).expect("a good frame");
        assert_eq!((frame.envelope.run.as_str(), frame.envelope.sender.as_str()), ("golden", "golden-sender"));
        let batches = frame.batches().expect("good rows");
        if let Some(table) = frame.table().expect("a known table") {
            assert_eq!(feed.take(table, "golden", &batches), 0, "no row is set aside");
        }
    }
    let part = feed.finish();
    let mut names = Names::default();
    names.append(part.texts);
    let mut lines: Vec<String> = part.rows.records().map(|record| describe(&record, &names)).collect();
    lines.push(format!("{:?}", part.membership));
    lines
}

/// A record with its texts in the place of their numbers, and its value in bits.
fn describe(record: &Record, names: &Names) -> String {
    let text = |id: NameId| names.get(id).unwrap_or("-").to_owned();
    let words = match &record.row {
        Row::Sample(row) => format!("{} {:x} {row:?}", text(row.metric), row.value.to_bits()),
        Row::Collective(row) => format!("{} {} {} {row:?}", text(row.comm), text(row.op), text(row.signature)),
        Row::Digest(row) => {
            format!("{} {} {} {} {row:?}", text(row.kind), text(row.name), text(row.digest), text(row.group))
        }
        Row::Event(event) => format!("{event:?}"),
    };
    // Numbers of texts depend on the order of reading.
    let parts: Vec<&str> = words.split("NameId(").collect();
    let plain = parts
        .iter()
        .enumerate()
        .map(|(at, part)| if at == 0 { part } else { part.split_once(')').map_or("", |(_, rest)| rest) });
    format!("{} {}", record.log_time, plain.collect::<String>())
}

#[test]
fn frames_of_version_1_are_written_as_ever_and_read_as_ever() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/frames-v1.bin");
    let mut names = Names::default();
    let records = rows(&mut names, 40);
    let made = frames(&records, &names);
    if std::env::var_os("TRAINWARDEN_BLESS").is_some() {
        let lengths = |frame: &Vec<u8>| [&(frame.len() as u32).to_le_bytes()[..], frame].concat();
        std::fs::create_dir_all(path.parent().expect("it has a folder")).expect("made");
        std::fs::write(&path, made.iter().flat_map(lengths).collect::<Vec<u8>>()).expect("written");
    }
    let bytes = std::fs::read(&path).expect("the golden file is in the repository");
    let mut kept = Vec::new();
    let mut rest = &bytes[..];
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let (frame, after) = after.split_at(u32::from_le_bytes(*length) as usize);
        kept.push(frame.to_vec());
        rest = after;
    }
    assert_eq!(kept.len(), 7, "six tables and the end");
    assert_eq!(read(&kept), read(&made), "an old file reads as what was written");
    let envelopes = |frames: &[Vec<u8>]| -> Vec<_> {
        frames.iter().map(|frame| Frame::decode(&frame[..]).expect("a frame").envelope).collect()
    };
    assert_eq!(envelopes(&kept), envelopes(&made), "the same rows are signed as the same bytes");
}

#[test]
fn small_and_large_batches_carry_the_same_rows() {
    for samples in [1, 1_000, 5_000] {
        let mut names = Names::default();
        let records = rows(&mut names, samples);
        let frames = frames(&records, &names);
        let encodings: Vec<Encoding> =
            frames.iter().map(|frame| OpenedFrame::open(frame, &keys()).expect("good").envelope.encoding()).collect();
        assert_eq!(encodings.contains(&Encoding::ArrowZstd), samples == 5_000, "{encodings:?}");
        let lines = read(&frames);
        let mut expected: Vec<Record> = records.clone();
        expected.sort_by_key(|record| (record.log_time, matches!(record.row, Row::Event(_)) as u8 ^ 1));
        let mut expected: Vec<String> = expected.iter().map(|record| describe(record, &names)).collect();
        let (membership, rows) = lines.split_last().expect("there is the membership");
        let mut rows = rows.to_vec();
        // Rows of equal log time have no order.
        expected.sort();
        rows.sort();
        assert_eq!(rows, expected, "{samples} samples");
        assert!(membership.contains("n0") && membership.contains("dp/0"), "{membership}");
    }
}

#[test]
fn fields_of_later_versions_stay_in_the_log_and_under_the_signature() {
    let mut names = Names::default();
    let records = rows(&mut names, 3);
    let frame = frames(&records, &names).remove(0);
    let mut later = Frame::decode(&frame[..]).expect("a frame");
    let mut envelope = later.envelope.to_vec();
    // Field 2047, a text that this version has never heard of.
    prost::encoding::string::encode(2047, &"new".to_owned(), &mut envelope);
    let key = ed25519_dalek::SigningKey::from_bytes(&[9; 32]);
    later.signature = ed25519_dalek::Signer::sign(&key, &envelope).to_bytes().to_vec().into();
    later.envelope = envelope.clone().into();
    let bytes = later.encode_to_vec();
    let opened = OpenedFrame::open(&bytes, &keys()).expect("it is read all the same");
    assert_eq!(opened.envelope.run, "golden");
    // What a service does between taking a frame and appending it.
    let again = Frame::decode(&bytes[..]).expect("a frame").encode_to_vec();
    assert_eq!(Frame::decode(&again[..]).expect("a frame").envelope, envelope, "not a byte is lost on the way");
}

#[test]
fn what_was_changed_on_the_way_is_refused_wherever_it_was_changed() {
    let mut names = Names::default();
    let records = rows(&mut names, 20);
    let frame = frames(&records, &names).remove(0);
    for at in 0..frame.len() {
        let mut changed = frame.clone();
        changed[at] ^= 0x10;
        let refused = OpenedFrame::open(&changed, &keys());
        assert!(refused.is_err(), "byte {at} of {} was changed, and nobody saw it", frame.len());
    }
    assert!(matches!(
        OpenedFrame::open(&FrameWriter::new("stranger", "golden", None).end(0), &keys()),
        Err(FrameError::Unsigned { .. })
    ));
    assert_eq!(OpenedFrame::open(&frame, &keys()).expect("untouched").table(), Ok(Some(Table::Samples)));
}
