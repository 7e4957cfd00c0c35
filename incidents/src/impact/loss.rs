//! The GPU-seconds that an incident lost.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use trainwarden_telemetry::{Attempt, Impact, Incident, Kind, Label, Severity, Step, Timestamp};

use super::pace::{Level, Pace, PaceRow};

/// Half an interval, in standard deviations of the healthy level: 95 % where it is normal.
const SIGMAS: f64 = 2.0;

/// A stop is told up to a deadline of alignment after the last step that ended (10 s, or three steps), and some to spare.
const STOP_SLACK_NS: i64 = 30 * 1_000_000_000;
const STOP_SLACK_STEPS: f64 = 4.0;

/// What is counted of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counted {
    /// Time of steps beyond the healthy pace.
    Slow,
    /// Time without a step, and the steps that the next launch repeats.
    Stopped,
    /// Time of steps that a rollback repeats.
    Spoilt,
    /// The same of what heals by itself: a rollback may not be needed.
    Healing,
}

/// When an incident began, and the last row that belongs to it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Span {
    pub(crate) onset: Label,
    pub(crate) last: Label,
    pub(crate) is_over: bool,
}

/// The healthy pace of an incident, frozen when it opened, and what has left the rows of the pace since.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Meter {
    healthy: Level,
    /// Series of work that rows are measured beyond; 0 = they are measured against the past alone.
    works: u8,
    gone_s: f64,
    gone_steps: u64,
}

/// The course of a run.
pub(crate) struct Course<'a> {
    pub(crate) paces: &'a BTreeMap<Attempt, Pace>,
    pub(crate) world_size: u64,
    /// Step of the newest checkpoint before the onset.
    pub(crate) good_step: Option<Step>,
    /// Step of the newest checkpoint of all.
    pub(crate) saved_step: Option<Step>,
}

/// Seconds of the run: estimate, least, most.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Lost {
    seconds: f64,
    low: f64,
    high: f64,
}

impl Meter {
    /// The healthy pace before a step, if it is known.
    pub(crate) fn new(pace: &Pace, onset: Step) -> Option<Self> {
        Some(Self { healthy: pace.level_before(onset)?, works: 0, gone_s: 0.0, gone_steps: 0 })
    }

    /// The same beyond the own work of the middle rank, where work is logged: for slowness of a few ranks, which the
    /// middle one does not have.
    pub(crate) fn beyond_peers(pace: &Pace, onset: Step) -> Option<Self> {
        let (healthy, works) = pace.excess_before(onset)?;
        Some(Self { healthy, works, gone_s: 0.0, gone_steps: 0 })
    }

    /// What counts of a row: seconds, and steps.
    fn part(&self, row: &PaceRow) -> Option<(f64, u64)> {
        match self.works {
            0 => Some((row.seconds, row.steps)),
            works => (row.steps == 1 && row.works == works).then_some((row.seconds - row.work_s, 1)),
        }
    }

    /// A row of the incident is kept no longer.
    pub(crate) fn evict(&mut self, row: PaceRow) {
        let (seconds, steps) = self.part(&row).unwrap_or_default();
        self.gone_s += seconds;
        self.gone_steps += steps;
    }
}

/// What an incident cost so far; `None` where that is not known, and where nothing is claimed.
///
/// * `meter`: its healthy pace.
pub(crate) fn impact(incident: &Incident, span: Span, meter: Option<&Meter>, course: &Course<'_>) -> Option<Impact> {
    if incident.severity == Severity::Info || course.world_size == 0 {
        return None;
    }
    let lost = match counted(incident.kind)? {
        Counted::Slow => slow(incident, span, meter?, course),
        Counted::Stopped => stopped(incident, span, meter, course),
        Counted::Spoilt => spoilt(incident, span, (meter, false), course),
        Counted::Healing => spoilt(incident, span, (meter, true), course),
    }?;
    let gpus = course.world_size as f64;
    let seconds = lost.seconds.max(0.0);
    let (low, high) = (lost.low.clamp(0.0, seconds), lost.high.max(seconds));
    let gpu_seconds_lost = (seconds * gpus).round() as u64;
    // Rounded outwards, so that the estimate stays inside.
    let (low, high) = ((low * gpus).floor() as u64, (high * gpus).ceil() as u64);
    (high > 0).then_some(Impact {
        gpu_seconds_lost,
        cost: None,
        currency: None,
        low: low.min(gpu_seconds_lost),
        high: high.max(gpu_seconds_lost),
    })
}

/// True for what is measured as time beyond the healthy pace.
pub(crate) fn is_slowness(kind: Kind) -> bool {
    counted(kind) == Some(Counted::Slow)
}

/// True for what goes on to cost when it is resolved: how long a stop lasted shows with the next launch, and weights that
/// were moved stay so until somebody rolls back.
pub(crate) fn outlasts(kind: Kind) -> bool {
    counted(kind) == Some(Counted::Stopped) || is_of_weights(kind)
}

fn is_of_weights(kind: Kind) -> bool {
    matches!(kind, Kind::ReplicaMismatch | Kind::UnexplainedUpdate | Kind::LineageBreak)
}

fn counted(kind: Kind) -> Option<Counted> {
    use Kind as K;
    match kind {
        K::SlowRank | K::SlowRun | K::SlowLink | K::Intermittent | K::Periodic => Some(Counted::Slow),
        K::Throttle | K::HardwareFault | K::MemoryErrors => Some(Counted::Slow),
        K::Hang | K::Desync | K::Kills => Some(Counted::Stopped),
        K::Drift | K::Nonfinite | K::ReplicaMismatch | K::UnexplainedUpdate | K::LineageBreak => Some(Counted::Spoilt),
        K::GradientRank | K::InconsistentUpdate | K::Schedule => Some(Counted::Spoilt),
        K::DuplicateBatch | K::BatchOrder | K::DataShift => Some(Counted::Spoilt),
        K::LossSpike | K::Gradient => Some(Counted::Healing),
        // They say what may be wrong, not what was lost by it.
        K::EnvironmentMismatch | K::EnvironmentChanged => None,
        K::Silence | K::Replay | K::Forged | K::Inconsistent | K::MetricOutlier | K::MetricShift => None,
    }
}

/// Time of the steps from the onset on, beyond the healthy pace.
fn slow(incident: &Incident, span: Span, meter: &Meter, course: &Course<'_>) -> Option<Lost> {
    let pace = course.paces.get(&incident.attempt)?;
    let (first, last) = (onset_step(incident, span)?, span.last.step.filter(|_| span.is_over));
    let is_in =
        |row: &&PaceRow| row.label.step.is_some_and(|step| step >= first && last.is_none_or(|last| step <= last));
    let (mut seconds, mut steps) = (meter.gone_s, meter.gone_steps);
    for (part_s, part_steps) in pace.rows().filter(is_in).filter_map(|row| meter.part(row)) {
        seconds += part_s;
        steps += part_steps;
    }
    let excess = seconds - meter.healthy.step_s * steps as f64;
    let doubtful = doubtful_s(incident, meter, pace);
    let half = SIGMAS * meter.healthy.spread_s * steps as f64 + doubtful;
    (steps > 0).then_some(Lost { seconds: excess, low: excess - half, high: excess + half })
}

/// What the steps that the onset may lie in took beyond the healthy pace.
fn doubtful_s(incident: &Incident, meter: &Meter, pace: &Pace) -> f64 {
    let Some(onset) = incident.onset else { return 0.0 };
    let is_doubtful = |row: &&PaceRow| row.label.step.is_some_and(|step| step >= onset.low && step <= onset.high);
    let parts = pace.rows().filter(is_doubtful).filter_map(|row| meter.part(row));
    parts.map(|(seconds, steps)| (seconds - meter.healthy.step_s * steps as f64).abs()).sum()
}

fn onset_step(incident: &Incident, span: Span) -> Option<Step> {
    incident.onset.map(|onset| onset.step).or(span.onset.step)
}

/// Time without a step: up to the next launch, or to the last sign of life while there is none.
fn stopped(incident: &Incident, span: Span, meter: Option<&Meter>, course: &Course<'_>) -> Option<Lost> {
    let own = course.paces.get(&incident.attempt)?;
    let level = meter.map(|meter| meter.healthy).or_else(|| own.level())?;
    let mut lost = Lost { seconds: 0.0, low: 0.0, high: 0.0 };
    lost.add_stall(span, own, level);
    let mut launches = course.paces.range(incident.attempt..).map(|(_, pace)| pace).peekable();
    while let Some(pace) = launches.next() {
        let Some((_, end)) = pace.steps() else { continue };
        if !is_stop_of(span, end.time?, level.step_s) {
            continue;
        }
        match launches.peek().and_then(|next| next.steps()) {
            Some((begin, _)) => lost.add_gap(end, begin, level),
            None => lost.add_open(end, now(incident, pace)?, level, course.saved_step),
        }
    }
    (lost.high > 0.0).then_some(lost)
}

/// True for a launch that ended while the incident was there.
fn is_stop_of(span: Span, end: Timestamp, step_s: f64) -> bool {
    let slack_ns = STOP_SLACK_NS + (STOP_SLACK_STEPS * step_s * 1e9) as i64;
    let is_after = span.onset.time.is_none_or(|onset| end.0.saturating_add(slack_ns) >= onset.0);
    let is_before = span.last.time.is_none_or(|last| !span.is_over || end.0 <= last.0.saturating_add(slack_ns));
    is_after && is_before
}

fn now(incident: &Incident, pace: &Pace) -> Option<Timestamp> {
    pace.newest().max(incident.detected_at)
}

impl Lost {
    /// A launch that stood still and went on: the step in which the stop began ended late.
    fn add_stall(&mut self, span: Span, pace: &Pace, level: Level) {
        let Some(onset) = span.onset.time else { return };
        let begin = |row: &PaceRow, end: Timestamp| Timestamp(end.0 - (row.seconds * 1e9) as i64);
        let is_in = |row: &&PaceRow| row.label.time.is_some_and(|end| begin(row, end) <= onset && onset <= end);
        let Some(row) = pace.rows().find(is_in) else { return };
        let excess = (row.seconds - level.step_s * row.steps as f64).max(0.0);
        self.seconds += excess;
        self.low += (excess - SIGMAS * level.spread_s * row.steps as f64).max(0.0);
        self.high += excess + SIGMAS * level.spread_s * row.steps as f64;
    }

    /// A launch that ended with one step and was followed by one that began with another.
    fn add_gap(&mut self, end: Label, begin: Label, level: Level) {
        let (Some(end_at), Some(begin_at)) = (end.time, begin.time) else { return };
        let down_s = (begin_at.seconds_since(end_at) - level.step_s).max(0.0);
        let steps = |end: Step, begin: Step| (end.0 + 1).saturating_sub(begin.0);
        let repeated = end.step.zip(begin.step).map_or(0, |(end, begin)| steps(end, begin)) as f64;
        self.seconds += down_s + repeated * level.step_s;
        self.low += (down_s - level.step_s).max(0.0) + repeated * (level.step_s - SIGMAS * level.spread_s).max(0.0);
        self.high += down_s + level.step_s + repeated * (level.step_s + SIGMAS * level.spread_s);
    }

    /// A launch that ended and was not followed yet: the steps since the newest checkpoint are lost with it, at most.
    fn add_open(&mut self, end: Label, now: Timestamp, level: Level, saved: Option<Step>) {
        let Some(end_at) = end.time else { return };
        let down_s = now.seconds_since(end_at).max(0.0);
        let unsaved = end.step.zip(saved).map_or(0, |(end, saved)| end.0.saturating_sub(saved.0)) as f64;
        self.seconds += down_s;
        self.low += (down_s - level.step_s).max(0.0);
        self.high += if down_s > 0.0 { down_s + level.step_s * (1.0 + unsaved) } else { 0.0 };
    }
}

/// Time of the steps from the last good checkpoint, or from the onset where none is known, to the rollback or to now.
fn spoilt(
    incident: &Incident,
    span: Span,
    (meter, heals): (Option<&Meter>, bool),
    course: &Course<'_>,
) -> Option<Lost> {
    let own = course.paces.get(&incident.attempt)?;
    let level = meter.map(|meter| meter.healthy).or_else(|| own.level())?;
    let onset = onset_step(incident, span)?;
    let good = course.good_step.map_or(Step(onset.0.saturating_sub(1)), |good| good.min(onset));
    let reached = reached(incident, span, good, course)?;
    let steps_after = |step: Step| reached.0.saturating_sub(step.0) as f64;
    let since_onset = (reached.0 + 1).saturating_sub(incident.onset.map_or(onset, |onset| onset.high).0) as f64;
    let (fast, slow) = ((level.step_s - SIGMAS * level.spread_s).max(0.0), level.step_s + SIGMAS * level.spread_s);
    let high = steps_after(good) * slow;
    Some(match heals {
        true => Lost { seconds: since_onset * level.step_s, low: 0.0, high },
        false => Lost { seconds: steps_after(good) * level.step_s, low: since_onset * fast, high },
    })
}

/// The last step that was built on what was spoilt: of the incident if it is over and is not of the weights themselves,
/// of the launch before the rollback, or of now.
fn reached(incident: &Incident, span: Span, good: Step, course: &Course<'_>) -> Option<Step> {
    if span.is_over && !is_of_weights(incident.kind) {
        return span.last.step;
    }
    let mut reached = None;
    for (attempt, pace) in course.paces.range(incident.attempt..) {
        let Some((first, last)) = pace.steps() else { continue };
        if *attempt > incident.attempt && first.step.is_some_and(|first| first.0 <= good.0 + 1) {
            break;
        }
        reached = reached.max(last.step);
    }
    reached
}
