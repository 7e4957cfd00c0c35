//! Alerts end to end: what is told arrives once at real receivers, through kills and outages; healthy runs tell nothing.

#![expect(unused_crate_dependencies, reason = "what this target does not use serves another one of the package")]

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use trainwarden::simulation::{read_scenario, write};
use trainwarden_incidents::{Act, Announced, Notice};
use trainwarden_ingest::{CollectiveOut, FolderWriter, Format};

use crate::alertmanager::RealAlertmanager;
use crate::receiver::{Got, Receiver};
use crate::recorded::drawn;
use crate::service::{Service, replayed, send_to, wait_told, wait_until};

#[path = "alerts/alertmanager.rs"]
mod alertmanager;
#[path = "alerts/day.rs"]
mod day;
#[path = "alerts/outbox.rs"]
mod outbox;
#[path = "alerts/receiver.rs"]
mod receiver;
mod recorded;
mod service;

/// Kills in the test of kills, unless `CHAOS_KILLS` says otherwise.
const KILLS: u32 = 4;
/// The secret of the specification's own example.
const HMAC: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// The private and the public key of the seed 0, 1, … 31.
const ED25519: &str = "whsk_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
const ED25519_PUBLIC: &str = "whpk_A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=";

fn folder_of(name: &str, dir: &Path) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/scenarios/{name}.toml"));
    let folder = dir.join(name);
    write(&read_scenario(&path).expect("a scenario"), &folder, Format::Parquet).expect("written");
    folder
}

/// A configuration with these sinks.
fn config(dir: &Path, sinks: &str) -> String {
    let path = dir.join("trainwarden.toml");
    std::fs::write(dir.join("keys"), format!("{HMAC} {ED25519}\n")).expect("written");
    let text = format!("[alerts]\nresolve_after_s = 0\n{sinks}").replace("{dir}", &dir.display().to_string());
    std::fs::write(&path, text).expect("written");
    path.display().to_string()
}

fn hook(receiver: &Receiver) -> String {
    format!(
        "[[alerts.sinks]]\nname = \"hook\"\ntype = \"webhook\"\nurl = \"{}/in\"\nsecret_file = \"{{dir}}/keys\"\n\
         allow_private = true\ntimeout_s = 5\n",
        receiver.url()
    )
}

/// What a notice says, in a few words.
fn words(got: &Got) -> String {
    let value = got.json();
    let incident = &value["data"]["incident"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    format!("{} {} {}", text(&incident["run"]), text(&incident["kind"]), text(&value["type"]))
}

/// What arrived, by id.
fn told(got: &[Got]) -> BTreeMap<String, String> {
    got.iter().map(|got| (got.id(), words(got))).collect()
}

/// Waits until nothing waits any more.
fn wait_delivered(service: &Service) {
    wait_until("nothing waits in the outbox", || service.metric("notify_notices_pending") == 0);
}

/// Every notice that the changes of a folder call for, by id, in a few words.
fn expected_of(folder: &Path) -> BTreeMap<String, String> {
    let (findings, _) = trainwarden::replay::replay(&[folder.to_owned()], None).expect("the folder replays");
    let (mut numbers, mut told) = (BTreeMap::new(), BTreeMap::new());
    let mut notices = BTreeMap::new();
    for change in &findings.changes {
        let incident = &change.incident;
        let next: &mut u64 = numbers.entry(incident.run.clone()).or_default();
        let known = told.remove(&incident.id);
        let (act, known) = Announced::after(known, (*next, change), 0, 0);
        match act {
            Act::Tell(kind) => {
                let notice = Notice::new("hook", (*next, kind), incident, 0);
                let words = format!("{} {} incident.{}", incident.run, incident.kind, notice.word());
                notices.insert(notice.id, words);
            }
            Act::Nothing => {}
            Act::Hold => panic!("{}: when an end is told depends on the clock", incident.summary),
        }
        told.extend(known.map(|known| (incident.id.clone(), known)));
        *next += 1;
    }
    notices
}

#[test]
fn a_faulty_run_is_told_and_its_healthy_twin_is_not() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let receiver = Receiver::start();
    let config = config(dir.path(), &hook(&receiver));
    let service = Service::start(&dir.path().join("data"), &["--config", &config]);
    let (faulty, healthy) = (folder_of("slow_rank_30", dir.path()), folder_of("slow_rank_30_healthy", dir.path()));
    let frames = [&healthy, &faulty].map(|folder| send_to(folder, &service.url()).frames).iter().sum::<u64>();
    wait_until("all is judged", || service.metric("receive_records_total") >= frames);
    wait_until("the notice arrives", || !receiver.got().is_empty());
    wait_delivered(&service);
    let got = receiver.got();
    assert_eq!(told(&got), expected_of(&faulty));
    assert_eq!(got[0].path, "/in");
    assert_eq!(expected_of(&healthy).len(), 0);
    let words: Vec<String> = got.iter().map(words).collect();
    assert_eq!(words, ["slow_rank_30 slowdown.rank incident.opened"]);
    assert_eq!(got[0].json()["data"]["incident"]["suspects"][0]["rank"], 21);
    assert_eq!(service.metric("notify_notices_delivered_total"), 1);
    let (_, ready) = service.get("/readyz?verbose").expect("it answers");
    assert!(ready.contains("[+] alerts hook ok, 0 pending"), "{ready}");
    assert_eq!(verified(&got), 2 * got.len());
}

/// What a program of ours in Python, with libraries that are not, prints of these lines.
fn python(program: &str, lines: &str) -> usize {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let input = tempfile::NamedTempFile::new().expect("a temporary file");
    std::fs::write(input.path(), lines).expect("written");
    let python = root.join("target/alerts/venv/bin/python");
    let output = Command::new(&python)
        .arg(root.join("tests/alerts").join(program))
        .stdin(std::fs::File::open(input.path()).expect("it was written"))
        .output()
        .unwrap_or_else(|error| panic!("`{}` does not start ({error}): run tests/needs", python.display()));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().parse().expect("a number")
}

/// How many signatures hold, says a library of another language.
fn verified(got: &[Got]) -> usize {
    let mut lines = String::new();
    for got in got {
        for secret in [HMAC, ED25519_PUBLIC] {
            let headers: BTreeMap<_, _> = got.headers.iter().filter(|(name, _)| name.starts_with("webhook-")).collect();
            lines += &format!("{}\n", json!({"secret": secret, "headers": headers, "body": got.body}));
        }
    }
    python("verify.py", &lines)
}

#[test]
fn slack_and_pagerduty_get_what_they_publish_that_they_take() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let receiver = Receiver::start();
    std::fs::write(dir.path().join("slack"), format!("{}/slack\n", receiver.url())).expect("written");
    std::fs::write(dir.path().join("pagerduty"), "R0UT1NGK3Y").expect("written");
    let sinks = format!(
        "[[alerts.sinks]]\nname = \"chat\"\ntype = \"slack\"\nsecret_file = \"{{dir}}/slack\"\nallow_private = true\n\
         [[alerts.sinks]]\nname = \"pager\"\ntype = \"pagerduty\"\nsecret_file = \"{{dir}}/pagerduty\"\n\
         url = \"{}/pagerduty\"\nallow_private = [\"127.0.0.0/8\"]\n[alerts.links]\npage = \"https://tw.example/{{id}}\"\n",
        receiver.url()
    );
    let config = config(dir.path(), &sinks);
    let service = Service::start(&dir.path().join("data"), &["--config", &config]);
    send_to(&hang(dir.path(), 0..1), &service.url());
    wait_until("both are told", || receiver.got().len() >= 2);
    // The next attempt ends what was about the processes of this one.
    send_to(&hang(dir.path(), 0..2), &service.url());
    wait_until("both are told of the end", || receiver.got().len() >= 4);
    wait_delivered(&service);
    let got = receiver.got();
    let schemas = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/alerts/schemas");
    let mut lines = String::new();
    for got in &got {
        let schema = schemas.join(format!("{}.json", got.path.trim_matches('/')));
        lines += &format!("{}\n", json!({"schema": schema, "json": got.json()}));
    }
    assert_eq!(python("fits.py", &lines), 4);
    let pages: Vec<Value> = got.iter().filter(|got| got.path == "/pagerduty").map(Got::json).collect();
    let actions: Vec<&Value> = pages.iter().map(|page| &page["event_action"]).collect();
    assert_eq!(actions, ["trigger", "resolve"]);
    assert_eq!(pages[0]["dedup_key"], pages[1]["dedup_key"]);
    assert_eq!(pages[0]["routing_key"], "R0UT1NGK3Y");
    assert!(pages[0]["payload"]["summary"].as_str().is_some_and(|text| text.contains("rank 77")), "{}", pages[0]);
}

#[test]
fn who_looks_after_an_incident_is_told_once_to_each_receiver() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let receiver = Receiver::start();
    std::fs::write(dir.path().join("pagerduty"), "R0UT1NGK3Y").expect("written");
    let pager = format!(
        "[[alerts.sinks]]\nname = \"pager\"\ntype = \"pagerduty\"\nsecret_file = \"{{dir}}/pagerduty\"\n\
         url = \"{}/pagerduty\"\nallow_private = true\n",
        receiver.url()
    );
    let config = config(dir.path(), &format!("{}{pager}", hook(&receiver)));
    let service = Service::start(&dir.path().join("data"), &["--config", &config]);
    send_to(&hang(dir.path(), 0..1), &service.url());
    wait_until("both are told", || receiver.got().len() >= 2);
    let incident: Value = serde_json::from_str(service.incidents().trim()).expect("one incident");
    let id = incident["id"].as_str().expect("an id");
    for _ in 0..2 {
        let ack = Command::new(env!("CARGO_BIN_EXE_trainwarden"))
            .args(["ack", id, "--url", &service.url(), "--as", "oncall", "--reason", "draining the node"])
            .output()
            .expect("the binary was built");
        assert!(ack.status.success(), "{ack:?}");
    }
    wait_until("both are told of it", || receiver.got().len() >= 4);
    wait_delivered(&service);
    let of =
        |path: &str| -> Vec<Value> { receiver.got().iter().filter(|got| got.path == path).map(Got::json).collect() };
    let words: Vec<Value> = of("/in").iter().map(|body| body["type"].clone()).collect();
    assert_eq!(words, ["incident.opened", "incident.acknowledged"]);
    let pages = of("/pagerduty");
    let actions: Vec<&Value> = pages.iter().map(|page| &page["event_action"]).collect();
    assert_eq!(actions, ["trigger", "acknowledge"]);
    assert_eq!(pages[0]["dedup_key"], pages[1]["dedup_key"]);
}

#[test]
fn killed_while_it_delivers_every_notice_arrives_and_ids_tell_repeats() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let runs = dir.path().join("runs");
    for name in ["two_faults", "slow_rank_restart", "weight_flip"] {
        folder_of(name, &runs);
    }
    let (expected, notices) = (replayed(&runs), expected_of(&runs));
    assert!(notices.len() >= 5, "{notices:#?}");
    let kills = std::env::var("CHAOS_KILLS").map_or(KILLS, |kills| kills.parse().expect("a number of kills"));
    let seed = std::env::var("CHAOS_SEED").map_or(7, |seed| seed.parse().expect("a seed"));
    let (mut done, mut round, mut repeats) = (0, 0_u32, 0);
    while done < kills {
        round += 1;
        let receiver = Receiver::start();
        let config = config(dir.path(), &hook(&receiver));
        let mut service = Service::start(&dir.path().join(format!("data{round}")), &["--config", &config]);
        let url = service.url();
        let sender = std::thread::spawn({
            let runs = runs.clone();
            move || send_to(&runs, &url)
        });
        for turn in 0..4.min(kills - done) {
            // Also while the receiver is away, so that the outbox is full.
            receiver.answer(if turn % 2 == 0 { 503 } else { 200 });
            // ... and while it has a notice that it has not answered yet.
            receiver.think(50 * u64::from(turn));
            let wait = drawn(&(0..600), seed + u64::from(round), turn);
            std::thread::sleep(Duration::from_millis(wait as u64));
            service.kill();
            service.restart();
            done += 1;
        }
        receiver.answer(200);
        receiver.think(0);
        sender.join().expect("everything is durable");
        wait_told(&service, &expected);
        wait_until("every notice arrives", || told(&receiver.got()).len() >= notices.len());
        wait_delivered(&service);
        let got = receiver.got();
        assert_eq!(told(&got), notices, "round {round}");
        repeats += got.len() - notices.len();
    }
    let count = notices.len();
    println!(
        "killed {done} times in {round} rounds: {count} notices each, none lost, {repeats} repeats told by their ids"
    );
}

/// 8,192 ranks in one all-reduce a second; in the last one of the first attempt rank 77 never comes.
fn hang(dir: &Path, attempts: std::ops::Range<u32>) -> PathBuf {
    let folder = dir.join(format!("hang{}", attempts.end));
    let mut writer = FolderWriter::create(&folder, Format::Parquet).expect("a temporary folder takes files");
    for attempt in attempts {
        for seq in 0..4_u64 {
            let begin = 1_766_000_000_000_000_000 + (i64::from(attempt) * 600 + seq as i64) * 1_000_000_000;
            let is_stuck = attempt == 0 && seq == 3;
            for rank in (0..8_192).filter(|rank| !is_stuck || *rank != 77) {
                let start = Some(begin + i64::from(rank));
                let row = CollectiveOut {
                    run: "wide",
                    attempt,
                    rank,
                    comm: "world",
                    seq,
                    op: "all_reduce",
                    bytes: None,
                    signature: None,
                    enqueued: start,
                    start,
                    end: (!is_stuck).then_some(begin + 500_000_000),
                    step: Some(seq),
                    peer: None,
                };
                writer.collective(&row).expect("a temporary folder takes rows");
            }
        }
    }
    writer.finish().expect("a temporary folder takes files");
    folder
}

#[test]
fn alertmanager_has_one_alert_for_8192_ranks_that_wait_and_keeps_it_over_restarts_of_either_side() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let receiver = Receiver::start();
    let mut real = RealAlertmanager::start(&dir.path().join("alertmanager"), &receiver.url());
    let sinks = format!(
        "[[alerts.sinks]]\nname = \"am\"\ntype = \"alertmanager\"\nurls = [\"{}\"]\nallow_private = true\nrepeat_s = 1\n\
         labels = {{ cluster = \"c1\" }}\n",
        real.url()
    );
    let config = config(dir.path(), &sinks);
    let mut service = Service::start(&dir.path().join("data"), &["--config", &config]);
    send_to(&hang(dir.path(), 0..1), &service.url());
    wait_until("the alert is there", || !real.active().is_empty());
    let only = |alerts: &[Value]| {
        assert_eq!(alerts.len(), 1, "{alerts:#?}");
        assert_eq!(alerts[0]["labels"]["alertname"], "stall.hang");
        let summary = alerts[0]["annotations"]["summary"].as_str().expect("a text").to_owned();
        assert!(summary.contains("rank 77"), "{summary}");
        alerts[0]["labels"].clone()
    };
    let labels = only(&real.active());
    assert!(!labels.to_string().contains("77") && labels["cluster"] == "c1", "{labels}");
    service.kill();
    service.restart();
    assert_eq!(only(&real.active()), labels);
    // What it knew is gone with its memory: it is told again.
    real.restart();
    wait_until("the alert is there again", || !real.active().is_empty());
    assert_eq!(only(&real.active()), labels);
    send_to(&hang(dir.path(), 0..2), &service.url());
    wait_until("the alert is over", || real.active().is_empty());
    let statuses = || -> Vec<Value> { receiver.got().iter().map(|got| got.json()["status"].clone()).collect() };
    wait_until("the end is sent on", || statuses().contains(&json!("resolved")));
    assert!(receiver.got().iter().all(|got| got.json()["alerts"].as_array().is_some_and(|alerts| alerts.len() == 1)));
}

#[test]
fn every_member_of_an_alertmanager_cluster_is_told_and_their_receiver_once() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let receiver = Receiver::start();
    let mut members: [RealAlertmanager; 2] = RealAlertmanager::start_cluster(dir.path(), &receiver.url());
    wait_until("the members know each other", || members.iter().all(|member| member.members() == 2));
    let sinks = format!(
        "[[alerts.sinks]]\nname = \"am\"\ntype = \"alertmanager\"\nurls = [\"{}\", \"{}\"]\n\
         allow_private = true\nrepeat_s = 1\n",
        members[0].url(),
        members[1].url()
    );
    let config = config(dir.path(), &sinks);
    let service = Service::start(&dir.path().join("data"), &["--config", &config]);
    let have_it = |members: &[RealAlertmanager]| members.iter().all(|member| member.active().len() == 1);
    send_to(&hang(dir.path(), 0..1), &service.url());
    wait_until("every member has the alert", || have_it(&members));
    let sent = |status: &str| receiver.got().iter().filter(|got| got.json()["status"] == status).count();
    // Longer than the second member waits for the first one.
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!((sent("firing"), sent("resolved")), (1, 0), "{:#?}", receiver.got());
    // One that is lost is told again when it is back. Whether it sends that on once more is between the members.
    members[1].restart();
    wait_until("every member has the alert again", || have_it(&members));
    send_to(&hang(dir.path(), 0..2), &service.url());
    wait_until("it is over for every member", || members.iter().all(|member| member.active().is_empty()));
    wait_until("the end is sent on", || sent("resolved") > 0);
}

#[test]
fn what_receivers_answer_is_printed_and_3_says_that_one_is_not_reachable() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let receiver = Receiver::start();
    let run = |sinks: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_trainwarden"))
            .args(["webhook", "test", "--config", &config(dir.path(), sinks)])
            .output()
            .expect("the binary was built");
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.code(), text)
    };
    let program = "[[alerts.sinks]]\nname = \"program\"\ntype = \"command\"\nargv = [\"sh\", \"-c\", \"wc -l\"]\n";
    let (code, text) = run(&format!("{}{program}", hook(&receiver)));
    assert_eq!((code, text.as_str()), (Some(0), "hook: arrived, 200 ok\nprogram: arrived, ended with 0 0\n"));
    let got = receiver.got();
    assert!(got.len() == 1 && got[0].json()["data"]["test"] == true, "{got:?}");
    assert!(got[0].json()["data"]["title"].as_str().expect("a text").starts_with("TEST "));
    receiver.answer(302);
    let (code, text) = run(&hook(&receiver));
    assert_eq!((code, text.contains("answered 302")), (Some(3), true), "a redirect is not followed: {text}");
    // Loopback is denied unless the sink says so, however the address is written.
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0x7f.1", "2130706433"] {
        let denied = hook(&receiver)
            .replace("allow_private = true", "allow_private = [\"10.0.0.0/8\"]")
            .replace(&receiver.url(), &format!("http://{host}:{}", receiver.address.port()));
        let (code, text) = run(&denied);
        assert_eq!((code, text.contains("which is loopback")), (Some(2), true), "{host}: {text}");
    }
    assert_eq!(receiver.got().len(), 1, "nobody was connected to");
    let (code, text) = run(&hook(&receiver).replace("{dir}/keys", "{dir}/none"));
    assert_eq!((code, text.contains("cannot read the secret")), (Some(2), true), "{text}");
}

#[test]
fn a_receiver_that_asks_for_a_pause_is_told_of_and_gets_its_notice_after_it() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let receiver = Receiver::start();
    receiver.answer(429);
    let config = config(dir.path(), &hook(&receiver));
    let mut service = Service::start(&dir.path().join("data"), &["--config", &config]);
    send_to(&hang(dir.path(), 0..1), &service.url());
    let ready = |service: &Service| service.get("/readyz?verbose").expect("it answers");
    let is_open =
        |service: &Service| ready(service).1.contains("[!] alerts hook circuit open, 1 pending: answered 429: ok");
    wait_until("the circuit is open", || is_open(&service));
    assert!(ready(&service).0.contains("200"), "the service itself is ready");
    assert!(service.metric("notify_circuit_open") == 1 && service.metric("notify_attempts_failed_total") >= 1);
    // What waits is in the state, and nowhere else.
    service.stop();
    service.restart();
    wait_until("the circuit is open again", || is_open(&service));
    receiver.answer(200);
    wait_until("the notice arrives", || !receiver.got().is_empty());
    wait_delivered(&service);
    assert_eq!(service.metric("notify_circuit_open"), 0);
    assert_eq!(told(&receiver.got()).len(), 1);
}

#[test]
fn tls_is_spoken_and_only_known_certificates_are_taken() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut server = Command::new(root.join("target/alerts/venv/bin/python"))
        .arg(root.join("tests/alerts/https.py"))
        .arg(dir.path().join("ca.pem"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("Python does not start ({error}): run tests/needs"));
    let mut port = String::new();
    BufReader::new(server.stdout.take().expect("it is piped")).read_line(&mut port).expect("it prints its port");
    let sink = format!(
        "[[alerts.sinks]]\nname = \"hook\"\ntype = \"webhook\"\nurl = \"https://127.0.0.1:{}/in\"\n\
         secret_file = \"{{dir}}/keys\"\nallow_private = true\n",
        port.trim()
    );
    let run = |sink: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_trainwarden"))
            .args(["webhook", "test", "--config", &config(dir.path(), sink)])
            .output()
            .expect("the binary was built");
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let known = run(&format!("{sink}ca_file = \"{{dir}}/ca.pem\"\n"));
    let unknown = run(&sink);
    // Its input ends, and so does it.
    drop(server.stdin.take());
    server.wait().expect("it was ours");
    assert_eq!(known, (Some(0), "hook: arrived, 200 ok\n".to_owned()));
    assert_eq!((unknown.0, unknown.1.contains("certificate")), (Some(3), true), "{}", unknown.1);
}

#[test]
fn secrets_are_in_no_output() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let receiver = Receiver::start();
    receiver.answer(500);
    let config = config(dir.path(), &hook(&receiver));
    let check = Command::new(env!("CARGO_BIN_EXE_trainwarden")).args(["check", "--config", &config]).output();
    let test = Command::new(env!("CARGO_BIN_EXE_trainwarden"))
        .args(["webhook", "test", "--config", &config])
        .env("RUST_LOG", "trace")
        .output();
    for output in [check.expect("it runs"), test.expect("it runs")] {
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(text.contains("hook"), "{text}");
        let secret = [HMAC, ED25519].iter().find(|key| text.contains(&key[6..]));
        assert_eq!(secret, None, "{text}");
    }
}
