//! How fast `serve` is from the log to incidents, on the embedded log and on real Kafka, and that its answer is right:
//! 8,192 ranks x 1,000 steps of `step_time_s`, the workload of `w8k/workload.rs`.
//!
//! Producing is excluded: the log is full before the service starts. The clock runs from the start of the process until
//! its own metrics say that every record is judged; archive and state are written meanwhile. The broker runs on the same
//! cores. Then the service is killed and started again: what it takes until it judges.
//!
//! ```sh
//! cargo bench --bench serve                  # both logs, without and with signatures
//! cargo bench --bench serve -- --ranks 1024  # a smaller run
//! ```

#![expect(unused_crate_dependencies, reason = "what this target does not use serves another one of the package")]

#[path = "../tests/kafka/broker.rs"]
#[allow(dead_code, reason = "the tests use the rest")]
mod broker;
#[path = "../tests/recorded/mod.rs"]
mod recorded;
#[path = "../tests/service/mod.rs"]
mod service;
#[path = "w8k/workload.rs"]
#[allow(dead_code, reason = "the bench of replay uses the rest")]
mod workload;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use trainwarden::send::{SendOptions, send};
use trainwarden_ingest::kafka::{KafkaOptions, KafkaPublisher, create_topics};
use trainwarden_ingest::{EmbeddedLog, EmbeddedOptions, FolderWriter, Format, Publisher, SampleOut};
use workload::{STEPS, Workload};

use crate::service::{Service, replayed};

/// The secret key of the signed runs.
const SECRET: [u8; 32] = [7; 32];

struct Site {
    dir: tempfile::TempDir,
    runs: PathBuf,
    expected: String,
    points: f64,
    frames: u64,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let ranks = match arguments.as_slice() {
        [] => 8_192,
        [option, ranks] if option == "--ranks" => ranks.parse().expect("`--ranks` is a number"),
        other => panic!("unknown arguments {other:?}: `--ranks N`"),
    };
    let workload = Workload { ranks, seed: 7 };
    let dir = tempfile::tempdir().expect("a temporary folder can be made");
    let runs = dir.path().join("runs");
    write_folder(workload, &runs);
    let expected = replayed(&runs);
    let points = f64::from(ranks) * STEPS as f64;
    let frames = Site::frames_of(&runs);
    let site = Site { dir, runs, expected, points, frames };
    println!("{points:.0} points of {ranks} ranks, from the log to incidents; every answer equals that of replay\n");
    println!("log       signed   wall s   M points/s   CPU s: all  judge  archive   restart s   MiB");
    let cluster = broker::Cluster::start(1);
    for is_signed in [false, true] {
        site.embedded(is_signed);
        site.kafka(&cluster, is_signed);
    }
}

impl Site {
    /// How many frames the folder makes.
    fn frames_of(runs: &Path) -> u64 {
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        let log = EmbeddedLog::open(dir.path(), EmbeddedOptions::default(), Arc::new(|| 1)).expect("the log opens");
        send(&[runs.to_owned()], &log, &SendOptions::default()).expect("everything is durable").0.frames
    }

    fn embedded(&self, is_signed: bool) {
        let data = self.dir.path().join(format!("embedded-{is_signed}"));
        {
            let log = EmbeddedLog::open(&data.join("log"), EmbeddedOptions::default(), Arc::new(|| 1));
            self.fill(&log.expect("the log opens"), is_signed);
        }
        let config = self.config("", is_signed);
        self.measure("embedded", is_signed, &data, &config);
    }

    fn kafka(&self, cluster: &broker::Cluster, is_signed: bool) {
        let mut options = KafkaOptions::new(cluster.brokers());
        let name = format!("bench-{is_signed}");
        options.topics = trainwarden_ingest::kafka::TopicNames::with_prefix(&name);
        options.group.clone_from(&name);
        options.partitions = 4;
        create_topics(&options).expect("the cluster takes topics");
        self.fill(&KafkaPublisher::open(&options).expect("the cluster answers"), is_signed);
        let kafka = format!(
            "[kafka]\nbrokers = \"{}\"\ngroup = \"{name}\"\npartitions = 4\n[kafka.topics]\n\
             telemetry = \"{name}.telemetry\"\nevents = \"{name}.events\"\nstate = \"{name}.state\"\n\
             incidents = \"{name}.incidents\"\n",
            options.brokers
        );
        let config = self.config(&kafka, is_signed);
        self.measure("kafka", is_signed, &self.dir.path().join(&name), &config);
    }

    fn fill(&self, log: &dyn Publisher, is_signed: bool) {
        let key = self.dir.path().join("key");
        std::fs::write(&key, hex(&SECRET)).expect("a temporary folder takes files");
        let options = SendOptions { speed: 0.0, key: is_signed.then_some(key) };
        send(std::slice::from_ref(&self.runs), log, &options).expect("everything is durable");
    }

    fn config(&self, text: &str, is_signed: bool) -> PathBuf {
        let public = ed25519_dalek::SigningKey::from_bytes(&SECRET).verifying_key().to_bytes();
        let keys = format!("[[ingest.keys]]\nsender = \"send\"\nkey = \"{}\"\n", hex(&public));
        let path = self.dir.path().join("trainwarden.toml");
        let text = if is_signed { format!("{text}{keys}") } else { text.to_owned() };
        std::fs::write(&path, text).expect("a temporary folder takes files");
        path
    }

    fn measure(&self, name: &str, is_signed: bool, data: &Path, config: &Path) {
        let began = Instant::now();
        let mut service = Service::start(data, &["--config", &config.display().to_string()]);
        // The end of the input is the last record, and what it tells comes with it.
        while service.metric("receive_next_offset") < self.frames {
            assert!(began.elapsed() < Duration::from_secs(300), "not everything is judged");
            std::thread::sleep(Duration::from_millis(20));
        }
        let wall = began.elapsed().as_secs_f64();
        service::wait_told(&service, &self.expected);
        let [all, judge, archive] = ["", "judge", "archive"].map(|thread| service.cpu_s(thread));
        let peak = service.peak_mib();
        service.kill();
        let began = Instant::now();
        service.restart();
        let restart = began.elapsed().as_secs_f64();
        assert_eq!(service.incidents(), self.expected, "after a restart");
        let (signed, rate) = (if is_signed { "yes" } else { "no" }, self.points / wall / 1e6);
        println!(
            "{name:9} {signed:6} {wall:8.2} {rate:12.2} {all:12.2} {judge:6.2} {archive:8.2} {restart:11.2} {peak:5}"
        );
    }
}

fn write_folder(workload: Workload, dir: &Path) {
    let mut writer = FolderWriter::create(dir, Format::Parquet).expect("a temporary folder takes files");
    workload.each_step(|step, values| {
        for (rank, value) in (0..).zip(values) {
            let time = Some(step as i64 * 250_000_000 + i64::from(rank) * 1_000);
            let (run, metric) = ("w8k", "step_time_s");
            let (rank, step) = (Some(rank), Some(step));
            let row = SampleOut { run, attempt: 0, rank, step, time, metric, value: *value };
            writer.sample(&row).expect("a temporary folder takes rows");
        }
    });
    writer.finish().expect("a temporary folder takes files");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
