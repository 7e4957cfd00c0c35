//! What was found, over gRPC.

use std::pin::Pin;
use std::sync::Arc;

use tokio_stream::wrappers::BroadcastStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};
use trainwarden_ingest::wire::{BatchWriter, FrameWriter};
use trainwarden_ingest::{Publisher, Record, Row};
use trainwarden_proto::v1::incidents_server::Incidents;
use trainwarden_proto::v1::{
    AcknowledgeRequest, AnnotateRequest, EventReceipt, GetRequest, Incident as WireIncident, IncidentChange,
    ListRequest, PauseList, PausesRequest, WatchRequest,
};
use trainwarden_store::{StateStore, StoreError};
use trainwarden_telemetry::{Attempt, Change, Event, Incident, RunId, Timestamp};

use super::desk::Desk;
use crate::act::ACT_SENDER;
use crate::incident_list::{IncidentFilter, sorted};
use crate::planned_pause::PlannedPause;

/// Answers for incidents.
#[derive(Clone)]
pub(super) struct IncidentsService {
    store: Arc<StateStore>,
    desk: Arc<Desk>,
    publisher: Arc<dyn Publisher>,
    signing: Signing,
}

/// Whether what people do can be signed.
#[derive(Clone, Copy)]
pub(super) enum Signing {
    /// Nobody asks for a signature.
    NotAsked,
    /// Signed with this secret key.
    Key([u8; 32]),
    /// Asked for, and there is no key.
    NoKey,
}

impl std::fmt::Debug for IncidentsService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IncidentsService")
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl IncidentsService {
    /// A service over this state.
    pub(super) fn new(
        store: Arc<StateStore>,
        desk: Arc<Desk>,
        publisher: Arc<dyn Publisher>,
        signing: Signing,
    ) -> Self {
        Self { store, desk, publisher, signing }
    }

    /// What was found, in the order in which it is told.
    pub(super) fn incidents(&self, filter: &IncidentFilter) -> Result<Vec<Incident>, Status> {
        let lines = tokio::task::block_in_place(|| self.store.incidents()).map_err(|error| unavailable(&error))?;
        let incidents = sorted(&lines).map_err(|error| Status::internal(format!("{error:#}")))?;
        Ok(incidents.into_iter().filter(|incident| filter.fits(incident)).collect())
    }

    /// One incident.
    pub(super) fn incident(&self, id: &str) -> Result<Incident, Status> {
        let known = tokio::task::block_in_place(|| self.store.incident(id)).map_err(|error| unavailable(&error))?;
        let json = known.ok_or_else(|| Status::not_found(format!("there is no incident `{id}`")))?;
        serde_json::from_str(&json)
            .map_err(|error| Status::internal(format!("`{id}` is damaged in the state: {error}")))
    }

    /// The pauses that people planned for a run; for all runs where it is empty.
    pub(super) fn planned_pauses(&self, run: &str) -> Vec<PlannedPause> {
        let mut pauses = self.desk.planned_pauses();
        pauses.retain(|pause| run.is_empty() || pause.run == run);
        pauses
    }

    /// Every change of a run from now on; of all runs where it is empty.
    pub(super) fn changes(&self, run: String) -> impl Stream<Item = Result<Change, Status>> + Send + use<> {
        BroadcastStream::new(self.desk.watch()).filter_map(move |told| match told {
            Ok(told) if run.is_empty() || told.run == run => {
                Some(serde_json::from_str(&told.json).map_err(|error| Status::internal(error.to_string())))
            }
            Ok(_) => None,
            Err(_) => Some(Err(Status::data_loss("this watcher fell behind: list the incidents and watch again"))),
        })
    }

    /// A person looks after an incident.
    pub(super) async fn acknowledge(&self, request: AcknowledgeRequest) -> Result<EventReceipt, Status> {
        let AcknowledgeRequest { id, actor, reason } = request;
        let incident = self.incident(&id)?;
        let detail = (!reason.is_empty()).then(|| serde_json::json!({ "reason": reason }).to_string());
        let event = event("ack", &actor, (&incident.run, incident.attempt), Some(id));
        self.record(Event { detail, time: Timestamp(self.desk.now()), ..event }).await
    }

    /// A person tells what is planned or was changed.
    pub(super) async fn annotate(&self, request: AnnotateRequest) -> Result<EventReceipt, Status> {
        let AnnotateRequest { run, actor, subject, detail } = request;
        if run.is_empty() {
            return Err(Status::invalid_argument("`run` is empty: name the run that is meant"));
        }
        if !detail.is_empty() && serde_json::from_str::<serde::de::IgnoredAny>(&detail).is_err() {
            return Err(Status::invalid_argument(
                "`detail` is no JSON, such as {\"pause_until\": 1766000000000000000}",
            ));
        }
        let event = event("annotate", &actor, (&RunId::new(&run), Attempt(0)), Some(subject));
        let detail = (!detail.is_empty()).then_some(detail);
        self.record(Event { detail, time: Timestamp(self.desk.now()), ..event }).await
    }

    /// What a person does enters the log as an event of the run.
    async fn record(&self, event: Event) -> Result<EventReceipt, Status> {
        let run = event.run.clone().expect("every caller names the run");
        let mut batch = BatchWriter::default();
        let log_time = event.time.0;
        batch.push(&Record { log_time, row: Row::Event(Arc::new(event)) }, &trainwarden_ingest::Names::default());
        let mut writer = FrameWriter::new(ACT_SENDER, &run.0, None);
        match self.signing {
            Signing::NotAsked => {}
            Signing::Key(key) => writer.sign_with(0, &key),
            Signing::NoKey => {
                return Err(Status::failed_precondition(
                    "frames must be signed here (`ingest.keys`), and the service has no key for what people do: set \
                     `access.key`",
                ));
            }
        }
        let frames: Vec<_> = batch.finish().iter().map(|(_, rows)| writer.act(rows, log_time)).collect();
        let (done, waiting) = tokio::sync::oneshot::channel();
        let published = Box::new(move |place| {
            // Whoever asked may be gone; the event is in the log all the same.
            let _ = done.send(place);
        });
        let frame = frames.first().expect("one event makes one frame");
        tokio::task::block_in_place(|| self.publisher.publish(&run.0, frame, published));
        let place = waiting.await.map_err(|_| Status::unavailable("the log was closed"))?;
        let (partition, offset) = place.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(EventReceipt { partition, offset })
    }
}

#[tonic::async_trait]
impl Incidents for IncidentsService {
    type ListStream = Answers<WireIncident>;
    type WatchStream = Answers<IncidentChange>;

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<Self::ListStream>, Status> {
        let ListRequest { run, since, until } = request.into_inner();
        let filter = IncidentFilter { run: (!run.is_empty()).then_some(run), since, until };
        let incidents = self.incidents(&filter)?;
        Ok(Response::new(Box::pin(tokio_stream::iter(incidents.iter().map(wire).map(Ok).collect::<Vec<_>>()))))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<WireIncident>, Status> {
        Ok(Response::new(wire(&self.incident(&request.into_inner().id)?)))
    }

    async fn pauses(&self, request: Request<PausesRequest>) -> Result<Response<PauseList>, Status> {
        let pauses = self.planned_pauses(&request.into_inner().run).into_iter().map(Into::into).collect();
        Ok(Response::new(PauseList { pauses }))
    }

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let changes = self.changes(request.into_inner().run);
        Ok(Response::new(Box::pin(changes.map(|change| change.map(|change| wire_change(&change))))))
    }

    async fn acknowledge(&self, request: Request<AcknowledgeRequest>) -> Result<Response<EventReceipt>, Status> {
        Self::acknowledge(self, request.into_inner()).await.map(Response::new)
    }

    async fn annotate(&self, request: Request<AnnotateRequest>) -> Result<Response<EventReceipt>, Status> {
        Self::annotate(self, request.into_inner()).await.map(Response::new)
    }
}

fn event(kind: &str, actor: &str, (run, attempt): (&RunId, Attempt), subject: Option<String>) -> Event {
    Event {
        time: Timestamp(0),
        source: "trainwarden".to_owned(),
        kind: kind.to_owned(),
        actor: (!actor.is_empty()).then(|| actor.to_owned()),
        run: Some(run.clone()),
        attempt,
        node: None,
        rank: None,
        subject,
        detail: None,
    }
}

fn wire(incident: &Incident) -> WireIncident {
    WireIncident {
        id: incident.id.0.clone(),
        run: incident.run.0.to_string(),
        attempt: incident.attempt.0,
        kind: incident.kind.to_string(),
        severity: incident.severity.to_string(),
        state: word(&incident.state),
        started_at: incident.started_at.map_or(0, |time| time.0),
        json: serde_json::to_string(incident).expect("an incident serialises: it is plain data"),
    }
}

fn wire_change(change: &Change) -> IncidentChange {
    IncidentChange { change: word(&change.change), incident: Some(wire(&change.incident)) }
}

/// The word that JSON has for a plain variant.
pub(super) fn word(variant: &impl serde::Serialize) -> String {
    serde_json::to_value(variant).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

fn unavailable(error: &StoreError) -> Status {
    Status::unavailable(error.to_string())
}
