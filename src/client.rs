//! The other side of the port: frames to a running service, and its answers.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use trainwarden_ingest::{Published, Publisher, SourceError};
use trainwarden_proto::v1::Frame;
use trainwarden_proto::v1::incidents_client::IncidentsClient;
use trainwarden_proto::v1::ingest_client::IngestClient;

/// Frames sent and not yet answered.
const FRAMES_ON_THE_WAY_MAX: usize = 64;
/// How often a service that is not there is asked again, with a pause before each.
const ATTEMPTS_MAX: u32 = 20;
/// Pause before the service is asked again.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// Largest message taken.
const MESSAGE_BYTES_MAX: usize = 256 << 20;

/// Names the file with the token for a service that asks for one.
pub const TOKEN_FILE: &str = "TRAINWARDEN_TOKEN_FILE";
/// Names the PEM file of whoever vouches for the certificate of a service, beside those that the system trusts.
pub const CA_FILE: &str = "TRAINWARDEN_CA_FILE";

/// A connection that shows the token.
pub type Connection = InterceptedService<Channel, Bearer>;

/// Shows the token with each request, where there is one.
#[derive(Clone)]
pub struct Bearer(Option<MetadataValue<Ascii>>);

impl std::fmt::Debug for Bearer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bearer")
    }
}

impl Bearer {
    fn from_environment() -> Result<Self> {
        let Ok(path) = std::env::var(TOKEN_FILE) else { return Ok(Self(None)) };
        let text = std::fs::read_to_string(&path).map_err(|error| anyhow::anyhow!("{error}"));
        let text = text.with_context(|| format!("cannot read the token in `{path}` (`{TOKEN_FILE}`)"))?;
        let mut value: MetadataValue<Ascii> = format!("Bearer {}", text.trim()).parse().map_err(|_| {
            anyhow::anyhow!("`{path}` (`{TOKEN_FILE}`) holds no token: letters and digits are expected")
        })?;
        value.set_sensitive(true);
        Ok(Self(Some(value)))
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, tonic::Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

/// Connects to a service.
///
/// # Errors
/// When the address is none, nobody answers there, or token or certificate cannot be read.
pub async fn connect(url: &str) -> Result<Connection> {
    let url = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
    let endpoint = Endpoint::from_shared(url.clone()).with_context(|| format!("`{url}` is no URL"))?;
    let bearer = Bearer::from_environment()?;
    let channel = encrypted(endpoint, &url)?.connect_timeout(Duration::from_secs(5)).connect().await;
    let channel = channel.map_err(|error| {
        let reason = format!("{:#}", anyhow::Error::from(error));
        anyhow::Error::from(SourceError::Unreachable { log: url, reason })
    })?;
    Ok(InterceptedService::new(channel, bearer))
}

#[cfg(feature = "tls")]
fn encrypted(endpoint: Endpoint, url: &str) -> Result<Endpoint> {
    use tonic::transport::{Certificate, ClientTlsConfig};
    if !url.starts_with("https://") {
        return Ok(endpoint);
    }
    let mut tls = ClientTlsConfig::new().with_native_roots();
    if let Ok(path) = std::env::var(CA_FILE) {
        let pem = std::fs::read(&path).map_err(|error| anyhow::anyhow!("{error}"));
        tls = tls.ca_certificate(Certificate::from_pem(pem.with_context(|| format!("`{CA_FILE}`: `{path}`"))?));
    }
    endpoint.tls_config(tls).context("the connection cannot be encrypted")
}

#[cfg(not(feature = "tls"))]
fn encrypted(endpoint: Endpoint, url: &str) -> Result<Endpoint> {
    if url.starts_with("https://") {
        bail!("`{url}`: this program was built without TLS; build it with its default features");
    }
    Ok(endpoint)
}

/// A client of the incidents of a service.
///
/// # Errors
/// See [`connect`].
pub async fn incidents(url: &str) -> Result<IncidentsClient<Connection>> {
    Ok(IncidentsClient::new(connect(url).await?).max_decoding_message_size(MESSAGE_BYTES_MAX))
}

/// What a service answered in the place of what was asked.
#[must_use]
pub fn refused(status: &tonic::Status) -> anyhow::Error {
    match status.code() {
        tonic::Code::Unavailable => {
            SourceError::Unreachable { log: "the service".to_owned(), reason: status.message().to_owned() }.into()
        }
        _ => anyhow::anyhow!("the service refused: {}", status.message()),
    }
}

struct Waiting {
    frame: Vec<u8>,
    published: Published,
}

/// Publishes over gRPC; what has no receipt when a connection breaks is sent again.
pub struct GrpcPublisher {
    frames: Option<SyncSender<Waiting>>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for GrpcPublisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GrpcPublisher")
    }
}

impl GrpcPublisher {
    /// Connects to a service.
    ///
    /// # Errors
    /// When it is not there.
    pub fn connect(url: &str) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.context("cannot start a thread")?;
        let channel = runtime.block_on(connect(url))?;
        let (frames, coming) = sync_channel(FRAMES_ON_THE_WAY_MAX);
        let url = url.to_owned();
        let thread = std::thread::Builder::new()
            .name("send".to_owned())
            .spawn(move || runtime.block_on(send_all(&url, channel, &coming)));
        Ok(Self { frames: Some(frames), thread: Some(thread.context("cannot start a thread")?) })
    }

    fn send(&self, value: &[u8], published: Published) {
        let frames = self.frames.as_ref().expect("it is taken only in drop");
        if let Err(refused) = frames.send(Waiting { frame: value.to_vec(), published }) {
            (refused.0.published)(Err(gone("the sending thread has ended")));
        }
    }
}

impl Publisher for GrpcPublisher {
    fn publish(&self, _key: &str, value: &[u8], published: Published) {
        self.send(value, published);
    }

    fn publish_to(&self, _partition: u32, value: &[u8], published: Published) {
        self.send(value, published);
    }

    fn partitions(&self) -> u32 {
        1
    }
}

impl Drop for GrpcPublisher {
    /// Waits until everything is answered.
    fn drop(&mut self) {
        self.frames = None;
        if let Some(thread) = self.thread.take() {
            // A panic there was told on stderr already.
            let _ = thread.join();
        }
    }
}

fn gone(reason: &str) -> SourceError {
    SourceError::Unreachable { log: "service".to_owned(), reason: reason.to_owned() }
}

/// Frames that have no receipt yet, oldest first.
type Unanswered = VecDeque<Waiting>;

async fn send_all(url: &str, first: Connection, coming: &Receiver<Waiting>) {
    let mut unanswered = Unanswered::new();
    let (mut channel, mut failures) = (Some(first), 0);
    loop {
        let reason = match channel.take() {
            Some(channel) => match send_stream(channel, coming, &mut unanswered, &mut failures).await {
                Ok(()) => return,
                Err(error) => format!("{error:#}"),
            },
            None => "the service does not answer".to_owned(),
        };
        failures += 1;
        if failures > ATTEMPTS_MAX {
            return fail_all(coming, unanswered, &reason);
        }
        tokio::time::sleep(RETRY_AFTER).await;
        channel = connect(url).await.ok();
    }
}

fn fail_all(coming: &Receiver<Waiting>, unanswered: Unanswered, reason: &str) {
    for Waiting { published, .. } in unanswered.into_iter().chain(coming.try_iter()) {
        published(Err(gone(reason)));
    }
}

/// Sends until nobody publishes any more and everything is answered.
async fn send_stream(
    channel: Connection,
    coming: &Receiver<Waiting>,
    unanswered: &mut Unanswered,
    failures: &mut u32,
) -> Result<()> {
    let (frames, stream) = mpsc::channel::<Frame>(FRAMES_ON_THE_WAY_MAX);
    let mut client = IngestClient::new(channel).max_encoding_message_size(MESSAGE_BYTES_MAX);
    let again: Vec<Vec<u8>> = unanswered.iter().map(|waiting| waiting.frame.clone()).collect();
    let answers = tokio::spawn(async move { client.send(ReceiverStream::new(stream)).await });
    for frame in again {
        frames.send(decoded(&frame)?).await.ok().context("the service closed the stream")?;
    }
    let mut receipts = answers.await.context("the sending task failed")??.into_inner();
    let mut frames = Some(frames);
    loop {
        while unanswered.len() < FRAMES_ON_THE_WAY_MAX && frames.is_some() {
            let next = match unanswered.is_empty() {
                // Nothing is on the way, so there is nothing to wait for but the next frame.
                true => tokio::task::block_in_place(|| coming.recv_timeout(Duration::from_secs(1))),
                false => coming.try_recv().map_err(|error| match error {
                    std::sync::mpsc::TryRecvError::Empty => RecvTimeoutError::Timeout,
                    std::sync::mpsc::TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
                }),
            };
            match next {
                Ok(waiting) => {
                    let frame = decoded(&waiting.frame)?;
                    unanswered.push_back(waiting);
                    let sender = frames.as_ref().expect("checked above");
                    sender.send(frame).await.ok().context("the service closed the stream")?;
                }
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => frames = None,
            }
        }
        if unanswered.is_empty() {
            if frames.is_none() {
                return Ok(());
            }
            continue;
        }
        let receipt = receipts.next().await.context("the service closed the stream")??;
        if receipt.is_retryable {
            bail!("{}", receipt.refused);
        }
        *failures = 0;
        let Some(waiting) = unanswered.pop_front() else { continue };
        (waiting.published)(match receipt.refused.is_empty() {
            true => Ok((0, receipt.sequence)),
            false => {
                Err(SourceError::Refused { log: "service".to_owned(), act: "take a frame", reason: receipt.refused })
            }
        });
    }
}

fn decoded(frame: &[u8]) -> Result<Frame> {
    Frame::decode(frame).context("what a frame writer wrote is no frame")
}
