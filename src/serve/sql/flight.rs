//! Arrow Flight SQL: what ADBC, JDBC and ODBC drivers speak.
//!
//! An answer is asked for in two steps: a statement gives a ticket, and the ticket the rows. Here the ticket is the
//! statement itself, and so is the handle of a prepared one: between two calls nothing is kept.

use std::io::Cursor;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result};
use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::IpcWriteOptions;
use arrow_flight::encode::{DictionaryHandling, FlightDataEncoderBuilder};
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_server::{FlightService, FlightServiceServer};
use arrow_flight::sql::{
    ActionCancelQueryRequest, ActionCancelQueryResult, ActionClosePreparedStatementRequest,
    ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult, Any, Command,
    DoPutPreparedStatementResult, ProstMessageExt, TicketStatementQuery,
};
use arrow_flight::{
    Action, ActionType, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, Criteria, Empty, FlightData,
    FlightDescriptor, FlightEndpoint, FlightInfo, HandshakeRequest, HandshakeResponse, IpcMessage, PollInfo, PutResult,
    SchemaAsIpc, SchemaResult, Ticket,
};
use prost::Message;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};
use trainwarden_query::Cancel;

use super::batches::{Batches, status_of};
use super::catalog::Catalog;
use super::handle::{HANDLE_BYTES_MAX, Handle};
use super::{Place, Questions, Refused, Waiting};

/// The ways by which questions come, as the journal names them.
const ASKED: &str = "flight sql";
const PREPARED: &str = "flight sql, prepared";

/// The actions that are taken, and what they do.
const ACTIONS: &[(&str, &str)] = &[
    ("CreatePreparedStatement", "plans a statement, and tells the columns of its answer and of its parameters"),
    ("ClosePreparedStatement", "does nothing: of a prepared statement nothing is kept"),
    ("CancelFlightInfo", "ends a question that is being answered"),
    ("CancelQuery", "the same, as it was called before"),
];

type Told<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send + 'static>>;

/// The service.
pub(in crate::serve) type FlightServer = FlightServiceServer<Flight>;

/// Answers questions.
pub(in crate::serve) struct Flight {
    questions: Arc<Questions>,
    catalog: Catalog,
    /// Questions that are being answered, by their tickets: never more than there are places.
    running: Arc<Mutex<Vec<(u64, Cancel)>>>,
}

impl std::fmt::Debug for Flight {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Flight")
    }
}

/// The service, to be added to the port.
///
/// # Errors
/// Where the tables cannot be described.
pub(in crate::serve) async fn flight_service(questions: &Arc<Questions>) -> Result<FlightServer> {
    let catalog = Catalog::open().await.context("cannot describe the tables")?;
    let flight = Flight { questions: Arc::clone(questions), catalog, running: Arc::default() };
    Ok(FlightServiceServer::new(flight).max_decoding_message_size(2 * HANDLE_BYTES_MAX))
}

impl Flight {
    fn place(&self) -> Result<Place, Status> {
        self.questions.place().map_err(|refused| match refused {
            Refused::Bucket => Status::unimplemented(refused.to_string()),
            Refused::Busy => Status::unavailable(refused.to_string()),
        })
    }

    fn running(&self) -> MutexGuard<'_, Vec<(u64, Cancel)>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rows of a statement.
    async fn rows(&self, handle: Handle) -> Result<Told<FlightData>, Status> {
        let place = self.place()?;
        let (cancel, ticket) = (Cancel::default(), handle.ticket);
        {
            let mut running = self.running();
            if running.iter().any(|(of, _)| *of == ticket) {
                return Err(Status::already_exists("this ticket is being answered: ask for another one"));
            }
            running.push((ticket, cancel.clone()));
        }
        let running = Arc::clone(&self.running);
        let waiting = Waiting::new(cancel, move || {
            running.lock().unwrap_or_else(PoisonError::into_inner).retain(|(of, _)| *of != ticket);
        });
        let (schema, batches) = Batches::ask(place, ASKED, handle.request(), waiting).await?;
        let encoder = FlightDataEncoderBuilder::new()
            .with_schema(schema)
            // The types of the answer stay what they were told to be.
            .with_dictionary_handling(DictionaryHandling::Resend);
        Ok(Box::pin(encoder.build(batches).map(|data| data.map_err(Status::from))))
    }

    /// Plans a statement: what is wrong with it is told, without an answer.
    ///
    /// * Returns the columns of the answer, and of the parameters.
    async fn plan(&self, sql: String) -> Result<(Schema, Schema), Status> {
        let place = self.place()?;
        let request = trainwarden_query::Request { is_shape_only: true, ..Handle::of(sql).request() };
        let waiting = Waiting::new(Cancel::default(), || {});
        let cancel = waiting.cancel.clone();
        let planned = tokio::task::spawn_blocking(move || {
            let mut bytes = Vec::new();
            place.ask(PREPARED, request, &mut bytes, &cancel).map(|_| bytes)
        });
        let bytes = planned.await.map_err(|error| Status::internal(error.to_string()))?;
        let mut streams = Cursor::new(bytes.map_err(|error| status_of(&error))?);
        let mut next = || -> Result<Schema, ArrowError> {
            let mut stream = StreamReader::try_new(&mut streams, None)?;
            // It has no rows, but an end.
            let _ = stream.next();
            Ok(stream.schema().as_ref().clone())
        };
        let columns = next().and_then(|answer| Ok((answer, next()?)));
        columns.map_err(|error| Status::internal(format!("the columns cannot be read: {error}")))
    }

    async fn prepare(&self, sql: String) -> Result<ActionCreatePreparedStatementResult, Status> {
        let (answer, parameters) = self.plan(sql.clone()).await?;
        // With parameters the types of the answer may follow from theirs.
        let columns = if parameters.fields().is_empty() { ipc(&answer)?.to_vec() } else { Vec::new() };
        Ok(ActionCreatePreparedStatementResult {
            prepared_statement_handle: Handle { columns, ..Handle::of(sql) }.encode_to_vec().into(),
            dataset_schema: ipc(&answer)?,
            parameter_schema: ipc(&parameters)?,
        })
    }

    /// Ends a question by the answer that was promised for it.
    fn cancel(&self, info: Option<FlightInfo>) -> Result<CancelStatus, Status> {
        let ticket = info.and_then(|info| info.endpoint.into_iter().next()?.ticket);
        let ticket = ticket.ok_or_else(|| Status::invalid_argument("this has no ticket"))?;
        let Command::TicketStatementQuery(ticket) = command(&ticket.ticket)? else {
            return Ok(CancelStatus::NotCancellable);
        };
        let ticket = Handle::read(&ticket.statement_handle)?.ticket;
        let found = self.running().iter().find(|(of, _)| *of == ticket).map(|(_, cancel)| cancel.clone());
        found.ok_or_else(|| Status::not_found("this question is not being answered"))?.cancel();
        Ok(CancelStatus::Cancelled)
    }

    /// Says no to what would write, in the words of the gate where there is a statement; it is written down like others.
    async fn refuse_write(&self, sql: String) -> Status {
        match self.plan(sql).await {
            Ok(_) => Status::invalid_argument("this only reads, and is no update: ask it as a query"),
            Err(refused) => refused,
        }
    }
}

/// The command in a descriptor or ticket.
fn command(bytes: &[u8]) -> Result<Command, Status> {
    let wrong = |error: &dyn std::fmt::Display| Status::invalid_argument(format!("this is no command: {error}"));
    let any = Any::decode(bytes).map_err(|error| wrong(&error))?;
    Command::try_from(any).map_err(|error| wrong(&error))
}

/// The body of an action.
fn body<M: ProstMessageExt>(action: &Action) -> Result<M, Status> {
    let wrong = || Status::invalid_argument(format!("the body of `{}` is not what it should be", action.r#type));
    Any::decode(&*action.body).ok().and_then(|any| any.unpack().ok()?).ok_or_else(wrong)
}

fn ipc(schema: &Schema) -> Result<prost::bytes::Bytes, Status> {
    let message = IpcMessage::try_from(SchemaAsIpc::new(schema, &IpcWriteOptions::default()));
    message.map(|IpcMessage(bytes)| bytes).map_err(|error| Status::internal(error.to_string()))
}

fn not_taken(what: &str) -> Status {
    Status::unimplemented(format!("{what}: only questions in SQL are taken, and nothing is written"))
}

/// A promise of an answer: where it is, what it will be.
fn promise(ticket: Any, columns: prost::bytes::Bytes, descriptor: FlightDescriptor) -> Response<FlightInfo> {
    let endpoint = FlightEndpoint::new().with_ticket(Ticket::new(ticket.encode_to_vec()));
    let info = FlightInfo::new().with_descriptor(descriptor).with_endpoint(endpoint);
    Response::new(FlightInfo { schema: columns, ..info })
}

fn one<T: Send + 'static>(value: T) -> Response<Told<T>> {
    Response::new(Box::pin(tokio_stream::once(Ok(value))))
}

fn encoded(batch: RecordBatch) -> Told<FlightData> {
    let encoder = FlightDataEncoderBuilder::new().with_schema(batch.schema());
    let data = encoder.build(tokio_stream::once(Ok::<_, FlightError>(batch)));
    Box::pin(data.map(|data| data.map_err(Status::from)))
}

#[tonic::async_trait]
impl FlightService for Flight {
    type HandshakeStream = Told<HandshakeResponse>;
    type ListFlightsStream = Told<FlightInfo>;
    type DoGetStream = Told<FlightData>;
    type DoPutStream = Told<PutResult>;
    type DoExchangeStream = Told<FlightData>;
    type DoActionStream = Told<arrow_flight::Result>;
    type ListActionsStream = Told<ActionType>;

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        let descriptor = request.into_inner();
        let asked = command(&descriptor.cmd)?;
        let handle = match asked.clone() {
            Command::CommandStatementQuery(query) => Handle::of(query.query),
            Command::CommandPreparedStatementQuery(query) => Handle::read(&query.prepared_statement_handle)?,
            asked => {
                let what = asked.type_url().to_owned();
                let batch = self.catalog.answer(asked.clone())?.ok_or_else(|| not_taken(&what))?;
                return Ok(promise(asked.into_any(), ipc(&batch.schema())?, descriptor));
            }
        };
        let mut handle = handle.with_ticket();
        let columns = std::mem::take(&mut handle.columns);
        let ticket = TicketStatementQuery { statement_handle: handle.encode_to_vec().into() };
        Ok(promise(ticket.as_any(), columns.into(), descriptor))
    }

    async fn do_get(&self, request: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        let asked = command(&request.into_inner().ticket)?;
        if let Command::TicketStatementQuery(ticket) = asked {
            return Ok(Response::new(self.rows(Handle::read(&ticket.statement_handle)?).await?));
        }
        let what = asked.type_url().to_owned();
        let batch = self.catalog.answer(asked)?.ok_or_else(|| not_taken(&what))?;
        Ok(Response::new(encoded(batch)))
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        let schema = match command(&request.into_inner().cmd)? {
            Command::CommandStatementQuery(query) => ipc(&self.plan(query.query).await?.0)?,
            Command::CommandPreparedStatementQuery(query) => {
                ipc(&self.plan(Handle::read(&query.prepared_statement_handle)?.sql).await?.0)?
            }
            asked => {
                let what = asked.type_url().to_owned();
                ipc(&self.catalog.answer(asked)?.ok_or_else(|| not_taken(&what))?.schema())?
            }
        };
        Ok(Response::new(SchemaResult { schema }))
    }

    async fn do_action(&self, request: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        let action = request.into_inner();
        let body = match action.r#type.as_str() {
            "CreatePreparedStatement" => {
                let asked: ActionCreatePreparedStatementRequest = body(&action)?;
                self.prepare(asked.query).await?.as_any().encode_to_vec()
            }
            "ClosePreparedStatement" => {
                let _: ActionClosePreparedStatementRequest = body(&action)?;
                return Ok(Response::new(Box::pin(tokio_stream::empty())));
            }
            "CancelFlightInfo" => {
                let asked = CancelFlightInfoRequest::decode(&*action.body);
                let asked = asked.map_err(|error| Status::invalid_argument(error.to_string()))?;
                CancelFlightInfoResult { status: self.cancel(asked.info)? as i32 }.encode_to_vec()
            }
            "CancelQuery" => {
                let asked: ActionCancelQueryRequest = body(&action)?;
                let info = FlightInfo::decode(&*asked.info);
                let info = info.map_err(|error| Status::invalid_argument(error.to_string()))?;
                // Both enumerations have the same numbers.
                ActionCancelQueryResult { result: self.cancel(Some(info))? as i32 }.as_any().encode_to_vec()
            }
            other => return Err(not_taken(&format!("the action `{other}`"))),
        };
        Ok(one(arrow_flight::Result { body: body.into() }))
    }

    async fn list_actions(&self, _request: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        let told = |&(name, what): &(&str, &str)| ActionType { r#type: name.to_owned(), description: what.to_owned() };
        Ok(Response::new(Box::pin(tokio_stream::iter(ACTIONS.iter().map(told).map(Ok)))))
    }

    /// Values for a prepared statement; everything else would write.
    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        let mut coming = request.into_inner();
        let first = coming.message().await?.ok_or_else(|| Status::invalid_argument("nothing was put"))?;
        let descriptor = first.flight_descriptor.as_ref();
        let descriptor = descriptor.ok_or_else(|| Status::invalid_argument("what is put has no descriptor"))?;
        let mut handle = match command(&descriptor.cmd)? {
            Command::CommandPreparedStatementQuery(query) => Handle::read(&query.prepared_statement_handle)?,
            Command::CommandStatementUpdate(update) => return Err(self.refuse_write(update.query).await),
            Command::CommandPreparedStatementUpdate(update) => {
                let sql = Handle::read(&update.prepared_statement_handle)?.sql;
                return Err(self.refuse_write(sql).await);
            }
            Command::CommandStatementIngest(ingest) => {
                return Err(not_taken(&format!("rows for the table `{}`", ingest.table)));
            }
            other => return Err(not_taken(other.type_url())),
        };
        handle.parameters.clear();
        handle.add_values(&first.data_header, &first.data_body)?;
        while let Some(message) = coming.message().await? {
            handle.add_values(&message.data_header, &message.data_body)?;
        }
        let result = DoPutPreparedStatementResult { prepared_statement_handle: Some(handle.encode_to_vec().into()) };
        Ok(one(PutResult { app_metadata: result.encode_to_vec().into() }))
    }

    async fn handshake(
        &self,
        _request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        Err(Status::unimplemented("there are no user names: send a token with each call, `authorization: Bearer …`"))
    }

    async fn list_flights(&self, _request: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        Err(not_taken("a list of flights"))
    }

    async fn poll_flight_info(&self, _request: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        Err(not_taken("polling"))
    }

    async fn do_exchange(
        &self,
        _request: Request<Streaming<FlightData>>,
    ) -> Result<Response<Self::DoExchangeStream>, Status> {
        Err(not_taken("an exchange"))
    }
}
