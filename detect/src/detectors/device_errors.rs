//! Detects a device that reports errors: codes of its driver, and counters that grow.
//!
//! # What it finds
//! An Xid of the driver (`gpu_xid`): memory that cannot be corrected, remapped or trusted is `hardware.memory_errors`; a
//! device that fell off the bus, halted or lost a link is `hardware.fault`. A rank that counts memory errors
//! (`gpu_ecc_errors_total`, `hardware.memory_errors`) or retries on its bus (`pcie_replays_total`, `hardware.fault`)
//! clearly faster than its peers and than healthy devices do. Each names its rank.
//!
//! # Why it matters
//! Of the unplanned interruptions of the largest trainings most are hardware, and memory that fails announces it. What is
//! not corrected enters the weights.
//!
//! # How it decides
//! *Codes*, by law: zero or nothing is no error. A code is told when it comes or changes, as grave as the table in
//! `device_errors/codes.rs` has it: critical where data is lost or the device is, a warning where a person must look, and
//! information where the program is the usual cause (13, 31, 43, 45) or the code is not known. Gauges keep the last code
//! for ever: one that was there in the first row of the launch is old, and information. A case ends after
//! [`CLEAR_ROWS`] rows without a code.
//!
//! *Counters*, against peers: single corrected errors are normal, and not told. The growth of a row is weighed as a
//! Poisson count: ten, a hundred or a thousand times as many as expected, in three e-CUSUMs. Expected is the largest of
//! [`PEER_FACTOR`] times what the other ranks count and what healthy devices may: [`MEMORY_ERRORS_A_S`] and
//! [`REPLAYS_A_S`]. A row counts for no more than [`ROW_COUNT_MAX`] beyond what is expected, so that a burst convicts
//! nobody. At the threshold of the budget, with errors in [`ROWS_MIN`] rows, it is a warning. It ends after
//! [`QUIET_ROWS`] rows without an error.
//!
//! # Parameters
//! `DEVICE_ERRORS` in `budget.rs`, the constants named above, and the table of codes.
//!
//! # Blind spots
//! The counter does not tell corrected errors from others: without codes both are a warning. An error in the very first
//! row of a launch. Codes between two samples, of which a gauge keeps the last. Devices of other makers.
//!
//! # Source
//! NVIDIA, "Analyzing Xid Errors with the Xid Catalog"; NVML and DCGM, whose health watch warns from eight replays a
//! minute on (`DCGM_LIMIT_MAX_PCIREPLAY_RATE`); "The Llama 3 Herd of Models" (2024), table 5.

mod codes;
mod counter;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use trainwarden_kernels::Backend;
use trainwarden_telemetry::{
    Attempt, Evidence, Kind, Label, Metric, Observation, Onset, Panel, Phase, Rank, Severity, Step, Suspect, Verdict,
};

use self::codes::{Code, code_of};
use self::counter::{Counter, Finding};
use super::open_case::OpenCase;
use crate::budget;
use crate::{Against, DetectError, Judge, Scene, Spec};

const SPEC: Spec = Spec {
    name: "device_errors",
    against: Against::Peers,
    watches: &["samples: gpu_xid", "samples: gpu_ecc_errors_total", "samples: pcie_replays_total"],
    kinds: &[Kind::MemoryErrors, Kind::HardwareFault],
};
const VERSION: u8 = 1;
/// Rows without a code that end a case.
const CLEAR_ROWS: u32 = 20;
/// Rows without an error that end a case of a counter.
const QUIET_ROWS: u32 = 64;
/// Rows with errors that a finding of a counter needs.
const ROWS_MIN: u32 = 4;
/// Errors by which a row counts at most, beyond what is expected.
const ROW_COUNT_MAX: f64 = 4.0;
/// Corrected memory errors of a healthy device a second: one in an hour, ten times what fleets report.
const MEMORY_ERRORS_A_S: f64 = 1.0 / 3_600.0;
/// Replays of a healthy link a second: eight in a minute.
const REPLAYS_A_S: f64 = 8.0 / 60.0;
/// Times what the peers count that is still healthy: devices differ.
const PEER_FACTOR: f64 = 3.0;
const XID: &str = "gpu_xid";
const MEMORY: &str = "gpu_ecc_errors_total";
const REPLAYS: &str = "pcie_replays_total";

/// See the module's page.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct DeviceErrors {
    counters: BTreeMap<(Attempt, Metric), Counter>,
    codes: BTreeMap<Attempt, Codes>,
    /// First step of each launch, in whatever metric.
    begins: BTreeMap<Attempt, Step>,
    cases: u64,
}

/// The codes of one attempt.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Codes {
    ranks: Vec<Rank>,
    /// The newest code of each rank; zero = none.
    newest: Vec<u32>,
    rows: u32,
    open: BTreeMap<(Rank, Kind), OpenCase>,
}

/// What words are made of.
struct Told<'a> {
    panel: &'a Panel,
    label: Label,
    scene: &'a Scene,
    case: u64,
}

impl Codes {
    /// Other ranks than before: who stays keeps its code.
    fn follow(&mut self, ranks: &[Rank]) {
        if *self.ranks == *ranks {
            return;
        }
        let known = |rank: &Rank| self.ranks.binary_search(rank).map_or(0, |column| self.newest[column]);
        self.newest = ranks.iter().map(known).collect();
        self.ranks = ranks.to_vec();
    }

    /// A rank has no code in this row.
    fn calm(&mut self, rank: Rank, label: Label) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        for key in SPEC.kinds.iter().map(|kind| (rank, *kind)) {
            let Some(case) = self.open.get_mut(&key) else { continue };
            if let Some(cleared) = case.follow(false, label, CLEAR_ROWS) {
                verdicts.push(cleared);
                self.open.remove(&key);
            }
        }
        verdicts
    }

    /// A rank has a code in this row; gives a word when it is new.
    fn take(&mut self, rank: Rank, code: Code, is_new: bool, told: &Told<'_>) -> Option<Verdict> {
        let key = (rank, code.kind);
        if let Some(case) = self.open.get_mut(&key) {
            case.goes_on(told.label);
        }
        if !is_new {
            return None;
        }
        let word = word(rank, code, told);
        let Some(case) = self.open.get_mut(&key) else {
            self.open.insert(key, OpenCase::new(word.clone(), told.label));
            return Some(word);
        };
        let is_graver = word.severity > case.said.severity;
        if is_graver {
            (case.said.severity, case.said.summary) = (word.severity, word.summary);
        }
        Some(Verdict { phase: Phase::Updated, last: told.label, evidence: word.evidence, ..case.said.clone() })
    }
}

fn word(rank: Rank, code: Code, told: &Told<'_>) -> Verdict {
    let (panel, label) = (told.panel, told.label);
    let who = told.scene.describe(panel.attempt, rank);
    let at = label.step.map_or(String::new(), |step| format!(" at {step}"));
    let evidence = Evidence {
        step: label.step,
        rank: Some(rank),
        observed: Some(f64::from(code.xid)),
        note: Some(format!("Xid {}: {}", code.xid, code.words)),
        ..Evidence::new(SPEC.name, &panel.metric)
    };
    Verdict {
        detector: SPEC.name.to_owned(),
        case: told.case,
        phase: Phase::Raised,
        attempt: panel.attempt,
        kind: code.kind,
        severity: code.severity,
        suspects: vec![Suspect { rank, share: 1.0 }],
        subject: panel.metric.to_string(),
        onset: label.step.map(|step| Onset { step, low: step, high: step }),
        first: label,
        last: label,
        summary: format!("the device of {who} reports Xid {}{at}: {}", code.xid, code.words),
        evidence: vec![evidence],
    }
}

fn count_word(finding: &Finding, panel: &Panel, told: &Told<'_>) -> Verdict {
    let rank = panel.ranks[finding.column];
    let who = told.scene.describe(panel.attempt, rank);
    let since = finding.first.step.map_or(String::new(), |step| format!(" since {step}"));
    let (kind, what) = match panel.metric.as_str() {
        MEMORY => (Kind::MemoryErrors, "memory errors"),
        _ => (Kind::HardwareFault, "retries on its bus"),
    };
    let (count, rows, expected) = (finding.count, finding.rows, finding.expected);
    let evidence = Evidence {
        step: told.label.step,
        rank: Some(rank),
        observed: Some(count),
        expected: Some(expected),
        log10_e: Some(finding.log10_e),
        ..Evidence::new(SPEC.name, &panel.metric)
    };
    Verdict {
        detector: SPEC.name.to_owned(),
        case: told.case,
        phase: Phase::Raised,
        attempt: panel.attempt,
        kind,
        severity: Severity::Warning,
        suspects: vec![Suspect { rank, share: 1.0 }],
        subject: panel.metric.to_string(),
        onset: finding.first.step.map(|step| Onset { step, low: step, high: step }),
        first: finding.first,
        last: told.label,
        summary: format!(
            "{who} counts {count} {what} in {rows} rows{since}, where no more than {expected:.2} are normal"
        ),
        evidence: vec![evidence],
    }
}

impl DeviceErrors {
    fn judge_codes(&mut self, panel: &Panel, row: usize, scene: &Scene) -> Vec<Verdict> {
        let label = panel.labels[row];
        let is_begin = label.step.is_some() && self.begins.get(&panel.attempt).copied() >= label.step;
        let codes = self.codes.entry(panel.attempt).or_default();
        codes.follow(&panel.ranks);
        codes.rows += 1;
        let mut verdicts = Vec::new();
        for column in 0..panel.ranks.len() {
            let Some(value) = panel.value(row, column).filter(|value| value.is_finite()) else { continue };
            let (xid, rank) = (value.max(0.0) as u32, panel.ranks[column]);
            let is_new = std::mem::replace(&mut codes.newest[column], xid) != xid;
            if xid == 0 {
                if !codes.open.is_empty() {
                    verdicts.extend(codes.calm(rank, label));
                }
                continue;
            }
            let told = Told { panel, label, scene, case: self.cases };
            let verdict = codes.take(rank, code_of(xid, is_begin), is_new, &told);
            self.cases += u64::from(verdict.as_ref().is_some_and(|verdict| verdict.phase == Phase::Raised));
            verdicts.extend(verdict);
        }
        verdicts
    }

    fn judge_counter(&mut self, panel: &Panel, row: usize, scene: &Scene) -> Vec<Verdict> {
        let label = panel.labels[row];
        let counter = self.counters.entry((panel.attempt, panel.metric.clone())).or_default();
        let floor = if panel.metric.as_str() == MEMORY { MEMORY_ERRORS_A_S } else { REPLAYS_A_S };
        let log10_e = |row_s| scene.budget.log10_e(&budget::DEVICE_ERRORS, panel.ranks.len(), row_s);
        let findings = counter.observe(panel, row, floor, log10_e);
        let mut verdicts = counter.follow(panel, row);
        for finding in findings {
            let said = count_word(&finding, panel, &Told { panel, label, scene, case: self.cases });
            self.cases += 1;
            counter.open(finding.column, said.clone());
            verdicts.push(said);
        }
        verdicts
    }
}

impl Judge for DeviceErrors {
    const SPEC: Spec = SPEC;
    const VERSION: u8 = VERSION;

    fn judge(
        &mut self,
        seen: &Observation,
        scene: &Scene,
        _backend: &mut dyn Backend,
    ) -> Result<Vec<Verdict>, DetectError> {
        let panel = match seen {
            Observation::Attempt(start) => {
                self.counters.retain(|(attempt, _), _| *attempt >= start.attempt);
                self.codes.retain(|attempt, _| *attempt >= start.attempt);
                self.begins.retain(|attempt, _| *attempt >= start.attempt);
                return Ok(Vec::new());
            }
            Observation::Panel(panel) => panel,
            _ => return Ok(Vec::new()),
        };
        if let Some(step) = panel.labels.first().and_then(|label| label.step) {
            self.begins.entry(panel.attempt).or_insert(step);
        }
        let rows = 0..panel.rows();
        Ok(match panel.metric.as_str() {
            _ if panel.is_whole_run() => Vec::new(),
            XID => rows.flat_map(|row| self.judge_codes(panel, row, scene)).collect(),
            MEMORY | REPLAYS => rows.flat_map(|row| self.judge_counter(panel, row, scene)).collect(),
            _ => Vec::new(),
        })
    }
}
