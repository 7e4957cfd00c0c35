//! `incidents` and `verdicts`: what was found, and the figures behind it.

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, Float64Array, ListBuilder, RecordBatch, StringArray, TimestampNanosecondArray, UInt32Array,
    UInt32Builder, UInt64Array,
};
use datafusion::arrow::datatypes::{Field, Schema, SchemaRef};
use serde::Serialize;
use trainwarden_telemetry::{Evidence, Incident, Onset, Step, Timestamp};

use super::docs;
use crate::error::QueryError;

/// A name, and the cells under it.
type NamedColumn = (&'static str, ArrayRef);

/// Reads incidents from their JSON, a line each.
pub(crate) fn parse(lines: &[String]) -> Result<Vec<Incident>, QueryError> {
    lines.iter().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// The table `incidents`.
pub(crate) fn incidents(incidents: &[Incident], lines: &[String]) -> RecordBatch {
    let first = |incident: &Incident| incident.suspects.first().cloned();
    let onset = |pick: fn(&Onset) -> Step| steps(incidents, move |incident| incident.onset.as_ref().map(pick));
    let mut ranks = ListBuilder::new(UInt32Builder::new());
    for incident in incidents {
        ranks.append_value(incident.suspects.iter().map(|suspect| Some(suspect.rank.0)));
    }
    batch(
        "incidents",
        vec![
            ("id", texts(incidents, |incident| Some(incident.id.0.clone()))),
            ("run", texts(incidents, |incident| Some(incident.run.0.to_string()))),
            ("attempt", numbers(incidents, |incident| Some(incident.attempt.0))),
            ("kind", texts(incidents, |incident| word(&incident.kind))),
            ("severity", texts(incidents, |incident| word(&incident.severity))),
            ("state", texts(incidents, |incident| word(&incident.state))),
            ("first_step", steps(incidents, |incident| incident.first_step)),
            ("onset_step", onset(|onset| onset.step)),
            ("onset_low", onset(|onset| onset.low)),
            ("onset_high", onset(|onset| onset.high)),
            ("detected_step", steps(incidents, |incident| incident.detected_step)),
            ("last_step", steps(incidents, |incident| incident.last_step)),
            ("started_at", times(incidents, |incident| incident.started_at)),
            ("detected_at", times(incidents, |incident| incident.detected_at)),
            ("rank", numbers(incidents, |incident| first(incident).map(|suspect| suspect.rank.0))),
            ("node", texts(incidents, |incident| first(incident).and_then(|suspect| suspect.node))),
            ("device", texts(incidents, |incident| first(incident).and_then(|suspect| suspect.device))),
            ("ranks", Arc::new(ranks.finish())),
            ("world_size", counts(incidents, |incident| incident.scope.map(|scope| scope.world_size))),
            ("summary", texts(incidents, |incident| Some(incident.summary.clone()))),
            ("false_alarms_per_week", floats(incidents, |incident| incident.false_alarms_per_week)),
            (
                "last_good_checkpoint",
                texts(incidents, |incident| {
                    incident.last_good_checkpoint.as_ref().map(|checkpoint| checkpoint.name.clone())
                }),
            ),
            ("merged_into", texts(incidents, |incident| incident.merged_into.as_ref().map(|id| id.0.clone()))),
            ("json", Arc::new(StringArray::from_iter_values(lines))),
        ],
    )
}

/// The table `verdicts`: the evidence of each incident, in its order.
pub(crate) fn verdicts(incidents: &[Incident]) -> RecordBatch {
    let of = |incident: &'_ Incident| {
        let incident = incident.clone();
        incident.evidence.clone().into_iter().map(move |evidence| (incident.clone(), evidence)).collect::<Vec<_>>()
    };
    let rows: Vec<(Incident, Evidence)> = incidents.iter().flat_map(of).collect();
    let figure = |pick: fn(&Evidence) -> Option<f64>| floats(&rows, move |(_, evidence)| pick(evidence));
    batch(
        "verdicts",
        vec![
            ("incident", texts(&rows, |(incident, _)| Some(incident.id.0.clone()))),
            ("run", texts(&rows, |(incident, _)| Some(incident.run.0.to_string()))),
            ("attempt", numbers(&rows, |(incident, _)| Some(incident.attempt.0))),
            ("kind", texts(&rows, |(incident, _)| word(&incident.kind))),
            ("detector", texts(&rows, |(_, evidence)| Some(evidence.detector.clone()))),
            ("metric", texts(&rows, |(_, evidence)| word(&evidence.metric))),
            ("step", steps(&rows, |(_, evidence)| evidence.step)),
            ("rank", numbers(&rows, |(_, evidence)| evidence.rank.map(|rank| rank.0))),
            ("observed", figure(|evidence| evidence.observed)),
            ("expected", figure(|evidence| evidence.expected)),
            ("low", figure(|evidence| evidence.low)),
            ("high", figure(|evidence| evidence.high)),
            ("log10_e", figure(|evidence| evidence.log10_e)),
            ("note", texts(&rows, |(_, evidence)| evidence.note.clone())),
        ],
    )
}

fn batch(table: &str, columns: Vec<NamedColumn>) -> RecordBatch {
    let fields: Vec<Field> =
        columns.iter().map(|(name, cells)| Field::new(*name, cells.data_type().clone(), true)).collect();
    let schema: SchemaRef = docs::documented(table, &Schema::new(fields));
    RecordBatch::try_new(schema, columns.into_iter().map(|(_, cells)| cells).collect()).expect("columns of one length")
}

/// The word that JSON has for a value.
fn word(value: &impl Serialize) -> Option<String> {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned))
}

fn texts<T>(rows: &[T], cell: impl Fn(&T) -> Option<String>) -> ArrayRef {
    Arc::new(rows.iter().map(cell).collect::<StringArray>())
}

fn numbers<T>(rows: &[T], cell: impl Fn(&T) -> Option<u32>) -> ArrayRef {
    Arc::new(rows.iter().map(cell).collect::<UInt32Array>())
}

fn counts<T>(rows: &[T], cell: impl Fn(&T) -> Option<u64>) -> ArrayRef {
    Arc::new(rows.iter().map(cell).collect::<UInt64Array>())
}

fn steps<T>(rows: &[T], cell: impl Fn(&T) -> Option<Step>) -> ArrayRef {
    counts(rows, |row| cell(row).map(|step| step.0))
}

fn times<T>(rows: &[T], cell: impl Fn(&T) -> Option<Timestamp>) -> ArrayRef {
    let times: TimestampNanosecondArray = rows.iter().map(|row| cell(row).map(|time| time.0)).collect();
    Arc::new(times.with_timezone("UTC"))
}

fn floats<T>(rows: &[T], cell: impl Fn(&T) -> Option<f64>) -> ArrayRef {
    Arc::new(rows.iter().map(cell).collect::<Float64Array>())
}
