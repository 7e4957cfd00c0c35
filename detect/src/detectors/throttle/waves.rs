//! Cases of this detector: ranks found close together are one.

use serde::{Deserialize, Serialize};
use trainwarden_telemetry::{Evidence, Kind, Label, Onset, Panel, Phase, Rank, Severity, Suspect, Verdict};

use super::context::Context;
use super::{CLEAR_ROWS, CLOCKS, LOSS_MIN, SPEC, SUSPECTS_MAX, WAVE_ROWS};
use crate::Scene;
use crate::detectors::open_case::OpenCase;

/// Cases that are open, and rows so far.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Waves {
    rows: u32,
    open: Vec<Wave>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Wave {
    case: OpenCase,
    raised_row: u32,
    members: Vec<Member>,
}

/// A rank that is slow, and by how much of its clock; zero where only its mask tells.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Member {
    pub(super) rank: Rank,
    pub(super) loss: f32,
}

/// What words are made of.
pub(super) struct Told<'a> {
    pub(super) panel: &'a Panel,
    pub(super) label: Label,
    pub(super) scene: &'a Scene,
    pub(super) context: &'a Context,
    /// Clock in Hz, and that of the peers, and how many those are; `None` where only the mask tells.
    pub(super) clock: Option<(f32, f32, usize)>,
}

impl Waves {
    /// A row came: ends the cases whose members are all well again; gives also these members.
    pub(super) fn follow(&mut self, label: Label, is_low: impl Fn(&Member) -> bool) -> (Vec<Verdict>, Vec<Rank>) {
        self.rows += 1;
        let (mut verdicts, mut acquitted) = (Vec::new(), Vec::new());
        self.open.retain_mut(|wave| {
            let goes_on = wave.members.iter().any(&is_low);
            let Some(cleared) = wave.case.follow(goes_on, label, CLEAR_ROWS) else { return true };
            verdicts.push(cleared);
            acquitted.extend(wave.members.iter().map(|member| member.rank));
            false
        });
        (verdicts, acquitted)
    }

    /// A rank was found: it joins the case of its wave, or opens one.
    pub(super) fn take(
        &mut self,
        member: Member,
        onset: (Label, Option<Onset>),
        evidence: Evidence,
        told: &Told<'_>,
        case: u64,
    ) -> Verdict {
        let rows = self.rows;
        if let Some(wave) = self.open.iter_mut().find(|wave| rows - wave.raised_row <= WAVE_ROWS) {
            wave.members.push(member);
            if wave.case.said.evidence.len() < SUSPECTS_MAX {
                wave.case.said.evidence.push(evidence);
            }
            let first = wave.case.said.first;
            wave.case.said.severity = wave.case.said.severity.max(severity(member.loss));
            (wave.case.said.suspects, wave.case.said.summary) =
                (suspects(&wave.members), words(&wave.members, first, told));
            return Verdict { phase: Phase::Updated, last: told.label, ..wave.case.said.clone() };
        }
        let (first, onset) = onset;
        let members = vec![member];
        let said = Verdict {
            detector: SPEC.name.to_owned(),
            case,
            phase: Phase::Raised,
            attempt: told.panel.attempt,
            kind: Kind::Throttle,
            severity: severity(member.loss),
            suspects: suspects(&members),
            subject: told.panel.metric.to_string(),
            onset,
            first,
            last: told.label,
            summary: words(&members, first, told),
            evidence: vec![evidence],
        };
        self.open.push(Wave { case: OpenCase::new(said.clone(), told.label), raised_row: rows, members });
        said
    }
}

pub(super) fn severity(loss: f32) -> Severity {
    Severity::of_throughput_loss(f64::from(loss)).max(Severity::Warning)
}

/// Blame by what each lost; equal where only masks tell.
fn suspects(members: &[Member]) -> Vec<Suspect> {
    let weight = |member: &Member| f64::from(member.loss.max(LOSS_MIN));
    let total: f64 = members.iter().map(weight).sum();
    let mut members = members.to_vec();
    members.sort_by(|one, other| other.loss.total_cmp(&one.loss).then(one.rank.cmp(&other.rank)));
    let named = members.iter().take(SUSPECTS_MAX);
    named.map(|member| Suspect { rank: member.rank, share: weight(member) / total }).collect()
}

fn words(members: &[Member], first: Label, told: &Told<'_>) -> String {
    let worst = suspects(members)[0].rank;
    let named = told.scene.describe(told.panel.attempt, worst);
    let (who, [runs, is], whose) = match members.len() {
        1 => (named, ["runs", "is"], "its"),
        many => (format!("{many} ranks, first {named},"), ["run", "are"], "their"),
    };
    let since = first.step.map_or(String::new(), |step| format!(" since {step}"));
    let comma = if since.is_empty() { "" } else { "," };
    let why = told.context.words(worst).map_or(String::new(), |why| format!(" ({why})"));
    let what = if told.panel.metric.as_str() == CLOCKS[1] { "memory" } else { "SM" };
    match told.clock {
        Some((own, peers, count)) => {
            let (own, peers) = (own / 1e9, peers / 1e9);
            format!(
                "{who} {runs} {whose} {what} at {own:.2} GHz, {whose} {count} peers at {peers:.2} GHz{comma}{since}{why}"
            )
        }
        None => format!("{who} {is} slowed down{since}{why}"),
    }
}
