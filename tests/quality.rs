//! What the project promises of detection on the corpus of real telemetry (docs/quality.md).

#![expect(unused_crate_dependencies, reason = "what this target does not use serves another one of the package")]

use std::path::Path;
use std::process::Command;

#[test]
fn the_real_corpus_is_judged_as_promised() {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let json = dir.path().join("quality.json");
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/real");
    let mut quality = Command::new(env!("CARGO_BIN_EXE_quality"));
    let status = quality.arg("--data").arg(&data).arg("--json").arg(&json).status().expect("the binary was built");
    assert!(status.success());
    let text = std::fs::read_to_string(&json).expect("the account was written");
    let account: serde_json::Value = serde_json::from_str(&text).expect("the account is JSON");
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
