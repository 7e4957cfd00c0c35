//! The report of an incident as a reader opens it, and the figures behind an incident computed a second time.

#![expect(unused_crate_dependencies, reason = "what this target does not use serves another one of the package")]

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use trainwarden::config::ImpactConfig;
use trainwarden::demo::script;
use trainwarden::replay::{Findings, replay};
use trainwarden::report::{Input, as_logged, one_of, report};
use trainwarden::simulation::{read_scenario, write};
use trainwarden_ingest::Format;
use trainwarden_telemetry::{Evidence, FigureValue, Incident, Kind};

use crate::browser::Browser;
use crate::by_hand::{middle, middle_of_others, series, student_log10_e, table};
use crate::service::{Service, replayed, send_to, wait_told, wait_until};

#[path = "report/browser.rs"]
mod browser;
#[path = "report/by_hand.rs"]
mod by_hand;
mod recorded;
mod service;

/// A report stays small enough to be sent by mail.
const BYTES_MAX: usize = 2 << 20;
/// Scenarios beside the demo's, for what it does not show.
const SCENARIOS: [&str; 4] = ["slow_rank_5", "loss_spike", "hang", "kills"];

fn simulated(name: &str, dir: &Path, format: Format) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/scenarios/{name}.toml"));
    let folder = dir.join(name);
    write(&read_scenario(&path).expect("a scenario"), &folder, format).expect("written");
    folder
}

fn findings(folder: &Path) -> Findings {
    replay(&[folder.to_owned()], None).expect("the folder replays").0
}

fn found(folder: &Path, kind: Kind) -> Incident {
    findings(folder).incidents.into_iter().find(|incident| incident.kind == kind).expect("the planted fault is found")
}

fn html(folder: &Path, incident: &Incident) -> String {
    let price = ImpactConfig { gpu_hour_price: Some(2.5), currency: "USD".to_owned() };
    report(&Input::Folders(vec![folder.to_owned()]), &incident.id.0, &price).expect("the incident is there")
}

fn evidence_of<'a>(incident: &'a Incident, detector: &str) -> &'a Evidence {
    incident.evidence.iter().find(|evidence| evidence.detector == detector).expect("the detector spoke")
}

fn figure(evidence: &Evidence, name: &str) -> f64 {
    evidence.working.number(name).unwrap_or_else(|| panic!("{} tells no `{name}`", evidence.detector))
}

fn near(ours: f64, told: f64, tolerance: f64) {
    assert!((ours - told).abs() <= tolerance * told.abs().max(1e-12), "by hand {ours}, told {told}");
}

#[test]
fn a_slow_rank_computed_by_hand_is_as_slow_as_told() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let folder = simulated("slow_rank_5", dir.path(), Format::Csv);
    let incident = found(&folder, Kind::SlowRank);
    let evidence = evidence_of(&incident, "straggler");
    let (rank, step) = (evidence.rank.expect("a rank").0, evidence.step.expect("a step").0);
    let series = series(&folder, evidence.metric.as_str());
    let row = &series[&step];
    near(row[&Some(rank)], figure(evidence, "value"), 1e-12);
    near(middle_of_others(row, rank), figure(evidence, "peers_median"), 1e-6);
    // The mean, from the log and the offset alone; the offset of earlier rows was a little less exact.
    let (offset, weight) = (figure(evidence, "offset"), figure(evidence, "mean_weight"));
    let excesses = series.range(..=step).map(|(_, row)| row[&Some(rank)] / middle_of_others(row, rank) / offset - 1.0);
    let excesses: Vec<f64> = excesses.collect();
    let mean = excesses.iter().skip(32).fold(0.0, |mean, excess| mean + weight * (excess - mean));
    assert!((mean - figure(evidence, "mean")).abs() < 5e-4, "by hand {mean}, told {}", figure(evidence, "mean"));
    // Everything told follows from the figures.
    let rows = figure(evidence, "rows");
    near(1.0 + figure(evidence, "mean") / (1.0 - (1.0 - weight).powf(rows)), evidence.observed.expect("a ratio"), 1e-6);
    let tolerance = 0.01_f64.max(3.0 * figure(evidence, "row_deviation") / figure(evidence, "offset_rows").sqrt());
    near(tolerance, figure(evidence, "tolerance"), 1e-6);
    near(1.0 + tolerance, evidence.high.expect("a band"), 1e-6);
    near((figure(evidence, "nats") - 3.0_f64.ln()) / std::f64::consts::LN_10, evidence.log10_e.expect("e"), 1e-6);
    assert!(figure(evidence, "nats") >= figure(evidence, "threshold_nats"));
    // The evidence itself, row by row since it began.
    let (shift, deviation) = (figure(evidence, "shift"), figure(evidence, "row_deviation"));
    let z = |excess: &f64| ((excess - tolerance) / deviation).clamp(-8.0, 4.0);
    let since = &excesses[excesses.len() - rows as usize..];
    let nats: f64 = since.iter().map(|excess| shift * z(excess) - shift * shift / 2.0).sum();
    near(nats, figure(evidence, "nats"), 0.05);
}

#[test]
fn the_robust_deviation_of_any_cell_computed_by_hand_is_the_one_told() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let folder = simulated("slow_rank_5", dir.path(), Format::Csv);
    let incident = found(&folder, Kind::SlowRank);
    let logged = as_logged(std::slice::from_ref(&folder), &incident).expect("the folder is read");
    let at = incident.evidence.iter().position(|evidence| evidence.detector == "straggler").expect("it spoke");
    let (rank, step) = (incident.evidence[at].rank.expect("a rank").0, incident.evidence[at].step.expect("a step").0);
    let row = &series(&folder, incident.evidence[at].metric.as_str())[&step];
    let others: Vec<f64> = row.iter().filter(|(other, _)| **other != Some(rank)).map(|(_, value)| *value).collect();
    let center = middle(&others);
    let spread = middle(&others.iter().map(|value| (value - center).abs()).collect::<Vec<_>>());
    let told = |name| logged[at].number(name).expect("a figure");
    near(center, told("peers_median"), 1e-12);
    near(spread, told("peers_mad"), 1e-12);
    near((row[&Some(rank)] - center) / (1.482_602_218_505_602 * spread), told("robust_z"), 1e-9);
}

#[test]
fn a_loss_spike_computed_by_hand_is_as_high_as_told() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let folder = simulated("loss_spike", dir.path(), Format::Csv);
    let incident = found(&folder, Kind::LossSpike);
    let is_whole = |evidence: &&Evidence| evidence.detector == "loss_excursion" && evidence.metric.as_str() == "loss";
    let evidence = incident.evidence.iter().find(is_whole).expect("the loss of the run is told");
    let loss: Vec<f64> = series(&folder, "loss").into_values().map(|row| row[&None]).collect();
    let rows = figure(evidence, "rows") as usize;
    let peak = evidence.step.expect("a step").0 as usize;
    // The excursion begins at the first row that is over the threshold.
    let (level, threshold) = (figure(evidence, "level"), figure(evidence, "threshold"));
    let first = loss.iter().position(|value| value - level > threshold && *value == loss[peak]).unwrap_or(peak);
    let first = (0..=first).rev().take_while(|at| loss[*at] - level > threshold).last().expect("the peak is high");
    let before = &loss[..first];
    let last = |many: usize| middle(&before[before.len() - many..]);
    near(last(9).min(last(5)), level, 1e-12);
    near(evidence.expected.expect("a level"), level, 1e-12);
    let steps: Vec<f64> = before.windows(2).map(|pair| (pair[1] - pair[0]).abs()).collect();
    let noise = middle(&steps[steps.len().saturating_sub(128)..]) * 1.482_602_218_505_602 / 2.0_f64.sqrt();
    near(noise, figure(evidence, "noise"), 1e-9);
    near((7.0 * noise).max(0.06 * level.abs()), threshold, 1e-9);
    near(level + threshold, evidence.high.expect("a band"), 1e-12);
    let high = loss[first..first + rows].iter().filter(|value| *value - level > threshold);
    let scale = noise.max(threshold / 10.0);
    let log10_e: f64 = high.map(|value| student_log10_e((value - level) / scale)).sum();
    near(log10_e, evidence.log10_e.expect("an e-value"), 1e-9);
}

#[test]
fn a_slow_link_computed_by_hand_is_as_slow_as_told() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let folder = simulated("slow_link", dir.path(), Format::Csv);
    let incident = found(&folder, Kind::SlowLink);
    let evidence = evidence_of(&incident, "late_arrival");
    let step = evidence.step.expect("a step").0;
    let number = |text: &str| text.parse::<i64>().expect("nanoseconds");
    let mut transfers = std::collections::BTreeMap::<u64, f64>::new();
    for row in table(&folder, "collectives").iter().filter(|row| row["comm"] == evidence.metric.as_str()) {
        let wait = (number(&row["end"]) - number(&row["start"])) as f64 / 1e9;
        let least = transfers.entry(row["seq"].parse().expect("a number")).or_insert(f64::INFINITY);
        *least = least.min(wait);
    }
    let least: Vec<f64> = transfers.values().copied().collect();
    let usual = middle(&least[..64]);
    near(usual, figure(evidence, "usual_s"), 1e-9);
    let slow = figure(evidence, "slow_calls") as usize;
    let until = transfers.keys().position(|call| *call == step).expect("a call a step") + 1;
    let excess: f64 = least[until - slow..until].iter().map(|transfer| transfer - usual).sum();
    near(excess, figure(evidence, "excess_s"), 1e-9);
    near(usual + excess / slow as f64, evidence.observed.expect("seconds"), 1e-9);
    near(excess / slow as f64 / figure(evidence, "pace_s"), figure(evidence, "loss"), 1e-9);
    assert!(least[until - slow..until].iter().all(|transfer| *transfer > 1.2 * usual));
}

#[test]
fn replicas_and_nans_counted_by_hand_are_as_many_as_told() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let folder = simulated("weight_flip", dir.path(), Format::Csv);
    let incident = found(&folder, Kind::ReplicaMismatch);
    let evidence = evidence_of(&incident, "replica_mismatch");
    let step = evidence.step.expect("a step").0.to_string();
    let text = |name: &str| {
        let figure = evidence.working.figures.iter().find(|figure| figure.name == name).expect("it is told");
        if let FigureValue::Text(text) = &figure.value { text.clone() } else { panic!("{name} is no text") }
    };
    let digests = table(&folder, "digests");
    let is_meant = |row: &&std::collections::BTreeMap<String, String>| {
        row["step"] == step && row["kind"] == text("kind") && row["name"] == evidence.metric.as_str()
    };
    let holders = |digest: String| digests.iter().filter(is_meant).filter(|row| row["digest"] == digest).count() as f64;
    assert_eq!(holders(text("majority_digest")), figure(evidence, "ranks_with_majority_digest"));
    let own = digests.iter().filter(is_meant).find(|row| row["rank"] == evidence.rank.expect("a rank").0.to_string());
    assert_eq!(own.expect("it told")["digest"], text("digest"));

    let folder = simulated("nonfinite", dir.path(), Format::Csv);
    let incident = found(&folder, Kind::Nonfinite);
    let evidence = evidence_of(&incident, "nonfinite");
    let row = &series(&folder, evidence.metric.as_str())[&evidence.step.expect("a step").0];
    assert_eq!(row.values().filter(|value| !value.is_finite()).count() as f64, figure(evidence, "cells_not_finite"));
    assert_eq!(row.len() as f64, figure(evidence, "cells"));
}

#[test]
fn the_figures_of_clocks_losses_and_gradients_join_as_their_rules_say() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let decades = |nats: f64| nats / std::f64::consts::LN_10;
    // The value is that of the log; the peers are all others, since each scenario has one role.
    let measured = |folder: &Path, evidence: &Evidence| {
        let (rank, step) = (evidence.rank.expect("a rank").0, evidence.step.expect("a step").0);
        let row = &series(folder, evidence.metric.as_str())[&step];
        near(row[&Some(rank)], figure(evidence, "value"), 1e-12);
        if row.len() as f64 == figure(evidence, "peers") + 1.0 {
            near(middle_of_others(row, rank), figure(evidence, "peers_median"), 1e-6);
        }
    };

    let folder = simulated("throttle", dir.path(), Format::Csv);
    let incident = found(&folder, Kind::Throttle);
    let evidence = evidence_of(&incident, "throttle");
    measured(&folder, evidence);
    let (observed, expected) = (evidence.observed.expect("a clock"), evidence.expected.expect("a clock"));
    near(observed * figure(evidence, "ratio"), expected, 1e-6);
    near(1.0 - 1.0 / figure(evidence, "ratio"), figure(evidence, "loss"), 1e-5);
    near(expected / (1.0 + figure(evidence, "tolerance")), evidence.low.expect("a band"), 1e-6);

    let folder = simulated("poison", dir.path(), Format::Csv);
    let incident = found(&folder, Kind::DataShift);
    let evidence = evidence_of(&incident, "data_shift");
    measured(&folder, evidence);
    near(figure(evidence, "peers_level") + figure(evidence, "mean"), evidence.observed.expect("a loss"), 1e-6);
    let filled = 1.0 - (15.0_f64 / 16.0).powf(figure(evidence, "rows"));
    near(figure(evidence, "running_mean") / filled, figure(evidence, "mean"), 1e-4);
    let tolerance = (0.4 + 3.0 / figure(evidence, "offset_rows").sqrt()) * figure(evidence, "row_spread");
    near(tolerance, figure(evidence, "tolerance"), 1e-5);
    near(decades(figure(evidence, "nats") - 6.0_f64.ln()), evidence.log10_e.expect("an e-value"), 1e-5);

    let folder = simulated("gradient_noise", dir.path(), Format::Csv);
    let incident = found(&folder, Kind::GradientRank);
    let evidence = evidence_of(&incident, "gradient_outlier");
    measured(&folder, evidence);
    let (size, q90, q99) = (figure(evidence, "size").abs(), figure(evidence, "q90"), figure(evidence, "q99"));
    let of_row = if size > q99 { 0.5 * (2.0 + (size - q99) / (q99 - q90)) + 0.5_f64.log10() } else { 0.0 };
    assert!((of_row - figure(evidence, "log10_e_of_row")).abs() < 1e-3 * of_row.max(1.0), "by hand {of_row}");
}

#[test]
fn what_explain_prints_is_what_the_report_shows() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let folder = simulated("slow_rank_5", dir.path(), Format::Parquet);
    let incident = found(&folder, Kind::SlowRank);
    let explain = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_trainwarden"));
        command.arg("replay").arg(&folder).args(["--explain", &incident.id.0[4..12]]).args(arguments);
        let output = command.output().expect("the binary was built");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    let (text, page) = (explain(&[]), html(&folder, &incident));
    let json: Value = serde_json::from_str(&explain(&["--json"])).expect("one object");
    let mut figures = 0;
    for evidence in json["evidence"].as_array().expect("evidence") {
        for figure in evidence["working"]["figures"].as_array().expect("every detector here tells") {
            let name = figure["name"].as_str().expect("a name");
            assert!(text.contains(name) && page.contains(&format!("<dt>{name}</dt>")), "{name}");
            if let Some(number) = figure["value"].as_f64() {
                assert!(page.contains(&format!("<dd>{number}</dd>")), "{name} {number}");
            }
            figures += 1;
        }
    }
    assert!(figures > 30, "{figures}");
    let unknown = Command::new(env!("CARGO_BIN_EXE_trainwarden"))
        .args(["replay", "--explain", "inc_ffff"])
        .arg(&folder)
        .output()
        .expect("the binary was built");
    let error = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(unknown.status.code() == Some(2) && error.contains(&incident.id.0), "{error}");
    let all = findings(&folder).incidents;
    assert_eq!(one_of(&all, &incident.id.0[..8]).expect("one begins so").id, incident.id);
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let folder = simulated("two_faults", dir.path(), Format::Parquet);
    for incident in findings(&folder).incidents {
        assert_eq!(html(&folder, &incident), html(&folder, &incident), "{}", incident.kind);
    }
}

#[test]
fn hostile_names_are_shown_and_not_obeyed() {
    const EVIL: &str = "</style></title></svg><script>alert(1)</script><img src=x onerror=alert(1)>\"'`\u{202e}";
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (run, metric, node) = (format!("run{EVIL}"), format!("loss{EVIL}"), format!("node{EVIL}"));
    let mut samples = fs::File::create(dir.path().join("samples.jsonl")).expect("created");
    let mut ranks = fs::File::create(dir.path().join("ranks.jsonl")).expect("created");
    let mut events = fs::File::create(dir.path().join("events.jsonl")).expect("created");
    let at = |step: u64| 1_700_000_000_000_000_000 + step as i64 * 1_000_000_000;
    for rank in 0..8 {
        let row = json!({"run": run, "attempt": 0, "rank": rank, "node": node, "device": EVIL});
        writeln!(ranks, "{row}").expect("written");
        for step in 0..120 {
            let value =
                if (rank, step) == (3, 90) { "NaN".to_owned() } else { format!("{}", 2.0 + 0.01 * f64::from(rank)) };
            let row = json!({"run": run, "attempt": 0, "rank": rank, "step": step, "time": at(step), "metric": metric, "value": value});
            writeln!(samples, "{row}").expect("written");
        }
    }
    for (kind, time) in [("exec", at(88)), ("checkpoint", at(80)), ("process_exit", at(95)), ("pause_begin", at(60))] {
        let row = json!({"time": time, "source": EVIL, "kind": kind, "actor": EVIL, "run": run, "attempt": 0, "node": node, "subject": EVIL, "detail": EVIL});
        writeln!(events, "{row}").expect("written");
    }
    drop((samples, ranks, events));
    let incident = found(dir.path(), Kind::Nonfinite);
    let page = html(dir.path(), &incident);
    assert!(page.contains("&lt;script&gt;alert(1)"), "the names are shown");
    for forbidden in ["<script", "<img", "\u{202e}"] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
    assert_eq!(
        (page.matches("</style>").count(), page.matches("</title>").count()),
        (1, 1 + page.matches("<desc").count())
    );
}

#[test]
fn a_data_folder_gives_the_report_of_its_service_running_and_at_rest() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let folder = simulated("slow_rank_5", dir.path(), Format::Parquet);
    let expected = replayed(&folder);
    let config = dir.path().join("config.toml");
    fs::write(&config, "[archive]\npart_seconds = 1\n").expect("written");
    let data = dir.path().join("data");
    let mut service = Service::start(&data, &["--config", &config.display().to_string()]);
    send_to(&folder, &service.url());
    wait_told(&service, &expected);
    let archive = data.join("archive");
    wait_until("all rows are archived", || {
        // A part is cut by the first record after its second: the same rows again, which count once.
        send_to(&folder, &service.url());
        let judged = || replay(std::slice::from_ref(&archive), None).map(|(found, _)| recorded::json(&found.incidents));
        archive.is_dir() && judged().is_ok_and(|told| told == expected)
    });
    let incident = found(&folder, Kind::SlowRank);
    let of_data =
        || report(&Input::Data(data.clone()), &incident.id.0, &ImpactConfig::default()).expect("the incident is there");
    let running = of_data();
    service.stop();
    let at_rest = of_data();
    // What is drawn and worked out is what the folder itself gives.
    let of_folder = report(&Input::Folders(vec![folder]), &incident.id.0, &ImpactConfig::default()).expect("found");
    let measured = |page: &str| {
        page.split("id=\"measured\"").nth(1).and_then(|rest| rest.split("id=\"causes\"").next()).map(str::to_owned)
    };
    assert!(measured(&running).is_some_and(|part| part.contains("<svg") && part.contains("peers_median")));
    assert_eq!(measured(&running), measured(&of_folder));
    assert_eq!(measured(&at_rest), measured(&of_folder));
}

#[test]
fn every_report_of_the_demo_opens_in_chromium_without_an_error_or_a_request() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let (scenario, planted) = script::own(64, script::SEED).expect("the demo's scenario is right");
    let demo = dir.path().join("demo");
    write(&scenario, &demo, Format::Parquet).expect("written");
    let mut pages = Vec::new();
    let mut of_demo = 0;
    for folder in std::iter::once(demo).chain(SCENARIOS.map(|name| simulated(name, dir.path(), Format::Parquet))) {
        let incidents = findings(&folder).incidents;
        for incident in incidents.iter().filter(|incident| incident.merged_into.is_none()) {
            let page = html(&folder, incident);
            assert!(page.len() < BYTES_MAX, "{}: {} bytes", incident.kind, page.len());
            let path = dir.path().join(format!("{}.html", incident.id.0));
            fs::write(&path, &page).expect("written");
            pages.push((path, incident.kind));
            of_demo += usize::from(folder.ends_with("demo"));
        }
    }
    assert_eq!(of_demo, planted.len(), "an incident for each fault of the demo");
    let Some(mut browser) = Browser::start(dir.path()) else {
        // Past the test runner, which keeps what a test prints: `./test` counts these lines.
        std::io::stdout().write_all(b"\nskipped: no Chromium to open reports in\n").expect("a terminal takes bytes");
        return;
    };
    for (path, kind) in &pages {
        let seen = browser.open(path);
        let of = |method: &str| seen.iter().filter(|event| event["method"] == method).collect::<Vec<_>>();
        for method in ["Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"] {
            assert_eq!(of(method), Vec::<&Value>::new(), "{kind}");
        }
        let asked: Vec<&str> = of("Network.requestWillBeSent")
            .iter()
            .filter_map(|event| event["params"]["request"]["url"].as_str())
            .filter(|url| !url.starts_with("data:"))
            .collect();
        assert_eq!(asked.len(), 1, "{kind}: the page alone is asked for: {asked:?}");
        assert!(asked[0].starts_with("file://"), "{kind}: {asked:?}");
        let title = browser.value("document.title");
        assert!(title.as_str().is_some_and(|title| title.starts_with(kind.as_str())), "{kind}: {title}");
        assert_eq!(browser.value("document.scripts.length"), json!(0), "{kind}");
        let unnamed = "[...document.querySelectorAll('svg')].filter(svg => !svg.querySelector('title')).length";
        assert_eq!(browser.value(unnamed), json!(0), "{kind}: every drawing has a title");
        for (width, media) in [(360, "light"), (1280, "dark")] {
            let size = json!({"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500});
            browser.ask("Emulation.setDeviceMetricsOverride", size);
            let feature = json!({"features": [{"name": "prefers-color-scheme", "value": media}]});
            browser.ask("Emulation.setEmulatedMedia", feature);
            let wide = browser.value("document.documentElement.scrollWidth - document.documentElement.clientWidth");
            assert_eq!(wide, json!(0), "{kind}: nothing runs out of a page of {width} dots");
            let background = browser.value("getComputedStyle(document.body).backgroundColor");
            let expected = if media == "dark" { "rgb(21, 24, 29)" } else { "rgb(255, 255, 255)" };
            assert_eq!(background, json!(expected), "{kind}");
        }
    }
}
