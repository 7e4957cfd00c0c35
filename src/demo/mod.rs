//! `demo`: a simulated cluster under faults, judged while it runs, with the truth beside what is told.

pub mod score;
pub mod screen;
pub mod script;

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use trainwarden_simulate::{Scenario, Truth};
use trainwarden_telemetry::{Change, ChangeKind, IncidentId};

use self::score::{Score, Times};
use self::screen::{Screen, incident_lines, note_lines, opening_lines, table_lines, title, truth_words};
use self::script::Planted;
use crate::fast_forward::{Moment, Watch, fast_forward};
use crate::output::grouped;
use crate::replay::Findings;
use crate::scorecard::is_told;

/// Pause between two status lines on a terminal: often enough to be seen moving.
const STATUS_PAUSE: Duration = Duration::from_millis(100);
/// Parts of a run after each of which a pipe gets a status line.
const STATUS_PARTS: u64 = 4;

/// A run that was judged, and what was planted in it.
#[derive(Debug)]
pub struct Played {
    /// What was told.
    pub findings: Findings,
    /// When it was told.
    pub times: Times,
    /// What was planted.
    pub truth: Truth,
}

impl Played {
    /// Rows judged.
    #[must_use]
    pub fn points(&self) -> u64 {
        self.findings.rows.values().sum()
    }

    /// What was found, missed and false.
    ///
    /// * `planted`: the faults of the scenario in words.
    #[must_use]
    pub fn score<'a>(&'a self, planted: &'a [Planted]) -> Score<'a> {
        Score::of(planted, &self.truth, &self.findings.incidents, &self.times)
    }
}

/// Plays a scenario and shows it, from its first line to its last.
///
/// # Errors
/// When the screen fails.
pub fn play(scenario: &Scenario, planted: &[Planted], screen: &mut Screen<'_>) -> io::Result<Played> {
    screen.print(&opening_lines(screen.style(), scenario, planted))?;
    let started = Instant::now();
    let (times, shown) = (Times::default(), BTreeMap::new());
    let mut show = Show { scenario, planted, screen, times, shown, started, next_status: started };
    let findings = fast_forward(scenario, &mut show)?;
    let Show { screen, times, .. } = show;
    let played = Played { findings, times, truth: Truth::of(scenario) };
    let speed = speed_words(played.points(), started.elapsed());
    screen.print(&table_lines(screen.style(), &played.score(planted), &speed))?;
    Ok(played)
}

/// Shows a run while it is judged.
struct Show<'a, 'b> {
    scenario: &'a Scenario,
    planted: &'a [Planted],
    screen: &'a mut Screen<'b>,
    times: Times,
    /// Incidents that were told: when, and what they are in a few words.
    shown: BTreeMap<IncidentId, (Moment, String)>,
    started: Instant,
    next_status: Instant,
}

impl Watch for Show<'_, '_> {
    fn step(&mut self, now: Moment) -> io::Result<()> {
        let (attempt, step) = now.place.unwrap_or_default();
        let onsets = self.planted.iter().map(|fault| (fault.truth.attempt, fault.truth.onset_step));
        for onset in onsets.filter(|onset| *onset <= (attempt, step)) {
            self.times.onsets.entry(onset).or_insert(now.log_time);
        }
        if !self.is_status_due(step) {
            return Ok(());
        }
        let (steps, ranks) = (self.scenario.steps, u64::from(self.scenario.cluster.ranks()));
        let launch = if attempt > 0 { format!(", launch {}", attempt + 1) } else { String::new() };
        let speed = speed_words(now.rows, self.started.elapsed());
        self.screen.status(&format!("step {step} of {steps}{launch}, {} ranks: {speed}", grouped(ranks)))
    }

    fn change(&mut self, now: Moment, change: &Change) -> io::Result<()> {
        let incident = &change.incident;
        if is_told(incident) {
            self.times.told.entry(incident.id.clone()).or_insert(now.log_time);
        }
        let lines = match (self.shown.get(&incident.id), change.change) {
            (None, _) if is_told(incident) => {
                self.shown.insert(incident.id.clone(), (now, title(incident)));
                incident_lines(self.screen.style(), now, incident, &truth_words(self.planted, now, incident))
            }
            // What is told as over in the step of its opening was never more than that.
            (Some((opened, _)), ChangeKind::Resolved) if opened.place == now.place => return Ok(()),
            (Some(_), ChangeKind::Merged | ChangeKind::Resolved | ChangeKind::Reopened) => {
                let cause = incident.merged_into.as_ref().and_then(|cause| self.shown.get(cause));
                note_lines(self.screen.style(), now, change, cause.map(|(_, title)| title.as_str()))
            }
            _ => return Ok(()),
        };
        self.screen.print(&lines)
    }
}

impl Show<'_, '_> {
    /// True when it is time: by the clock on a terminal, after each part of the run on a pipe.
    fn is_status_due(&mut self, step: u64) -> bool {
        if !self.screen.is_terminal() {
            let part = (self.scenario.steps / STATUS_PARTS).max(1);
            return step > 0 && step.is_multiple_of(part) && step + part <= self.scenario.steps;
        }
        let now = Instant::now();
        let is_due = now >= self.next_status;
        if is_due {
            self.next_status = now + STATUS_PAUSE;
        }
        is_due
    }
}

/// How many points in what time.
fn speed_words(points: u64, elapsed: Duration) -> String {
    let speed = (points as f64 / elapsed.as_secs_f64().max(1e-3)) as u64;
    // Two digits are steady enough to be read while they change.
    let unit = 10_u64.pow(speed.max(1).ilog10().saturating_sub(1));
    format!("{} points judged, {} a second", grouped(points), grouped(speed / unit * unit))
}
