//! The service on its embedded log: what it tells is what `replay` tells, also when it is killed on the way.

#![expect(unused_crate_dependencies, reason = "what this target does not use serves another one of the package")]

use std::path::Path;
use std::time::{Duration, Instant};

use trainwarden::simulation::{read_scenario, write};
use trainwarden_ingest::{EmbeddedLog, EmbeddedOptions, Format, Publisher};
use trainwarden_telemetry::{Incident, State};

use crate::live::Trainer;
use crate::recorded::drawn;
use crate::service::{Service, replayed, send_to, wait_told, wait_until};

#[path = "serve/live.rs"]
mod live;
mod recorded;
mod service;

/// Kills in the test of kills, unless `CHAOS_KILLS` says otherwise.
const KILLS: u32 = 6;

/// A scenario's run folder.
fn folder_of(name: &str, dir: &Path) -> std::path::PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/scenarios/{name}.toml"));
    let folder = dir.join(name);
    write(&read_scenario(&path).expect("a scenario"), &folder, Format::Parquet).expect("written");
    folder
}

#[test]
fn what_is_sent_twice_is_told_once_and_is_there_after_a_stop() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let runs = dir.path().join("runs");
    for name in ["two_faults", "hang", "weight_flip"] {
        folder_of(name, &runs);
    }
    let expected = replayed(&runs);
    assert!(expected.lines().count() >= 4, "{expected}");
    let mut service = Service::start(&dir.path().join("data"), &[]);
    let sent = send_to(&runs, &service.url());
    assert_eq!((sent.runs, send_to(&runs, &service.url())), (3, sent));
    wait_told(&service, &expected);
    assert_eq!(service.incidents_of_folder(), expected, "the folder of a running service asks the service");
    let (status, verbose) = service.get("/readyz?verbose").expect("it answers");
    assert!(status.contains("200") && verbose.contains("[+] log ok"), "{verbose}");
    service.stop();
    assert_eq!(service.incidents_of_folder(), expected);
    service.restart();
    assert_eq!(service.incidents(), expected);
}

#[test]
fn killed_at_any_moment_it_tells_the_same() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let runs = dir.path().join("runs");
    for name in ["two_faults", "slow_rank_restart"] {
        folder_of(name, &runs);
    }
    let expected = replayed(&runs);
    let kills = std::env::var("CHAOS_KILLS").map_or(KILLS, |kills| kills.parse().expect("a number of kills"));
    let seed = std::env::var("CHAOS_SEED").map_or(7, |seed| seed.parse().expect("a seed"));
    let mut done = 0;
    let mut round = 0_u32;
    while done < kills {
        round += 1;
        let mut service = Service::start(&dir.path().join(format!("data{round}")), &[]);
        let url = service.url();
        let sender = std::thread::spawn({
            let runs = runs.clone();
            move || send_to(&runs, &url)
        });
        // A few kills in each round: while it is fed, while it judges, while it starts.
        for turn in 0..4.min(kills - done) {
            let wait = drawn(&(0..600), seed + u64::from(round), turn);
            std::thread::sleep(Duration::from_millis(wait as u64));
            service.kill();
            service.restart();
            done += 1;
        }
        sender.join().expect("everything is durable");
        wait_told(&service, &expected);
    }
    println!("killed {done} times in {round} rounds: none lost, none twice, none different");
}

#[test]
fn records_that_nobody_understands_are_counted_and_kept_and_passed() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let folder = folder_of("hang", dir.path());
    let expected = replayed(&folder);
    let data = dir.path().join("data");
    {
        // Straight into the log, as somebody with rights on it could.
        let log = EmbeddedLog::open(&data.join("log"), EmbeddedOptions::default(), std::sync::Arc::new(|| 1))
            .expect("the log opens");
        for partition in 0..log.partitions() {
            for bytes in live::poison() {
                log.publish_to(partition, &bytes, Box::new(|done| _ = done.expect("durable")));
            }
        }
    }
    let service = Service::start(&data, &[]);
    send_to(&folder, &service.url());
    wait_told(&service, &expected);
    let count = 4 * live::poison().len() as u64;
    wait_until("every poisonous record is counted", || service.metric("decode_records_rejected_total") == count);
}

#[test]
fn a_live_run_is_told_by_the_time_of_the_log() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let service = Service::start(&dir.path().join("data"), &[]);
    let began = Instant::now();
    // Two runs of four ranks, ten steps a second: in one of them rank 2 stops speaking, the other one ends.
    let mut silent = Trainer::new("silent", &service.url());
    let mut ended = Trainer::new("ended", &service.url());
    let mut step = 0;
    while began.elapsed() < Duration::from_secs(18) {
        silent.step(step, |rank| rank != 2 || step < 40);
        if step < 60 {
            ended.step(step, |_| true);
        } else if step == 60 {
            ended.end();
        }
        step += 1;
        std::thread::sleep(Duration::from_millis(100));
    }
    let told = || -> Vec<Incident> {
        service.incidents().lines().map(|line| serde_json::from_str(line).expect("an incident")).collect()
    };
    wait_until("the silent rank is told", || !told().is_empty());
    let told = told();
    let words: Vec<String> = told.iter().map(|one| format!("{} {} {}", one.run, one.kind, one.summary)).collect();
    assert_eq!(told.len(), 1, "{words:#?}");
    assert_eq!((&*told[0].run.0, told[0].kind.to_string().as_str()), ("silent", "telemetry.silence"), "{words:#?}");
    assert_eq!(told[0].suspects.iter().map(|suspect| suspect.rank.0).collect::<Vec<_>>(), [2]);
    assert_eq!(told[0].state, State::Open);
}

#[test]
fn frames_without_a_signature_are_refused_where_keys_are_told() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let folder = folder_of("hang", dir.path());
    let secret = [7_u8; 32];
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let public = ed25519_dalek::SigningKey::from_bytes(&secret).verifying_key().to_bytes();
    let config = dir.path().join("trainwarden.toml");
    let text = format!("[[ingest.keys]]\nsender = \"send\"\nkey = \"{}\"\n", hex(&public));
    std::fs::write(&config, text).expect("written");
    let key = dir.path().join("key");
    std::fs::write(&key, hex(&secret)).expect("written");
    let service = Service::start(&dir.path().join("data"), &["--config", &config.display().to_string()]);
    let publisher = trainwarden::client::GrpcPublisher::connect(&service.url()).expect("it answers");
    let mut options = trainwarden::send::SendOptions::default();
    let refused =
        trainwarden::send::send(std::slice::from_ref(&folder), &publisher, &options).expect_err("nothing is signed");
    assert!(format!("{refused:#}").contains("did not sign"), "{refused:#}");
    options.key = Some(key);
    trainwarden::send::send(std::slice::from_ref(&folder), &publisher, &options).expect("everything is signed");
    wait_told(&service, &replayed(&folder));
}
