//! The service on Kafka: one worker or three, killed or not, tell what `replay` tells.

use std::path::Path;
use std::time::Duration;

use trainwarden::send::{SendOptions, send};
use trainwarden::simulation::{read_scenario, write};
use trainwarden_ingest::Format;
use trainwarden_ingest::kafka::{KafkaOptions, KafkaPublisher, TopicNames, create_topics};

use crate::cluster;
use crate::recorded::drawn;
use crate::service::{Service, replayed, wait_told};

/// Runs, so that each of three workers has some.
const RUNS: [&str; 6] = ["two_faults", "hang", "weight_flip", "slow_rank_5", "batch_reorder", "nonfinite"];

/// Kills of the sweep in the ordinary tests; `tests/chaos/run --only kafka` makes more.
const KILLS: u32 = 2;
/// Kills between two looks at what all workers tell.
const KILLS_A_ROUND: u32 = 4;

/// Topics and a group of their own, and the configuration that names them.
struct Site {
    options: KafkaOptions,
    dir: tempfile::TempDir,
}

impl Site {
    fn new(name: &str) -> Self {
        let mut options = KafkaOptions::new(cluster().brokers());
        options.topics = TopicNames::with_prefix(name);
        options.group = name.to_owned();
        options.partitions = 6;
        options.session_timeout_ms = 6_000;
        create_topics(&options).expect("the cluster takes topics");
        let dir = tempfile::tempdir().expect("a temporary folder");
        let text = format!(
            "[kafka]\nbrokers = \"{}\"\ngroup = \"{name}\"\npartitions = 6\nsession_timeout_ms = 6000\n\
             [kafka.topics]\ntelemetry = \"{name}.telemetry\"\nevents = \"{name}.events\"\nstate = \"{name}.state\"\n\
             incidents = \"{name}.incidents\"\n",
            options.brokers
        );
        std::fs::write(dir.path().join("trainwarden.toml"), text).expect("written");
        Self { options, dir }
    }

    fn runs(&self) -> std::path::PathBuf {
        let runs = self.dir.path().join("runs");
        let scenarios = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
        for name in RUNS {
            let path = scenarios.join(format!("{name}.toml"));
            write(&read_scenario(&path).expect("a scenario"), &runs.join(name), Format::Parquet).expect("written");
        }
        runs
    }

    fn worker(&self, name: &str) -> Service {
        let config = self.dir.path().join("trainwarden.toml").display().to_string();
        Service::start(&self.dir.path().join(name), &["--config", &config])
    }

    fn send(&self, runs: &Path) {
        let publisher = KafkaPublisher::open(&self.options).expect("the cluster answers");
        send(&[runs.to_owned()], &publisher, &SendOptions::default()).expect("everything is durable");
    }
}

#[test]
fn one_worker_on_kafka_tells_what_replay_tells() {
    let site = Site::new("serve-one");
    let runs = site.runs();
    let worker = site.worker("data");
    site.send(&runs);
    wait_told(&worker, &replayed(&runs));
}

#[test]
fn three_workers_share_the_runs_and_take_over_from_one_that_is_killed() {
    let site = Site::new("serve-three");
    let runs = site.runs();
    let expected = replayed(&runs);
    let mut workers: Vec<Service> = (0..3).map(|worker| site.worker(&format!("data{worker}"))).collect();
    let sender = {
        let (options, runs) = (site.options.clone(), runs.clone());
        std::thread::spawn(move || {
            let publisher = KafkaPublisher::open(&options).expect("the cluster answers");
            send(&[runs], &publisher, &SendOptions::default()).expect("everything is durable");
        })
    };
    std::thread::sleep(Duration::from_millis(700));
    workers[1].kill();
    sender.join().expect("everything is durable");
    // Each of the two that are left lists all, whoever judged it.
    wait_told(&workers[0], &expected);
    wait_told(&workers[2], &expected);
    // The killed one comes back, and agrees.
    workers[1].restart();
    wait_told(&workers[1], &expected);
}

#[test]
fn workers_killed_at_any_moment_tell_what_replay_tells() {
    let kills = std::env::var("CHAOS_KILLS").map_or(KILLS, |kills| kills.parse().expect("a number of kills"));
    let seed = std::env::var("CHAOS_SEED").map_or(7, |seed| seed.parse().expect("a seed"));
    let (mut done, mut round) = (0, 0_u32);
    while done < kills {
        round += 1;
        let site = Site::new(&format!("serve-killed-{seed}-{round}"));
        let runs = site.runs();
        let expected = replayed(&runs);
        let mut workers: Vec<Service> = (0..3).map(|worker| site.worker(&format!("data{worker}"))).collect();
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| site.send(&runs));
            for turn in 0..KILLS_A_ROUND.min(kills - done) {
                let draw = |range, salt| drawn(&range, seed + u64::from(round), 3 * turn + salt);
                std::thread::sleep(Duration::from_millis(draw(0..2_500, 0) as u64));
                let worker = &mut workers[draw(0..3, 1)];
                worker.kill();
                // Back at once, while the group still waits for it, or when the others have taken over.
                std::thread::sleep(Duration::from_secs(if draw(0..3, 2) == 0 { 8 } else { 0 }));
                worker.restart();
                done += 1;
            }
            sender.join().expect("everything is durable");
        });
        workers.iter().for_each(|worker| wait_told(worker, &expected));
    }
    println!("killed {done} times in {round} rounds: none lost, none twice, none different");
}
