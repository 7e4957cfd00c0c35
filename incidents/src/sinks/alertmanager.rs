//! Prometheus Alertmanager, API v2: one alert an incident, said again while it is open.
//!
//! Alertmanager tells alerts apart by their labels, and takes one that is not said again for over. So the labels are those
//! of an incident that never change, and whatever changes is an annotation.
//!
//! Source: <https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml>

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use trainwarden_telemetry::{ChangeKind, Severity};

use super::template::ranks_of;
use super::{Outside, Post, Secret, Sink, SinkError, Words, judged, rfc3339};
use crate::Notice;

/// An alert that is not said again ends after so many times the pause: four that were missed and one that is late.
const REPEATS_MISSED_MAX: u32 = 5;
/// Alerts in one request.
const ALERTS_MAX: usize = 64;

/// One member of a cluster of Alertmanager. Each member is a receiver of its own, as Prometheus has it: they agree among
/// themselves who notifies.
#[derive(Clone, Debug)]
pub struct Alertmanager {
    /// Where it is, without the path of the API.
    pub url: Secret,
    /// Who we are, where it asks.
    pub bearer: Option<Secret>,
    /// How often an open incident is said again.
    pub repeats_every: Duration,
    /// Added to every alert: cluster, team.
    pub labels: BTreeMap<String, String>,
    /// What is said in words.
    pub words: Words,
}

impl Sink for Alertmanager {
    fn attempt(&self, notice: &Notice, outside: &dyn Outside) -> Result<String, SinkError> {
        let now = outside.now();
        let mut alerts = vec![self.alert(notice, notice.incident.severity, now, notice.is_over())?];
        // Its severity is a label: as a warning it is over.
        if notice.change == ChangeKind::Updated && notice.incident.severity == Severity::Critical {
            alerts.push(self.alert(notice, Severity::Warning, now, true)?);
        }
        self.post(&alerts, outside)
    }

    fn repeats_every(&self) -> Option<Duration> {
        Some(self.repeats_every)
    }

    fn repeat(&self, notices: &[Notice], outside: &dyn Outside) -> Result<String, SinkError> {
        let now = outside.now();
        for chunk in notices.chunks(ALERTS_MAX) {
            let alert = |notice: &Notice| self.alert(notice, notice.incident.severity, now, notice.is_over());
            let alerts: Vec<Value> = chunk.iter().map(alert).collect::<Result<_, _>>()?;
            self.post(&alerts, outside)?;
        }
        Ok(format!("{} alerts said again", notices.len()))
    }
}

impl Alertmanager {
    fn alert(&self, notice: &Notice, severity: Severity, now: i64, is_over: bool) -> Result<Value, SinkError> {
        let told = self.words.of(notice)?;
        let incident = &notice.incident;
        let kind = incident.kind.as_str();
        let component = kind.split('.').next().unwrap_or(kind);
        let mut labels = self.labels.clone();
        let own = [
            ("alertname", kind),
            ("severity", severity.as_str()),
            ("run", &*incident.run.0),
            ("incident", &incident.id.0),
            ("component", component),
            ("service", "trainwarden"),
        ];
        labels.extend(own.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let mut annotations = BTreeMap::from([
            ("summary", told.title),
            ("description", told.text),
            ("incident_id", incident.id.0.clone()),
            ("ranks", ranks_of(notice)),
        ]);
        let mut generator = None;
        for (name, link) in told.links {
            match name {
                "page" => generator = Some(annotations.entry("dashboard_url").or_insert(link).clone()),
                "runbook" => _ = annotations.insert("runbook_url", link),
                _ => _ = annotations.insert("query_url", link),
            }
        }
        annotations.retain(|_, text| !text.is_empty());
        // A recorded run may have begun at any time; no alert begins after it is said.
        let ends = if is_over { notice.told_at.min(now) } else { now.saturating_add(self.lasts_ns()) };
        let starts = incident.started_at.map_or(notice.told_at, |at| at.0).min(now).min(ends);
        let mut alert = json!({
            "labels": labels, "annotations": annotations, "startsAt": rfc3339(starts), "endsAt": rfc3339(ends),
        });
        if let Some(link) = generator {
            alert["generatorURL"] = json!(link);
        }
        Ok(alert)
    }

    /// How long an alert lasts that is not said again, in nanoseconds.
    fn lasts_ns(&self) -> i64 {
        i64::try_from((self.repeats_every * REPEATS_MISSED_MAX).as_nanos()).unwrap_or(i64::MAX)
    }

    fn post(&self, alerts: &[Value], outside: &dyn Outside) -> Result<String, SinkError> {
        let url = Secret::new(format!("{}/api/v2/alerts", self.url.reveal().trim_end_matches('/')));
        let bearer = self.bearer.iter().map(|token| ("authorization", token));
        let headers = bearer.map(|(name, token)| (name, Secret::new(format!("Bearer {}", token.reveal())))).collect();
        let body = serde_json::to_string(alerts).unwrap_or_default();
        judged(&outside.post(&Post { url, headers, body })?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::testing::{Recorder, golden};
    use crate::testing::{incident, notice};

    fn alertmanager() -> Alertmanager {
        let labels = BTreeMap::from([("cluster".to_owned(), "c1".to_owned())]);
        let bearer = Some(Secret::new("t0ken"));
        let (url, repeats_every) = (Secret::new("http://am.example:9093/"), Duration::from_secs(60));
        Alertmanager { url, bearer, repeats_every, labels, words: Words::default() }
    }

    fn alerts(outside: &Recorder) -> Vec<Vec<Value>> {
        outside.posts().iter().map(|post| serde_json::from_str(&post.body).expect("JSON")).collect()
    }

    #[test]
    fn the_labels_of_an_incident_never_change_and_ranks_are_none_of_them() {
        let outside = Recorder::answering(200);
        let sink = alertmanager();
        sink.attempt(&notice(ChangeKind::Opened, &incident("critical", &[17])), &outside).expect("taken");
        sink.repeat(&[notice(ChangeKind::Updated, &incident("critical", &[17, 18]))], &outside).expect("taken");
        outside.pass(30);
        sink.attempt(&notice(ChangeKind::Resolved, &incident("critical", &[])), &outside).expect("taken");
        let posted = outside.posts();
        assert_eq!(posted[0].url.reveal(), "http://am.example:9093/api/v2/alerts");
        assert_eq!(posted[0].headers, [("authorization", Secret::new("Bearer t0ken"))]);
        golden("alertmanager.json", &posted[0].body);
        let alerts = alerts(&outside);
        assert!(alerts.iter().all(|alerts| alerts.len() == 1 && alerts[0]["labels"] == alerts[0]["labels"]));
        assert_eq!(alerts[0][0]["labels"], alerts[1][0]["labels"]);
        assert_eq!(alerts[0][0]["labels"], alerts[2][0]["labels"]);
        assert!(!alerts[0][0]["labels"].to_string().contains("17"));
        assert_eq!(alerts[1][0]["endsAt"], "2025-12-17T19:38:32.000Z");
        assert_eq!(alerts[2][0]["endsAt"], "2025-12-17T19:33:32.000Z");
    }

    #[test]
    fn what_becomes_critical_is_over_as_a_warning() {
        let outside = Recorder::answering(200);
        alertmanager().attempt(&notice(ChangeKind::Updated, &incident("critical", &[17])), &outside).expect("taken");
        let alerts = &alerts(&outside)[0];
        let told: Vec<_> = alerts.iter().map(|alert| (&alert["labels"]["severity"], &alert["endsAt"])).collect();
        assert_eq!(told[0], (&json!("critical"), &json!("2025-12-17T19:38:32.000Z")));
        assert_eq!(told[1], (&json!("warning"), &json!("2025-12-17T19:33:32.000Z")));
    }
}
