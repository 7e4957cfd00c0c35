//! Slack: a message by an incoming webhook, whose address is its secret.
//!
//! Source: <https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks> and
//! <https://docs.slack.dev/reference/block-kit/blocks>

use serde_json::json;

use super::{Outside, Post, Secret, Sink, SinkError, Words, judged};
use crate::Notice;
use crate::notice::shortened;

/// Characters of a header block.
const HEADER_BYTES_MAX: usize = 150;
/// Characters of a section block.
const SECTION_BYTES_MAX: usize = 3_000;

/// An incoming webhook of Slack, which can only say something new: an end is a message of its own.
#[derive(Clone, Debug)]
pub struct Slack {
    /// Where to.
    pub url: Secret,
    /// What is said in words.
    pub words: Words,
}

impl Sink for Slack {
    fn attempt(&self, notice: &Notice, outside: &dyn Outside) -> Result<String, SinkError> {
        let told = self.words.of(notice)?;
        let links: Vec<String> = told.links.iter().map(|(name, link)| format!("<{}|{name}>", escaped(link))).collect();
        let context = format!("{} · {}", escaped(&notice.incident.id.0), notice.word());
        let context = [vec![context], links].concat().join(" · ");
        let body = json!({
            "text": escaped(&told.title),
            "blocks": [
                {"type": "header", "text": {"type": "plain_text", "text": shortened(&told.title, HEADER_BYTES_MAX)}},
                {"type": "section", "text": {"type": "mrkdwn", "text": shortened(&escaped(&told.text), SECTION_BYTES_MAX)}},
                {"type": "context", "elements": [{"type": "mrkdwn", "text": shortened(&context, SECTION_BYTES_MAX)}]},
            ],
        });
        judged(&outside.post(&Post { url: self.url.clone(), headers: Vec::new(), body: body.to_string() })?)
    }
}

/// The three characters that Slack reads as markup: a run named `<!channel>` calls nobody.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use trainwarden_telemetry::ChangeKind;

    use super::*;
    use crate::sinks::testing::{Recorder, golden};
    use crate::testing::{incident, notice};

    #[test]
    fn a_message_is_what_slack_takes_and_a_name_in_it_calls_nobody() {
        let outside = Recorder::answering(200);
        let links = crate::sinks::Links { page: Some("https://tw.example/{id}".to_owned()), ..Default::default() };
        let slack =
            Slack { url: Secret::new("https://slack.example/T/B/x"), words: Words { links, ..Words::default() } };
        slack.attempt(&notice(ChangeKind::Opened, &incident("critical", &[17])), &outside).expect("taken");
        golden("slack.json", &outside.posts()[0].body);
        let mut evil = incident("critical", &[17]);
        evil.run = trainwarden_telemetry::RunId::new("<!channel>");
        evil.summary = "<!here> &".repeat(1_000);
        slack.attempt(&notice(ChangeKind::Opened, &evil), &outside).expect("taken");
        let body: serde_json::Value = serde_json::from_str(&outside.posts()[1].body).expect("JSON");
        assert!(!body["text"].to_string().contains("<!") && !body["blocks"][1].to_string().contains("<!"));
        assert!(body["blocks"][1]["text"]["text"].as_str().expect("text").len() <= SECTION_BYTES_MAX);
        assert!(body["blocks"][0]["text"]["text"].as_str().expect("text").len() <= HEADER_BYTES_MAX);
    }
}
