//! What an incident left alone, as far as the data at hand tell.

use std::collections::BTreeSet;

use trainwarden_telemetry::{Label, Rank};

use super::case_file::CaseFile;
use super::view::{list, shown};
use crate::output::grouped;

/// What the telemetry and the incidents at hand say is untouched; nothing is claimed beyond that.
pub(super) fn unaffected(case: &CaseFile) -> Vec<String> {
    let incident = &case.incident;
    let mut lines = Vec::new();
    let beside = case.all.iter().filter(|other| other.run == incident.run && other.attempt == incident.attempt);
    let named: BTreeSet<Rank> = beside.clone().flat_map(|other| &other.suspects).map(|suspect| suspect.rank).collect();
    let world = incident.scope.map_or(0, |scope| scope.world_size).max(case.sight.ranks.len() as u64);
    if !incident.suspects.is_empty() && world > named.len() as u64 {
        let clean = grouped(world - named.len() as u64);
        lines.push(format!("Ranks: {clean} of {} are named by no incident of this launch.", grouped(world)));
    }
    let nodes: BTreeSet<&str> = case.sight.roster.placements.values().filter_map(|p| p.node.as_deref()).collect();
    let touched: BTreeSet<&str> = named.iter().filter_map(|rank| case.sight.roster.node(*rank)).collect();
    if !incident.suspects.is_empty() && nodes.len() > touched.len() {
        let clean = nodes.len() - touched.len();
        lines.push(format!("Hosts: {clean} of {} have no rank that an incident of this launch names.", nodes.len()));
    }
    let onset = incident.onset.map(|onset| onset.low).or(incident.first_step);
    let is_before = |label: &Label| label.step.zip(onset).is_some_and(|(step, onset)| step < onset);
    let before = case.sight.checkpoints.iter().filter(|(_, label)| is_before(label));
    let mut before: Vec<_> = before.map(|(name, label)| (label.step, shown(name))).collect();
    before.sort();
    if !before.is_empty() {
        let names = before.into_iter().rev().map(|(_, name)| name).collect();
        lines.push(format!("Checkpoints saved before it began, newest first: {}.", list(names)));
    }
    let accused: BTreeSet<&str> = beside.flat_map(|other| &other.evidence).map(|e| e.metric.as_str()).collect();
    let quiet: Vec<String> =
        case.sight.metrics.iter().filter(|name| !accused.contains(name.as_str())).map(|n| shown(n)).collect();
    if !quiet.is_empty() {
        let (many, all) = (quiet.len(), case.sight.metrics.len());
        lines.push(format!(
            "Series: {many} of {all} of this launch are in the evidence of no incident: {}.",
            list(quiet)
        ));
    }
    let troubled: BTreeSet<_> = case.all.iter().map(|other| &other.run).collect();
    let clean: Vec<String> = case.runs.iter().filter(|run| !troubled.contains(run)).map(|run| shown(&run.0)).collect();
    if !clean.is_empty() {
        lines.push(format!("Other runs in the same data without any incident: {}.", list(clean)));
    }
    lines
}
