//! Incidents over HTTP: the same answers as over gRPC, described in `openapi.json`.

use std::convert::Infallible;

use axum::extract::rejection::{JsonRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::sse::{Event as SseEvent, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;
use tokio_stream::{Stream, StreamExt};
use tonic::{Code, Status};
use trainwarden_proto::v1::{AcknowledgeRequest, AnnotateRequest, EventReceipt};
use trainwarden_telemetry::{Change, Incident};

use super::incidents_service::{IncidentsService, word};
use crate::act::Note;
use crate::cli::parse_time;
use crate::incident_list::IncidentFilter;
use crate::planned_pause::PlannedPause;

/// What the API is, for programs.
const OPENAPI: &str = include_str!("openapi.json");

/// The routes below `/api/v1`.
pub(super) fn router(incidents: IncidentsService) -> Router {
    Router::new()
        .route("/api/v1/incidents", get(list))
        .route("/api/v1/incidents/watch", get(watch))
        .route("/api/v1/incidents/{id}", get(show))
        .route("/api/v1/incidents/{id}/acknowledge", post(acknowledge))
        .route("/api/v1/pauses", get(pauses))
        .route("/api/v1/runs/{run}/annotations", post(annotate))
        .route("/api/v1/openapi.json", get(async || ([(CONTENT_TYPE, "application/json")], OPENAPI)))
        .with_state(incidents)
}

/// Why something was not done; the body is `{"error": …}`.
struct Refused {
    code: StatusCode,
    why: String,
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.code, Json(json!({ "error": self.why }))).into_response()
    }
}

impl From<Status> for Refused {
    fn from(status: Status) -> Self {
        let code = match status.code() {
            Code::InvalidArgument => StatusCode::BAD_REQUEST,
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::FailedPrecondition => StatusCode::CONFLICT,
            Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self { code, why: status.message().to_owned() }
    }
}

impl From<QueryRejection> for Refused {
    fn from(rejection: QueryRejection) -> Self {
        Self { code: StatusCode::BAD_REQUEST, why: rejection.body_text() }
    }
}

impl From<JsonRejection> for Refused {
    fn from(rejection: JsonRejection) -> Self {
        Self { code: StatusCode::BAD_REQUEST, why: rejection.body_text() }
    }
}

/// Which incidents are meant.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Wanted {
    run: Option<String>,
    since: Option<String>,
    until: Option<String>,
    state: Option<String>,
}

impl Wanted {
    fn filter(&self) -> Result<IncidentFilter, Refused> {
        let bad = |name: &str, why: String| Refused { code: StatusCode::BAD_REQUEST, why: format!("`{name}`: {why}") };
        let time = |name: &str, text: &Option<String>| {
            text.as_deref().map(|text| parse_time(text).map_err(|why| bad(name, why))).transpose()
        };
        if let Some(state) = self.state.as_deref().filter(|state| !STATES.contains(state)) {
            return Err(bad("state", format!("`{state}` is none of {}", STATES.join(", "))));
        }
        Ok(IncidentFilter {
            run: self.run.clone(),
            since: time("since", &self.since)?,
            until: time("until", &self.until)?,
        })
    }
}

const STATES: [&str; 3] = ["open", "acknowledged", "resolved"];

async fn list(
    State(incidents): State<IncidentsService>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Json<Vec<Incident>>, Refused> {
    let Query(wanted) = wanted?;
    let mut found = incidents.incidents(&wanted.filter()?)?;
    if let Some(state) = &wanted.state {
        found.retain(|incident| word(&incident.state) == *state);
    }
    Ok(Json(found))
}

async fn show(State(incidents): State<IncidentsService>, Path(id): Path<String>) -> Result<Json<Incident>, Refused> {
    Ok(Json(incidents.incident(&id)?))
}

/// Which pauses are meant.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PausesWanted {
    run: String,
}

async fn pauses(
    State(incidents): State<IncidentsService>,
    wanted: Result<Query<PausesWanted>, QueryRejection>,
) -> Result<Json<Vec<PlannedPause>>, Refused> {
    let Query(PausesWanted { run }) = wanted?;
    Ok(Json(incidents.planned_pauses(&run)))
}

/// Every change from now on, as server-sent events named after what happened.
async fn watch(
    State(incidents): State<IncidentsService>,
    wanted: Result<Query<Wanted>, QueryRejection>,
) -> Result<Sse<impl Stream<Item = Result<SseEvent, Infallible>>>, Refused> {
    let Query(wanted) = wanted?;
    let changes = incidents.changes(wanted.run.unwrap_or_default());
    Ok(Sse::new(changes.map(|change| Ok(sse(change)))).keep_alive(KeepAlive::default()))
}

fn sse(change: Result<Change, Status>) -> SseEvent {
    match change {
        Ok(Change { change, incident }) => {
            let data = serde_json::to_string(&incident).expect("an incident serialises: it is plain data");
            SseEvent::default().event(word(&change)).id(incident.id.0).data(data)
        }
        Err(status) => SseEvent::default().event("error").data(status.message()),
    }
}

/// Who answers, and how.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Answer {
    actor: String,
    reason: String,
}

async fn acknowledge(
    State(incidents): State<IncidentsService>,
    Path(id): Path<String>,
    answer: Result<Json<Answer>, JsonRejection>,
) -> Result<Response, Refused> {
    let Json(Answer { actor, reason }) = answer?;
    let receipt = IncidentsService::acknowledge(&incidents, AcknowledgeRequest { id, actor, reason }).await?;
    Ok(accepted(receipt))
}

/// What is planned or was changed; times in nanoseconds since the epoch.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Annotation {
    text: String,
    #[serde(default)]
    actor: String,
    pause_from: Option<i64>,
    pause_until: Option<i64>,
}

async fn annotate(
    State(incidents): State<IncidentsService>,
    Path(run): Path<String>,
    annotation: Result<Json<Annotation>, JsonRejection>,
) -> Result<Response, Refused> {
    let Json(Annotation { text, actor, pause_from, pause_until }) = annotation?;
    let note = Note { text: &text, pause_from, pause_until };
    note.check().map_err(|error| Refused { code: StatusCode::BAD_REQUEST, why: error.to_string() })?;
    let detail = note.detail();
    let request = AnnotateRequest { run, actor, subject: text, detail };
    Ok(accepted(IncidentsService::annotate(&incidents, request).await?))
}

/// It is in the log; what it changes is judged in a moment.
fn accepted(EventReceipt { partition, offset }: EventReceipt) -> Response {
    (StatusCode::ACCEPTED, Json(json!({ "partition": partition, "offset": offset }))).into_response()
}
