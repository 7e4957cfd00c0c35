//! Every metric that the process exports, in the text form of Prometheus.

use std::fmt::Write as _;

use crate::serve::desk::{Desk, Health};

/// Of the text form.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The inventory: name, type and meaning.
pub const INVENTORY: [(&str, &str, &str); 14] = [
    ("up", "gauge", "0 while a part (log, state, archive) does not work"),
    ("receive_records_total", "counter", "records taken from the log, by partition"),
    ("receive_next_offset", "gauge", "the next offset, by partition"),
    ("decode_records_rejected_total", "counter", "records set aside, by partition and reason"),
    ("otlp_points_total", "counter", "data points that came by OTLP and are durable in the log"),
    ("otlp_points_rejected_total", "counter", "data points, and records of a topic, that were not taken, by reason"),
    ("align_rows_late_total", "counter", "rows that came after their panel was judged, by partition"),
    ("align_rows_repeated_total", "counter", "rows equal to one that was there, by partition"),
    ("align_rows_conflicting_total", "counter", "rows unequal to one of the same key, by partition"),
    ("notify_notices_pending", "gauge", "notices that wait in the outbox, by sink"),
    ("notify_notices_delivered_total", "counter", "notices that arrived, by sink"),
    ("notify_notices_refused_total", "counter", "notices refused for good and set aside, by sink"),
    ("notify_attempts_failed_total", "counter", "attempts that failed, by sink"),
    ("notify_circuit_open", "gauge", "1 while a sink is left alone because it fails, by sink"),
];

/// The page that Prometheus reads.
#[must_use]
pub fn page(desk: &Desk) -> String {
    let health = desk.health();
    let partitions = desk.partitions();
    let otlp = desk.otlp();
    let mut page = String::new();
    for (name, kind, meaning) in INVENTORY {
        // Writing into memory does not fail.
        let _ = writeln!(page, "# HELP trainwarden_{name} {meaning}\n# TYPE trainwarden_{name} {kind}");
        if name == "up" {
            for (part, health) in &health {
                let is_up = u64::from(!matches!(health, Health::Failed(_)));
                sample(&mut page, name, &format!("{{part=\"{part}\"}}"), &is_up.to_string());
            }
        }
        match name {
            "otlp_points_total" => sample(&mut page, name, "", &otlp.points.to_string()),
            "otlp_points_rejected_total" => otlp.refused.iter().for_each(|(reason, count)| {
                sample(&mut page, name, &format!("{{reason=\"{reason}\"}}"), &count.to_string());
            }),
            _ => {}
        }
        #[cfg(feature = "alerts")]
        for (sink, status) in desk.board().sinks() {
            let value = match name {
                "notify_notices_pending" => status.pending,
                "notify_notices_delivered_total" => status.delivered,
                "notify_notices_refused_total" => status.refused,
                "notify_attempts_failed_total" => status.failed,
                "notify_circuit_open" => u64::from(status.open_circuit.is_some()),
                _ => continue,
            };
            sample(&mut page, name, &format!("{{sink=\"{sink}\"}}"), &value.to_string());
        }
        for (partition, progress) in &partitions {
            let labels = format!("{{partition=\"{partition}\"}}");
            let value = match name {
                "receive_records_total" => progress.records,
                "receive_next_offset" => progress.next,
                "align_rows_late_total" => progress.counts.late,
                "align_rows_repeated_total" => progress.counts.repeated,
                "align_rows_conflicting_total" => progress.counts.conflicting,
                "decode_records_rejected_total" => {
                    for (reason, count) in &progress.rejects {
                        let labels = format!("{{partition=\"{partition}\",reason=\"{reason}\"}}");
                        sample(&mut page, name, &labels, &count.to_string());
                    }
                    continue;
                }
                _ => continue,
            };
            sample(&mut page, name, &labels, &value.to_string());
        }
    }
    page
}

fn sample(page: &mut String, name: &str, labels: &str, value: &str) {
    let _ = writeln!(page, "trainwarden_{name}{labels} {value}");
}
