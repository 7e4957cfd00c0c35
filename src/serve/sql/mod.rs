//! Questions over the port, by HTTP and by Flight SQL: each is answered by a locked-in process of its own.

mod batches;
mod catalog;
mod flight;
mod handle;
mod http;

use std::fmt;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use trainwarden_query::{Answer, Cancel, Limits, QueryError, Request, Runner, Sources};
use trainwarden_store::{Archive, StateStore};

pub(super) use self::flight::{FlightServer, flight_service};
pub(super) use self::http::routes;
use crate::config::Config;
use crate::sql::{Journal, runner};

/// Questions that are answered at once: they share the machine with the judging of what comes.
const QUESTIONS_MAX: usize = 2;

/// What questions are asked of.
pub(super) struct Questions {
    runner: Runner,
    /// `None` where it is a bucket.
    archive: Option<PathBuf>,
    store: Arc<StateStore>,
    journal: Journal,
    places: Arc<Semaphore>,
}

/// Why a question is not even asked.
#[derive(Clone, Copy, Debug)]
enum Refused {
    Bucket,
    Busy,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bucket => "the archive is a bucket, and questions read a folder only",
            Self::Busy => "other questions are being answered: ask again",
        })
    }
}

impl Questions {
    /// Opens what is asked.
    ///
    /// # Errors
    /// When the archive's folder cannot be made, or this program does not know where it lies.
    pub(super) fn open(config: &Config, store: Arc<StateStore>) -> Result<Arc<Self>> {
        let archive = match config.archive.url {
            Some(_) => None,
            // It makes the folder, and says where it is.
            None => Some(PathBuf::from(Archive::open(config.archive.clone(), &config.data)?.place())),
        };
        let (journal, places) = (Journal::of(&config.data), Arc::new(Semaphore::new(QUESTIONS_MAX)));
        Ok(Arc::new(Self { runner: runner()?, archive, store, journal, places }))
    }

    /// Leave to ask one question.
    fn place(self: &Arc<Self>) -> Result<Place, Refused> {
        let archive = self.archive.clone().ok_or(Refused::Bucket)?;
        let permit = Arc::clone(&self.places).try_acquire_owned().map_err(|_| Refused::Busy)?;
        Ok(Place { questions: Arc::clone(self), archive, permit })
    }
}

/// Leave to ask one question.
struct Place {
    questions: Arc<Questions>,
    archive: PathBuf,
    permit: OwnedSemaphorePermit,
}

impl Place {
    /// Asks, and writes down what was asked; it blocks.
    ///
    /// * `from`: by which way it came. `request`: sources and limits are ours.
    fn ask(self, from: &str, request: Request, out: &mut dyn Write, cancel: &Cancel) -> Result<Answer, QueryError> {
        let Self { questions, archive, permit } = self;
        let failed = |error: trainwarden_store::StoreError| QueryError::Process {
            act: "tell the incidents to",
            reason: error.to_string(),
        };
        let incidents = questions.store.incidents().map_err(failed)?;
        let sources = Sources { archive: Some(archive), folders: Vec::new(), incidents };
        let request = Request { sources, limits: Limits::default(), ..request };
        let begun = Instant::now();
        let answer = questions.runner.ask(&request, out, cancel);
        drop(permit);
        questions.journal.note(from, &request.sql, &answer, begun.elapsed());
        answer
    }
}

/// Somebody waits for an answer; when nobody does any more, the question ends.
struct Waiting {
    cancel: Cancel,
    then: Box<dyn Fn() + Send + Sync>,
}

impl Waiting {
    /// * `then`: what else is done then.
    fn new(cancel: Cancel, then: impl Fn() + Send + Sync + 'static) -> Self {
        Self { cancel, then: Box::new(then) }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.cancel.cancel();
        (self.then)();
    }
}
