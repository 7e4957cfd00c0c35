//! A live fleet judged by a real service: how long from the last cell of a row to the incident, and how much memory.
//!
//! Devices of 36 metrics a tick are pushed over gRPC, spread over the tick, as ten runs on the embedded log; archive and
//! state are written meanwhile. In each run one number of one rank is NaN at a tick of its own, and its incident must be
//! told on the service's stream of changes and name the rank; nothing else may be told. Then the service is killed,
//! started again, and must get to where it was.
//!
//! `cargo bench --bench fleet` runs 10,000 and 100,000 devices; `-- --devices 100000 --ticks 72 --period 4` is one of
//! them by hand, with a tick every 4 seconds.

#![expect(unused_crate_dependencies, reason = "what this target does not use serves another one of the package")]

#[path = "../tests/recorded/mod.rs"]
mod recorded;
#[path = "../tests/service/mod.rs"]
mod service;
#[path = "fleet/telemetry.rs"]
mod telemetry;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use telemetry::{FAULTY_RANK, Run, fault_tick};
use trainwarden::client::GrpcPublisher;
use trainwarden_ingest::Publisher;

use crate::service::{PATIENCE, Service, wait_until};

const RUNS: u32 = 10;
const METRICS: u64 = 36;

/// One measurement.
#[derive(Clone, Copy)]
struct Plan {
    devices: u32,
    ticks: u64,
    period: Duration,
}

/// What one measurement gave.
struct Figures {
    peak_mib: u64,
    cpu_s: [f64; 2],
    latencies_ms: Vec<f64>,
    restart_s: f64,
}

fn main() {
    let mut plans = vec![plan(10_000, 72, 1.0), plan(100_000, 72, 4.0)];
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if !arguments.is_empty() {
        let told = |name: &str, usual: f64| {
            let at = arguments.iter().position(|argument| argument == name);
            let value = at.and_then(|at| arguments.get(at + 1)?.parse().ok());
            value.unwrap_or(usual)
        };
        plans = vec![plan(told("--devices", 10_000.0) as u32, told("--ticks", 72.0) as u64, told("--period", 1.0))];
    }
    println!(
        "{:>8} {:>6} {:>8} {:>12} {:>14} {:>9} {:>9} {:>9} {:>10} {:>6}",
        "devices", "ticks", "period s", "points", "CPU s: judge", "archive", "median ms", "most ms", "restart s", "MiB"
    );
    let mut measured: Vec<(u32, u64)> = Vec::new();
    for plan in plans {
        let figures = measure(plan);
        let Figures { peak_mib, cpu_s: [judge, archive], latencies_ms, restart_s } = figures;
        let quantile = |part: f64| latencies_ms[((latencies_ms.len() - 1) as f64 * part).round() as usize];
        println!(
            "{:>8} {:>6} {:>8} {:>12} {judge:>14.2} {archive:>9.2} {:>9.0} {:>9.0} {restart_s:>10.2} {peak_mib:>6}",
            plan.devices,
            plan.ticks,
            plan.period.as_secs_f64(),
            u64::from(plan.devices) * METRICS * plan.ticks,
            quantile(0.5),
            quantile(1.0),
        );
        measured.push((plan.devices, peak_mib));
    }
    if let [(few, before), (many, after)] = measured[..] {
        let bytes = (after - before) as f64 * f64::from(1 << 20) / f64::from(many - few);
        println!("memory from {few} to {many} devices: {bytes:.0} bytes a device");
    }
}

fn plan(devices: u32, ticks: u64, period_s: f64) -> Plan {
    Plan { devices, ticks, period: Duration::from_secs_f64(period_s) }
}

fn measure(plan: Plan) -> Figures {
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let mut service = Service::start(dir.path(), &[]);
    let told = watch(&service.url());
    let publisher = GrpcPublisher::connect(&service.url()).expect("the service answers");
    let mut runs: Vec<Run> = (0..RUNS).map(|run| Run::new(run, plan.devices / RUNS)).collect();
    let (ack, acks) = channel();
    let mut frames = 0_u64;
    let mut publish = |run: &str, frame: &[u8], closes: bool| {
        let (ack, run) = (ack.clone(), run.to_owned());
        frames += 1;
        let told = move |place: Result<_, _>| {
            place.expect("the service takes it");
            if closes {
                ack.send((run, Instant::now())).expect("the bench listens");
            }
        };
        publisher.publish("", frame, Box::new(told));
    };
    for run in &mut runs {
        let roster = run.roster();
        publish(&run.name, &roster, false);
    }
    let began = Instant::now();
    for tick in 0..plan.ticks {
        let due = began + plan.period * u32::try_from(tick).expect("few ticks");
        let pieces = runs.iter().map(Run::pieces).sum::<u32>();
        let mut sent = 0;
        for (number, run) in (0..).zip(&mut runs) {
            for piece in 0..run.pieces() {
                thread::sleep((due + plan.period * sent / pieces).saturating_duration_since(Instant::now()));
                let frame = run.frame(tick, piece);
                let closes = tick == fault_tick(number) && piece + 1 == run.pieces();
                publish(&run.name, &frame, closes);
                sent += 1;
            }
        }
    }
    let latencies_ms = latencies(&acks, &told, &runs);
    wait_until("everything is judged", || service.metric("receive_next_offset") >= frames);
    let told = ids(&service);
    let cpu_s = ["judge", "archive"].map(|thread| service.cpu_s(thread));
    let peak_mib = service.peak_mib();
    service.kill();
    let began = Instant::now();
    service.restart();
    wait_until("everything is judged again", || service.metric("receive_next_offset") >= frames);
    let restart_s = began.elapsed().as_secs_f64();
    assert_eq!(ids(&service), told, "after a restart");
    Figures { peak_mib, cpu_s, latencies_ms, restart_s }
}

/// The incidents that it knows; the log's clock goes on, so they are resolved one after the other.
fn ids(service: &Service) -> Vec<String> {
    let id = |line: &str| {
        let incident: Value = serde_json::from_str(line).expect("an incident is JSON");
        incident["id"].as_str().expect("it has an id").to_owned()
    };
    service.incidents().lines().map(id).collect()
}

/// Milliseconds from the answer to the last cell of each faulty row to its incident, in ascending order.
fn latencies(acks: &Receiver<(String, Instant)>, told: &Receiver<(Value, Instant)>, runs: &[Run]) -> Vec<f64> {
    let mut closed = BTreeMap::new();
    let mut latencies = Vec::new();
    let mut open: Vec<(String, Instant)> = Vec::new();
    while latencies.len() < runs.len() {
        let (incident, at) = told.recv_timeout(PATIENCE).expect("every fault is told");
        let run = incident["run"].as_str().expect("an incident has a run").to_owned();
        let ranks: Vec<u64> = incident["suspects"]
            .as_array()
            .map_or(Vec::new(), |suspects| suspects.iter().filter_map(|suspect| suspect["rank"].as_u64()).collect());
        assert_eq!(ranks, [u64::from(FAULTY_RANK)], "{incident}");
        assert!(open.iter().all(|(other, _)| *other != run), "one incident a run: {incident}");
        open.push((run.clone(), at));
        while !closed.contains_key(&run) {
            let (run, at) = acks.recv_timeout(PATIENCE).expect("every frame is answered");
            closed.insert(run, at);
        }
        latencies.push(at.saturating_duration_since(closed[&run]).as_secs_f64() * 1e3);
    }
    latencies.sort_by(f64::total_cmp);
    latencies
}

/// Incidents as they are opened, and when they were told.
fn watch(url: &str) -> Receiver<(Value, Instant)> {
    let (send, receive) = channel();
    let mut stream = TcpStream::connect(url).expect("it answers");
    write!(stream, "GET /api/v1/incidents/watch HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("sent");
    thread::spawn(move || {
        let mut event = String::new();
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if let Some(name) = line.strip_prefix("event: ") {
                event = name.to_owned();
            }
            let Some(data) = line.strip_prefix("data: ").filter(|_| event == "opened") else { continue };
            let incident = serde_json::from_str(data).expect("an incident is JSON");
            if send.send((incident, Instant::now())).is_err() {
                return;
            }
        }
    });
    receive
}
