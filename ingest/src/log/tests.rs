//! Whole folders in, records out.

use std::path::Path;

use super::*;
use crate::{
    CollectiveOut, CollectiveRow, DigestOut, DigestRow, EventOut, FolderWriter, MemberOut, NameId, PlacementOut, Row,
    SampleOut, SampleRow,
};

fn sample<'a>(run: &'a str, rank: u32, step: u64, value: f64) -> SampleOut<'a> {
    let time = Some(1_000 * step as i64 + i64::from(rank));
    SampleOut { run, attempt: 0, rank: Some(rank), step: Some(step), time, metric: "loss_local", value }
}

fn write_golden(dir: &Path, format: Format) {
    let mut folder = FolderWriter::create(dir, format).expect("created");
    for (step, value) in [(2, f64::NAN), (0, 1.25), (1, f64::NEG_INFINITY), (3, 1e-300), (4, -0.0)] {
        folder.sample(&sample("a", 1, step, value)).expect("written");
    }
    folder.sample(&SampleOut { rank: None, step: None, ..sample("b, \"quoted\"\n", 0, 7, 0.1) }).expect("written");
    let call = CollectiveOut {
        run: "a",
        attempt: 1,
        rank: 3,
        comm: "dp",
        seq: 9,
        op: "all_reduce",
        bytes: Some(u64::MAX - 1),
        signature: None,
        enqueued: Some(2_500),
        start: Some(2_600),
        end: None,
        step: Some(2),
        peer: None,
    };
    folder.collective(&call).expect("written");
    let (kind, name, digest) = ("weight", "bucket-0", "00ff");
    let digest = DigestOut {
        run: "a",
        attempt: 0,
        rank: Some(1),
        step: Some(3),
        time: None,
        kind,
        name,
        digest,
        group: Some("x"),
    };
    folder.digest(&digest).expect("written");
    let (source, kind) = ("sudo", "exec");
    let act = EventOut {
        time: 1_500,
        source,
        kind,
        actor: Some("u"),
        run: None,
        attempt: None,
        node: None,
        rank: None,
        subject: None,
        detail: Some("{\"a\": [1, \"ü\"]}"),
    };
    folder.event(&act).expect("written");
    folder.event(&EventOut { kind: "run_start", run: Some("c"), attempt: Some(2), ..act }).expect("written");
    let place = PlacementOut {
        run: "a",
        attempt: 0,
        rank: 1,
        node: Some("n1"),
        device: None,
        local_rank: None,
        dp: Some(0),
        tp: None,
        pp: Some(1),
        ep: None,
        cp: None,
    };
    folder.placement(&place).expect("written");
    folder.member(&MemberOut { run: "a", attempt: 0, comm: "dp", rank: 1 }).expect("written");
    folder.finish().expect("finished");
}

/// A log as text: every run, what is known of it, and its records with names in place of numbers.
fn describe(log: Log) -> Vec<String> {
    let mut lines = Vec::new();
    for (id, run) in log.runs {
        let RunLog { names, rosters, communicators, clock, rows } = run;
        lines.push(format!("{id:?} {clock:?} {rosters:?} {communicators:?}"));
        for record in rows.into_records(clock) {
            let record = record.expect("read");
            lines.push(format!("{} {}", record.log_time, describe_row(&record.row, &names)));
        }
    }
    lines
}

fn describe_row(row: &Row, names: &Names) -> String {
    // Numbers of names depend on the order of reading.
    let none = NameId::NONE;
    match row {
        Row::Sample(row) => {
            format!("{:?} {:?} {:x}", SampleRow { metric: none, ..*row }, names.get(row.metric), row.value.to_bits())
        }
        Row::Collective(row) => {
            let texts = [row.comm, row.op, row.signature].map(|name| names.get(name));
            format!("{:?} {texts:?}", CollectiveRow { comm: none, op: none, signature: none, ..*row })
        }
        Row::Digest(row) => {
            let texts = [row.kind, row.name, row.digest, row.group].map(|name| names.get(name));
            format!("{:?} {texts:?}", DigestRow { kind: none, name: none, digest: none, group: none, ..*row })
        }
        Row::Event(event) => format!("{event:?}"),
    }
}

fn read(path: &Path) -> (Log, Rejects) {
    let mut rejects = Rejects::new();
    let log = Log::read(&[path.to_owned()], &mut rejects).expect("read");
    (log, rejects)
}

#[test]
fn every_format_gives_the_same_log() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut described: Vec<(Format, Vec<String>)> = Vec::new();
    for format in Format::ALL {
        let dir = folder.path().join(format.extension());
        write_golden(&dir, format);
        let (log, rejects) = read(&dir);
        assert_eq!(rejects.summary(), [""; 0], "{format:?}");
        described.push((format, describe(log)));
    }
    // 3 runs; run a: 5 samples, a collective, a digest; run b: a sample; run c: an event; each with the shared event.
    assert_eq!(described[0].1.len(), 3 + 8 + 2 + 2, "{:#?}", described[0].1);
    for (format, lines) in &described {
        assert_eq!(lines, &described[0].1, "{format:?}");
    }
}
