//! Each fact moves the causes that it should, and none makes an accusation by itself.

use trainwarden_telemetry::{
    AuditChange, Cause, Evidence, Hypothesis, Incident, IncidentId, IncidentSuspect, Kind, Label, Metric, Rank, RunId,
    Severity, Step, Timestamp,
};

use super::table::{Weights, base_rates, chance};
use super::{Surroundings, facts, posterior};

fn incident(kind: Kind, ranks: &[u32]) -> Incident {
    let suspect = |rank: &u32| IncidentSuspect {
        rank: Rank(*rank),
        node: Some(format!("n{}", rank / 8)),
        device: None,
        share: 0.1,
    };
    let id = IncidentId(format!("inc_{kind}"));
    Incident {
        first_step: Some(Step(100)),
        detected_step: Some(Step(103)),
        last_step: Some(Step(103)),
        suspects: ranks.iter().map(suspect).collect(),
        ..Incident::new(id, RunId::new("r"), kind, Severity::Critical)
    }
}

fn evidence(detector: &str, note: Option<&str>) -> Evidence {
    Evidence { note: note.map(str::to_owned), ..Evidence::new(detector, &Metric::new("m")) }
}

fn act(source: &str, lag_s: f64, p_value: Option<f64>) -> AuditChange {
    AuditChange {
        time: Timestamp(0),
        source: source.to_owned(),
        kind: "exec".to_owned(),
        actor: Some("u-4f21".to_owned()),
        node: Some("n0".to_owned()),
        rank: None,
        subject: Some("nvidia-smi -lgc 1200".to_owned()),
        lag_s,
        p_value,
    }
}

fn alone(incident: &Incident) -> Vec<Hypothesis> {
    posterior(incident.kind, &facts(incident, &Surroundings::default()))
}

fn probability(hypotheses: &[Hypothesis], cause: Cause) -> f64 {
    hypotheses.iter().find(|hypothesis| hypothesis.cause == cause).map_or(0.0, |hypothesis| hypothesis.probability)
}

#[test]
fn base_rates_are_of_a_thousand_and_no_cause_is_impossible() {
    for kind in Kind::ALL {
        let rates = base_rates(*kind);
        assert!((rates.iter().sum::<f64>() - 1000.0).abs() < 10.0, "{kind}: {}", rates.iter().sum::<f64>());
        assert!(rates.iter().all(|rate| *rate > 0.0), "{kind}: {rates:?}");
    }
}

#[test]
fn probabilities_sum_to_one_and_fall_whatever_the_kind_and_whoever_is_named() {
    for kind in Kind::ALL {
        for ranks in [&[][..], &[3], &[3, 4], &[3, 30, 40]] {
            let mut incident = incident(*kind, ranks);
            for changes in [vec![], vec![act("sudo", -9.0, Some(0.0))], vec![act("git", -9.0, None)]] {
                incident.changes = changes;
                let hypotheses = alone(&incident);
                let sum: f64 = hypotheses.iter().map(|hypothesis| hypothesis.probability).sum();
                assert!((sum - 1.0).abs() < 1e-9, "{kind} of {ranks:?}: {sum}");
                assert!(hypotheses.is_sorted_by(|one, other| one.probability >= other.probability), "{hypotheses:?}");
                assert!(hypotheses.iter().all(|hypothesis| !hypothesis.why.contains("u-4f21")), "nobody is named");
            }
        }
    }
}

#[test]
fn the_order_of_evidence_and_changes_changes_nothing() {
    let mut incident = incident(Kind::SlowRank, &[3]);
    incident.evidence = ["straggler", "throttle", "late_arrival", "device_errors", "data_shift"]
        .iter()
        .map(|detector| evidence(detector, Some("power cap")))
        .collect();
    incident.changes = vec![act("sudo", -9.0, Some(0.2)), act("git", -9.0, Some(0.2)), act("ssh", -700.0, Some(0.01))];
    let first = alone(&incident);
    for turn in 1..5 {
        incident.evidence.rotate_left(turn);
        incident.changes.rotate_left(1);
        assert_eq!(alone(&incident), first);
    }
}

#[test]
fn a_device_that_reports_errors_is_broken_and_one_that_shows_nothing_is_not_throttled() {
    let mut slow = incident(Kind::SlowRank, &[3]);
    let before = alone(&slow);
    let watched = Surroundings { are_devices_watched: true, ..Surroundings::default() };
    let quiet = posterior(slow.kind, &facts(&slow, &watched));
    assert!(probability(&quiet, Cause::Throttle) < 0.5 * probability(&before, Cause::Throttle), "{quiet:?}");
    slow.evidence = vec![evidence("device_errors", None)];
    assert_eq!(alone(&slow)[0].cause, Cause::HardwareFault);
    slow.evidence = vec![evidence("throttle", Some("thermal slowdown; 91 °C"))];
    assert_eq!(alone(&slow)[0].cause, Cause::Throttle);
}

#[test]
fn clocks_that_a_user_set_are_no_heat() {
    let mut throttle = incident(Kind::Throttle, &[3]);
    throttle.evidence = vec![evidence("throttle", Some("thermal slowdown; 91 °C"))];
    assert_eq!(alone(&throttle)[0].cause, Cause::Throttle);
    throttle.evidence = vec![evidence("throttle", Some("clocks set by a user"))];
    let set = alone(&throttle);
    assert_eq!(set[0].cause, Cause::SoftwareChange, "{set:?}");
    assert!(set[0].why.contains("set by a user"), "{}", set[0].why);
}

#[test]
fn a_command_just_before_speaks_for_a_change_and_one_that_is_always_there_does_not() {
    let mut slow = incident(Kind::SlowRank, &[3]);
    let before = probability(&alone(&slow), Cause::SoftwareChange);
    slow.changes = vec![act("sudo", -9.0, Some(0.01))];
    let rare = alone(&slow);
    assert!(probability(&rare, Cause::SoftwareChange) > 2.0 * before, "{rare:?}");
    assert!(probability(&rare, Cause::Deliberate) > 0.05, "{rare:?}");
    slow.changes = vec![act("sudo", -9.0, Some(1.0))];
    assert_eq!(probability(&alone(&slow), Cause::SoftwareChange), before);
    slow.changes = vec![act("sudo", -5_000.0, Some(0.01))];
    assert_eq!(probability(&alone(&slow), Cause::SoftwareChange), before, "hours before");
}

#[test]
fn ranks_that_replay_telemetry_cast_doubt_on_themselves_and_others_do_not() {
    let slow = incident(Kind::SlowRank, &[3]);
    let before = probability(&alone(&slow), Cause::Deliberate);
    for (rank, is_doubtful) in [(3, true), (4, false)] {
        let replay = incident(Kind::Replay, &[rank]);
        let around = Surroundings { others: vec![&replay], ..Surroundings::default() };
        let now = probability(&posterior(slow.kind, &facts(&slow, &around)), Cause::Deliberate);
        assert_eq!(now > 5.0 * before, is_doubtful, "rank {rank}: {before} then {now}");
    }
}

#[test]
fn several_broken_laws_are_rarely_several_accidents() {
    let edit = incident(Kind::UnexplainedUpdate, &[]);
    let others = [incident(Kind::Schedule, &[]), incident(Kind::DuplicateBatch, &[])];
    let around = |count: usize| Surroundings { others: others.iter().take(count).collect(), ..Surroundings::default() };
    let intent = |count| probability(&posterior(edit.kind, &facts(&edit, &around(count))), Cause::Deliberate);
    assert_eq!(intent(0), intent(1), "one more is no series");
    assert!(intent(2) > intent(0));
}

#[test]
fn what_begins_with_a_relaunch_points_to_what_a_launch_brings() {
    let slow = incident(Kind::SlowRun, &[]);
    let at = |step| Some(Label { step: Some(Step(step)), time: None });
    let software = |relaunch| {
        let around = Surroundings { relaunch, ..Surroundings::default() };
        probability(&posterior(slow.kind, &facts(&slow, &around)), Cause::SoftwareChange)
    };
    assert!(software(at(99)) > software(None));
    assert_eq!(software(at(50)), software(None));
}

#[test]
fn no_kind_by_itself_makes_a_deliberate_act_the_likeliest() {
    for kind in Kind::ALL {
        for ranks in [&[][..], &[3], &[3, 4], &[3, 30]] {
            let hypotheses = alone(&incident(*kind, ranks));
            assert_ne!(hypotheses[0].cause, Cause::Deliberate, "{kind} of {ranks:?}: {hypotheses:?}");
        }
    }
}

#[test]
fn the_page_shows_the_table_as_it_is() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/hypotheses.md"));
    let page = page.expect("the page is there");
    for kind in Kind::ALL {
        let cells: Vec<String> = base_rates(*kind).iter().map(|rate| rate.to_string()).collect();
        let row = format!("| `{kind}` | {} |", cells.join(" | "));
        assert!(page.contains(&row), "the page does not say: {row}");
    }
    let facts: [Weights; 18] = [
        chance::ONE_RANK,
        chance::ONE_NODE,
        chance::SEVERAL_NODES,
        chance::WHOLE_RUN,
        chance::HELD_BACK,
        chance::CLOCKS_SET,
        chance::CLOCKS_FELL,
        chance::DEVICE_ERRORS,
        chance::DEVICES_QUIET,
        chance::CAME_BACK,
        chance::AT_LAUNCH,
        chance::AT_CHECKPOINT,
        chance::CONTRADICTED,
        chance::ENVIRONMENT_MOVED,
        chance::DATA_STRANGE,
        chance::SEVERAL_LAWS,
        chance::ROLLOUT_RECORDED,
        chance::COMMAND_RECORDED,
    ];
    for chances in facts {
        let cells: Vec<String> = chances.iter().map(|chance| format!("{chance:.2}")).collect();
        let row = format!(" | {} |", cells.join(" | "));
        assert!(page.contains(&row), "the page does not say: {row}");
    }
    for cause in Cause::ALL {
        assert!(page.contains(&format!("| `{cause}` |")), "{cause}");
    }
}

#[test]
fn of_the_facts_about_whom_an_incident_names_one_is_true() {
    let scopes = [chance::ONE_RANK, chance::ONE_NODE, chance::SEVERAL_NODES, chance::WHOLE_RUN];
    for (place, cause) in Cause::ALL.iter().enumerate() {
        let sum: f64 = scopes.iter().map(|chances| chances[place]).sum();
        assert!((sum - 1.0).abs() < 1e-9, "{cause}: {sum}");
    }
}
