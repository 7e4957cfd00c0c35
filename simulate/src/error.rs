//! What can be wrong with a scenario.

/// A scenario that cannot be simulated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SimulateError {
    /// The text is no TOML, or has a field that is not known or of another type.
    #[error("cannot read the scenario")]
    Parse(#[from] toml::de::Error),
    /// A value that makes no sense.
    #[error("`{field}` is {value}, but must be {accepted}")]
    Value {
        /// The field, as in the file.
        field: &'static str,
        /// What was given.
        value: String,
        /// What is accepted.
        accepted: String,
    },
}

impl SimulateError {
    pub(crate) fn value(field: &'static str, value: impl ToString, accepted: impl Into<String>) -> Self {
        Self::Value { field, value: value.to_string(), accepted: accepted.into() }
    }
}
