//! Whole folders in, records out.

use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::{
    CollectiveOut, CollectiveRow, DigestOut, DigestRow, EventOut, FolderWriter, MemberOut, NO_U64, NameId,
    PlacementOut, Record, Row, SampleOut, SampleRow,
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

#[test]
fn rows_without_a_time_follow_the_clock_of_their_attempt() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut text = "run,attempt,rank,step,time,metric,value\n".to_owned();
    // Times of steps 1, 3 and 4 of attempt 0 (the clock of step 4 runs behind), and of step 0 of attempt 2.
    text += "a,0,0,1,100,m,1\na,0,0,3,300,m,1\na,0,0,4,200,m,1\na,2,0,0,900,m,1\n";
    // Rows without: before any time, at 1, between, behind; without a step; of an attempt without a time.
    text += "a,0,1,0,,m,1\na,0,1,1,,m,1\na,0,1,2,,m,1\na,0,1,9,,m,1\na,0,1,,,m,1\na,1,1,5,,m,1\n";
    text += "b,0,0,0,,m,1\nb,0,0,4,,m,1\nb,1,0,2,,m,1\n";
    fs::write(folder.path().join("samples.csv"), text).expect("written");
    fs::write(folder.path().join("events.jsonl"), "{\"time\":5,\"source\":\"s\",\"kind\":\"run_end\",\"run\":\"b\"}\n")
        .expect("written");
    let (mut log, rejects) = read(folder.path());
    assert_eq!(rejects.count(), 0);
    let mut times = |run: &str| {
        let run = log.runs.remove(&RunId::new(run)).expect("read");
        let clock = run.clock;
        let times: Vec<_> = run.into_records().map(|record| record.expect("read")).collect();
        let key = |record: &Record| match &record.row {
            Row::Sample(row) => (record.log_time, row.attempt, (row.step != NO_U64).then_some(row.step)),
            _ => (record.log_time, 99, None),
        };
        let mut times: Vec<_> = times.iter().map(key).collect();
        assert!(times.is_sorted_by_key(|time| time.0));
        times.sort_unstable();
        (clock, times)
    };
    let expected = [
        (100, 0, None),
        (100, 0, Some(0)),
        (100, 0, Some(1)),
        (100, 0, Some(1)),
        (100, 0, Some(2)),
        (200, 0, Some(4)),
        (300, 0, Some(3)),
        (300, 0, Some(9)),
        (300, 1, Some(5)),
        (900, 2, Some(0)),
    ];
    assert_eq!(times("a"), (LogClock::Nanoseconds, expected.to_vec()));
    let expected = [(0, 0, Some(0)), (4, 0, Some(4)), (5, 99, None), (7, 1, Some(2))];
    assert_eq!(times("b"), (LogClock::Steps, expected.to_vec()));
}

#[test]
fn an_attempt_without_ranks_has_those_before_and_of_conflicting_rows_the_smaller_stays() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("samples.csv"), "run,attempt,step,metric,value\na,0,1,m,1\na,1,1,m,1\na,3,1,m,1\n")
        .expect("written");
    fs::write(
        folder.path().join("ranks.csv"),
        "run,attempt,rank,node\na,0,0,n2\na,,0,n1\na,0,0,n1\na,2,0,n3\nz,0,0,n\n",
    )
    .expect("written");
    fs::write(folder.path().join("groups.csv"), "run,attempt,comm,rank\na,0,dp,1\na,0,dp,0\n").expect("written");
    let (log, rejects) = read(folder.path());
    assert_eq!(rejects.count(), 1);
    assert!(rejects.summary()[0].contains("conflicting row (first at line 3: rank 0 on n2 too)"), "{rejects:?}");
    assert_eq!(log.runs.len(), 1, "ranks alone make no run");
    let run = &log.runs[&RunId::new("a")];
    let nodes: Vec<_> = run.rosters.iter().map(|(attempt, roster)| (*attempt, roster.node(Rank(0)))).collect();
    assert_eq!(nodes, [(0, Some("n1")), (1, Some("n1")), (2, Some("n3")), (3, Some("n3"))]);
    assert_eq!(run.communicators[&0].members["dp"].len(), 2);
    assert!(run.communicators[&1].members.is_empty());
}

#[test]
fn columns_in_folder_names_are_read() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let dir = folder.path().join("samples/run=a/rank=4");
    fs::create_dir_all(&dir).expect("made");
    fs::write(dir.join("part-0.csv"), "step,metric,value\n1,m,1\n").expect("written");
    let (log, rejects) = read(folder.path());
    assert_eq!(rejects.count(), 0);
    let (_, run) = log.runs.into_iter().next().expect("a run");
    let first = run.into_records().next().expect("a row").expect("read");
    assert!(matches!(first.row, Row::Sample(SampleRow { rank: 4, step: 1, .. })), "{first:?}");
}

/// Writes rows, in the order given, to as many folders as there are formats given.
fn write_parts(dir: &Path, rows: &[(u32, u64, Option<i64>)], formats: &[Format]) {
    let part_rows = rows.len().div_ceil(formats.len()).max(1);
    for (part, format) in formats.iter().enumerate() {
        let mut writer = FolderWriter::create(&dir.join(part.to_string()), *format).expect("created");
        for &(rank, step, time) in rows.iter().skip(part * part_rows).take(part_rows) {
            let run = ["a", "b"][rank as usize % 2];
            writer.sample(&SampleOut { time, ..sample(run, rank, step, f64::from(rank)) }).expect("written");
        }
        writer.finish().expect("finished");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn order_files_formats_and_memory_change_nothing_in_the_log(
        mut rows in prop::collection::vec((0_u32..6, 0_u64..30, prop::option::of(0_i64..40)), 1..200),
        formats in prop::collection::vec(prop::sample::select(Format::ALL.to_vec()), 1..4),
        seed in any::<u64>(),
    ) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        write_parts(&folder.path().join("whole"), &rows, &[Format::Csv]);
        rows.sort_by_key(|row| format!("{row:?}").bytes().fold(seed, |hash, byte| hash.rotate_left(9) ^ u64::from(byte)).wrapping_mul(seed | 1));
        write_parts(&folder.path().join("parts"), &rows, &formats);
        let lines = |name: &str, memory_bytes_max| {
            let paths = [folder.path().join(name)];
            let log = Log::read_within(&paths, &mut Rejects::new(), memory_bytes_max).expect("read");
            let lines = describe(log);
            (lines.iter().map(|line| line.split(' ').next().map(str::to_owned)).collect::<Vec<_>>(), {
                let mut lines = lines;
                lines.sort();
                lines
            })
        };
        let whole = lines("whole", usize::MAX);
        prop_assert_eq!(&whole, &lines("parts", usize::MAX));
        prop_assert_eq!(&whole, &lines("parts", 0));
    }
}

#[test]
#[ignore = "speed: run with --release"]
fn speed_of_eight_million_samples() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut writer = FolderWriter::create(folder.path(), Format::Parquet).expect("created");
    // 8,192 ranks and 1,000 steps are the size that the project promises.
    for step in 0..1_000_u64 {
        for rank in 0..8_192_u32 {
            let jitter = i64::from(rank.wrapping_mul(2_654_435_761) >> 12);
            let time = Some(1_766_000_000_000_000_000 + step as i64 * 1_000_000_000 + jitter);
            let value = 1.0 + jitter as f64 * 1e-9;
            writer
                .sample(&SampleOut { time, metric: "step_time_s", ..sample("big", rank, step, value) })
                .expect("written");
        }
    }
    writer.finish().expect("finished");
    let cpu_s = || {
        let text = fs::read_to_string("/proc/self/stat").expect("Linux");
        let ticks: Vec<f64> = text.split(' ').skip(13).take(2).map(|ticks| ticks.parse().expect("a number")).collect();
        (ticks[0] + ticks[1]) / 100.0
    };
    let begin_s = cpu_s();
    let (log, rejects) = read(folder.path());
    let read_s = cpu_s();
    let count = log.runs.into_values().flat_map(RunLog::into_records).filter(|record| record.is_ok()).count();
    assert_eq!((count, rejects.count()), (8_192_000, 0));
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default().to_owned();
    println!("read {:.2} s, deliver {:.2} s of CPU; {peak}", read_s - begin_s, cpu_s() - read_s);
}
