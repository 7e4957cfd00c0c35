//! `webhook test`: one notice that says that it is a test, to each receiver.

use trainwarden_incidents::Notice;
use trainwarden_incidents::sinks::{Sink as _, SinkError};
use trainwarden_telemetry::{ChangeKind, Incident};

use super::Endpoint;

/// What one receiver answered.
#[derive(Debug)]
pub struct Trial {
    /// Its name.
    pub sink: String,
    /// Its answer.
    pub answer: Result<String, SinkError>,
}

/// Sends one notice to each receiver, and waits for what it answers.
#[must_use]
pub fn try_sinks(endpoints: &[Endpoint]) -> Vec<Trial> {
    let try_one = |endpoint: &Endpoint| {
        let now = endpoint.outside.now();
        let notice = test_notice(&endpoint.name, now.unsigned_abs(), now);
        let answer = endpoint.sink.attempt(&notice, &*endpoint.outside);
        Trial { sink: endpoint.name.clone(), answer }
    };
    endpoints.iter().map(try_one).collect()
}

/// A notice that says that it is a test.
pub(super) fn test_notice(sink: &str, number: u64, now: i64) -> Notice {
    let incident = serde_json::json!({
        "id": "inc_test", "run": "test", "attempt": 0, "kind": "slowdown.rank", "severity": "warning", "state": "open",
        "first_step": 100, "started_at": now, "detected_at": now, "suspects": [{"rank": 17, "node": "n02", "share": 1.0}],
        "scope": {"ranks": 1, "world_size": 64}, "summary": "a test by `trainwarden webhook test`: nothing is wrong",
        "evidence": [],
    });
    let incident: Incident = serde_json::from_value(incident).expect("the test's incident is one");
    Notice { is_test: true, ..Notice::new(sink, (number, ChangeKind::Opened), &incident, now) }
}
