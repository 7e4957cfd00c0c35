//! Standard Webhooks 1.0: a signed POST, which receivers of many languages have a library for.
//!
//! Source: <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>

use serde_json::json;

use super::{BODY_BYTES_MAX, Outside, Post, Secret, SigningKeys, Sink, SinkError, Words, judged, rfc3339};
use crate::Notice;

/// A receiver of Standard Webhooks.
#[derive(Clone, Debug)]
pub struct Webhook {
    /// Where to.
    pub url: Secret,
    /// Who signs.
    pub keys: SigningKeys,
    /// What is said in words.
    pub words: Words,
}

impl Sink for Webhook {
    fn attempt(&self, notice: &Notice, outside: &dyn Outside) -> Result<String, SinkError> {
        let body = payload(notice, &self.words)?;
        let seconds = outside.now().div_euclid(1_000_000_000);
        let headers = vec![
            ("webhook-id", Secret::new(&notice.id)),
            ("webhook-timestamp", Secret::new(seconds.to_string())),
            ("webhook-signature", Secret::new(self.keys.sign(&notice.id, seconds, &body))),
        ];
        judged(&outside.post(&Post { url: self.url.clone(), headers, body })?)
    }
}

/// The body: what happened, when, and the incident in brief. It is the same whenever the notice is sent.
pub(super) fn payload(notice: &Notice, words: &Words) -> Result<String, SinkError> {
    let told = words.of(notice)?;
    let links: serde_json::Map<_, _> =
        told.links.iter().map(|(name, link)| ((*name).to_owned(), json!(link))).collect();
    let mut incident = serde_json::to_value(&notice.incident).unwrap_or_default();
    loop {
        let body = json!({
            "type": format!("incident.{}", notice.word()),
            "timestamp": rfc3339(notice.told_at),
            "data": {
                "id": notice.id, "title": told.title, "text": told.text, "links": links, "test": notice.is_test,
                "incident": incident,
            },
        })
        .to_string();
        if body.len() < BODY_BYTES_MAX || !shrink(&mut incident) {
            return Ok(body);
        }
    }
}

/// Leaves the longest part of an incident out that is not needed to know it by; false where only those are left.
fn shrink(incident: &mut serde_json::Value) -> bool {
    const KEPT: [&str; 9] =
        ["id", "run", "attempt", "kind", "severity", "state", "summary", "scope", "last_good_checkpoint"];
    let Some(fields) = incident.as_object_mut() else { return false };
    let parts = fields.iter().filter(|(name, _)| !KEPT.contains(&name.as_str()));
    let longest = parts.max_by_key(|(_, value)| value.to_string().len()).map(|(name, _)| name.clone());
    longest.is_some_and(|name| fields.remove(&name).is_some())
}

#[cfg(test)]
mod tests {
    use trainwarden_telemetry::ChangeKind;

    use super::*;
    use crate::sinks::testing::{Recorder, golden};
    use crate::testing::{incident, notice};

    fn webhook() -> Webhook {
        let keys = SigningKeys::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a key");
        Webhook { url: Secret::new("https://hook.example/in"), keys, words: Words::default() }
    }

    #[test]
    fn the_body_is_what_docs_show_and_the_same_at_every_attempt() {
        let outside = Recorder::answering(200);
        let notice = notice(ChangeKind::Opened, &incident("critical", &[17]));
        webhook().attempt(&notice, &outside).expect("taken");
        outside.pass(60);
        webhook().attempt(&notice, &outside).expect("taken");
        let posts = outside.posts();
        golden("webhook.json", &posts[0].body);
        assert_eq!(posts[0].body, posts[1].body);
        let header = |post: &Post, name| {
            post.headers.iter().find(|(known, _)| *known == name).map(|(_, value)| value.reveal().to_owned())
        };
        assert_eq!(header(&posts[0], "webhook-id"), Some(notice.id));
        assert_eq!(header(&posts[0], "webhook-id"), header(&posts[1], "webhook-id"));
        assert_eq!(header(&posts[1], "webhook-timestamp"), Some("1766000072".to_owned()));
        assert_ne!(header(&posts[0], "webhook-signature"), header(&posts[1], "webhook-signature"));
    }

    #[test]
    fn the_body_stays_below_20_kb_whatever_the_incident() {
        let ranks: Vec<u32> = (0..8_192).collect();
        let mut wide = incident("critical", &ranks);
        for suspect in &mut wide.suspects {
            suspect.node = Some("\u{1}\"".repeat(4_000));
            suspect.device = Some("\u{1}".repeat(4_000));
        }
        wide.summary = "\u{1}".repeat(100_000);
        wide.affected_checkpoints = vec!["\u{1}".repeat(9_000); 900];
        wide.evidence[0].metric = trainwarden_telemetry::Metric::new(&"\u{1}".repeat(3_000));
        let outside = Recorder::answering(200);
        webhook().attempt(&notice(ChangeKind::Opened, &wide), &outside).expect("taken");
        let body = outside.posts()[0].body.clone();
        assert!(body.len() < BODY_BYTES_MAX, "{} bytes", body.len());
        let value: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(value["data"]["incident"]["scope"]["ranks"], 8_192);
    }

    #[test]
    fn an_answer_says_whose_fault_it_is() {
        use crate::deliver::Outcome;
        let notice = notice(ChangeKind::Opened, &incident("critical", &[17]));
        for (status, outcome) in [
            (400, Outcome::Refused),
            (413, Outcome::Refused),
            (401, Outcome::Failed(None)),
            (503, Outcome::Failed(None)),
        ] {
            let error = webhook().attempt(&notice, &Recorder::answering(status)).expect_err("no success");
            assert_eq!(error.outcome(), outcome, "{status}");
        }
        // A redirect is no success: nobody follows it.
        assert!(webhook().attempt(&notice, &Recorder::answering(302)).is_err());
    }
}
