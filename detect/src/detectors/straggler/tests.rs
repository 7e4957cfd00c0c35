use std::sync::Arc;

use ndarray::Array2;
use proptest::prelude::*;
use trainwarden_telemetry::{AttemptStart, Placement, Role, Roster, Step};

use super::*;
use crate::detectors::testing::{Noise, assert_restores, bare_scene, judge_all, noisy_panel, rank_panel, row_by_row};

fn verdicts_of(panel: &Panel) -> Vec<Verdict> {
    judge_all(&mut Straggler::default(), &mut bare_scene(), &row_by_row(panel))
}

fn named(verdicts: &[Verdict]) -> Vec<u32> {
    let mut ranks: Vec<u32> = verdicts.iter().flat_map(|verdict| verdict.ranks().map(|rank| rank.0)).collect();
    ranks.sort_unstable();
    ranks.dedup();
    ranks
}

fn start(stages: &[u32], nodes: &[&str]) -> Observation {
    let placement = |(rank, stage): (usize, &u32)| {
        let role = Role { pp: Some(*stage), ..Role::default() };
        let node = nodes.get(rank).map(|node| (*node).to_owned());
        (Rank(rank as u32), Placement { role, node, ..Placement::default() })
    };
    let placements = stages.iter().enumerate().map(placement).collect();
    Observation::Attempt(AttemptStart {
        attempt: Attempt(0),
        roster: Arc::new(Roster { placements }),
        communicators: Arc::default(),
    })
}

#[test]
fn a_rank_five_percent_slow_is_named_within_ten_steps_and_cleared_when_it_recovers() {
    let panel =
        noisy_panel("step_time_s", 300, 8, |row, rank| if rank == 3 && (100..200).contains(&row) { 1.05 } else { 1.0 });
    let verdicts = verdicts_of(&panel);
    assert_eq!(verdicts.iter().map(|verdict| verdict.phase).collect::<Vec<_>>(), [Phase::Raised, Phase::Cleared]);
    assert_eq!(named(&verdicts), [3]);
    assert_eq!(verdicts[0].severity, Severity::Warning);
    let detected = verdicts[0].last.step.expect("rows have steps").0;
    assert!((100..=110).contains(&detected), "{detected}");
    let onset = verdicts[0].onset.expect("rows have steps");
    assert!(onset.low <= Step(100) && onset.high >= Step(99), "{onset:?}");
    assert!((190..215).contains(&verdicts[1].last.step.expect("rows have steps").0));
    assert!(verdicts[0].summary.contains("rank 3 is"), "{}", verdicts[0].summary);
}

#[test]
fn two_percent_is_named_in_the_end_and_half_a_percent_never() {
    for (factor, expected) in [(1.03, vec![5]), (1.02, vec![5]), (1.005, vec![])] {
        let panel =
            noisy_panel("forward_time_s", 1_500, 8, |row, rank| if rank == 5 && row >= 300 { factor } else { 1.0 });
        assert_eq!(named(&verdicts_of(&panel)), expected, "{factor}");
    }
}

#[test]
fn a_rank_slow_from_the_first_row_is_named_before_offsets_exist() {
    let panel = noisy_panel("backward_time_s", 60, 4, |_, rank| if rank == 0 { 2.3 } else { 1.0 });
    let verdicts = verdicts_of(&panel);
    assert_eq!((verdicts.len(), named(&verdicts)), (1, vec![0]));
    assert!(verdicts[0].last.step < Some(Step(32)));
    assert_eq!(verdicts[0].severity, Severity::Critical);
    assert_eq!(verdicts[0].first.step, Some(Step(0)));
}

#[test]
fn a_rank_that_becomes_slow_before_offsets_exist_is_named_ten_rows_later() {
    for onset in [2, 10, 20, 23] {
        let panel =
            noisy_panel("backward_time_s", 60, 16, |row, rank| if rank == 2 && row >= onset { 1.3 } else { 1.0 });
        let verdicts = verdicts_of(&panel);
        assert_eq!((verdicts.len(), named(&verdicts)), (1, vec![2]), "{onset}");
        let (first, found) = (verdicts[0].first.step, verdicts[0].last.step.expect("rows have steps").0);
        assert_eq!(first, Some(Step(onset)));
        assert!(found < onset + 10, "since {onset}, found at {found}");
    }
}

#[test]
fn a_rank_that_becomes_slow_just_before_offsets_are_frozen_teaches_nobodys_noise() {
    for onset in 24..34 {
        let panel =
            noisy_panel("backward_time_s", 60, 16, |row, rank| if rank == 2 && row >= onset { 1.3 } else { 1.0 });
        let verdicts = verdicts_of(&panel);
        assert_eq!((verdicts.len(), named(&verdicts)), (1, vec![2]), "{onset}");
        assert!(verdicts[0].last.step < Some(Step(onset + 16)), "since {onset}, {:?}", verdicts[0].last);
    }
}

#[test]
fn who_is_slow_for_some_rows_before_offsets_exist_is_warming_up() {
    let starts_slow = |row, rank| if rank == 2 && row < 7 { 1.6 } else { 1.0 };
    assert_eq!(verdicts_of(&noisy_panel("backward_time_s", 200, 16, starts_slow)), []);
    let stumbles = |row, rank| if rank == 2 && (10..16).contains(&row) { 1.6 } else { 1.0 };
    assert_eq!(verdicts_of(&noisy_panel("backward_time_s", 200, 16, stumbles)), []);
}

#[test]
fn two_percent_of_the_work_is_a_warning_and_what_is_surely_less_is_not() {
    for (percent, expected) in [(2.0, Severity::Warning), (1.2, Severity::Info)] {
        let slow = |row, rank| if rank == 5 && row >= 300 { 1.0 + 0.01 * percent } else { 1.0 };
        let (whole, forward) =
            (noisy_panel("step_time_s", 1_500, 8, |_, _| 1.6), noisy_panel("forward_time_s", 1_500, 8, slow));
        let backward = noisy_panel("backward_time_s", 1_500, 8, |row, rank| 0.5 * slow(row, rank));
        let rows = [whole, forward, backward].map(|panel| row_by_row(&panel));
        let seen: Vec<Observation> =
            (0..1_500).flat_map(|row| rows.iter().map(move |rows| rows[row].clone())).collect();
        let verdicts = judge_all(&mut Straggler::default(), &mut bare_scene(), &seen);
        assert_eq!(named(&verdicts), [5], "{percent}");
        let most = verdicts.iter().map(|verdict| verdict.severity).max();
        assert_eq!(most, Some(expected), "{percent}");
    }
}

#[test]
fn a_ramp_is_named_against_the_frozen_offset() {
    let ramp = |row: u64| 1.0 + 0.10 * row.saturating_sub(300).min(500) as f64 / 500.0;
    let panel = noisy_panel("step_time_s", 800, 16, |row, rank| if rank == 9 { ramp(row) } else { 1.0 });
    let verdicts = verdicts_of(&panel);
    assert_eq!(named(&verdicts), [9]);
    assert!(verdicts.iter().any(|verdict| verdict.phase == Phase::Updated), "it grew");
}

#[test]
fn what_happens_to_all_ranks_names_nobody() {
    let warm_up = |row: u64| 1.0 + 3.0 / (row + 1) as f64;
    let event = |row: u64| if (150..156).contains(&row) { 1.25 } else { 1.0 };
    let panel = noisy_panel("step_time_s", 400, 16, |row, _| warm_up(row) * event(row));
    assert_eq!(verdicts_of(&panel), []);
}

#[test]
fn hard_batches_small_skews_and_halves_of_the_job_name_nobody() {
    let one_batch = |row: u64, rank: usize| if row == 120 + 40 * (rank as u64 % 5) { 3.0 } else { 1.0 };
    let skew = |rank: usize| 1.0 + 0.01 * (rank % 9) as f64;
    let half = |row: u64, rank: usize| if row >= 250 && rank >= 8 { 1.2 } else { 1.0 };
    let panel = noisy_panel("forward_time_s", 400, 16, |row, rank| one_batch(row, rank) * skew(rank) * half(row, rank));
    assert_eq!(verdicts_of(&panel), []);
}

#[test]
fn many_that_wander_a_little_are_nobodys_fault_and_hide_none_that_is_far_slower() {
    let wander = |row: u64, rank: usize| if rank >= 7 && row >= 60 { 1.03 } else { 1.0 };
    assert_eq!(verdicts_of(&noisy_panel("forward_time_s", 300, 10, wander)), []);
    let slow = |row, rank| if rank == 6 && row >= 200 { 1.3 } else { wander(row, rank) };
    let verdicts = verdicts_of(&noisy_panel("forward_time_s", 300, 10, slow));
    assert_eq!(named(&verdicts), [6]);
    assert!(verdicts[0].last.step < Some(Step(206)));
}

#[test]
fn a_continuum_of_unequal_workers_is_design() {
    let design = [0.85, 0.8, 0.9, 1.0, 1.02, 1.15, 1.0, 1.05, 1.01, 0.96];
    assert_eq!(verdicts_of(&noisy_panel("batch_time_norm", 300, 10, |_, rank| design[rank])), []);
}

#[test]
fn a_heavier_last_stage_is_design_and_a_slow_rank_inside_it_is_not() {
    let stages = [0, 0, 0, 0, 1, 1, 1, 1];
    let design = |rank: usize| if rank >= 4 { 2.1 } else { 1.0 };
    for (slow, expected) in [(1.0, vec![]), (1.3, vec![6])] {
        let factor = |row, rank| design(rank) * if rank == 6 && row > 100 { slow } else { 1.0 };
        let mut seen = vec![start(&stages, &[])];
        seen.extend(row_by_row(&noisy_panel("forward_time_s", 200, 8, factor)));
        assert_eq!(named(&judge_all(&mut Straggler::default(), &mut bare_scene(), &seen)), expected);
    }
}

#[test]
fn of_two_peers_the_one_that_left_its_own_past_is_named() {
    let panel = noisy_panel("forward_time_s", 200, 2, |row, rank| if rank == 1 && row >= 100 { 1.3 } else { 1.0 });
    assert_eq!(named(&verdicts_of(&panel)), [1]);
    let faster = noisy_panel("forward_time_s", 200, 2, |row, rank| if rank == 1 && row >= 100 { 0.7 } else { 1.0 });
    assert_eq!(verdicts_of(&faster), []);
    let unequal = noisy_panel("forward_time_s", 200, 2, |_, rank| if rank == 1 { 2.0 } else { 1.0 });
    assert_eq!(verdicts_of(&unequal), []);
}

#[test]
fn ranks_of_one_node_are_one_case() {
    let nodes: Vec<&str> = (0..32).map(|rank| if rank / 4 == 2 { "n02" } else { "others" }).collect();
    let mut seen = vec![start(&[0; 32], &nodes)];
    let factor = |row, rank: usize| if rank / 4 == 2 && row >= 80 { 1.15 } else { 1.0 };
    seen.extend(row_by_row(&noisy_panel("step_time_s", 120, 32, factor)));
    let verdicts = judge_all(&mut Straggler::default(), &mut bare_scene(), &seen);
    assert!(verdicts.iter().all(|verdict| verdict.case == verdicts[0].case), "one case");
    assert_eq!(named(&verdicts), [8, 9, 10, 11]);
    let shares: f64 = verdicts.last().expect("raised").suspects.iter().map(|suspect| suspect.share).sum();
    assert!(shares <= 1.0 + 1e-9);
}

#[test]
fn small_work_is_a_small_loss() {
    let mut seen = row_by_row(&noisy_panel("step_time_s", 50, 8, |_, _| 100.0));
    let slow = |row, rank| if rank == 2 && row >= 60 { 1.5 } else { 1.0 };
    seen.extend(row_by_row(&noisy_panel("optimizer_time_s", 100, 8, slow)));
    let verdicts = judge_all(&mut Straggler::default(), &mut bare_scene(), &seen);
    assert_eq!((named(&verdicts), verdicts[0].severity), (vec![2], Severity::Info));
}

#[test]
fn one_rank_no_rank_and_other_metrics_say_nothing() {
    assert_eq!(verdicts_of(&noisy_panel("step_time_s", 100, 1, |row, _| row as f64)), []);
    assert_eq!(verdicts_of(&noisy_panel("comm_time_s", 100, 8, |_, rank| 1.0 + rank as f64)), []);
    assert_eq!(verdicts_of(&rank_panel("step_time_s", 0, &[])), []);
    let nothing = vec![vec![None, Some(f32::NAN), Some(0.0), Some(-1.0), Some(f32::INFINITY)]; 80];
    assert_eq!(verdicts_of(&rank_panel("step_time_s", 0, &nothing)), []);
}

#[test]
fn a_restored_straggler_goes_on_as_if_nothing_had_been() {
    let slow = |row, rank| if (rank == 3 && row >= 60) || rank == 0 { 1.4 } else { 1.0 };
    let rows = row_by_row(&noisy_panel("step_time_s", 100, 8, slow));
    assert_restores(|| Box::new(Straggler::default()), &rows);
}

#[test]
fn a_rank_that_joins_late_does_not_make_others_forgotten() {
    let slow = |row, rank| if rank == 2 && row >= 60 { 1.2 } else { 1.0 };
    let whole = noisy_panel("step_time_s", 120, 6, slow);
    let narrow = Panel {
        ranks: whole.ranks[..5].into(),
        values: whole.values.slice(ndarray::s![.., ..5]).to_owned(),
        present: whole.present.slice(ndarray::s![.., ..5]).to_owned(),
        clocks: whole.clocks.slice(ndarray::s![.., ..5]).to_owned(),
        ..whole.clone()
    };
    let mut seen = row_by_row(&narrow)[..50].to_vec();
    seen.extend(row_by_row(&whole)[50..].to_vec());
    let verdicts = judge_all(&mut Straggler::default(), &mut bare_scene(), &seen);
    assert_eq!(named(&verdicts), [2]);
}

/// What a verdict says, without the number of its case.
fn said(verdict: &Verdict, back: &[u32]) -> (Phase, Severity, Vec<u32>, Option<Onset>, Label, Option<u64>) {
    let ranks = verdict.ranks().map(|rank| back[rank.0 as usize]).collect();
    let observed = verdict.evidence[0].observed.map(f64::to_bits);
    (verdict.phase, verdict.severity, ranks, verdict.onset, verdict.last, observed)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn renaming_ranks_renames_the_verdicts_and_changes_nothing_else(
        turn in 0_usize..12, slow in 0_usize..12, percent in 3_u32..40,
    ) {
        let size = 1.0 + f64::from(percent) / 100.0;
        let panel = noisy_panel("step_time_s", 120, 12, |row, rank| if rank == slow && row >= 50 { size } else { 1.0 });
        let order: Vec<usize> = (0..12).map(|column| (column * 5 + turn) % 12).collect();
        let mut turned = panel.clone();
        for (column, from) in order.iter().enumerate() {
            turned.values.column_mut(column).assign(&panel.values.column(*from));
        }
        let back: Vec<u32> = order.iter().map(|from| *from as u32).collect();
        let same: Vec<u32> = (0..12).collect();
        let straight: Vec<_> = verdicts_of(&panel).iter().map(|verdict| said(verdict, &same)).collect();
        let renamed: Vec<_> = verdicts_of(&turned).iter().map(|verdict| said(verdict, &back)).collect();
        prop_assert_eq!(straight, renamed);
    }

    #[test]
    fn the_unit_of_a_metric_changes_no_verdict(exponent in -8_i32..9, slow in 0_usize..12) {
        let panel = noisy_panel("step_time_s", 120, 12, |row, rank| if rank == slow && row >= 50 { 1.08 } else { 1.0 });
        let scaled = |factor: f32| Panel { values: panel.values.mapv(|value| value * factor), ..panel.clone() };
        let verdicts = verdicts_of(&panel);
        prop_assert_eq!(&verdicts, &verdicts_of(&scaled(2.0_f32.powi(exponent))));
        prop_assert_eq!(named(&verdicts), named(&verdicts_of(&scaled(3.7))));
        prop_assert_eq!(named(&verdicts), vec![slow as u32]);
    }

    #[test]
    fn how_rows_are_batched_changes_nothing(cut in 1_usize..119) {
        let panel = noisy_panel("step_time_s", 120, 6, |row, rank| if rank == 4 && row >= 50 { 1.1 } else { 1.0 });
        let part = |from: usize, to: usize| Observation::Panel(Panel {
            labels: panel.labels[from..to].to_vec(),
            values: panel.values.slice(ndarray::s![from..to, ..]).to_owned(),
            present: panel.present.slice(ndarray::s![from..to, ..]).to_owned(),
            clocks: panel.clocks.slice(ndarray::s![from..to, ..]).to_owned(),
            ..panel.clone()
        });
        let halves = judge_all(&mut Straggler::default(), &mut bare_scene(), &[part(0, cut), part(cut, 120)]);
        prop_assert_eq!(halves, verdicts_of(&panel));
    }
}

/// Ranks x steps of step time with correlated noise, skews, a common wave, an event of all ranks, and 64 ranks of each of
/// four faults: a step of 10 %, a ramp to 10 %, three single points of 40 %, and 3 % for ever.
#[test]
#[ignore = "a measurement: 8.2 million points, to be run in release"]
fn the_workload_of_8192_ranks() {
    let (ranks, rows, mut noise) = (8_192_usize, 1_000_usize, Noise(7));
    let mut values = Array2::<f32>::zeros((rows, ranks));
    let skew: Vec<f64> = (0..ranks).map(|_| 1.0 + 0.005 * noise.normal()).collect();
    let mut error = vec![0.0; ranks];
    let wobble = 0.021 * (1.0 - 0.3_f64 * 0.3).sqrt();
    for row in 0..rows {
        let wave = 1.0 + 0.01 * (row as f64 / 80.0).sin();
        let event = if (700..=705).contains(&row) { 1.25 } else { 1.0 };
        let late = row.saturating_sub(500) as f64;
        for rank in 0..ranks {
            error[rank] = 0.3 * error[rank] + wobble * noise.normal();
            let fault = match rank / 64 {
                0 if row >= 500 => 1.10,
                1 => 1.0 + 0.10 * late / 500.0,
                2 if [520 + rank % 64, 640 + rank % 50, 900 + rank % 90].contains(&row) => 1.4,
                3 if row >= 500 => 1.03,
                _ => 1.0,
            };
            values[[row, rank]] = (0.25 * skew[rank] * wave * event * (1.0 + error[rank]) * fault) as f32;
        }
    }
    let labels = (0..rows as u64).map(|row| Label {
        step: Some(Step(row)),
        time: Some(trainwarden_telemetry::Timestamp(row as i64 * 250_000_000)),
    });
    let panel = Panel {
        labels: labels.collect(),
        ranks: (0..ranks as u32).map(Rank).collect::<Vec<_>>().into(),
        present: Array2::from_elem((rows, ranks), true),
        clocks: Array2::from_elem((rows, ranks), i64::MIN),
        values,
        ..rank_panel("step_time_s", 0, &[])
    };
    let seen = row_by_row(&panel);
    let begin = std::time::Instant::now();
    let mut straggler = Straggler::default();
    let verdicts = judge_all(&mut straggler, &mut bare_scene(), &seen);
    let seconds = begin.elapsed().as_secs_f64();
    let mut sleep = crate::detectors::wandering_sleep::WanderingSleep::default();
    let begin = std::time::Instant::now();
    let pauses = judge_all(&mut sleep, &mut bare_scene(), &seen);
    println!("W8k, wandering_sleep: {:.2} s, {:?}", begin.elapsed().as_secs_f64(), pauses.first().map(|v| &v.summary));
    assert!(!pauses.is_empty(), "single points of 40 % are found as intermittent");
    let names = named(&verdicts);
    let found = |class: u32| names.iter().filter(|rank| **rank / 64 == class).count();
    let clean = names.iter().filter(|rank| **rank / 64 > 3).count();
    let bytes = crate::Detector::snapshot(&straggler).expect("state serialises").len();
    println!(
        "W8k: {seconds:.2} s, step10 {} drift10 {} spike40 {} stealth3 {}, clean {clean}, state {bytes} bytes",
        found(0),
        found(1),
        found(2),
        found(3)
    );
    assert_eq!((found(0), found(1), clean), (64, 64, 0));
    assert!(found(3) >= 56);
}

#[test]
fn three_pauses_in_a_row_by_chance_are_none_where_pauses_wander_and_a_straggler_is_one_even_there() {
    let wander = |row: u64, rank: usize| {
        let is_paused = row >= 300 && row.is_multiple_of(4) && (row / 4 * 5) % 16 == rank as u64;
        if is_paused || ((500..503).contains(&row) && rank == 7) { 1.5 } else { 1.0 }
    };
    assert_eq!(named(&verdicts_of(&noisy_panel("forward_time_s", 700, 16, wander))), Vec::<u32>::new());
    let alone = |row: u64, rank: usize| if (500..503).contains(&row) && rank == 7 { 1.5 } else { 1.0 };
    assert_eq!(named(&verdicts_of(&noisy_panel("forward_time_s", 700, 16, alone))), [7]);
    let both = |row: u64, rank: usize| if row >= 500 && rank == 7 { 1.5 } else { wander(row, rank) };
    assert_eq!(named(&verdicts_of(&noisy_panel("forward_time_s", 700, 16, both))), [7]);
}
