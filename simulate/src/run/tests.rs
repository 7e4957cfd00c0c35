//! The physics: what a fault does to the rest, and what it leaves alone.

use std::convert::Infallible;

use super::*;
use crate::random::mix;

const CLUSTER: &str = "run = 'a'\nseed = 5\nsteps = 12\n[cluster]\ndp = 4\ntp = 2\n[life]\ncheckpoint_every = 5\n";

fn scenario(fault: &str) -> Scenario {
    let fault = if fault.is_empty() { String::new() } else { format!("[[fault]]\n{fault}") };
    Scenario::from_toml(&format!("{CLUSTER}{fault}")).expect("the scenario is right")
}

/// A sample that was told: rank, step, value.
type Told = (Option<u32>, u64, f64);

fn samples(scenario: &Scenario, wanted: &str) -> Vec<Told> {
    let mut told = Vec::new();
    let Ok(()) = simulate::<Infallible>(scenario, &mut |row| {
        if let Row::Sample { rank, step, metric, value, .. } = row
            && metric == wanted
        {
            told.push((rank, step, value));
        }
        Ok(())
    });
    told
}

/// The waits of an all-reduce (rank, step, nanoseconds; `None` = it never ended) of every rank.
fn waits(scenario: &Scenario) -> Vec<(u32, u64, Option<i64>)> {
    let mut told = Vec::new();
    let Ok(()) = simulate::<Infallible>(scenario, &mut |row| {
        if let Row::Collective { rank, step, start, end, .. } = row {
            told.push((rank, step, end.map(|end| end - start)));
        }
        Ok(())
    });
    told
}

fn digests(scenario: &Scenario, wanted: &str) -> Vec<(Option<u32>, u64, String)> {
    let mut told = Vec::new();
    let Ok(()) = simulate::<Infallible>(scenario, &mut |row| {
        if let Row::Digest { rank, step, kind, digest, .. } = row
            && kind == wanted
        {
            told.push((rank, step, digest.to_owned()));
        }
        Ok(())
    });
    told
}

#[test]
fn one_scenario_gives_the_same_bits_on_every_machine() {
    let mut hash = 0;
    let Ok(()) = simulate::<Infallible>(&scenario(""), &mut |row| {
        let (time, value) = match row {
            Row::Sample { time, value, .. } => (time, value.to_bits()),
            Row::Collective { start, end, .. } => (start, end.unwrap_or(0) as u64),
            Row::Event { time, .. } | Row::Digest { time, .. } => (time, 0),
            Row::Placement { .. } | Row::Member { .. } => (0, 0),
        };
        hash = mix(hash ^ mix(time as u64 ^ mix(value)));
        Ok(())
    });
    // The value itself means nothing; that it stays is the promise. A change of the physics changes it.
    assert_eq!(hash, 0xE9F1_DA2E_39D0_CFA0);
}

#[test]
fn a_late_rank_makes_its_group_wait_and_its_peers_work_as_ever() {
    let (healthy, slow) = (scenario(""), scenario("kind='slow_rank'\nonset_step=6\nranks=[4]\nsize=1.0"));
    let before: Vec<Told> = samples(&healthy, "backward_time_s");
    let after: Vec<Told> = samples(&slow, "backward_time_s");
    for (one, other) in before.iter().zip(&after) {
        let is_hit = one.0 == Some(4) && one.1 >= 6;
        assert_eq!(is_hit, one.2 != other.2, "{one:?} {other:?}");
    }
    let waits_at = |step: u64| waits(&slow).into_iter().filter(move |wait| wait.1 == step);
    let least = waits_at(6).filter(|wait| wait.0 % 2 == 0).min_by_key(|wait| wait.2).map(|wait| wait.0);
    assert_eq!(least, Some(4), "who comes last waits least");
    assert!(waits_at(6).any(|wait| wait.0 == 2 && wait.2 > Some(800_000_000)));
    assert!(waits_at(6).filter(|wait| wait.0 % 2 == 1).all(|wait| wait.2 < Some(200_000_000)), "another group");
    assert!(samples(&slow, "step_time_s").iter().filter(|told| told.1 >= 6).all(|told| told.2 > 1.7));
}

#[test]
fn a_hang_leaves_its_group_in_the_call_and_ends_the_log() {
    let hung = scenario("kind='hang'\nonset_step=6\nranks=[4]");
    let last: Vec<(u32, bool)> =
        waits(&hung).iter().filter(|wait| wait.1 == 6).map(|wait| (wait.0, wait.2.is_some())).collect();
    assert_eq!(last, [(0, false), (2, false), (6, false), (1, true), (3, true), (5, true), (7, true)]);
    assert!(samples(&hung, "step_time_s").iter().all(|told| told.1 < 6));
}

#[test]
fn a_nan_is_on_one_rank_first_and_everywhere_after_the_step() {
    let broken = scenario("kind='nonfinite'\nonset_step=6\nranks=[4]");
    let norms = samples(&broken, "grad_norm_local");
    assert!(norms.iter().all(|told| told.2.is_nan() == (told.1 > 6 || told.1 == 6 && told.0 == Some(4))));
    assert!(samples(&broken, "grad_norm").iter().all(|told| told.2.is_nan() == (told.1 >= 6)));
    assert!(samples(&broken, "loss").iter().all(|told| told.2.is_nan() == (told.1 > 6)));
}

#[test]
fn a_wrong_sign_turns_one_cosine_and_slows_the_training() {
    let (healthy, flipped) = (scenario(""), scenario("kind='gradient_flip'\nonset_step=2\nranks=[4]"));
    let cosines = samples(&flipped, "grad_cosine_local");
    assert!(cosines.iter().all(|told| (told.2 < 0.0) == (told.1 >= 2 && told.0 == Some(4))), "{cosines:?}");
    let last = |scenario: &Scenario| samples(scenario, "loss").last().expect("there are steps").2;
    assert!(last(&flipped) > last(&healthy));
}

#[test]
fn replicas_are_equal_and_weights_move_by_the_optimizer_alone() {
    let healthy = scenario("");
    let after = digests(&healthy, "weight");
    assert!(after.iter().all(|told| {
        let first = told.0.map(|rank| rank % 2);
        after.iter().any(|other| other.0 == first && other.1 == told.1 && other.2 == told.2)
    }));
    for (rank, step, digest) in digests(&healthy, "weight_before") {
        assert!(after.contains(&(rank, step - 1, digest)));
    }
}

#[test]
fn a_flipped_bit_stays_in_one_replica_and_an_edit_is_seen_before_the_step() {
    let flipped = digests(&scenario("kind='weight_flip'\nonset_step=6\nranks=[4]"), "weight");
    let healthy = digests(&scenario(""), "weight");
    for (one, other) in flipped.iter().zip(&healthy) {
        assert_eq!(one.2 != other.2, one.0 == Some(4) && one.1 >= 6);
    }
    let edited = scenario("kind='weight_edit'\nonset_step=6");
    let after = digests(&edited, "weight");
    for (rank, step, digest) in digests(&edited, "weight_before") {
        assert_eq!(after.contains(&(rank, step - 1, digest)), step != 6);
    }
}

#[test]
fn batches_differ_between_indices_unless_the_fault_makes_them_one() {
    let distinct = |scenario: &Scenario| {
        let mut words: Vec<String> = digests(scenario, "batch").into_iter().map(|told| told.2).collect();
        words.sort_unstable();
        words.dedup();
        words.len()
    };
    assert_eq!(distinct(&scenario("")), 12 * 4);
    assert_eq!(distinct(&scenario("kind='batch_same'\nonset_step=6")), 6 * 4 + 6);
    assert_eq!(distinct(&scenario("kind='batch_repeat'\nonset_step=6\nsize=3")), 9 * 4);
}
