//! Detects a device that lowers its clocks.
//!
//! # What it finds
//! `gpu_sm_clock_hz` or `gpu_mem_clock_hz` of some ranks lastingly below that of their peers, or a slowdown reason in
//! their `gpu_throttle_mask` that their peers do not have: `hardware.throttle` with those ranks. All clocks of the run
//! lastingly below what they were: the same kind, and nobody is named.
//!
//! # Why it matters
//! Synchronous training runs at the pace of its slowest device: one GPU that is too hot, or whose clock somebody locked,
//! holds up thousands.
//!
//! # How it decides
//! Against peers, ranks of one role; roles of fewer than [`POOL_MIN`] ranks are taken together, since a clock does not
//! know its role. A clock is judged as a straggler's work time is, with its inverse: a frozen offset a rank, noise pooled
//! over peers, e-CUSUMs against the budget, at most a quarter of the peers. What is less than [`LOSS_MIN`] of the clock
//! is not told. A mask convicts when in [`MASK_ROWS`] more rows than not it shows a slowdown by hardware, heat or power
//! brake, and not in most ranks. Being idle, set clocks, synchronised boost and the power cap are no slowdown; a clock
//! that is set lower on one rank is found by the clock. Ranks found within [`WAVE_ROWS`] rows of each other are one
//! case.
//!
//! The whole run is judged by the clock that more than a quarter of the ranks do not reach, against its median of the first 32
//! rows, frozen. It must be lower by [`RUN_LOSS`] in [`RUN_ROWS`] more rows than not, outside of announced pauses, and
//! the power must have fallen by [`POWER_LOSS`] or most masks show a slowdown or a power cap that they did not; a
//! heavier load lowers clocks and not the power. Where neither is logged it must be lower by [`RUN_LOSS_ALONE`]. A clock
//! lower by [`IDLE_LOSS`] is that of a device without work.
//!
//! A case ends after [`CLEAR_ROWS`] rows in which every rank was above half of its loss. Severity is the clock lost:
//! a tenth is critical, less is a warning. The newest temperature and reasons of the rank are told with it.
//!
//! # Parameters
//! `THROTTLE` in `budget.rs`, the constants named above, and those of `straggler/series.rs`.
//!
//! # Blind spots
//! A clock lower by less than 10 % from the first row on; a run that was capped before its first row; more than a
//! quarter of one role that is less than a quarter of the run; a cap of the run below [`RUN_LOSS_ALONE`] where neither
//! power nor masks are logged. Devices that lower their clock between two samples.
//!
//! # Source
//! NVML API reference, `NvmlClocksEventReasons`; "The Llama 3 Herd of Models" (2024): throughput swings by 1 to 2 % with
//! the temperature of the day, through the clocks.

mod context;
#[cfg(test)]
mod tests;
mod waves;
mod whole_run;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use trainwarden_kernels::Backend;
use trainwarden_telemetry::{
    Attempt, Evidence, Kind, Label, Metric, Observation, Onset, Panel, Phase, Rank, Verdict, Working,
};

use self::context::{Context, Newest};
use self::waves::{Member, Told, Waves};
use self::whole_run::WholeRun;
use super::label_history::LabelHistory;
use super::measured::measured;
use super::straggler::series::{Finding, Series};
use crate::budget::{self, Cadence};
use crate::{Against, DetectError, Judge, Scene, Spec};

const SPEC: Spec = Spec {
    name: "throttle",
    against: Against::Peers,
    watches: &[
        "samples: gpu_sm_clock_hz",
        "samples: gpu_mem_clock_hz",
        "samples: gpu_throttle_mask",
        "samples: gpu_temp_c",
        "samples: gpu_power_w",
    ],
    kinds: &[Kind::Throttle],
};
const VERSION: u8 = 1;
/// Roles below this size are judged together.
const POOL_MIN: usize = 4;
/// Part of the clock whose loss matters: three times what healthy ranks wander.
const LOSS_MIN: f32 = 0.03;
/// Rows, more than rows without, in which a mask shows a slowdown.
const MASK_ROWS: u8 = 6;
/// Findings this close together have one cause: a fan, a power supply, a hand.
const WAVE_ROWS: u32 = 16;
/// Part of the clock a whole run must lose.
const RUN_LOSS: f32 = 0.05;
/// The same where nothing tells a cap from a heavier load.
const RUN_LOSS_ALONE: f32 = 0.10;
/// Rows, more than rows without, that it must last.
const RUN_ROWS: u32 = 16;
/// Part of the power that a cap takes away.
const POWER_LOSS: f32 = 0.02;
/// A clock so much lower is that of an idle device.
const IDLE_LOSS: f32 = 0.60;
/// Rows above half of the loss that end a case.
const CLEAR_ROWS: u32 = 20;
/// Labels kept to tell when something began.
const LABELS_MAX: usize = 512;
/// Ranks named at most; their number is told.
const SUSPECTS_MAX: usize = 16;
const CLOCKS: [&str; 2] = ["gpu_sm_clock_hz", "gpu_mem_clock_hz"];
const MASK: &str = "gpu_throttle_mask";

/// See the module's page.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Throttle {
    clocks: BTreeMap<(Attempt, Metric), Watched>,
    masks: BTreeMap<Attempt, Waves>,
    contexts: BTreeMap<Attempt, Context>,
    cases: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Watched {
    series: Series,
    newest: Newest,
    labels: LabelHistory,
    cadence: Cadence,
    waves: Waves,
    whole: WholeRun,
}

impl Watched {
    fn onset(&self, finding: &Finding) -> (Label, Option<Onset>) {
        let begin = self.labels.back(finding.age);
        let low = self.labels.back(finding.age.saturating_add(finding.blur));
        let high = self.labels.back(finding.age.saturating_sub(finding.blur).max(1));
        let steps = begin.step.zip(low.step).zip(high.step);
        (begin, steps.map(|((step, low), high)| Onset { step, low, high }))
    }

    fn loss_now(&self, rank: Rank) -> f32 {
        let column = self.series.ranks.binary_search(&rank);
        column.map_or(0.0, |column| loss_of(self.series.ratio_now(column)))
    }

    /// Takes in a row: ends cases, and gives the ranks that are found by it.
    fn observe(&mut self, panel: &Panel, row: usize, scene: &Scene) -> (Vec<Verdict>, Vec<Finding>) {
        let label = panel.labels[row];
        if *self.series.ranks != *panel.ranks {
            self.series = self.series.onto(&panel.ranks, pooled(scene.peer_groups(panel.attempt, &panel.ranks)));
        }
        self.labels.push(label, LABELS_MAX);
        self.cadence.see(label);
        self.newest.take(panel, row);
        let cells = panel.values.row(row).into_iter().zip(panel.present.row(row));
        let inverse = |value: f32| if value.is_finite() && value > 0.0 { 1e9 / value } else { f32::NAN };
        let periods: Vec<f32> =
            cells.map(|(value, present)| if *present { inverse(*value) } else { f32::NAN }).collect();
        let log10_e = scene.budget.log10_e(&budget::THROTTLE, panel.ranks.len(), self.cadence.row_s());
        let threshold = (log10_e * std::f64::consts::LN_10) as f32 + 3.0_f32.ln();
        let mut findings = self.series.observe(&periods, threshold);
        findings.retain(|finding| {
            let matters = loss_of(finding.ratio) >= LOSS_MIN;
            if !matters {
                self.series.acquit(finding.column);
            }
            matters
        });
        let mut waves = std::mem::take(&mut self.waves);
        let is_low = |member: &Member| self.loss_now(member.rank) > 0.5 * member.loss;
        let (verdicts, acquitted) = waves.follow(label, is_low);
        self.waves = waves;
        for rank in acquitted {
            if let Ok(column) = self.series.ranks.binary_search(&rank) {
                self.series.acquit(column);
            }
        }
        (verdicts, findings)
    }
}

/// Part of the clock that is lost where its inverse is `ratio` times what it should be.
fn loss_of(ratio: f32) -> f32 {
    1.0 - 1.0 / ratio.max(1.0)
}

/// Groups with the small ones taken together.
fn pooled(groups: Vec<Vec<usize>>) -> Vec<Vec<usize>> {
    let (mut groups, small): (Vec<_>, Vec<_>) = groups.into_iter().partition(|columns| columns.len() >= POOL_MIN);
    let mut pool: Vec<usize> = small.into_iter().flatten().collect();
    pool.sort_unstable();
    groups.push(pool);
    groups
}

/// A clock is judged by its period, so that lower is more.
fn clock_working(finding: &Finding) -> Working {
    let period = Working::new(&[
        "the rules below read 1 / clock in the place of value, since a lower clock takes longer",
        "expected = observed x ratio; low = expected / (1 + tolerance); loss = 1 - 1 / ratio",
    ]);
    finding.working().after(period).with("loss", loss_of(finding.ratio))
}

impl Throttle {
    fn judge_clock(&mut self, panel: &Panel, row: usize, scene: &Scene) -> Vec<Verdict> {
        let context = self.contexts.entry(panel.attempt).or_default();
        let watched = self.clocks.entry((panel.attempt, panel.metric.clone())).or_default();
        let label = panel.labels[row];
        let (mut verdicts, findings) = watched.observe(panel, row, scene);
        let mut told = Told { panel, label, scene, context, clock: None };
        for finding in findings {
            let rank = watched.series.ranks[finding.column];
            let own = watched.newest.of(rank).unwrap_or(f32::NAN);
            let member = Member { rank, loss: loss_of(finding.ratio) };
            told.clock = Some((own, 1e9 / watched.series.level, finding.peers));
            let expected = f64::from(own * finding.ratio);
            let evidence = Evidence {
                step: label.step,
                rank: Some(rank),
                observed: Some(f64::from(own)),
                expected: Some(expected),
                low: Some(expected / f64::from(1.0 + finding.band)),
                log10_e: Some(finding.log10_e),
                note: context.words(rank),
                working: clock_working(&finding).after(measured((panel, row), finding.column, scene)),
                ..Evidence::new(SPEC.name, &panel.metric)
            };
            let onset = watched.onset(&finding);
            let verdict = watched.waves.take(member, onset, evidence, &told, self.cases);
            self.cases += u64::from(verdict.phase == Phase::Raised);
            say(&mut verdicts, verdict);
        }
        let pause = label.time.is_some_and(|time| scene.pause_during(panel.attempt, time, time).is_some());
        let support = context.support();
        let verdict = watched.whole.judge(panel, row, (pause, support), self.cases);
        self.cases += u64::from(verdict.as_ref().is_some_and(|verdict| verdict.phase == Phase::Raised));
        verdicts.extend(verdict);
        verdicts
    }

    fn judge_mask(&mut self, panel: &Panel, row: usize, scene: &Scene) -> Vec<Verdict> {
        let context = self.contexts.entry(panel.attempt).or_default();
        let waves = self.masks.entry(panel.attempt).or_default();
        let label = panel.labels[row];
        let found = context.take_mask(panel, row);
        let (mut verdicts, acquitted) = waves.follow(label, |member| context.is_slow(member.rank));
        context.acquit(&acquitted);
        let told = Told { panel, label, scene, context, clock: None };
        for (rank, first) in found {
            let onset = first.step.zip(label.step).map(|(step, high)| Onset { step, low: step, high });
            let evidence = Evidence {
                step: label.step,
                rank: Some(rank),
                observed: context.mask(rank).map(f64::from),
                note: context.words(rank),
                ..Evidence::new(SPEC.name, &panel.metric)
            };
            let verdict = waves.take(Member { rank, loss: 0.0 }, (first, onset), evidence, &told, self.cases);
            self.cases += u64::from(verdict.phase == Phase::Raised);
            say(&mut verdicts, verdict);
        }
        verdicts
    }
}

/// Of several words on one case in one row the last, fullest one is said.
fn say(verdicts: &mut Vec<Verdict>, verdict: Verdict) {
    match verdicts.iter_mut().find(|said| said.case == verdict.case && said.phase != Phase::Cleared) {
        Some(said) => *said = Verdict { phase: said.phase, ..verdict },
        None => verdicts.push(verdict),
    }
}

impl Judge for Throttle {
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
                self.clocks.retain(|(attempt, _), _| *attempt >= start.attempt);
                self.masks.retain(|attempt, _| *attempt >= start.attempt);
                self.contexts.retain(|attempt, _| *attempt >= start.attempt);
                return Ok(Vec::new());
            }
            Observation::Panel(panel) if !panel.is_whole_run() => panel,
            _ => return Ok(Vec::new()),
        };
        let rows = 0..panel.rows();
        Ok(match panel.metric.as_str() {
            MASK => rows.flat_map(|row| self.judge_mask(panel, row, scene)).collect(),
            name if CLOCKS.contains(&name) => rows.flat_map(|row| self.judge_clock(panel, row, scene)).collect(),
            "gpu_temp_c" | "gpu_power_w" => {
                let context = self.contexts.entry(panel.attempt).or_default();
                rows.for_each(|row| context.take_gauge(panel, row));
                Vec::new()
            }
            _ => Vec::new(),
        })
    }
}
