//! PagerDuty, Events API v2: an incident triggers, is acknowledged, resolves, all under one key.
//!
//! Source: <https://developer.pagerduty.com/docs/send-alert-event>

use serde_json::json;
use trainwarden_telemetry::{ChangeKind, Severity};

use super::template::ranks_of;
use super::{Outside, Post, Secret, Sink, SinkError, Words, judged, rfc3339};
use crate::Notice;

/// Where PagerDuty takes events, outside of its European region.
pub const PAGERDUTY_URL: &str = "https://events.pagerduty.com/v2/enqueue";

/// A service of PagerDuty.
#[derive(Clone, Debug)]
pub struct PagerDuty {
    /// Where to.
    pub url: Secret,
    /// Which service.
    pub routing_key: Secret,
    /// What is said in words.
    pub words: Words,
}

impl Sink for PagerDuty {
    fn attempt(&self, notice: &Notice, outside: &dyn Outside) -> Result<String, SinkError> {
        let told = self.words.of(notice)?;
        let incident = &notice.incident;
        let action = match notice.change {
            ChangeKind::Opened | ChangeKind::Updated | ChangeKind::Reopened => "trigger",
            ChangeKind::Acknowledged => "acknowledge",
            ChangeKind::Resolved | ChangeKind::Merged => "resolve",
        };
        let mut event = json!({
            "routing_key": self.routing_key.reveal(),
            "event_action": action,
            // One incident there for one here, whatever becomes of it.
            "dedup_key": format!("trainwarden/{}", incident.id.0),
        });
        if action == "trigger" {
            let severity = if incident.severity == Severity::Critical { "critical" } else { "warning" };
            let page = told.links.iter().find(|(name, _)| *name == "page");
            event["client"] = json!("TrainWarden");
            if let Some((_, link)) = page {
                event["client_url"] = json!(link);
            }
            event["links"] = told.links.iter().map(|(name, link)| json!({"href": link, "text": name})).collect();
            event["payload"] = json!({
                "summary": told.title,
                "source": *incident.run.0,
                "severity": severity,
                "timestamp": rfc3339(incident.started_at.map_or(notice.told_at, |at| at.0)),
                "component": ranks_of(notice),
                "group": *incident.run.0,
                "class": incident.kind.as_str(),
                "custom_details": {"text": told.text, "incident": incident.id.0, "notice": notice.id},
            });
        }
        judged(&outside.post(&Post { url: self.url.clone(), headers: Vec::new(), body: event.to_string() })?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::testing::{Recorder, golden};
    use crate::testing::{incident, notice};

    #[test]
    fn an_incident_is_one_key_from_trigger_to_resolve() {
        let outside = Recorder::answering(202);
        let (url, routing_key) = (Secret::new(PAGERDUTY_URL), Secret::new("R0UT1NGK3Y"));
        let links =
            crate::sinks::Links { runbook: Some("https://docs.example/{kind}.md".to_owned()), ..Default::default() };
        let pager = PagerDuty { url, routing_key, words: Words { links, ..Words::default() } };
        assert!(!format!("{pager:?}").contains("R0UT1NGK3Y"));
        let changes = [ChangeKind::Opened, ChangeKind::Updated, ChangeKind::Acknowledged, ChangeKind::Resolved];
        for kind in changes {
            pager.attempt(&notice(kind, &incident("critical", &[17])), &outside).expect("taken");
        }
        golden("pagerduty.json", &outside.posts()[0].body);
        let events: Vec<serde_json::Value> =
            outside.posts().iter().map(|post| serde_json::from_str(&post.body).expect("JSON")).collect();
        let actions: Vec<_> = events.iter().map(|event| event["event_action"].as_str().expect("a word")).collect();
        assert_eq!(actions, ["trigger", "trigger", "acknowledge", "resolve"]);
        assert!(events.iter().all(|event| event["dedup_key"] == "trainwarden/inc_7f3a0000deadbeef"));
    }
}
