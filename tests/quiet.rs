//! What is healthy stays quiet, from the folder to the incident: each test is the twin of one that fires.

#![expect(unused_crate_dependencies, reason = "what this target does not use serves another one of the package")]

mod synthetic;

use synthetic::{At, Folder, SECOND_NS, START_NS, Training, alarms, words};

/// Replays trainings one after the other, a minute apart.
fn assert_quiet(trainings: Vec<Training>) {
    assert_quiet_with(trainings, |_| {});
}

fn assert_quiet_with(trainings: Vec<Training>, more: impl Fn(&mut Folder)) {
    let mut folder = Folder::new();
    let mut begin = START_NS;
    for training in trainings {
        begin = Training { begin, ..training }.write(&mut folder) + 60 * SECOND_NS;
    }
    more(&mut folder);
    let findings = folder.replay();
    assert!(alarms(&findings).is_empty(), "{:#?}", words(&findings));
}

#[test]
fn a_plain_training_is_quiet() {
    assert_quiet(vec![Training::default()]);
}

#[test]
fn a_warm_up_is_quiet() {
    let work = |step, _| if step < 5 { 8.0 - step as f64 } else { 1.0 };
    let learning_rate = |step: u64| match step {
        step if step < 100 => 3e-4 * (step + 1) as f64 / 100.0,
        step => 3e-5 + 2.7e-4 * 0.5 * (1.0 + (std::f64::consts::PI * (step - 100) as f64 / 500.0).cos()),
    };
    assert_quiet(vec![Training { steps: 0..600, work, learning_rate, ..Training::default() }]);
}

#[test]
fn announced_and_unannounced_pauses_are_quiet() {
    for announces in [false, true] {
        let pause_s = |step: u64| if step % 100 == 99 { 45.0 } else { 0.0 };
        assert_quiet(vec![Training { steps: 0..800, pause_s, announces, ..Training::default() }]);
        let pause_s = |step: u64| if step % 50 == 49 { 6.0 } else { 0.0 };
        assert_quiet(vec![Training { steps: 0..800, pause_s, announces, ..Training::default() }]);
    }
}

#[test]
fn steps_around_a_pause_that_take_ten_times_as_long_are_quiet() {
    for announces in [false, true] {
        let pause_s = |step: u64| if step % 100 == 99 { 30.0 } else { 0.0 };
        let work = |step: u64, _| if step % 100 == 99 || (step > 0 && step.is_multiple_of(100)) { 10.0 } else { 1.0 };
        assert_quiet(vec![Training { steps: 0..800, pause_s, work, announces, ..Training::default() }]);
    }
}

#[test]
fn heavy_steps_by_design_are_quiet() {
    assert_quiet(vec![Training {
        steps: 0..800,
        work: |step, _| if step % 10 == 9 { 2.0 } else { 1.0 },
        ..Training::default()
    }]);
}

#[test]
fn single_hard_batches_are_quiet() {
    let loss = |step: u64| {
        let course = 2.0 + 8.0 / (1.0 + step as f64 / 20.0);
        if step % 131 == 130 { course * 1.4 } else { course }
    };
    assert_quiet(vec![Training { steps: 0..800, loss, ..Training::default() }]);
    let work = |step: u64, _| if step % 131 == 130 { 3.0 } else { 1.0 };
    assert_quiet(vec![Training { steps: 0..800, work, ..Training::default() }]);
}

#[test]
fn stages_of_unequal_work_are_quiet() {
    assert_quiet(vec![Training { ranks: 16, stages: 4, steps: 0..500, ..Training::default() }]);
}

#[test]
fn one_rank_and_two_ranks_are_quiet() {
    assert_quiet(vec![Training { ranks: 1, steps: 0..500, ..Training::default() }]);
    assert_quiet(vec![Training { ranks: 2, steps: 0..500, ..Training::default() }]);
}

#[test]
fn a_restart_that_repeats_its_last_steps_is_quiet() {
    let first = Training { steps: 0..300, ..Training::default() };
    let second = Training { attempt: 1, steps: 250..600, ..Training::default() };
    assert_quiet_with(vec![first, second], |folder| {
        let (saved, loaded) = (START_NS + 150 * SECOND_NS, START_NS + 235 * SECOND_NS);
        folder.digest(
            At { attempt: 0, step: 249, time: saved },
            None,
            ("checkpoint_saved", "step-249", None),
            "c0ffee",
        );
        folder.digest(
            At { attempt: 1, step: 250, time: loaded },
            None,
            ("checkpoint_loaded", "step-249", None),
            "c0ffee",
        );
    });
}

#[test]
fn a_restart_of_other_size_is_quiet() {
    let first = Training { steps: 0..300, ..Training::default() };
    let second = Training { attempt: 1, ranks: 4, steps: 250..600, ..Training::default() };
    assert_quiet(vec![first, second]);
}

#[test]
fn a_training_without_roster_and_its_restart_are_quiet() {
    let first = Training { steps: 0..300, has_roster: false, ..Training::default() };
    let second = Training { attempt: 1, steps: 250..600, has_roster: false, ..Training::default() };
    assert_quiet(vec![first, second]);
}

#[test]
fn a_training_without_times_and_its_restart_are_quiet() {
    let mut folder = Folder::new();
    folder.is_timed = false;
    let work = |step: u64, _| if step % 100 == 99 { 10.0 } else { 1.0 };
    Training { steps: 0..300, work, ..Training::default() }.write(&mut folder);
    Training { attempt: 1, steps: 250..600, work, ..Training::default() }.write(&mut folder);
    let findings = folder.replay();
    assert!(alarms(&findings).is_empty(), "{:#?}", words(&findings));
}

#[test]
fn reshuffled_epochs_are_quiet() {
    // 101 is prime: each factor steps through all positions, in another order each epoch.
    let batch = |step: u64| (step / 101, (step % 101) * [37, 11, 53, 29, 71][(step / 101) as usize] % 101);
    assert_quiet(vec![Training { steps: 0..500, batch, ..Training::default() }]);
}

#[test]
fn a_folder_of_headers_is_quiet() {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    for (table, header) in [
        ("samples", "run,attempt,rank,step,time,metric,value\n"),
        ("collectives", "run,attempt,rank,comm,seq,op,start,end\n"),
        ("digests", "run,rank,step,kind,name,digest\n"),
        ("events", "time,source,kind\n"),
        ("ranks", "run,rank,node\n"),
        ("groups", "run,comm,rank\n"),
    ] {
        std::fs::write(dir.path().join(format!("{table}.csv")), header).expect("a temporary folder takes files");
    }
    let (findings, _) =
        trainwarden::replay::replay(&[dir.path().to_path_buf()], None).expect("an empty folder is no error");
    assert_eq!(findings.incidents, []);
}
