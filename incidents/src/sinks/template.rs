//! Titles and texts: templates of Jinja.

use minijinja::value::{Serde, Value};
use minijinja::{Environment, context};

use crate::Notice;

/// Why a template is none, or does not fit.
#[derive(Debug, thiserror::Error)]
#[error("{source:#}")]
pub struct TemplateError {
    source: minijinja::Error,
}

/// A template; an empty one stands for the default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template(String);

const TITLE: &str = "{% if is_test %}TEST {% endif %}{{ severity | upper }} {{ incident.run }}: {{ incident.kind }} \
{{ change }}{% if ranks %}, {{ ranks }}{% endif %}";
const TEXT: &str = "{% if is_test %}This is a test: nothing is wrong.\n{% endif %}{{ incident.summary }}
{%- if ranks %}\nRanks: {{ ranks }}{% endif %}
{%- if incident.scope %}\nScope: {{ incident.scope.ranks }} of {{ incident.scope.world_size }} ranks{% endif %}
{%- if incident.first_step is defined %}\nSince step {{ incident.first_step }}{% endif %}
{%- if incident.merged_into %}\nIt is part of {{ incident.merged_into }}{% endif %}
{%- for change in incident.changes %}\nBefore it: {{ change.kind }} by {{ change.source }}\
{% if change.node %} on {{ change.node }}{% endif %}{% if change.subject %}: {{ change.subject }}{% endif %}\
{% endfor %}
{%- if incident.last_good_checkpoint %}\nLast good checkpoint: {{ incident.last_good_checkpoint.name }}{% endif %}";

impl Template {
    /// A template that is well formed and fits a notice.
    ///
    /// # Errors
    /// [`TemplateError`]
    pub fn new(source: &str, example: &Notice) -> Result<Self, TemplateError> {
        let template = Self(source.to_owned());
        template.render(example, &[]).map(|_| template)
    }

    pub(super) fn title() -> Self {
        Self(TITLE.to_owned())
    }

    pub(super) fn text() -> Self {
        Self(TEXT.to_owned())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The text for a notice; control characters but the line end are left out.
    pub(super) fn render(&self, notice: &Notice, links: &[(&str, String)]) -> Result<String, TemplateError> {
        let environment = Environment::new();
        let incident = serde_json::to_value(&notice.incident).unwrap_or_default();
        let values = context! {
            incident => Value::from(Serde(&incident)),
            change => notice.word(),
            severity => notice.incident.severity.as_str(),
            ranks => ranks_of(notice),
            links => Value::from_pairs(links.iter().map(|(name, link)| ((*name).to_owned(), link.clone()))),
            is_test => notice.is_test,
        };
        let text = environment.render_str(&self.0, values).map_err(|source| TemplateError { source })?;
        Ok(text.chars().filter(|character| !character.is_control() || *character == '\n').collect())
    }
}

/// The ranks named, with their nodes: `17 (n02), 18 and 240 more`.
pub(super) fn ranks_of(notice: &Notice) -> String {
    /// More of them nobody reads.
    const NAMED_MAX: usize = 4;
    let incident = &notice.incident;
    let name = |suspect: &trainwarden_telemetry::IncidentSuspect| match &suspect.node {
        Some(node) => format!("rank {} ({node})", suspect.rank.0),
        None => format!("rank {}", suspect.rank.0),
    };
    let named: Vec<String> = incident.suspects.iter().take(NAMED_MAX).map(name).collect();
    let all = incident.scope.map_or(0, |scope| scope.ranks).max(incident.suspects.len() as u64);
    match all.saturating_sub(named.len() as u64) {
        _ if named.is_empty() => String::new(),
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use trainwarden_telemetry::ChangeKind;

    use super::*;
    use crate::testing::{incident, notice};

    #[test]
    fn the_defaults_say_what_where_and_since_when() {
        let notice = notice(ChangeKind::Opened, &incident("critical", &[17, 18, 19, 20, 21]));
        let title = Template::title().render(&notice, &[]).expect("it fits");
        let expected =
            "CRITICAL llm: slowdown.rank opened, rank 17 (n02), rank 18 (n02), rank 19 (n02), rank 20 (n02) and 1 more";
        assert_eq!(title, expected);
        let text = Template::text().render(&notice, &[]).expect("it fits");
        let expected = "rank 17 (n02) computes 31 % slower than its 63 stage peers since step 4118\n\
            Ranks: rank 17 (n02), rank 18 (n02), rank 19 (n02), rank 20 (n02) and 1 more\nScope: 5 of 8192 ranks\n\
            Since step 4120";
        assert_eq!(text, expected);
    }

    #[test]
    fn a_template_with_a_mistake_is_refused_with_its_place() {
        let notice = notice(ChangeKind::Opened, &incident("critical", &[]));
        let error = Template::new("{{ incident.kind | shout }}", &notice).expect_err("no such filter");
        assert!(error.to_string().contains("shout"), "{error}");
        assert!(Template::new("{% if %}", &notice).is_err());
        let own = Template::new("{{ change }}:\u{7} {{ links.page }}", &notice).expect("good");
        assert_eq!(own.render(&notice, &[("page", "http://x".to_owned())]).expect("it fits"), "opened: http://x");
    }
}
