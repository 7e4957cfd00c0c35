//! Where there is more about an incident.

use trainwarden_telemetry::Incident;

/// Addresses with `{id}`, `{kind}` and `{run}` in them; one that is not told is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Links {
    /// The incident itself.
    pub page: Option<String>,
    /// What to do about its kind.
    pub runbook: Option<String>,
    /// The telemetry around it.
    pub query: Option<String>,
}

impl Links {
    /// Name and address of each.
    #[must_use]
    pub fn of(&self, incident: &Incident) -> Vec<(&'static str, String)> {
        let filled = |pattern: &String| {
            // What a sender chose is last: it cannot be taken for a place to fill.
            let address = pattern.replace("{id}", &incident.id.0).replace("{kind}", incident.kind.as_str());
            address.replace("{run}", &escaped(&incident.run.0))
        };
        let known = [("page", &self.page), ("runbook", &self.runbook), ("query", &self.query)];
        known.into_iter().filter_map(|(name, pattern)| Some((name, filled(pattern.as_ref()?)))).collect()
    }
}

/// A text as a part of a URL: RFC 3986, section 2.3.
fn escaped(text: &str) -> String {
    let escape = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        byte => format!("%{byte:02X}"),
    };
    text.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::incident;

    #[test]
    fn places_are_filled_and_a_runs_name_is_escaped() {
        let mut incident = incident("warning", &[]);
        incident.run = trainwarden_telemetry::RunId::new("a/{id} ü");
        let page = Some("https://tw.example/#/incidents/{id}?run={run}".to_owned());
        let runbook = Some("https://docs.example/runbooks/{kind}.md".to_owned());
        let links = Links { page, runbook, query: None }.of(&incident);
        let expected = [
            ("page", "https://tw.example/#/incidents/inc_7f3a0000deadbeef?run=a%2F%7Bid%7D%20%C3%BC"),
            ("runbook", "https://docs.example/runbooks/slowdown.rank.md"),
        ];
        assert_eq!(links, expected.map(|(name, address)| (name, address.to_owned())));
    }
}
