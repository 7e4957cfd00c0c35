//! The data points of a request, by run, as rows; and what could not be taken.

use std::borrow::Cow;
use std::collections::BTreeMap;

use trainwarden_proto::otlp::collector::ExportMetricsServiceRequest;
use trainwarden_proto::otlp::metrics::metric::Data;
use trainwarden_proto::otlp::metrics::number_data_point::Value;
use trainwarden_proto::otlp::metrics::{
    AggregationTemporality, DataPointFlags, Metric, NumberDataPoint, ResourceMetrics,
};

use super::labels::Labels;
use crate::batch::canonical;
use crate::limits::SERIES_BYTES_MAX;
use crate::{NO_TIME, NO_U32, NO_U64, Names, SampleRow};

/// How the name of a counter ends: see the contract's table of metrics.
const COUNTER: &str = "_total";

/// Why a data point is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("attribute `trainwarden.run` is missing, on the resource and on the point")]
    NoRun,
    #[error("attribute `{name}` is `{value}`: accepted are whole numbers from 0 to {number_max}")]
    Attribute { name: &'static str, value: String, number_max: u64 },
    #[error("neither `time_unix_nano` nor attribute `trainwarden.step` says when it was")]
    NoPlace,
    #[error("it holds no value")]
    NoValue,
    #[error("{kind} are not taken, only gauges and sums: send what matters of it as a gauge")]
    Unsupported { kind: &'static str },
    #[error("the name with its attributes has {bytes} bytes: accepted are 1 to {bytes_max}")]
    Name { bytes: usize, bytes_max: usize },
}

impl Refusal {
    /// A short, stable word, for counting.
    fn reason(&self) -> &'static str {
        match self {
            Self::NoRun => "run",
            Self::Attribute { .. } => "attribute",
            Self::NoPlace => "place",
            Self::NoValue => "value",
            Self::Unsupported { .. } => "kind",
            Self::Name { .. } => "name",
        }
    }
}

/// Points that were not taken: how many for each reason, and the first of them in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refused(BTreeMap<&'static str, (u64, String)>);

impl Refused {
    /// How many, by reason.
    pub fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().map(|(reason, (count, _))| (*reason, *count))
    }

    /// How many in all.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.values().map(|(count, _)| count).sum()
    }

    /// What a sender is told: for each reason, how many, and which the first one was. Empty when all were taken.
    #[must_use]
    pub fn message(&self) -> String {
        self.0.values().map(|(_, said)| said.as_str()).zip(self.counts()).fold(String::new(), |message, told| {
            let (said, (_, count)) = told;
            let gap = if message.is_empty() { "" } else { "; " };
            format!("{message}{gap}{count} of {said}")
        })
    }

    fn note(&mut self, metric: &str, refusal: &Refusal, points: u64) {
        if points == 0 {
            return;
        }
        let shown = &metric[..metric.floor_char_boundary(SERIES_BYTES_MAX)];
        let first = || (0, format!("metric `{shown}` and like it: {refusal}"));
        self.0.entry(refusal.reason()).or_insert_with(first).0 += points;
    }
}

/// Rows of one run.
#[derive(Debug, Default)]
pub(super) struct RunPoints {
    pub(super) names: Names,
    pub(super) rows: Vec<SampleRow>,
}

/// The rows of a request.
#[derive(Debug, Default)]
pub(super) struct Points {
    pub(super) runs: BTreeMap<String, RunPoints>,
    pub(super) refused: Refused,
}

impl Points {
    /// Takes what can be taken.
    pub(super) fn read(request: &ExportMetricsServiceRequest) -> Self {
        let mut points = Self::default();
        request.resource_metrics.iter().for_each(|resource| points.take_resource(resource));
        points
    }

    fn take_resource(&mut self, resource: &ResourceMetrics) {
        let attributes = resource.resource.as_ref().map(|resource| resource.attributes.as_slice()).unwrap_or_default();
        let labels = Labels::read(attributes);
        for metric in resource.scope_metrics.iter().flat_map(|scope| &scope.metrics) {
            match &labels {
                Ok(labels) => self.take_metric(metric, labels),
                Err(refusal) => self.refused.note(&metric.name, refusal, points_of(metric)),
            }
        }
    }

    fn take_metric(&mut self, metric: &Metric, resource: &Labels) {
        let unsupported = |kind| Refusal::Unsupported { kind };
        let (name, points) = match &metric.data {
            Some(Data::Gauge(gauge)) => (Cow::Borrowed(metric.name.as_str()), &gauge.data_points),
            Some(Data::Sum(sum)) => {
                (sum_name(&metric.name, sum.is_monotonic, sum.aggregation_temporality()), &sum.data_points)
            }
            Some(Data::Histogram(_)) => {
                return self.refused.note(&metric.name, &unsupported("histograms"), points_of(metric));
            }
            Some(Data::ExponentialHistogram(_)) => {
                return self.refused.note(&metric.name, &unsupported("exponential histograms"), points_of(metric));
            }
            Some(Data::Summary(_)) => {
                return self.refused.note(&metric.name, &unsupported("summaries"), points_of(metric));
            }
            None => return,
        };
        for point in points {
            // The sender says itself that there is none: that is no row, and no fault.
            if point.flags & DataPointFlags::NoRecordedValueMask as u32 != 0 {
                continue;
            }
            if let Err(refusal) = self.take_point(&name, point, resource) {
                self.refused.note(&metric.name, &refusal, 1);
            }
        }
    }

    fn take_point(&mut self, name: &str, point: &NumberDataPoint, resource: &Labels) -> Result<(), Refusal> {
        let mut labels = Labels::read(&point.attributes)?.within(resource);
        let run = labels.run.take().ok_or(Refusal::NoRun)?;
        let value = match point.value {
            Some(Value::AsDouble(value)) => canonical(value),
            // Above 2^53 the last digits go: every value of the table is a double.
            Some(Value::AsInt(value)) => value as f64,
            None => return Err(Refusal::NoValue),
        };
        let time = i64::try_from(point.time_unix_nano).ok().filter(|time| *time > 0);
        if time.is_none() && labels.step.is_none() {
            return Err(Refusal::NoPlace);
        }
        let series = labels.series(name);
        if name.is_empty() || series.len() > SERIES_BYTES_MAX {
            return Err(Refusal::Name { bytes: series.len(), bytes_max: SERIES_BYTES_MAX });
        }
        let run = self.runs.entry(run).or_default();
        run.rows.push(SampleRow {
            log_time: NO_TIME,
            step: labels.step.unwrap_or(NO_U64),
            time: time.unwrap_or(NO_TIME),
            value,
            attempt: labels.attempt.unwrap_or(0),
            rank: labels.rank.unwrap_or(NO_U32),
            metric: run.names.intern(&series),
            reserved: 0,
        });
        Ok(())
    }
}

/// What a sum is called here: one that only grows is a counter, whose differences are judged; one that is a difference
/// already is none.
fn sum_name(name: &str, is_monotonic: bool, temporality: AggregationTemporality) -> Cow<'_, str> {
    match temporality {
        AggregationTemporality::Cumulative if is_monotonic && !name.ends_with(COUNTER) => {
            Cow::Owned(format!("{name}{COUNTER}"))
        }
        AggregationTemporality::Delta => Cow::Borrowed(name.strip_suffix(COUNTER).unwrap_or(name)),
        _ => Cow::Borrowed(name),
    }
}

fn points_of(metric: &Metric) -> u64 {
    let points = match &metric.data {
        Some(Data::Gauge(gauge)) => gauge.data_points.len(),
        Some(Data::Sum(sum)) => sum.data_points.len(),
        Some(Data::Histogram(histogram)) => histogram.data_points.len(),
        Some(Data::ExponentialHistogram(histogram)) => histogram.data_points.len(),
        Some(Data::Summary(summary)) => summary.data_points.len(),
        None => 0,
    };
    points as u64
}
