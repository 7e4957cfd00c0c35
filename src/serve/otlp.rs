//! Metrics in by OTLP: what gRPC and Kafka have in common, and the service on the port.

use std::sync::Arc;
use std::sync::mpsc::channel;

use tonic::{Request, Response, Status};
use trainwarden_ingest::otlp::{OtlpFrames, OtlpSender};
use trainwarden_ingest::{Publisher, SourceError};
use trainwarden_proto::otlp::collector::metrics_service_server::MetricsService;
use trainwarden_proto::otlp::collector::{
    ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};

use super::desk::Desk;

/// Why nothing is taken where signatures are asked for and we have no key to give one.
const UNSIGNED: &str = "telemetry must be signed here (`ingest.keys`), and what comes by OTLP is not: set `otlp.key` on the \
                        server to let it sign in its own name";

/// Appends what comes by OTLP to the log.
pub(super) struct OtlpIntake {
    sender: OtlpSender,
    publisher: Arc<dyn Publisher>,
    desk: Arc<Desk>,
}

impl OtlpIntake {
    /// An intake that appends to this log.
    ///
    /// * `key`: Ed25519 secret key, where frames must be signed.
    pub(super) fn new(key: Option<[u8; 32]>, publisher: Arc<dyn Publisher>, desk: Arc<Desk>) -> Self {
        Self { sender: OtlpSender::new(key), publisher, desk }
    }

    /// What the log will get of a request.
    pub(super) fn frames(&self, request: &ExportMetricsServiceRequest) -> OtlpFrames {
        self.sender.frames(request)
    }

    /// Appends frames and waits until all are durable; they count when they are.
    ///
    /// # Errors
    /// That of the first frame that is not known to be durable; others may be. Appending all of them again is right.
    pub(super) fn append(&self, requests: &[OtlpFrames]) -> Result<(), SourceError> {
        let (report, reports) = channel();
        for (run, frame) in requests.iter().flat_map(|request| &request.frames) {
            let report = report.clone();
            // The receiver outlives the sends: it is read to its end below.
            self.publisher.publish(run, frame, Box::new(move |outcome| drop(report.send(outcome))));
        }
        drop(report);
        for outcome in reports {
            outcome?;
        }
        requests.iter().for_each(|request| self.desk.count_otlp(request));
        Ok(())
    }
}

/// `opentelemetry.proto.collector.metrics.v1.MetricsService`.
pub(super) struct OtlpService {
    /// `None` where nothing may be taken.
    intake: Option<Arc<OtlpIntake>>,
}

impl OtlpService {
    /// A service of an intake; without one, every request is told why.
    pub(super) fn new(intake: Option<Arc<OtlpIntake>>) -> Self {
        Self { intake }
    }
}

#[tonic::async_trait]
impl MetricsService for OtlpService {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        let intake = self.intake.clone().ok_or_else(|| Status::permission_denied(UNSIGNED))?;
        let request = request.into_inner();
        // A thread of its own: the log may make it wait.
        let taken = tokio::task::spawn_blocking(move || {
            let frames = intake.frames(&request);
            intake.append(std::slice::from_ref(&frames)).map(|()| frames.refused)
        });
        let refused = taken.await.map_err(|_| Status::internal("the request could not be worked on"))?;
        let refused = refused.map_err(|error| match error.is_retryable() {
            // A client of OTLP sends again after this one, and after the other one it does not.
            true => Status::unavailable(error.to_string()),
            false => Status::internal(error.to_string()),
        })?;
        let partial = (refused.count() > 0).then(|| ExportMetricsPartialSuccess {
            rejected_data_points: i64::try_from(refused.count()).unwrap_or(i64::MAX),
            error_message: refused.message(),
        });
        Ok(Response::new(ExportMetricsServiceResponse { partial_success: partial }))
    }
}
