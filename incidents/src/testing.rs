//! Incidents for tests, from their JSON.

use trainwarden_telemetry::{Change, ChangeKind, Incident};

/// An incident of run `llm` with these suspects.
pub(crate) fn incident(severity: &str, ranks: &[u32]) -> Incident {
    let share = 1.0 / ranks.len().max(1) as f64;
    let suspects: Vec<_> = ranks
        .iter()
        .map(|rank| serde_json::json!({"rank": rank, "node": format!("n{:02}", rank / 8), "share": share}))
        .collect();
    let json = serde_json::json!({
        "id": "inc_7f3a0000deadbeef", "run": "llm", "attempt": 0, "kind": "slowdown.rank", "severity": severity,
        "state": "open", "first_step": 4120, "onset": {"step": 4118, "low": 4110, "high": 4120}, "detected_step": 4123,
        "started_at": 1_766_000_000_000_000_000_i64, "detected_at": 1_766_000_009_000_000_000_i64,
        "suspects": suspects, "scope": {"ranks": ranks.len(), "world_size": 8192},
        "summary": "rank 17 (n02) computes 31 % slower than its 63 stage peers since step 4118",
        "evidence": [{"detector": "straggler", "metric": "step_time_s", "step": 4123, "rank": 17, "observed": 1.31,
            "expected": 1.0, "low": 0.98, "high": 1.02, "log10_e": 14.2}],
        "false_alarms_per_week": 1e-9,
    });
    serde_json::from_value(json).expect("an incident")
}

pub(crate) fn change(kind: ChangeKind, incident: Incident) -> Change {
    Change { change: kind, incident }
}

#[cfg(feature = "sinks")]
pub(crate) fn notice(kind: ChangeKind, incident: &Incident) -> crate::Notice {
    crate::Notice::new("hook", (3, kind), incident, 1_766_000_012_000_000_000)
}
