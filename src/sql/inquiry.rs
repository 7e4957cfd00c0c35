//! One who asks: where the rows are, what a question may use, and where it is written down.

use std::io::{self, BufWriter, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, Result};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use trainwarden_query::{Cancel, Form, Limits, QueryError, Request, Runner, Sources};

use super::journal::Journal;
use super::remote::{self, Question};
use crate::output::{counted, tell};

/// The hidden command of the process that answers.
pub const ANSWER_COMMAND: &str = "sql-answer";

/// Who is asked.
#[derive(Debug)]
pub enum Asked {
    /// A process of this program.
    Here {
        /// Where the rows are.
        sources: Sources,
        /// What a question may use.
        limits: Limits,
        /// Where questions are written down.
        journal: Option<Journal>,
    },
    /// A running service.
    Service(String),
}

/// Asks questions of the same sources.
#[derive(Debug)]
pub struct Inquiry {
    asked: Asked,
    form: Form,
    rows_max: usize,
    is_quiet: bool,
    /// Whether Ctrl-C ends a question only, and not the program.
    is_interruptible: bool,
    /// What is missing of the locks is told once.
    is_warned: AtomicBool,
}

/// What starts the process that answers: this program.
///
/// # Errors
/// When this program does not know where it lies.
pub fn runner() -> Result<Runner> {
    let program = std::env::current_exe().context("cannot find this program to start the query process")?;
    Ok(Runner::new(program, ANSWER_COMMAND))
}

impl Inquiry {
    /// * `rows_max`: rows that a table shows. `is_quiet`: only answers are printed.
    #[must_use]
    pub fn new(asked: Asked, form: Form, rows_max: usize, is_quiet: bool) -> Self {
        Self { asked, form, rows_max, is_quiet, is_interruptible: false, is_warned: AtomicBool::new(false) }
    }

    /// From now on Ctrl-C ends a question only.
    pub(super) fn make_interruptible(&mut self) {
        self.is_interruptible = true;
    }

    /// Asks, prints the answer, and says how much there was.
    ///
    /// # Errors
    /// When there is no answer, or it cannot be printed.
    pub fn ask_and_tell(&self, sql: &str) -> Result<()> {
        let begun = Instant::now();
        let mut out = BufWriter::new(io::stdout().lock());
        let answer = match &self.asked {
            Asked::Service(url) => {
                let question = Question { sql, form: self.form, rows_max: self.rows_max };
                remote::ask(url, &question, self.is_interruptible, &mut out)
            }
            Asked::Here { sources, limits, journal } => {
                self.ask_here((sources, limits), journal.as_ref(), sql, &mut out)
            }
        };
        let rows = match answer.and_then(|rows| Ok(out.flush().map(|()| rows)?)) {
            // A reader that goes away early is no error.
            Err(error) if is_broken_pipe(&error) => return Ok(()),
            answer => answer?,
        };
        if !self.is_quiet {
            tell(&format!("{} in {:.3} s", counted(rows, "row"), begun.elapsed().as_secs_f64()));
        }
        Ok(())
    }

    fn ask_here(
        &self,
        (sources, limits): (&Sources, &Limits),
        journal: Option<&Journal>,
        sql: &str,
        out: &mut dyn Write,
    ) -> Result<u64> {
        let request = Request {
            sql: sql.to_owned(),
            sources: sources.clone(),
            form: self.form,
            rows_max: self.rows_max,
            limits: limits.clone(),
            ..Request::default()
        };
        let cancel = Cancel::default();
        let _listening = self.is_interruptible.then(|| listen(cancel.clone())).transpose()?;
        let begun = Instant::now();
        let answer = runner()?.ask(&request, out, &cancel);
        if let Some(journal) = journal {
            journal.note("command line", sql, &answer, begun.elapsed());
        }
        let answer = answer?;
        if let Some(missing) = answer.locks.missing()
            && !self.is_warned.swap(true, Ordering::Relaxed)
        {
            tell(&format!("warning: {missing}"));
        }
        Ok(answer.rows)
    }
}

/// Cancels at the next Ctrl-C, as long as what it returns lives.
fn listen(cancel: Cancel) -> Result<Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.context("cannot start a thread that waits for Ctrl-C")?;
    let entered = runtime.enter();
    let mut interrupts = signal(SignalKind::interrupt()).context("cannot wait for Ctrl-C")?;
    drop(entered);
    runtime.spawn(async move {
        if interrupts.recv().await.is_some() {
            cancel.cancel();
        }
    });
    Ok(runtime)
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let inner = match error.downcast_ref::<QueryError>() {
        Some(QueryError::Write(inner)) => Some(inner),
        _ => error.downcast_ref::<io::Error>(),
    };
    inner.is_some_and(|inner| inner.kind() == io::ErrorKind::BrokenPipe)
}
