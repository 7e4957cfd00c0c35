//! What the project promises of detection on the corpus of real telemetry (docs/quality.md).

#![expect(unused_crate_dependencies, reason = "what this target does not use serves another one of the package")]

use std::path::Path;
use std::process::Command;

/// What `quality` gives as JSON, and what it prints.
fn account(arguments: &[&str]) -> (serde_json::Value, String) {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let json = dir.path().join("quality.json");
    let mut quality = Command::new(env!("CARGO_BIN_EXE_quality"));
    quality.current_dir(env!("CARGO_MANIFEST_DIR")).args(arguments).arg("--json").arg(&json);
    let output = quality.output().expect("the binary was built");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(&json).expect("the account was written");
    let printed = String::from_utf8(output.stdout).expect("tables are UTF-8");
    (serde_json::from_str(&text).expect("the account is JSON"), printed)
}

#[test]
fn the_real_corpus_is_judged_as_promised() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/real");
    let (account, _) = account(&["--data", &data.to_string_lossy(), "--seeds", "0"]);
    let rate = account["false_alarms_per_1000_rows"].as_f64().expect("a rate");
    assert!(rate <= 0.1, "{rate} incidents per 1,000 clean rows");
    let alarms = account["false_alarms"].as_array().expect("a list");
    assert!(alarms.iter().all(|alarm| alarm["is_trap"] == false), "an alarm stands at a by-design label: {alarms:?}");
    assert_eq!(account["clean_files"], 203);
    assert_eq!(account["hard_batches"][1], 0, "a hard batch is an alarm");
    for kind in [
        "divergence major documented",
        "divergence_nan major documented",
        "hang_gpu_error major documented",
        "hang_lock_gil major documented",
        "straggler_rank major documented",
    ] {
        let score = &account["kinds"][kind];
        assert!(score["labels"].as_u64() >= Some(1), "{kind} has no label");
        assert_eq!(score["found"], score["labels"], "{kind}: {score}");
        assert_eq!(score["exact"], score["labels"], "{kind}: {score}");
        assert_eq!(score["top1"], score["ranked"], "{kind}: {score}");
    }
}

#[test]
fn scenarios_are_scored_over_seeds_and_the_corpus_can_be_left_out() {
    let (account, printed) = account(&["--only", "scenarios/two_faults", "--seeds", "2"]);
    assert_eq!((account["files"].as_u64(), account["seeds"].as_u64()), (Some(0), Some(2)));
    let score = &account["scenarios"]["two_faults"];
    let counts =
        ["labels", "found", "exact", "ranked", "top1", "single", "single_top1"].map(|name| score[name].as_u64());
    assert_eq!(counts, [Some(4); 7], "two faults with two seeds: {score}");
    assert_eq!((score["runs"].as_u64(), score["twin_runs"].as_u64()), (Some(2), Some(2)));
    assert_eq!(score["delays"].as_array().map(Vec::len), Some(4));
    for list in ["missed", "otherwise", "extras", "twin_alarms"] {
        assert_eq!(score[list].as_array().map(Vec::len), Some(0), "{list}");
    }
    assert!(printed.contains("| two_faults | 4 | 4 | 4 | 4 of 4 | "), "{printed}");
    assert!(!printed.contains("### Clean"), "{printed}");
}
