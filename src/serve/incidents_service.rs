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
    ListRequest, WatchRequest,
};
use trainwarden_store::{StateStore, StoreError, ToldChange};
use trainwarden_telemetry::{Attempt, Change, Event, Incident, RunId, Timestamp};

use super::desk::Desk;
use crate::incident_list::{IncidentFilter, sorted};

/// Answers for incidents.
#[derive(Clone)]
pub(super) struct IncidentsService {
    store: Arc<StateStore>,
    desk: Arc<Desk>,
    publisher: Arc<dyn Publisher>,
}

impl std::fmt::Debug for IncidentsService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("IncidentsService")
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl IncidentsService {
    /// A service over this state.
    pub(super) fn new(store: Arc<StateStore>, desk: Arc<Desk>, publisher: Arc<dyn Publisher>) -> Self {
        Self { store, desk, publisher }
    }

    fn incidents(&self) -> Result<Vec<Incident>, Status> {
        let lines = tokio::task::block_in_place(|| self.store.incidents()).map_err(|error| unavailable(&error))?;
        sorted(&lines).map_err(|error| Status::internal(format!("{error:#}")))
    }

    fn get(&self, id: &str) -> Result<Incident, Status> {
        let found = self.incidents()?.into_iter().find(|incident| incident.id.0 == id);
        found.ok_or_else(|| Status::not_found(format!("there is no incident `{id}`")))
    }

    /// What a person does enters the log as an event of the run.
    async fn record(&self, event: Event) -> Result<Response<EventReceipt>, Status> {
        let run = event.run.clone().expect("every caller names the run");
        let mut batch = BatchWriter::default();
        let log_time = event.time.0;
        batch.push(&Record { log_time, row: Row::Event(Arc::new(event)) }, &trainwarden_ingest::Names::default());
        // A sender of its own for each act: acts do not wait for one another.
        let sender = format!("person-{}", log_time);
        let mut writer = FrameWriter::new(&sender, &run.0, None);
        let frames: Vec<_> = batch.finish().iter().map(|(table, rows)| writer.rows(*table, rows, log_time)).collect();
        let (done, waiting) = tokio::sync::oneshot::channel();
        let published = Box::new(move |place| {
            // Whoever asked may be gone; the event is in the log all the same.
            let _ = done.send(place);
        });
        let frame = frames.first().expect("one event makes one frame");
        tokio::task::block_in_place(|| self.publisher.publish(&run.0, frame, published));
        let place = waiting.await.map_err(|_| Status::unavailable("the log was closed"))?;
        let (partition, offset) = place.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(Response::new(EventReceipt { partition, offset }))
    }
}

#[tonic::async_trait]
impl Incidents for IncidentsService {
    type ListStream = Answers<WireIncident>;
    type WatchStream = Answers<IncidentChange>;

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<Self::ListStream>, Status> {
        let ListRequest { run, since, until } = request.into_inner();
        let filter = IncidentFilter { run: (!run.is_empty()).then_some(run), since, until };
        let incidents: Vec<_> = self.incidents()?.into_iter().filter(|incident| filter.fits(incident)).collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(incidents.iter().map(wire).map(Ok).collect::<Vec<_>>()))))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<WireIncident>, Status> {
        Ok(Response::new(wire(&Self::get(self, &request.into_inner().id)?)))
    }

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let run = request.into_inner().run;
        let changes = BroadcastStream::new(self.desk.watch()).filter_map(move |told| match told {
            Ok(told) if run.is_empty() || told.run == run => Some(wire_change(&told)),
            Ok(_) => None,
            Err(_) => Some(Err(Status::data_loss("this watcher fell behind: list the incidents and watch again"))),
        });
        Ok(Response::new(Box::pin(changes)))
    }

    async fn acknowledge(&self, request: Request<AcknowledgeRequest>) -> Result<Response<EventReceipt>, Status> {
        let AcknowledgeRequest { id, actor, reason } = request.into_inner();
        let incident = Self::get(self, &id)?;
        let detail = (!reason.is_empty()).then(|| serde_json::json!({ "reason": reason }).to_string());
        let event = event("ack", &actor, (&incident.run, incident.attempt), Some(id));
        self.record(Event { detail, time: Timestamp(self.desk.now()), ..event }).await
    }

    async fn annotate(&self, request: Request<AnnotateRequest>) -> Result<Response<EventReceipt>, Status> {
        let AnnotateRequest { run, actor, subject, detail } = request.into_inner();
        if run.is_empty() {
            return Err(Status::invalid_argument("`run` is empty: name the run that is meant"));
        }
        let event = event("annotate", &actor, (&RunId::new(&run), Attempt(0)), Some(subject));
        let detail = (!detail.is_empty()).then_some(detail);
        self.record(Event { detail, time: Timestamp(self.desk.now()), ..event }).await
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

fn wire_change(told: &ToldChange) -> Result<IncidentChange, Status> {
    let json = told.json.as_deref().unwrap_or_default();
    let change: Change = serde_json::from_str(json).map_err(|error| Status::internal(error.to_string()))?;
    Ok(IncidentChange { change: word(&change.change), incident: Some(wire(&change.incident)) })
}

/// The word that JSON has for a plain variant.
fn word(variant: &impl serde::Serialize) -> String {
    serde_json::to_value(variant).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

fn unavailable(error: &StoreError) -> Status {
    Status::unavailable(error.to_string())
}
