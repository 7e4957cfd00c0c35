//! Saved questions: each file begins with its question in words.

use crate::error::QueryError;

macro_rules! saved {
    ($($name:literal),* $(,)?) => { &[$(($name, include_str!(concat!("../forensics/", $name, ".sql")))),*] };
}

/// Name and text of each.
const SAVED: &[(&str, &str)] = saved![
    "arrived_last",
    "bandwidth",
    "changes_before",
    "checkpoint_lineage",
    "code_of_runs",
    "data_held",
    "figures_behind",
    "loss_steps",
    "nonfinite_first",
    "odd_replicas",
    "outlier_ranks",
    "slowest_ranks",
];

/// One saved question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saved {
    /// Its name.
    pub name: &'static str,
    /// The question in words.
    pub question: &'static str,
    /// The statement, comment and all.
    pub sql: &'static str,
}

impl Saved {
    /// The statement with its parameters filled in, as text literals.
    ///
    /// * `parameters`: name and value.
    ///
    /// # Errors
    /// [`QueryError::NoParameter`] when one is not given.
    pub fn with(&self, parameters: &[(String, String)]) -> Result<String, QueryError> {
        let (question, statement) = self.sql.split_once('\n').unwrap_or(("", self.sql));
        let mut filled = statement.to_owned();
        for (name, value) in parameters {
            filled = filled.replace(&format!("${name}"), &format!("'{}'", value.replace('\'', "''")));
        }
        // A value may hold a dollar; what was written in the statement is what counts.
        let missing = statement.split('$').skip(1).map(|rest| {
            rest.split(|character: char| !character.is_alphanumeric() && character != '_').next().unwrap_or_default()
        });
        let is_given = |name: &&str| parameters.iter().any(|(given, _)| given == name);
        if let Some(name) = missing.into_iter().find(|name| !is_given(name)) {
            return Err(QueryError::NoParameter { saved: self.name, parameter: name.to_owned() });
        }
        Ok(format!("{question}\n{filled}"))
    }
}

/// All saved questions, by name.
#[must_use]
pub fn saved() -> Vec<Saved> {
    SAVED
        .iter()
        .map(|(name, sql)| {
            let question = sql.lines().next().unwrap_or_default().trim_start_matches("--").trim();
            Saved { name, question, sql }
        })
        .collect()
}

/// The saved question of a name.
///
/// # Errors
/// [`QueryError::NoSaved`].
pub fn saved_named(name: &str) -> Result<Saved, QueryError> {
    saved().into_iter().find(|saved| saved.name == name).ok_or_else(|| {
        let names: Vec<&str> = SAVED.iter().map(|(name, _)| *name).collect();
        QueryError::NoSaved { name: name.to_owned(), known: names.join(", ") }
    })
}

#[cfg(test)]
mod tests;
