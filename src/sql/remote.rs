//! Questions to a running service, over its one port.

use std::io::Write;

use anyhow::{Context, Result};
use axum::body::Body;
use axum::http::Request;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use serde_json::json;
use tonic::body::Body as TonicBody;
use tonic::client::GrpcService;
use trainwarden_query::{Form, Problem, QueryError};

use super::media::media_type;
use crate::client;

/// Where the port answers questions.
pub const PATH: &str = "/api/v1/sql";
/// The header that tells the rows of an answer.
pub const ROWS_HEADER: &str = "x-trainwarden-rows";
/// Largest answer taken.
const ANSWER_BYTES_MAX: usize = 1 << 30;

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// One statement.
    pub sql: &'a str,
    /// Form of the answer.
    pub form: Form,
    /// Rows that a table shows.
    pub rows_max: usize,
}

/// Asks a service, and writes its answer.
///
/// * `is_interruptible`: whether Ctrl-C ends the question, and not the program.
/// * Returns the rows of the answer.
///
/// # Errors
/// When nobody answers there, the question has no answer, or it is interrupted.
pub fn ask(url: &str, question: &Question<'_>, is_interruptible: bool, out: &mut dyn Write) -> Result<u64> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start a client")?;
    let (is_good, rows, bytes) = runtime.block_on(async {
        tokio::select! {
            answer = post(url, question) => answer,
            // The service sees the connection end, and answers no more.
            _ = tokio::signal::ctrl_c(), if is_interruptible => Err(QueryError::Cancelled.into()),
        }
    })?;
    if is_good {
        out.write_all(&bytes).context("cannot write the answer")?;
        return Ok(rows);
    }
    let told: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let problem = serde_json::from_value(told["error"].clone()).unwrap_or_else(|_| Problem {
        message: format!("the service says: {}", String::from_utf8_lossy(&bytes).trim()),
        line: None,
        column: None,
        hint: None,
    });
    Err(QueryError::Statement(problem).into())
}

async fn post(url: &str, question: &Question<'_>) -> Result<(bool, u64, Vec<u8>)> {
    let Question { sql, form, rows_max } = *question;
    let mut channel = client::connect(url).await?;
    let body = json!({"sql": sql, "rows_max": rows_max}).to_string();
    let request = Request::post(PATH)
        .header(CONTENT_TYPE, "application/json")
        .header(ACCEPT, media_type(form))
        .body(TonicBody::new(Body::from(body)))
        .context("the question is no request")?;
    std::future::poll_fn(|context| GrpcService::<TonicBody>::poll_ready(&mut channel, context))
        .await
        .context("the service is gone")?;
    let answer = GrpcService::<TonicBody>::call(&mut channel, request).await.context("the service does not answer")?;
    let rows = answer.headers().get(ROWS_HEADER).and_then(|rows| rows.to_str().ok()?.parse().ok()).unwrap_or(0);
    let is_good = answer.status().is_success();
    let bytes = axum::body::to_bytes(Body::new(answer.into_body()), ANSWER_BYTES_MAX).await;
    Ok((is_good, rows, bytes.context("the answer breaks off")?.to_vec()))
}
