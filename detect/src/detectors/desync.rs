//! Detects ranks that enter different operations under one sequence number.
//!
//! # What it finds
//! Members of one communicator whose call with the same number differs in operation or payload: `stall.desync`.
//!
//! # Why it matters
//! Such a call hangs, or, worse, it finishes and mixes bytes of different tensors: the weights cannot be trusted.
//!
//! # How it decides
//! By law: one call is one operation. The words of the members are compared and the minority is named; without a
//! majority nobody is. Operations are always compared; type, shape and bytes only where the operation demands equal
//! ones ([`EQUAL_PAYLOAD`]) and every member told them, because all-to-all, gather, scatter and the variants with
//! uneven splits differ by design. Point-to-point calls are left out: their two sides differ by nature. A communicator
//! has one case at a time; [`CLEAR_CALLS`] agreeing calls end it. Critical.
//!
//! # Parameters
//! [`CLEAR_CALLS`], [`EQUAL_PAYLOAD`].
//!
//! # Blind spots
//! A rank that swaps two operations of equal kind and size; a communicator of which one member logs.
//!
//! # Source
//! As `torchfrtrace` does: the first (communicator, number) where ranks differ in operation, size or type.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use trainwarden_kernels::{Backend, Vote, vote};
use trainwarden_telemetry::{
    Attempt, CollectiveCall, CollectiveEntry, Evidence, Kind, Label, Metric, Observation, Onset, Phase, Rank, Severity,
    Suspect, Timestamp, Verdict,
};

use crate::{Against, DetectError, Judge, Scene, Spec};

const SPEC: Spec = Spec { name: "desync", against: Against::Law, watches: &["collectives"], kinds: &[Kind::Desync] };
const VERSION: u8 = 1;
/// Agreeing calls that end a case: a training step issues tens of calls, so this is a few steps in agreement.
const CLEAR_CALLS: u32 = 100;
/// Operations whose members must give equal type, shape and size.
const EQUAL_PAYLOAD: [&str; 6] = ["all_reduce", "allreduce", "all_gather", "allgather", "reduce_scatter", "broadcast"];
/// Ranks named at most; with more the communicator itself is the suspect.
const SUSPECTS_MAX: usize = 16;
/// Cases open side by side: one cause touches the few communicators its ranks are in; further ones add nothing.
const CASES_MAX: usize = 256;

/// See the module's page.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Desync {
    open: BTreeMap<(Attempt, String), OpenCase>,
    cases: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct OpenCase {
    raised: Verdict,
    agreeing: u32,
    last_bad: Label,
}

/// What one member says a call is.
type Word<'a> = Vec<(&'a str, Option<&'a str>, Option<u64>)>;

impl Desync {
    fn judge_call(&mut self, call: &CollectiveCall, scene: &Scene) -> Option<Verdict> {
        let (ranks, words) = words(call);
        let outcome = vote(&words);
        if outcome == Vote::Unanimous && self.open.is_empty() {
            return None;
        }
        let key = (call.attempt, call.comm.clone());
        if outcome == Vote::Unanimous {
            let case = self.open.get_mut(&key)?;
            case.agreeing += u32::from(ranks.len() > 1);
            if case.agreeing < CLEAR_CALLS {
                return None;
            }
            let case = self.open.remove(&key)?;
            return Some(Verdict { phase: Phase::Cleared, last: case.last_bad, ..case.raised });
        }
        if let Some(case) = self.open.get_mut(&key) {
            case.agreeing = 0;
            case.last_bad = label(call);
            return None;
        }
        if self.open.len() == CASES_MAX {
            return None;
        }
        let verdict = raise(call, &Votes { ranks, words, outcome }, self.cases, scene);
        self.cases += 1;
        self.open.insert(key, OpenCase { raised: verdict.clone(), agreeing: 0, last_bad: label(call) });
        Some(verdict)
    }
}

/// One word a member that takes part in the collective, ascending by rank.
fn words(call: &CollectiveCall) -> (Vec<Rank>, Vec<Word<'_>>) {
    let entries = || call.entries.iter().filter(|entry| entry.peer.is_none());
    let has_signatures = entries().all(|entry| entry.signature.is_some());
    let has_bytes = entries().all(|entry| entry.bytes.is_some());
    let mut ranks: Vec<Rank> = Vec::new();
    let mut words: Vec<Word<'_>> = Vec::new();
    for entry in entries() {
        let is_equal = has_equal_payload(entry);
        let signature = entry.signature.as_deref().filter(|_| is_equal && has_signatures);
        let part = (entry.op.as_str(), signature, entry.bytes.filter(|_| is_equal && has_bytes));
        // Calls that were coalesced into one share a number, so a member may have several parts.
        match (ranks.last(), words.last_mut()) {
            (Some(last), Some(word)) if *last == entry.rank => word.push(part),
            _ => {
                ranks.push(entry.rank);
                words.push(vec![part]);
            }
        }
    }
    (ranks, words)
}

fn has_equal_payload(entry: &CollectiveEntry) -> bool {
    let is_uneven = entry.op.ends_with('v') || entry.op.contains("_v_") || entry.op.contains("uneven");
    !is_uneven && EQUAL_PAYLOAD.iter().any(|op| entry.op.contains(op))
}

struct Votes<'a> {
    ranks: Vec<Rank>,
    words: Vec<Word<'a>>,
    outcome: Vote,
}

fn raise(call: &CollectiveCall, votes: &Votes<'_>, case: u64, scene: &Scene) -> Verdict {
    let minority: &[usize] = match &votes.outcome {
        Vote::Minority(minority) => minority,
        _ => &[],
    };
    let majority = (0..votes.ranks.len()).find(|index| !minority.contains(index)).filter(|_| !minority.is_empty());
    let named: Vec<Rank> = minority.iter().take(SUSPECTS_MAX).map(|index| votes.ranks[*index]).collect();
    let share = 1.0 / minority.len().max(1) as f64;
    let told = majority.map(|index| text(&votes.words[index]));
    let shown = if minority.is_empty() { (0..votes.ranks.len()).collect() } else { minority.to_vec() };
    let evidence = shown.iter().take(SUSPECTS_MAX).map(|index| Evidence {
        step: call.step(),
        rank: Some(votes.ranks[*index]),
        note: Some(match &told {
            Some(told) => format!("issued {}, the majority {told}", text(&votes.words[*index])),
            None => format!("issued {}", text(&votes.words[*index])),
        }),
        ..Evidence::new(SPEC.name, &Metric::new(&call.comm))
    });
    let who = match (named.as_slice(), &told) {
        ([one], Some(told)) => {
            let word = text(&votes.words[minority[0]]);
            format!("{} issues {word} where the others issue {told}", scene.describe(call.attempt, *one))
        }
        ([first, ..], Some(told)) => {
            format!("{} of {} ranks, first {first}, do not issue {told}", minority.len(), votes.ranks.len())
        }
        _ => format!("{} ranks issue different operations", votes.ranks.len()),
    };
    Verdict {
        detector: SPEC.name.to_owned(),
        case,
        phase: Phase::Raised,
        attempt: call.attempt,
        kind: Kind::Desync,
        severity: Severity::Critical,
        suspects: named.into_iter().map(|rank| Suspect { rank, share }).collect(),
        subject: call.comm.clone(),
        onset: call.step().map(|step| Onset { step, low: step, high: step }),
        first: label(call),
        last: label(call),
        summary: format!("{who} in call {} of `{}`", call.seq, call.comm),
        evidence: evidence.collect(),
    }
}

fn text(word: &Word<'_>) -> String {
    let part = |(op, signature, bytes): &(&str, Option<&str>, Option<u64>)| {
        let signature = signature.map_or(String::new(), |signature| format!(" {signature}"));
        let bytes = bytes.map_or(String::new(), |bytes| format!(" of {bytes} bytes"));
        format!("`{op}`{signature}{bytes}")
    };
    word.iter().map(part).collect::<Vec<_>>().join(" and ")
}

/// Step of the call and the median of its members' times.
fn label(call: &CollectiveCall) -> Label {
    let time = |entry: &CollectiveEntry| entry.enqueued.or(entry.start).or(entry.end);
    let mut times: Vec<Timestamp> = call.entries.iter().filter_map(time).collect();
    times.sort_unstable();
    Label { step: call.step(), time: times.get(times.len().saturating_sub(1) / 2).copied() }
}

impl Judge for Desync {
    const SPEC: Spec = SPEC;
    const VERSION: u8 = VERSION;

    fn judge(
        &mut self,
        seen: &Observation,
        scene: &Scene,
        _backend: &mut dyn Backend,
    ) -> Result<Vec<Verdict>, DetectError> {
        Ok(match seen {
            Observation::Collective(call) => self.judge_call(call, scene).into_iter().collect(),
            Observation::Attempt(start) => {
                let kept = self.open.split_off(&(start.attempt, String::new()));
                let ended = std::mem::replace(&mut self.open, kept);
                let clear = |case: OpenCase| Verdict { phase: Phase::Cleared, last: case.last_bad, ..case.raised };
                ended.into_values().map(clear).collect()
            }
            _ => Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detectors::testing::{assert_restores, bare_scene, call, entry, judge_all};

    fn of_ops(seq: u64, ops: &[&str]) -> Observation {
        let entries = ops.iter().enumerate().map(|(rank, op)| entry(rank as u32, op, seq)).collect();
        Observation::Collective(call("dp", seq, entries))
    }

    fn of_bytes(op: &str, bytes: &[u64]) -> Observation {
        let part = |(rank, bytes): (usize, &u64)| CollectiveEntry { bytes: Some(*bytes), ..entry(rank as u32, op, 1) };
        Observation::Collective(call("dp", 1, bytes.iter().enumerate().map(part).collect()))
    }

    fn judge(seen: &[Observation]) -> Vec<Verdict> {
        judge_all(&mut Desync::default(), &mut bare_scene(), seen)
    }

    #[test]
    fn one_rank_with_another_operation_is_one_critical_case_that_names_it() {
        let bad = ["all_reduce", "all_reduce", "all_gather", "all_reduce"];
        let seen = [of_ops(1, &["all_reduce"; 4]), of_ops(2, &bad), of_ops(3, &bad)];
        let verdicts = judge(&seen);
        assert_eq!(verdicts.len(), 1);
        assert_eq!(verdicts[0].ranks().collect::<Vec<_>>(), [Rank(2)]);
        assert_eq!(verdicts[0].severity, Severity::Critical);
        assert_eq!(verdicts[0].evidence.len(), 1);
        assert_restores(|| Box::new(Desync::default()), &seen);
    }

    #[test]
    fn equal_operations_say_nothing_and_one_member_or_none_cannot_disagree() {
        assert_eq!(judge(&[of_ops(1, &["all_reduce"; 4]), of_ops(2, &["barrier"]), of_ops(3, &[])]), []);
    }

    #[test]
    fn sizes_must_agree_in_an_all_reduce_and_may_differ_where_splits_are_uneven() {
        assert_eq!(judge(&[of_bytes("all_reduce", &[64, 64, 32])])[0].ranks().collect::<Vec<_>>(), [Rank(2)]);
        for op in ["all_to_all", "all_gatherv", "gather", "scatter"] {
            assert_eq!(judge(&[of_bytes(op, &[64, 64, 32])]), [], "{op}");
        }
    }

    #[test]
    fn two_members_that_differ_are_told_and_neither_is_named() {
        let verdicts = judge(&[of_ops(1, &["all_reduce", "broadcast"])]);
        assert_eq!((verdicts[0].suspects.len(), verdicts[0].evidence.len()), (0, 2));
    }

    #[test]
    fn the_two_sides_of_a_point_to_point_call_differ_by_nature() {
        let side = |rank, peer, op| CollectiveEntry { peer: Some(Rank(peer)), ..entry(rank, op, 1) };
        assert_eq!(judge(&[Observation::Collective(call("pp", 1, vec![side(0, 1, "send"), side(1, 0, "recv")]))]), []);
    }

    #[test]
    fn agreement_ends_the_case_and_the_next_difference_is_a_new_one() {
        let bad = ["all_reduce", "all_reduce", "all_gather"];
        let mut seen = vec![of_ops(0, &bad)];
        seen.extend((1..=u64::from(CLEAR_CALLS)).map(|seq| of_ops(seq, &["all_reduce"; 3])));
        seen.push(of_ops(500, &bad));
        let phases: Vec<(Phase, u64)> = judge(&seen).iter().map(|verdict| (verdict.phase, verdict.case)).collect();
        assert_eq!(phases, [(Phase::Raised, 0), (Phase::Cleared, 0), (Phase::Raised, 1)]);
        assert_restores(|| Box::new(Desync::default()), &seen);
    }
}
