//! Where rows go, one by one.

use crate::{CollectiveOut, DigestOut, EventOut, IngestError, MemberOut, PlacementOut, SampleOut};

/// Takes rows of every table: a run folder that is written ([`FolderWriter`](crate::FolderWriter)), or a log that is
/// judged while it grows ([`Feed`](crate::Feed)).
///
/// The caller may hand rows over in any order that the sink's own page allows; the sink keeps what it needs of a row
/// before it returns.
pub trait RowSink {
    /// Takes a row of `samples`.
    ///
    /// # Errors
    /// What the sink's own page says.
    fn sample(&mut self, row: &SampleOut<'_>) -> Result<(), IngestError>;

    /// Takes a row of `collectives`.
    ///
    /// # Errors
    /// See [`RowSink::sample`].
    fn collective(&mut self, row: &CollectiveOut<'_>) -> Result<(), IngestError>;

    /// Takes a row of `digests`.
    ///
    /// # Errors
    /// See [`RowSink::sample`].
    fn digest(&mut self, row: &DigestOut<'_>) -> Result<(), IngestError>;

    /// Takes a row of `events`.
    ///
    /// # Errors
    /// See [`RowSink::sample`].
    fn event(&mut self, row: &EventOut<'_>) -> Result<(), IngestError>;

    /// Takes a row of `ranks`.
    ///
    /// # Errors
    /// See [`RowSink::sample`].
    fn placement(&mut self, row: &PlacementOut<'_>) -> Result<(), IngestError>;

    /// Takes a row of `groups`.
    ///
    /// # Errors
    /// See [`RowSink::sample`].
    fn member(&mut self, row: &MemberOut<'_>) -> Result<(), IngestError>;
}
