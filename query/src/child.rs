//! The process that answers: it reads one request, locks itself in, answers, and ends.
//!
//! Standard input has the request as JSON, standard output takes the answer, and standard error ends in one line of
//! JSON that says how it went.

use std::io::{self, BufWriter, Read, Write};
use std::path::PathBuf;

use futures_util::StreamExt;
use serde::{Deserialize, Serialize};

use crate::engine::{Engine, Sources};
use crate::error::{Problem, QueryError};
use crate::explain::problem_of;
use crate::gate;
use crate::limits::Limits;
use crate::output::{Capped, Form, Writer};
use crate::parameters::{self, Parameters};
use crate::sandbox::{self, Locks};

/// Stack of the thread that plans.
const STACK_BYTES: usize = 32 << 20;

/// One request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// One statement or several, separated by semicolons.
    pub sql: String,
    /// Where the rows are.
    pub sources: Sources,
    /// Form of the answer.
    pub form: Form,
    /// Rows that a table shows.
    pub rows_max: usize,
    /// What it may use.
    pub limits: Limits,
    /// Values of the placeholders: one row, as a stream of Arrow IPC.
    pub parameters: Option<Parameters>,
    /// Only the columns of the answer are asked for, and those of the parameters: two streams of Arrow IPC without rows.
    pub is_shape_only: bool,
}

/// How a request went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It was answered.
    Done {
        /// Rows of all answers.
        rows: u64,
        /// What held the process in.
        locks: Locks,
    },
    /// It was not.
    Failed {
        /// Why, and where in the text.
        problem: Problem,
        /// Whether what was asked is at fault, and not the surroundings.
        is_input: bool,
        /// What held the process in.
        locks: Locks,
    },
}

/// Answers the request on standard input; the whole life of the process.
///
/// It must be called before any other thread is started: the locks hold for the thread that calls and its children.
///
/// # Errors
/// When standard input holds no request, or the outcome cannot be written.
pub fn answer_stdin() -> Result<(), QueryError> {
    let mut text = String::new();
    io::stdin().lock().read_to_string(&mut text)?;
    let request: Request = serde_json::from_str(&text)
        .map_err(|error| QueryError::Process { act: "understand the request of", reason: error.to_string() })?;
    drop(text);
    let outcome = answer(request);
    let line = serde_json::to_string(&outcome)?;
    io::stderr().lock().write_all(format!("{line}\n").as_bytes())?;
    Ok(())
}

fn answer(request: Request) -> Outcome {
    let mut readable: Vec<PathBuf> = request.sources.archive.iter().cloned().collect();
    readable.extend(request.sources.folders.iter().cloned());
    let locks = match sandbox::enter(&readable, &request.limits) {
        Ok(locks) => locks,
        Err(error) => return failed(&error, &request.sql, None, Locks::default()),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(request.limits.threads)
        .max_blocking_threads(request.limits.threads + 2)
        .enable_time()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into(), &request.sql, None, locks),
    };
    let asked = request.sql.clone();
    // A thread of its own: its stack has room for what the gate lets through, and a fault of the engine ends it alone.
    let answering = std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || {
        let out = Capped::new(BufWriter::new(io::stdout()), request.limits.output_bytes);
        let outcome = runtime.block_on(answer_all(request, out, locks));
        // What still reads is not waited for.
        runtime.shutdown_background();
        outcome
    });
    let answered = answering.map(std::thread::JoinHandle::join);
    match answered {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => {
            let broke = QueryError::Ended("the engine broke on this statement; write it another way".to_owned());
            failed(&broke, &asked, None, locks)
        }
        Err(error) => failed(&error.into(), &asked, None, locks),
    }
}

async fn answer_all(request: Request, mut out: impl Write, locks: Locks) -> Outcome {
    let statements = match gate::statements(&request.sql) {
        Ok(statements) if statements.len() > request.limits.statements => {
            let (found, most) = (statements.len(), request.limits.statements);
            return failed(&QueryError::TooLarge { found, what: "statements", most }, &request.sql, None, locks);
        }
        Ok(statements) if statements.is_empty() => {
            let none = QueryError::Statement(Problem::new("there is no statement; write one, as in `select 1`"));
            return failed(&none, &request.sql, None, locks);
        }
        Ok(statements) => statements,
        Err(error) => return failed(&error, &request.sql, None, locks),
    };
    let engine = match Engine::open(&request.sources, &request.limits).await {
        Ok(engine) => engine,
        Err(error) => return failed(&error, &request.sql, None, locks),
    };
    let mut rows = 0;
    for statement in statements {
        match answer_one(&engine, statement, &request, &mut out).await {
            Ok(more) => rows += more,
            Err(error) => return failed(&error, &request.sql, Some(&engine), locks),
        }
    }
    match out.flush() {
        Ok(()) => Outcome::Done { rows, locks },
        Err(error) => failed(&error.into(), &request.sql, None, locks),
    }
}

async fn answer_one(
    engine: &Engine,
    statement: datafusion::sql::parser::Statement,
    request: &Request,
    out: &mut dyn Write,
) -> Result<u64, QueryError> {
    let mut plan = engine.plan(statement).await?;
    if request.is_shape_only {
        let parameters = parameters::schema_of(&plan)?;
        for schema in [engine.shape(plan).await?, parameters] {
            Writer::new(out, Form::Arrow, schema, 0)?.finish()?;
        }
        return Ok(0);
    }
    if let Some(parameters) = &request.parameters {
        plan = parameters.fill(plan)?;
    }
    let mut stream = engine.answer(plan).await?;
    let mut writer = Writer::new(out, request.form, stream.schema(), request.rows_max)?;
    while let Some(batch) = stream.next().await {
        writer.write(&batch?)?;
    }
    writer.finish()
}

fn failed(error: &QueryError, sql: &str, engine: Option<&Engine>, locks: Locks) -> Outcome {
    let is_input = error.fault() == trainwarden_telemetry::Fault::Input || is_too_large(error);
    let problem = if is_too_large(error) {
        Problem::new("the answer is larger than what is given out: ask for fewer rows or columns (LIMIT, GROUP BY)")
    } else {
        problem_of(error, sql, engine)
    };
    Outcome::Failed { problem, is_input, locks }
}

fn is_too_large(error: &QueryError) -> bool {
    matches!(error, QueryError::Write(error) if error.kind() == io::ErrorKind::FileTooLarge)
}
