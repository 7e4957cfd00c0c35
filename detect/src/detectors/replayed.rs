//! Detects telemetry that was sent before: repeated, copied from another rank, or frozen.
//!
//! # What it finds
//! A series that repeats an earlier stretch bit for bit, its own or another rank's, and a noisy series that stands
//! still: `telemetry.replay`.
//!
//! # Why it matters
//! Whoever hides an act first makes the instruments look normal; a collector that died may repeat its last word.
//!
//! # How it decides
//! By law: noise does not repeat. Windows of `WINDOW` values are hashed; those whose hash picks them (one in
//! `ANCHOR_EVERY`, in more where over 2,048 ranks share the room; the same for equal content) are kept for
//! `HISTORY_ROWS` rows and looked up. Matches of one distance in a row add up: their length times the bits a value
//! carries must exceed `BITS_MIN` and the logarithm of the windows compared. The bits come from how often a value of the series equals one of the 16 before it, and of the next rank,
//! so quantised values carry few. Frozen: the same with how often a value equals the one before, and strictly inside
//! the range seen. Only noisy series are judged: they turn often and are not whole numbers, so schedules and counters
//! are quiet. A copy in the same row counts when the series mostly equalled none before. Attempts are never compared,
//! because a restart may compute the same again. Critical; frozen is a warning. [`CLEAR_ROWS`] rows without a match end
//! it.
//!
//! # Parameters
//! The constants above, `NOISY_ROWS`.
//!
//! # Blind spots
//! A replay with fresh noise added, or of more than `HISTORY_ROWS` rows ago; hardware gauges, which stand still.
//!
//! # Source
//! Anchors by content as in Manber's `sif` and winnowing (Schleimer, Wilkerson, Aiken, SIGMOD 2003).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use trainwarden_kernels::Backend;
use trainwarden_telemetry::{
    Attempt, Evidence, Kind, Label, Metric, Observation, Onset, Panel, Phase, Rank, Severity, Suspect, Verdict,
};

use super::repeats::{Found, Repeats};
use crate::{Against, DetectError, Judge, Scene, Spec};

const SPEC: Spec =
    Spec { name: "replayed", against: Against::Law, watches: &["samples: every noisy metric"], kinds: &[Kind::Replay] };
const VERSION: u8 = 2;

/// Rows without a match that end a case.
const CLEAR_ROWS: u64 = 64;
/// Metrics watched: each costs some kilobytes a rank.
const METRICS_MAX: usize = 32;
/// Cases open side by side.
const CASES_MAX: usize = 64;
/// Gauges of hardware stand still or at their limit by nature.
const GAUGES: [&str; 4] = ["gpu_", "nvlink_", "pcie_", "nic_"];

/// See the module's page.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Replayed {
    attempt: Attempt,
    metrics: BTreeMap<Metric, Repeats>,
    open: BTreeMap<(Metric, Option<Rank>), OpenCase>,
    cases: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct OpenCase {
    raised: Verdict,
    last_bad: Label,
    last_bad_row: u64,
}

impl Replayed {
    fn begin(&mut self, attempt: Attempt) -> Vec<Verdict> {
        let open = std::mem::take(&mut self.open);
        *self = Self { attempt, cases: self.cases, ..Self::default() };
        open.into_values().map(|case| Verdict { phase: Phase::Cleared, last: case.last_bad, ..case.raised }).collect()
    }

    fn judge_panel(&mut self, panel: &Panel, scene: &Scene) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        if panel.attempt > self.attempt {
            verdicts.extend(self.begin(panel.attempt));
        }
        let is_gauge = GAUGES.iter().any(|prefix| panel.metric.as_str().starts_with(prefix));
        let is_watched = self.metrics.contains_key(&panel.metric) || self.metrics.len() < METRICS_MAX;
        if panel.attempt < self.attempt || is_gauge || panel.metric.is_counter() || !is_watched {
            return verdicts;
        }
        for row in 0..panel.rows() {
            let repeats = self.metrics.entry(panel.metric.clone()).or_default();
            let found = repeats.observe(panel, row);
            let row_number = repeats.row();
            for found in found {
                verdicts.extend(self.raise(panel, row, &found, scene));
            }
            verdicts.extend(self.clear(&panel.metric, row_number));
        }
        verdicts
    }

    fn raise(&mut self, panel: &Panel, row: usize, found: &Found, scene: &Scene) -> Option<Verdict> {
        let label = panel.labels[row];
        let row_number = self.metrics[&panel.metric].row();
        let key = (panel.metric.clone(), found.rank);
        if let Some(case) = self.open.get_mut(&key) {
            (case.last_bad, case.last_bad_row) = (label, row_number);
            return None;
        }
        if self.open.len() == CASES_MAX {
            return None;
        }
        let verdict = raised(panel, label, found, Raising { case: self.cases, scene });
        self.cases += 1;
        self.open.insert(key, OpenCase { raised: verdict.clone(), last_bad: label, last_bad_row: row_number });
        Some(verdict)
    }

    fn clear(&mut self, metric: &Metric, row: u64) -> Vec<Verdict> {
        let is_over = |case: &OpenCase| row - case.last_bad_row > CLEAR_ROWS;
        let over: Vec<(Metric, Option<Rank>)> = self
            .open
            .iter()
            .filter(|(key, case)| key.0 == *metric && is_over(case))
            .map(|(key, _)| key.clone())
            .collect();
        let cases = over.into_iter().filter_map(|key| self.open.remove(&key));
        cases.map(|case| Verdict { phase: Phase::Cleared, last: case.last_bad, ..case.raised }).collect()
    }
}

struct Raising<'a> {
    case: u64,
    scene: &'a Scene,
}

fn raised(panel: &Panel, label: Label, found: &Found, raising: Raising<'_>) -> Verdict {
    let mut suspects: Vec<Suspect> = found.rank.into_iter().map(|rank| Suspect { rank, share: 1.0 }).collect();
    let is_frozen = found.source.is_none();
    let name =
        |rank: Option<Rank>| rank.map_or("the run".to_owned(), |rank| raising.scene.describe(panel.attempt, rank));
    let who = name(found.rank);
    let what = match found.source {
        None => format!("stands still for {} rows", found.length),
        Some((source, 0)) => {
            // Who of the two is the copy cannot be told from equal rows.
            suspects.iter_mut().for_each(|suspect| suspect.share = 0.5);
            suspects.extend(source.map(|rank| Suspect { rank, share: 0.5 }));
            format!("equals that of {} bit for bit over {} rows", name(source), found.length)
        }
        Some((source, lag)) => {
            format!("repeats that of {} from {lag} rows before, bit for bit over {} rows", name(source), found.length)
        }
    };
    let evidence = Evidence {
        step: label.step,
        rank: found.rank,
        observed: Some(found.bits),
        expected: Some(0.0),
        high: Some(found.bits_needed),
        note: Some("bits of noise that agree".to_owned()),
        ..Evidence::new(SPEC.name, &panel.metric)
    };
    Verdict {
        detector: SPEC.name.to_owned(),
        case: raising.case,
        phase: Phase::Raised,
        attempt: panel.attempt,
        kind: Kind::Replay,
        severity: if is_frozen { Severity::Warning } else { Severity::Critical },
        suspects,
        subject: panel.metric.to_string(),
        onset: found.first.step.map(|step| Onset { step, low: step, high: step }),
        first: found.first,
        last: label,
        summary: format!("`{}` of {who} {what}", panel.metric),
        evidence: vec![evidence],
    }
}

impl Judge for Replayed {
    const SPEC: Spec = SPEC;
    const VERSION: u8 = VERSION;

    fn judge(
        &mut self,
        seen: &Observation,
        scene: &Scene,
        _backend: &mut dyn Backend,
    ) -> Result<Vec<Verdict>, DetectError> {
        Ok(match seen {
            Observation::Panel(panel) => self.judge_panel(panel, scene),
            Observation::Attempt(start) if start.attempt > self.attempt => self.begin(start.attempt),
            _ => Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detectors::testing::{assert_restores, bare_scene, judge_all, rank_panel, row_by_row, run_panel};

    /// Noise in 0 to 1, the same for the same rank and row.
    fn noise(rank: u64, row: u64) -> f32 {
        let mut word = (rank << 32 | row).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (word >> 40) as f32 / (1u64 << 24) as f32
    }

    fn rows(metric: &str, count: u64, rows: u64, value: impl Fn(u64, u64) -> f32) -> Vec<Observation> {
        let cells = |row| (0..count).map(|rank| Some(value(rank, row))).collect();
        row_by_row(&rank_panel(metric, 0, &(0..rows).map(cells).collect::<Vec<_>>()))
    }

    fn judge(seen: &[Observation]) -> Vec<Verdict> {
        judge_all(&mut Replayed::default(), &mut bare_scene(), seen)
    }

    #[test]
    fn a_rank_that_sends_again_what_it_sent_is_named_once() {
        let value = |rank, row| noise(rank, if rank == 3 && row >= 300 { row - 200 } else { row });
        let seen = rows("step_time_s", 6, 480, value);
        let verdicts = judge(&seen);
        assert_eq!(verdicts.len(), 1, "{verdicts:?}");
        assert_eq!(verdicts[0].ranks().collect::<Vec<_>>(), [Rank(3)]);
        assert_eq!(verdicts[0].severity, Severity::Critical);
        assert!(verdicts[0].first.step.is_some_and(|step| (300..400).contains(&step.0)));
        assert_restores(|| Box::new(Replayed::default()), &seen);
    }

    #[test]
    fn a_rank_that_turns_into_a_copy_of_another_is_told_with_it_and_twins_by_nature_are_not() {
        let seen = rows("loss_local", 6, 400, |rank, row| noise(if rank == 4 && row >= 200 { 1 } else { rank }, row));
        let verdicts = judge(&seen);
        assert_eq!(verdicts.len(), 1, "{verdicts:?}");
        assert_eq!(verdicts[0].ranks().collect::<Vec<_>>(), [Rank(4), Rank(1)]);
        assert_eq!(judge(&rows("loss_local", 6, 400, |rank, row| noise(rank / 2, row))), []);
        assert_eq!(judge(&rows("grad_norm", 6, 400, |_, row| noise(0, row))), []);
    }

    #[test]
    fn a_noisy_series_that_stands_still_is_frozen_and_clears_when_it_moves() {
        let values: Vec<f32> =
            (0..400).map(|row| noise(0, if (200..300).contains(&row) { 200 } else { row })).collect();
        let seen = row_by_row(&run_panel("loss", 0, &values));
        let verdicts = judge(&seen);
        let phases: Vec<(Phase, Severity)> = verdicts.iter().map(|verdict| (verdict.phase, verdict.severity)).collect();
        assert_eq!(phases, [(Phase::Raised, Severity::Warning), (Phase::Cleared, Severity::Warning)]);
        assert_restores(|| Box::new(Replayed::default()), &seen);
    }

    #[test]
    fn times_rounded_to_a_millisecond_repeat_by_chance_and_are_quiet() {
        // Three, eight and thirty different values, and the coarse one sticky as real step times are.
        for levels in [3.0, 8.0, 30.0] {
            let value = |rank, row| 0.25 + (noise(rank, row) * levels).floor() / 1000.0;
            assert_eq!(judge(&rows("step_time_s", 16, 2_000, value)), [], "{levels} levels");
            assert_eq!(judge(&rows("step_time_s", 16, 2_000, |rank, row| value(rank, row / 3))), [], "sticky {levels}");
        }
    }

    #[test]
    fn schedules_counts_and_limits_are_quiet() {
        let warm_restarts = |_, row| 1e-3 * (1.0 + ((row % 100) as f32 / 100.0 * std::f32::consts::PI).cos());
        assert_eq!(judge(&rows("learning_rate", 4, 1_000, warm_restarts)), []);
        assert_eq!(judge(&rows("warmup", 4, 1_000, |_, row| (row.min(200)) as f32 * 1.5e-6)), []);
        assert_eq!(judge(&rows("tokens", 4, 1_000, |_, row| (noise(9, row % 200) * 1e4).floor())), []);
        assert_eq!(
            judge(&rows("mfu_ratio", 4, 1_000, |rank, row| noise(rank, row).max(if row > 300 { 1.0 } else { 0.0 }))),
            []
        );
        assert_eq!(judge(&rows("loss_local", 0, 3, |_, _| 0.0)), []);
        assert_eq!(judge(&rows("loss_local", 2, 300, |_, _| f32::NAN)), []);
    }

    #[test]
    fn a_restart_that_computes_the_same_again_is_another_attempt() {
        let first = rows("loss_local", 4, 300, noise);
        let again = first.iter().cloned().map(|seen| match seen {
            Observation::Panel(panel) => Observation::Panel(Panel { attempt: Attempt(1), ..panel }),
            other => other,
        });
        assert_eq!(judge(&first.iter().cloned().chain(again).collect::<Vec<_>>()), []);
        let twice: Vec<Observation> = first.iter().chain(&first).cloned().collect();
        assert_eq!(judge(&twice).len(), 4, "inside one attempt it is a replay");
    }
}
