//! What tables and columns mean; in the schema, and as the table `columns`.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};

/// The key of a column's doc in its metadata.
pub(crate) const DOC: &str = "doc";

/// What each table holds, and what questions can be asked of.
pub(crate) const TABLES: &[(&str, &str)] = &[
    ("samples", "one measured number a row"),
    ("collectives", "one rank's part in one communication call a row"),
    ("digests", "one fingerprint of something that should be equal somewhere a row"),
    ("events", "one change or act from an audit source, or one mark in the life of a run a row"),
    ("ranks", "where one rank runs and what it computes"),
    ("groups", "one member of one communicator a row"),
    ("incidents", "one incident a row, as it stands"),
    ("verdicts", "the figures that convict: one piece of evidence of one incident a row"),
    ("coverage", "what the archive holds: one table, run and day a row"),
    ("columns", "this list: one column of one table a row"),
];

/// What a column means; text that is the same in every table is given once.
pub fn of(table: &str, column: &str) -> Option<&'static str> {
    own(table, column).or_else(|| shared(column))
}

fn own(table: &str, column: &str) -> Option<&'static str> {
    Some(match (table, column) {
        ("samples", "rank") => "rank that measured; null = the whole run",
        ("samples", "value") => "the number, in the unit that ends the metric's name; NaN and infinities were logged",
        ("events", "source") => "who recorded it: a collector or an audit log",
        ("events", "kind") => "run_start, run_end, process_exit, checkpoint, ...; any other kind is an audit record",
        ("events", "subject") => "what it was done to",
        ("digests", "kind") => "weight, optimizer, gradient, batch, rng, code, config, env, checkpoint_saved, ...",
        ("digests", "name") => "what was fingerprinted: a bucket of weights, a checkpoint, a file",
        ("digests", "group") => "inside which group it must be equal; for checkpoints the parent run",
        ("incidents", "kind") => "what it is: family and kind, as in slowdown.rank",
        ("incidents", "rank") => "the first suspect; null = the whole run",
        ("incidents", "ranks") => "all suspects, most suspicious first",
        ("incidents", "node") => "host of the first suspect",
        ("incidents", "json") => "the whole incident as JSON",
        ("verdicts", "rank") => "rank that was judged",
        ("verdicts", "kind") => "kind of the incident",
        ("verdicts", "step") => "step that was judged",
        ("coverage", "rows") => "rows of all parts",
        ("coverage", "run") => "the run; null where the folder does not tell it",
        _ => return None,
    })
}

fn shared(column: &str) -> Option<&'static str> {
    Some(match column {
        "run" => "one training over all its restarts",
        "attempt" => "which launch of the run, from 0; null = 0",
        "rank" => "global index of a worker in the run",
        "step" => "optimizer step, from 0",
        "time" => "when it happened, UTC nanoseconds",
        "metric" => "what was measured; units last, SI",
        "received" => "append time of the log, UTC nanoseconds",
        "sender" => "agent that sent it",
        "sequence" => "number of the sender's batch",
        "date" => "day of log time, UTC: the folder of the part",
        "comm" => "communicator",
        "seq" => "number of the call in its communicator",
        "op" => "operation, as in all_reduce",
        "bytes" => "size in bytes",
        "signature" => "type and shape",
        "enqueued" => "when the call was put into the queue",
        "start" => "when it began to run; null = never",
        "end" => "when it ended; null = not finished",
        "peer" => "the other rank of a send or receive",
        "algo" => "algorithm of the library",
        "proto" => "protocol of the library",
        "digest" => "the fingerprint, hexadecimal",
        "actor" => "who did it, as the source wrote it",
        "node" => "host",
        "detail" => "more, as JSON",
        "device" => "GPU UUID",
        "local_rank" => "index on its host",
        "dp" => "data-parallel index",
        "tp" => "tensor-parallel index",
        "pp" => "pipeline-parallel index",
        "ep" => "expert-parallel index",
        "cp" => "context-parallel index",
        "id" | "incident" => "id of the incident",
        "severity" => "critical, warning or info",
        "state" => "open, acknowledged or resolved",
        "first_step" => "first step that belongs to it",
        "onset_step" => "when it began: best estimate",
        "onset_low" => "... not before",
        "onset_high" => "... not after",
        "detected_step" => "step that decided",
        "last_step" => "last step that belongs to it",
        "started_at" => "median over ranks of the time of the opening row",
        "detected_at" => "median over ranks of the time of the deciding row",
        "world_size" => "ranks known in the attempt",
        "summary" => "one sentence",
        "false_alarms_per_week" => "how many this strong a week gives with nothing wrong; null where a law was broken",
        "last_good_checkpoint" => "where to roll back to",
        "merged_into" => "the incident this one turned out to be part of",
        "detector" => "who judged",
        "observed" => "what was seen, in the unit of the metric, or a ratio where the detector's page says so",
        "expected" => "what was expected, in the same unit",
        "low" => "lower end of the normal band",
        "high" => "upper end of the normal band",
        "log10_e" => "decimal logarithm of the e-value against `nothing is wrong`; null where a law was broken",
        "note" => "in words, where the figures are no numbers",
        "table" => "the table",
        "rows" => "number of rows",
        "parts" => "number of files",
        "first" => "earliest log time",
        "last" => "latest log time",
        "column" => "the column",
        "type" => "its type",
        "doc" => "what it means",
        _ => return None,
    })
}

/// The metadata of a column.
pub(crate) fn metadata(table: &str, column: &str) -> HashMap<String, String> {
    of(table, column).map(|doc| (DOC.to_owned(), doc.to_owned())).into_iter().collect()
}

/// A schema whose columns say what they mean.
pub(crate) fn documented(table: &str, schema: &Schema) -> SchemaRef {
    let fields: Vec<Field> = schema
        .fields()
        .iter()
        .map(|field| field.as_ref().clone().with_metadata(metadata(table, field.name())))
        .collect();
    Arc::new(Schema::new(fields))
}

/// The table `columns` over the tables given, in their order.
pub(crate) fn columns(tables: &[(&str, SchemaRef)]) -> RecordBatch {
    let names = ["table", "column", "type", "doc"];
    let mut cells: [Vec<String>; 4] = Default::default();
    for (table, schema) in tables {
        for field in schema.fields() {
            let doc = field.metadata().get(DOC).cloned().unwrap_or_default();
            let row = [(*table).to_owned(), field.name().clone(), type_name(field.data_type()), doc];
            cells.iter_mut().zip(row).for_each(|(cells, cell)| cells.push(cell));
        }
    }
    let columns = cells.into_iter().map(|cells| Arc::new(StringArray::from(cells)) as ArrayRef).collect();
    RecordBatch::try_new(columns_schema(&names), columns).expect("four columns of one length")
}

/// The schema of the table `columns`.
pub(crate) fn columns_schema(names: &[&str]) -> SchemaRef {
    let fields: Vec<Field> = names.iter().map(|name| Field::new(*name, DataType::Utf8, false)).collect();
    documented("columns", &Schema::new(fields))
}

fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Utf8 => "text".to_owned(),
        DataType::UInt32 => "u32".to_owned(),
        DataType::UInt64 => "u64".to_owned(),
        DataType::Float64 => "f64".to_owned(),
        DataType::Date32 => "date".to_owned(),
        DataType::Timestamp(..) => "timestamp(ns, UTC)".to_owned(),
        DataType::List(item) => format!("list of {}", type_name(item.data_type())),
        other => other.to_string(),
    }
}
