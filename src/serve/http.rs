//! The one port: gRPC, health and metrics.

use std::fmt::Write as _;
use std::future::Future;
use std::sync::Arc;

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::serve::Listener;
use tokio::net::TcpListener;
use tonic::codec::CompressionEncoding;
use tonic::service::Routes;
use trainwarden_ingest::Publisher;
use trainwarden_proto::otlp::collector::metrics_service_server::MetricsServiceServer;
use trainwarden_proto::v1::DESCRIPTORS;
use trainwarden_proto::v1::incidents_server::IncidentsServer;
use trainwarden_proto::v1::ingest_server::IngestServer;
use trainwarden_store::StateStore;

use super::access::{self, Access};
use super::api;
use super::desk::{Desk, Health};
use super::incidents_service::{IncidentsService, Signing};
use super::ingest_service::IngestService;
use super::otlp::{OtlpIntake, OtlpService};
use crate::metrics;
use crate::partition_judge::Admission;

/// Largest message: a frame with the largest payload.
const MESSAGE_BYTES_MAX: usize = 65 << 20;

/// Largest request by OTLP, unpacked: four times what gRPC takes by default, which is what exporters keep to.
const OTLP_BYTES_MAX: usize = 16 << 20;

/// What the port answers from.
pub(super) struct Front {
    pub(super) desk: Arc<Desk>,
    pub(super) store: Arc<StateStore>,
    pub(super) publisher: Arc<dyn Publisher>,
    pub(super) admission: Arc<Admission>,
    #[cfg(feature = "sql")]
    pub(super) questions: Arc<super::sql::Questions>,
    pub(super) access: Access,
    pub(super) signing: Signing,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<tokio_rustls::TlsAcceptor>,
    /// `None` where nothing may be taken by OTLP.
    pub(super) otlp: Option<Arc<OtlpIntake>>,
}

/// Answers until `stopping` is done.
pub(super) async fn answer(
    listener: TcpListener,
    front: Front,
    stopping: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    #[cfg(feature = "tls")]
    if let Some(acceptor) = front.tls.clone() {
        let listener = super::tls::TlsListener::start(listener, acceptor)?;
        return answer_on(listener, router(front).await?, stopping).await;
    }
    answer_on(listener, router(front).await?, stopping).await
}

async fn answer_on<L: Listener<Addr: std::fmt::Debug>>(
    listener: L,
    router: Router,
    stopping: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let server = axum::serve(listener, router).with_graceful_shutdown(async {
        // A dropped sender is as good as a word.
        let _ = stopped.await;
    });
    let server = tokio::spawn(server.into_future());
    stopping.await;
    let _ = stop.send(());
    // Streams that are watched never end by themselves: what is in hand gets a moment.
    match tokio::time::timeout(std::time::Duration::from_millis(500), server).await {
        Ok(ended) => ended.context("the port's task failed")?.context("the port failed"),
        Err(_) => Ok(()),
    }
}

async fn router(front: Front) -> Result<Router> {
    let Front { desk, store, publisher, admission, access, signing, otlp, .. } = front;
    let (health, health_service) = tonic_health::server::health_reporter();
    let ingest = IngestService::new(Arc::clone(&publisher), admission);
    let incidents = IncidentsService::new(store, Arc::clone(&desk), publisher, signing);
    let api = api::router(incidents.clone());
    health.set_serving::<IngestServer<IngestService>>().await;
    health.set_serving::<IncidentsServer<IncidentsService>>().await;
    health.set_serving::<MetricsServiceServer<OtlpService>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(trainwarden_proto::otlp::DESCRIPTORS)
        .build_v1()
        .context("the contract cannot be reflected")?;
    let ingest = IngestServer::new(ingest)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    // The exporters of OpenTelemetry compress with gzip unless they are told otherwise.
    let metrics = MetricsServiceServer::new(OtlpService::new(otlp))
        .max_decoding_message_size(OTLP_BYTES_MAX)
        .accept_compressed(CompressionEncoding::Gzip);
    let grpc = Routes::new(ingest)
        .add_service(metrics)
        .add_service(IncidentsServer::new(incidents))
        .add_service(health_service)
        .add_service(reflection);
    #[cfg(feature = "sql")]
    let grpc = {
        health.set_serving::<super::sql::FlightServer>().await;
        grpc.add_service(super::sql::flight_service(&front.questions).await?)
    };
    let plain = Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_page))
        .with_state(desk);
    #[cfg(feature = "sql")]
    let plain = plain.merge(super::sql::routes(&front.questions));
    let guard = axum::middleware::from_fn_with_state(Arc::new(access), access::guard);
    Ok(grpc.into_axum_router().merge(plain).merge(api).layer(guard))
}

/// 200 when log and store work, else 503; `?verbose` says what each is.
async fn readyz(State(desk): State<Arc<Desk>>, RawQuery(query): RawQuery) -> Response {
    let parts = desk.health();
    let is_ready = parts.iter().all(|(name, health)| match health {
        Health::Works => true,
        Health::Starting => *name != "log",
        Health::Failed(_) => false,
    });
    let mut text = String::new();
    if query.as_deref().is_some_and(|query| query.split('&').any(|part| part.starts_with("verbose"))) {
        for (name, health) in parts {
            let line = match health {
                Health::Works => format!("[+] {name} ok"),
                Health::Starting => format!("[ ] {name} starting"),
                Health::Failed(why) => format!("[-] {name} failed: {why}"),
            };
            // Writing into memory does not fail.
            let _ = writeln!(text, "{line}");
        }
        // A receiver that is away is no fault of the service: it stays ready, and keeps what waits.
        #[cfg(feature = "alerts")]
        for (sink, status) in desk.board().sinks() {
            let _ = match &status.open_circuit {
                None => writeln!(text, "[+] alerts {sink} ok, {} pending", status.pending),
                Some(why) => writeln!(text, "[!] alerts {sink} circuit open, {} pending: {why}", status.pending),
            };
        }
    }
    let (code, word) =
        if is_ready { (StatusCode::OK, "ready") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready") };
    (code, format!("{text}{word}\n")).into_response()
}

async fn metrics_page(State(desk): State<Arc<Desk>>) -> Response {
    ([(CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::page(&desk)).into_response()
}
