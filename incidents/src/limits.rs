//! Every limit of this crate, with its reason.

/// Evidence kept with an incident: what a person reads through; the strongest of each kind stays.
pub(crate) const EVIDENCE_MAX: usize = 24;
/// Audit records shown: more than a screen of them explains nothing.
pub(crate) const AUDIT_SHOWN_MAX: usize = 20;
/// Audit records remembered: a busy cluster's last hours.
pub(crate) const AUDIT_KEPT_MAX: usize = 4096;
/// How long before the onset a change is still worth showing: a working day.
pub(crate) const AUDIT_LOOKBACK_NS: i64 = 12 * 3_600 * 1_000_000_000;
/// Checkpoints remembered by name: the longest runs keep fewer.
pub(crate) const CHECKPOINTS_MAX: usize = 4096;
/// Suspects shown, so that an incident stays below 32 KiB of JSON; a wider group is told by its size.
pub(crate) const SUSPECTS_MAX: usize = 256;
/// An effect may begin this many steps before its cause is said to have begun: both onsets are estimates.
pub(crate) const SLACK_STEPS: u64 = 32;
/// The same in log time, for rows without steps.
pub(crate) const SLACK_NS: i64 = 120 * 1_000_000_000;
/// An incident that comes back within this many steps after it ended is the same incident.
pub(crate) const REOPEN_STEPS: u64 = 200;
/// The same in log time.
pub(crate) const REOPEN_NS: i64 = 600 * 1_000_000_000;
/// Suspects, evidence, audit records and checkpoints that a notice holds of each: a person reads no more on a phone.
pub(crate) const NOTICE_LIST_MAX: usize = 8;
/// Of each text in a notice.
pub(crate) const NOTICE_TEXT_BYTES_MAX: usize = 512;
