//! What is counted as lost, by hand.

use std::collections::BTreeMap;
use std::sync::Arc;

use ndarray::Array2;
use trainwarden_telemetry::{
    Attempt, Impact, Incident, IncidentId, Kind, Label, Metric, Onset, Panel, Rank, RunId, Severity, Step, Timestamp,
};

use super::{Course, Meter, Pace, Span, impact};

const WORLD_SIZE: u64 = 8;

fn label(step: u64, time_s: f64) -> Label {
    Label { step: Some(Step(step)), time: Some(Timestamp((time_s * 1e9) as i64)) }
}

fn row(at: Label, seconds: f64) -> Panel {
    Panel {
        attempt: Attempt(0),
        metric: Metric::new("step_time_s"),
        labels: vec![at],
        ranks: Arc::from([]),
        values: Array2::from_elem((1, 1), seconds as f32),
        present: Array2::from_elem((1, 1), true),
        clocks: Array2::from_elem((1, 1), i64::MIN),
        deadline_ns: None,
    }
}

/// A launch whose steps take these times, from a step on and from a time on.
fn pace(first_step: u64, begin_s: f64, times_s: &[f64]) -> Pace {
    let (mut pace, mut now_s) = (Pace::default(), begin_s);
    for (step, seconds) in (first_step..).zip(times_s) {
        now_s += seconds;
        pace.observe(&row(label(step, now_s), *seconds), |_| {});
    }
    pace
}

fn incident(kind: Kind, onset: u64) -> Incident {
    let step = Step(onset);
    Incident {
        first_step: Some(step),
        onset: Some(Onset { step, low: step, high: step }),
        detected_step: Some(Step(onset + 5)),
        ..Incident::new(IncidentId("inc_1".to_owned()), RunId::new("r"), kind, Severity::Critical)
    }
}

/// What an incident from `onset` on cost, while it lasts.
fn cost(incident: &Incident, paces: &[Pace], good: Option<u64>) -> Option<Impact> {
    let paces: BTreeMap<Attempt, Pace> = (0..).map(Attempt).zip(paces.iter().cloned()).collect();
    let onset = incident.first_step.expect("all have one");
    let meter = Meter::new(&paces[&Attempt(0)], onset);
    let course =
        Course { paces: &paces, world_size: WORLD_SIZE, good_step: good.map(Step), saved_step: good.map(Step) };
    let at = Label { step: Some(onset), time: None };
    impact(incident, Span { onset: at, last: at, is_over: false }, meter.as_ref(), &course)
}

/// Steps of `usual` seconds, and of `later` seconds from step 100 on, with a small rhythm for noise.
fn slower(usual: f64, later: f64) -> Vec<f64> {
    let noise = |step: usize| 1.0 + 0.002 * ((step * 7919 % 13) as f64 - 6.0) / 6.0;
    (0..150).map(|step| noise(step) * if step < 100 { usual } else { later }).collect()
}

#[test]
fn slow_steps_cost_their_excess_on_all_ranks_and_the_interval_holds_it() {
    let found =
        cost(&incident(Kind::SlowRank, 100), &[pace(0, 0.0, &slower(1.0, 1.2))], None).expect("a pace is known");
    assert!((78..=82).contains(&found.gpu_seconds_lost), "50 steps, 0.2 s, 8 ranks: {found:?}");
    assert!(found.low <= 80 && found.high >= 80 && found.high - found.low < 24, "{found:?}");
    assert_eq!((found.cost, found.currency), (None, None));
}

#[test]
fn a_pace_that_stays_costs_nothing_that_can_be_told_from_chance() {
    let found =
        cost(&incident(Kind::SlowRank, 100), &[pace(0, 0.0, &slower(1.0, 1.0))], None).expect("a pace is known");
    assert!(found.low == 0 && found.gpu_seconds_lost <= 1, "{found:?}");
}

#[test]
fn the_estimate_lies_in_the_interval_and_scales_with_the_time_of_steps() {
    for kind in Kind::ALL {
        for later in [0.7, 1.0, 1.02, 1.5, 40.0] {
            let at = |scale: f64| {
                let times: Vec<f64> = slower(1.0, later).iter().map(|seconds| scale * seconds).collect();
                cost(&incident(*kind, 100), &[pace(0, 0.0, &times)], Some(60))
            };
            let (Some(one), Some(ten)) = (at(1.0), at(10.0)) else { continue };
            for found in [&one, &ten] {
                assert!(
                    found.low <= found.gpu_seconds_lost && found.gpu_seconds_lost <= found.high,
                    "{kind} {found:?}"
                );
            }
            let pairs = [(one.low, ten.low), (one.gpu_seconds_lost, ten.gpu_seconds_lost), (one.high, ten.high)];
            for (one, ten) in pairs {
                assert!((10 * one).abs_diff(ten) <= 10, "{kind} at {later}: {one} and {ten}");
            }
        }
    }
}

#[test]
fn without_a_healthy_pace_before_it_nothing_is_claimed() {
    assert_eq!(cost(&incident(Kind::SlowRank, 5), &[pace(0, 0.0, &slower(1.0, 1.2))], None), None);
    let note = Incident { severity: Severity::Info, ..incident(Kind::SlowRun, 100) };
    assert_eq!(cost(&note, &[pace(0, 0.0, &slower(1.0, 1.2))], None), None, "a note is no loss");
    let odd = incident(Kind::MetricShift, 100);
    assert_eq!(cost(&odd, &[pace(0, 0.0, &slower(1.0, 1.2))], None), None);
}

#[test]
fn announced_pauses_are_no_loss() {
    let (mut pace, mut now_s) = (Pace::default(), 0.0);
    for step in 0..150 {
        if step % 10 == 9 {
            pace.pause(Timestamp((now_s * 1e9) as i64));
            now_s += 30.0;
            pace.resume(Timestamp((now_s * 1e9) as i64));
        }
        now_s += if step < 100 { 1.0 } else { 1.1 };
        pace.observe(&row(label(step, now_s), 1.0), |_| {});
    }
    let found = cost(&incident(Kind::SlowRun, 100), &[pace], None).expect("a pace is known");
    assert!((39..=41).contains(&found.gpu_seconds_lost), "50 steps, 0.1 s, 8 ranks: {found:?}");
}

#[test]
fn a_stop_lasts_until_the_next_launch_and_costs_what_that_repeats() {
    let hang = Incident { detected_at: Some(Timestamp(160_000_000_000)), ..incident(Kind::Hang, 100) };
    let first = pace(0, 0.0, &[1.0; 100]);
    let open = cost(&hang, std::slice::from_ref(&first), Some(79)).expect("a pace is known");
    assert_eq!(open.gpu_seconds_lost, 60 * WORLD_SIZE, "from the last step at 100 s to the last sign of life");
    assert_eq!((open.low, open.high), (59 * WORLD_SIZE, (60 + 1 + 20) * WORLD_SIZE), "20 steps were not saved");
    let second = pace(80, 400.0, &[1.0; 10]);
    let closed = cost(&hang, &[first, second], Some(79)).expect("a pace is known");
    assert_eq!(closed.gpu_seconds_lost, (300 + 20) * WORLD_SIZE, "down from 100 s to 400 s, and 20 steps again");
    assert!(closed.low <= closed.gpu_seconds_lost && closed.high >= closed.gpu_seconds_lost);
}

/// A panel of the own work of eight ranks.
fn work(at: Label, metric: &str, seconds: f64) -> Panel {
    Panel {
        metric: Metric::new(metric),
        ranks: (0..8).map(Rank).collect(),
        values: Array2::from_elem((1, 8), seconds as f32),
        present: Array2::from_elem((1, 8), true),
        clocks: Array2::from_elem((1, 8), i64::MIN),
        ..row(at, seconds)
    }
}

#[test]
fn a_wave_that_all_ranks_have_in_common_is_not_counted_to_one_of_them_whichever_row_comes_first() {
    for is_work_first in [true, false] {
        let (mut pace, mut now_s) = (Pace::default(), 0.0);
        for step in 0..200 {
            // All ranks work 10 % longer from step 100 on; one makes each step 0.05 s longer from step 150 on.
            let common_s = if step < 100 { 0.5 } else { 0.55 };
            now_s += 2.0 * common_s + if step < 150 { 0.0 } else { 0.05 };
            let at = label(step, now_s);
            let works = ["forward_time_s", "backward_time_s"].map(|metric| work(at, metric, common_s));
            let end = row(at, 1.0);
            let [forward, backward] = works;
            let rows = if is_work_first { [forward, backward, end] } else { [end, forward, backward] };
            // A clock is there before the first row.
            if step == 0 {
                pace.observe(&row(label(0, 0.0), 1.0), |_| {});
            }
            rows.iter().for_each(|row| {
                pace.observe(row, |_| {});
            });
        }
        let meter = Meter::beyond_peers(&pace, Step(150)).expect("work is logged");
        let paces = BTreeMap::from([(Attempt(0), pace)]);
        let course = Course { paces: &paces, world_size: WORLD_SIZE, good_step: None, saved_step: None };
        let at = Label { step: Some(Step(150)), time: None };
        let span = Span { onset: at, last: at, is_over: false };
        let found = impact(&incident(Kind::SlowRank, 150), span, Some(&meter), &course).expect("a pace is known");
        assert_eq!(found.gpu_seconds_lost, 20, "50 steps, 0.05 s, 8 ranks: {found:?}");
        assert!(found.high - found.low <= 3, "{found:?}");
    }
}

#[test]
fn a_stall_that_ends_by_itself_costs_the_step_in_which_it_was() {
    let times: Vec<f64> = (0..200).map(|step| if step == 100 { 61.0 } else { 1.0 }).collect();
    let first = pace(0, 0.0, &times);
    let hang = incident(Kind::Hang, 100);
    let paces = BTreeMap::from([(Attempt(0), first)]);
    let course = Course { paces: &paces, world_size: WORLD_SIZE, good_step: None, saved_step: None };
    let (onset, last) = (label(100, 112.0), label(100, 161.0));
    let meter = Meter::new(&paces[&Attempt(0)], Step(100));
    let found = impact(&hang, Span { onset, last, is_over: true }, meter.as_ref(), &course).expect("a pace is known");
    assert_eq!(found.gpu_seconds_lost, 60 * WORLD_SIZE);
}

#[test]
fn spoilt_weights_cost_the_way_back_to_the_good_checkpoint_until_somebody_rolls_back() {
    let edit = incident(Kind::UnexplainedUpdate, 100);
    let first = pace(0, 0.0, &[1.0; 150]);
    let found = cost(&edit, std::slice::from_ref(&first), Some(80)).expect("a pace is known");
    assert_eq!(found.gpu_seconds_lost, 69 * WORLD_SIZE, "steps 81 to 149");
    assert_eq!(found.low, 50 * WORLD_SIZE * 98 / 100, "steps 100 to 149, at a pace 2 % faster");
    let unaware = pace(140, 200.0, &[1.0; 30]);
    let longer = cost(&edit, &[first.clone(), unaware], Some(80)).expect("a pace is known");
    assert_eq!(longer.gpu_seconds_lost, 89 * WORLD_SIZE, "the next launch goes on with them, to step 169");
    let rolled_back = pace(81, 200.0, &[1.0; 200]);
    let ended = cost(&edit, &[first.clone(), rolled_back], Some(80)).expect("a pace is known");
    assert_eq!(ended.gpu_seconds_lost, found.gpu_seconds_lost);
    let unsaved = cost(&edit, &[first], None).expect("a pace is known");
    assert_eq!(unsaved.gpu_seconds_lost, 50 * WORLD_SIZE, "no checkpoint is known: from the onset");
}

#[test]
fn what_heals_by_itself_may_cost_nothing() {
    let found = cost(&incident(Kind::LossSpike, 100), &[pace(0, 0.0, &[1.0; 150])], Some(80)).expect("a pace");
    assert_eq!((found.low, found.gpu_seconds_lost), (0, 50 * WORLD_SIZE));
    assert_eq!(found.high, (69 * WORLD_SIZE * 102).div_ceil(100), "the way back, at a pace 2 % slower");
}

#[test]
fn rows_that_leave_the_memory_stay_counted() {
    let times: Vec<f64> = (0..1500).map(|step| if step < 400 { 1.0 } else { 1.5 }).collect();
    let (mut pace, mut now_s, mut meter) = (Pace::default(), 0.0, None);
    for (step, seconds) in (0..).zip(&times) {
        now_s += seconds;
        let mut gone = Vec::new();
        pace.observe(&row(label(step, now_s), *seconds), |row| gone.push(row));
        if step == 410 {
            meter = Meter::new(&pace, Step(400));
        }
        for row in gone.into_iter().filter(|row| row.label.step >= Some(Step(400))) {
            meter.as_mut().expect("it was just opened").evict(row);
        }
    }
    let paces = BTreeMap::from([(Attempt(0), pace)]);
    let course = Course { paces: &paces, world_size: WORLD_SIZE, good_step: None, saved_step: None };
    let at = Label { step: Some(Step(400)), time: None };
    let span = Span { onset: at, last: at, is_over: false };
    let found = impact(&incident(Kind::SlowRun, 400), span, meter.as_ref(), &course).expect("a pace is known");
    assert_eq!(found.gpu_seconds_lost, 550 * WORLD_SIZE);
}
