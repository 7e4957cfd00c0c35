//! What a question can be asked of.

pub(crate) mod archive;
pub(crate) mod coverage;
pub(crate) mod docs;
pub(crate) mod folder;
pub(crate) mod incidents;
