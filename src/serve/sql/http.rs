//! `POST /api/v1/sql`.

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde::Deserialize;
use serde_json::json;
use trainwarden_query::{Cancel, Problem, QueryError, Request};

use super::{Questions, Refused, Waiting};
use crate::sql::{media, remote};

/// Bytes of a request.
const REQUEST_BYTES_MAX: usize = 64 << 10;

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

/// The route that answers questions.
pub(in crate::serve) fn routes(questions: &Arc<Questions>) -> Router {
    Router::new()
        .route(remote::PATH, post(ask))
        .layer(DefaultBodyLimit::max(REQUEST_BYTES_MAX))
        .with_state(Arc::clone(questions))
}

async fn ask(State(questions): State<Arc<Questions>>, headers: HeaderMap, body: String) -> Response {
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
    let place = match questions.place() {
        Ok(place) => place,
        Err(Refused::Bucket) => return refused(StatusCode::NOT_IMPLEMENTED, &Refused::Bucket.to_string()),
        Err(Refused::Busy) => {
            let busy = refused(StatusCode::SERVICE_UNAVAILABLE, &Refused::Busy.to_string());
            return ([(RETRY_AFTER, "1")], busy).into_response();
        }
    };
    let Question { sql, rows_max } = question;
    let request = Request { sql, form, rows_max, ..Request::default() };
    let waiting = Waiting::new(Cancel::default(), || {});
    let cancel = waiting.cancel.clone();
    let answered = tokio::task::spawn_blocking(move || {
        let mut bytes = Vec::new();
        place.ask("http", request, &mut bytes, &cancel).map(|answer| (answer, bytes))
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
