//! What the log itself says of a piece of evidence, for every detector alike: the value at its step, and what it is
//! compared with, by the kernels of the engine.

use std::collections::VecDeque;

use trainwarden_kernels::{MAD_TO_SIGMA, mad, median};
use trainwarden_telemetry::{Evidence, Panel, Roster, Working};

/// Rows before the one of the evidence that a series of the whole run is held against.
const ROWS_BEFORE: usize = 64;

/// The row that a piece of evidence names.
#[derive(Clone, Debug, Default)]
pub(super) struct AsLogged {
    before: VecDeque<f64>,
    /// What it says; empty before the row came.
    pub(super) working: Working,
}

impl AsLogged {
    /// Takes in rows of the metric of the evidence.
    pub(super) fn see(&mut self, panel: &Panel, evidence: &Evidence, roster: &Roster) {
        for row in 0..panel.rows() {
            let is_meant = evidence.step.is_some() && panel.labels[row].step == evidence.step;
            let column = evidence.rank.and_then(|rank| panel.ranks.binary_search(&rank).ok());
            match column {
                Some(column) if is_meant => self.working = beside_peers(panel, row, column, roster),
                None => self.follow(panel, row, is_meant),
                Some(_) => {}
            }
        }
    }

    fn follow(&mut self, panel: &Panel, row: usize, is_meant: bool) {
        let present: Vec<f64> =
            (0..panel.values.ncols()).filter_map(|column| panel.value(row, column)).map(f64::from).collect();
        let Some(value) = median(&present) else { return };
        if is_meant {
            let before: Vec<f64> = self.before.iter().copied().filter(|value| value.is_finite()).collect();
            let name = if panel.is_whole_run() { "logged_value" } else { "logged_median" };
            let working = Working::new(&[BEFORE_RULE]).with(name, value).with("rows_before", before.len());
            self.working = with_spread(working, (value, &before), ["median_before", "mad_before"]);
        }
        if self.before.len() == ROWS_BEFORE {
            self.before.pop_front();
        }
        self.before.push_back(value);
    }
}

/// How a rank is held against its peers.
const PEERS_RULE: &str =
    "robust_z = (logged_value - peers_median) / (1.4826 peers_mad), over the other ranks of its role";
/// How a row is held against those before it.
const BEFORE_RULE: &str = "robust_z = (value - median_before) / (1.4826 mad_before), over up to 64 rows before";

fn beside_peers(panel: &Panel, row: usize, column: usize, roster: &Roster) -> Working {
    let Some(value) = panel.value(row, column) else { return Working::default() };
    let groups = roster.peer_groups(&panel.ranks);
    let group = groups.into_iter().find(|group| group.contains(&column)).unwrap_or_default();
    let others = group.into_iter().filter(|other| *other != column);
    let peers: Vec<f64> =
        others.filter_map(|other| panel.value(row, other)).filter(|v| v.is_finite()).map(f64::from).collect();
    let working = Working::new(&[PEERS_RULE]).with("logged_value", value).with("logged_peers", peers.len());
    with_spread(working, (f64::from(value), &peers), ["peers_median", "peers_mad"])
}

fn with_spread(working: Working, (value, others): (f64, &[f64]), names: [&'static str; 2]) -> Working {
    let Some(center) = median(others) else { return working };
    let spread = mad(others, center).unwrap_or(0.0);
    let working = working.with(names[0], center).with(names[1], spread);
    match spread > 0.0 && value.is_finite() {
        true => working.with("robust_z", (value - center) / (MAD_TO_SIGMA * spread)),
        false => working,
    }
}
