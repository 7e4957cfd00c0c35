//! Detects a hang: ranks wait in a communication call that somebody never finishes.
//!
//! # What it finds
//! Calls that closed at their deadline with a rank inside, and who is waited for: `stall.hang`.
//!
//! # Why it matters
//! The whole run stands still and pays for every device, while the rank that stopped looks the same as those that wait.
//!
//! # How it decides
//! By law: a call that one member entered is finished by all before its deadline. All overdue calls of all
//! communicators make one graph (`waits`): a rank that entered a call waits for each that has not. Suspects are ranks
//! that are waited for and wait for nobody, and ranks stuck in a symmetric operation that their peers have finished;
//! with neither, ranks never heard of that others wait for; in a ring of waiting, the one rank most wait for; in a call
//! that all entered, the ranks whose device state differs. There is one case at a time: raised at the first overdue
//! call, updated when later calls change the suspects, cleared when each overdue communicator finished a later call, or
//! by a new attempt. Quiet in an announced pause and after `run_end`. It begins at the last row of the call plus the
//! deadline. Critical: the run has stopped.
//!
//! # Parameters
//! The deadline of alignment; [`SUSPECTS_MAX`]; the limits of `waits`.
//!
//! # Blind spots
//! A log that never tells the end of calls looks like one long hang. A rank that is stuck outside of communication and
//! whose peers log no calls is for the detector of silence.
//!
//! # Source
//! Flight Recorder analysis as in NVRx and `torchfrtrace`: position of each rank per communicator, then the wait-for
//! graph to its sinks.

use serde::{Deserialize, Serialize};
use trainwarden_kernels::Backend;
use trainwarden_telemetry::{
    Attempt, CollectiveCall, Evidence, Kind, Label, Metric, Observation, Onset, Phase, Rank, Severity, Suspect,
    Timestamp, Verdict, Working,
};

use super::waits::{Tally, Waits};
use crate::{Against, DetectError, Judge, Scene, Spec};

const SPEC: Spec = Spec { name: "hang", against: Against::Law, watches: &["collectives"], kinds: &[Kind::Hang] };
const VERSION: u8 = 1;
/// Ranks named at most: with more, no rank stands out.
const SUSPECTS_MAX: usize = 16;

/// See the module's page.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Hang {
    attempt: Attempt,
    has_ended: bool,
    waits: Waits,
    open: Option<Verdict>,
    cases: u64,
}

impl Hang {
    /// Forgets the attempt before; whatever hung in it is over.
    fn begin(&mut self, attempt: Attempt) -> Option<Verdict> {
        let open = self.open.take();
        *self = Self { attempt, cases: self.cases, ..Self::default() };
        open.map(|open| Verdict { phase: Phase::Cleared, ..open })
    }

    fn judge_call(&mut self, call: &CollectiveCall, scene: &Scene) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        if call.attempt > self.attempt {
            verdicts.extend(self.begin(call.attempt));
        }
        if call.attempt < self.attempt || self.has_ended || is_in_pause(call, scene) {
            return verdicts;
        }
        let is_overdue = self.waits.observe(call);
        match (is_overdue, &self.open) {
            (true, _) => verdicts.extend(self.raise(call, scene)),
            (false, Some(_)) if self.waits.is_empty() => {
                let open = self.open.take().expect("it was matched");
                verdicts.push(Verdict { phase: Phase::Cleared, last: overdue_label(call), ..open });
            }
            (false, _) => {}
        }
        verdicts
    }

    fn raise(&mut self, call: &CollectiveCall, scene: &Scene) -> Option<Verdict> {
        let mut named = self.waits.suspects();
        let outnumber_waiters = named.len() > 1 && named.len() > self.waits.waiting();
        if named.len() > SUSPECTS_MAX || outnumber_waiters {
            named.clear();
        }
        let share = 1.0 / named.len().max(1) as f64;
        let suspects: Vec<Suspect> = named.iter().map(|(rank, _)| Suspect { rank: *rank, share }).collect();
        let is_same = |open: &Verdict| {
            let mut before: Vec<Rank> = open.ranks().collect();
            let mut now: Vec<Rank> = named.iter().map(|(rank, _)| *rank).collect();
            before.sort_unstable();
            now.sort_unstable();
            before == now
        };
        if self.open.as_ref().is_some_and(is_same) {
            return None;
        }
        let told = Told { named: &named, waiting: self.waits.waiting(), scene };
        let verdict = match self.open.take() {
            None => {
                self.cases += 1;
                Verdict { suspects, ..raised(call, self.cases - 1, &told) }
            }
            Some(open) => Verdict {
                phase: Phase::Updated,
                suspects,
                last: overdue_label(call),
                summary: told.summary(call),
                evidence: told.evidence(call),
                ..open
            },
        };
        self.open = Some(verdict.clone());
        Some(verdict)
    }
}

/// What the graph says at one moment.
struct Told<'a> {
    named: &'a [(Rank, Tally)],
    waiting: usize,
    scene: &'a Scene,
}

impl Told<'_> {
    fn summary(&self, call: &CollectiveCall) -> String {
        let op = call.entries.first().map_or("a call", |entry| entry.op.as_str());
        let place = format!("`{op}` number {} of `{}`", call.seq, call.comm);
        let ranks = if self.waiting == 1 { "rank hangs" } else { "ranks hang" };
        match self.named {
            [] => format!("{} {ranks}, seen in {place}; nobody stands out", self.waiting),
            named => {
                let names: Vec<String> =
                    named.iter().map(|(rank, _)| self.scene.describe(call.attempt, *rank)).collect();
                format!("{} {ranks}, held up by {}, seen in {place}", self.waiting, names.join(", "))
            }
        }
    }

    fn evidence(&self, call: &CollectiveCall) -> Vec<Evidence> {
        let metric = Metric::new(&call.comm);
        let whole = Evidence {
            step: call.step(),
            observed: Some(call.entries.iter().filter(|entry| entry.end.is_some()).count() as f64),
            expected: Some((call.entries.len() + call.missing.len()) as f64),
            note: Some(format!("members that finished call {} before its deadline", call.seq)),
            working: Working::new(&[
                "observed = members that finished; expected = members that entered + those that did not",
            ])
            .with("call", call.seq)
            .with("entered", call.entries.len())
            .with("not_entered", call.missing.len())
            .with("finished", call.entries.iter().filter(|entry| entry.end.is_some()).count())
            .with("kept_open_s", call.deadline_ns.map_or(f64::NAN, |deadline| deadline as f64 / 1e9))
            .with("ranks_waiting", self.waiting),
            ..Evidence::new(SPEC.name, &metric)
        };
        let of_rank = |(rank, tally): &(Rank, Tally)| {
            let exited = match self.scene.exit_of(call.attempt, *rank) {
                Some(_) => "; its process has exited",
                None => "",
            };
            Evidence {
                step: call.step(),
                rank: Some(*rank),
                note: Some(format!("{}{exited}", note(tally))),
                working: tally_working(tally),
                ..Evidence::new(SPEC.name, &metric)
            }
        };
        std::iter::once(whole).chain(self.named.iter().map(of_rank)).collect()
    }
}

fn tally_working(tally: &Tally) -> Working {
    Working::new(&["over all overdue calls: who is waited for, waits for nobody, or has not finished what others have"])
        .with("waits_for_it", tally.blocks)
        .with("waits_for_it_unheard", tally.blocks_weakly)
        .with("its_waits", tally.waits)
        .with("unfinished_where_others_finished", tally.lags)
        .with("unfinished", tally.unfinished)
        .with("device_state_of_few", tally.differs)
}

fn note(tally: &Tally) -> String {
    match (tally.blocks + tally.blocks_weakly, tally.lags) {
        (0, 0) => "its device state differs from the others inside the call".to_owned(),
        (0, lags) => format!("calls that its peers have finished and it has not: {lags}"),
        (waits, 0) => format!("waits of others for it: {waits}, of it for others: none"),
        (waits, lags) => {
            format!("waits of others for it: {waits}, calls that its peers have finished and it has not: {lags}")
        }
    }
}

fn raised(call: &CollectiveCall, case: u64, told: &Told<'_>) -> Verdict {
    Verdict {
        detector: SPEC.name.to_owned(),
        case,
        phase: Phase::Raised,
        attempt: call.attempt,
        kind: Kind::Hang,
        severity: Severity::Critical,
        suspects: Vec::new(),
        subject: call.comm.clone(),
        onset: call.step().map(|step| Onset { step, low: step, high: step }),
        first: overdue_label(call),
        last: overdue_label(call),
        summary: told.summary(call),
        evidence: told.evidence(call),
    }
}

fn times(call: &CollectiveCall) -> impl Iterator<Item = Timestamp> + '_ {
    call.entries.iter().flat_map(|entry| [entry.enqueued, entry.start, entry.end]).flatten()
}

/// The step of the call and the time it became overdue: its last row plus the deadline.
fn overdue_label(call: &CollectiveCall) -> Label {
    let overdue = |last: Timestamp| Timestamp(last.0.saturating_add(call.deadline_ns.unwrap_or(0)));
    Label { step: call.step(), time: times(call).max().map(overdue) }
}

fn is_in_pause(call: &CollectiveCall, scene: &Scene) -> bool {
    let (Some(begin), Some(end)) = (times(call).min(), overdue_label(call).time) else { return false };
    !call.is_complete() && scene.pause_during(call.attempt, begin, end).is_some()
}

impl Judge for Hang {
    const SPEC: Spec = SPEC;
    const VERSION: u8 = VERSION;

    fn judge(
        &mut self,
        seen: &Observation,
        scene: &Scene,
        _backend: &mut dyn Backend,
    ) -> Result<Vec<Verdict>, DetectError> {
        Ok(match seen {
            Observation::Collective(call) => self.judge_call(call, scene),
            Observation::Attempt(start) if start.attempt > self.attempt => {
                self.begin(start.attempt).into_iter().collect()
            }
            Observation::Event(event) if event.kind == "run_end" && event.attempt >= self.attempt => {
                self.has_ended = true;
                Vec::new()
            }
            _ => Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use trainwarden_telemetry::{CollectiveEntry, Event};

    use super::*;
    use crate::detectors::testing::{ROW_NS, assert_restores, bare_scene, call, entry, event, judge_all};

    /// Ranks that finished (`f`), are inside (`i`), or are absent (`-`), rank 0 first.
    fn state(comm: &str, seq: u64, ranks: &str) -> Observation {
        let entries = ranks.chars().enumerate().filter(|(_, state)| *state != '-').map(|(rank, state)| {
            let mut entry = entry(rank as u32, "all_reduce", seq);
            entry.end = entry.end.filter(|_| state == 'f');
            entry
        });
        let absent = ranks.chars().enumerate().filter(|(_, state)| *state == '-').map(|(rank, _)| Rank(rank as u32));
        Observation::Collective(CollectiveCall { missing: absent.collect(), ..call(comm, seq, entries.collect()) })
    }

    fn suspects(verdict: &Verdict) -> Vec<u32> {
        verdict.ranks().map(|rank| rank.0).collect()
    }

    #[test]
    fn the_rank_that_never_entered_is_named_and_the_time_is_the_last_row_plus_the_deadline() {
        let seen = [state("dp", 1, "ffff"), state("dp", 2, "ii-i"), state("dp", 3, "ii-i")];
        let verdicts = judge_all(&mut Hang::default(), &mut bare_scene(), &seen);
        assert_eq!(verdicts.len(), 1);
        assert_eq!(suspects(&verdicts[0]), [2]);
        assert_eq!(verdicts[0].severity, Severity::Critical);
        assert_eq!(verdicts[0].first.time, Some(Timestamp(2 * ROW_NS + 10 * ROW_NS)));
        assert_restores(|| Box::new(Hang::default()), &seen);
    }

    #[test]
    fn slow_calls_that_finish_and_a_lost_row_of_a_finished_call_are_quiet() {
        let seen = [state("dp", 1, "ffff"), state("dp", 2, "ff-f"), state("dp", 3, "ffff")];
        assert_eq!(judge_all(&mut Hang::default(), &mut bare_scene(), &seen), []);
        let nothing = call("dp", 1, Vec::new());
        assert_eq!(judge_all(&mut Hang::default(), &mut bare_scene(), &[Observation::Collective(nothing)]), []);
    }

    #[test]
    fn the_chain_of_waiting_is_followed_over_communicators_to_its_end() {
        // Ranks 0 and 1 wait for 2 in `tp`; 2 waits for 3 in `pp`; rank 3 waits for nobody.
        let seen = [
            state("pp", 1, "--ff"),
            state("tp", 1, "fff"),
            state("tp", 2, "ii-"),
            Observation::Collective(CollectiveCall {
                missing: vec![Rank(3)],
                ..call("pp", 2, vec![waiting(2, "all_reduce", 2)])
            }),
        ];
        let verdicts = judge_all(&mut Hang::default(), &mut bare_scene(), &seen);
        let named: Vec<Vec<u32>> = verdicts.iter().map(suspects).collect();
        assert_eq!(named, [vec![2], vec![3]]);
        assert_eq!((verdicts[1].phase, verdicts[1].case), (Phase::Updated, verdicts[0].case));
        assert_restores(|| Box::new(Hang::default()), &seen);
    }

    fn waiting(rank: u32, op: &str, seq: u64) -> CollectiveEntry {
        CollectiveEntry { end: None, ..entry(rank, op, seq) }
    }

    #[test]
    fn a_rank_stuck_in_a_call_its_peers_have_finished_is_named() {
        let verdicts = judge_all(&mut Hang::default(), &mut bare_scene(), &[state("dp", 7, "fifff")]);
        assert_eq!(suspects(&verdicts[0]), [1]);
        // A broadcast is finished by its root before the others took it, so being late in it says nothing.
        let mut entries = vec![entry(0, "broadcast", 1), waiting(1, "broadcast", 1)];
        entries.push(entry(2, "broadcast", 1));
        let seen = [Observation::Collective(call("dp", 1, entries))];
        assert_eq!(suspects(&judge_all(&mut Hang::default(), &mut bare_scene(), &seen)[0]), [0; 0]);
    }

    #[test]
    fn a_receiver_waits_for_its_peer_unless_the_peer_has_its_own_part_pending() {
        let pair = |rank, peer, seq| {
            let entry = CollectiveEntry { peer: Some(Rank(peer)), ..waiting(rank, "recv", seq) };
            Observation::Collective(call("pp", seq, vec![entry]))
        };
        let finished = |rank, peer, seq| {
            let entry = CollectiveEntry { peer: Some(Rank(peer)), ..entry(rank, "send", seq) };
            Observation::Collective(call("pp", seq, vec![entry]))
        };
        let seen = [pair(1, 0, 5)];
        let verdicts = judge_all(&mut Hang::default(), &mut bare_scene(), &seen);
        assert_eq!(suspects(&verdicts[0]), [0; 0], "a rank never heard of needs more who wait for it");
        let seen = [finished(0, 1, 4), pair(1, 0, 5)];
        assert_eq!(suspects(&judge_all(&mut Hang::default(), &mut bare_scene(), &seen)[0]), [0]);
        let seen = [finished(0, 1, 4), pair(1, 0, 5), pair(0, 1, 9)];
        let verdicts = judge_all(&mut Hang::default(), &mut bare_scene(), &seen);
        assert_eq!(suspects(verdicts.last().expect("raised")), [0; 0]);
        assert_restores(|| Box::new(Hang::default()), &seen);
    }

    #[test]
    fn everyone_inside_names_nobody_but_one_whose_device_differs() {
        let seen = [state("dp", 1, "iiii")];
        assert_eq!(suspects(&judge_all(&mut Hang::default(), &mut bare_scene(), &seen)[0]), [0; 0]);
        let mut entries: Vec<_> = (0..4).map(|rank| waiting(rank, "all_reduce", 1)).collect();
        entries[3].start = None;
        let seen = [Observation::Collective(call("dp", 1, entries))];
        assert_eq!(suspects(&judge_all(&mut Hang::default(), &mut bare_scene(), &seen)[0]), [3]);
    }

    #[test]
    fn a_later_finished_call_clears_and_run_end_and_a_pause_are_quiet() {
        let seen = [state("dp", 1, "ii-"), state("dp", 2, "fff")];
        let verdicts = judge_all(&mut Hang::default(), &mut bare_scene(), &seen);
        let phases: Vec<Phase> = verdicts.iter().map(|verdict| verdict.phase).collect();
        assert_eq!(phases, [Phase::Raised, Phase::Cleared]);
        for kind in ["run_end", "pause_begin"] {
            let quiet = [event(kind, 0), state("dp", 1, "ii-")];
            assert_eq!(judge_all(&mut Hang::default(), &mut bare_scene(), &quiet), [], "{kind}");
        }
    }

    #[test]
    fn a_new_attempt_ends_the_hang_of_the_one_before() {
        let Observation::Event(mark) = event("run_start", 99) else { panic!("an event was built") };
        let next = Observation::Collective(CollectiveCall {
            attempt: Attempt(1),
            ..call("dp", 1, vec![entry(0, "all_reduce", 1)])
        });
        let seen = [state("dp", 1, "ii-"), Observation::Event(Event { attempt: Attempt(1), ..mark }), next];
        let verdicts = judge_all(&mut Hang::default(), &mut bare_scene(), &seen);
        assert_eq!(verdicts.last().map(|verdict| verdict.phase), Some(Phase::Cleared));
    }
}
