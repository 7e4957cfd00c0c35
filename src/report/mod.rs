//! `report`: one incident as one HTML file that stands alone: no script, no network, on a screen and on paper.
//!
//! The same input gives the same bytes. Text from telemetry is escaped where it is put into the page, by the template
//! or by the drawings, and nowhere else.

mod as_logged;
mod case_file;
mod heat_map;
mod line_plot;
mod pages;
mod plots;
mod svg;
mod timeline;
mod trace;
mod unaffected;
mod view;
mod witness;
mod words;

use anyhow::{Context, Result};
use minijinja::value::{Serde, Value};
use minijinja::{AutoEscape, Environment, HtmlEscape, UndefinedBehavior};

use self::case_file::CaseFile;
pub use self::case_file::{Input, one_of};
use self::view::View;
use crate::config::ImpactConfig;
use trainwarden_telemetry::{Incident, Working};

/// The page; `.html` makes the engine escape what it puts in.
const TEMPLATE: (&str, &str) = ("report.html", include_str!("report.html"));
/// How it looks.
const STYLE: (&str, &str) = ("report.css", include_str!("report.css"));

/// The report of an incident.
///
/// * `id`: its id, or the begin of it that no other has.
/// * `impact`: what a GPU-hour costs, where that is known.
/// * Returns HTML.
///
/// # Errors
/// When no such incident is found, or the input cannot be read.
pub fn report(input: &Input, id: &str, impact: &ImpactConfig) -> Result<String> {
    let case = CaseFile::gather(input, id, impact)?;
    render(&View::of(&case, input))
}

/// What the log says of each piece of evidence of an incident, by its place: the value at its step and the spread of what
/// it is compared with.
///
/// # Errors
/// When the paths cannot be read.
pub fn as_logged(paths: &[std::path::PathBuf], incident: &Incident) -> Result<Vec<Working>> {
    let mut sight = witness::look(paths, incident)?;
    let places = 0..incident.evidence.len();
    Ok(places.map(|at| sight.cells.remove(&at).map(|cell| cell.working).unwrap_or_default()).collect())
}

fn render(view: &View) -> Result<String> {
    let mut engine = Environment::new();
    engine.set_undefined_behavior(UndefinedBehavior::Strict);
    engine.set_auto_escape_callback(|name| if name.ends_with(".html") { AutoEscape::Html } else { AutoEscape::None });
    engine.add_filter("prose", |text: String| Value::from_safe_string(prose(&text)));
    for (name, source) in [TEMPLATE, STYLE] {
        engine.add_template(name, source).context("the template of the report is wrong")?;
    }
    let page = engine.get_template(TEMPLATE.0).and_then(|template| template.render(Serde(view)));
    page.context("the template of the report is wrong")
}

/// Text as HTML, with what stands in backticks as code.
fn prose(text: &str) -> String {
    let escaped = HtmlEscape(text).to_string();
    let parts: Vec<&str> = escaped.split('`').collect();
    if parts.len().is_multiple_of(2) {
        return escaped; // A backtick without its twin is one.
    }
    let mark = |(place, part): (usize, &&str)| {
        if place % 2 == 1 { format!("<code>{part}</code>") } else { (*part).to_owned() }
    };
    parts.iter().enumerate().map(mark).collect()
}

#[cfg(test)]
mod tests {
    use super::prose;

    #[test]
    fn backticks_are_code_and_nothing_else_is_markup() {
        assert_eq!(prose("`a<b>` of `c`"), "<code>a&lt;b&gt;</code> of <code>c</code>");
        assert_eq!(prose("one ` alone <script>"), "one ` alone &lt;script&gt;");
    }
}
