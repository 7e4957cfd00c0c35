use proptest::prelude::*;

use super::*;
use crate::detectors::breach::testing::grid;
use crate::detectors::testing::{assert_restores, bare_scene, judge_all, rank_panel, row_by_row, run_panel};

fn panel(metric: &str, rows: u64, ranks: usize, value: impl Fn(u64, usize) -> f32) -> Panel {
    let rows: Vec<Vec<Option<f32>>> =
        (0..rows).map(|row| (0..ranks).map(|rank| Some(value(row, rank))).collect()).collect();
    rank_panel(metric, 0, &rows)
}

fn judge(seen: &[Observation]) -> Vec<Verdict> {
    judge_all(&mut DeviceErrors::default(), &mut bare_scene(), seen)
}

fn verdicts_of(panel: &Panel) -> Vec<Verdict> {
    judge(&row_by_row(panel))
}

fn phases(verdicts: &[Verdict]) -> Vec<Phase> {
    verdicts.iter().map(|verdict| verdict.phase).collect()
}

/// The code of rank 3 from row 40 on; a gauge keeps it for 30 rows.
fn reports(xid: f32) -> Panel {
    panel(XID, 120, 8, |row, rank| if rank == 3 && (40..70).contains(&row) { xid } else { 0.0 })
}

#[test]
fn a_code_is_told_once_with_its_meaning_and_cleared() {
    for (xid, kind, severity) in [
        (79.0, Kind::HardwareFault, Severity::Critical),
        (119.0, Kind::HardwareFault, Severity::Critical),
        (74.0, Kind::HardwareFault, Severity::Warning),
        (48.0, Kind::MemoryErrors, Severity::Critical),
        (95.0, Kind::MemoryErrors, Severity::Critical),
        (63.0, Kind::MemoryErrors, Severity::Warning),
        (31.0, Kind::HardwareFault, Severity::Info),
        (777.0, Kind::HardwareFault, Severity::Info),
    ] {
        let seen = row_by_row(&reports(xid));
        let verdicts = judge(&seen);
        assert_eq!(phases(&verdicts), [Phase::Raised, Phase::Cleared], "{xid}");
        let found = &verdicts[0];
        assert_eq!((found.kind, found.severity, found.ranks().next()), (kind, severity, Some(Rank(3))), "{xid}");
        assert_eq!((found.first.step, verdicts[1].last.step), (Some(Step(40)), Some(Step(69))), "{xid}");
        assert_restores(|| Box::new(DeviceErrors::default()), &seen);
    }
    let verdicts = verdicts_of(&reports(79.0));
    assert_eq!(verdicts[0].summary, "the device of rank 3 reports Xid 79 at step 40: the device fell off the bus");
}

#[test]
fn a_graver_code_updates_its_case_and_another_kind_is_another_case() {
    let code = |row: u64| match row {
        0..40 => 0.0,
        40..50 => 63.0,
        50..60 => 48.0,
        _ => 79.0,
    };
    let verdicts = verdicts_of(&panel(XID, 80, 4, |row, rank| if rank == 1 { code(row) } else { 0.0 }));
    assert_eq!(phases(&verdicts), [Phase::Raised, Phase::Updated, Phase::Raised]);
    assert_eq!((verdicts[0].case, verdicts[1].case, verdicts[2].case), (0, 0, 1));
    assert_eq!((verdicts[1].severity, verdicts[2].kind), (Severity::Critical, Kind::HardwareFault));
    assert!(verdicts[1].summary.contains("Xid 48"), "{}", verdicts[1].summary);
}

#[test]
fn a_code_from_the_launch_on_is_old_and_one_that_is_told_only_when_it_comes_is_not() {
    let old = verdicts_of(&panel(XID, 60, 8, |_, rank| if rank == 2 { 79.0 } else { 0.0 }));
    assert_eq!((phases(&old), old[0].severity), (vec![Phase::Raised], Severity::Info));
    let mut seen = row_by_row(&run_panel("loss", 0, &[2.0; 50]));
    seen.extend(row_by_row(&rank_panel(XID, 50, &[vec![Some(79.0)]])));
    let sparse = judge(&seen);
    assert_eq!((phases(&sparse), sparse[0].severity), (vec![Phase::Raised], Severity::Critical));
}

#[test]
fn a_rank_that_counts_two_errors_a_step_is_named_after_four_rows_and_cleared() {
    for (metric, count, kind) in [(MEMORY, 2.0, Kind::MemoryErrors), (REPLAYS, 40.0, Kind::HardwareFault)] {
        let panel =
            panel(metric, 300, 16, |row, rank| if rank == 2 && (130..200).contains(&row) { count } else { 0.0 });
        let seen = row_by_row(&panel);
        let verdicts = judge(&seen);
        assert_eq!(phases(&verdicts), [Phase::Raised, Phase::Cleared], "{metric}");
        let found = &verdicts[0];
        assert_eq!((found.kind, found.severity, found.ranks().next()), (kind, Severity::Warning, Some(Rank(2))));
        assert!(found.last.step <= Some(Step(140)), "{metric}: {:?}", found.last);
        assert_eq!((found.first.step, verdicts[1].last.step), (Some(Step(130)), Some(Step(199))), "{metric}");
        assert_restores(|| Box::new(DeviceErrors::default()), &seen);
    }
}

#[test]
fn a_slow_leak_is_named_in_time() {
    let leak = |row: u64, rank: usize| if rank == 5 && row >= 100 && row.is_multiple_of(20) { 1.0 } else { 0.0 };
    let verdicts = verdicts_of(&panel(MEMORY, 500, 64, leak));
    assert_eq!((verdicts.len(), verdicts[0].ranks().next()), (1, Some(Rank(5))));
    assert!(verdicts[0].last.step <= Some(Step(260)), "{:?}", verdicts[0].last);
}

#[test]
fn single_errors_bursts_and_what_all_count_are_not_told() {
    let sporadic = |row: u64, rank: usize| if (row * 7 + rank as u64 * 131).is_multiple_of(4_001) { 1.0 } else { 0.0 };
    assert_eq!(verdicts_of(&panel(MEMORY, 3_000, 64, sporadic)), []);
    let burst = |row: u64, rank: usize| if rank == 3 && (100..103).contains(&row) { 5_000.0 } else { 0.0 };
    assert_eq!(verdicts_of(&panel(MEMORY, 400, 16, burst)), []);
    let all = |row: u64, rank: usize| if (row + rank as u64).is_multiple_of(3) { 1.0 + (rank % 2) as f32 } else { 0.0 };
    assert_eq!(verdicts_of(&panel(MEMORY, 600, 16, all)), []);
    let replays = |row: u64, rank: usize| if (row + 3 * rank as u64).is_multiple_of(8) { 1.0 } else { 0.0 };
    assert_eq!(verdicts_of(&panel(REPLAYS, 600, 16, replays)), [], "below eight in a minute");
    let reset = |row: u64, rank: usize| if rank == 1 && row == 90 { -500.0 } else { 0.0 };
    assert_eq!(verdicts_of(&panel(MEMORY, 200, 8, reset)), [], "a counter that began anew");
}

#[test]
fn nothing_absent_and_unusable_cells_are_borne() {
    for metric in [XID, MEMORY, REPLAYS] {
        assert_eq!(verdicts_of(&panel(metric, 0, 4, |_, _| 1.0)), []);
        assert_eq!(verdicts_of(&panel(metric, 50, 4, |_, _| f32::NAN)), []);
        assert_eq!(verdicts_of(&panel(metric, 50, 4, |_, _| -1.0)), []);
        assert_eq!(judge(&row_by_row(&run_panel(metric, 0, &[79.0; 50]))), [], "of the whole run");
    }
    let mut absent = reports(79.0);
    absent.present.fill(false);
    assert_eq!(verdicts_of(&absent), []);
    let alone = verdicts_of(&panel(MEMORY, 100, 1, |row, _| if row > 50 { 2.0 } else { 0.0 }));
    assert_eq!(alone.len(), 1, "a rank without peers is held against healthy devices");
}

#[test]
fn a_new_launch_begins_anew() {
    let mut seen = row_by_row(&reports(79.0))[..60].to_vec();
    seen.push(grid(1, &[]));
    let later = Panel { attempt: Attempt(1), ..reports(0.0) };
    seen.extend(row_by_row(&later));
    assert_eq!(phases(&judge(&seen)), [Phase::Raised]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn the_names_of_ranks_do_not_change_who_counts(turn in 0_usize..8, faulty in 0_usize..8, count in 1_u8..200) {
        let counts = |turn: usize| {
            let value = move |row: u64, rank: usize| match (rank + turn) % 8 == faulty && row >= 50 {
                true => f32::from(count),
                false => 0.0,
            };
            verdicts_of(&panel(MEMORY, 90, 8, value))
        };
        let facts = |verdict: &Verdict, by: usize| {
            let ranks: Vec<usize> = verdict.ranks().map(|rank| (rank.0 as usize + by) % 8).collect();
            (verdict.phase, ranks, verdict.first, verdict.last, verdict.evidence[0].log10_e)
        };
        let straight: Vec<_> = counts(0).iter().map(|verdict| facts(verdict, 0)).collect();
        let renamed: Vec<_> = counts(turn).iter().map(|verdict| facts(verdict, turn)).collect();
        prop_assert!(!straight.is_empty());
        prop_assert_eq!(straight, renamed);
    }
}
