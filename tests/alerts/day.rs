//! Hours of clean telemetry send nothing, and the same hours with one slow rank send just that.

use std::path::{Path, PathBuf};

use trainwarden::simulation::{read_scenario, write};
use trainwarden_ingest::Format;

use crate::receiver::Receiver;
use crate::service::{Service, send_to, wait_until};
use crate::{config, expected_of, hook, told, wait_delivered};

/// Hours of log time, unless `CHAOS_HOURS` says otherwise.
const HOURS: u64 = 1;
/// Steps an hour, at 5 s each.
const HOUR_STEPS: u64 = 720;

/// Everything that a run tells: all metrics, collectives, digests, checkpoints, evaluations.
fn scenario(name: &str, seed: u64, hours: u64, fault: &str) -> String {
    let steps = hours * HOUR_STEPS;
    format!(
        "run = \"{name}\"\nseed = {seed}\nsteps = {steps}\n[cluster]\ndp = 16\nstep_time_s = 5.0\n\
         [noise]\nphi = 0.3\nsigma = 0.01\n[life]\nevaluation_every = 120\ncheckpoint_every = 60\n\
         [telemetry]\nweights_every = 60\ncounters = true\n{fault}"
    )
}

fn folder(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(format!("{name}.toml"));
    std::fs::write(&path, text).expect("written");
    let folder = dir.join(name);
    write(&read_scenario(&path).expect("a scenario"), &folder, Format::Parquet).expect("written");
    folder
}

#[test]
fn hours_of_clean_telemetry_tell_nothing_and_a_slow_rank_in_them_is_told() {
    let number = |name: &str, usual| std::env::var(name).map_or(usual, |text| text.parse().expect("a number"));
    let (hours, seed) = (number("CHAOS_HOURS", HOURS), number("CHAOS_SEED", 7));
    let dir = tempfile::tempdir().expect("a temporary folder");
    let receiver = Receiver::start();
    let config = config(dir.path(), &hook(&receiver));
    let service = Service::start(&dir.path().join("data"), &["--config", &config]);
    let mut frames = 0;
    let mut send = |folder: &Path| {
        frames += send_to(folder, &service.url()).frames;
        wait_until("all is judged", || service.metric("receive_records_total") >= frames);
    };

    let healthy = folder(dir.path(), "healthy", &scenario("healthy", seed, hours, ""));
    send(&healthy);
    let fault =
        format!("[[fault]]\nkind = \"slow_rank\"\nonset_step = {}\nranks = [11]\nsize = 0.1\n", hours * HOUR_STEPS / 2);
    let faulty = folder(dir.path(), "faulty", &scenario("faulty", seed, hours, &fault));
    send(&faulty);
    // News is written down in order: with that of the second run there, none of the first is still to come.
    wait_until("the slow rank is told", || !receiver.got().is_empty());
    wait_delivered(&service);
    assert_eq!(told(&receiver.got()), expected_of(&faulty));
    assert_eq!(expected_of(&healthy).len(), 0);
    println!("{hours} h of clean telemetry, seed {seed}: no notice; with a slow rank: {}", receiver.got().len());
}
