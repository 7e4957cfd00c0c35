//! Who asks: starts the process that answers, and ends it when its time is over.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use crate::child::{Outcome, Request};
use crate::error::QueryError;
use crate::sandbox::Locks;

/// Chunks that wait for a slow reader.
const CHUNKS_WAITING_MAX: usize = 8;
/// Bytes of standard error that are kept.
const STDERR_BYTES_MAX: u64 = 64 << 10;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Rows of all statements.
    pub rows: u64,
    /// What held the process in.
    pub locks: Locks,
}

/// Ends a question from another thread, be it asked already or not.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<Mutex<Asked>>);

/// What is known of a question that may be cancelled.
#[derive(Debug, Default)]
struct Asked {
    is_cancelled: bool,
    /// The process that answers, while it does.
    child: Option<Child>,
}

impl Cancel {
    /// Ends the process that answers; a question that is asked later ends at once.
    pub fn cancel(&self) {
        self.state().is_cancelled = true;
        self.kill();
    }

    fn state(&self) -> MutexGuard<'_, Asked> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kill(&self) {
        if let Some(child) = &mut self.state().child {
            // It may have ended by itself.
            let _ = child.kill();
        }
    }

    fn hold(&self, child: Child) {
        let mut state = self.state();
        state.child = Some(child);
        let is_late = state.is_cancelled;
        drop(state);
        if is_late {
            self.kill();
        }
    }

    /// Takes the process back, and says whether it was cancelled.
    fn release(&self) -> (Option<Child>, bool) {
        let mut state = self.state();
        (state.child.take(), state.is_cancelled)
    }
}

/// Which program answers: this one, and the word that makes it do so.
#[derive(Clone, Debug)]
pub struct Runner {
    program: PathBuf,
    word: &'static str,
}

impl Runner {
    /// * `program`: this program. `word`: the hidden command that calls [`crate::answer_stdin`].
    #[must_use]
    pub fn new(program: PathBuf, word: &'static str) -> Self {
        Self { program, word }
    }

    /// Asks, and hands the answer on as it comes.
    ///
    /// What was written before an error is no answer. `cancel` serves one question.
    ///
    /// # Errors
    /// [`QueryError::Statement`] where the question is at fault, [`QueryError::Ended`] where a limit is,
    /// [`QueryError::Cancelled`], [`QueryError::Process`] where the process cannot be started, [`QueryError::Write`]
    /// where `out` fails.
    pub fn ask(&self, request: &Request, out: &mut dyn Write, cancel: &Cancel) -> Result<Answer, QueryError> {
        let failed = |error: std::io::Error| QueryError::Process { act: "start", reason: error.to_string() };
        let deadline = Instant::now() + request.limits.time;
        let mut child = self.start().map_err(failed)?;
        let text = serde_json::to_vec(request)?;
        let mut stdin = child.stdin.take().expect("it is a pipe");
        // A process that has died does not read: its end says more than this error.
        let asking = thread::spawn(move || drop(stdin.write_all(&text)));
        let told = read_end(child.stderr.take().expect("it is a pipe"));
        let stdout = child.stdout.take().expect("it is a pipe");
        cancel.hold(child);
        let copied = copy(stdout, out, deadline);
        if copied.is_err() {
            cancel.kill();
        }
        let (child, is_cancelled) = cancel.release();
        let status = child.expect("only this call releases it").wait().map_err(failed)?;
        // Neither thread outlives the pipes of the process.
        let _ = asking.join();
        let told = told.join().unwrap_or_default();
        match copied {
            _ if is_cancelled => Err(QueryError::Cancelled),
            Err(Stopped::Late) => Err(late(request)),
            Err(Stopped::Output(error)) if error.kind() == ErrorKind::TimedOut => Err(late(request)),
            Err(Stopped::Output(error)) => Err(error.into()),
            Ok(()) => read_outcome(&told, status, request),
        }
    }

    fn start(&self) -> std::io::Result<Child> {
        let mut command = Command::new(&self.program);
        // Nothing of ours is told to it, credentials least of all.
        command.arg(self.word).env_clear().current_dir("/");
        // Ctrl-C at a terminal is for who asks, and who asks ends it.
        command.process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
    }
}

enum Stopped {
    Late,
    Output(std::io::Error),
}

/// Hands on what comes until the pipe ends or the deadline passes.
fn copy(mut from: impl Read + Send + 'static, out: &mut dyn Write, deadline: Instant) -> Result<(), Stopped> {
    let (chunks, coming) = sync_channel(CHUNKS_WAITING_MAX);
    thread::spawn(move || {
        loop {
            let mut chunk = vec![0; 64 << 10];
            match from.read(&mut chunk) {
                Ok(0) | Err(_) => return,
                Ok(length) => chunk.truncate(length),
            }
            if chunks.send(chunk).is_err() {
                return;
            }
        }
    });
    loop {
        match coming.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(chunk) => out.write_all(&chunk).map_err(Stopped::Output)?,
            Err(RecvTimeoutError::Disconnected) => return out.flush().map_err(Stopped::Output),
            Err(RecvTimeoutError::Timeout) => return Err(Stopped::Late),
        }
    }
}

fn read_end(from: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before a failure is what there is.
        let _ = from.take(STDERR_BYTES_MAX).read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn late(request: &Request) -> QueryError {
    let seconds = request.limits.time.as_secs_f64();
    QueryError::Ended(format!(
        "no answer within {seconds} s: ask for less (a run, a date, a metric), or allow more time"
    ))
}

fn read_outcome(told: &str, status: ExitStatus, request: &Request) -> Result<Answer, QueryError> {
    let outcome = told.lines().rev().find_map(|line| serde_json::from_str::<Outcome>(line).ok());
    match outcome {
        Some(Outcome::Done { rows, locks }) => Ok(Answer { rows, locks }),
        Some(Outcome::Failed { problem, is_input: true, .. }) => Err(QueryError::Statement(problem)),
        Some(Outcome::Failed { problem, .. }) => {
            Err(QueryError::Process { act: "work in", reason: problem.to_string() })
        }
        None => Err(QueryError::Ended(how_it_ended(told, status, request))),
    }
}

fn how_it_ended(told: &str, status: ExitStatus, request: &Request) -> String {
    let mebibytes = request.limits.memory_bytes >> 20;
    let memory = format!("the statement needs more than {mebibytes} MiB of memory: ask for less, or allow more");
    if told.contains("memory allocation of") || told.contains("out of memory") || told.contains("ENOMEM") {
        return memory;
    }
    let first = told.lines().find(|line| !line.trim().is_empty()).unwrap_or_default().to_owned();
    match status.signal() {
        Some(libc::SIGXCPU | libc::SIGKILL) => late(request).to_string(),
        Some(libc::SIGSEGV | libc::SIGABRT | libc::SIGBUS) if told.contains("overflow") => {
            "the statement is nested too deeply".to_owned()
        }
        Some(signal) => format!("the query process was ended by signal {signal}; {first}"),
        None => format!("the query process ended without an answer; {first}"),
    }
}
