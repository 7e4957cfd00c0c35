use proptest::prelude::*;
use trainwarden_telemetry::{Severity, Step, Timestamp};

use super::*;
use crate::detectors::breach::testing::grid;
use crate::detectors::testing::{ROW_NS, assert_restores, bare_scene, event, judge_all, noisy_panel, row_by_row};

/// Clocks around 1.75 GHz with 1 % noise.
fn clocks(rows: u64, ranks: usize, factor: impl Fn(u64, usize) -> f64) -> Panel {
    let mut panel = noisy_panel(CLOCKS[0], rows, ranks, factor);
    panel.values.mapv_inplace(|value| value * 7e9);
    panel
}

fn gauge(metric: &str, rows: u64, ranks: usize, value: impl Fn(u64, usize) -> f32) -> Panel {
    let mut panel = noisy_panel(metric, rows, ranks, |_, _| 1.0);
    panel.values.indexed_iter_mut().for_each(|((row, rank), cell)| *cell = value(row as u64, rank));
    panel
}

/// Rows of several panels, side by side.
fn together(panels: &[&Panel]) -> Vec<Observation> {
    let rows: Vec<Vec<Observation>> = panels.iter().map(|panel| row_by_row(panel)).collect();
    (0..rows[0].len()).flat_map(|row| rows.iter().map(move |panel| panel[row].clone())).collect()
}

fn judge(seen: &[Observation]) -> Vec<Verdict> {
    judge_all(&mut Throttle::default(), &mut bare_scene(), seen)
}

fn named(verdict: &Verdict) -> Vec<u32> {
    verdict.ranks().map(|rank| rank.0).collect()
}

#[test]
fn a_hot_rank_is_named_with_its_clock_its_temperature_and_the_reason() {
    let is_hot = |row: u64, rank: usize| rank == 5 && (120..200).contains(&row);
    let clock = clocks(260, 8, |row, rank| if is_hot(row, rank) { 0.70 } else { 1.0 });
    let heat = gauge("gpu_temp_c", 260, 8, |row, rank| if is_hot(row, rank) { 91.0 } else { 64.0 });
    let mask = gauge(MASK, 260, 8, |row, rank| if is_hot(row, rank) { 72.0 } else { 0.0 });
    let mut seen = vec![grid(0, &[(0, 0), (1, 0), (2, 0), (3, 0), (4, 0), (5, 0), (6, 0), (7, 0)])];
    seen.extend(together(&[&heat, &mask, &clock]));
    let verdicts = judge(&seen);
    let first = &verdicts[0];
    assert_eq!((named(first), first.kind, first.severity), (vec![5], Kind::Throttle, Severity::Critical));
    assert!(first.last.step <= Some(Step(126)) && first.first.step >= Some(Step(119)), "{first:?}");
    assert!(first.summary.starts_with("rank 5 (n02) runs its SM at 1.2"), "{}", first.summary);
    assert!(first.summary.contains("its 7 peers at 1.7"), "{}", first.summary);
    assert!(first.summary.ends_with("(thermal slowdown, hardware slowdown; 91 °C)"), "{}", first.summary);
    let cleared: Vec<&Verdict> = verdicts.iter().filter(|verdict| verdict.phase == Phase::Cleared).collect();
    assert_eq!(cleared.len(), 2, "clock and mask: {verdicts:#?}");
    assert_restores(|| Box::new(Throttle::default()), &seen);
}

#[test]
fn a_clock_locked_five_percent_lower_is_a_warning_within_ten_rows_and_two_percent_is_none() {
    for (factor, ranks) in [(0.95, vec![vec![3]]), (0.98, vec![])] {
        let locked = clocks(400, 64, |row, rank| if rank == 3 && row >= 100 { factor } else { 1.0 });
        let verdicts = judge(&row_by_row(&locked));
        assert_eq!(verdicts.iter().map(named).collect::<Vec<_>>(), ranks, "{factor}");
        if let [verdict] = verdicts.as_slice() {
            assert_eq!(verdict.severity, Severity::Warning);
            assert!(verdict.last.step <= Some(Step(110)), "{verdict:?}");
        }
    }
}

#[test]
fn a_rank_slow_from_the_first_row_on_is_named_and_so_is_one_of_two() {
    let verdicts = judge(&row_by_row(&clocks(60, 8, |_, rank| if rank == 2 { 0.6 } else { 1.0 })));
    assert_eq!((verdicts.len(), named(&verdicts[0])), (1, vec![2]));
    let pair = clocks(120, 2, |row, rank| if rank == 1 && row >= 60 { 0.7 } else { 1.0 });
    let verdicts = judge(&row_by_row(&pair));
    assert_eq!((verdicts.len(), named(&verdicts[0])), (1, vec![1]));
}

#[test]
fn roles_of_one_rank_are_judged_together() {
    let mut seen = vec![grid(0, &[(0, 0), (0, 1), (0, 2), (0, 3)])];
    seen.extend(row_by_row(&clocks(120, 4, |row, rank| if rank == 1 && row >= 60 { 0.7 } else { 1.0 })));
    let verdicts = judge(&seen);
    assert_eq!((verdicts.len(), named(&verdicts[0])), (1, vec![1]));
}

#[test]
fn a_node_that_throttles_is_one_case() {
    let node = clocks(160, 64, |row, rank| if (8..16).contains(&rank) && row >= 80 { 0.8 } else { 1.0 });
    let verdicts = judge(&row_by_row(&node));
    assert!(verdicts.iter().all(|verdict| verdict.case == 0), "{verdicts:#?}");
    let last = verdicts.last().expect("eight ranks are slow");
    let mut ranks = named(last);
    ranks.sort_unstable();
    assert_eq!(ranks, (8..16).collect::<Vec<u32>>());
    assert!((last.suspects.iter().map(|suspect| suspect.share).sum::<f64>() - 1.0).abs() < 1e-9);
}

#[test]
fn a_mask_alone_convicts_when_few_have_it_and_it_lasts() {
    let brake = |row: u64, rank: usize| if rank == 4 && (50..80).contains(&row) { 128.0 } else { 4.0 };
    let seen = row_by_row(&gauge(MASK, 120, 8, brake));
    let verdicts = judge(&seen);
    assert_eq!(verdicts.iter().map(|verdict| verdict.phase).collect::<Vec<_>>(), [Phase::Raised, Phase::Cleared]);
    assert_eq!((named(&verdicts[0]), verdicts[0].severity), (vec![4], Severity::Warning));
    assert_eq!((verdicts[0].first.step, verdicts[0].last.step), (Some(Step(50)), Some(Step(55))));
    assert_eq!(verdicts[0].summary, "rank 4 is slowed down since step 50 (power brake)");
    assert_restores(|| Box::new(Throttle::default()), &seen);
    let all = gauge(MASK, 120, 8, |row, _| if row >= 50 { 64.0 } else { 0.0 });
    assert_eq!(judge(&row_by_row(&all)), [], "most ranks: nobody");
    let benign = gauge(MASK, 120, 8, |row, rank| if rank == 4 && row >= 50 { 279.0 } else { 0.0 });
    assert_eq!(judge(&row_by_row(&benign)), [], "idle, set clocks, cap, boost, display");
    let flicker = gauge(MASK, 120, 8, |row, rank| if rank == 4 && row % 2 == 0 { 64.0 } else { 0.0 });
    assert_eq!(judge(&row_by_row(&flicker)), []);
}

#[test]
fn a_cap_of_the_whole_run_names_nobody() {
    let cap = |row: u64| if (100..200).contains(&row) { 0.92 } else { 1.0 };
    let clock = clocks(260, 16, |row, _| cap(row));
    let power = gauge("gpu_power_w", 260, 16, |row, _| 690.0 * cap(row) as f32);
    let seen = together(&[&power, &clock]);
    let verdicts = judge(&seen);
    assert_eq!(verdicts.iter().map(|verdict| verdict.phase).collect::<Vec<_>>(), [Phase::Raised, Phase::Cleared]);
    assert_eq!((verdicts[0].suspects.len(), verdicts[0].severity), (0, Severity::Warning));
    assert_eq!((verdicts[0].first.step, verdicts[0].last.step), (Some(Step(100)), Some(Step(115))));
    assert_restores(|| Box::new(Throttle::default()), &seen);
    let deep = clocks(200, 16, |row, _| if row >= 100 { 0.75 } else { 1.0 });
    let verdicts = judge(&row_by_row(&deep));
    assert_eq!((verdicts.len(), verdicts[0].severity), (1, Severity::Critical), "without power a deep one is told");
}

#[test]
fn a_heavier_load_that_lowers_all_clocks_is_none() {
    let clock = clocks(260, 16, |row, _| if row >= 100 { 0.88 } else { 1.0 });
    let power = gauge("gpu_power_w", 260, 16, |_, _| 690.0);
    assert_eq!(judge(&together(&[&power, &clock])), []);
    let small = clocks(260, 16, |row, _| if row >= 100 { 0.93 } else { 1.0 });
    assert_eq!(judge(&row_by_row(&small)), []);
}

#[test]
fn offsets_jitter_pauses_and_single_dips_are_none() {
    let place = |rank: usize| 1.0 - 0.008 * rank as f64;
    assert_eq!(judge(&row_by_row(&clocks(600, 8, |_, rank| place(rank)))), []);
    let dip = |row: u64, rank: usize| if row > 40 && (row + 7 * rank as u64).is_multiple_of(61) { 0.3 } else { 1.0 };
    assert_eq!(judge(&row_by_row(&clocks(600, 8, dip))), []);
    let mut seen = row_by_row(&clocks(300, 8, |row, _| if (100..160).contains(&row) { 0.7 } else { 1.0 }));
    seen.insert(160, event("pause_end", 160));
    seen.insert(100, event("pause_begin", 100));
    assert_eq!(judge(&seen), []);
    let idle = clocks(300, 8, |row, _| if (100..160).contains(&row) { 0.2 } else { 1.0 });
    assert_eq!(judge(&row_by_row(&idle)), []);
}

#[test]
fn nothing_absent_and_unusable_cells_are_borne() {
    assert_eq!(judge(&row_by_row(&clocks(0, 4, |_, _| 1.0))), []);
    assert_eq!(judge(&row_by_row(&gauge(CLOCKS[0], 90, 8, |_, _| f32::NAN))), []);
    assert_eq!(judge(&row_by_row(&gauge(CLOCKS[0], 90, 8, |_, _| 0.0))), []);
    assert_eq!(judge(&row_by_row(&clocks(90, 1, |row, _| if row > 50 { 0.95 } else { 1.0 }))), []);
    let mut absent = clocks(90, 8, |_, _| 1.0);
    absent.present.fill(false);
    assert_eq!(judge(&row_by_row(&absent)), []);
}

#[test]
fn a_new_launch_begins_anew() {
    let mut seen = row_by_row(&clocks(100, 8, |row, rank| if rank == 5 && row >= 60 { 0.7 } else { 1.0 }));
    seen.push(grid(1, &[]));
    let later = clocks(100, 8, |_, _| 1.0);
    let labels =
        later.labels.iter().map(|label| Label { time: label.time.map(|t| Timestamp(t.0 + 200 * ROW_NS)), ..*label });
    let later = Panel { attempt: Attempt(1), labels: labels.collect(), ..later };
    seen.extend(row_by_row(&later));
    assert_eq!(judge(&seen).len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn neither_the_names_of_ranks_nor_the_unit_change_who_throttles(
        turn in 0_usize..8, slow in 0_usize..8, exponent in -6_i32..7,
    ) {
        let panel = clocks(90, 8, |row, rank| if rank == slow && row >= 50 { 0.8 } else { 1.0 });
        let mut turned = panel.clone();
        for column in 0..8 {
            turned.values.column_mut(column).assign(&panel.values.column((column + turn) % 8));
        }
        turned.values.mapv_inplace(|value| value * 2.0_f32.powi(exponent));
        let facts = |verdict: &Verdict, by: u32| {
            let ranks: Vec<u32> = verdict.ranks().map(|rank| (rank.0 + by) % 8).collect();
            (verdict.phase, ranks, verdict.first, verdict.last, verdict.evidence[0].log10_e)
        };
        let straight: Vec<_> = judge(&row_by_row(&panel)).iter().map(|verdict| facts(verdict, 0)).collect();
        let renamed: Vec<_> = judge(&row_by_row(&turned)).iter().map(|verdict| facts(verdict, turn as u32)).collect();
        prop_assert!(!straight.is_empty());
        prop_assert_eq!(straight, renamed);
    }
}
