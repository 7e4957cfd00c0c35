//! One cause gives one incident, from the folder to the incident.

#![expect(unused_crate_dependencies, reason = "what this target does not use serves another one of the package")]

mod synthetic;

use synthetic::{At, Folder, SECOND_NS, START_NS, Training, alarms, words};
use trainwarden::replay::Findings;
use trainwarden_telemetry::{Kind, State};

fn found(trainings: Vec<Training>) -> Findings {
    let mut folder = Folder::new();
    let mut begin = START_NS;
    for training in trainings {
        begin = Training { begin, ..training }.write(&mut folder) + 60 * SECOND_NS;
    }
    folder.replay()
}

/// Holds that there is one alarm, of this kind and about these ranks.
fn assert_one(findings: &Findings, kind: Kind, ranks: &[u32]) {
    let alarms = alarms(findings);
    assert_eq!(alarms.len(), 1, "{:#?}", words(findings));
    let mut named: Vec<u32> = alarms[0].suspects.iter().map(|suspect| suspect.rank.0).collect();
    named.sort_unstable();
    assert_eq!((alarms[0].kind, named.as_slice()), (kind, ranks), "{:#?}", words(findings));
}

#[test]
fn a_slow_rank_seen_in_everything_is_one_incident() {
    let work = |step: u64, rank| if rank == 5 && (150..300).contains(&step) { 1.3 } else { 1.0 };
    let findings = found(vec![Training { ranks: 16, steps: 0..500, work, ..Training::default() }]);
    assert_one(&findings, Kind::SlowRank, &[5]);
    assert_eq!(alarms(&findings)[0].state, State::Resolved);
}

#[test]
fn a_slow_rank_of_a_pipeline_is_one_incident() {
    let work = |step: u64, rank| if rank == 5 && step >= 150 { 1.3 } else { 1.0 };
    assert_one(&found(vec![Training { ranks: 16, stages: 4, work, ..Training::default() }]), Kind::SlowRank, &[5]);
}

#[test]
fn a_rank_slow_from_the_first_step_on_is_one_incident() {
    let work = |_, rank| if rank == 5 { 1.3 } else { 1.0 };
    assert_one(&found(vec![Training { ranks: 16, work, ..Training::default() }]), Kind::SlowRank, &[5]);
}

#[test]
fn a_slow_rank_in_a_log_without_times_or_roster_is_one_incident() {
    let work = |step: u64, rank| if rank == 5 && step >= 150 { 1.3 } else { 1.0 };
    let mut folder = Folder::new();
    folder.is_timed = false;
    Training { ranks: 16, work, has_roster: false, ..Training::default() }.write(&mut folder);
    assert_one(&folder.replay(), Kind::SlowRank, &[5]);
}

#[test]
fn a_slow_node_is_one_incident() {
    let work = |step: u64, rank| if rank / 4 == 1 && step >= 150 { 1.3 } else { 1.0 };
    assert_one(&found(vec![Training { ranks: 32, work, ..Training::default() }]), Kind::SlowRank, &[4, 5, 6, 7]);
}

#[test]
fn a_slow_run_is_one_incident_that_names_nobody() {
    let work = |step: u64, _| if step >= 200 { 1.4 } else { 1.0 };
    assert_one(&found(vec![Training { work, ..Training::default() }]), Kind::SlowRun, &[]);
}

#[test]
fn replayed_telemetry_of_a_rank_is_one_incident() {
    let numbers_of = |step: u64, rank| if rank == 3 && step >= 200 { 100 + step % 100 } else { step };
    assert_one(&found(vec![Training { numbers_of, ..Training::default() }]), Kind::Replay, &[3]);
}

#[test]
fn a_silent_node_is_one_incident() {
    let mute = |step: u64, rank| rank / 4 == 1 && step >= 200;
    assert_one(&found(vec![Training { ranks: 16, mute, ..Training::default() }]), Kind::Silence, &[4, 5, 6, 7]);
}

#[test]
fn a_loss_that_explodes_is_one_incident() {
    let loss = |step: u64| {
        let course = 2.0 + 8.0 / (1.0 + step as f64 / 20.0);
        if step >= 250 { course + 4.0 * (1.0 - (-((step - 250) as f64) / 10.0).exp()) } else { course }
    };
    let findings = found(vec![Training { loss, ..Training::default() }]);
    assert_eq!(alarms(&findings).len(), 1, "{:#?}", words(&findings));
}

#[test]
fn a_hang_of_many_ranks_is_one_bounded_incident() {
    let mut folder = Folder::new();
    let ranks = 8_192;
    for step in 0..4_u64 {
        let begin = START_NS + step as i64 * SECOND_NS;
        for rank in (0..ranks).filter(|rank| step < 3 || *rank != 77) {
            let end = (step < 3).then_some(begin + SECOND_NS / 2);
            folder.call(At { attempt: 0, step, time: begin }, rank, begin + i64::from(rank), end);
        }
    }
    let findings = folder.replay();
    assert_one(&findings, Kind::Hang, &[77]);
    let body = serde_json::to_string(alarms(&findings)[0]).expect("an incident is JSON");
    assert!(body.len() < 16_384, "{} bytes", body.len());
}

#[test]
fn a_hang_without_a_culprit_is_one_bounded_incident() {
    let mut folder = Folder::new();
    for step in 0..4_u64 {
        let begin = START_NS + step as i64 * SECOND_NS;
        for rank in 0..8_192 {
            let end = (step < 3).then_some(begin + SECOND_NS / 2);
            folder.call(At { attempt: 0, step, time: begin }, rank, begin + i64::from(rank), end);
        }
    }
    let findings = folder.replay();
    assert_one(&findings, Kind::Hang, &[]);
    let body = serde_json::to_string(alarms(&findings)[0]).expect("an incident is JSON");
    assert!(body.len() < 16_384, "{} bytes", body.len());
}

#[test]
fn a_hang_that_silences_and_ends_the_attempt_is_one_incident_and_over_in_the_next() {
    let first = Training {
        steps: 0..300,
        hangs: |step, rank| step == 299 && rank == 6,
        mute: |step, rank| step == 299 && rank == 6,
        ..Training::default()
    };
    let second = Training { attempt: 1, steps: 250..500, ..Training::default() };
    let findings = found(vec![first, second]);
    assert_one(&findings, Kind::Hang, &[6]);
    assert_eq!(alarms(&findings)[0].state, State::Resolved);
}

#[test]
fn what_was_wrong_with_ended_processes_is_over_when_the_next_attempt_begins() {
    let work = |step: u64, rank| if rank == 5 && step >= 150 { 1.3 } else { 1.0 };
    let first = Training { steps: 0..300, work, ..Training::default() };
    let alone = found(vec![Training { steps: 0..300, work, ..Training::default() }]);
    assert_eq!(alarms(&alone)[0].state, State::Open, "nothing ended it");
    let findings = found(vec![first, Training { attempt: 1, steps: 250..400, ..Training::default() }]);
    assert_one(&findings, Kind::SlowRank, &[5]);
    assert_eq!(alarms(&findings)[0].state, State::Resolved);
}
