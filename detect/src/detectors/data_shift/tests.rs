use std::sync::Arc;

use proptest::prelude::*;
use trainwarden_telemetry::{AttemptStart, Placement, Role, Roster, Step};

use super::*;
use crate::detectors::breach::testing::grid;
use crate::detectors::testing::{Noise, assert_restores, bare_scene, judge_all, rank_panel, row_by_row};

/// Deviation of a batch's loss.
const SIGMA: f64 = 0.04;

/// Losses on a falling curve, with `extra(row, rank)` deviations on top of the noise, whose size is `scale(row)`.
fn losses_of(rows: u64, ranks: usize, scale: impl Fn(u64) -> f64, extra: impl Fn(u64, usize) -> f64) -> Panel {
    let mut noise = Noise(3);
    let mut cell = |row: u64, rank: usize| {
        let course = 2.0 + 8.0 / (1.0 + row as f64 / 15.0);
        Some((course + SIGMA * scale(row) * (noise.normal() + extra(row, rank))) as f32)
    };
    let rows: Vec<Vec<Option<f32>>> = (0..rows).map(|row| (0..ranks).map(|rank| cell(row, rank)).collect()).collect();
    rank_panel(LOSS, 0, &rows)
}

fn losses(rows: u64, ranks: usize, extra: impl Fn(u64, usize) -> f64) -> Panel {
    losses_of(rows, ranks, |_| 1.0, extra)
}

fn judge(seen: &[Observation]) -> Vec<Verdict> {
    judge_all(&mut DataShift::default(), &mut bare_scene(), seen)
}

fn verdicts_of(panel: &Panel) -> Vec<Verdict> {
    judge(&row_by_row(panel))
}

fn phases(verdicts: &[Verdict]) -> Vec<Phase> {
    verdicts.iter().map(|verdict| verdict.phase).collect()
}

#[test]
fn poisoned_and_trivial_data_are_found_in_time_and_cleared() {
    for (ranks, size, rows) in [(16, 5.0, 15), (16, -5.0, 15), (16, 2.0, 60), (64, -2.0, 60), (4, 5.0, 20)] {
        let panel = losses(500, ranks, |row, rank| if rank == 2 && (150..300).contains(&row) { size } else { 0.0 });
        let seen = row_by_row(&panel);
        let verdicts = judge(&seen);
        assert_eq!(phases(&verdicts), [Phase::Raised, Phase::Cleared], "{size} of {ranks}: {verdicts:#?}");
        let found = &verdicts[0];
        assert_eq!(
            (found.kind, found.severity, found.ranks().next()),
            (Kind::DataShift, Severity::Warning, Some(Rank(2)))
        );
        assert!(found.last.step < Some(Step(150 + rows)), "{size} of {ranks}: {:?}", found.last);
        let began = found.first.step.expect("rows have steps").0;
        assert!((140..156).contains(&began), "{size} of {ranks}: {began}");
        assert!(found.summary.contains(if size > 0.0 { "above" } else { "below" }), "{}", found.summary);
        assert_restores(|| Box::new(DataShift::default()), &seen);
    }
}

#[test]
fn a_shift_that_lessens_and_goes_on_is_one_case() {
    let size = |row: u64| if row < 200 { 12.0 } else { 4.0 };
    let panel = losses(400, 16, |row, rank| if rank == 2 && row >= 150 { size(row) } else { 0.0 });
    assert_eq!(phases(&verdicts_of(&panel)), [Phase::Raised]);
}

#[test]
fn the_ranks_of_the_index_are_named_and_first_who_logged_its_loss() {
    let mut roster = Roster::default();
    for rank in 0..32_u32 {
        let (dp, tp) = (rank / 2, rank % 2);
        let role = Role { tp: Some(tp), ..Role::default() };
        let node = Some(format!("n{:02}", rank / 8));
        roster.placements.insert(Rank(rank), Placement { node, dp: Some(dp), role, ..Placement::default() });
    }
    let start = AttemptStart { attempt: Attempt(0), roster: Arc::new(roster), communicators: Arc::default() };
    let panel = losses(220, 16, |row, column| if column == 6 && row >= 150 { 5.0 } else { 0.0 });
    let logging: Vec<Rank> = (0..16).map(|dp| Rank(2 * dp + 1)).collect();
    let mut seen = vec![Observation::Attempt(start)];
    seen.extend(row_by_row(&Panel { ranks: logging.into(), ..panel }));
    let verdicts = judge(&seen);
    assert_eq!(verdicts.len(), 1);
    assert_eq!(verdicts[0].ranks().collect::<Vec<_>>(), [Rank(13), Rank(12)]);
    assert!(
        verdicts[0].summary.starts_with("the loss of data-parallel index 6, rank 13 (n01), is 0.1"),
        "{verdicts:?}"
    );
}

#[test]
fn ranks_of_one_index_that_all_log_are_one_case() {
    let places: Vec<(u32, u32)> = (0..16).map(|rank| (rank / 2, rank % 2)).collect();
    let mut seen = vec![grid(0, &places)];
    seen.extend(row_by_row(&losses(260, 16, |row, rank| if rank / 2 == 3 && row >= 150 { 5.0 } else { 0.0 })));
    let verdicts = judge(&seen);
    assert_eq!((phases(&verdicts), verdicts[0].ranks().count()), (vec![Phase::Raised], 2));
}

#[test]
fn hard_batches_lasting_offsets_and_spikes_of_all_name_nobody() {
    let hard = |row: u64, rank: usize| if (row + 37 * rank as u64).is_multiple_of(101) { 40.0 } else { 0.0 };
    assert_eq!(verdicts_of(&losses(800, 16, hard)), []);
    let hard_pairs = |row: u64, rank: usize| if row % 97 < 2 && rank == 5 { 12.0 } else { 0.0 };
    assert_eq!(verdicts_of(&losses(800, 16, hard_pairs)), []);
    assert_eq!(verdicts_of(&losses(800, 16, |_, rank| rank as f64)), [], "lasting offsets");
    assert_eq!(verdicts_of(&losses(800, 16, |row, _| if row > 300 { 50.0 } else { 0.0 })), [], "all at once");
    assert_eq!(verdicts_of(&losses(800, 16, |row, rank| if row > 300 && rank < 6 { 5.0 } else { 0.0 })), [], "many");
    assert_eq!(verdicts_of(&losses(600, 16, |row, rank| if row > 300 && rank == 4 { 0.3 } else { 0.0 })), [], "small");
}

#[test]
fn a_spread_that_changes_by_an_order_names_nobody_and_does_not_hide_a_shift() {
    for scale in [|row: u64| 0.05 + 0.95 * (row as f64 / 150.0).min(1.0), |row: u64| 10.0 / (1.0 + row as f64 / 20.0)] {
        for ranks in [4, 16, 128] {
            assert_eq!(verdicts_of(&losses_of(800, ranks, scale, |_, _| 0.0)), [], "{ranks}");
        }
        let panel = losses_of(400, 16, scale, |row, rank| if rank == 9 && row >= 200 { 5.0 } else { 0.0 });
        let verdicts = verdicts_of(&panel);
        assert_eq!((verdicts.len(), verdicts[0].ranks().next()), (1, Some(Rank(9))));
        assert!(verdicts[0].last.step < Some(Step(220)), "{:?}", verdicts[0].last);
    }
}

#[test]
fn heavy_tails_and_many_healthy_ranks_name_nobody() {
    // The ratio of two sums of normal values: a tail as heavy as that of Student's t with four degrees of freedom.
    let mut noise = Noise(17);
    let mut heavy = || {
        let chi: f64 = (0..4).map(|_| noise.normal().powi(2)).sum();
        noise.normal() / (chi / 4.0).sqrt()
    };
    let rows: Vec<Vec<Option<f32>>> =
        (0..1_000).map(|_| (0..64).map(|_| Some((3.0 + SIGMA * heavy()) as f32)).collect()).collect();
    assert_eq!(verdicts_of(&rank_panel(LOSS, 0, &rows)), []);
    assert_eq!(verdicts_of(&losses(1_500, 256, |_, _| 0.0)), []);
}

#[test]
fn two_thousand_healthy_rows_name_nobody_whatever_the_seed() {
    for seed in 0..10 {
        let mut noise = Noise(seed);
        let course = |row: u64| 2.0 + 8.0 / (1.0 + row as f64 / 15.0);
        let mut row = |row: u64| (0..16).map(|_| Some((course(row) + SIGMA * noise.normal()) as f32)).collect();
        let rows: Vec<Vec<Option<f32>>> = (0..2_000).map(&mut row).collect();
        assert_eq!(verdicts_of(&rank_panel(LOSS, 0, &rows)), [], "seed {seed}");
    }
}

#[test]
fn small_groups_and_unusable_cells_are_borne() {
    let apart = |row: u64, rank: usize| if row > 60 && rank == 1 { 9.0 } else { 0.0 };
    assert_eq!(verdicts_of(&losses(0, 8, apart)), []);
    assert_eq!(verdicts_of(&losses(200, 1, apart)), []);
    assert_eq!(verdicts_of(&losses(200, 3, apart)), []);
    let mut panel = losses(200, 8, |_, _| 0.0);
    panel.values.column_mut(3).fill(f32::NAN);
    panel.present.column_mut(4).fill(false);
    panel.present.row_mut(90).fill(false);
    assert_eq!(verdicts_of(&panel), []);
    panel.values.fill(2.0);
    assert_eq!(verdicts_of(&panel), []);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn neither_the_names_of_ranks_nor_the_unit_change_who_reads_other_data(
        turn in 0_usize..8, strange in 0_usize..8, exponent in -6_i32..7,
    ) {
        let panel = losses(120, 8, |row, rank| if rank == strange && row >= 70 { 6.0 } else { 0.0 });
        let mut turned = panel.clone();
        for column in 0..8 {
            turned.values.column_mut(column).assign(&panel.values.column((column + turn) % 8));
        }
        turned.values.mapv_inplace(|value| value * 2.0_f32.powi(exponent));
        let facts = |verdict: &Verdict, by: u32| {
            let ranks: Vec<u32> = verdict.ranks().map(|rank| (rank.0 + by) % 8).collect();
            (verdict.phase, ranks, verdict.first, verdict.last, verdict.evidence[0].log10_e)
        };
        let straight: Vec<_> = verdicts_of(&panel).iter().map(|verdict| facts(verdict, 0)).collect();
        let renamed: Vec<_> = verdicts_of(&turned).iter().map(|verdict| facts(verdict, turn as u32)).collect();
        prop_assert!(!straight.is_empty());
        prop_assert_eq!(straight, renamed);
    }
}
