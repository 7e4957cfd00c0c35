//! How long from the last cell of a row to the answer of the receiver, with a real service and a receiver that is there.
//!
//! Many live runs, pushed over gRPC; once they are known, a loss is NaN in one run after the other. The clock begins when
//! the service has said that the row is durable, and stops when the receiver has the notice whole, before it answers 200.
//! Every run must be told exactly once.
//!
//! `cargo bench --bench alerts`, or `-- --runs 1000`.

#![expect(unused_crate_dependencies, reason = "what this target does not use serves another one of the package")]

#[path = "../tests/alerts/receiver.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod receiver;
#[path = "../tests/recorded/mod.rs"]
mod recorded;
#[path = "../tests/service/mod.rs"]
mod service;

use std::collections::BTreeMap;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use trainwarden::client::GrpcPublisher;
use trainwarden_ingest::wire::{BatchWriter, FrameWriter};
use trainwarden_ingest::{NO_TIME, NO_U32, Names, Publisher, Record, Row, SampleRow};

use crate::receiver::Receiver;
use crate::service::{Service, wait_until};

/// Runs, unless `--runs` says otherwise.
const RUNS: u32 = 500;
/// Steps before the NaN; the distance of the first two says how far apart rows are.
const STEPS: u64 = 4;
/// The first rows of a live run close at their deadline.
const DEADLINE: Duration = Duration::from_secs(12);
/// Between the faults of two runs.
const PAUSE: Duration = Duration::from_millis(50);

struct Run {
    name: String,
    writer: FrameWriter,
}

impl Run {
    fn new(number: u32) -> Self {
        let name = format!("run-{number}");
        Self { writer: FrameWriter::new("agent", &name, None), name }
    }

    fn frame(&mut self, step: u64, value: f64) -> Vec<u8> {
        let (mut batch, mut names) = (BatchWriter::default(), Names::default());
        let (log_time, time, metric) = (NO_TIME, NO_TIME, names.intern("loss"));
        let row = SampleRow { log_time, step, time, value, attempt: 0, rank: NO_U32, metric, reserved: 0 };
        batch.push(&Record { log_time, row: Row::Sample(row) }, &names);
        let (table, rows) = batch.finish().pop().expect("one table");
        self.writer.rows(table, &rows, 0)
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let count = match arguments.as_slice() {
        [] => RUNS,
        [name, runs] if name == "--runs" => runs.parse().expect("a number of runs"),
        other => panic!("unknown options {other:?}: --runs N"),
    };
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let receiver = Receiver::start();
    let config = dir.path().join("trainwarden.toml");
    std::fs::write(dir.path().join("key"), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("written");
    let text = format!(
        "[[alerts.sinks]]\nname = \"hook\"\ntype = \"webhook\"\nurl = \"{}/in\"\nsecret_file = \"{}/key\"\n\
         allow_private = true\n",
        receiver.url(),
        dir.path().display()
    );
    std::fs::write(&config, text).expect("written");
    let service = Service::start(&dir.path().join("data"), &["--config", &config.display().to_string()]);
    let publisher = GrpcPublisher::connect(&service.url()).expect("the service answers");
    let mut runs: Vec<Run> = (0..count).map(Run::new).collect();
    let (ack, acks) = channel();
    for step in 0..STEPS {
        for run in &mut runs {
            let frame = run.frame(step, 2.0);
            publisher.publish("", &frame, Box::new(|place| _ = place.expect("the service takes it")));
        }
    }
    thread::sleep(DEADLINE);
    for run in &mut runs {
        let (frame, ack, name) = (run.frame(STEPS, f64::NAN), ack.clone(), run.name.clone());
        let durable = move |place: Result<_, _>| {
            place.expect("the service takes it");
            ack.send((name, Instant::now())).expect("the bench listens");
        };
        publisher.publish("", &frame, Box::new(durable));
        thread::sleep(PAUSE);
    }
    wait_until("every run is told", || receiver.got().len() >= count as usize);
    let durable: BTreeMap<String, Instant> = acks.try_iter().collect();
    let mut told = BTreeMap::new();
    for got in receiver.got() {
        let incident = &got.json()["data"]["incident"];
        assert_eq!(incident["kind"], "divergence.nonfinite", "{incident}");
        let run = incident["run"].as_str().expect("an incident has a run").to_owned();
        assert!(told.insert(run.clone(), got.at - durable[&run]).is_none(), "{run} is told once");
    }
    let mut milliseconds: Vec<f64> = told.values().map(|wait| wait.as_secs_f64() * 1e3).collect();
    milliseconds.sort_by(f64::total_cmp);
    let quantile = |part: f64| milliseconds[((milliseconds.len() - 1) as f64 * part).round() as usize];
    let [median, p99, most] = [0.5, 0.99, 1.0].map(quantile);
    println!(
        "{count} incidents, from the durable row to the receiver: median {median:.0} ms, p99 {p99:.0} ms, most {most:.0} ms"
    );
}
