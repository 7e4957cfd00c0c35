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
    let Ok(()) = simulate::<Infallible>(scenario, &mut |_, row| {
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
    let Ok(()) = simulate::<Infallible>(scenario, &mut |_, row| {
        if let Row::Collective { rank, step, start, end, .. } = row {
            told.push((rank, step, end.map(|end| end - start)));
        }
        Ok(())
    });
    told
}

fn digests(scenario: &Scenario, wanted: &str) -> Vec<(Option<u32>, u64, String)> {
    let mut told = Vec::new();
    let Ok(()) = simulate::<Infallible>(scenario, &mut |_, row| {
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
    let rich =
        "tp = 2\ncommunicators = ['dp', 'tp', 'pp']\n[noise]\ntail_probability = 0.1\n[telemetry]\ncounters = true";
    let restart = "[[life.restart]]\nstep = 8\nreplaced_node = 0\n";
    let text = CLUSTER.replace("tp = 2", rich) + restart;
    let scenario = Scenario::from_toml(&text).expect("the scenario is right");
    let mut hash = 0;
    let Ok(()) = simulate::<Infallible>(&scenario, &mut |attempt, row| {
        let (time, value) = match row {
            Row::Sample { time, value, .. } => (time, value.to_bits()),
            Row::Collective { start, end, .. } => (start, end.unwrap_or(0) as u64),
            Row::Event { time, .. } | Row::Digest { time, .. } => (time, 0),
            Row::Placement { .. } | Row::Member { .. } => (0, 0),
        };
        hash = mix(hash ^ mix(time as u64 ^ mix(value ^ u64::from(attempt))));
        Ok(())
    });
    // The value itself means nothing; that it stays is the promise. A change of the physics changes it.
    assert_eq!(hash, 0x63BA_1A17_B383_3C5B);
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

#[test]
fn a_late_rank_makes_its_tensor_parallel_peer_late_too_and_itself_more() {
    let cluster = CLUSTER.replace("tp = 2", "tp = 2\npp = 2\ncommunicators = ['dp', 'tp', 'pp']");
    let text = format!("{cluster}[[fault]]\nkind='slow_rank'\nonset_step=6\nranks=[4]\nsize=1.0");
    let slow = Scenario::from_toml(&text).expect("the scenario is right");
    let mut waited = Vec::new();
    let Ok(()) = simulate::<Infallible>(&slow, &mut |_, row| {
        if let Row::Collective { rank, comm, step: 6, start, end: Some(end), .. } = row {
            waited.push((comm.to_owned(), rank, end - start));
        }
        Ok(())
    });
    let wait = |comm: &str, rank: u32| {
        waited.iter().find(|told| told.0 == comm && told.1 == rank).expect("the rank is a member").2
    };
    assert!(wait("tp/2", 5) > wait("tp/2", 4) + 250_000_000, "its peer waits after the forward pass");
    assert!(wait("pp/4", 12) > wait("pp/4", 4) + 250_000_000, "so does the next stage");
    assert!(wait("dp/0", 0) > wait("dp/0", 4) + 600_000_000, "and the replicas wait in the end");
    assert!(wait("dp/0", 0) > wait("dp/1", 1), "those of its peer not so long");
}

#[test]
fn a_throttled_device_shows_clock_temperature_and_work() {
    let cluster = CLUSTER.replace("[life]", "[telemetry]\ncounters = true\n[life]");
    let text = format!("{cluster}[[fault]]\nkind='throttle'\nonset_step=6\nranks=[4]\nsize=0.3");
    let hot = Scenario::from_toml(&text).expect("the scenario is right");
    let of = |metric: &str, rank: u32, step: u64| {
        samples(&hot, metric).iter().find(|told| told.0 == Some(rank) && told.1 == step).expect("it was told").2
    };
    assert!(of("gpu_sm_clock_hz", 4, 7) < 0.75 * of("gpu_sm_clock_hz", 4, 5));
    assert!(of("gpu_temp_c", 4, 7) > of("gpu_temp_c", 4, 5) + 15.0);
    assert!(of("backward_time_s", 4, 7) > 1.2 * of("backward_time_s", 5, 7));
    assert_eq!((of("gpu_throttle_mask", 4, 7), of("gpu_throttle_mask", 5, 7)), (32.0, 0.0));
}

#[test]
fn memory_errors_are_counted_up_on_one_device() {
    let cluster = CLUSTER.replace("[life]", "[telemetry]\ncounters = true\n[life]");
    let text = format!("{cluster}[[fault]]\nkind='memory_errors'\nonset_step=6\nranks=[4]\nsize=2.5");
    let faulty = Scenario::from_toml(&text).expect("the scenario is right");
    let counts = samples(&faulty, "gpu_ecc_errors_total");
    let last = |rank: u32| counts.iter().rev().find(|told| told.0 == Some(rank)).expect("it was told").2;
    assert!((12.0..=18.0).contains(&last(4)), "six steps of two or three: {}", last(4));
    assert!((0..8).filter(|rank| *rank != 4).all(|rank| last(rank) == 0.0));
}

#[test]
fn a_replay_tells_what_was_true_and_backdating_moves_its_time_alone() {
    let (healthy, replayed) = (scenario(""), scenario("kind='replay'\nonset_step=6\nranks=[4]\nsize=3"));
    let (truth, told) = (samples(&healthy, "backward_time_s"), samples(&replayed, "backward_time_s"));
    for (rank, step, value) in &told {
        let then = if *rank == Some(4) && *step >= 6 { step - 3 } else { *step };
        assert!(truth.contains(&(*rank, then, *value)), "{rank:?} {step}");
    }
    let back = scenario("kind='backdate'\nonset_step=6\nranks=[4]\nsize=5");
    assert_eq!(samples(&back, "backward_time_s"), truth);
    let (was, is) = (starts(&healthy), starts(&back));
    for (one, other) in was.iter().zip(&is) {
        assert_eq!(one.2 - other.2, if one.0 == 4 && one.1 >= 6 { 5_000_000_000 } else { 0 });
    }
}

/// When each rank entered its all-reduce, by its own clock: rank, step, nanoseconds.
fn starts(scenario: &Scenario) -> Vec<(u32, u64, i64)> {
    let mut told = Vec::new();
    let Ok(()) = simulate::<Infallible>(scenario, &mut |_, row| {
        if let Row::Collective { rank, step, start, .. } = row {
            told.push((rank, step, start));
        }
        Ok(())
    });
    told
}

#[test]
fn poisoned_data_cost_their_index_and_a_wrong_sign_climbs() {
    let (healthy, poisoned) = (scenario(""), scenario("kind='poison'\nonset_step=6\nranks=[4]\nsize=0.5"));
    let (before, after) = (samples(&healthy, "loss_local"), samples(&poisoned, "loss_local"));
    for (one, other) in before.iter().zip(&after) {
        let is_hit = one.0 == Some(4) && one.1 >= 6;
        assert!((other.2 - one.2 - if is_hit { 0.5 } else { 0.0 }).abs() < 1e-9, "{one:?} {other:?}");
    }
    let up = scenario("kind='update_sign'\nonset_step=6");
    let products = samples(&up, "update_dot_grad");
    assert!(products.iter().all(|told| (told.2 > 0.0) == (told.1 >= 6)));
    let losses = samples(&up, "loss");
    assert!(losses[11].2 > losses[7].2);
}

#[test]
fn batches_in_another_order_are_the_planned_ones() {
    let (healthy, reordered) = (scenario(""), scenario("kind='batch_reorder'\nonset_step=8"));
    let (plan, read) = (digests(&healthy, "batch"), digests(&reordered, "batch"));
    let moved = plan.iter().zip(&read).filter(|(one, other)| one.2 != other.2);
    assert!(moved.clone().count() > 0 && moved.clone().all(|(one, _)| one.1 >= 8));
}
