//! An answer as a stream of Arrow batches, handed on while the process still answers.

use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll};

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::StreamDecoder;
use arrow_flight::error::FlightError;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};
use tokio_stream::Stream;
use tonic::Status;
use trainwarden_query::{Answer, Limits, QueryError, Request};

use super::{Place, Waiting};

/// Batches that wait for a slow client; after them the process waits, until its time is over.
const BATCHES_WAITING_MAX: usize = 2;

/// What the process told.
enum Piece {
    Schema(SchemaRef),
    Batch(RecordBatch),
}

/// The batches of one answer; the process ends with whoever drops it.
pub(super) struct Batches {
    pieces: mpsc::Receiver<Piece>,
    /// Taken when it is known how it ended.
    answer: Option<JoinHandle<Result<Answer, QueryError>>>,
    _waiting: Waiting,
}

impl Batches {
    /// Asks.
    ///
    /// * `from`: by which way it came.
    /// * Returns the columns, and the batches to come.
    ///
    /// # Errors
    /// Where the question has no answer. What goes wrong later ends the stream.
    pub(super) async fn ask(
        place: Place,
        from: &'static str,
        request: Request,
        waiting: Waiting,
    ) -> Result<(SchemaRef, Self), Status> {
        let (sender, pieces) = mpsc::channel(BATCHES_WAITING_MAX);
        let (cancel, runtime) = (waiting.cancel.clone(), Handle::current());
        let answer = tokio::task::spawn_blocking(move || {
            let deadline = Instant::now() + Limits::default().time;
            let mut pipe = Pipe { decoder: StreamDecoder::new(), is_schema_told: false, sender, deadline, runtime };
            place.ask(from, request, &mut pipe, &cancel)
        });
        let mut batches = Self { pieces, answer: Some(answer), _waiting: waiting };
        match batches.pieces.recv().await {
            Some(Piece::Schema(schema)) => Ok((schema, batches)),
            Some(Piece::Batch(_)) => Err(Status::internal("the answer begins without its columns")),
            None => {
                let answer = batches.answer.take().expect("nothing has taken it").await;
                Err(ended(answer).err().unwrap_or_else(|| Status::internal("the answer is empty")))
            }
        }
    }
}

/// How an answer ended.
fn ended(answer: Result<Result<Answer, QueryError>, tokio::task::JoinError>) -> Result<(), Status> {
    match answer {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(status_of(&error)),
        Err(error) => Err(Status::internal(error.to_string())),
    }
}

/// An error in the words of gRPC.
pub(super) fn status_of(error: &QueryError) -> Status {
    let text = error.to_string();
    match error {
        QueryError::Statement(_) | QueryError::TooLarge { .. } => Status::invalid_argument(text),
        QueryError::Ended(_) => Status::resource_exhausted(text),
        QueryError::Cancelled => Status::cancelled(text),
        _ => Status::internal(text),
    }
}

impl Stream for Batches {
    type Item = Result<RecordBatch, FlightError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match self.pieces.poll_recv(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Piece::Batch(batch))) => return Poll::Ready(Some(Ok(batch))),
                // A service answers one statement at a time.
                Poll::Ready(Some(Piece::Schema(_))) => {}
                Poll::Ready(None) => break,
            }
        }
        let Some(answer) = &mut self.answer else { return Poll::Ready(None) };
        let Poll::Ready(answer) = Pin::new(answer).poll(context) else { return Poll::Pending };
        self.answer = None;
        // An answer that broke off must not look like a short one.
        Poll::Ready(ended(answer).err().map(|status| Err(status.into())))
    }
}

/// Takes the bytes of the process apart.
struct Pipe {
    decoder: StreamDecoder,
    is_schema_told: bool,
    sender: mpsc::Sender<Piece>,
    deadline: Instant,
    runtime: Handle,
}

impl Pipe {
    /// Waits for a slow client, as long as the question may take.
    fn tell(&self, piece: Piece) -> io::Result<()> {
        match self.runtime.block_on(timeout_at(self.deadline, self.sender.send(piece))) {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(io::ErrorKind::BrokenPipe.into()),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    fn tell_schema(&mut self) -> io::Result<()> {
        match self.decoder.schema() {
            Some(schema) if !self.is_schema_told => {
                self.is_schema_told = true;
                self.tell(Piece::Schema(schema))
            }
            _ => Ok(()),
        }
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut buffer = Buffer::from(bytes);
        while let Some(batch) = self.decoder.decode(&mut buffer).map_err(io::Error::other)? {
            self.tell_schema()?;
            self.tell(Piece::Batch(batch))?;
        }
        self.tell_schema()?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
