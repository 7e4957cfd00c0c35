//! Truth against incidents: which planted fault was told by which incident, and what was told beside the truth.

use std::cmp::{Ordering, Reverse};

use anyhow::{Result, ensure};
use trainwarden_ingest::Format;
use trainwarden_simulate::{PlantedFault, Scenario, Truth};
use trainwarden_telemetry::{Incident, Severity};

use crate::replay::{Findings, replay};
use crate::simulation::write;

/// What ends a launch inside a step is told at the last step that was logged, the one before.
const EARLY_STEPS_MAX: u64 = 1;

/// True when an incident says what was planted: its kind, and a guilty rank first, or nobody where the whole run is meant.
/// What was told before the fault was there is not it.
#[must_use]
pub fn is_found(fault: &PlantedFault, incident: &Incident) -> bool {
    let is_named = match incident.suspects.first() {
        Some(suspect) => fault.ranks.contains(&suspect.rank.0),
        None => fault.ranks.is_empty(),
    };
    fault.kind == incident.kind.as_str() && is_named && !is_early(fault, incident)
}

/// True when an incident was told before the fault was there.
fn is_early(fault: &PlantedFault, incident: &Incident) -> bool {
    let before = |step: u64| step.saturating_add(EARLY_STEPS_MAX) < fault.onset_step;
    match incident.attempt.0.cmp(&fault.attempt) {
        Ordering::Less => true,
        Ordering::Equal => incident.detected_step.is_some_and(|step| before(step.0)),
        // A later launch goes back to the steps of a checkpoint: they may lie before the onset.
        Ordering::Greater => false,
    }
}

/// True when a person is told of an incident: at `warning` or above, and no part of another one.
#[must_use]
pub fn is_told(incident: &Incident) -> bool {
    incident.severity >= Severity::Warning && incident.merged_into.is_none()
}

/// Steps from the onset of a fault to its detection; `None` where the incident tells no step, one of another launch, or
/// one before the onset.
#[must_use]
pub fn delay_steps(fault: &PlantedFault, incident: &Incident) -> Option<u64> {
    if incident.attempt.0 != fault.attempt {
        return None;
    }
    incident.detected_step?.0.checked_sub(fault.onset_step)
}

/// What a replay of the simulated scenario finds, and the truth about it.
///
/// # Errors
/// When the temporary folder cannot be written, or a row of it cannot be read.
pub fn judged(scenario: &Scenario) -> Result<(Truth, Findings)> {
    let dir = tempfile::tempdir()?;
    write(scenario, dir.path(), Format::Parquet)?;
    let (findings, rejects) = replay(&[dir.path().to_owned()], None)?;
    ensure!(rejects.count() == 0, "rows of `{}` cannot be read: {:?}", scenario.run, rejects.summary());
    Ok((Truth::of(scenario), findings))
}

/// The planted faults of one run beside what was told of it.
#[derive(Clone, Debug)]
pub struct Scorecard<'a> {
    /// Each fault in the order of the truth, and the alarm that tells of it. No alarm stands for two faults.
    pub faults: Vec<(&'a PlantedFault, Option<&'a Incident>)>,
    /// Alarms that stand for no fault.
    pub extras: Vec<&'a Incident>,
}

impl<'a> Scorecard<'a> {
    /// Gives each fault its alarm: as many as can be those that say what was planted, then those of its kind that name
    /// somebody else, then those of its family.
    #[must_use]
    pub fn of(truth: &'a Truth, incidents: &'a [Incident]) -> Self {
        let mut alarms: Vec<&Incident> = incidents.iter().filter(|incident| is_told(incident)).collect();
        alarms.sort_by_key(|incident| (incident.attempt, incident.detected_step, incident.detected_at));
        let mut pairing =
            Pairing { faults: &truth.faults, fault_of: vec![None; alarms.len()], alarms, fit: Fit::Exact };
        for fit in [Fit::Exact, Fit::Kind, Fit::Family] {
            pairing.pair_all(fit);
        }
        let Pairing { alarms, fault_of, .. } = pairing;
        let alarm_of = |fault| fault_of.iter().position(|of| *of == Some(fault)).map(|alarm| alarms[alarm]);
        let faults = truth.faults.iter().zip(0..).map(|(fault, index)| (fault, alarm_of(index))).collect();
        let extras = alarms.iter().zip(&fault_of).filter(|(_, of)| of.is_none()).map(|(alarm, _)| *alarm).collect();
        Self { faults, extras }
    }
}

/// How near an alarm comes to a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fit {
    /// It says what was planted.
    Exact,
    /// Its kind is right, whom it names is not.
    Kind,
    /// It speaks of the same sort of trouble.
    Family,
}

/// `None` for another sort of trouble, and for what was told before the fault was there.
fn fit(fault: &PlantedFault, incident: &Incident) -> Option<Fit> {
    let family = |kind: &str| kind.split('.').next().unwrap_or_default().to_owned();
    if is_early(fault, incident) {
        return None;
    }
    match incident.kind.as_str() {
        _ if is_found(fault, incident) => Some(Fit::Exact),
        kind if kind == fault.kind => Some(Fit::Kind),
        kind if family(kind) == family(&fault.kind) => Some(Fit::Family),
        _ => None,
    }
}

/// Faults and alarms, of which each is in one pair at most.
struct Pairing<'a> {
    faults: &'a [PlantedFault],
    /// Earliest detected first.
    alarms: Vec<&'a Incident>,
    /// The fault each alarm stands for, as an index.
    fault_of: Vec<Option<usize>>,
    /// Pairs are made of this fit; those made before stay.
    fit: Fit,
}

impl Pairing<'_> {
    /// Makes as many pairs of a fit as there can be.
    fn pair_all(&mut self, fit: Fit) {
        self.fit = fit;
        let settled: Vec<bool> = self.fault_of.iter().map(Option::is_some).collect();
        let mut waiting: Vec<usize> =
            (0..self.faults.len()).filter(|fault| !self.fault_of.contains(&Some(*fault))).collect();
        // The last one chooses first: an alarm after two like faults speaks of the later one.
        waiting.sort_by_key(|fault| Reverse((self.faults[*fault].attempt, self.faults[*fault].onset_step)));
        for fault in waiting {
            self.pair(fault, &mut settled.clone());
        }
    }

    /// Finds an alarm for a fault, if need be by giving another fault another one (an augmenting path, Berge 1957).
    fn pair(&mut self, fault: usize, tried: &mut [bool]) -> bool {
        for alarm in 0..self.alarms.len() {
            if tried[alarm] || fit(&self.faults[fault], self.alarms[alarm]) != Some(self.fit) {
                continue;
            }
            tried[alarm] = true;
            if self.fault_of[alarm].is_none_or(|other| self.pair(other, tried)) {
                self.fault_of[alarm] = Some(fault);
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use trainwarden_telemetry::{Attempt, IncidentId, IncidentSuspect, Kind, Rank, RunId, Step};

    use super::*;

    fn planted(kind: &str, onset_step: u64, ranks: &[u32]) -> PlantedFault {
        PlantedFault { kind: kind.to_owned(), attempt: 0, onset_step, end_step: None, ranks: ranks.to_vec(), size: 1.0 }
    }

    fn truth(faults: &[PlantedFault]) -> Truth {
        Truth { run: "r".to_owned(), seed: 1, faults: faults.to_vec() }
    }

    fn told(kind: Kind, detected_step: u64, ranks: &[u32]) -> Incident {
        let suspect = |rank: &u32| IncidentSuspect { rank: Rank(*rank), node: None, device: None, share: 0.5 };
        let id = IncidentId(format!("{kind} {detected_step} {ranks:?}"));
        Incident {
            detected_step: Some(Step(detected_step)),
            suspects: ranks.iter().map(suspect).collect(),
            ..Incident::new(id, RunId::new("r"), kind, Severity::Warning)
        }
    }

    /// The step at which the alarm of each fault was detected, and those of the alarms beside.
    fn paired(faults: &[PlantedFault], incidents: &[Incident]) -> (Vec<Option<u64>>, Vec<u64>) {
        let truth = truth(faults);
        let step = |incident: &Incident| incident.detected_step.expect("all of these tell a step").0;
        let card = Scorecard::of(&truth, incidents);
        let alarms = card.faults.iter().map(|(_, alarm)| alarm.map(step)).collect();
        (alarms, card.extras.iter().map(|incident| step(incident)).collect())
    }

    #[test]
    fn a_fault_is_found_by_its_kind_with_a_guilty_rank_first_or_with_nobody_where_the_whole_run_is_meant() {
        let slow = planted("slowdown.rank", 10, &[3, 5]);
        assert!(is_found(&slow, &told(Kind::SlowRank, 12, &[5, 7])));
        assert!(!is_found(&slow, &told(Kind::SlowRank, 12, &[7, 5])));
        assert!(!is_found(&slow, &told(Kind::SlowRank, 12, &[])));
        assert!(!is_found(&slow, &told(Kind::SlowRun, 12, &[5])));
        let all = planted("slowdown.run", 10, &[]);
        assert!(is_found(&all, &told(Kind::SlowRun, 12, &[])));
        assert!(!is_found(&all, &told(Kind::SlowRun, 12, &[0])));
    }

    #[test]
    fn two_faults_need_two_alarms_and_one_alarm_stands_for_the_later_of_two_like_ones() {
        let faults = [planted("slowdown.rank", 10, &[3]), planted("slowdown.rank", 50, &[3])];
        let (early, late) = (told(Kind::SlowRank, 14, &[3]), told(Kind::SlowRank, 53, &[3]));
        assert_eq!(paired(&faults, &[early.clone(), late.clone()]), (vec![Some(14), Some(53)], vec![]));
        assert_eq!(paired(&faults, &[late]), (vec![None, Some(53)], vec![]));
        assert_eq!(paired(&faults, &[early]), (vec![Some(14), None], vec![]));
    }

    #[test]
    fn an_alarm_that_fits_two_faults_is_left_to_the_one_that_has_no_other() {
        let faults = [planted("slowdown.rank", 10, &[3]), planted("slowdown.rank", 10, &[3, 4])];
        let incidents = [told(Kind::SlowRank, 14, &[3]), told(Kind::SlowRank, 15, &[4])];
        assert_eq!(paired(&faults, &incidents), (vec![Some(14), Some(15)], vec![]));
        let faults = [faults[1].clone(), faults[0].clone()];
        assert_eq!(paired(&faults, &incidents), (vec![Some(15), Some(14)], vec![]));
    }

    #[test]
    fn what_says_what_was_planted_goes_before_what_only_has_the_kind_and_that_before_the_family() {
        let faults = [planted("slowdown.rank", 10, &[3])];
        let (family, kind, exact) =
            (told(Kind::SlowRun, 11, &[]), told(Kind::SlowRank, 12, &[9]), told(Kind::SlowRank, 13, &[3]));
        let all = [family.clone(), kind.clone(), exact];
        assert_eq!(paired(&faults, &all), (vec![Some(13)], vec![11, 12]));
        assert_eq!(paired(&faults, &[family.clone(), kind]), (vec![Some(12)], vec![11]));
        assert_eq!(paired(&faults, &[family]), (vec![Some(11)], vec![]));
        assert_eq!(paired(&faults, &[told(Kind::Hang, 11, &[3])]), (vec![None], vec![11]));
    }

    #[test]
    fn a_note_a_part_of_another_and_what_came_before_the_fault_find_nothing() {
        let faults = [planted("slowdown.rank", 10, &[3])];
        let right = told(Kind::SlowRank, 12, &[3]);
        let note = Incident { severity: Severity::Info, ..right.clone() };
        let part = Incident { merged_into: Some(IncidentId("other".to_owned())), ..right.clone() };
        assert_eq!(paired(&faults, &[note, part]), (vec![None], vec![]));
        assert_eq!(paired(&faults, &[told(Kind::SlowRank, 8, &[3])]), (vec![None], vec![8]));
        let restarted = Incident { attempt: Attempt(1), ..told(Kind::SlowRank, 8, &[3]) };
        assert_eq!(paired(&faults, &[restarted]), (vec![Some(8)], vec![]));
        let second = [PlantedFault { attempt: 1, ..planted("slowdown.rank", 10, &[3]) }];
        assert_eq!(paired(&second, &[told(Kind::SlowRank, 12, &[3])]), (vec![None], vec![12]));
    }
}
