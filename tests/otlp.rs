//! Metrics by OTLP over gRPC: what they tell is what `replay` tells of the same samples.

#![expect(unused_crate_dependencies, reason = "what this target does not use serves another one of the package")]

use std::path::Path;
use std::process::Command;

use tokio::runtime::Runtime;
use tonic::codec::CompressionEncoding;
use tonic::transport::Channel;
use tonic::{Code, Status};
use trainwarden_proto::otlp::collector::metrics_service_client::MetricsServiceClient;
use trainwarden_proto::otlp::collector::{ExportMetricsPartialSuccess, ExportMetricsServiceRequest};
use trainwarden_proto::otlp::metrics::NumberDataPoint;
use trainwarden_proto::otlp::metrics::number_data_point::Value;

use crate::metrics::{number, request, requests_of, said, samples_of, text};
use crate::service::{Service, replayed, wait_until};

mod metrics;
mod recorded;
mod service;

/// An exporter: a client of OTLP that compresses, as they all do.
struct Exporter {
    runtime: Runtime,
    client: MetricsServiceClient<Channel>,
}

impl Exporter {
    fn new(service: &Service) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a thread");
        let client = runtime.block_on(MetricsServiceClient::connect(format!("http://{}", service.url())));
        let client = client.expect("it answers").send_compressed(CompressionEncoding::Gzip);
        Self { runtime, client }
    }

    fn export(&mut self, request: ExportMetricsServiceRequest) -> Result<Option<ExportMetricsPartialSuccess>, Status> {
        let answer = self.runtime.block_on(self.client.export(request));
        answer.map(|answer| answer.into_inner().partial_success)
    }
}

fn point(step: u64) -> NumberDataPoint {
    let attributes = vec![number("trainwarden.step", step)];
    NumberDataPoint { attributes, time_unix_nano: step + 1, value: Some(Value::AsDouble(1.0)), ..Default::default() }
}

fn loss(run: &str, step: u64) -> ExportMetricsServiceRequest {
    request(vec![text("trainwarden.run", run)], vec![("loss".to_owned(), point(step))])
}

#[test]
fn faults_are_told_as_replay_tells_them_and_the_healthy_twin_is_quiet() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let healthy = samples_of("slow_rank_5_healthy", &dir.path().join("healthy"));
    assert_eq!(replayed(&healthy), "");
    let runs = dir.path().join("runs");
    let faulty = ["slow_rank_5", "nonfinite"].map(|name| samples_of(name, &runs));
    let expected = said(&replayed(&runs));
    assert!(expected.len() >= 2, "{expected:?}");
    let service = Service::start(&dir.path().join("data"), &[]);
    let mut exporter = Exporter::new(&service);
    let mut points = 0;
    for folder in [&healthy, &faulty[0], &faulty[1]] {
        for request in requests_of(folder) {
            let metrics = request.resource_metrics.iter().flat_map(|resource| &resource.scope_metrics);
            points += metrics.map(|scope| scope.metrics.len() as u64).sum::<u64>();
            // Sent again, as after an answer that was lost.
            assert_eq!(exporter.export(request.clone()).expect("durable"), None);
            assert_eq!(exporter.export(request).expect("durable"), None);
        }
    }
    assert_eq!(service.metric("otlp_points_total"), 2 * points);
    wait_until("the faults are told", || said(&service.incidents()) == expected);
    // The healthy run was sent first; a few ticks later nothing else has come.
    let seen = service.metric("receive_records_total");
    wait_until("the log goes on", || service.metric("receive_records_total") > seen + 40);
    assert_eq!(said(&service.incidents()), expected);
    let (repeated, rejected) = (service.metric("align_rows_repeated_total"), service.metric("decode_records_rejected"));
    assert_eq!((repeated, rejected), (0, 0), "a request that is sent again is known by its frames");
}

#[test]
fn points_without_a_run_are_told_and_counted_and_the_others_are_kept() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let service = Service::start(&dir.path().join("data"), &[]);
    let mut exporter = Exporter::new(&service);
    let named =
        NumberDataPoint { attributes: vec![text("trainwarden.run", "r"), number("trainwarden.step", 1)], ..point(1) };
    let partial = exporter.export(request(
        Vec::new(),
        vec![("loss".to_owned(), point(1)), ("grad_norm".to_owned(), point(1)), ("loss".to_owned(), named)],
    ));
    let partial = partial.expect("the rest is durable").expect("two points are refused");
    assert_eq!(partial.rejected_data_points, 2);
    assert!(partial.error_message.contains("`trainwarden.run` is missing"), "{}", partial.error_message);
    assert_eq!((service.metric("otlp_points_total"), service.metric("otlp_points_rejected_total")), (1, 2));
    wait_until("the one point is in the log", || service.metric("receive_records_total") >= 1);
}

#[test]
fn where_signatures_are_asked_for_the_service_signs_or_refuses() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let config = dir.path().join("trainwarden.toml");
    let key = dir.path().join("otlp.key");
    std::fs::write(&key, "07".repeat(32)).expect("written");
    let public = ed25519_dalek::SigningKey::from_bytes(&[1; 32]).verifying_key().to_bytes();
    let public: String = public.iter().map(|byte| format!("{byte:02x}")).collect();
    let keys = format!("[[ingest.keys]]\nsender = \"node-1\"\nkey = \"{public}\"\n");
    let start = |name: &str, text: &str| {
        std::fs::write(&config, text).expect("written");
        Service::start(&dir.path().join(name), &["--config", &config.display().to_string()])
    };
    let service = start("refuses", &keys);
    let refused = Exporter::new(&service).export(loss("r", 1)).expect_err("nothing is signed");
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert!(refused.message().contains("`otlp.key`"), "{}", refused.message());
    drop(service);
    let service = start("signs", &format!("{keys}[otlp]\nkey = \"{}\"\n", key.display()));
    assert_eq!(Exporter::new(&service).export(loss("r", 1)).expect("it signs"), None);
    wait_until("the point is in the log", || service.metric("receive_records_total") >= 1);
    assert_eq!(service.metric("decode_records_rejected"), 0, "our own signature counts");
}

#[test]
fn what_is_no_request_of_otlp_is_refused_and_the_service_goes_on() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let service = Service::start(&dir.path().join("data"), &[]);
    let mut exporter = Exporter::new(&service);
    let name = "x".repeat(17 << 20);
    let large = exporter.export(request(vec![text("trainwarden.run", &name)], vec![("loss".to_owned(), point(1))]));
    assert_eq!(large.expect_err("it is larger than is taken").code(), Code::ResourceExhausted);
    assert_eq!(Exporter::new(&service).export(loss("r", 1)).expect("it goes on"), None);
}

#[test]
fn the_sdk_of_opentelemetry_for_python_is_understood() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/otel/bin/python");
    assert!(python.exists(), "OpenTelemetry for Python is not there: run tests/needs");
    let dir = tempfile::tempdir().expect("a temporary folder");
    let service = Service::start(&dir.path().join("data"), &[]);
    let sent = Command::new(python)
        .arg(root.join("tests/otlp/sdk.py"))
        .arg(service.url())
        .env("OTEL_RESOURCE_ATTRIBUTES", "trainwarden.run=sdk,trainwarden.rank=3")
        .output()
        .expect("python starts");
    assert!(sent.status.success(), "{}", String::from_utf8_lossy(&sent.stderr));
    // A gauge and a counter are taken; a histogram is refused, and the SDK is told so.
    assert_eq!((service.metric("otlp_points_total"), service.metric("otlp_points_rejected_total")), (2, 1));
}
