//! CSV of `timestamp,value`: one measured quantity over time, without steps.

use std::path::PathBuf;

use super::table::{CsvFile, number};
use super::{ImportError, Sink, TimeUnit, civil, metric_name, stem};
use crate::SampleOut;

/// Names of the value column, best first.
const VALUES: [&str; 3] = ["value", "y", "metric"];
/// Names of the time column, best first.
const TIMES: [&str; 6] = ["timestamp", "time", "datetime", "date", "ds", "t"];

/// How a series is read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SeriesOptions {
    /// Metric of the values; without it the file's name is the metric.
    pub metric: Option<String>,
    /// Unit of times that are numbers; without it their size tells.
    pub time_unit: Option<TimeUnit>,
}

/// Reads series files into samples with a time and no step.
pub(super) fn read(
    options: &SeriesOptions,
    files: &[PathBuf],
    run: Option<&str>,
    sink: &mut Sink<'_>,
) -> Result<(), ImportError> {
    for path in files {
        let Some(file) = CsvFile::open(path, &mut sink.report)? else { continue };
        let stem = stem(path);
        let metric = options.metric.clone().unwrap_or_else(|| metric_name(&stem));
        read_file(file, options.time_unit, (run.unwrap_or(&stem), &metric), sink)?;
    }
    Ok(())
}

fn read_file(
    mut file: CsvFile,
    unit: Option<TimeUnit>,
    (run, metric): (&str, &str),
    sink: &mut Sink<'_>,
) -> Result<(), ImportError> {
    let (time_column, value_column) = columns(&file)?;
    while let Some(line) = file.next_line(&mut sink.report) {
        let time_text = file.cell(time_column);
        let time = civil::nanoseconds(time_text, unit).ok_or_else(|| format!("`{time_text}` is no time"));
        let value_text = file.cell(value_column);
        match time.and_then(|time| Ok((time, number(value_text)?))) {
            Ok((_, None)) => {}
            Ok((time, Some(value))) => {
                let time = Some(time);
                sink.sample(&SampleOut { run, attempt: 0, rank: None, step: None, time, metric, value })?;
            }
            Err(reason) => sink.report.set_row_aside(&file.path, format!("line {line}"), reason),
        }
    }
    Ok(())
}

/// The columns of time and value: by name, else the first and the second of exactly two.
fn columns(file: &CsvFile) -> Result<(usize, usize), ImportError> {
    let find = |names: &[&str]| {
        names.iter().find_map(|name| file.header.iter().position(|column| column.eq_ignore_ascii_case(name)))
    };
    let value = find(&VALUES).or_else(|| (file.header.len() == 2).then_some(1));
    let time = find(&TIMES).or_else(|| (file.header.len() == 2).then_some(0));
    match (time, value) {
        (Some(time), Some(value)) if time != value => Ok((time, value)),
        _ => Err(ImportError::UnknownLayout {
            path: file.path.clone(),
            what: "series",
            columns: file.columns_quoted(),
            accepted: "`timestamp,value`",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::ImportSource;
    use crate::import::testing::{imported, try_import};

    fn source() -> ImportSource {
        ImportSource::Series(SeriesOptions::default())
    }

    #[test]
    fn a_series_has_times_and_no_steps_and_is_named_after_its_file() {
        let text = "timestamp,value\n2014-02-14 14:30:00,0.5\n1392388500,nan\noops,1\n2014-02-14 14:40:00,x\n2014-02-14 14:45:00,\n";
        let folder = imported(&source(), &[("cpu-Load.csv", text)], None);
        let expected = "cpu-Load,0,,,1392388200000000000,cpu_load,0.5\ncpu-Load,0,,,1392388500000000000,cpu_load,NaN\n";
        assert_eq!(folder.rows("samples"), expected);
        assert_eq!((folder.report.rows_read, folder.report.rows_aside), (5, 2));
    }

    #[test]
    fn a_table_with_more_columns_is_no_series() {
        assert!(try_import(&source(), &[("a.csv", "step,loss,lr\n0,1,1\n")], None).is_err());
        let options = SeriesOptions { metric: Some("gpu_temp_c".into()), time_unit: None };
        let folder = imported(&ImportSource::Series(options), &[("a.csv", "when,what\n0,1\n")], Some("r"));
        assert_eq!(folder.rows("samples"), "r,0,,,0,gpu_temp_c,1.0\n");
    }
}
