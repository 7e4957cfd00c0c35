//! Tables with a row a rank and step: sums of a trace, and mini-batch times of workers.

use std::collections::{BTreeMap, BTreeSet};

use super::table::{CsvFile, index, number, whole};
use super::trace::{Launches, NANOSECONDS_PER_SECOND, Places};
use super::{ImportError, Sink, civil, metric_name};
use crate::SampleOut;

/// Column of a sum, and its metric.
const OWN_WORK: [(&str, &str); 3] =
    [("forward_s", "forward_time_s"), ("backward_s", "backward_time_s"), ("optimizer_s", "optimizer_time_s")];
/// What the name of a communication column contains.
const COMMUNICATION: [&str; 5] = ["reduce", "gather", "scatter", "send", "recv"];

/// Sums a rank and step: `step,rank,forward_s,backward_s,…,step_span_s`.
#[derive(Default)]
pub(super) struct StepSums {
    steps: BTreeMap<(u32, u64), StepRows>,
    places: Places,
    launches: Launches,
}

#[derive(Default)]
struct StepRows {
    span_s: Option<f64>,
    /// Rank, metric, value.
    values: Vec<(u32, &'static str, f64)>,
}

impl StepSums {
    pub(super) fn read(&mut self, mut file: CsvFile, sink: &mut Sink<'_>) {
        while let Some(line) = file.next_line(&mut sink.report) {
            if let Err(reason) = self.add(&file) {
                sink.report.set_row_aside(&file.path, format!("line {line}"), reason);
            }
        }
    }

    fn add(&mut self, file: &CsvFile) -> Result<(), String> {
        let text = |name: &str| file.column(name).map_or("", |column| file.cell(column));
        let step = whole(text("step"))?.ok_or("the step is empty")?;
        let rank = index(text("rank"))?.ok_or("the rank is empty")?;
        let span_s = number(text("step_span_s"))?.filter(|span| span.is_finite() && *span >= 0.0);
        let mut values = Vec::new();
        for (column, metric) in OWN_WORK {
            values.extend(number(text(column))?.map(|value| (rank, metric, value)));
        }
        values.extend(communication_s(file)?.map(|value| (rank, "comm_time_s", value)));
        self.places.learn(file, rank)?;
        let rows = self.steps.entry((self.launches.attempt(rank, step), step)).or_default();
        rows.values.extend(values);
        rows.span_s = match (rows.span_s, span_s) {
            (Some(a), Some(b)) => Some(a.max(b)),
            (a, b) => a.or(b),
        };
        Ok(())
    }

    pub(super) fn write(self, run: &str, sink: &mut Sink<'_>) -> Result<(), ImportError> {
        let attempts: BTreeSet<u32> = self.steps.keys().map(|&(attempt, _)| attempt).collect();
        self.places.write(run, &attempts, sink)?;
        // Without the length of every step there is no clock.
        let has_clock = self.steps.values().all(|rows| rows.span_s.is_some());
        let mut clock = 0_i64;
        for ((attempt, step), mut rows) in self.steps {
            let span_s = rows.span_s.unwrap_or(0.0);
            clock = clock.saturating_add((span_s * NANOSECONDS_PER_SECOND).round() as i64);
            let time = has_clock.then_some(clock);
            let whole =
                SampleOut { run, attempt, rank: None, step: Some(step), time, metric: "step_time_s", value: span_s };
            if rows.span_s.is_some() {
                sink.sample(&whole)?;
            }
            // The sort keeps the order of columns inside a rank.
            rows.values.sort_by_key(|&(rank, _, _)| rank);
            for (rank, metric, value) in rows.values {
                sink.sample(&SampleOut { rank: Some(rank), metric, value, ..whole })?;
            }
        }
        Ok(())
    }
}

fn communication_s(file: &CsvFile) -> Result<Option<f64>, String> {
    let is_communication = |name: &str| name.ends_with("_s") && COMMUNICATION.iter().any(|part| name.contains(part));
    let mut total = None;
    for (column, name) in file.header.iter().enumerate() {
        if let Some(seconds) = number(file.cell(column))?.filter(|_| is_communication(name)) {
            total = Some(total.unwrap_or(0.0) + seconds);
        }
    }
    Ok(total)
}

/// Mini-batch tables: `time,worker,batch_time_norm`, workers that report at the same times.
///
/// They have no step. The distinct times, ascending, are numbered as steps, so that the workers of one time align.
#[derive(Default)]
pub(super) struct MiniBatches {
    /// Time in nanoseconds, then worker, metric, value in the order of the file.
    times: BTreeMap<i64, Vec<(u32, String, f64)>>,
}

impl MiniBatches {
    pub(super) fn read(&mut self, mut file: CsvFile, sink: &mut Sink<'_>) {
        while let Some(line) = file.next_line(&mut sink.report) {
            if let Err(reason) = self.add(&file) {
                sink.report.set_row_aside(&file.path, format!("line {line}"), reason);
            }
        }
    }

    fn add(&mut self, file: &CsvFile) -> Result<(), String> {
        let text = |name: &str| file.column(name).map_or("", |column| file.cell(column));
        let time = civil::nanoseconds(text("time"), None).ok_or_else(|| format!("`{}` is no time", text("time")))?;
        let rank = index(text("worker"))?.ok_or("the worker is empty")?;
        let mut values = Vec::new();
        for (column, name) in file.header.iter().enumerate().filter(|(_, name)| *name != "time" && *name != "worker") {
            values.extend(number(file.cell(column))?.map(|value| (rank, metric_name(name), value)));
        }
        self.times.entry(time).or_default().extend(values);
        Ok(())
    }

    pub(super) fn write(self, run: &str, sink: &mut Sink<'_>) -> Result<(), ImportError> {
        if !self.times.is_empty() {
            sink.report.note("the distinct times of the workers were numbered as steps from 0".to_owned());
        }
        for (step, (time, values)) in (0..).zip(self.times) {
            for (rank, metric, value) in values {
                let (rank, step, time) = (Some(rank), Some(step), Some(time));
                sink.sample(&SampleOut { run, attempt: 0, rank, step, time, metric: &metric, value })?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::import::ImportSource;
    use crate::import::testing::imported;

    #[test]
    fn sums_become_the_metrics_of_a_trace() {
        let text = "step,rank,dp_rank,stage,forward_s,backward_s,grad_reduce_s,param_gather_s,optimizer_s,step_span_s\n\
            16,0,0,0,2,3,0.25,0.5,0.1,6\n16,4,1,0,1,,0.25,0.25,0.1,6\n21,0,0,0,2,3,0,0,0.1,5\n21,4,1,0,oops,3,0,0,0.1,5\n";
        let folder = imported(&ImportSource::Trace, &[("s.csv", text)], None);
        let expected = "s,0,,16,6000000000,step_time_s,6.0\n\
            s,0,0,16,6000000000,forward_time_s,2.0\ns,0,0,16,6000000000,backward_time_s,3.0\n\
            s,0,0,16,6000000000,optimizer_time_s,0.1\ns,0,0,16,6000000000,comm_time_s,0.75\n\
            s,0,4,16,6000000000,forward_time_s,1.0\ns,0,4,16,6000000000,optimizer_time_s,0.1\n\
            s,0,4,16,6000000000,comm_time_s,0.5\n\
            s,0,,21,11000000000,step_time_s,5.0\n\
            s,0,0,21,11000000000,forward_time_s,2.0\ns,0,0,21,11000000000,backward_time_s,3.0\n\
            s,0,0,21,11000000000,optimizer_time_s,0.1\ns,0,0,21,11000000000,comm_time_s,0.0\n";
        assert_eq!(folder.rows("samples"), expected);
        assert_eq!(folder.rows("ranks").lines().count(), 2);
        assert_eq!(folder.report.aside[0].place, "line 5");
    }

    #[test]
    fn workers_of_one_time_are_one_step() {
        let text = "time,worker,batch_time_norm\n1.0,0,476.0\n1.0,1,509.0\n11.0,1,490\n11.0,0,\n11.0,x,1\n";
        let folder = imported(&ImportSource::Trace, &[("job_1.csv", text)], None);
        let expected = "job_1,0,0,0,1000000000,batch_time_norm,476.0\njob_1,0,1,0,1000000000,batch_time_norm,509.0\n\
            job_1,0,1,1,11000000000,batch_time_norm,490.0\n";
        assert_eq!(folder.rows("samples"), expected);
        assert_eq!(folder.report.rows_aside, 1);
    }
}
