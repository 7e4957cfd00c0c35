//! Questions over the port: `POST /api/v1/sql`, answered by a locked-in process of its own.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Semaphore;
use trainwarden_query::{Answer, Cancel, Form, Limits, Problem, QueryError, Request, Runner, Sources};
use trainwarden_store::{Archive, StateStore};

use crate::config::Config;
use crate::sql::{Journal, media, remote, runner};

/// Questions that are answered at once: they share the machine with the judging of what comes.
const QUESTIONS_MAX: usize = 2;
/// Bytes of a request.
const REQUEST_BYTES_MAX: usize = 64 << 10;

/// Who answers.
struct Desk {
    runner: Runner,
    archive: Option<PathBuf>,
    store: Arc<StateStore>,
    journal: Journal,
    places: Arc<Semaphore>,
}

/// A question.
#[derive(Debug, Deserialize)]
struct Question {
    sql: String,
    #[serde(default = "all_rows")]
    rows_max: usize,
}

fn all_rows() -> usize {
    usize::MAX
}

/// The routes that answer questions.
pub(super) fn routes(config: &Config, store: Arc<StateStore>) -> Result<Router> {
    let archive = match config.archive.url {
        Some(_) => None,
        // It makes the folder, and says where it is.
        None => Some(PathBuf::from(Archive::open(config.archive.clone(), &config.data)?.place())),
    };
    let journal = Journal::of(&config.data);
    let desk = Desk { runner: runner()?, archive, store, journal, places: Arc::new(Semaphore::new(QUESTIONS_MAX)) };
    Ok(Router::new()
        .route(remote::PATH, post(ask))
        .layer(DefaultBodyLimit::max(REQUEST_BYTES_MAX))
        .with_state(Arc::new(desk)))
}

async fn ask(State(desk): State<Arc<Desk>>, headers: HeaderMap, body: String) -> Response {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media = header(CONTENT_TYPE).split(';').next().unwrap_or_default().trim();
    // What a page of another site can send without being asked about it is text, and is not taken.
    let question = match media {
        "application/json" => serde_json::from_str(&body).map_err(|error| error.to_string()),
        "application/sql" => Ok(Question { sql: body, rows_max: usize::MAX }),
        _ => return refused(StatusCode::UNSUPPORTED_MEDIA_TYPE, "send application/json or application/sql"),
    };
    let question = match question {
        Ok(question) => question,
        Err(error) => return refused(StatusCode::BAD_REQUEST, &format!("no {{\"sql\": \"...\"}}: {error}")),
    };
    let Some(form) = media::accepted(header(ACCEPT)) else {
        return refused(StatusCode::NOT_ACCEPTABLE, &format!("answers are {}", media::all()));
    };
    if desk.archive.is_none() {
        return refused(StatusCode::NOT_IMPLEMENTED, "the archive is a bucket, and questions read a folder only");
    }
    let Ok(place) = Arc::clone(&desk.places).try_acquire_owned() else {
        let busy = refused(StatusCode::SERVICE_UNAVAILABLE, "other questions are being answered: ask again");
        return ([(RETRY_AFTER, "1")], busy).into_response();
    };
    let answered = tokio::task::spawn_blocking(move || {
        let answer = answer(&desk, question, form);
        drop(place);
        answer
    });
    match answered.await {
        Ok(Ok((answer, bytes))) => {
            let rows = answer.rows.to_string();
            ([(CONTENT_TYPE.as_str(), media::media_type(form)), (remote::ROWS_HEADER, rows.as_str())], bytes)
                .into_response()
        }
        Ok(Err(error)) => unanswered(&error),
        Err(error) => refused(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn answer(desk: &Desk, question: Question, form: Form) -> Result<(Answer, Vec<u8>), QueryError> {
    let failed = |error: trainwarden_store::StoreError| QueryError::Process {
        act: "tell the incidents to",
        reason: error.to_string(),
    };
    let incidents = desk.store.incidents().map_err(failed)?;
    let sources = Sources { archive: desk.archive.clone(), folders: Vec::new(), incidents };
    let Question { sql, rows_max } = question;
    let request = Request { sql, sources, form, rows_max, limits: Limits::default(), ..Request::default() };
    let (begun, mut bytes) = (Instant::now(), Vec::new());
    let answer = desk.runner.ask(&request, &mut bytes, &Cancel::default());
    desk.journal.note("http", &request.sql, &answer, begun.elapsed());
    Ok((answer?, bytes))
}

fn unanswered(error: &QueryError) -> Response {
    let status = match error {
        QueryError::Statement(_) | QueryError::TooLarge { .. } => StatusCode::BAD_REQUEST,
        QueryError::Ended(_) => StatusCode::UNPROCESSABLE_ENTITY,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    let problem = match error {
        QueryError::Statement(problem) => problem.clone(),
        other => Problem { message: other.to_string(), ..Problem::default() },
    };
    (status, axum::Json(json!({"error": problem}))).into_response()
}

fn refused(status: StatusCode, message: &str) -> Response {
    (status, axum::Json(json!({"error": Problem { message: message.to_owned(), ..Problem::default() }})))
        .into_response()
}
