//! Detects a rank that comes last to collectives, and a communicator that became slow.
//!
//! # What it finds
//! The rank all others of a communicator wait for, call after call: `slowdown.rank`. A communicator whose calls take
//! longer than they did although nobody comes late: `slowdown.link`.
//!
//! # Why it matters
//! Communication time shows the victims: whoever waits longest is innocent. The culprit waits least.
//!
//! # How it decides
//! Against peers. A member's wait is its own `end` less its own `start` (else `enqueued`), so that the clocks of nodes
//! need not agree, for all members end together. Lateness is the median wait of the others less its own. The one with
//! the largest lateness of a call is blamed, if it is at least [`LATE_SHARE`] of the usual time between calls. For each
//! rank an e-CUSUM weighs "blamed in half of the calls and more" against its share in the first [`LEARN_CALLS`] calls
//! or `1 / members`, whichever is larger. Verified: the mean lateness is 1 % of the time between calls or more above what
//! it was in these first calls, for ranks differ a little for ever. It is a warning unless three standard errors of that
//! mean more are still less than 2 %: a rank that lasts slow wants a look; it is told again when it costs more. Before
//! the share is learned a rank counts that is blamed in nine of ten of at least [`EARLY_CALLS`] calls and costs 10 %.
//! Against the past. The least wait of a call is the transfer itself: per operation and size its median of the first
//! [`LEARN_CALLS`] calls is frozen; when [`LINK_CALLS`] calls in a row take [`LINK_RATIO`] times that and more, and
//! nobody came later than was lost so, the link is slow. A case ends after [`CLEAR_CALLS`] calls without blame.
//!
//! # Parameters
//! `LATE_ARRIVAL` in `budget.rs`, [`LATE_SHARE`], [`LEARN_CALLS`], [`EARLY_CALLS`], [`LINK_CALLS`], [`LINK_RATIO`],
//! [`CLEAR_CALLS`].
//!
//! # Blind spots
//! Point-to-point calls; calls that did not complete (see the hang detector); communicators of two ranks, where one
//! cannot be told from the other by skewed clocks; a link slow from the first call on.
//!
//! # Source
//! CCL-D (arXiv 2605.04478): the last to arrive has the shortest call; Aegis (NSDI 2025).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use trainwarden_kernels::{Backend, median_in_place, trial_evidence};
use trainwarden_telemetry::{
    Attempt, CollectiveCall, Evidence, Kind, Label, Metric, Observation, Onset, Phase, Rank, Severity, Suspect,
    Timestamp, Verdict, Working,
};

use super::open_case::OpenCase;
use crate::{Against, DetectError, Judge, Scene, Spec, budget};

const SPEC: Spec = Spec {
    name: "late_arrival",
    against: Against::Peers,
    watches: &["collectives"],
    kinds: &[Kind::SlowRank, Kind::SlowLink],
};
const VERSION: u8 = 2;
/// Part of the time between calls that is late.
const LATE_SHARE: f64 = 0.005;
/// Mean part of the time between calls that is worth a case.
const COST_MIN: f64 = 0.01;
/// Mean part before shares are learned.
const EARLY_COST_MIN: f64 = 0.10;
/// Standard errors around the mean lateness within which it may lie.
const COST_ERRORS: f64 = 3.0;
/// Calls from which shares and transfer times are learned.
const LEARN_CALLS: u32 = 64;
/// Calls before a rank that was late from the first one on may be named.
const EARLY_CALLS: u32 = 16;
/// Slow calls in a row that make a slow link.
const LINK_CALLS: u32 = 32;
/// Times the usual transfer that is slow.
const LINK_RATIO: f64 = 1.2;
/// Calls without blame that end a case.
const CLEAR_CALLS: u32 = 64;
/// Members below which nobody is blamed.
const MEMBERS_MIN: usize = 3;
/// Operations and sizes kept a communicator.
const SHAPES_MAX: usize = 64;
/// Weight of the newest call in running means.
const MEAN_WEIGHT: f64 = 1.0 / 16.0;

/// See the module's page.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct LateArrival {
    communicators: BTreeMap<(Attempt, String), Watched>,
    cases: u64,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Watched {
    calls: u32,
    last_end: Option<Timestamp>,
    /// Usual nanoseconds from call to call.
    pace_ns: Option<f64>,
    members: BTreeMap<Rank, Member>,
    /// Operation and payload, with a list, since tuples with options are no keys of a map in every format.
    shapes: Vec<Shape>,
    link: Option<OpenCase>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Member {
    calls: u32,
    blamed: u32,
    usual_share: f64,
    /// Mean lateness over pace in the first calls: ranks differ a little for ever.
    usual_cost: f64,
    log_e: f64,
    /// Running mean of lateness over pace, and of its squared distance from that.
    cost: f64,
    wander: f64,
    first: Label,
    since: u32,
    open: Option<OpenCase>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Shape {
    op: String,
    bytes: Option<u64>,
    /// Nanoseconds of the transfers of the first calls; emptied when learned.
    warm: Vec<f64>,
    usual_ns: Option<f64>,
    slow_calls: u32,
    excess_ns: f64,
    first: Label,
}

impl Member {
    /// The throughput lost beyond the `usual` for sure, and a warning unless the interval of the mean excludes what is one.
    fn severity(&self, usual: f64) -> Severity {
        let weight = MEAN_WEIGHT.max(1.0 / f64::from(self.calls.max(1)));
        let error = (self.wander * weight / (2.0 - weight)).sqrt();
        let cost = self.cost - usual;
        let most = Severity::of_throughput_loss(cost + COST_ERRORS * error);
        Severity::of_throughput_loss(cost).max(most.min(Severity::Warning))
    }
}

/// In what part of the calls a member may be blamed with nothing wrong.
fn null_share(member: &Member, members: usize) -> f64 {
    let chance = 1.0 / members as f64;
    let null = if member.calls <= LEARN_CALLS { chance } else { chance.max(member.usual_share + 0.1) };
    null.min(0.9)
}

/// ... and in what part it is blamed that comes late.
fn alternative_share(null: f64) -> f64 {
    0.5 * (1.0 + null)
}

/// What a complete call says: each member's wait in nanoseconds, and its end.
fn waits_of(call: &CollectiveCall) -> Option<(Vec<(Rank, f64)>, Timestamp)> {
    let is_judged = |op: &str| op != "send" && op != "recv";
    let mut waits = Vec::with_capacity(call.entries.len());
    let mut ends = Vec::with_capacity(call.entries.len());
    for entry in &call.entries {
        if entry.peer.is_some() || !is_judged(&entry.op) {
            return None;
        }
        let (begin, end) = (entry.start.or(entry.enqueued)?, entry.end?);
        waits.push((entry.rank, (end.0.saturating_sub(begin.0)).max(0) as f64));
        ends.push(end);
    }
    ends.sort_unstable();
    let end = *ends.get(ends.len() / 2)?;
    (call.missing.is_empty() && waits.len() >= MEMBERS_MIN).then_some((waits, end))
}

/// Each member's lateness: the median wait of the others less its own.
fn lateness_of(waits: &[(Rank, f64)]) -> Vec<(Rank, f64)> {
    let mut sorted: Vec<f64> = waits.iter().map(|(_, wait)| *wait).collect();
    sorted.sort_unstable_by(f64::total_cmp);
    // The n-th of the others: without the member, all behind it move up by one. Equal waits are one as good as another.
    let nth = |wait: f64, n: usize| if wait <= sorted[n] { sorted[n + 1] } else { sorted[n] };
    let others = waits.len() - 1;
    let median = |wait: f64| {
        let (lower, upper) = (nth(wait, (others - 1) / 2), nth(wait, others / 2));
        if lower == upper { lower } else { 0.5 * lower + 0.5 * upper }
    };
    waits.iter().map(|(rank, wait)| (*rank, median(*wait) - wait)).collect()
}

struct Call<'a> {
    call: &'a CollectiveCall,
    label: Label,
    scene: &'a Scene,
    pace_ns: f64,
}

impl LateArrival {
    fn judge_call(&mut self, call: &CollectiveCall, scene: &Scene) -> Vec<Verdict> {
        let Some((waits, end)) = waits_of(call) else { return Vec::new() };
        let watched = self.communicators.entry((call.attempt, call.comm.clone())).or_default();
        watched.calls += 1;
        let gap =
            watched.last_end.replace(end).map(|last| end.0.saturating_sub(last.0) as f64).filter(|gap| *gap > 0.0);
        // One long pause between calls (an evaluation) is not the pace: it counts as twice the usual at most.
        watched.pace_ns = match (watched.pace_ns, gap) {
            (Some(pace), Some(gap)) => Some(pace + MEAN_WEIGHT * (gap.min(2.0 * pace) - pace)),
            (pace, gap) => pace.or(gap),
        };
        let Some(pace_ns) = watched.pace_ns else { return Vec::new() };
        let call = Call { call, label: Label { step: call.step(), time: Some(end) }, scene, pace_ns };
        let lateness = lateness_of(&waits);
        let worst = lateness.iter().copied().reduce(|one, other| if other.1 > one.1 { other } else { one });
        let blamed = worst.filter(|(_, late)| *late >= LATE_SHARE * pace_ns).map(|(rank, _)| rank);
        let mut verdicts = Vec::new();
        for (rank, late) in lateness {
            let hit = blamed == Some(rank);
            verdicts.extend(watched.weigh(rank, late, hit, &call, &mut self.cases));
        }
        let transfer = waits.iter().map(|(_, wait)| *wait).fold(f64::INFINITY, f64::min);
        verdicts.extend(watched.weigh_link(transfer, worst.map_or(0.0, |(_, late)| late), &call, &mut self.cases));
        verdicts
    }
}

impl Watched {
    fn weigh(&mut self, rank: Rank, late: f64, hit: bool, call: &Call<'_>, cases: &mut u64) -> Option<Verdict> {
        let count = call.call.entries.len();
        let member = self.members.entry(rank).or_default();
        member.calls += 1;
        let weight = MEAN_WEIGHT.max(1.0 / f64::from(member.calls));
        let distance = late / call.pace_ns - member.cost;
        member.cost += weight * distance;
        member.wander += weight * ((1.0 - weight) * distance * distance - member.wander);
        let severity = member.open.is_some().then(|| member.severity(member.usual_cost));
        if let Some((open, severity)) = member.open.as_mut().zip(severity) {
            // When it is found, the running mean has often heard of it only in part.
            if severity > open.said.severity {
                open.said = Verdict { phase: Phase::Updated, severity, last: call.label, ..open.said.clone() };
                return Some(open.said.clone());
            }
            let goes_on = hit && member.cost - member.usual_cost >= 0.5 * COST_MIN;
            let verdict = open.follow(goes_on, call.label, CLEAR_CALLS)?;
            (member.open, member.log_e) = (None, 0.0);
            return Some(verdict);
        }
        if member.calls <= LEARN_CALLS {
            member.blamed += u32::from(hit);
            member.usual_cost += (late / call.pace_ns - member.usual_cost) / f64::from(member.calls);
            if member.calls == 1 {
                member.first = call.label;
            }
            member.usual_share = f64::from(member.blamed) / f64::from(member.calls);
        }
        let is_early = member.calls <= LEARN_CALLS;
        let null = null_share(member, count);
        let before = member.log_e;
        member.log_e = (before + trial_evidence(hit, null, alternative_share(null))).clamp(0.0, 1e3);
        if before <= 0.0 || member.log_e <= 0.0 {
            (member.first, member.since) = (call.label, 0);
        }
        member.since += 1;
        let log10_e = member.log_e * std::f64::consts::LOG10_E;
        let is_sure = log10_e >= call.scene.budget.log10_e(&budget::LATE_ARRIVAL, count, Some(call.pace_ns / 1e9));
        let is_costly = match is_early {
            true => member.calls >= EARLY_CALLS && member.usual_share >= 0.9 && member.cost >= EARLY_COST_MIN,
            false => member.cost - member.usual_cost >= COST_MIN,
        };
        if !(hit && is_sure && is_costly) {
            return None;
        }
        let usual = if is_early { 0.0 } else { member.usual_cost };
        let said = late_rank(rank, member, usual, call, *cases);
        *cases += 1;
        member.open = Some(OpenCase::new(said.clone(), call.label));
        Some(said)
    }

    fn weigh_link(&mut self, transfer: f64, latest: f64, call: &Call<'_>, cases: &mut u64) -> Option<Verdict> {
        let (op, bytes) = (call.call.entries.first()?.op.clone(), call.call.entries.first()?.bytes);
        let known = self.shapes.iter().position(|shape| shape.op == op && shape.bytes == bytes);
        let place = known.or_else(|| {
            (self.shapes.len() < SHAPES_MAX).then(|| {
                let (warm, first) = (Vec::new(), call.label);
                self.shapes.push(Shape { op, bytes, warm, usual_ns: None, slow_calls: 0, excess_ns: 0.0, first });
                self.shapes.len() - 1
            })
        })?;
        let shape = &mut self.shapes[place];
        let Some(usual) = shape.usual_ns else {
            shape.warm.push(transfer);
            if shape.warm.len() >= LEARN_CALLS as usize {
                shape.usual_ns = median_in_place(&mut std::mem::take(&mut shape.warm));
            }
            return None;
        };
        // Who comes later than the transfer lost explains it as well.
        let is_slow = transfer > LINK_RATIO * usual && latest < transfer - usual;
        if !is_slow {
            (shape.slow_calls, shape.excess_ns) = (0, 0.0);
        } else {
            if shape.slow_calls == 0 {
                shape.first = call.label;
            }
            shape.slow_calls += 1;
            shape.excess_ns += transfer - usual;
        }
        if let Some(open) = &mut self.link {
            let verdict = open.follow(is_slow, call.label, CLEAR_CALLS)?;
            self.link = None;
            return Some(verdict);
        }
        let loss = shape.excess_ns / f64::from(shape.slow_calls.max(1)) / call.pace_ns;
        if shape.slow_calls < LINK_CALLS || loss < COST_MIN {
            return None;
        }
        let said = slow_link(shape, usual, loss.min(1.0), call, *cases);
        *cases += 1;
        self.link = Some(OpenCase::new(said.clone(), call.label));
        Some(said)
    }
}

fn spoken(kind: Kind, loss: f64, first: Label, call: &Call<'_>, case: u64) -> Verdict {
    Verdict {
        detector: SPEC.name.to_owned(),
        case,
        phase: Phase::Raised,
        attempt: call.call.attempt,
        kind,
        severity: Severity::of_throughput_loss(loss),
        suspects: Vec::new(),
        subject: call.call.comm.clone(),
        onset: first.step.zip(call.label.step).map(|(step, high)| Onset { step, low: step, high: high.max(step) }),
        first,
        last: call.label,
        summary: String::new(),
        evidence: Vec::new(),
    }
}

fn late_rank(rank: Rank, member: &Member, usual: f64, call: &Call<'_>, case: u64) -> Verdict {
    let who = call.scene.describe(call.call.attempt, rank);
    let others = call.call.entries.len() - 1;
    let percent = 100.0 * member.cost;
    Verdict {
        suspects: vec![Suspect { rank, share: 1.0 }],
        summary: format!(
            "{who} comes last to `{}`: its {others} peers wait {percent:.1} % of the time",
            call.call.comm
        ),
        evidence: vec![Evidence {
            step: call.label.step,
            rank: Some(rank),
            observed: Some(member.cost),
            expected: Some(usual),
            high: Some(usual + COST_MIN),
            log10_e: Some(member.log_e * std::f64::consts::LOG10_E),
            note: Some("mean lateness over the time between calls".to_owned()),
            working: late_working(rank, member, usual, call),
            ..Evidence::new(SPEC.name, &Metric::new(&call.call.comm))
        }],
        severity: member.severity(usual),
        ..spoken(Kind::SlowRank, member.cost.clamp(0.0, 1.0), member.first, call, case)
    }
}

/// How a late rank follows from its figures.
const LATE_RULES: [&str; 5] = [
    "wait = end - start of a member's part; lateness = median wait of the others - its own",
    "pace = running mean of the time from call to call, with weight 1/16 and each gap held to twice the pace",
    "observed = mean of lateness / pace, running with weight max(1/16, 1 / calls); expected = the plain mean of the \
     first 64 calls, 0 before they are over",
    "nats = sum over calls, never below 0, of ln(alternative / null) where it was blamed and \
     ln((1 - alternative) / (1 - null)) where not",
    "log10_e = nats / ln 10; found when log10_e >= threshold_log10_e and observed - expected >= 0.01",
];
/// How a slow link follows from its figures.
const LINK_RULES: [&str; 3] = [
    "transfer = least wait of the members of a call; usual_s = its median in the first 64 calls of that operation and size",
    "a call is slow when transfer > 1.2 usual and nobody came later than transfer - usual; found after 32 in a row",
    "observed = usual_s + excess_s / slow_calls; ratio = observed / usual_s; loss = excess_s / slow_calls / pace_s",
];

fn late_working(rank: Rank, member: &Member, usual: f64, call: &Call<'_>) -> Working {
    let count = call.call.entries.len();
    let waits = waits_of(call.call).map(|(waits, _)| waits).unwrap_or_default();
    let own = waits.iter().find(|(other, _)| *other == rank).map_or(f64::NAN, |(_, wait)| *wait);
    let late = lateness_of(&waits).into_iter().find(|(other, _)| *other == rank).map_or(f64::NAN, |(_, late)| late);
    let null = null_share(member, count);
    let threshold = call.scene.budget.log10_e(&budget::LATE_ARRIVAL, count, Some(call.pace_ns / 1e9));
    Working::new(&LATE_RULES)
        .with("call", call.call.seq)
        .with("members", count)
        .with("wait_s", own / 1e9)
        .with("lateness_s", late / 1e9)
        .with("pace_s", call.pace_ns / 1e9)
        .with("calls", member.calls)
        .with("usual", usual)
        .with("usual_share_of_blame", member.usual_share)
        .with("null", null)
        .with("alternative", alternative_share(null))
        .with("calls_since", member.since)
        .with("nats", member.log_e)
        .with("threshold_log10_e", threshold)
}

fn slow_link(shape: &Shape, usual: f64, loss: f64, call: &Call<'_>, case: u64) -> Verdict {
    let observed = usual + shape.excess_ns / f64::from(shape.slow_calls.max(1));
    let (op, comm, ratio) = (&shape.op, &call.call.comm, observed / usual);
    Verdict {
        summary: format!("`{op}` on `{comm}` takes {ratio:.2} times as long as before, and no rank comes late"),
        evidence: vec![Evidence {
            step: call.label.step,
            observed: Some(observed / 1e9),
            expected: Some(usual / 1e9),
            high: Some(LINK_RATIO * usual / 1e9),
            note: Some(format!("seconds of the shortest part in {} calls in a row", shape.slow_calls)),
            working: Working::new(&LINK_RULES)
                .with("usual_s", usual / 1e9)
                .with("slow_calls", shape.slow_calls)
                .with("excess_s", shape.excess_ns / 1e9)
                .with("ratio", ratio)
                .with("pace_s", call.pace_ns / 1e9)
                .with("loss", loss),
            ..Evidence::new(SPEC.name, &Metric::new(comm))
        }],
        ..spoken(Kind::SlowLink, loss, shape.first, call, case)
    }
}

impl Judge for LateArrival {
    const SPEC: Spec = SPEC;
    const VERSION: u8 = VERSION;

    fn judge(
        &mut self,
        seen: &Observation,
        scene: &Scene,
        _backend: &mut dyn Backend,
    ) -> Result<Vec<Verdict>, DetectError> {
        match seen {
            Observation::Attempt(start) => self.communicators.retain(|(attempt, _), _| *attempt >= start.attempt),
            Observation::Collective(call) => {
                budget::LATE_ARRIVAL.admit(&self.communicators, &(call.attempt, call.comm.clone()))?;
                return Ok(self.judge_call(call, scene));
            }
            _ => {}
        }
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use trainwarden_telemetry::{CollectiveEntry, Step};

    use super::*;
    use crate::detectors::testing::{Noise, assert_restores, bare_scene, judge_all};

    const MS: i64 = 1_000_000;

    /// Calls of eight ranks every 100 ms; `late_ms` and `transfer_ms` say what happens in call `seq` to a rank. The
    /// clocks of the ranks differ by seconds.
    fn calls(count: u64, late_ms: impl Fn(u64, u32) -> f64, transfer_ms: impl Fn(u64) -> f64) -> Vec<Observation> {
        let mut noise = Noise(3);
        let mut call = |seq: u64| {
            let come: Vec<f64> = (0..8).map(|rank| late_ms(seq, rank) + 0.3 * noise.normal().abs()).collect();
            let last = come.iter().copied().fold(0.0, f64::max);
            let at = |rank: u32, ms: f64| {
                Timestamp(seq as i64 * 100 * MS + i64::from(rank) * 2_000 * MS + (ms * MS as f64) as i64)
            };
            let entry = |rank: u32| CollectiveEntry {
                rank: Rank(rank),
                op: "all_reduce".to_owned(),
                bytes: Some(1 << 20),
                signature: None,
                enqueued: None,
                start: Some(at(rank, come[rank as usize])),
                end: Some(at(rank, last + transfer_ms(seq))),
                step: Some(Step(seq)),
                peer: None,
            };
            Observation::Collective(CollectiveCall {
                attempt: Attempt(0),
                comm: "dp".to_owned(),
                seq,
                entries: (0..8).map(entry).collect(),
                missing: Vec::new(),
                deadline_ns: None,
            })
        };
        (0..count).map(&mut call).collect()
    }

    fn verdicts_of(seen: &[Observation]) -> Vec<Verdict> {
        judge_all(&mut LateArrival::default(), &mut bare_scene(), seen)
    }

    #[test]
    fn the_rank_that_comes_last_is_named_and_cleared_though_clocks_differ() {
        let late = |seq, rank| if rank == 5 && (150..250).contains(&seq) { 8.0 } else { 0.0 };
        let seen = calls(400, late, |_| 4.0);
        let verdicts = verdicts_of(&seen);
        assert_eq!(verdicts.iter().map(|verdict| verdict.phase).collect::<Vec<_>>(), [Phase::Raised, Phase::Cleared]);
        assert_eq!(verdicts[0].ranks().collect::<Vec<_>>(), [Rank(5)]);
        assert_eq!((verdicts[0].kind, verdicts[0].severity), (Kind::SlowRank, Severity::Warning));
        assert!(verdicts[0].last.step < Some(Step(190)), "{:?}", verdicts[0].last);
        assert_restores(|| Box::new(LateArrival::default()), &seen);
    }

    #[test]
    fn lateness_is_the_median_wait_of_the_others_less_the_own() {
        for waits in [vec![3.0, 1.0, 2.0], vec![5.0, 5.0, 1.0, 5.0], vec![4.0, 0.0, 4.0, 9.0, 2.0], vec![7.0; 6]] {
            let waits: Vec<(Rank, f64)> = (0..).map(Rank).zip(waits).collect();
            for (at, (rank, late)) in lateness_of(&waits).into_iter().enumerate() {
                let mut others: Vec<f64> =
                    waits.iter().filter(|(other, _)| *other != rank).map(|(_, wait)| *wait).collect();
                assert_eq!(late, median_in_place(&mut others).unwrap() - waits[at].1, "{rank} of {waits:?}");
            }
        }
    }

    #[test]
    fn a_rank_late_by_much_from_the_first_call_is_named_early() {
        let verdicts = verdicts_of(&calls(80, |_, rank| if rank == 2 { 30.0 } else { 0.0 }, |_| 4.0));
        assert_eq!((verdicts.len(), verdicts[0].ranks().next()), (1, Some(Rank(2))));
        assert!(verdicts[0].last.step < Some(Step(64)));
    }

    #[test]
    fn lateness_that_wanders_or_is_tiny_names_nobody() {
        let wanders = |seq: u64, rank: u32| if (seq * 5) % 8 == u64::from(rank) { 8.0 } else { 0.0 };
        assert_eq!(verdicts_of(&calls(400, wanders, |_| 4.0)), []);
        let tiny = |seq, rank| if rank == 5 && seq > 150 { 0.4 } else { 0.0 };
        assert_eq!(verdicts_of(&calls(400, tiny, |_| 4.0)), []);
    }

    #[test]
    fn a_rank_that_comes_a_little_late_for_ever_is_no_finding_and_two_percent_more_is_a_warning() {
        for (more_ms, expected) in [(0.0, None), (2.0, Some(Severity::Warning)), (1.3, Some(Severity::Info))] {
            let late = |seq, rank| match rank {
                5 => 1.2 + if seq >= 150 { more_ms } else { 0.0 } + if seq % 5 < 3 { 0.0 } else { -1.2 },
                _ => 0.0,
            };
            let verdicts = verdicts_of(&calls(500, late, |_| 4.0));
            let worst = verdicts.iter().map(|verdict| verdict.severity).max();
            assert_eq!(worst, expected, "{more_ms}: {verdicts:?}");
        }
    }

    #[test]
    fn a_transfer_that_slows_with_nobody_late_is_the_link() {
        let seen = calls(300, |_, _| 0.0, |seq| if seq >= 150 { 9.0 } else { 4.0 });
        let verdicts = verdicts_of(&seen);
        assert_eq!((verdicts.len(), verdicts[0].kind, verdicts[0].suspects.len()), (1, Kind::SlowLink, 0));
        assert_eq!(verdicts[0].first.step, Some(Step(150)));
        assert_eq!(verdicts_of(&calls(300, |_, _| 0.0, |seq| if seq == 150 { 90.0 } else { 4.0 })), []);
    }

    #[test]
    fn unfinished_and_point_to_point_calls_are_left_to_others() {
        let mut seen = calls(100, |_, rank| if rank == 2 { 30.0 } else { 0.0 }, |_| 4.0);
        for observation in &mut seen {
            let Observation::Collective(call) = observation else { continue };
            call.entries[0].peer = (call.seq % 2 == 0).then_some(Rank(1));
            call.entries[1].end = call.entries[1].end.filter(|_| call.seq % 2 == 0);
        }
        assert_eq!(verdicts_of(&seen), []);
    }
}
