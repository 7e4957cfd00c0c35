//! What an error of the engine means for who asked: where, and what to write instead.

use datafusion::common::{DataFusionError, SchemaError};

use crate::engine::Engine;
use crate::error::{Problem, QueryError};
use crate::gate::place_of;

/// Likeness of two names from which one is taken for a slip of the other, 0 to 1.
const LIKENESS_MIN: f64 = 0.7;
/// Names that are told where none is like the one that was written.
const NAMES_SHOWN: usize = 24;

/// The problem behind an error, with its place in the text.
pub(crate) fn problem_of(error: &QueryError, sql: &str, engine: Option<&Engine>) -> Problem {
    match error {
        QueryError::Statement(problem) => problem.clone(),
        QueryError::Engine(error) => of_engine(error, sql, engine),
        other => {
            let source = std::error::Error::source(other).map(|source| format!(": {source}")).unwrap_or_default();
            Problem::new(format!("{other}{source}"))
        }
    }
}

fn of_engine(error: &DataFusionError, sql: &str, engine: Option<&Engine>) -> Problem {
    let root = error.find_root();
    let text = root.strip_backtrace();
    if let DataFusionError::SchemaError(schema, _) = root
        && let SchemaError::FieldNotFound { field, valid_fields } = schema.as_ref()
    {
        let names: Vec<String> = valid_fields.iter().map(|field| field.name.clone()).collect();
        let message = format!("there is no column `{}` here", field.name);
        return placed(message, sql, &field.name, hint("columns", &field.name, names));
    }
    if let Some(name) = between(&text, "table '", "' not found").map(last_part) {
        let names = engine.map(|engine| engine.tables().iter().map(|(name, _)| (*name).to_owned()).collect());
        return placed(
            format!("there is no table `{name}`"),
            sql,
            name,
            hint("tables", name, names.unwrap_or_default()),
        );
    }
    let function = between(&text, "Invalid function '", "'").or(between(&text, "table function '", "' not found"));
    if let Some(name) = function {
        let names = engine.map(Engine::functions).unwrap_or_default();
        let close = nearest(name, &names).map(|near| format!("did you mean `{near}`?"));
        let list = || "docs/sql.md lists the functions".to_owned();
        return placed(format!("there is no function `{name}`"), sql, name, Some(close.unwrap_or_else(list)));
    }
    let mut problem = Problem::new(plain(&text));
    if matches!(root, DataFusionError::ResourcesExhausted(_)) {
        problem = Problem::new("the statement needs more memory than it may use".to_owned());
        problem.hint = Some("ask for fewer rows: a run, a date, a metric, or LIMIT without ORDER BY".to_owned());
    }
    if let Some(span) = error.diagnostic().and_then(|diagnostic| diagnostic.span) {
        (problem.line, problem.column) = (Some(span.start.line), Some(span.start.column));
    }
    problem
}

fn placed(message: String, sql: &str, name: &str, hint: Option<String>) -> Problem {
    let place = place_of(sql, name);
    Problem { message, line: place.map(|place| place.0), column: place.map(|place| place.1), hint }
}

/// The name that was meant, or the names that there are.
fn hint(what: &str, name: &str, mut names: Vec<String>) -> Option<String> {
    if let Some(near) = nearest(name, &names) {
        return Some(format!("did you mean `{near}`?"));
    }
    names.sort();
    names.dedup();
    let shown = names.len().min(NAMES_SHOWN);
    (shown > 0).then(|| format!("{what} here are {}", names[..shown].join(", ")))
}

fn nearest<'a>(name: &str, names: &'a [String]) -> Option<&'a str> {
    let name = name.to_ascii_lowercase();
    let likeness = |candidate: &&String| strsim::jaro_winkler(&name, &candidate.to_ascii_lowercase());
    let best = names.iter().max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(&best) >= LIKENESS_MIN).then_some(best.as_str())
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let start = text.find(before)? + before.len();
    let length = text[start..].find(after)?;
    Some(&text[start..start + length])
}

/// The name itself, of one that says in which catalog and schema.
fn last_part(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// Without the engine's own words for its layers.
fn plain(text: &str) -> String {
    let known = ["Error during planning: ", "Execution error: ", "External error: ", "Arrow error: ", "SQL error: "];
    let text = known.iter().fold(text.trim(), |text, layer| text.strip_prefix(layer).unwrap_or(text));
    let cut = text.split("\n\nbacktrace:").next().unwrap_or(text);
    cut.split("This issue was likely caused by a bug").next().unwrap_or(cut).trim().to_owned()
}
