//! The archive is a run folder too: what is judged from it is what was judged from the rows as they came.

#![expect(unused_crate_dependencies, reason = "what this target does not use serves another one of the package")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use trainwarden::replay::replay;
use trainwarden::simulation::{read_scenarios, write};
use trainwarden_ingest::Format;
use trainwarden_store::{Archive, ArchiveOptions, PartLimits};

use crate::archived::archive;

mod archived;

/// A different kind of table decides each of them: samples, collectives, digests, events.
const SCENARIOS: [&str; 5] = ["two_faults", "hang", "desync", "gradient_flip", "checkpoint_swap"];

fn json(path: &Path) -> (String, u64) {
    let (findings, rejects) = replay(&[PathBuf::from(path)], None).expect("replayed");
    assert_eq!(rejects.summary(), Vec::<String>::new());
    let lines = findings.incidents.iter().map(|incident| serde_json::to_string(incident).expect("JSON") + "\n");
    (lines.collect(), findings.rows.values().sum())
}

#[test]
fn a_replay_of_the_archive_says_byte_for_byte_what_one_of_the_folder_says() {
    let scenarios = read_scenarios(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios")).expect("scenarios");
    let together = tempfile::tempdir().expect("a folder");
    let mut told = String::new();
    for name in SCENARIOS {
        let dir = tempfile::tempdir().expect("a folder");
        let folder = dir.path().join("run");
        write(&scenarios[name], &folder, Format::Parquet).expect("simulated");
        let expected = json(&folder);
        assert!(!expected.0.is_empty() && expected.1 > 1_000, "{name} has incidents");
        let limits = PartLimits { seconds: 900, bytes_max: 1 << 20 };
        let place = Archive::open(ArchiveOptions::default(), dir.path()).expect("opened");
        assert!(archive(&folder, &place, limits) > 1, "{name} is in several parts");
        assert_eq!(json(&dir.path().join("archive")), expected, "{name}");
        told += &expected.0;
        let shared = Archive::open(ArchiveOptions::default(), together.path()).expect("opened");
        archive(&folder, &shared, PartLimits::default());
    }
    let (all, _) = json(&together.path().join("archive"));
    let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    assert_eq!(lines(&all), lines(&told), "several runs in one archive say what each says alone");
}
