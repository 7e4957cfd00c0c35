use trainwarden_telemetry::{Metric, Onset, Placement, Step, Suspect};

use super::*;

fn at(step: u64) -> Label {
    Label { step: Some(Step(step)), time: Some(Timestamp(step as i64 * 1_000_000_000)) }
}

fn verdict(kind: Kind, ranks: &[u32], step: u64) -> Verdict {
    let share = 1.0 / ranks.len().max(1) as f64;
    Verdict {
        detector: kind.as_str().to_owned(),
        case: step,
        phase: Phase::Raised,
        attempt: Attempt(0),
        kind,
        severity: Severity::Warning,
        suspects: ranks.iter().map(|rank| Suspect { rank: Rank(*rank), share }).collect(),
        subject: "m".to_owned(),
        onset: Some(Onset { step: Step(step), low: Step(step), high: Step(step) }),
        first: at(step),
        last: at(step + 3),
        summary: format!("{kind} at {step}"),
        evidence: vec![Evidence { log10_e: Some(9.0), ..Evidence::new(kind.as_str(), &Metric::new("m")) }],
    }
}

fn kinds(changes: &[Change]) -> Vec<(ChangeKind, Kind)> {
    changes.iter().map(|change| (change.change, change.incident.kind)).collect()
}

#[test]
fn a_slow_run_joins_the_slow_rank_that_causes_it_and_another_rank_does_not() {
    let mut correlator = Correlator::new(RunId::new("r"));
    correlator.take(&verdict(Kind::SlowRank, &[17], 100));
    assert_eq!(kinds(&correlator.take(&verdict(Kind::SlowRun, &[], 102))), [(ChangeKind::Updated, Kind::SlowRank)]);
    assert_eq!(kinds(&correlator.take(&verdict(Kind::SlowRank, &[4], 103))), [(ChangeKind::Opened, Kind::SlowRank)]);
    assert_eq!(correlator.incidents().count(), 2);
}

#[test]
fn an_effect_seen_first_is_merged_into_its_cause_and_one_that_began_long_before_is_not() {
    let mut correlator = Correlator::new(RunId::new("r"));
    correlator.take(&verdict(Kind::SlowRun, &[], 100));
    let changes = correlator.take(&verdict(Kind::SlowRank, &[3], 101));
    let expected = [
        (ChangeKind::Opened, Kind::SlowRank),
        (ChangeKind::Merged, Kind::SlowRun),
        (ChangeKind::Updated, Kind::SlowRank),
    ];
    assert_eq!(kinds(&changes), expected);
    assert_eq!(changes[1].incident.merged_into.as_ref(), Some(&changes[0].incident.id));
    let mut correlator = Correlator::new(RunId::new("r"));
    correlator.take(&verdict(Kind::SlowRun, &[], 100));
    assert_eq!(correlator.take(&verdict(Kind::SlowRank, &[3], 900)).len(), 1);
}

#[test]
fn an_effect_that_was_over_before_its_cause_was_found_is_merged_too() {
    let mut correlator = Correlator::new(RunId::new("r"));
    let effect = verdict(Kind::SlowRun, &[], 420);
    correlator.take(&effect);
    correlator.take(&Verdict { phase: Phase::Cleared, last: at(440), ..effect });
    let changes = correlator.take(&Verdict { last: at(470), ..verdict(Kind::Intermittent, &[], 400) });
    assert_eq!(kinds(&changes)[1], (ChangeKind::Merged, Kind::SlowRun));
    assert_eq!(correlator.take(&verdict(Kind::SlowRank, &[3], 400)).len(), 3, "merged once, into the first cause");
}

#[test]
fn while_the_optimizer_climbs_the_loss_is_no_matter_of_its_own_and_after_a_change_of_schedule_it_is() {
    for (cause, count) in [(Kind::InconsistentUpdate, 1), (Kind::Schedule, 2)] {
        let mut correlator = Correlator::new(RunId::new("r"));
        correlator.take(&verdict(cause, &[], 100));
        correlator.take(&verdict(Kind::LossSpike, &[], 290));
        assert_eq!(correlator.incidents().count(), count, "{cause}");
    }
}

#[test]
fn an_incident_resolves_with_its_last_case_and_reopens_under_its_id() {
    let mut correlator = Correlator::new(RunId::new("r"));
    let raised = verdict(Kind::SlowRank, &[17], 100);
    let id = correlator.take(&raised)[0].incident.id.clone();
    let effect = verdict(Kind::SlowRun, &[], 102);
    correlator.take(&effect);
    assert_eq!(correlator.take(&Verdict { phase: Phase::Cleared, ..raised.clone() }), []);
    let cleared = correlator.take(&Verdict { phase: Phase::Cleared, last: at(150), ..effect });
    assert_eq!(kinds(&cleared), [(ChangeKind::Resolved, Kind::SlowRank)]);
    assert_eq!(cleared[0].incident.last_step, Some(Step(150)));
    let again = correlator.take(&verdict(Kind::SlowRank, &[17], 200));
    assert_eq!(kinds(&again), [(ChangeKind::Reopened, Kind::SlowRank)]);
    assert_eq!(again[0].incident.id, id);
    assert_eq!(kinds(&correlator.take(&verdict(Kind::SlowRank, &[18], 200))), [(ChangeKind::Opened, Kind::SlowRank)]);
}

fn launch(attempt: u32) -> Observation {
    Observation::Attempt(trainwarden_telemetry::AttemptStart {
        attempt: Attempt(attempt),
        roster: Arc::default(),
        communicators: Arc::default(),
    })
}

#[test]
fn a_launch_resolves_what_was_about_the_processes_before_it_and_not_what_they_left_behind() {
    let mut correlator = Correlator::new(RunId::new("r"));
    assert_eq!(correlator.observe(&launch(0)), []);
    let slow = verdict(Kind::SlowRank, &[17], 100);
    correlator.take(&slow);
    correlator.take(&verdict(Kind::ReplicaMismatch, &[3], 100));
    assert_eq!(correlator.observe(&launch(0)), [], "the launch it is about");
    let ended = correlator.observe(&launch(1));
    assert_eq!(kinds(&ended), [(ChangeKind::Resolved, Kind::SlowRank)]);
    assert_eq!(correlator.take(&Verdict { phase: Phase::Cleared, ..slow }), [], "the detector's own word is no news");
    assert_eq!(correlator.observe(&launch(2)), []);
    let states: Vec<State> = correlator.incidents().map(|incident| incident.state).collect();
    assert_eq!(states, [State::Resolved, State::Open]);
}

#[test]
fn an_incident_carries_node_audit_records_and_checkpoints() {
    let mut correlator = Correlator::new(RunId::new("r"));
    let mut roster = Roster::default();
    roster.placements.insert(Rank(17), Placement { node: Some("n02".to_owned()), ..Placement::default() });
    let start = trainwarden_telemetry::AttemptStart {
        attempt: Attempt(0),
        roster: Arc::new(roster),
        communicators: Arc::default(),
    };
    correlator.observe(&Observation::Attempt(start));
    let event = |kind: &str, time_s: i64, subject: &str| Event {
        time: Timestamp(time_s * 1_000_000_000),
        source: "s".to_owned(),
        kind: kind.to_owned(),
        actor: None,
        run: None,
        attempt: Attempt(0),
        node: None,
        rank: None,
        subject: Some(subject.to_owned()),
        detail: None,
    };
    correlator.observe(&Observation::Event(event("exec", 90, "nvidia-smi -lgc")));
    correlator.observe(&Observation::Event(event("checkpoint", 80, "step-80")));
    let opened = correlator.take(&verdict(Kind::GradientRank, &[17], 100));
    let incident = &opened[0].incident;
    assert_eq!(incident.suspects[0].node.as_deref(), Some("n02"));
    assert_eq!(incident.changes[0].lag_s, -10.0);
    assert_eq!(incident.last_good_checkpoint.as_ref().map(|good| good.name.as_str()), Some("step-80"));
    let changes = correlator.observe(&Observation::Event(event("checkpoint", 110, "step-110")));
    assert_eq!(kinds(&changes), [(ChangeKind::Updated, Kind::GradientRank)]);
    assert_eq!(changes[0].incident.affected_checkpoints, ["step-110"]);
    let ack = correlator.observe(&Observation::Event(event("ack", 120, &incident.id.0)));
    assert_eq!(ack[0].incident.state, State::Acknowledged);
}

#[test]
fn ids_depend_on_what_an_incident_is_and_on_nothing_else() {
    let id = |run: &str, kind, ranks: &[u32], step| incident_id(&RunId::new(run), &verdict(kind, ranks, step));
    let base = id("r", Kind::SlowRank, &[1, 2], 5);
    assert_eq!(base, id("r", Kind::SlowRank, &[2, 1], 5));
    for other in [
        id("q", Kind::SlowRank, &[1, 2], 5),
        id("r", Kind::Hang, &[1, 2], 5),
        id("r", Kind::SlowRank, &[1], 5),
        id("r", Kind::SlowRank, &[1, 2], 6),
    ] {
        assert_ne!(base, other);
    }
}

#[test]
fn later_stages_of_a_slow_ranks_pipeline_are_not_blamed_for_coming_late() {
    let mut roster = Roster::default();
    for (rank, dp) in [(0, 0), (16, 0), (20, 1)] {
        roster.placements.insert(Rank(rank), Placement { dp: Some(dp), ..Placement::default() });
    }
    let start = trainwarden_telemetry::AttemptStart {
        attempt: Attempt(0),
        roster: Arc::new(roster),
        communicators: Arc::default(),
    };
    let late =
        |rank: u32, step| Verdict { detector: LATE_ARRIVAL.to_owned(), ..verdict(Kind::SlowRank, &[rank], step) };
    let mut correlator = Correlator::new(RunId::new("r"));
    correlator.observe(&Observation::Attempt(start));
    correlator.take(&verdict(Kind::SlowRank, &[0], 100));
    assert_eq!(kinds(&correlator.take(&late(16, 110))), [(ChangeKind::Updated, Kind::SlowRank)]);
    assert_eq!(kinds(&correlator.take(&late(20, 111))), [(ChangeKind::Opened, Kind::SlowRank)], "another pipeline");
    assert_eq!(correlator.incidents().count(), 2);
}

#[test]
fn an_effect_that_comes_back_joins_the_cause_that_was_found_meanwhile() {
    let mut correlator = Correlator::new(RunId::new("r"));
    let slow = verdict(Kind::SlowRun, &[], 100);
    correlator.take(&slow);
    correlator.take(&Verdict { phase: Phase::Cleared, last: at(120), ..slow });
    correlator.take(&verdict(Kind::Intermittent, &[], 130));
    let back = correlator.take(&verdict(Kind::SlowRun, &[], 140));
    assert_eq!(kinds(&back), [(ChangeKind::Updated, Kind::Intermittent)]);
}

#[test]
fn a_slow_link_is_not_the_effect_of_a_slow_rank_outside_of_its_communicator() {
    let members = BTreeMap::from([("dp/0", [Rank(0), Rank(2)]), ("dp/1", [Rank(1), Rank(3)])]);
    let members = members.into_iter().map(|(comm, ranks)| (comm.to_owned(), BTreeSet::from(ranks))).collect();
    let launch = trainwarden_telemetry::AttemptStart {
        attempt: Attempt(0),
        roster: Arc::default(),
        communicators: Arc::new(Communicators { members }),
    };
    let link = |comm: &str| Verdict { subject: comm.to_owned(), ..verdict(Kind::SlowLink, &[], 110) };
    let expected = [("dp/0", ChangeKind::Opened), ("dp/1", ChangeKind::Updated), ("pp/7", ChangeKind::Updated)];
    for (comm, change) in expected {
        let mut correlator = Correlator::new(RunId::new("r"));
        correlator.observe(&Observation::Attempt(launch.clone()));
        correlator.take(&verdict(Kind::SlowRank, &[1], 100));
        assert_eq!(correlator.take(&link(comm))[0].change, change, "{comm}");
        let mut correlator = Correlator::new(RunId::new("r"));
        correlator.observe(&Observation::Attempt(launch.clone()));
        correlator.take(&link(comm));
        let merged = correlator.take(&verdict(Kind::SlowRank, &[1], 112)).len() > 1;
        assert_eq!(merged, change == ChangeKind::Updated, "{comm}");
    }
}

#[test]
fn what_begins_long_after_the_speaking_detector_saw_the_end_is_no_effect() {
    let slow = |detector: &str| Verdict { detector: detector.to_owned(), ..verdict(Kind::SlowRank, &[1], 100) };
    let effect = |step| verdict(Kind::SlowRun, &[], step);
    for (step, change) in [(150, ChangeKind::Updated), (200, ChangeKind::Opened)] {
        let mut correlator = Correlator::new(RunId::new("r"));
        correlator.take(&slow("straggler"));
        // It counts calm calls for long before it believes that nobody comes late any more.
        correlator.take(&slow("late_arrival"));
        assert_eq!(correlator.take(&Verdict { phase: Phase::Cleared, last: at(120), ..slow("straggler") }), []);
        assert_eq!(correlator.take(&effect(step))[0].change, change, "{step}");
    }
    let mut correlator = Correlator::new(RunId::new("r"));
    correlator.take(&slow("straggler"));
    assert_eq!(correlator.take(&effect(900))[0].change, ChangeKind::Updated, "it still lasts");
}

#[test]
fn pauses_taken_for_an_effect_part_from_it_when_they_turn_out_to_be_of_others() {
    let mut correlator = Correlator::new(RunId::new("r"));
    correlator.take(&verdict(Kind::SlowRank, &[17], 100));
    let pauses = verdict(Kind::Intermittent, &[], 110);
    assert_eq!(kinds(&correlator.take(&pauses)), [(ChangeKind::Updated, Kind::SlowRank)]);
    let update =
        |ranks: &[u32]| Verdict { case: pauses.case, phase: Phase::Updated, ..verdict(Kind::Intermittent, ranks, 110) };
    assert_eq!(kinds(&correlator.take(&update(&[17]))), [(ChangeKind::Updated, Kind::SlowRank)], "the slow rank's own");
    assert_eq!(kinds(&correlator.take(&update(&[4, 5, 17]))), [(ChangeKind::Opened, Kind::Intermittent)]);
    assert_eq!(kinds(&correlator.take(&update(&[4, 5, 6]))), [(ChangeKind::Updated, Kind::Intermittent)]);
    let named: Vec<u32> = correlator.incidents().flat_map(ranks_of).map(|rank| rank.0).collect();
    assert_eq!(named, [17, 4, 5, 6]);
    let over = Verdict { phase: Phase::Cleared, ..pauses };
    assert_eq!(kinds(&correlator.take(&over)), [(ChangeKind::Resolved, Kind::Intermittent)]);
}

#[test]
fn of_two_findings_of_one_incident_the_one_that_names_ranks_speaks() {
    let other = |ranks: &[u32]| Verdict { detector: "other".to_owned(), ..verdict(Kind::Intermittent, ranks, 105) };
    let mut correlator = Correlator::new(RunId::new("r"));
    correlator.take(&verdict(Kind::Intermittent, &[], 100));
    correlator.take(&other(&[3, 4]));
    let incident = correlator.incidents().next().expect("one was opened");
    assert_eq!((incident.suspects.len(), incident.first_step), (2, Some(Step(100))));
    let mut correlator = Correlator::new(RunId::new("r"));
    correlator.take(&verdict(Kind::Intermittent, &[], 100));
    correlator.take(&other(&[]));
    let update = Verdict { phase: Phase::Updated, ..other(&[3]) };
    assert_eq!(kinds(&correlator.take(&update)), [(ChangeKind::Updated, Kind::Intermittent)]);
    assert_eq!(correlator.incidents().map(|incident| incident.suspects.len()).collect::<Vec<_>>(), [1]);
}

#[test]
fn strange_data_takes_in_the_gradients_it_makes_and_not_one_that_is_turned_round() {
    let mut correlator = Correlator::new(RunId::new("r"));
    correlator.take(&verdict(Kind::GradientRank, &[6], 100));
    correlator.take(&verdict(Kind::GradientRank, &[7], 101));
    let changes = correlator.take(&verdict(Kind::DataShift, &[7, 6], 99));
    let merged = changes.iter().filter(|change| change.change == ChangeKind::Merged).count();
    assert_eq!((changes[0].incident.kind, merged), (Kind::DataShift, 2));
    let later = correlator.take(&verdict(Kind::GradientRank, &[6], 500));
    assert_eq!(kinds(&later), [(ChangeKind::Updated, Kind::DataShift)], "while it lasts");
    let turned = Verdict { severity: Severity::Critical, ..verdict(Kind::GradientRank, &[6], 600) };
    assert_eq!(kinds(&correlator.take(&turned)), [(ChangeKind::Opened, Kind::GradientRank)]);
}

#[test]
fn effects_that_take_long_to_be_seen_join_their_cause_while_it_lasts() {
    for (cause, effect, ranks) in [
        (Kind::Throttle, Kind::MetricShift, &[3_u32][..]),
        (Kind::InconsistentUpdate, Kind::LossSpike, &[]),
        (Kind::Replay, Kind::DataShift, &[3]),
    ] {
        let mut correlator = Correlator::new(RunId::new("r"));
        correlator.take(&verdict(cause, ranks, 100));
        let changes = correlator.take(&verdict(effect, ranks, 300));
        assert_eq!(kinds(&changes), [(ChangeKind::Updated, cause)], "{effect}");
        let mut correlator = Correlator::new(RunId::new("r"));
        correlator.take(&verdict(cause, ranks, 100));
        correlator.take(&Verdict { phase: Phase::Cleared, ..verdict(cause, ranks, 100) });
        let changes = correlator.take(&verdict(effect, ranks, 300));
        assert_eq!(kinds(&changes), [(ChangeKind::Opened, effect)], "{effect} after it");
    }
}

fn step_times(steps: std::ops::Range<u64>, seconds: f32) -> Vec<Observation> {
    let panel = |step| trainwarden_telemetry::Panel {
        attempt: Attempt(0),
        metric: Metric::new("step_time_s"),
        labels: vec![at(step)],
        ranks: (0..4).map(Rank).collect(),
        values: ndarray::Array2::from_elem((1, 4), seconds),
        present: ndarray::Array2::from_elem((1, 4), true),
        clocks: ndarray::Array2::from_elem((1, 4), i64::MIN),
        deadline_ns: None,
    };
    steps.map(|step| Observation::Panel(panel(step))).collect()
}

fn lost(correlator: &Correlator) -> Vec<Option<u64>> {
    correlator.incidents().map(|incident| incident.impact.as_ref().map(|impact| impact.gpu_seconds_lost)).collect()
}

#[test]
fn what_an_open_incident_cost_grows_with_each_step_and_of_one_that_is_over_no_more() {
    let mut correlator = Correlator::new(RunId::new("r"));
    let observe = |correlator: &mut Correlator, steps| {
        step_times(steps, 1.0).iter().for_each(|seen| assert_eq!(correlator.observe(seen), [], "no change of its own"));
    };
    observe(&mut correlator, 0..100);
    let spoilt = verdict(Kind::DataShift, &[3], 90);
    let opened = correlator.take(&spoilt);
    let cost = |change: &Change| change.incident.impact.as_ref().map(|impact| impact.gpu_seconds_lost);
    assert_eq!(cost(&opened[0]), Some(40), "steps 90 to 99 of four ranks");
    observe(&mut correlator, 100..120);
    assert_eq!(lost(&correlator), [Some(120)]);
    let cleared = correlator.take(&Verdict { phase: Phase::Cleared, last: at(115), ..spoilt });
    assert_eq!(cost(&cleared[0]), Some(104), "to the last step that belongs to it");
    observe(&mut correlator, 120..140);
    assert_eq!(lost(&correlator), [Some(104)]);
}

#[test]
fn an_incident_that_became_part_of_another_one_has_no_causes_and_no_cost_of_its_own() {
    let mut correlator = Correlator::new(RunId::new("r"));
    step_times(0..110, 1.0).iter().for_each(|seen| drop(correlator.observe(seen)));
    let first = correlator.take(&verdict(Kind::SlowRun, &[], 100));
    assert!(!first[0].incident.hypotheses.is_empty() && first[0].incident.impact.is_some());
    let changes = correlator.take(&verdict(Kind::SlowRank, &[3], 101));
    let explained: Vec<(Kind, bool, bool)> = changes
        .iter()
        .map(|change| &change.incident)
        .map(|incident| (incident.kind, incident.hypotheses.is_empty(), incident.impact.is_none()))
        .collect();
    assert_eq!(explained[1], (Kind::SlowRun, true, true));
    assert_eq!((explained[0], explained[2]), ((Kind::SlowRank, false, false), (Kind::SlowRank, false, false)));
}

#[test]
fn what_is_found_later_changes_what_may_be_behind_an_open_incident() {
    let mut correlator = Correlator::new(RunId::new("r"));
    let intent = |correlator: &Correlator| {
        let slow = correlator.incidents().next().expect("the first one is there");
        let deliberate =
            |told: &&trainwarden_telemetry::Hypothesis| told.cause == trainwarden_telemetry::Cause::Deliberate;
        slow.hypotheses.iter().find(deliberate).map_or(0.0, |told| told.probability)
    };
    correlator.take(&verdict(Kind::SlowRank, &[3], 100));
    let before = intent(&correlator);
    correlator.take(&verdict(Kind::Replay, &[3], 300));
    assert!(intent(&correlator) > before + 0.1, "{before} and {}", intent(&correlator));
}
