//! When two runs of the program agree: whatever the order, the split, the format, the cut or the restart.

#![expect(unused_crate_dependencies, reason = "what this target does not use serves another one of the package")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tempfile::TempDir;
use trainwarden::replay::{Findings, replay};
use trainwarden_ingest::import::{ImportSource, WideOptions, import};
use trainwarden_ingest::{CollectiveOut, DigestOut, EventOut, FolderWriter, Format, PlacementOut, SampleOut};
use trainwarden_telemetry::{Kind, RunId};

use crate::recorded::{Recording, Tables, lines, noise, shuffled};

mod recorded;

const RANKS: u32 = 8;
const STEPS: u64 = 160;
const STEP_NS: i64 = 1_000_000_000;
const START_NS: i64 = 1_766_000_000_000_000_000;

/// One row of any table, owned, so that rows can be shuffled and dealt to files.
#[derive(Clone, Debug)]
enum Row {
    Sample { rank: Option<u32>, step: u64, time: i64, metric: &'static str, value: f64 },
    Digest { rank: u32, step: u64, time: i64, digest: String },
    Collective { rank: u32, step: u64, seq: u64, start: i64, end: Option<i64> },
    Event { time: i64, kind: &'static str, subject: String },
    Placement { rank: u32 },
}

impl Row {
    /// The step a cut looks at; rows of the whole attempt stay.
    fn step(&self) -> Option<u64> {
        match self {
            Self::Sample { step, .. } | Self::Digest { step, .. } | Self::Collective { step, .. } => Some(*step),
            Self::Event { time, .. } => Some(((time - START_NS) / STEP_NS) as u64),
            Self::Placement { .. } => None,
        }
    }

    fn write(&self, writer: &mut FolderWriter) {
        let (run, attempt) = ("llm", 0);
        let written = match self {
            Self::Sample { rank, step, time, metric, value } => writer.sample(&SampleOut {
                run,
                attempt,
                rank: *rank,
                step: Some(*step),
                time: Some(*time),
                metric,
                value: *value,
            }),
            Self::Digest { rank, step, time, digest } => writer.digest(&DigestOut {
                run,
                attempt,
                rank: Some(*rank),
                step: Some(*step),
                time: Some(*time),
                kind: "weight",
                name: "layers.0",
                digest,
                group: None,
            }),
            Self::Collective { rank, step, seq, start, end } => writer.collective(&CollectiveOut {
                run,
                attempt,
                rank: *rank,
                comm: "dp",
                seq: *seq,
                op: "all_reduce",
                bytes: Some(1 << 20),
                signature: None,
                enqueued: Some(*start),
                start: Some(*start),
                end: *end,
                step: Some(*step),
                peer: None,
            }),
            Self::Event { time, kind, subject } => writer.event(&EventOut {
                time: *time,
                source: "sudo",
                kind,
                actor: Some("u-1"),
                run: Some(run),
                attempt: Some(attempt),
                node: None,
                rank: None,
                subject: Some(subject),
                detail: None,
            }),
            Self::Placement { rank } => writer.placement(&PlacementOut {
                run,
                attempt,
                rank: *rank,
                node: Some(if *rank < RANKS / 2 { "n01" } else { "n02" }),
                device: None,
                local_rank: None,
                dp: Some(*rank),
                tp: None,
                pp: None,
                ep: None,
                cp: None,
            }),
        };
        written.expect("a temporary folder takes rows");
    }
}

/// A run with a slow rank, a spike of the loss, a corrupted replica and a hang at its end, and the records before them.
fn faulty_run() -> Vec<Row> {
    let mut rows: Vec<Row> = (0..RANKS).map(|rank| Row::Placement { rank }).collect();
    for step in 0..STEPS {
        let begin = START_NS + step as i64 * STEP_NS;
        let spike = if (110..120).contains(&step) { 1.5 } else { 0.0 };
        let loss = 2.0 + 5.0 / (1.0 + step as f64 / 10.0) + 0.01 * noise(0, step, 1) + spike;
        rows.push(Row::Sample { rank: None, step, time: begin + STEP_NS / 2, metric: "loss", value: loss });
        for rank in 0..RANKS {
            let skew = i64::from(rank) * 1_000_000;
            let slow = if rank == 5 && (60..100).contains(&step) { 1.3 } else { 1.0 };
            let work = 0.4 * slow * (1.0 + 0.01 * noise(rank, step, 2));
            let time = begin + STEP_NS / 2 + skew;
            rows.push(Row::Sample { rank: Some(rank), step, time, metric: "forward_time_s", value: work });
            let is_corrupt = rank == 3 && step >= 150;
            let digest = format!("{:016x}", step * 31 + u64::from(is_corrupt));
            rows.push(Row::Digest { rank, step, time, digest });
            if !(step + 2 >= STEPS && rank == 6) {
                let is_stuck = step + 2 >= STEPS;
                let end = (!is_stuck).then_some(begin + STEP_NS * 8 / 10);
                rows.push(Row::Collective { rank, step, seq: step, start: begin + STEP_NS * 7 / 10 + skew, end });
            }
        }
    }
    rows.push(Row::Event { time: START_NS + 55 * STEP_NS, kind: "exec", subject: "nvidia-smi -lgc 900".to_owned() });
    for step in [50, 145, 153] {
        let time = START_NS + step * STEP_NS;
        rows.push(Row::Event { time, kind: "checkpoint", subject: format!("step-{step}") });
    }
    rows
}

/// Writes rows, dealt in turn to `parts` folders, and gives the folders.
fn write(rows: &[Row], parts: usize, formats: &[Format]) -> (TempDir, Vec<PathBuf>) {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let mut paths = Vec::new();
    for part in 0..parts {
        let path = dir.path().join(format!("part{part}"));
        let format = formats[part % formats.len()];
        let mut writer = FolderWriter::create(&path, format).expect("a temporary folder takes files");
        rows.iter().skip(part).step_by(parts).for_each(|row| row.write(&mut writer));
        writer.finish().expect("a temporary folder takes files");
        paths.push(path);
    }
    (dir, paths)
}

fn findings(rows: &[Row], parts: usize, formats: &[Format]) -> Findings {
    let (_dir, paths) = write(rows, parts, formats);
    let (findings, rejects) = replay(&paths, None).expect("the folders were just written");
    assert_eq!(rejects.count(), 0, "{:?}", rejects.summary());
    findings
}

fn json(findings: &Findings) -> String {
    recorded::json(&findings.incidents)
}

#[test]
fn the_faults_of_the_run_are_found_and_named() {
    let findings = findings(&faulty_run(), 1, &[Format::Csv]);
    let named: BTreeMap<Kind, Vec<u32>> = findings
        .incidents
        .iter()
        .filter(|incident| incident.merged_into.is_none())
        .map(|incident| (incident.kind, incident.suspects.iter().map(|suspect| suspect.rank.0).collect()))
        .collect();
    assert_eq!(named.get(&Kind::SlowRank), Some(&vec![5]), "{}", json(&findings));
    assert_eq!(named.get(&Kind::ReplicaMismatch), Some(&vec![3]), "{}", json(&findings));
    assert_eq!(named.get(&Kind::LossSpike), Some(&vec![]), "{}", json(&findings));
    assert_eq!(named.get(&Kind::Hang), Some(&vec![6]), "{}", json(&findings));
    assert_eq!(named.len(), 4, "{}", json(&findings));
    let slow = findings.incidents.iter().find(|incident| incident.kind == Kind::SlowRank).expect("asserted above");
    assert_eq!(slow.suspects[0].node.as_deref(), Some("n02"));
    assert_eq!(slow.changes.iter().map(|change| change.kind.as_str()).collect::<Vec<_>>(), ["exec"]);
    let mismatch = findings.incidents.iter().find(|incident| incident.kind == Kind::ReplicaMismatch).expect("asserted");
    assert_eq!(mismatch.last_good_checkpoint.as_ref().map(|good| good.name.as_str()), Some("step-145"));
    assert_eq!(mismatch.affected_checkpoints, ["step-153"]);
}

#[test]
fn order_split_and_format_of_the_rows_change_no_byte() {
    let rows = faulty_run();
    let expected = json(&findings(&rows, 1, &[Format::Csv]));
    let all =
        [Format::Csv, Format::CsvGz, Format::CsvZst, Format::Jsonl, Format::JsonlGz, Format::JsonlZst, Format::Parquet];
    for format in all {
        assert_eq!(json(&findings(&rows, 1, &[format])), expected, "{format:?}");
    }
    for seed in 0..4 {
        assert_eq!(json(&findings(&shuffled(&rows, seed), 5, &all)), expected, "seed {seed}");
    }
}

#[test]
fn sending_everything_twice_changes_no_byte() {
    let rows = faulty_run();
    let twice: Vec<Row> = rows.iter().chain(&rows).cloned().collect();
    assert_eq!(json(&findings(&twice, 3, &[Format::Jsonl])), json(&findings(&rows, 1, &[Format::Csv])));
}

#[test]
fn a_run_cut_at_a_step_says_what_the_whole_had_said_as_of_it() {
    let rows = faulty_run();
    let whole = lines(&findings(&rows, 1, &[Format::Csv]).changes);
    let mut said = 0;
    for cut in [20, 61, 64, 70, 99, 104, 111, 113, 119, 123, 125, 149, 151, 156, 158, STEPS] {
        let kept: Vec<Row> = rows.iter().filter(|row| row.step().is_none_or(|step| step <= cut)).cloned().collect();
        let part = lines(&findings(&kept, 1, &[Format::Csv]).changes);
        // The end of the input is judged as of the deadline: a call cut off in the middle is not there at all.
        assert_eq!(part, whole[..part.len()], "cut at {cut}");
        assert!(part.len() >= said, "cut at {cut} says less than an earlier one");
        said = part.len();
    }
    assert_eq!(said, whole.len(), "the cut at the end says everything");
    assert!(whole.len() > 8, "{whole:?}");
}

#[test]
fn a_restart_from_a_snapshot_anywhere_changes_no_byte() {
    let (_dir, paths) = write(&faulty_run(), 1, &[Format::Csv]);
    let log = Recording::read(&paths);
    let records = log.records.len();
    let expected = log.said_of(&log.records);
    for at in [0, 1, 100, 1_000, records / 2, records * 3 / 4, records - 20] {
        let said = log.said_with_restarts(&[at]);
        assert_eq!(said.changes, expected.changes, "restored before record {at}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    #[test]
    fn renaming_ranks_renames_the_suspects_and_changes_nothing_else(seed in 0..1_000_u64) {
        let rows = faulty_run();
        let mut names: Vec<u32> = (0..RANKS).collect();
        names.rotate_left((seed % u64::from(RANKS)) as usize);
        names.swap((seed / 8 % u64::from(RANKS)) as usize, (seed / 64 % u64::from(RANKS)) as usize);
        let renamed: Vec<Row> = rows.iter().map(|row| renamed(row, &names)).collect();
        let facts = |findings: &Findings, name: &dyn Fn(u32) -> u32| {
            let mut facts: Vec<_> = findings.incidents.iter().map(|incident| {
                let mut ranks: Vec<u32> = incident.suspects.iter().map(|suspect| name(suspect.rank.0)).collect();
                ranks.sort_unstable();
                (incident.kind, incident.severity, incident.first_step, incident.detected_step, incident.last_step, ranks)
            }).collect();
            facts.sort();
            facts
        };
        let before = facts(&findings(&rows, 1, &[Format::Csv]), &|rank| names[rank as usize]);
        let after = facts(&findings(&renamed, 1, &[Format::Csv]), &|rank| rank);
        prop_assert_eq!(before, after);
    }
}

fn renamed(row: &Row, names: &[u32]) -> Row {
    let mut row = row.clone();
    match &mut row {
        Row::Sample { rank: Some(rank), .. }
        | Row::Digest { rank, .. }
        | Row::Collective { rank, .. }
        | Row::Placement { rank } => *rank = names[*rank as usize],
        Row::Sample { rank: None, .. } | Row::Event { .. } => {}
    }
    row
}

#[test]
fn several_runs_in_one_folder_say_what_each_says_alone() {
    let (_dir, paths) = write(&faulty_run(), 1, &[Format::Csv]);
    let alone = json(&findings(&faulty_run(), 1, &[Format::Csv]));
    let both = Path::new(&paths[0]).join("samples.csv");
    let text = std::fs::read_to_string(&both).expect("the folder was just written");
    let other: String = text.lines().skip(1).map(|line| line.replacen("llm", "other", 1) + "\n").collect();
    std::fs::write(&both, text + &other).expect("the folder can be written");
    let (findings, _) = replay(&paths, None).expect("the folder is good");
    assert_eq!(findings.rows.len(), 2);
    let of_llm: String = json(&findings)
        .lines()
        .filter(|line| line.contains("\"run\":\"llm\""))
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(of_llm, alone);
    assert!(findings.incidents.iter().any(|incident| incident.run == RunId::new("other")));
}

/// Imports a file of the corpus as CSV tables.
fn real_tables(source: &ImportSource, file: &str) -> Tables {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/real").join(file);
    let mut writer = FolderWriter::create(dir.path(), Format::Csv).expect("a temporary folder takes files");
    import(source, &[path], None, &mut writer).expect("the corpus imports");
    writer.finish().expect("a temporary folder takes files");
    Tables::read(dir.path())
}

#[test]
fn real_logs_say_the_same_shuffled_and_what_they_had_said_when_cut() {
    let sources = [
        (ImportSource::Trace, "ranks/bytedance/trace_AR.csv.gz", vec![300, 404, 423, 900]),
        (
            ImportSource::Wide(WideOptions::default()),
            "train/mlperf51_llama31_8b/Cisco__hpf_n16__r1.csv.gz",
            vec![403, 2587, 2700, 2990],
        ),
        (ImportSource::FlightRecorder, "collectives/flight_recorder/gpu_error_1st.json.gz", vec![]),
    ];
    for (source, file, cuts) in sources {
        let tables = real_tables(&source, file);
        let whole = tables.replay(|_, lines| lines.to_vec());
        assert!(!whole.incidents.is_empty(), "{file}");
        let mixed = tables.replay(|_, lines| shuffled(lines, 5));
        assert_eq!(json(&mixed), json(&whole), "{file} in another order");
        for cut in cuts {
            let part = tables.replay(|header, lines| upto_step(header, lines, cut));
            let said = lines(&part.changes);
            assert_eq!(said, lines(&whole.changes)[..said.len()], "{file} cut at {cut}");
        }
    }
}

/// The lines up to a step; lines without one stay.
fn upto_step(header: &str, lines: &[String], cut: u64) -> Vec<String> {
    let Some(column) = header.split(',').position(|name| name == "step") else { return lines.to_vec() };
    let step = |line: &str| line.split(',').nth(column).and_then(|cell| cell.parse::<u64>().ok());
    lines.iter().filter(|line| step(line).is_none_or(|step| step <= cut)).cloned().collect()
}
