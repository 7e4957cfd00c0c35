//! CSV with a row a step and a column a metric.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::preset::Plan;
use super::table::{CsvFile, index, number, whole};
use super::{ImportError, ImportReport, Preset, Sink, TimeUnit, civil, stem};
use crate::SampleOut;

/// Rows read to tell columns of words from columns of numbers.
const LOOK_AHEAD_ROWS: usize = 1_000;
/// Times below this count from the start of a run, not from 1970: no log of ours is from the year 1970.
const EPOCH_NS_MIN: i64 = 31_536_000_000_000_000;

/// How a wide CSV is read; the default goes by the names of its columns.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WideOptions {
    /// Column and metric; with any, only these columns become metrics, unless a preset is named too.
    pub maps: Vec<(String, String)>,
    /// Column of the step.
    pub step: Option<String>,
    /// Column of the time.
    pub time: Option<String>,
    /// Unit of the time column's numbers; without it the column's name or the size of the numbers tells.
    pub time_unit: Option<TimeUnit>,
    /// Column that names the run: many runs in one file.
    pub run_column: Option<String>,
    /// Column of the rank.
    pub rank_column: Option<String>,
    /// Layout the files must have.
    pub preset: Option<Preset>,
}

/// Reads wide CSV files into samples.
pub(super) fn read(
    options: &WideOptions,
    files: &[PathBuf],
    run: Option<&str>,
    sink: &mut Sink<'_>,
) -> Result<(), ImportError> {
    let mut attempts = Attempts::default();
    for path in files {
        let Some(file) = CsvFile::open(path, &mut sink.report)? else { continue };
        let is_text = text_columns(path)?;
        let plan = Plan::new(options, &file, &is_text, &mut sink.report)?;
        note_guesses(options, &plan, &file, &mut sink.report);
        let name = run.map_or_else(|| stem(path), str::to_owned);
        // A name that was given stands above those in the file, unless the column was asked for too.
        let is_run_given = run.is_some() && options.run_column.is_none();
        let plan = Plan { run: plan.run.filter(|_| !is_run_given), ..plan };
        WideFile { file, plan, name }.read(&mut attempts, sink)?;
    }
    Ok(())
}

/// For each column, true when none of its first cells is a number and one is a word.
fn text_columns(path: &Path) -> Result<Vec<bool>, ImportError> {
    // What is broken here is met again, and reported, when the rows are read.
    let mut unreported = ImportReport::default();
    let Some(mut file) = CsvFile::open(path, &mut unreported)? else { return Ok(Vec::new()) };
    let mut has_number = vec![false; file.header.len()];
    let mut has_word = vec![false; file.header.len()];
    for _ in 0..LOOK_AHEAD_ROWS {
        if file.next_line(&mut unreported).is_none() {
            break;
        }
        for column in 0..file.header.len() {
            match number(file.cell(column)) {
                Ok(Some(_)) => has_number[column] = true,
                Ok(None) => {}
                Err(_) => has_word[column] = true,
            }
        }
    }
    Ok(has_word.into_iter().zip(has_number).map(|(word, number)| word && !number).collect())
}

fn note_guesses(options: &WideOptions, plan: &Plan, file: &CsvFile, report: &mut ImportReport) {
    let mut guess = |what: &str, given: &Option<String>, column: Option<usize>| {
        if let (None, Some(column)) = (given, column) {
            report.note(format!("column `{}` was taken as the {what}", file.header[column]));
        }
    };
    guess("step", &options.step, plan.step);
    guess("time", &options.time, plan.time.map(|(column, _)| column));
    guess("run", &options.run_column, plan.run);
    guess("rank", &options.rank_column, plan.rank);
    if plan.step.is_none() && plan.time.is_none() {
        report.note("no column is a step or a time: the rows are numbered from 0".to_owned());
    }
}

struct WideFile {
    file: CsvFile,
    plan: Plan,
    name: String,
}

/// Where a row belongs.
struct Key {
    rank: Option<u32>,
    step: Option<u64>,
    time: Option<i64>,
}

impl WideFile {
    fn read(mut self, attempts: &mut Attempts, sink: &mut Sink<'_>) -> Result<(), ImportError> {
        let mut row = 0;
        while let Some(line) = self.file.next_line(&mut sink.report) {
            match self.key(row) {
                Ok(key) => self.write(line, key, attempts, sink)?,
                Err(reason) => sink.report.set_row_aside(&self.file.path, format!("line {line}"), reason),
            }
            row += 1;
        }
        Ok(())
    }

    fn key(&self, row: u64) -> Result<Key, String> {
        let rank = self.plan.rank.map_or(Ok(None), |column| index(self.file.cell(column)))?;
        let time = self.plan.time.map_or(Ok(None), |(column, unit)| time(self.file.cell(column), unit))?;
        let step = match self.plan.step {
            Some(column) => whole(self.file.cell(column)).map_err(|reason| format!("step: {reason}"))?,
            None if self.plan.time.is_none() => Some(row),
            None => None,
        };
        if step.is_none() && time.is_none() {
            return Err("the row has neither a step nor a time".to_owned());
        }
        Ok(Key { rank, step, time })
    }

    fn write(&self, line: u64, key: Key, attempts: &mut Attempts, sink: &mut Sink<'_>) -> Result<(), ImportError> {
        let cell = self.plan.run.map_or("", |column| self.file.cell(column));
        let run = if cell.is_empty() { self.name.as_str() } else { cell };
        let (attempt, time) = attempts.of(run, &key);
        for metric in &self.plan.metrics {
            let value = match number(self.file.cell(metric.column)) {
                Ok(None) => continue,
                Ok(Some(value)) => value * metric.scale,
                Err(reason) => {
                    let place = format!("line {line}, column `{}`", self.file.header[metric.column]);
                    sink.report.set_cell_aside(&self.file.path, place, reason);
                    continue;
                }
            };
            let (rank, step, metric) = (key.rank, key.step, metric.metric.as_str());
            sink.sample(&SampleOut { run, attempt, rank, step, time, metric, value })?;
        }
        Ok(())
    }
}

fn time(text: &str, unit: Option<TimeUnit>) -> Result<Option<i64>, String> {
    if super::table::is_missing(text) {
        return Ok(None);
    }
    civil::nanoseconds(text, unit).map(Some).ok_or_else(|| format!("`{text}` is no time"))
}

/// Counts launches: where the step of a rank falls back, a new one has begun.
#[derive(Default)]
struct Attempts {
    runs: BTreeMap<String, BTreeMap<Option<u32>, Launch>>,
}

#[derive(Clone, Copy, Default)]
struct Launch {
    attempt: u32,
    step: u64,
    /// Time as read, of the row before.
    raw_time: i64,
    /// Latest time written.
    latest_time: i64,
    /// What is added to a clock that began again, so that log time goes on.
    offset: i64,
}

impl Attempts {
    /// The launch a row belongs to, and its time on a clock that goes on over launches.
    fn of(&mut self, run: &str, key: &Key) -> (u32, Option<i64>) {
        if !self.runs.contains_key(run) {
            self.runs.insert(run.to_owned(), BTreeMap::new());
        }
        let ranks = self.runs.get_mut(run).expect("inserted above");
        let launch = ranks.entry(key.rank).or_default();
        if let Some(step) = key.step {
            if step < launch.step {
                launch.attempt = launch.attempt.saturating_add(1);
            }
            launch.step = step;
        }
        (launch.attempt, key.time.map(|time| launch.continued(time)))
    }
}

impl Launch {
    /// `time` on a clock that goes on where a clock of the run's own begins again: in each launch, and in some logs
    /// after warm-up. A clock that falls back by less than half is only uneven.
    fn continued(&mut self, time: i64) -> i64 {
        if time < self.raw_time / 2 && self.raw_time < EPOCH_NS_MIN {
            self.offset = self.latest_time;
        }
        self.raw_time = time;
        let time = time.saturating_add(self.offset);
        self.latest_time = self.latest_time.max(time);
        time
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::import::testing::{Folder, imported, options_import};

    const LOG: &str = "step,t_s,step_time_s,train_loss,lr,note\n0,0.0,,2.5,1e-3,ok\n1.0,0.5,0.5,nan,1e-3,ok\n";

    fn wide(text: &str) -> Folder {
        imported(&crate::import::ImportSource::Wide(WideOptions::default()), &[("log.csv", text)], None)
    }

    #[test]
    fn columns_become_metrics_by_their_names() {
        let folder = wide(LOG);
        let expected = "log,0,,0,0,loss,2.5\nlog,0,,0,0,learning_rate,0.001\n\
                        log,0,,1,500000000,step_time_s,0.5\nlog,0,,1,500000000,loss,NaN\nlog,0,,1,500000000,learning_rate,0.001\n";
        assert_eq!(folder.rows("samples"), expected);
        assert_eq!((folder.report.rows_read, folder.report.rows_aside, folder.report.cells_aside), (2, 0, 0));
        assert!(folder.report.notes.contains(&"column `note` holds text and was left out".to_owned()));
    }

    #[test]
    fn broken_rows_and_cells_are_set_aside_and_the_rest_is_kept() {
        let folder = wide("step,loss,lr\n0,1,1\nx,1,1\n1.5,1,1\n2,oops,1\n3\n,9,9\n4,1,1\n");
        let places: Vec<&str> = folder.report.aside.iter().map(|aside| aside.place.as_str()).collect();
        assert_eq!(places, ["line 3", "line 4", "line 5, column `loss`", "line 6", "line 7"]);
        assert_eq!((folder.report.rows_read, folder.report.rows_aside, folder.report.cells_aside), (7, 4, 1));
        assert_eq!(folder.rows("samples").lines().count(), 5);
    }

    #[test]
    fn attempts_count_up_where_steps_fall_back_and_their_clock_goes_on() {
        let folder = wide("step,t_s,loss\n0,0,1\n1,1,1\n0,0,1\n1,1,1\n");
        let expected = "log,0,,0,0,loss,1\nlog,0,,1,1000000000,loss,1\n\
                        log,1,,0,1000000000,loss,1\nlog,1,,1,2000000000,loss,1\n";
        assert_eq!(folder.rows("samples").replace(".0\n", "\n"), expected);
    }

    #[test]
    fn a_clock_that_begins_again_after_warm_up_goes_on_and_an_uneven_one_is_left() {
        let times = |text: &str| -> Vec<String> {
            let rows = wide(text).rows("samples");
            rows.lines().map(|row| row.split(',').nth(4).unwrap_or_default().replace("000000000", "")).collect()
        };
        assert_eq!(times("step,t_s,loss\n0,30,1\n1,31,1\n2,1,1\n3,2,1\n"), ["30", "31", "32", "33"]);
        assert_eq!(times("step,t_s,loss\n0,30,1\n1,29,1\n2,31,1\n"), ["30", "29", "31"]);
    }

    #[test]
    fn ranks_that_follow_each_other_in_the_file_are_one_attempt() {
        let folder = wide("rank,step,loss\n0,0,1\n0,1,1\n1,0,1\n1,1,1\n");
        assert!(folder.rows("samples").lines().all(|line| line.starts_with("log,0,")), "{}", folder.rows("samples"));
    }

    #[test]
    fn a_run_column_makes_many_runs_of_one_file_unless_a_name_is_given() {
        let text = "job,iteration,cov\na,0,1\nb,0,1\n";
        assert!(wide(text).rows("samples").contains("\nb,0,,0,,cov"));
        let source = crate::import::ImportSource::Wide(WideOptions::default());
        let folder = imported(&source, &[("log.csv", text)], Some("one"));
        assert!(folder.rows("samples").lines().all(|line| line.starts_with("one,0,")));
    }

    #[test]
    fn only_mapped_columns_are_read_and_a_missing_one_is_an_error() {
        let map = |column: &str| WideOptions { maps: vec![(column.into(), "loss".into())], ..Default::default() };
        let folder = options_import(map("train_loss"), LOG).expect("the column is there");
        assert_eq!(folder.rows("samples").lines().count(), 2);
        let error = options_import(map("valid_loss"), LOG).expect_err("the column is not there");
        assert!(matches!(error, ImportError::NoColumn { ref column, .. } if column == "valid_loss"), "{error}");
    }

    #[test]
    fn named_columns_win_and_a_preset_refuses_other_layouts() {
        let options = WideOptions {
            step: Some("epoch".into()),
            time: Some("when".into()),
            time_unit: Some(TimeUnit::Milliseconds),
            rank_column: Some("gpu".into()),
            ..WideOptions::default()
        };
        let folder = options_import(options, "epoch,when,gpu,step\n3,2,1,0.5\n").expect("the columns are there");
        assert_eq!(folder.rows("samples"), "log,0,1,3,2000000,step,0.5\n");
        let preset = Preset::from_name("megatron").expect("a preset");
        let error = options_import(WideOptions { preset: Some(preset), ..WideOptions::default() }, LOG);
        assert!(matches!(error, Err(ImportError::NoColumn { ref column, .. }) if column == "num_zeros"), "{error:?}");
    }

    #[test]
    fn a_file_without_step_and_time_is_numbered_and_one_with_tokens_only_has_them_as_step() {
        assert_eq!(wide("loss\n3\n2\n").rows("samples").replace(".0\n", "\n"), "log,0,,0,,loss,3\nlog,0,,1,,loss,2\n");
        let folder = wide("tokens,val_loss_pile\n1048576,3.5\n");
        assert_eq!(folder.rows("samples"), "log,0,,1048576,,val_loss_pile,3.5\n");
    }

    #[test]
    fn an_empty_file_is_set_aside() {
        assert_eq!(wide("").report.rows_aside, 1);
        assert_eq!(wide("step,loss\n").report.rows_aside, 0);
    }
}
