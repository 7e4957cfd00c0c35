//! `serve`: the pipeline as a service. The log is read by one thread that judges; everything else answers.

pub mod access;
mod api;
mod archiver;
pub mod desk;
#[cfg(feature = "kafka")]
mod events_topic;
#[cfg(feature = "kafka")]
mod handover;
mod http;
mod incidents_service;
mod ingest_service;
mod otlp;
#[cfg(feature = "kafka")]
mod otlp_topic;
#[cfg(feature = "kafka")]
mod side_topic;
#[cfg(feature = "sql")]
mod sql;
#[cfg(feature = "tls")]
mod tls;
mod worker;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tracing::info;
#[cfg(feature = "kafka")]
use trainwarden_ingest::kafka::KafkaOptions;
use trainwarden_ingest::{EmbeddedLog, EmbeddedOptions, Publisher, Source};
use trainwarden_store::{Archive, StateStore};

use self::access::Access;
use self::archiver::{Archiver, ArchiverParts};
use self::desk::Desk;
use self::incidents_service::Signing;
use self::otlp::OtlpIntake;
use self::worker::{Worker, WorkerParts};
use crate::config::Config;
use crate::partition_judge::Admission;

/// The state inside a data folder.
pub const STATE_FILE: &str = "state.redb";
/// Where a running service of a data folder answers.
const ADDRESS_FILE: &str = "serve.json";

/// What `serve.json` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// Where it answers.
    pub address: SocketAddr,
    /// Its process.
    pub pid: u32,
}

impl Running {
    /// What the data folder says of a running service; it may have died since.
    #[must_use]
    pub fn find(data: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(data.join(ADDRESS_FILE)).ok()?).ok()
    }

    fn write(&self, data: &Path) -> Result<()> {
        let (path, partial) = (data.join(ADDRESS_FILE), data.join(".serve.json.partial"));
        let text = serde_json::to_vec(self).context("an address serialises")?;
        fs::write(&partial, text).and_then(|()| fs::rename(&partial, &path)).context("cannot write `serve.json`")
    }
}

/// What the service works with.
struct Parts {
    source: Box<dyn Source>,
    /// A reader of its own for the archive, which goes at its own pace.
    archive_source: Box<dyn Source>,
    publisher: Arc<dyn Publisher>,
    store: Arc<StateStore>,
    admission: Admission,
    #[cfg(feature = "kafka")]
    handover: Option<handover::Handover>,
}

/// Serves until it is told to stop.
///
/// # Errors
/// When log, state or address cannot be opened, or the log refuses to be read.
pub fn serve(config: &Config) -> Result<()> {
    fs::create_dir_all(&config.data).with_context(|| format!("cannot create `{}`", config.data.display()))?;
    let parts = open(config)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.context("cannot start the threads of the service")?;
    let result = runtime.block_on(run(config, parts));
    // Whoever still watches is not waited for.
    runtime.shutdown_background();
    // Not there any more is as good as removed.
    let _ = fs::remove_file(config.data.join(ADDRESS_FILE));
    result
}

fn open(config: &Config) -> Result<Parts> {
    let admission = Admission { keys: config.trusted_keys()?, takes_backfill: config.takes_backfill() };
    let state: PathBuf = config.data.join(STATE_FILE);
    let store = Arc::new(StateStore::open(&state)?);
    #[cfg(feature = "kafka")]
    if let Some(options) = &config.kafka {
        return open_kafka(options, store, admission);
    }
    let kept_bytes = config.log.kept_mb << 20;
    let options = EmbeddedOptions { partitions: config.log.partitions, kept_bytes, ..EmbeddedOptions::default() };
    let log = Arc::new(EmbeddedLog::open(&config.data.join("log"), options, Arc::new(desk::now_ns))?);
    Ok(Parts {
        source: Box::new(log.source()),
        archive_source: Box::new(log.source()),
        publisher: log,
        store,
        admission,
        #[cfg(feature = "kafka")]
        handover: None,
    })
}

#[cfg(feature = "kafka")]
fn open_kafka(options: &KafkaOptions, store: Arc<StateStore>, admission: Admission) -> Result<Parts> {
    use trainwarden_ingest::kafka::{KafkaPublisher, KafkaSource, create_topics};
    let topics = create_topics(options)?;
    info!(brokers = options.brokers, partitions = topics.partitions, created = topics.created, "the log is Kafka");
    let publisher = Arc::new(KafkaPublisher::open(options)?);
    let handover = Some(handover::Handover::open(options)?);
    let archive_group = format!("{}-archive", options.group);
    let archive_source = KafkaSource::open(&KafkaOptions { group: archive_group, ..options.clone() })?;
    let source = Box::new(KafkaSource::open(options)?);
    Ok(Parts { source, archive_source: Box::new(archive_source), publisher, store, admission, handover })
}

async fn run(config: &Config, parts: Parts) -> Result<()> {
    let Parts { source, archive_source, publisher, store, admission, .. } = parts;
    let listener = TcpListener::bind(config.listen).await;
    let listener = listener.with_context(|| format!("cannot listen on {}", config.listen))?;
    let address = listener.local_addr().context("the address cannot be told")?;
    let (desk, stop) = (Arc::new(Desk::default()), Arc::new(AtomicBool::new(false)));
    let front = http::Front {
        desk: Arc::clone(&desk),
        store: Arc::clone(&store),
        publisher: Arc::clone(&publisher),
        admission: Arc::new(admission.clone()),
        #[cfg(feature = "sql")]
        questions: sql::Questions::open(config, Arc::clone(&store))?,
        signing: signing(config, &admission)?,
        access: Access::open(&config.access.tokens, admission.keys.is_required())?,
        #[cfg(feature = "tls")]
        tls: config.tls.as_ref().map(tls::acceptor).transpose()?,
        otlp: open_otlp(config, &publisher, &desk)?,
    };
    #[cfg(feature = "kafka")]
    let mut readers = start_side_topics(config, &publisher, front.otlp.as_ref().map(|otlp| (otlp, &desk)), &stop)?;
    #[cfg(feature = "kafka")]
    readers.extend(parts.handover.as_ref().map(handover::Handover::follow).transpose()?.map(|follower| {
        let (store, desk, stop) = (Arc::clone(&store), Arc::clone(&desk), Arc::clone(&stop));
        std::thread::spawn(move || handover::follow_incidents(follower, &store, &desk, &stop))
    }));
    let archiver = Archiver::new(ArchiverParts {
        source: archive_source,
        archive: Archive::open(config.archive.clone(), &config.data)?,
        limits: config.archive.part_limits()?,
        store: Arc::clone(&store),
        desk: Arc::clone(&desk),
        admission: admission.clone(),
        stop: Arc::clone(&stop),
    });
    let archive_thread = start_archiver(archiver)?;
    #[cfg(feature = "alerts")]
    let (teller, couriers) = crate::alerts::start(&config.alerts, &store, desk.board(), &stop)?;
    let worker = Worker::new(WorkerParts {
        source,
        publisher,
        store,
        desk,
        admission,
        impact: config.impact.clone(),
        stop: Arc::clone(&stop),
        #[cfg(feature = "kafka")]
        handover: parts.handover,
        #[cfg(feature = "alerts")]
        teller,
    });
    let (thread, worker_ended) = start_worker(worker)?;
    Running { address, pid: std::process::id() }.write(&config.data)?;
    info!(%address, data = %config.data.display(), "serving");
    let served = http::answer(listener, front, end_of_service(worker_ended)).await;
    info!("stopping");
    stop.store(true, Ordering::Relaxed);
    let judged = tokio::task::block_in_place(|| thread.join());
    // A panic there was told on stderr already; what was not archived is archived after the next start.
    let _ = tokio::task::block_in_place(|| archive_thread.join());
    #[cfg(feature = "alerts")]
    tokio::task::block_in_place(|| couriers.join());
    #[cfg(feature = "kafka")]
    for reader in readers {
        // A panic there was told on stderr already.
        let _ = tokio::task::block_in_place(|| reader.join());
    }
    served?;
    judged.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// How what people do is signed.
fn signing(config: &Config, admission: &Admission) -> Result<Signing> {
    Ok(match config.act_key()? {
        Some(key) => Signing::Key(key),
        None if admission.keys.is_required() => Signing::NoKey,
        None => Signing::NotAsked,
    })
}

/// The thread that judges, and a word when it has ended.
fn start_worker(worker: Worker) -> Result<(std::thread::JoinHandle<Result<()>>, tokio::sync::oneshot::Receiver<()>)> {
    let (ended, has_ended) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().name("judge".to_owned()).spawn(move || {
        let result = worker.run();
        // The service may be stopping already.
        let _ = ended.send(());
        result
    });
    Ok((thread.context("cannot start the judging thread")?, has_ended))
}

fn start_archiver(archiver: Archiver) -> Result<std::thread::JoinHandle<()>> {
    let runtime = tokio::runtime::Handle::current();
    let thread = std::thread::Builder::new().name("archive".to_owned()).spawn(move || archiver.run(&runtime));
    thread.context("cannot start the archiving thread")
}

/// Where metrics of OpenTelemetry go; nowhere, where signatures are asked for and we have no key.
fn open_otlp(config: &Config, publisher: &Arc<dyn Publisher>, desk: &Arc<Desk>) -> Result<Option<Arc<OtlpIntake>>> {
    if !config.takes_otlp() {
        return Ok(None);
    }
    let intake = OtlpIntake::new(config.otlp_key()?, Arc::clone(publisher), Arc::clone(desk));
    Ok(Some(Arc::new(intake)))
}

/// Reads the topics beside the log, each on a thread of its own: events of every run, and those of OpenTelemetry.
#[cfg(feature = "kafka")]
fn start_side_topics(
    config: &Config,
    publisher: &Arc<dyn Publisher>,
    otlp: Option<(&Arc<OtlpIntake>, &Arc<Desk>)>,
    stop: &Arc<AtomicBool>,
) -> Result<Vec<std::thread::JoinHandle<()>>> {
    use self::side_topic::{SideTopic, Taker};
    let Some(kafka) = &config.kafka else { return Ok(Vec::new()) };
    let events: Box<dyn Taker> = Box::new(events_topic::EventsTaker::new(Arc::clone(publisher)));
    let mut takers = vec![(&kafka.topics.events, events)];
    if let Some((intake, desk)) = otlp {
        takers.extend(config.otlp.kafka_topics.iter().map(|topic| {
            let taker = otlp_topic::OtlpTaker::new(topic, Arc::clone(intake), Arc::clone(desk));
            (topic, Box::new(taker) as Box<dyn Taker>)
        }));
    }
    let start = |(topic, taker): (&String, Box<dyn Taker>)| {
        let reader = SideTopic::open(kafka, topic, taker, Arc::clone(stop))?;
        let thread = std::thread::Builder::new().name("side-topic".to_owned()).spawn(move || reader.run());
        thread.context("cannot start a thread for a topic beside the log")
    };
    takers.into_iter().map(start).collect()
}

/// Waits until the service is told to stop, or its worker has ended.
async fn end_of_service(worker_ended: tokio::sync::oneshot::Receiver<()>) {
    tokio::select! {
        () = stop_signal() => {}
        _ = worker_ended => {}
    }
}

/// Waits for Ctrl-C, or for the signal that service managers send.
async fn stop_signal() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return std::future::pending().await };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

/// Writes what the service does to standard error, as JSON where that is no terminal; `RUST_LOG` chooses what.
pub fn start_logging() {
    use std::io::IsTerminal as _;
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second call in one process keeps the first.
    let _ = if std::io::stderr().is_terminal() { builder.try_init() } else { builder.json().try_init() };
}
