//! Detects a rank that does its own work slower than the ranks that do the same work.
//!
//! # What it finds
//! A rank whose own work (forward, backward, optimizer, data, a mini-batch) takes longer than its peers', step after
//! step: `slowdown.rank`. From the first row on, after a change, or by a slow ramp; a single slow step is none.
//!
//! # Why it matters
//! In synchronous training everybody waits for the slowest: one rank of thousands that is 10 % slow costs 10 % of all.
//!
//! # How it decides
//! Against peers, ranks of one role. Each cell is divided by the median of its peers' cells in that row (without its
//! own), so that what happens to all ranks at once cancels. A rank's own median ratio of the first 32 rows is its
//! offset: ranks differ a little for ever. Offsets become more exact over 256 rows while nothing speaks against the
//! rank, and never move again, so that a ramp cannot teach them. Noise is pooled over the peers of those rows, as wide
//! as its 50, 90 and 99 % quantiles ask, and inflated by its correlation from row to row. For each rank three e-CUSUMs
//! weigh shifts of a quarter, one and three deviations against "slower by no more than the tolerance", which is 1 %, or
//! three standard errors of the offset where these are more. One row carries no more evidence than such rows are rare
//! among the peers of late: where pauses wander over the ranks, chance lets three fall on one. At the threshold of the
//! budget a finding is verified: it
//! lasted three rows, it is larger than the tolerance, it stands five robust spreads outside what its peers wander in
//! the same time (by a short running mean; from 12 and 64 rows on by longer ones, which tell smaller sizes), and no
//! more than a quarter of the peers is slow with it, half as much or more; else it is the job or the design, and no
//! rank's fault.
//! Before there are offsets (rows 8 to 32) one e-CUSUM weighs three deviations against "slower by no more than 10 %".
//! A rank counts that was more than 10 % slow in nine of ten of at least eight rows, from the first row or a later one
//! on, and stands in these three times as far from its peers as 95 % of them do: a continuum of unequal workers is
//! design, one far outside is not. Who is under such suspicion when offsets are frozen teaches nobody's noise.
//! In groups of two and three a rank must also have left its own past, since two cannot outvote one.
//! Ranks of one node found within 32 rows are one case. A case is over when the mean ratio was below half of what
//! it was for 20 rows. Severity is the throughput lost: the metric's share of the step times `1 - 1 / ratio`, and that
//! of the other work in which the rank is slow by two standard errors or more. A lasting slowdown is a matter for a
//! person: it is a warning unless three standard errors more are still less than 2 %.
//!
//! # Parameters
//! `STRAGGLER` in `budget.rs`, [`NODE_ROWS`], [`CLEAR_ROWS`], [`SIZE_ERRORS`]; in `straggler/series.rs`: `WARM_ROWS`, `TOLERANCE`,
//! `EARLY_TOLERANCE`, `OFFSET_ROWS`, `SHIFTS`, `GAP_SPREADS`, `MEAN_ROWS`, `EARLY_GAP`.
//!
//! # Blind spots
//! Where only `step_time_s` is logged, synchronous ranks all show the slowest one's time, and nobody stands apart.
//! A rank without peers. A rank slow by less than 10 % from the first row on. More than a quarter of a group at once.
//! `comm_time_s` is not looked at: whoever waits longest there is the victim. `checkpoint_time_s` is unequal by design.
//!
//! # Source
//! E-detectors: Shin, Ramdas, Rinaldo (2022); stage peers: Lin et al., "Understanding Stragglers in
//! Large Model Training Using What-if Analysis" (2025).

pub(crate) mod series;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use trainwarden_kernels::Backend;
use trainwarden_telemetry::{
    Attempt, Evidence, Kind, Label, Metric, Observation, Onset, Panel, Phase, Rank, Severity, Suspect, Verdict,
};

use super::label_history::LabelHistory;
use super::measured::measured;
use crate::budget::{self, Cadence};
use crate::{Against, DetectError, Judge, Scene, Spec};
use series::{Finding, Series, TOLERANCE};

const SPEC: Spec = Spec {
    name: "straggler",
    against: Against::Peers,
    watches: &["samples: *_time_s of own work by rank", "samples: batch_time_norm by rank"],
    kinds: &[Kind::SlowRank],
};
const VERSION: u8 = 2;
/// Findings on one node this close together are one case.
const NODE_ROWS: u32 = 32;
/// Rows below half of its size that end a case.
const CLEAR_ROWS: u32 = 20;
/// A case that grew by this factor is worth another word.
const GROWTH: f32 = 2.0;
/// Standard errors around the size of a slowdown within which it may lie.
const SIZE_ERRORS: f64 = 3.0;
/// Standard errors from which a rank counts as slow in other work too.
const ELSEWHERE_ERRORS: f32 = 2.0;
/// Labels kept to tell when something began.
const LABELS_MAX: usize = 1_024;
/// Times that are not a rank's own work.
const NOT_OWN: [&str; 2] = ["comm_time_s", "checkpoint_time_s"];
/// The whole of a step: other work is a share of it.
const WHOLE: [&str; 2] = ["step_time_s", "batch_time_norm"];

/// True for metrics this detector judges.
pub(crate) fn is_own_work(metric: &Metric) -> bool {
    let name = metric.as_str();
    (name.ends_with("_time_s") && !NOT_OWN.contains(&name)) || name == "batch_time_norm"
}

/// See the module's page.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Straggler {
    metrics: BTreeMap<(Attempt, Metric), Watched>,
    cases: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Watched {
    series: Series,
    labels: LabelHistory,
    cadence: Cadence,
    open: Vec<OpenCase>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct OpenCase {
    said: Verdict,
    node: Option<String>,
    raised_row: u32,
    /// Ranks named, with how slow each was.
    members: Vec<(Rank, f32)>,
    /// Part of the throughput that the worst of them costs by being slow in other work.
    elsewhere: f64,
    calm_rows: u32,
    last_slow: Label,
}

impl Watched {
    fn remember(&mut self, label: Label) {
        self.labels.push(label, LABELS_MAX);
        self.cadence.see(label);
    }

    /// Brings cases up to date with the newest row: those that grew, and those that are over.
    fn follow(&mut self, label: Label, share: f64) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        let mut open = std::mem::take(&mut self.open);
        open.retain_mut(|case| {
            let series = &self.series;
            let place = |rank: &Rank| series.ranks.binary_search(rank).ok();
            let now = |rank: &Rank| place(rank).map_or(1.0, |column| series.ratio_now(column));
            let slow = case.members.iter().filter(|(rank, was)| now(rank) - 1.0 > TOLERANCE.max(0.5 * (was - 1.0)));
            if slow.count() == 0 {
                case.calm_rows += 1;
            } else {
                (case.calm_rows, case.last_slow) = (0, label);
            }
            if case.calm_rows >= CLEAR_ROWS {
                let columns: Vec<usize> = case.members.iter().filter_map(|(rank, _)| place(rank)).collect();
                columns.into_iter().for_each(|column| self.series.acquit(column));
                verdicts.push(Verdict { phase: Phase::Cleared, last: case.last_slow, ..case.said.clone() });
                return false;
            }
            let worst = case.members.iter().map(|(rank, _)| now(rank)).fold(1.0, f32::max);
            let severity = Severity::of_throughput_loss(share * loss_of(worst) + case.elsewhere);
            let told = case.members.iter().map(|(_, ratio)| *ratio).fold(1.0, f32::max);
            if severity > case.said.severity || worst - 1.0 >= GROWTH * (told - 1.0) {
                case.said.severity = severity.max(case.said.severity);
                case.members.iter_mut().for_each(|(rank, ratio)| *ratio = ratio.max(now(rank)));
                case.said.evidence[0].observed = Some(f64::from(worst));
                let slowest = case.members.iter().map(|(rank, _)| *rank).find(|rank| now(rank) == worst);
                case.said.evidence[0].working =
                    slowest.as_ref().and_then(place).map(|column| series.working_now(column)).unwrap_or_default();
                case.said.evidence[0].step = label.step;
                verdicts.push(Verdict { phase: Phase::Updated, last: label, ..case.said.clone() });
            }
            true
        });
        self.open = open;
        verdicts
    }
}

/// Part of its work's throughput that a rank loses.
fn loss_of(ratio: f32) -> f64 {
    1.0 - 1.0 / f64::from(ratio.max(1.0))
}

/// Part of the run's throughput that a rank costs, with its standard error.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Loss {
    part: f64,
    error: f64,
}

impl Loss {
    fn and(self, more: Self) -> Self {
        Self { part: self.part + more.part, error: self.error.hypot(more.error) }
    }

    /// What the loss is for sure, and a warning where a person must look: unless its interval excludes what is one.
    fn severity(self) -> Severity {
        let most = Severity::of_throughput_loss(self.part + SIZE_ERRORS * self.error);
        Severity::of_throughput_loss(self.part).max(most.min(Severity::Warning))
    }
}

/// What the words of one verdict are made of.
struct Row<'a> {
    panel: &'a Panel,
    index: usize,
    label: Label,
    scene: &'a Scene,
    share: f64,
    /// What a rank costs by being slow in other work.
    elsewhere: BTreeMap<Rank, Loss>,
}

impl Straggler {
    fn judge_row(&mut self, panel: &Panel, row: usize, scene: &Scene) -> Vec<Verdict> {
        let share = self.share_of_step(panel.attempt, &panel.metric);
        let label = panel.labels[row];
        let watched = self.metrics.entry((panel.attempt, panel.metric.clone())).or_default();
        if *watched.series.ranks != *panel.ranks {
            watched.series = watched.series.onto(&panel.ranks, scene.peer_groups(panel.attempt, &panel.ranks));
        }
        watched.remember(label);
        let values = panel.values.row(row).into_iter().zip(panel.present.row(row));
        let usable = |value: f32| value.is_finite() && value > 0.0;
        let values: Vec<f32> =
            values.map(|(value, present)| if *present && usable(*value) { *value } else { f32::NAN }).collect();
        let threshold = scene.budget.log10_e(&budget::STRAGGLER, panel.ranks.len(), watched.cadence.row_s())
            * std::f64::consts::LN_10;
        let findings = watched.series.observe(&values, threshold as f32 + 3.0_f32.ln());
        let mut verdicts = watched.follow(label, share);
        if findings.is_empty() {
            return verdicts;
        }
        let elsewhere = self.elsewhere(panel, &findings);
        let Some(watched) = self.metrics.get_mut(&(panel.attempt, panel.metric.clone())) else { return verdicts };
        let place = Row { panel, index: row, label, scene, share, elsewhere };
        for finding in findings {
            let verdict = report(watched, &finding, &place, self.cases);
            // A rank of a node in the same row joins the verdict of that row; the later, fuller one replaces it.
            match verdicts.iter_mut().find(|said| said.case == verdict.case && said.phase != Phase::Cleared) {
                Some(said) => *said = Verdict { phase: said.phase, ..verdict },
                None => verdicts.push(verdict),
            }
            let is_used = watched.open.iter().any(|case| case.said.case == self.cases);
            self.cases += u64::from(is_used);
        }
        verdicts
    }

    /// What the ranks found cost by being slow in the other work of the step.
    fn elsewhere(&self, panel: &Panel, findings: &[Finding]) -> BTreeMap<Rank, Loss> {
        let mut losses = BTreeMap::new();
        let is_other = |metric: &Metric| *metric != panel.metric && !WHOLE.contains(&metric.as_str());
        for ((attempt, metric), watched) in &self.metrics {
            if *attempt != panel.attempt || !is_other(metric) || WHOLE.contains(&panel.metric.as_str()) {
                continue;
            }
            let share = self.share_of_step(*attempt, metric);
            for finding in findings {
                let rank = panel.ranks[finding.column];
                let Some((excess, error)) = watched.series.excess(rank, finding.age) else { continue };
                if excess >= ELSEWHERE_ERRORS * error {
                    let more = Loss { part: share * loss_of(1.0 + excess), error: share * f64::from(error) };
                    let loss = losses.entry(rank).or_insert_with(Loss::default);
                    *loss = loss.and(more);
                }
            }
        }
        losses
    }

    /// Which part of a step a metric is: its level over that of the step, or of all work seen; 1 where it stands alone.
    fn share_of_step(&self, attempt: Attempt, metric: &Metric) -> f64 {
        if WHOLE.contains(&metric.as_str()) {
            return 1.0;
        }
        let key = (attempt, metric.clone());
        let Some(own) = self.metrics.get(&key).map(|watched| f64::from(watched.series.level)) else { return 1.0 };
        let step = self.metrics.get(&(attempt, Metric::new(WHOLE[0]))).map(|watched| f64::from(watched.series.level));
        let of_attempt = self.metrics.iter().filter(|((other, _), _)| *other == attempt);
        let work: f64 = of_attempt.map(|(_, watched)| f64::from(watched.series.level)).sum();
        let whole = step.filter(|step| *step > 0.0).unwrap_or(work);
        if whole > 0.0 { (own / whole).min(1.0) } else { 1.0 }
    }
}

/// Opens a case for a finding, or adds it to that of its node.
fn report(watched: &mut Watched, finding: &Finding, row: &Row<'_>, next_case: u64) -> Verdict {
    let rank = watched.series.ranks[finding.column];
    let node = row.scene.roster(row.panel.attempt).and_then(|roster| roster.node(rank)).map(str::to_owned);
    let rows = watched.series.rows;
    let is_near =
        |case: &&mut OpenCase| case.node.is_some() && case.node == node && rows - case.raised_row <= NODE_ROWS;
    let begin = watched.labels.back(finding.age);
    let evidence = Evidence {
        step: row.label.step,
        rank: Some(rank),
        observed: Some(f64::from(finding.ratio)),
        expected: Some(1.0),
        low: Some(f64::from(1.0 - finding.band)),
        high: Some(f64::from(1.0 + finding.band)),
        log10_e: Some(finding.log10_e),
        working: finding.working().after(measured((row.panel, row.index), finding.column, row.scene)),
        ..Evidence::new(SPEC.name, &row.panel.metric)
    };
    let own = Loss { part: row.share * loss_of(finding.ratio), error: row.share * f64::from(finding.error) };
    let elsewhere = row.elsewhere.get(&rank).copied().unwrap_or_default();
    let severity = own.and(elsewhere).severity();
    if let Some(case) = watched.open.iter_mut().find(is_near) {
        case.elsewhere = case.elsewhere.max(elsewhere.part);
        case.members.push((rank, finding.ratio));
        case.said.evidence.push(evidence);
        case.said.severity = case.said.severity.max(severity);
        case.said.suspects = suspects(&case.members);
        case.said.summary = words(&case.members, finding, row, case.said.first);
        return Verdict { phase: Phase::Updated, last: row.label, ..case.said.clone() };
    }
    let low = watched.labels.back(finding.age.saturating_add(finding.blur));
    let high = watched.labels.back(finding.age.saturating_sub(finding.blur).max(1));
    let onset = begin.step.zip(low.step).zip(high.step).map(|((step, low), high)| Onset { step, low, high });
    let members = vec![(rank, finding.ratio)];
    let said = Verdict {
        detector: SPEC.name.to_owned(),
        case: next_case,
        phase: Phase::Raised,
        attempt: row.panel.attempt,
        kind: Kind::SlowRank,
        severity,
        suspects: suspects(&members),
        subject: row.panel.metric.to_string(),
        onset,
        first: begin,
        last: row.label,
        summary: words(&members, finding, row, begin),
        evidence: vec![evidence],
    };
    watched.open.push(OpenCase {
        said: said.clone(),
        node,
        raised_row: rows,
        members,
        elsewhere: elsewhere.part,
        calm_rows: 0,
        last_slow: row.label,
    });
    said
}

/// Blame by how much each is slower.
fn suspects(members: &[(Rank, f32)]) -> Vec<Suspect> {
    let mut members = members.to_vec();
    members.sort_by(|one, other| other.1.total_cmp(&one.1).then(one.0.cmp(&other.0)));
    let total: f64 = members.iter().map(|(_, ratio)| f64::from(ratio - 1.0)).sum();
    members.iter().map(|(rank, ratio)| Suspect { rank: *rank, share: f64::from(ratio - 1.0) / total }).collect()
}

fn words(members: &[(Rank, f32)], finding: &Finding, row: &Row<'_>, begin: Label) -> String {
    let worst = suspects(members)[0].rank;
    let ratio = members.iter().map(|(_, ratio)| *ratio).fold(1.0, f32::max);
    let who = match members.len() {
        1 => row.scene.describe(row.panel.attempt, worst),
        many => format!("{many} ranks, first {},", row.scene.describe(row.panel.attempt, worst)),
    };
    let since = begin.step.map_or(String::new(), |step| format!(" since {step}"));
    let verb = if members.len() == 1 { "is" } else { "are" };
    let (metric, peers, percent) = (&row.panel.metric, finding.peers, (ratio - 1.0) * 100.0);
    format!("{who} {verb} {percent:.1} % slower in `{metric}` than {peers} peers{since}")
}

impl Judge for Straggler {
    const SPEC: Spec = SPEC;
    const VERSION: u8 = VERSION;

    fn judge(
        &mut self,
        seen: &Observation,
        scene: &Scene,
        _backend: &mut dyn Backend,
    ) -> Result<Vec<Verdict>, DetectError> {
        match seen {
            Observation::Attempt(start) => self.metrics.retain(|(attempt, _), _| *attempt >= start.attempt),
            Observation::Panel(panel) if !panel.is_whole_run() && is_own_work(&panel.metric) => {
                budget::STRAGGLER.admit(&self.metrics, &(panel.attempt, panel.metric.clone()))?;
                return Ok((0..panel.rows()).flat_map(|row| self.judge_row(panel, row, scene)).collect());
            }
            _ => {}
        }
        Ok(Vec::new())
    }
}
