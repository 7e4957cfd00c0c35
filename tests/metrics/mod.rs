//! Run folders as requests of OTLP, as an exporter on each rank would have sent them.

#![allow(dead_code, reason = "each test target uses its part")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use trainwarden::simulation::{read_scenario, write};
use trainwarden_ingest::{Format, Log, NO_TIME, NO_U32, NO_U64, Names, Rejects, Row, SampleRow};
use trainwarden_proto::otlp::collector::ExportMetricsServiceRequest;
use trainwarden_proto::otlp::common::any_value::Value as Attribute;
use trainwarden_proto::otlp::common::{AnyValue, KeyValue};
use trainwarden_proto::otlp::metrics::metric::Data;
use trainwarden_proto::otlp::metrics::number_data_point::Value;
use trainwarden_proto::otlp::metrics::{Gauge, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics};
use trainwarden_proto::otlp::resource::Resource;
use trainwarden_telemetry::Incident;

/// Rows of one request: a few steps of a small run.
const REQUEST_ROWS: usize = 2_000;

/// The samples of a scenario, as a folder that holds nothing else.
pub(crate) fn samples_of(scenario: &str, dir: &Path) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/scenarios/{scenario}.toml"));
    let folder = dir.join(scenario);
    write(&read_scenario(&path).expect("a scenario"), &folder, Format::Parquet).expect("written");
    for table in ["collectives", "digests", "events", "ranks", "groups"] {
        // Not every scenario has every table.
        let _ = std::fs::remove_file(folder.join(format!("{table}.parquet")));
    }
    folder
}

/// A whole number as an attribute.
pub(crate) fn number(name: &str, number: u64) -> KeyValue {
    let value = Attribute::IntValue(i64::try_from(number).expect("small"));
    KeyValue { key: name.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// A text as an attribute.
pub(crate) fn text(name: &str, text: &str) -> KeyValue {
    let value = Attribute::StringValue(text.to_owned());
    KeyValue { key: name.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// A request of one resource with gauges of one point each.
pub(crate) fn request(
    attributes: Vec<KeyValue>,
    points: Vec<(String, NumberDataPoint)>,
) -> ExportMetricsServiceRequest {
    let resource = Some(Resource { attributes, ..Resource::default() });
    let metrics = points.into_iter().map(|(name, point)| Metric {
        name,
        data: Some(Data::Gauge(Gauge { data_points: vec![point] })),
        ..Metric::default()
    });
    let scope_metrics = vec![ScopeMetrics { metrics: metrics.collect(), ..ScopeMetrics::default() }];
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics { resource, scope_metrics, ..ResourceMetrics::default() }],
    }
}

/// The requests of a folder, in the order of its log.
pub(crate) fn requests_of(folder: &Path) -> Vec<ExportMetricsServiceRequest> {
    let mut rejects = Rejects::new();
    let log = Log::read(&[folder.to_owned()], &mut rejects).expect("the folder was just written");
    let mut requests = Vec::new();
    for (run, log) in log.runs {
        let names = log.names.clone();
        let rows: Vec<SampleRow> = log
            .into_records()
            .filter_map(|record| match record.expect("the folder is good").row {
                Row::Sample(row) => Some(row),
                _ => None,
            })
            .collect();
        requests.extend(rows.chunks(REQUEST_ROWS).map(|rows| request_of(&run.0, rows, &names)));
    }
    requests
}

fn request_of(run: &str, rows: &[SampleRow], names: &Names) -> ExportMetricsServiceRequest {
    let mut by_rank: BTreeMap<u32, Vec<(String, NumberDataPoint)>> = BTreeMap::new();
    for row in rows {
        let metric = names.get(row.metric).expect("each row names its metric").to_owned();
        let mut attributes = vec![number("trainwarden.attempt", row.attempt.into())];
        attributes.extend((row.step != NO_U64).then(|| number("trainwarden.step", row.step)));
        let time_unix_nano = if row.time == NO_TIME { 0 } else { row.time.unsigned_abs() };
        let value = Some(Value::AsDouble(row.value));
        let point = NumberDataPoint { attributes, time_unix_nano, value, ..NumberDataPoint::default() };
        by_rank.entry(row.rank).or_default().push((metric, point));
    }
    let mut whole = ExportMetricsServiceRequest::default();
    for (rank, points) in by_rank {
        let mut resource = vec![text("trainwarden.run", run)];
        resource.extend((rank != NO_U32).then(|| text("trainwarden.rank", &rank.to_string())));
        whole.resource_metrics.extend(request(resource, points).resource_metrics);
    }
    whole
}

/// What incidents say, without their times: run, kind, and the suspected ranks.
pub(crate) fn said(incidents: &str) -> Vec<String> {
    let told = incidents.lines().map(|line| serde_json::from_str::<Incident>(line).expect("an incident"));
    let mut said: Vec<String> = told
        .map(|one| {
            let ranks: Vec<u32> = one.suspects.iter().map(|suspect| suspect.rank.0).collect();
            format!("{} {} {ranks:?}", one.run, one.kind)
        })
        .collect();
    said.sort();
    said
}
