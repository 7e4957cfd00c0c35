//! What the log gets of a request.

use trainwarden_proto::otlp::collector::ExportMetricsServiceRequest;

use super::points::{Points, Refused, RunPoints};
use crate::limits::OTLP_FRAME_ROWS_MAX;
use crate::wire::{BatchWriter, FrameWriter};
use crate::{NO_TIME, Record, Row, SampleRow};

/// Under this name rows that came by OTLP stand in the log.
pub const OTLP_SENDER: &str = "otlp";

/// The frames of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OtlpFrames {
    /// Run and frame, in the order in which they are to be appended.
    pub frames: Vec<(String, Vec<u8>)>,
    /// Data points in them.
    pub points: u64,
    /// Data points that are not.
    pub refused: Refused,
}

/// Makes frames of requests.
#[derive(Clone, Debug, Default)]
pub struct OtlpSender {
    key: Option<[u8; 32]>,
}

impl OtlpSender {
    /// A sender whose frames are signed with an Ed25519 secret key, or not signed.
    #[must_use]
    pub fn new(key: Option<[u8; 32]>) -> Self {
        Self { key }
    }

    /// The frames of a request: the same for the same request, at any time and place.
    #[must_use]
    pub fn frames(&self, request: &ExportMetricsServiceRequest) -> OtlpFrames {
        let Points { runs, refused } = Points::read(request);
        let points = runs.values().map(|run| run.rows.len() as u64).sum();
        let frames = runs.into_iter().flat_map(|(run, points)| {
            let frames = self.frames_of_run(&run, &points);
            frames.into_iter().map(move |frame| (run.clone(), frame))
        });
        OtlpFrames { frames: frames.collect(), points, refused }
    }

    fn frames_of_run(&self, run: &str, points: &RunPoints) -> Vec<Vec<u8>> {
        let mut writer = FrameWriter::new(OTLP_SENDER, run, None);
        if let Some(key) = &self.key {
            writer.sign_with(0, key);
        }
        let mut frames = Vec::new();
        for rows in points.rows.chunks(OTLP_FRAME_ROWS_MAX) {
            let mut batch = BatchWriter::default();
            for row in rows {
                batch.push(&Record { log_time: NO_TIME, row: Row::Sample(*row) }, &points.names);
            }
            let newest = rows.iter().map(|row: &SampleRow| row.time).max().unwrap_or(0).max(0);
            frames.extend(batch.finish().iter().map(|(table, rows)| writer.uncounted_rows(*table, rows, newest)));
        }
        frames
    }
}

#[cfg(test)]
mod tests {
    use trainwarden_proto::otlp::common::any_value::Value as Attribute;
    use trainwarden_proto::otlp::common::{AnyValue, KeyValue};
    use trainwarden_proto::otlp::metrics::metric::Data;
    use trainwarden_proto::otlp::metrics::number_data_point::Value;
    use trainwarden_proto::otlp::metrics::{
        Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum,
    };
    use trainwarden_proto::otlp::resource::Resource;

    use super::*;
    use crate::wire::{OpenedFrame, Seen, Sight, TrustedKeys};
    use crate::{Feed, Row};

    fn text(name: &str, value: &str) -> KeyValue {
        let value = Some(AnyValue { value: Some(Attribute::StringValue(value.to_owned())) });
        KeyValue { key: name.to_owned(), value, ..KeyValue::default() }
    }

    fn whole(name: &str, value: i64) -> KeyValue {
        let value = Some(AnyValue { value: Some(Attribute::IntValue(value)) });
        KeyValue { key: name.to_owned(), value, ..KeyValue::default() }
    }

    fn point(value: f64, attributes: Vec<KeyValue>) -> NumberDataPoint {
        NumberDataPoint { attributes, time_unix_nano: 5, value: Some(Value::AsDouble(value)), ..Default::default() }
    }

    fn gauge(name: &str, data_points: Vec<NumberDataPoint>) -> Metric {
        Metric { name: name.to_owned(), data: Some(Data::Gauge(Gauge { data_points })), ..Metric::default() }
    }

    fn sum(name: &str, is_monotonic: bool, temporality: i32) -> Metric {
        let data_points = vec![point(1.0, Vec::new())];
        let data = Data::Sum(Sum { data_points, aggregation_temporality: temporality, is_monotonic });
        Metric { name: name.to_owned(), data: Some(data), ..Metric::default() }
    }

    fn request(attributes: Vec<KeyValue>, metrics: Vec<Metric>) -> ExportMetricsServiceRequest {
        let scope_metrics = vec![ScopeMetrics { metrics, ..ScopeMetrics::default() }];
        let resource = Some(Resource { attributes, ..Resource::default() });
        ExportMetricsServiceRequest {
            resource_metrics: vec![ResourceMetrics { resource, scope_metrics, ..ResourceMetrics::default() }],
        }
    }

    /// The rows of frames as a feed takes them: run, attempt, rank, step, metric and value.
    fn rows(frames: &OtlpFrames) -> Vec<String> {
        let mut rows = Vec::new();
        for (run, frame) in &frames.frames {
            let frame = OpenedFrame::open(frame, &TrustedKeys::default()).expect("a frame that was just made");
            assert_eq!((&frame.envelope.run, frame.envelope.sender.as_str()), (run, OTLP_SENDER));
            let mut feed = Feed::new(1);
            let table = frame.table().expect("known").expect("it has rows");
            assert_eq!(feed.take(table, run, &frame.batches().expect("just packed")), 0);
            let part = feed.finish();
            for record in part.rows.records() {
                let Row::Sample(row) = record.row else { panic!("only samples are made: {:?}", record.row) };
                let (rank, step) = (row.rank.cast_signed(), row.step.cast_signed());
                let metric = feed.names().get(row.metric).unwrap_or_default().to_owned();
                rows.push(format!("{run} {} {rank} {step} {} {metric} {}", row.attempt, row.time, row.value));
            }
        }
        rows.sort();
        rows
    }

    fn frames(request: &ExportMetricsServiceRequest) -> OtlpFrames {
        OtlpSender::default().frames(request)
    }

    #[test]
    fn attributes_of_the_resource_hold_unless_the_point_says_otherwise() {
        let resource = vec![text("trainwarden.run", "r"), text("trainwarden.rank", "3"), text("host.name", "n1")];
        let own = vec![whole("trainwarden.rank", 4), whole("trainwarden.step", 7), whole("trainwarden.attempt", 1)];
        let request = request(resource, vec![gauge("loss", vec![point(1.5, Vec::new()), point(2.5, own)])]);
        assert_eq!(rows(&frames(&request)), ["r 0 3 -1 5 loss 1.5", "r 1 4 7 5 loss 2.5"]);
    }

    #[test]
    fn other_attributes_of_a_point_are_part_of_the_name_so_that_series_do_not_contradict() {
        let points = vec![point(50.0, vec![text("gpu", "0")]), point(60.0, vec![text("gpu", "1")])];
        let request = request(vec![text("trainwarden.run", "r")], vec![gauge("gpu_temp_c", points)]);
        assert_eq!(rows(&frames(&request)), ["r 0 -1 -1 5 gpu_temp_c{gpu=0} 50", "r 0 -1 -1 5 gpu_temp_c{gpu=1} 60"]);
    }

    #[test]
    fn sums_are_counters_where_they_grow_and_plain_numbers_where_they_are_differences() {
        let (delta, cumulative) = (1, 2);
        let metrics = vec![
            sum("tokens", true, cumulative),
            sum("kept_total", true, cumulative),
            sum("bytes_total", true, delta),
            sum("queue", false, cumulative),
        ];
        let names: Vec<String> = rows(&frames(&request(vec![text("trainwarden.run", "r")], metrics)));
        let names: Vec<&str> = names.iter().filter_map(|row| row.split(' ').nth(5)).collect();
        assert_eq!(names, ["bytes", "kept_total", "queue", "tokens_total"]);
    }

    #[test]
    fn nan_and_infinity_are_values_and_a_point_that_says_it_has_none_is_no_row() {
        let unrecorded = NumberDataPoint { flags: 1, value: None, ..point(0.0, Vec::new()) };
        let points = vec![point(f64::NAN, Vec::new()), unrecorded];
        let metrics = vec![gauge("loss", points), gauge("grad_norm", vec![point(f64::NEG_INFINITY, Vec::new())])];
        let made = frames(&request(vec![text("trainwarden.run", "r")], metrics));
        assert_eq!(rows(&made), ["r 0 -1 -1 5 grad_norm -inf", "r 0 -1 -1 5 loss NaN"]);
        assert_eq!((made.points, made.refused.count(), made.refused.message()), (2, 0, String::new()));
    }

    #[test]
    fn what_is_missing_is_told_and_the_rest_is_taken() {
        let histogram = Histogram { data_points: vec![HistogramDataPoint::default(); 3], ..Histogram::default() };
        let run = |more: Vec<KeyValue>| [vec![text("trainwarden.run", "r")], more].concat();
        let metrics = vec![
            gauge("loss", vec![point(1.0, Vec::new()), point(1.0, run(Vec::new()))]),
            gauge("grad_norm", vec![point(1.0, run(vec![text("trainwarden.rank", "x7")]))]),
            gauge("empty", vec![NumberDataPoint { value: None, ..point(1.0, run(Vec::new())) }]),
            gauge("timeless", vec![NumberDataPoint { time_unix_nano: 0, ..point(1.0, run(Vec::new())) }]),
            gauge("", vec![point(1.0, run(Vec::new()))]),
            Metric { name: "latency".to_owned(), data: Some(Data::Histogram(histogram)), ..Metric::default() },
        ];
        let made = frames(&request(Vec::new(), metrics));
        assert_eq!(rows(&made), ["r 0 -1 -1 5 loss 1"]);
        let counts: Vec<_> = made.refused.counts().collect();
        assert_eq!(counts, [("attribute", 1), ("kind", 3), ("name", 1), ("place", 1), ("run", 1), ("value", 1)]);
        let message = made.refused.message();
        for told in
            ["`trainwarden.run` is missing", "`trainwarden.rank` is `x7`", "3 of metric `latency`", "histograms"]
        {
            assert!(message.contains(told), "{told}: {message}");
        }
    }

    #[test]
    fn a_request_that_is_sent_again_is_seen_and_another_one_is_not_taken_for_it() {
        let loss = |value| request(vec![text("trainwarden.run", "r")], vec![gauge("loss", vec![point(value, vec![])])]);
        let sight = |seen: &mut Seen, request| {
            let made = frames(&request);
            let frame = OpenedFrame::open(&made.frames[0].1, &TrustedKeys::default()).expect("a good frame");
            seen.note(frame.envelope.sequence, frame.hash)
        };
        let mut seen = Seen::default();
        assert_eq!(sight(&mut seen, loss(1.0)), Sight::New);
        assert_eq!(sight(&mut seen, loss(2.0)), Sight::New);
        assert_eq!(sight(&mut seen, loss(1.0)), Sight::Repeated);
    }

    #[test]
    fn frames_are_signed_where_there_is_a_key() {
        let secret = [9; 32];
        let request = request(vec![text("trainwarden.run", "r")], vec![gauge("loss", vec![point(1.0, vec![])])]);
        let mut keys = TrustedKeys::default();
        keys.trust_secret(OTLP_SENDER, 0, &secret);
        let open = |sender: OtlpSender| OpenedFrame::open(&sender.frames(&request).frames[0].1, &keys).map(|_| ());
        assert_eq!(open(OtlpSender::new(Some(secret))), Ok(()));
        assert!(open(OtlpSender::new(Some([8; 32]))).is_err());
        assert!(open(OtlpSender::new(None)).is_err());
    }
}
