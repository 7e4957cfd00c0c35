//! Kafka: do the brokers answer, and are our topics as they must be.

use trainwarden_ingest::kafka::{ClusterView, KafkaOptions, TopicView};
use trainwarden_telemetry::Fault;

use super::Finding;
use crate::output::counted;

const GROUP: &str = "kafka";

/// Looks at the brokers; gives the append time of the newest record of the log.
///
/// * `otlp`: topics that OpenTelemetry Collectors write to.
pub(super) fn look(options: &KafkaOptions, otlp: &[String]) -> (Vec<Finding>, Option<i64>) {
    let brokers = &options.brokers;
    match ClusterView::look(options, otlp) {
        Ok(view) => {
            let nodes = counted(view.nodes.len() as u64, "broker");
            let mut findings = vec![Finding::good(GROUP, format!("{nodes} at `{brokers}`: {}", view.nodes.join(", ")))];
            findings.extend(view.topics.iter().flat_map(topic));
            (findings, view.newest)
        }
        Err(error) => {
            let finding = match error.fault() {
                Fault::Outside => {
                    let advice =
                        "is `kafka.brokers` right, is a firewall between, and do they speak TLS where we do not?";
                    Finding::unreachable(GROUP, error.to_string(), advice)
                }
                _ => Finding::wrong(GROUP, error.to_string(), "see the table `kafka` of the configuration"),
            };
            (vec![finding], None)
        }
    }
}

fn topic(topic: &TopicView) -> Vec<Finding> {
    let TopicView { name, partitions, partitions_wanted, partitions_down, settings_wrong, is_described } = topic;
    if *partitions == 0 {
        // Ours are made by `serve`, where the brokers let it.
        let advice = "`serve` makes its own topics when it starts; others are made by whoever writes them";
        return vec![Finding::warning(GROUP, format!("there is no topic `{name}`"), advice)];
    }
    let mut findings = Vec::new();
    if *partitions_wanted > 0 && partitions != partitions_wanted {
        let what = format!("topic `{name}` has {partitions} partitions and must have {partitions_wanted}");
        findings.push(Finding::wrong(
            GROUP,
            what,
            "delete it, if nothing needs it: `serve` makes it anew; else name another one",
        ));
    }
    if *partitions_down > 0 {
        let what = format!("{} of topic `{name}` have no leader", counted((*partitions_down).into(), "partition"));
        findings.push(Finding::unreachable(GROUP, what, "start the brokers that hold them"));
    }
    for (key, found, wanted) in settings_wrong {
        let what = format!("topic `{name}` has {key}={found}, and needs {wanted}");
        let advice =
            format!("kafka-configs.sh --alter --entity-type topics --entity-name {name} --add-config {key}={wanted}");
        findings.push(Finding::wrong(GROUP, what, advice));
    }
    if !is_described {
        let what = format!("the settings of topic `{name}` cannot be looked at");
        findings.push(Finding::warning(GROUP, what, "give our user the right DESCRIBE_CONFIGS on it"));
    }
    if findings.is_empty() {
        let count = counted((*partitions).into(), "partition");
        findings.push(Finding::good(GROUP, format!("topic `{name}` is as it must be ({count})")));
    }
    findings
}
