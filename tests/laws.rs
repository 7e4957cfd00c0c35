//! What must hold of every scenario, whatever is planted in it: how its log is stored and cut, how late its rows come,
//! and when the program restarts, changes nothing of what is said.

#![expect(unused_crate_dependencies, reason = "what this target does not use serves another one of the package")]

use std::path::Path;

use trainwarden::scorecard::is_told;
use trainwarden::simulation::{read_scenarios, write};
use trainwarden_ingest::Format;
use trainwarden_simulate::Scenario;
use trainwarden_telemetry::Incident;

use crate::recorded::{Cut, Recording, Said, Tables, drawn, json, lines, shuffled};

mod recorded;

/// Tests side by side; each takes the scenarios of its share.
const SHARES: usize = 2;
/// Cuts and restarts of each scenario that the seed draws.
const DRAWN: u32 = 2;
/// What is said is most likely to differ where something was just said: cuts before and after so many of the changes.
const TOLD_CUTS_MAX: usize = 3;
/// How much later than it was made a row may be appended, at most: less than the deadline of alignment less the step
/// that ranks may be apart.
const LATENESS_S: f64 = 2.0;

/// One scenario and its log, read once.
struct Case {
    name: String,
    seed: u64,
    tables: Tables,
    log: Recording,
    whole: Said,
}

impl Case {
    fn of(name: &str, scenario: &Scenario) -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder can be made");
        write(scenario, dir.path(), Format::Csv).expect("a temporary folder takes files");
        let log = Recording::read(&[dir.path().to_owned()]);
        let whole = log.said_of(&log.records);
        Self { name: name.to_owned(), seed: scenario.seed, tables: Tables::read(dir.path()), log, whole }
    }

    /// The rows of a folder have no order.
    fn hold_in_any_order(&self) {
        let mixed = self.tables.replay(|_, lines| shuffled(lines, self.seed));
        assert_eq!(lines(&mixed.changes), self.whole.changes, "{} in another order", self.name);
        assert_eq!(json(&mixed.incidents), self.whole.json(), "{} in another order", self.name);
    }

    fn hold_restored(&self) {
        let records = 0..self.log.records.len();
        let mut at: Vec<usize> = (0..DRAWN).map(|turn| drawn(&records, self.seed, turn)).collect();
        at.push(records.len() / 2);
        at.sort_unstable();
        let said = self.log.said_with_restarts(&at);
        assert_eq!(said.changes, self.whole.changes, "{} restored before the records {at:?}", self.name);
        assert_eq!(said.json(), self.whole.json(), "{} restored before the records {at:?}", self.name);
    }

    fn hold_cut(&self) {
        let records = 0..self.log.records.len();
        let mut cuts: Vec<Cut> =
            (0..DRAWN).map(|turn| self.log.cut_at(drawn(&records, self.seed, DRAWN + turn))).collect();
        for incident in self.whole.incidents.iter().take(TOLD_CUTS_MAX) {
            let Some(step) = incident.detected_step else { continue };
            let cut = |step| Cut { attempt: incident.attempt.0, step };
            cuts.extend([cut(step.0.saturating_sub(1)), cut(step.0)]);
        }
        cuts.sort_unstable();
        cuts.dedup();
        for (said, cut) in self.log.said_when_cut(&cuts).iter().zip(&cuts) {
            let whole = &self.whole.changes[..said.len().min(self.whole.changes.len())];
            assert_eq!(said, whole, "{} cut after {cut:?}", self.name);
        }
    }

    /// A live log has rows in the order and with the times of their coming. That is another log, so not every byte is
    /// the same; whom and what it accuses is.
    fn hold_when_late(&self) {
        let late = self.log.appended_late(LATENESS_S, self.seed);
        let said = self.log.said_of(&late);
        assert_eq!(said.counts.late, 0, "{}: nothing comes after its deadline", self.name);
        assert_eq!(facts(&said), facts(&self.whole), "{} with rows up to {LATENESS_S} s late", self.name);
    }
}

/// What is accused of what, since when, told when.
fn facts(said: &Said) -> Vec<String> {
    let fact = |incident: &Incident| {
        let suspects: Vec<u32> = incident.suspects.iter().map(|suspect| suspect.rank.0).collect();
        let step = |step: Option<trainwarden_telemetry::Step>| step.map_or("-".to_owned(), |step| step.0.to_string());
        let (first, detected) = (step(incident.first_step), step(incident.detected_step));
        let (severity, kind) = (incident.severity, incident.kind);
        format!("{severity} {kind} of {suspects:?} in {} from {first}, at {detected}", incident.attempt.0)
    };
    said.incidents.iter().filter(|incident| is_told(incident)).map(fact).collect()
}

/// Holds a law of every scenario of a share.
fn hold(share: usize) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let scenarios = read_scenarios(&folder).unwrap_or_else(|error| panic!("{error:#}"));
    for (name, scenario) in scenarios.iter().skip(share).step_by(SHARES) {
        let case = Case::of(name, scenario);
        case.hold_in_any_order();
        case.hold_restored();
        case.hold_cut();
        case.hold_when_late();
    }
}

#[test]
fn order_lateness_cuts_and_restarts_change_nothing_of_the_first_half() {
    hold(0);
}

#[test]
fn order_lateness_cuts_and_restarts_change_nothing_of_the_second_half() {
    hold(1);
}
