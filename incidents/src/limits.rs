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
/// How long before the onset an audit record speaks for a cause: what a person would still connect.
pub(crate) const CHANGE_NEAR_S: f64 = 900.0;
/// An onset is known to about a step: so near to a checkpoint, or to another onset, it counts as there.
pub(crate) const CHECKPOINT_NEAR_STEPS: u64 = 1;
/// What begins within so many steps of a launch began with it.
pub(crate) const LAUNCH_NEAR_STEPS: u64 = 3;
/// Hypotheses below this are left out: nobody acts on them at night.
pub(crate) const HYPOTHESIS_SHOWN_MIN: f64 = 0.03;
/// A deliberate act is shown earlier: it is the one that nobody thinks of, and costs most when missed.
pub(crate) const INTENT_SHOWN_MIN: f64 = 0.02;
/// Rows of pace kept of a launch: the healthy reference and what detectors take to speak.
pub(crate) const PACE_ROWS_MAX: usize = 512;
/// Announced pauses kept until their row comes.
pub(crate) const PAUSES_MAX: usize = 16;
/// Open incidents whose hypotheses are looked at anew whenever one of the run changes.
pub(crate) const REFRESHED_MAX: usize = 64;
/// At most one rank in so many may be slow where the middle one stands for the healthy.
pub(crate) const PEERS_MIN: u64 = 4;
/// Suspects, evidence, audit records and checkpoints that a notice holds of each: a person reads no more on a phone.
pub(crate) const NOTICE_LIST_MAX: usize = 8;
/// Of each text in a notice.
pub(crate) const NOTICE_TEXT_BYTES_MAX: usize = 512;
