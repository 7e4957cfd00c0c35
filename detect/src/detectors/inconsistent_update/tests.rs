use super::*;
use crate::detectors::breach::testing::grid;
use crate::detectors::testing::{Noise, assert_restores, bare_scene, judge_all, rank_panel, row_by_row, run_panel};

/// Cosine, norm of the update, norm of the gradient and learning rate of a row.
type Numbers = [f64; 4];

/// What a training with Adam logs: a warm-up of 40 rows and a cosine decay, a gradient that falls, updates by rate alone.
fn adam(row: usize, noise: &mut Noise) -> Numbers {
    let progress = row as f64 / 600.0;
    let warm_up = ((row + 1) as f64 / 40.0).min(1.0);
    let rate = 3e-4 * warm_up * (0.1 + 0.45 * (1.0 + (std::f64::consts::PI * progress).cos()));
    let gradient = (0.3 + 4.0 / (1.0 + row as f64 / 20.0)) * (1.0 + 0.1 * noise.normal());
    let settling = 0.25 + 0.75 / (1.0 + row as f64 / 8.0);
    let update = rate * 2_000.0 * settling * (1.0 + 0.02 * noise.normal());
    [-0.15 + 0.03 * noise.normal(), update, gradient, rate]
}

/// The same with plain descent: updates by rate and gradient.
fn descent(row: usize, noise: &mut Noise) -> Numbers {
    let [cosine, _, gradient, rate] = adam(row, noise);
    [cosine, 3.0 * rate * gradient * (1.0 + 0.02 * noise.normal()), gradient, rate]
}

fn training(
    rows: usize,
    optimizer: fn(usize, &mut Noise) -> Numbers,
    change: impl Fn(usize, Numbers) -> Numbers,
) -> Vec<Observation> {
    let mut noise = Noise(11);
    let numbers: Vec<Numbers> = (0..rows).map(|row| change(row, optimizer(row, &mut noise))).collect();
    let product = |[cosine, update, gradient, _]: &Numbers| cosine * update * gradient;
    let column = |name: &str, value: &dyn Fn(&Numbers) -> f64| {
        let values: Vec<f32> = numbers.iter().map(|row| value(row) as f32).collect();
        row_by_row(&run_panel(name, 0, &values))
    };
    let columns = [
        column(METRICS[2], &|row| row[2]),
        column(METRICS[3], &|row| row[3]),
        column(METRICS[0], &product),
        column(METRICS[1], &|row| row[1]),
    ];
    (0..rows).flat_map(|row| columns.iter().map(move |column| column[row].clone())).collect()
}

fn judge(seen: &[Observation]) -> Vec<Verdict> {
    judge_all(&mut InconsistentUpdate::default(), &mut bare_scene(), seen)
}

fn phases(verdicts: &[Verdict]) -> Vec<Phase> {
    verdicts.iter().map(|verdict| verdict.phase).collect()
}

const OPTIMIZERS: [fn(usize, &mut Noise) -> Numbers; 2] = [adam, descent];

#[test]
fn an_update_along_the_gradient_is_found_within_ten_rows_and_cleared() {
    for optimizer in OPTIMIZERS {
        let turned = |row: usize, [cosine, update, gradient, rate]: Numbers| {
            let sign = if (300..360).contains(&row) { -1.0 } else { 1.0 };
            [sign * cosine, update, gradient, rate]
        };
        let seen = training(450, optimizer, turned);
        let verdicts = judge(&seen);
        assert_eq!(phases(&verdicts), [Phase::Raised, Phase::Cleared]);
        let first = &verdicts[0];
        assert_eq!(
            (first.kind, first.severity, first.suspects.len()),
            (Kind::InconsistentUpdate, Severity::Critical, 0)
        );
        assert_eq!((first.first.step, first.subject.as_str()), (Some(Step(300)), METRICS[0]));
        assert!(first.last.step <= Some(Step(310)), "{first:?}");
        assert!(first.summary.contains("with the gradient instead of against it"), "{}", first.summary);
        assert_restores(|| Box::new(InconsistentUpdate::default()), &seen);
    }
}

#[test]
fn an_update_of_another_size_is_found_within_ten_rows_and_cleared() {
    for (optimizer, factor) in OPTIMIZERS.into_iter().flat_map(|optimizer| [(optimizer, 4.0), (optimizer, 0.2)]) {
        let scaled = |row: usize, [cosine, update, gradient, rate]: Numbers| {
            let factor = if (300..360).contains(&row) { factor } else { 1.0 };
            [cosine, factor * update, gradient, rate]
        };
        let seen = training(450, optimizer, scaled);
        let verdicts = judge(&seen);
        assert_eq!(phases(&verdicts), [Phase::Raised, Phase::Cleared], "{factor}");
        assert_eq!((verdicts[0].first.step, verdicts[0].subject.as_str()), (Some(Step(300)), METRICS[1]));
        assert!(verdicts[0].last.step <= Some(Step(310)), "{verdicts:?}");
        assert_restores(|| Box::new(InconsistentUpdate::default()), &seen);
    }
}

#[test]
fn a_size_that_creeps_away_is_found_against_the_frozen_level() {
    for optimizer in OPTIMIZERS {
        let creeps = |row: usize, [cosine, update, gradient, rate]: Numbers| {
            [cosine, update * 20.0_f64.powf(row.saturating_sub(200) as f64 / 800.0), gradient, rate]
        };
        assert_eq!(phases(&judge(&training(1_000, optimizer, creeps))), [Phase::Raised]);
    }
}

#[test]
fn weights_that_stand_still_are_found_and_a_skipped_step_is_not() {
    let still = |row: usize, [cosine, update, gradient, rate]: Numbers| {
        let update = if (300..320).contains(&row) || row % 50 < 2 { 0.0 } else { update };
        [cosine, update, gradient, rate]
    };
    let seen = training(400, adam, still);
    let verdicts = judge(&seen);
    assert_eq!(phases(&verdicts), [Phase::Raised, Phase::Cleared]);
    assert_eq!((verdicts[0].first.step, verdicts[0].last.step), (Some(Step(300)), Some(Step(304))));
    assert_restores(|| Box::new(InconsistentUpdate::default()), &seen);
    let never = training(60, adam, |_, [cosine, _, gradient, rate]| [cosine, 0.0, gradient, rate]);
    assert_eq!(phases(&judge(&never)), [Phase::Raised]);
    let waits = training(60, adam, |_, [cosine, _, gradient, _]| [cosine, 0.0, gradient, 0.0]);
    assert_eq!(judge(&waits), [], "a rate of zero moves nothing");
}

#[test]
fn a_wrong_learning_rate_is_told_elsewhere() {
    let trebled = |row: usize, [cosine, update, gradient, rate]: Numbers| {
        let factor = if (300..360).contains(&row) { 3.0 } else { 1.0 };
        [cosine, factor * update, gradient, factor * rate]
    };
    OPTIMIZERS.into_iter().for_each(|optimizer| assert_eq!(judge(&training(450, optimizer, trebled)), []));
}

#[test]
fn healthy_trainings_are_quiet() {
    for optimizer in OPTIMIZERS {
        assert_eq!(judge(&training(1_500, optimizer, |_, row| row)), []);
        let clipped = |_: usize, [cosine, update, gradient, rate]: Numbers| [cosine, update, gradient.min(0.5), rate];
        assert_eq!(judge(&training(600, optimizer, clipped)), []);
        let overshoots = |row: usize, [cosine, update, gradient, rate]: Numbers| {
            [if row % 11 < 3 { -cosine } else { cosine }, update, gradient, rate]
        };
        assert_eq!(judge(&training(1_500, optimizer, overshoots)), []);
        let fades = |row: usize, [cosine, update, gradient, rate]: Numbers| {
            let share = 1.0 / (1.0 + row as f64 / 30.0);
            [cosine * share + 0.05 * (f64::from((row * 7_919 % 13) as u32) - 6.0) / 6.0, update, gradient, rate]
        };
        assert_eq!(judge(&training(1_500, optimizer, fades)), []);
    }
}

#[test]
fn a_spike_of_the_gradient_and_what_the_moments_remember_of_it_are_no_tampering() {
    let spike = |row: usize| if row == 300 { 60.0 } else { 1.0 };
    let after = |row: usize| if row < 300 { 0.0 } else { 0.95_f64.powi(row as i32 - 300) };
    let remembered = |row: usize, [cosine, update, gradient, rate]: Numbers| {
        [cosine, update / (1.0 + 12.0 * after(row)), gradient * spike(row), rate]
    };
    assert_eq!(judge(&training(600, adam, remembered)), []);
    let momentum = |row: usize, [cosine, update, gradient, rate]: Numbers| {
        [cosine, update * (1.0 + 30.0 * after(row)), gradient * spike(row), rate]
    };
    assert_eq!(judge(&training(600, descent, momentum)), []);
    let faster = |row: usize, [cosine, update, gradient, rate]: Numbers| {
        [cosine, update, gradient * if row >= 300 { 2.9 } else { 1.0 }, rate]
    };
    assert_eq!(judge(&training(600, adam, faster)), [], "a larger gradient does not move Adam");
}

#[test]
fn the_sign_of_the_logger_is_learned_once_and_holds_over_launches() {
    let other = |_: usize, [cosine, update, gradient, rate]: Numbers| [-cosine, update, gradient, rate];
    assert_eq!(judge(&training(300, adam, other)), [], "from the first row of the run on: a convention");
    let mut seen = training(100, adam, |_, row| row);
    seen.push(grid(1, &[]));
    let ascent = training(60, adam, other).into_iter().map(|seen| match seen {
        Observation::Panel(panel) => Observation::Panel(Panel { attempt: Attempt(1), ..panel }),
        other => other,
    });
    seen.extend(ascent);
    let verdicts = judge(&seen);
    assert_eq!((phases(&verdicts), verdicts[0].first.step), (vec![Phase::Raised], Some(Step(0))));
}

#[test]
fn values_by_rank_are_judged_by_their_median_and_metrics_may_come_in_any_order() {
    let seen = training(400, adam, |row, [cosine, update, gradient, rate]: Numbers| {
        [if row >= 300 { -cosine } else { cosine }, update, gradient, rate]
    });
    let by_rank = seen.iter().map(|seen| match seen {
        Observation::Panel(panel) => {
            let value = panel.values[[0, 0]];
            let step = panel.labels[0].step.map_or(0, |step| step.0);
            let cells =
                vec![Some(value), Some(value), Some(if panel.metric.as_str() == METRICS[0] { -value } else { value })];
            Observation::Panel(rank_panel(panel.metric.as_str(), step, &[cells]))
        }
        other => other.clone(),
    });
    let words = |verdicts: Vec<Verdict>| verdicts.into_iter().map(|verdict| verdict.summary).collect::<Vec<_>>();
    let expected = words(judge(&seen));
    assert_eq!(expected.len(), 1);
    assert_eq!(words(judge(&by_rank.collect::<Vec<_>>())), expected);
    let mut late = seen;
    late.chunks_mut(8).for_each(|rows| rows.swap(2, 6));
    assert_eq!(words(judge(&late)), expected, "a product that comes a row later, and one a row earlier");
}

#[test]
fn logs_with_little_in_them_are_borne() {
    assert_eq!(judge(&[]), []);
    assert_eq!(judge(&training(0, adam, |_, row| row)), []);
    let nan = training(100, adam, |_, _| [f64::NAN; 4]);
    assert_eq!(judge(&nan), []);
    let only = |name: &str| {
        let seen = training(300, adam, |row, [cosine, update, gradient, rate]: Numbers| {
            [if row >= 200 { -cosine } else { cosine }, update, gradient, rate]
        });
        let of = |seen: &Observation| matches!(seen, Observation::Panel(panel) if panel.metric.as_str() == name);
        judge(&seen.into_iter().filter(of).collect::<Vec<_>>())
    };
    assert_eq!(phases(&only(METRICS[0])), [Phase::Raised], "the sign alone tells");
    assert_eq!(only(METRICS[1]), []);
}
