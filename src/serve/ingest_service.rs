//! Telemetry in over gRPC: frames into the log, receipts out when they are durable.

use std::pin::Pin;
use std::sync::Arc;

use prost::Message;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};
use trainwarden_ingest::wire::OpenedFrame;
use trainwarden_ingest::{Publisher, SourceError};
use trainwarden_proto::v1::ingest_server::Ingest;
use trainwarden_proto::v1::{Frame, Receipt};

use crate::partition_judge::Admission;

/// Frames of one stream that may wait for the log.
const FRAMES_ON_THE_WAY_MAX: usize = 64;

/// Takes frames.
pub(super) struct IngestService {
    publisher: Arc<dyn Publisher>,
    admission: Arc<Admission>,
}

impl std::fmt::Debug for IngestService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IngestService")
    }
}

type Answer = (u64, oneshot::Receiver<Result<(u32, u64), SourceError>>);

impl IngestService {
    /// A service that appends to this log.
    pub(super) fn new(publisher: Arc<dyn Publisher>, admission: Arc<Admission>) -> Self {
        Self { publisher, admission }
    }
}

#[tonic::async_trait]
impl Ingest for IngestService {
    type SendStream = Pin<Box<dyn Stream<Item = Result<Receipt, Status>> + Send>>;

    async fn send(&self, request: Request<Streaming<Frame>>) -> Result<Response<Self::SendStream>, Status> {
        let mut frames = request.into_inner();
        let (answers, waiting) = mpsc::channel::<Result<Answer, Receipt>>(FRAMES_ON_THE_WAY_MAX);
        let (publisher, admission) = (Arc::clone(&self.publisher), Arc::clone(&self.admission));
        // A thread for the stream: the log may make it wait, and that is what slows the sender down.
        let runtime = tokio::runtime::Handle::current();
        tokio::task::spawn_blocking(move || {
            // A broken stream ends; the sender sends again what has no receipt.
            while let Some(Ok(frame)) = runtime.block_on(frames.next()) {
                if answers.blocking_send(publish(&*publisher, &admission, &frame)).is_err() {
                    return;
                }
            }
        });
        let receipts = ReceiverStream::new(waiting).then(|answer| async move { Ok(receipt(answer).await) });
        Ok(Response::new(Box::pin(receipts)))
    }
}

fn publish(publisher: &dyn Publisher, admission: &Admission, frame: &Frame) -> Result<Answer, Receipt> {
    let bytes = frame.encode_to_vec();
    let refused = |sequence, refused: String| Receipt { sequence, refused, is_retryable: false };
    let opened = OpenedFrame::open(&bytes, &admission.keys).map_err(|error| refused(0, error.to_string()))?;
    let envelope = &opened.envelope;
    if envelope.run.is_empty() {
        return Err(refused(envelope.sequence, "the envelope names no run".to_owned()));
    }
    if envelope.backfill.is_some() && !admission.takes_backfill {
        let why = "recorded telemetry is not taken here: set `ingest.backfill` on the server";
        return Err(refused(envelope.sequence, why.to_owned()));
    }
    let (done, waiting) = oneshot::channel();
    let published = Box::new(move |place| {
        // The stream may be gone; the frame is in the log all the same.
        let _ = done.send(place);
    });
    publisher.publish(&envelope.run, &bytes, published);
    Ok((envelope.sequence, waiting))
}

async fn receipt(answer: Result<Answer, Receipt>) -> Receipt {
    let (sequence, waiting) = match answer {
        Ok(answer) => answer,
        Err(refused) => return refused,
    };
    match waiting.await {
        Ok(Ok(_)) => Receipt { sequence, ..Receipt::default() },
        Ok(Err(error)) => Receipt { sequence, refused: error.to_string(), is_retryable: error.is_retryable() },
        Err(_) => Receipt { sequence, refused: "the log was closed".to_owned(), is_retryable: true },
    }
}
