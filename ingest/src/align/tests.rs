use proptest::prelude::*;
use trainwarden_telemetry::{Conflict, Panel, Placement, Rank, RunId, Step};

use super::*;
use crate::row::{NO_TIME, SampleRow};

const SECOND: i64 = 1_000_000_000;

/// A row of `step` on `rank` at `at_s` seconds.
fn sample(names: &mut Names, metric: &str, rank: u32, step: u64, at_s: f64, value: f64) -> Record {
    let log_time = (at_s * SECOND as f64) as i64;
    let metric = names.intern(metric);
    let row = SampleRow { log_time, step, time: log_time, value, attempt: 0, rank, metric, reserved: 0 };
    Record { log_time, row: Row::Sample(row) }
}

fn align(membership: Membership, names: &Names, records: &[Record]) -> (Vec<Observation>, Counts) {
    let mut sorted = records.to_vec();
    sorted.sort_by_key(|record| record.log_time);
    let mut aligner = Aligner::new(LogClock::Nanoseconds, membership);
    let mut ready = Vec::new();
    for record in &sorted {
        aligner.push(record, names, &mut ready);
    }
    aligner.finish(&mut ready);
    (ready, aligner.counts())
}

fn panels(observations: &[Observation]) -> Vec<&Panel> {
    let mut panels = Vec::new();
    for seen in observations {
        if let Observation::Panel(panel) = seen {
            panels.push(panel);
        }
    }
    panels
}

fn told(ranks: u32) -> Membership {
    let placements = (0..ranks).map(|rank| (Rank(rank), Placement::default())).collect();
    Membership { rosters: BTreeMap::from([(0, Arc::new(Roster { placements }))]), ..Membership::default() }
}

#[test]
fn rows_are_judged_in_step_order_and_a_row_after_its_deadline_is_late() {
    let mut names = Names::default();
    let records = [
        sample(&mut names, "m", 0, 2, 2.0, 20.0),
        sample(&mut names, "m", 0, 1, 3.0, 10.0),
        sample(&mut names, "m", 1, 1, 4.0, 11.0),
        sample(&mut names, "m", 1, 2, 20.0, 21.0),
    ];
    let (observations, counts) = align(Membership::default(), &names, &records);
    let panels = panels(&observations);
    let steps: Vec<_> = panels.iter().map(|panel| panel.labels[0].step).collect();
    assert_eq!(steps, [Some(Step(1)), Some(Step(2))]);
    assert_eq!(panels[0].values.row(0).to_vec(), [10.0, 11.0]);
    assert_eq!(panels[1].present.row(0).to_vec(), [true, false], "rank 1 told of step 2 too late");
    assert_eq!(counts.late, 1);
}

#[test]
fn a_number_too_large_for_a_panel_is_not_judged_as_an_infinite_one() {
    let mut names = Names::default();
    let told = [1e308, -1e308, f64::INFINITY, 5e-324];
    let records: Vec<Record> =
        told.iter().zip(0..).map(|(value, rank)| sample(&mut names, "m", rank, 0, 0.0, *value)).collect();
    let (observations, _) = align(Membership::default(), &names, &records);
    let judged = panels(&observations)[0].values.row(0).to_vec();
    assert_eq!(judged, [f32::MAX, f32::MIN, f32::INFINITY, 0.0]);
}

#[test]
fn a_complete_row_is_judged_before_the_next_one_comes() {
    let mut names = Names::default();
    let mut aligner = Aligner::new(LogClock::Nanoseconds, told(2));
    let mut ready = Vec::new();
    for step in 0..20_u64 {
        for rank in 0..2 {
            let record = sample(&mut names, "m", rank, step, step as f64 + 0.1 * f64::from(rank), 1.0);
            aligner.push(&record, &names, &mut ready);
        }
    }
    let judged = panels(&ready).len();
    assert_eq!(judged, 19, "the first waits for its deadline, then each closes as soon as log time moves");
}

/// A mark in the life of the run, set at `time_s` and come at `at_s`.
fn mark(time_s: i64, at_s: i64) -> Record {
    let event = Event {
        time: Timestamp(time_s * SECOND),
        source: "trainer".to_owned(),
        kind: "pause_end".to_owned(),
        actor: None,
        run: Some(RunId::new("r")),
        attempt: Attempt(0),
        node: None,
        rank: None,
        subject: None,
        detail: None,
    };
    Record { log_time: at_s * SECOND, row: Row::Event(Arc::new(event)) }
}

#[test]
fn a_mark_that_comes_late_is_judged_before_the_open_rows_of_later_times_and_never_before_its_attempt() {
    let mut names = Names::default();
    let records = [
        sample(&mut names, "m", 0, 0, 1.0, 1.0),
        sample(&mut names, "m", 0, 1, 20.0, 1.0),
        mark(0, 2),
        mark(19, 22),
        mark(25, 25),
    ];
    let (observations, _) = align(Membership::default(), &names, &records);
    let seen = |seen: &Observation| match seen {
        Observation::Attempt(_) => "attempt".to_owned(),
        Observation::Event(event) => format!("mark {}", event.time.0 / SECOND),
        Observation::Panel(panel) => format!("step {}", panel.labels[0].step.expect("rows have steps").0),
        other => panic!("{other:?}"),
    };
    let order: Vec<String> = observations.iter().map(seen).collect();
    assert_eq!(order, ["attempt", "mark 0", "step 0", "mark 19", "step 1", "mark 25"]);
}

#[test]
fn equal_rows_collapse_and_unequal_ones_are_a_conflict_of_which_the_smallest_is_judged() {
    let mut names = Names::default();
    let records = [
        sample(&mut names, "m", 0, 1, 1.0, 7.0),
        sample(&mut names, "m", 0, 1, 1.0, 7.0),
        sample(&mut names, "m", 0, 1, 1.0, 9.0),
        sample(&mut names, "m", 0, 1, 1.0, 8.0),
    ];
    let (observations, counts) = align(Membership::default(), &names, &records);
    assert_eq!((counts.repeated, counts.conflicting), (1, 2));
    assert_eq!(panels(&observations)[0].values.row(0).to_vec(), [7.0]);
    let conflicts: Vec<&Conflict> = observations
        .iter()
        .filter_map(|seen| match seen {
            Observation::Conflict(conflict) => Some(conflict),
            _ => None,
        })
        .collect();
    assert_eq!(conflicts.len(), 1);
    assert_eq!((conflicts[0].rank, conflicts[0].values), (Some(Rank(0)), Some((7.0, 9.0))));
}

#[test]
fn a_counter_gives_its_growth_and_the_first_row_none() {
    let mut names = Names::default();
    let base = 1e15;
    let records: Vec<Record> = (0..3_u64)
        .map(|step| sample(&mut names, "nic_tx_bytes_total", 0, step, step as f64, base + 5.0 * step as f64))
        .collect();
    let (observations, _) = align(Membership::default(), &names, &records);
    let growth: Vec<_> = panels(&observations).iter().map(|panel| panel.value(0, 0)).collect();
    assert_eq!(growth, [None, Some(5.0), Some(5.0)]);
}

#[test]
fn a_rank_that_stops_leaves_absent_cells_and_the_log_goes_on() {
    let mut names = Names::default();
    let records: Vec<Record> = (0..6_u64)
        .flat_map(|step| (0..3_u32).filter(move |rank| *rank != 2 || step < 3).map(move |rank| (step, rank)))
        .map(|(step, rank)| sample(&mut names, "m", rank, step, step as f64, 1.0))
        .collect();
    for membership in [Membership::default(), told(3)] {
        let (observations, _) = align(membership, &names, &records);
        let panels = panels(&observations);
        assert_eq!(panels.len(), 6);
        assert_eq!(panels[5].present.row(0).to_vec(), [true, true, false]);
    }
}

#[test]
fn an_attempt_is_announced_before_its_rows_and_takes_the_roster_of_the_one_before() {
    let mut names = Names::default();
    let mut record = sample(&mut names, "m", 0, 1, 1.0, 7.0);
    if let Row::Sample(row) = &mut record.row {
        row.attempt = 3;
    }
    let (observations, _) = align(told(4), &names, &[record]);
    let Observation::Attempt(start) = &observations[0] else { panic!("{:?} comes first", observations[0]) };
    assert_eq!((start.attempt, start.roster.placements.len()), (Attempt(3), 4));
}

proptest! {
    #[test]
    fn rows_of_equal_log_time_have_no_order_and_a_restart_changes_nothing(
        cells in prop::collection::vec((0..4_u32, 0..6_u64, 0..8_u8, 0..3_u8), 1..60),
        seed in any::<u64>(),
        cut in 0..60_usize,
        is_told in any::<bool>(),
    ) {
        let mut names = Names::default();
        let membership = if is_told { told(4) } else { Membership::default() };
        let mut records: Vec<Record> = cells
            .iter()
            .map(|(rank, step, at, value)| sample(&mut names, "m", *rank, *step, f64::from(*at) * 4.0, f64::from(*value)))
            .collect();
        let (whole, counts) = align(membership.clone(), &names, &records);
        shuffle(&mut records, seed);
        let (shuffled, shuffled_counts) = align(membership.clone(), &names, &records);
        prop_assert_eq!(format!("{shuffled:?}"), format!("{whole:?}"));
        // Of three unequal rows one or two contradict the judged one, as they come; their sum is the same.
        let twice = |counts: Counts| (counts.late, counts.repeated + counts.conflicting);
        prop_assert_eq!(twice(shuffled_counts), twice(counts));
        records.sort_by_key(|record| record.log_time);
        let cut = cut.min(records.len());
        let mut first = Aligner::new(LogClock::Nanoseconds, membership);
        let mut ready = Vec::new();
        records[..cut].iter().for_each(|record| first.push(record, &names, &mut ready));
        let bytes = rmp_serde::to_vec_named(&first).expect("state serialises");
        let mut second: Aligner = rmp_serde::from_slice(&bytes).expect("the bytes were just written");
        records[cut..].iter().for_each(|record| second.push(record, &names, &mut ready));
        second.finish(&mut ready);
        prop_assert_eq!(format!("{ready:?}"), format!("{whole:?}"));
    }

    #[test]
    fn a_log_cut_at_a_step_gives_what_the_whole_gave_up_to_it(
        cells in prop::collection::vec((0..4_u32, 0..8_u64, 0..3_u8), 1..60),
        cut in 0..8_u64,
    ) {
        let mut names = Names::default();
        // A rank sends its steps in order, so log time follows the step.
        let records: Vec<Record> = cells
            .iter()
            .map(|(rank, step, value)| {
                sample(&mut names, "m", *rank, *step, *step as f64 * 3.0 + f64::from(*rank), f64::from(*value))
            })
            .collect();
        let is_kept = |step: u64| step <= cut;
        let kept: Vec<Record> = records
            .iter()
            .filter(|record| matches!(&record.row, Row::Sample(row) if is_kept(row.step)))
            .cloned()
            .collect();
        let (whole, _) = align(Membership::default(), &names, &records);
        let (part, _) = align(Membership::default(), &names, &kept);
        let upto: Vec<&Panel> = panels(&whole)
            .into_iter()
            .filter(|panel| panel.labels[0].step.is_some_and(|step| is_kept(step.0)))
            .collect();
        prop_assert_eq!(format!("{:?}", panels(&part)), format!("{upto:?}"));
    }
}

/// A permutation fixed by its seed (linear congruential steps, Knuth's MMIX constants).
fn shuffle(records: &mut [Record], seed: u64) {
    let mut state = seed;
    for last in (1..records.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        records.swap(last, (state >> 33) as usize % (last + 1));
    }
}

#[test]
fn rows_without_any_time_close_when_three_steps_have_passed() {
    let mut names = Names::default();
    let metric = names.intern("m");
    let mut aligner = Aligner::new(LogClock::Steps, Membership::default());
    let mut ready = Vec::new();
    for step in 0..10_u64 {
        let row = SampleRow {
            log_time: step as i64,
            step,
            time: NO_TIME,
            value: 1.0,
            attempt: 0,
            rank: 0,
            metric,
            reserved: 0,
        };
        aligner.push(&Record { log_time: row.log_time, row: Row::Sample(row) }, &names, &mut ready);
    }
    assert_eq!(panels(&ready).len(), 6, "steps 0 to 5: step 9 is more than three later");
    assert_eq!(panels(&ready)[0].labels[0].time, None);
}

#[test]
fn more_metrics_than_may_be_aligned_are_counted_and_the_first_ones_go_on() {
    let mut names = Names::default();
    let mut records: Vec<Record> =
        (0..LANES_MAX + 3).map(|lane| sample(&mut names, &format!("m{lane}"), 0, 0, 1.0, 1.0)).collect();
    records.push(sample(&mut names, "m0", 0, 1, 2.0, 1.0));
    let (observations, counts) = align(Membership::default(), &names, &records);
    assert_eq!(counts.crowded, 3);
    assert_eq!(panels(&observations).len(), LANES_MAX + 1);
}
