//! A prompt with history and completion.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use rustyline::completion::{Completer, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Editor, Helper};
use trainwarden_query::{FUNCTIONS, TABLES, saved, words};

use super::inquiry::Inquiry;
use crate::output::tell;

const HELP: &str = "A statement ends with `;`.
  \\d             tables          \\d TABLE       columns of a table, and what they mean
  \\s             saved questions \\s NAME        ask one
  \\h             functions       \\q             quit";

/// Words of SQL that are completed.
const KEYWORDS: &[&str] = &[
    "select",
    "from",
    "where",
    "group by",
    "order by",
    "limit",
    "join",
    "left join",
    "using",
    "having",
    "distinct",
    "with",
    "over",
    "partition by",
    "between",
    "is null",
    "is not null",
    "explain",
    "explain analyze",
    "union all",
    "case",
    "when",
    "then",
    "else",
    "end",
    "count(*)",
    "avg",
    "min",
    "max",
    "sum",
    "desc",
    "interval",
    "unnest",
];

/// Asks until the end of the input.
///
/// # Errors
/// When the terminal fails.
pub(super) fn ask_all(inquiry: &mut Inquiry) -> Result<()> {
    inquiry.make_interruptible();
    let mut editor: Editor<Words, FileHistory> = Editor::new().context("cannot use this terminal")?;
    editor.set_helper(Some(Words(words())));
    let history = history_path();
    if let Some(path) = &history {
        // There is none before the first time.
        let _ = editor.load_history(path);
    }
    println!("trainwarden sql; \\? for help");
    loop {
        match editor.readline("> ") {
            Ok(line) => {
                // A line that cannot be remembered can still be asked.
                let _ = editor.add_history_entry(line.trim());
                if line.trim() == "\\q" {
                    break;
                }
                answer(inquiry, line.trim());
            }
            Err(ReadlineError::Interrupted) => {}
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(error).context("cannot read from this terminal"),
        }
    }
    if let Some(path) = &history {
        let kept = path.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(ReadlineError::from);
        if let Err(error) = kept.and_then(|()| editor.save_history(path)) {
            tell(&format!("the history is not kept in `{}`: {error}", path.display()));
        }
    }
    Ok(())
}

fn answer(inquiry: &Inquiry, line: &str) {
    let (command, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let sql = match (command, rest.trim()) {
        ("", _) => return,
        ("\\?", _) => return println!("{HELP}"),
        ("\\d", "") => return TABLES.iter().for_each(|(name, what)| println!("{name:<14} {what}")),
        ("\\d", table) => {
            let table = table.trim_end_matches(';').replace('\'', "''");
            format!("select \"column\", type, doc from columns where \"table\" = '{table}'")
        }
        ("\\h", _) => return FUNCTIONS.iter().for_each(|(_, usage, what)| println!("{usage:<52} {what}")),
        ("\\s", "") => return saved().iter().for_each(|saved| println!("{:<20} {}", saved.name, saved.question)),
        ("\\s", name) => match trainwarden_query::saved_named(name) {
            Ok(saved) => saved.sql.to_owned(),
            Err(error) => return tell(&format!("error: {error}")),
        },
        _ if line.starts_with('\\') => return println!("{HELP}"),
        _ => line.to_owned(),
    };
    if let Err(error) = inquiry.ask_and_tell(&sql) {
        tell(&format!("error: {error:#}"));
    }
}

fn history_path() -> Option<PathBuf> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/state"));
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).or_else(home)?;
    Some(state.join("trainwarden/sql_history"))
}

/// Tables, columns and functions, to complete from.
struct Words(Vec<String>);

impl Helper for Words {}
impl Highlighter for Words {}
impl Hinter for Words {
    type Hint = String;
}

impl Validator for Words {
    /// A statement goes on over lines until its semicolon.
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let input = context.input().trim();
        let is_whole = input.is_empty() || input.starts_with('\\') || input.ends_with(';');
        Ok(if is_whole { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}

impl Completer for Words {
    type Candidate = Pair;

    fn complete(&self, line: &str, at: usize, _context: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let is_part = |character: char| character.is_alphanumeric() || character == '_' || character == '\\';
        let start = line[..at].rfind(|character| !is_part(character)).map_or(0, |before| before + 1);
        let begun = line[start..at].to_lowercase();
        let known = self.0.iter().map(String::as_str).chain(KEYWORDS.iter().copied());
        let fits = known.filter(|word| !begun.is_empty() && word.starts_with(&begun));
        Ok((start, fits.map(|word| Pair { display: word.to_owned(), replacement: word.to_owned() }).collect()))
    }
}
