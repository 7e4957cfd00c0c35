//! Who has to act on an error: one question that every error of the house answers.

/// Whose fault an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Who called: the data, the input or the arguments are wrong.
    Input,
    /// The surroundings: disk, permissions, memory, a broker, a device.
    Outside,
    /// This program: a bug.
    Ours,
}
