//! Which column of a wide CSV means what: one table of aliases for all layouts, and the layouts known by name.

use super::table::{CsvFile, quoted};
use super::{ImportError, ImportReport, TimeUnit, WideOptions, metric_name};

/// Columns that hold the step, best first. The last ones count samples or tokens: an x axis where nothing better is.
const STEPS: &[&str] = &[
    "step",
    "global_step",
    "train_step",
    "training_step",
    "trainer_global_step",
    "steps",
    "iteration",
    "iter",
    "iterations",
    "itr",
    "update",
    "num_updates",
    "batch",
    "tokens",
    "tokens_seen",
    "consumed_tokens",
    "samples",
    "samples_seen",
    "consumed_samples",
];

/// Columns that hold the time, best first, with the unit of their numbers where the name tells it.
const TIMES: &[(&str, Option<TimeUnit>)] = &[
    ("time_ns", Some(TimeUnit::Nanoseconds)),
    ("t_ns", Some(TimeUnit::Nanoseconds)),
    ("timestamp_ns", Some(TimeUnit::Nanoseconds)),
    ("time_us", Some(TimeUnit::Microseconds)),
    ("timestamp_us", Some(TimeUnit::Microseconds)),
    ("time_ms", Some(TimeUnit::Milliseconds)),
    ("t_ms", Some(TimeUnit::Milliseconds)),
    ("timestamp_ms", Some(TimeUnit::Milliseconds)),
    ("timestamp", None),
    ("datetime", None),
    ("date", None),
    ("time", None),
    ("t_s", Some(TimeUnit::Seconds)),
    ("time_s", Some(TimeUnit::Seconds)),
    ("timestamp_s", Some(TimeUnit::Seconds)),
    ("elapsed_s", Some(TimeUnit::Seconds)),
    ("wall_time", None),
    ("wall_time_s", Some(TimeUnit::Seconds)),
    ("walltime", None),
];

/// Columns that name the run.
const RUNS: &[&str] = &["run", "run_id", "run_name", "job", "job_id", "job_name", "experiment", "experiment_name"];

/// Columns that hold the rank.
const RANKS: &[&str] = &["rank", "global_rank", "worker", "worker_id", "worker_rank"];

const AS_IT_IS: f64 = 1.0;
const MILLISECONDS: f64 = 1e-3;

/// Columns with a metric of the contract: alias, metric, and what its numbers are multiplied with.
const METRICS: &[(&str, &str, f64)] = &[
    ("train_loss", "loss", AS_IT_IS),
    ("training_loss", "loss", AS_IT_IS),
    ("lm_loss", "loss", AS_IT_IS),
    ("reduced_train_loss", "loss", AS_IT_IS),
    ("lr", "learning_rate", AS_IT_IS),
    ("train_lr", "learning_rate", AS_IT_IS),
    ("train_learning_rate", "learning_rate", AS_IT_IS),
    ("gradient_norm", "grad_norm", AS_IT_IS),
    ("global_grad_norm", "grad_norm", AS_IT_IS),
    ("train_grad_norm", "grad_norm", AS_IT_IS),
    ("gnorm", "grad_norm", AS_IT_IS),
    ("params_norm", "param_norm", AS_IT_IS),
    ("train_loss_scale", "loss_scale", AS_IT_IS),
    ("step_time", "step_time_s", AS_IT_IS),
    ("iteration_time", "step_time_s", AS_IT_IS),
    ("iteration_time_s", "step_time_s", AS_IT_IS),
    ("elapsed_time_per_iteration_s", "step_time_s", AS_IT_IS),
    ("train_step_timing_in_s", "step_time_s", AS_IT_IS),
    ("step_time_ms", "step_time_s", MILLISECONDS),
    ("iteration_time_ms", "step_time_s", MILLISECONDS),
    ("elapsed_time_per_iteration_ms", "step_time_s", MILLISECONDS),
    ("data_time", "data_time_s", AS_IT_IS),
    ("data_time_ms", "data_time_s", MILLISECONDS),
    ("samples", "samples_total", AS_IT_IS),
    ("samples_seen", "samples_total", AS_IT_IS),
    ("consumed_samples", "samples_total", AS_IT_IS),
    ("tokens_seen", "tokens_total", AS_IT_IS),
    ("consumed_tokens", "tokens_total", AS_IT_IS),
];

/// A layout known by name. It says which columns a file must have; what they mean is in the one table of aliases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preset {
    /// Name.
    pub name: &'static str,
    /// Columns without which a file is not of this layout.
    pub needs: &'static [&'static str],
    /// Further columns it may have.
    pub may_have: &'static [&'static str],
}

impl Preset {
    /// Every preset; a file without a named one is told to be of the first that fits.
    pub const ALL: &'static [Self] = &[
        Self {
            name: "bigscience",
            needs: &["step", "samples", "global_batch", "train_loss"],
            may_have: &["step_time_s", "lr", "loss_scale", "grad_norm"],
        },
        Self {
            name: "megatron",
            needs: &["step", "train_loss", "num_zeros"],
            may_have: &["run", "step_time_s", "lr", "loss_scale", "grad_norm", "samples"],
        },
        Self {
            name: "mlperf",
            needs: &["step", "train_loss", "samples"],
            may_have: &["t_s", "step_time_s", "lr", "eval_metric"],
        },
        Self {
            name: "mlperf-maskrcnn",
            needs: &["step", "data_time_s", "train_loss"],
            may_have: &["t_s", "step_time_s", "lr"],
        },
        Self {
            name: "mlperf-unet3d",
            needs: &["step", "throughput_samples_s"],
            may_have: &["t_s", "loss_scale", "lr", "eval_dice"],
        },
        Self { name: "modded-nanogpt", needs: &["step", "val_loss"], may_have: &["t_s", "step_time_s", "train_loss"] },
        Self {
            name: "parameter-golf",
            needs: &["step", "train_loss"],
            may_have: &["t_s", "step_time_s", "grad_norm", "tokens_per_s", "lr"],
        },
        Self {
            name: "olmo-eval",
            needs: &["tokens", "val_loss_c4_en"],
            may_have: &[
                "val_loss_dolma_books",
                "val_loss_dolma_common_crawl",
                "val_loss_dolma_pes2o",
                "val_loss_dolma_reddit",
                "val_loss_dolma_stack",
                "val_loss_dolma_wiki",
                "val_loss_ice",
                "val_loss_m2d2_s2orc",
                "val_loss_pile",
                "val_loss_wikitext_103",
            ],
        },
        Self { name: "deepspeed-chat", needs: &["step", "samples_per_s"], may_have: &["step_time_s", "train_loss"] },
    ];

    /// The preset of this name.
    ///
    /// # Errors
    /// [`ImportError::UnknownPreset`] with the names there are.
    pub fn from_name(name: &str) -> Result<Self, ImportError> {
        let unknown = || {
            let names: Vec<&str> = Self::ALL.iter().map(|preset| preset.name).collect();
            ImportError::UnknownPreset { name: name.to_owned(), accepted: quoted(&names) }
        };
        Self::ALL.iter().find(|preset| preset.name == name).copied().ok_or_else(unknown)
    }

    /// The first preset that needs nothing the header lacks and knows everything it has.
    #[must_use]
    pub fn of_header(header: &[String]) -> Option<Self> {
        let is_known = |preset: &Self, name: &str| preset.needs.contains(&name) || preset.may_have.contains(&name);
        let fits = |preset: &&Self| {
            preset.needs.iter().all(|need| header.iter().any(|name| name == need))
                && header.iter().all(|name| is_known(preset, name))
        };
        Self::ALL.iter().find(fits).copied()
    }
}

/// A column that holds a metric.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct MetricColumn {
    pub(super) column: usize,
    pub(super) metric: String,
    pub(super) scale: f64,
}

/// What each column of one file is; indices into its header.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Plan {
    pub(super) step: Option<usize>,
    pub(super) time: Option<(usize, Option<TimeUnit>)>,
    pub(super) run: Option<usize>,
    pub(super) rank: Option<usize>,
    pub(super) metrics: Vec<MetricColumn>,
}

impl Plan {
    /// What the columns of `file` are: as the options say, else as their names say.
    ///
    /// * `is_text`: for each column, whether it holds words; such a column is no metric unless it was asked for.
    pub(super) fn new(
        options: &WideOptions,
        file: &CsvFile,
        is_text: &[bool],
        report: &mut ImportReport,
    ) -> Result<Self, ImportError> {
        let clean: Vec<String> = file.header.iter().map(|name| metric_name(name)).collect();
        let first_of = |aliases: &[&str]| aliases.iter().find_map(|alias| clean.iter().position(|name| name == alias));
        check_preset(options, file, report)?;
        let given = |column: &Option<String>| column.as_deref().map(|name| asked(file, name)).transpose();
        let mut plan = Self {
            step: given(&options.step)?.or_else(|| first_of(STEPS)),
            time: given(&options.time)?.map(|column| (column, options.time_unit)),
            run: given(&options.run_column)?.or_else(|| first_of(RUNS)),
            rank: given(&options.rank_column)?.or_else(|| first_of(RANKS)),
            metrics: Vec::new(),
        };
        if plan.time.is_none() {
            let named =
                TIMES.iter().find_map(|(alias, unit)| Some((clean.iter().position(|name| name == alias)?, *unit)));
            plan.time = named.map(|(column, unit)| (column, options.time_unit.or(unit)));
        }
        plan.add_mapped(options, file)?;
        if options.maps.is_empty() || options.preset.is_some() {
            plan.add_named(&clean, is_text, report, file);
        }
        Ok(plan)
    }

    fn add_mapped(&mut self, options: &WideOptions, file: &CsvFile) -> Result<(), ImportError> {
        for (name, metric) in &options.maps {
            let column = asked(file, name)?;
            self.metrics.push(MetricColumn { column, metric: metric.clone(), scale: AS_IT_IS });
        }
        Ok(())
    }

    fn add_named(&mut self, clean: &[String], is_text: &[bool], report: &mut ImportReport, file: &CsvFile) {
        let mapped: Vec<usize> = self.metrics.iter().map(|metric| metric.column).collect();
        let is_free = |column: &usize| {
            let is_key = [self.step, self.time.map(|(column, _)| column), self.run, self.rank].contains(&Some(*column));
            !is_key && !mapped.contains(column)
        };
        for column in (0..clean.len()).filter(is_free).collect::<Vec<_>>() {
            if is_text[column] {
                report.note(format!("column `{}` holds text and was left out", file.header[column]));
            } else if !clean[column].is_empty() {
                let (metric, scale) = named_metric(&clean[column], clean);
                let metric = unused(metric, &self.metrics);
                self.metrics.push(MetricColumn { column, metric, scale });
            }
        }
    }
}

fn asked(file: &CsvFile, name: &str) -> Result<usize, ImportError> {
    let missing =
        || ImportError::NoColumn { path: file.path.clone(), column: name.to_owned(), columns: file.columns_quoted() };
    file.column(name).ok_or_else(missing)
}

fn check_preset(options: &WideOptions, file: &CsvFile, report: &mut ImportReport) -> Result<(), ImportError> {
    if let Some(preset) = options.preset {
        return preset.needs.iter().try_for_each(|need| asked(file, need).map(drop));
    }
    if options.maps.is_empty() {
        match Preset::of_header(&file.header) {
            Some(preset) => report.note(format!("the columns are those of preset `{}`", preset.name)),
            None => report.note(format!("no preset has the columns {}; each went by its name", file.columns_quoted())),
        }
    }
    Ok(())
}

/// The metric a column is by its name, and its scale. An alias gives way to a column that has the metric's own name.
fn named_metric(name: &str, clean: &[String]) -> (String, f64) {
    let alias = METRICS.iter().find(|(alias, metric, _)| *alias == name && !clean.iter().any(|other| other == metric));
    alias.map_or_else(|| (name.to_owned(), AS_IT_IS), |(_, metric, scale)| ((*metric).to_owned(), *scale))
}

/// Two columns never feed one metric: the later one gets a number.
fn unused(metric: String, taken: &[MetricColumn]) -> String {
    let is_taken = |name: &str| taken.iter().any(|other| other.metric == name);
    if !is_taken(&metric) {
        return metric;
    }
    let numbered = (2..).map(|number| format!("{metric}_{number}"));
    numbered.into_iter().find(|name| !is_taken(name)).expect("there are more numbers than columns")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layouts_with_a_name_are_told_by_their_header() {
        let name_of = |header: &str| {
            let header: Vec<String> = header.split(',').map(str::to_owned).collect();
            Preset::of_header(&header).map(|preset| preset.name)
        };
        assert_eq!(name_of("step,t_s,step_time_s,train_loss,val_loss"), Some("modded-nanogpt"));
        assert_eq!(name_of("run,step,step_time_s,train_loss,num_zeros"), Some("megatron"));
        assert_eq!(name_of("step,t_s,step_time_s,train_loss,lr,samples,eval_metric"), Some("mlperf"));
        assert_eq!(name_of("step,val_loss,my_own"), None);
    }

    #[test]
    fn an_alias_gives_way_to_the_metric_itself() {
        let clean = ["lr".to_owned(), "learning_rate".to_owned()];
        assert_eq!(named_metric("lr", &clean).0, "lr");
        assert_eq!(named_metric("lr", &clean[..1]).0, "learning_rate");
    }

    #[test]
    fn an_unknown_preset_is_answered_with_the_known_ones() {
        let error = Preset::from_name("metatron").expect_err("no such preset").to_string();
        assert!(error.contains("`megatron`"), "{error}");
    }
}
