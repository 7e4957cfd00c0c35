//! What each command does.

use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result};
use trainwarden_detect::{DetectorKind, Spec};
use trainwarden_ingest::import::{self, ImportError, ImportReport, ImportSource, Preset, SeriesOptions, WideOptions};
#[cfg(feature = "kafka")]
use trainwarden_ingest::kafka::{KafkaOptions, KafkaPublisher, create_topics};
use trainwarden_ingest::{FolderWriter, IngestError, Publisher, SourceError};
use trainwarden_store::StoreError;
use trainwarden_telemetry::Fault;

use crate::act::{self, Note, Person};
use crate::cli::{
    AckArgs, ActArgs, AnnotateArgs, CheckArgs, Cli, Command, DemoArgs, DetectorsArgs, DoctorArgs, ImportArgs,
    ImportCommand, ImportSeriesArgs, ImportWideArgs, IncidentsArgs, IncidentsCommand, ReplayArgs, ReportArgs, SendArgs,
    ServeArgs, SimulateArgs,
};
use crate::client::GrpcPublisher;
use crate::config::{Config, DATA, ImpactConfig};
use crate::demo::screen::Screen;
use crate::demo::{self, script};
use crate::doctor::{self, Verdict};
use crate::explanation::{write_explanation, write_explanation_json};
use crate::incident_list::{IncidentFilter, Place};
use crate::output::{self, Output, Style, tell};
use crate::planned_pause;
use crate::replay::{Findings, replay};
use crate::report::{self, Input};
use crate::send::{SendOptions, Sent, send};
use crate::serve::{self, desk::now_ns};
use crate::simulation;

/// A finding at or above `--fail-on`.
const EXIT_FINDING: u8 = 1;
/// Wrong usage or configuration.
const EXIT_USAGE: u8 = 2;
/// Something outside is not reachable.
const EXIT_OUTSIDE: u8 = 3;

/// Runs a command.
///
/// # Errors
/// What [`exit_code_of`] turns into an exit code.
pub fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Command::Demo(args) => run_demo(&args),
        Command::Replay(args) => run_replay(&args),
        Command::Import(command) => run_import(&command),
        Command::Simulate(args) => run_simulate(&args),
        Command::Serve(args) => run_serve(&args),
        Command::Send(args) => run_send(&args),
        Command::Report(args) => run_report(&args),
        Command::Incidents(args) => run_incidents(args),
        #[cfg(feature = "sql")]
        Command::Sql(args) => crate::sql::run(&args),
        #[cfg(feature = "sql")]
        Command::SqlAnswer => trainwarden_query::answer_stdin().map(|()| ExitCode::SUCCESS).map_err(Into::into),
        Command::Ack(args) => run_ack(&args),
        Command::Annotate(args) => run_annotate(&args),
        #[cfg(feature = "alerts")]
        Command::Webhook(crate::cli::WebhookCommand::Test(args)) => run_webhook_test(&args),
        Command::Check(args) => run_check(&args),
        Command::Doctor(args) => run_doctor(&args),
        Command::Detectors(args) => run_detectors(&args),
    }
}

/// 3 where something outside failed, 2 otherwise.
#[must_use]
pub fn exit_code_of(error: &anyhow::Error) -> ExitCode {
    let ingest = error.downcast_ref::<IngestError>().map(IngestError::fault);
    let fault = ingest
        .or(error.downcast_ref::<ImportError>().map(ImportError::fault))
        .or(error.downcast_ref::<SourceError>().map(SourceError::fault))
        .or(error.downcast_ref::<StoreError>().map(StoreError::fault));
    #[cfg(feature = "sql")]
    let fault = fault.or(crate::sql::query_error(error).map(trainwarden_query::QueryError::fault));
    let is_outside = fault == Some(Fault::Outside) || error.downcast_ref::<io::Error>().is_some();
    ExitCode::from(if is_outside { EXIT_OUTSIDE } else { EXIT_USAGE })
}

fn run_serve(args: &ServeArgs) -> Result<ExitCode> {
    let mut config = Config::read(args.config.as_deref(), std::env::vars())?;
    config.data = args.data.clone().unwrap_or(config.data);
    config.listen = args.listen.unwrap_or(config.listen);
    #[cfg(feature = "kafka")]
    if let Some(brokers) = &args.kafka {
        let options = config.kafka.get_or_insert_with(|| KafkaOptions::new(brokers));
        options.brokers.clone_from(brokers);
    }
    config.check()?;
    serve::start_logging();
    serve::serve(&config)?;
    Ok(ExitCode::SUCCESS)
}

fn run_send(args: &SendArgs) -> Result<ExitCode> {
    let publisher = publisher(args)?;
    let options = SendOptions { speed: args.speed, key: args.key.clone() };
    let (sent, rejects) = send(&args.paths, &*publisher, &options)?;
    rejects.summary().iter().for_each(|line| tell(line));
    let Sent { runs, frames, rows } = sent;
    let lines = format!(
        "{}, {} in {}, durable",
        output::counted(runs, "run"),
        output::counted(rows, "row"),
        output::counted(frames, "frame")
    );
    print(|out| writeln!(out, "{lines}"))?;
    Ok(ExitCode::SUCCESS)
}

fn publisher(args: &SendArgs) -> Result<Box<dyn Publisher>> {
    #[cfg(feature = "kafka")]
    if let Some(brokers) = &args.kafka {
        let options = KafkaOptions::new(brokers);
        create_topics(&options)?;
        return Ok(Box::new(KafkaPublisher::open(&options)?));
    }
    Ok(Box::new(GrpcPublisher::connect(args.url.as_deref().expect("clap requires it"))?))
}

fn run_ack(args: &AckArgs) -> Result<ExitCode> {
    let receipt = act::acknowledge(&person(&args.act), &args.id, args.reason.as_deref().unwrap_or_default())?;
    print(|out| writeln!(out, "{} is acknowledged ({receipt})", args.id))?;
    Ok(ExitCode::SUCCESS)
}

fn run_annotate(args: &AnnotateArgs) -> Result<ExitCode> {
    let note = Note { text: &args.text, pause_from: args.pause_from, pause_until: args.pause_until };
    note.check()?;
    let receipt = act::annotate(&person(&args.act), &args.run, &note)?;
    print(|out| writeln!(out, "`{}` has the note ({receipt})", args.run))?;
    Ok(ExitCode::SUCCESS)
}

fn person(args: &ActArgs) -> Person {
    let place = place(args.url.as_deref(), args.data.as_deref());
    // Without a name the event has no actor.
    let name = args.actor.clone().or_else(|| std::env::var("USER").ok()).unwrap_or_default();
    Person { place, name }
}

/// The service that is named, or that of the data folder.
fn place(url: Option<&str>, data: Option<&Path>) -> Place {
    match url {
        Some(url) => Place::Service(url.to_owned()),
        None => Place::find(data.unwrap_or(Path::new(DATA))),
    }
}

fn run_incidents(args: IncidentsArgs) -> Result<ExitCode> {
    let IncidentsArgs { command, from } = args;
    let place = place(from.url.as_deref(), from.data.as_deref());
    let filter = IncidentFilter { run: from.run.clone(), since: from.since, until: from.until };
    let command = command.unwrap_or(IncidentsCommand::List);
    // What is not told because of a pause is told as such.
    let is_list = matches!(command, IncidentsCommand::List);
    let incidents = match command {
        IncidentsCommand::Watch => {
            place.watch(&filter, &mut |line| print(|out| writeln!(out, "{line}")))?;
            return Ok(ExitCode::SUCCESS);
        }
        IncidentsCommand::Pauses => {
            let pauses = place.pauses(filter.run.as_deref())?;
            print(|out| planned_pause::write_pauses(out, &pauses, from.output))?;
            return Ok(ExitCode::SUCCESS);
        }
        IncidentsCommand::List => place.list(&filter)?,
        IncidentsCommand::Show { id } => {
            let found: Vec<_> = place.list(&filter)?.into_iter().filter(|incident| incident.id.0 == id).collect();
            anyhow::ensure!(!found.is_empty(), "there is no incident `{id}` here");
            found
        }
    };
    print(|out| match from.output {
        Output::Json => output::write_json(out, &incidents),
        Output::Csv => output::write_csv(out, &incidents),
        Output::Table => output::write_incidents(out, &incidents, Style::of_stdout()),
    })?;
    if is_list && from.output == Output::Table && matches!(place, Place::Service(_)) {
        let mut pauses = place.pauses(filter.run.as_deref())?;
        pauses.retain(|pause| pause.until > now_ns());
        print(|out| planned_pause::write_pauses(out, &pauses, Output::Table))?;
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(feature = "alerts")]
fn run_webhook_test(args: &crate::cli::WebhookTestArgs) -> Result<ExitCode> {
    let mut alerts = Config::read(Some(&args.config), std::env::vars())?.alerts;
    anyhow::ensure!(!alerts.sinks.is_empty(), "`{}` has no `alerts.sinks`", args.config.display());
    if let Some(name) = &args.sink {
        let names: Vec<String> = alerts.sinks.iter().map(|sink| format!("`{}`", sink.name)).collect();
        alerts.sinks.retain(|sink| sink.name == *name);
        anyhow::ensure!(!alerts.sinks.is_empty(), "there is no sink `{name}`: there are {}", names.join(", "));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.context("cannot start a client")?;
    let endpoints = {
        let _inside = runtime.enter();
        alerts.endpoints()?
    };
    serve::start_logging();
    let trials = crate::alerts::try_sinks(&endpoints);
    print(|out| {
        trials.iter().try_for_each(|trial| match &trial.answer {
            Ok(answer) => writeln!(out, "{}: arrived, {}", trial.sink, output::printable(answer)),
            Err(error) => writeln!(out, "{}: failed, {}", trial.sink, output::printable(&error.to_string())),
        })
    })?;
    let faults: Vec<Fault> = trials.iter().filter_map(|trial| Some(trial.answer.as_ref().err()?.fault())).collect();
    Ok(match faults.as_slice() {
        [] => ExitCode::SUCCESS,
        faults if faults.contains(&Fault::Outside) => ExitCode::from(EXIT_OUTSIDE),
        _ => ExitCode::from(EXIT_USAGE),
    })
}

fn run_check(args: &CheckArgs) -> Result<ExitCode> {
    if args.schema {
        print(|out| writeln!(out, "{}", Config::schema()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let config = Config::read(args.config.as_deref(), std::env::vars())?;
    let text = toml::to_string(&config).context("a configuration is TOML")?;
    print(|out| write!(out, "# good; with defaults filled in it is\n{text}"))?;
    Ok(ExitCode::SUCCESS)
}

fn run_doctor(args: &DoctorArgs) -> Result<ExitCode> {
    let config = Config::read(args.config.as_deref(), std::env::vars())?;
    let findings = doctor::examine(&config);
    print(|out| doctor::write(out, &findings, args.output))?;
    let worst = findings.iter().map(|finding| finding.verdict).max();
    Ok(match findings.iter().any(|finding| finding.is_unreachable) {
        true => ExitCode::from(EXIT_OUTSIDE),
        false if worst == Some(Verdict::Wrong) => ExitCode::from(EXIT_FINDING),
        false => ExitCode::SUCCESS,
    })
}

fn run_demo(args: &DemoArgs) -> Result<ExitCode> {
    let (scenario, planted) = match &args.scenario {
        None => script::own(args.ranks.unwrap_or(script::RANKS), args.seed.unwrap_or(script::SEED))?,
        Some(path) => {
            let mut scenario = simulation::read_scenario(path)?;
            scenario.seed = args.seed.unwrap_or(scenario.seed);
            let planted = script::planted(&scenario);
            (scenario, planted)
        }
    };
    let mut is_clean = true;
    print(|out| {
        let mut nowhere = io::sink();
        let mut screen = match args.json {
            true => Screen::new(&mut nowhere, Style::Plain, false),
            false => Screen::new(out, Style::of_stdout(), output::is_stdout_terminal()),
        };
        let played = demo::play(&scenario, &planted, &mut screen)?;
        let score = played.score(&planted);
        is_clean = score.is_clean();
        if args.json { writeln!(out, "{}", score.to_json(&scenario, played.points())) } else { Ok(()) }
    })?;
    Ok(if is_clean { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FINDING) })
}

fn run_replay(args: &ReplayArgs) -> Result<ExitCode> {
    let (mut findings, rejects) = replay(&args.paths, args.rejects.as_deref())?;
    let impact = ImpactConfig { gpu_hour_price: args.gpu_hour_price, currency: args.currency.clone() };
    findings.price(&impact);
    rejects.summary().iter().for_each(|line| tell(line));
    report_counts(&findings);
    if let Some(id) = &args.explain {
        return explain(args, &findings, id);
    }
    print(|out| match args {
        ReplayArgs { changes: true, .. } => output::write_changes(out, &findings.changes),
        ReplayArgs { json: true, .. } | ReplayArgs { output: Output::Json, .. } => {
            output::write_json(out, &findings.incidents)
        }
        ReplayArgs { output: Output::Csv, .. } => output::write_csv(out, &findings.incidents),
        ReplayArgs { output: Output::Table, .. } => output::write_table(out, &findings, Style::of_stdout()),
    })?;
    let worst = findings.incidents.iter().map(|incident| incident.severity).max();
    let has_failed = args.fail_on.is_some_and(|least| worst >= Some(least));
    Ok(if has_failed { ExitCode::from(EXIT_FINDING) } else { ExitCode::SUCCESS })
}

fn explain(args: &ReplayArgs, findings: &Findings, id: &str) -> Result<ExitCode> {
    let incident = report::one_of(&findings.incidents, id)?;
    let logged = report::as_logged(&args.paths, incident)?;
    print(|out| match args.json || args.output == Output::Json {
        true => write_explanation_json(out, incident, &logged),
        false => write_explanation(out, incident, &logged),
    })?;
    Ok(ExitCode::SUCCESS)
}

fn run_report(args: &ReportArgs) -> Result<ExitCode> {
    let input = match args.run_folder.as_slice() {
        [] => Input::Data(args.data.clone().unwrap_or_else(|| DATA.into())),
        paths => Input::Folders(paths.to_vec()),
    };
    let impact = ImpactConfig { gpu_hour_price: args.gpu_hour_price, currency: args.currency.clone() };
    let html = report::report(&input, &args.id, &impact)?;
    std::fs::write(&args.out, &html).with_context(|| format!("cannot write `{}`", args.out.display()))?;
    let done = format!("{} bytes written to {}", output::grouped(html.len() as u64), args.out.display());
    print(|out| writeln!(out, "{}", output::printable(&done)))?;
    Ok(ExitCode::SUCCESS)
}

fn report_counts(findings: &Findings) {
    let counts = findings.counts;
    let lines = [
        (counts.late, "not judged: the panel was closed before"),
        (counts.repeated, "counted once: equal to another row"),
        (counts.conflicting, "contradicting another row of the same key"),
        (counts.unjudged, "not judged: fingerprints of a kind that nothing judges"),
        (counts.crowded, "not judged: more names of metrics, fingerprints or communicators than are aligned"),
    ];
    for (rows, what) in lines.iter().filter(|(rows, _)| *rows > 0) {
        tell(&format!("{} {what}", output::counted(*rows, "row")));
    }
    for (detector, panels) in &findings.errors {
        tell(&format!("detector `{detector}` could not judge {}", output::counted(*panels, "panel")));
    }
}

/// Prints to standard output; a reader that goes away early (`| head`) is no error.
fn print(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        _ => Ok(()),
    }
}

/// Places of left-out rows shown on the terminal.
const ASIDE_SHOWN: usize = 5;

fn run_import(command: &ImportCommand) -> Result<ExitCode> {
    let source = match command {
        ImportCommand::Wide(args) => ImportSource::Wide(wide_options(args)?),
        ImportCommand::Trace(_) => ImportSource::Trace,
        ImportCommand::FlightRecorder(_) => ImportSource::FlightRecorder,
        ImportCommand::Series(ImportSeriesArgs { metric, time_unit, .. }) => {
            ImportSource::Series(SeriesOptions { metric: metric.clone(), time_unit: *time_unit })
        }
    };
    let args: &ImportArgs = match command {
        ImportCommand::Wide(args) => &args.common,
        ImportCommand::Series(args) => &args.common,
        ImportCommand::Trace(args) | ImportCommand::FlightRecorder(args) => args,
    };
    let is_new = !args.out.exists();
    let mut writer = FolderWriter::create(&args.out, args.format.into())?;
    let report = match import::import(&source, &args.files, args.run.as_deref(), &mut writer) {
        Ok(report) => report,
        Err(error) => {
            drop(writer); // With its unfinished files, so that a wrong column name leaves no folder behind.
            if is_new {
                let _ = std::fs::remove_dir(&args.out);
            }
            return Err(error.into());
        }
    };
    writer.finish()?;
    report_import(&report);
    let (files, read) = (output::counted(report.files, "file"), output::counted(report.rows_read, "row"));
    let done = format!("{files}: {read} read, {} written to {}", report.rows_written, args.out.display());
    print(|out| writeln!(out, "{}", output::printable(&done)))?;
    Ok(ExitCode::SUCCESS)
}

fn wide_options(args: &ImportWideArgs) -> Result<WideOptions, ImportError> {
    Ok(WideOptions {
        maps: args.map.clone(),
        step: args.step.clone(),
        time: args.time.clone(),
        time_unit: args.time_unit,
        run_column: args.run_column.clone(),
        rank_column: args.rank_column.clone(),
        preset: args.preset.as_deref().map(Preset::from_name).transpose()?,
    })
}

fn report_import(report: &ImportReport) {
    report.notes.iter().for_each(|note| tell(note));
    if report.rows_aside + report.cells_aside > 0 {
        let (rows, cells) = (output::counted(report.rows_aside, "row"), output::counted(report.cells_aside, "cell"));
        tell(&format!("left out: {rows} and {cells}"));
    }
    for aside in report.aside.iter().take(ASIDE_SHOWN) {
        tell(&format!("  {}, {}: {}", aside.path.display(), aside.place, aside.reason));
    }
    if report.aside.len() > ASIDE_SHOWN {
        tell("  ...");
    }
}

fn run_simulate(args: &SimulateArgs) -> Result<ExitCode> {
    let mut scenario = simulation::read_scenario(&args.scenario)?;
    scenario.seed = args.seed.unwrap_or(scenario.seed);
    let rows = simulation::write(&scenario, &args.out, args.format.into())?;
    let faults =
        if scenario.faults.len() == 1 { "1 fault".to_owned() } else { format!("{} faults", scenario.faults.len()) };
    let ranks = scenario.cluster.ranks();
    println!("{ranks} ranks, {} steps, {faults}: {rows} rows written to {}", scenario.steps, args.out.display());
    Ok(ExitCode::SUCCESS)
}

fn run_detectors(args: &DetectorsArgs) -> Result<ExitCode> {
    let specs: Vec<&'static Spec> = DetectorKind::ALL.iter().map(|kind| kind.build().spec()).collect();
    print(|out| match args.output {
        Output::Table => write_specs(out, &specs),
        Output::Json => specs.iter().try_for_each(|spec| {
            let kinds: Vec<&str> = spec.kinds.iter().map(|kind| kind.as_str()).collect();
            let against = format!("{:?}", spec.against).to_lowercase();
            let line =
                serde_json::json!({"name": spec.name, "against": against, "watches": spec.watches, "kinds": kinds});
            writeln!(out, "{line}")
        }),
        Output::Csv => {
            writeln!(out, "name,against,watches,kinds")?;
            specs.iter().try_for_each(|spec| {
                let kinds: Vec<&str> = spec.kinds.iter().map(|kind| kind.as_str()).collect();
                let against = format!("{:?}", spec.against).to_lowercase();
                // What is watched is prose, with commas in it; no text of ours holds a quote.
                writeln!(out, "{},{against},\"{}\",{}", spec.name, spec.watches.join("; "), kinds.join(" "))
            })
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

fn write_specs(out: &mut dyn Write, specs: &[&'static Spec]) -> io::Result<()> {
    for spec in specs {
        let kinds: Vec<&str> = spec.kinds.iter().map(|kind| kind.as_str()).collect();
        let against = format!("{:?}", spec.against).to_lowercase();
        writeln!(out, "{:<22} against {against:<6} finds {}", spec.name, kinds.join(", "))?;
        writeln!(out, "{:<22} watches {}", "", spec.watches.join("; "))?;
    }
    Ok(())
}
