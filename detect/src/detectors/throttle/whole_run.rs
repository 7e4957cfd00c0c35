//! The clock of the whole run against what it was.

use serde::{Deserialize, Serialize};
use trainwarden_kernels::Middle;
use trainwarden_telemetry::{Evidence, Kind, Label, Onset, Panel, Phase, Step, Verdict};

use super::context::Support;
use super::waves::severity;
use super::{CLEAR_ROWS, IDLE_LOSS, RUN_LOSS, RUN_LOSS_ALONE, RUN_ROWS, SPEC};

/// Rows from which the usual clock is learned.
const WARM_ROWS: usize = 32;

/// One clock of the whole run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct WholeRun {
    warm: Vec<f32>,
    usual: Option<f32>,
    /// Rows that were low, less rows that were not.
    low_rows: u32,
    /// The last row before the clocks were low, and the first one since.
    before: Option<Step>,
    first: Label,
    last_low: Label,
    calm_rows: u32,
    said: Option<Verdict>,
}

impl WholeRun {
    /// Takes in a row: raises the case of the whole run, or ends it.
    ///
    /// * `scene`: whether the row lies in an announced pause, and what else speaks for a cap.
    /// * `case`: number of the case if one is raised.
    pub(super) fn judge(&mut self, panel: &Panel, row: usize, scene: (bool, Support), case: u64) -> Option<Verdict> {
        let (is_pause, support) = scene;
        let clock = slow_clock(panel, row).filter(|_| !is_pause)?;
        let label = panel.labels[row];
        let Some(usual) = self.usual else {
            self.learn(clock);
            return None;
        };
        let loss = 1.0 - clock / usual;
        if loss >= IDLE_LOSS {
            return None;
        }
        if self.said.is_some() {
            return self.follow(loss, label);
        }
        let is_low = match support {
            Support::Yes => loss >= RUN_LOSS,
            Support::Unknown => loss >= RUN_LOSS_ALONE,
            Support::No => false,
        };
        if !is_low {
            self.low_rows = self.low_rows.saturating_sub(1);
            self.before = label.step;
            return None;
        }
        if self.low_rows == 0 {
            self.first = label;
        }
        (self.low_rows, self.last_low) = (self.low_rows + 1, label);
        if self.low_rows < RUN_ROWS {
            return None;
        }
        self.said = Some(self.raise(panel, (clock, usual), case));
        self.said.clone()
    }

    fn learn(&mut self, clock: f32) {
        self.warm.push(clock);
        if self.warm.len() == WARM_ROWS {
            self.usual = Middle::of(&mut std::mem::take(&mut self.warm)).map(|middle| middle.median());
        }
    }

    fn follow(&mut self, loss: f32, label: Label) -> Option<Verdict> {
        if loss > 0.5 * RUN_LOSS {
            (self.calm_rows, self.last_low) = (0, label);
            return None;
        }
        self.calm_rows += 1;
        if self.calm_rows < CLEAR_ROWS {
            return None;
        }
        (self.calm_rows, self.low_rows) = (0, 0);
        let said = self.said.take()?;
        Some(Verdict { phase: Phase::Cleared, last: self.last_low, ..said })
    }

    fn raise(&self, panel: &Panel, (clock, usual): (f32, f32), case: u64) -> Verdict {
        let label = self.last_low;
        let loss = 1.0 - clock / usual;
        let since = self.first.step.map_or(String::new(), |step| format!(", since {step}"));
        let evidence = Evidence {
            step: label.step,
            observed: Some(f64::from(clock)),
            expected: Some(f64::from(usual)),
            low: Some(f64::from((1.0 - RUN_LOSS) * usual)),
            ..Evidence::new(SPEC.name, &panel.metric)
        };
        let low = self.before.map(|step| Step(step.0 + 1));
        Verdict {
            detector: SPEC.name.to_owned(),
            case,
            phase: Phase::Raised,
            attempt: panel.attempt,
            kind: Kind::Throttle,
            severity: severity(loss),
            suspects: Vec::new(),
            subject: panel.metric.to_string(),
            onset: self.first.step.map(|step| Onset { step, low: low.unwrap_or(step).min(step), high: step }),
            first: self.first,
            last: label,
            summary: format!(
                "more than a quarter of all ranks run at {:.2} GHz or less, where it was {:.2} GHz{since}",
                clock / 1e9,
                usual / 1e9
            ),
            evidence: vec![evidence],
        }
    }
}

/// The clock that more than a quarter of the ranks do not exceed, two at least: fewer are named one by one.
fn slow_clock(panel: &Panel, row: usize) -> Option<f32> {
    let columns = 0..panel.values.ncols();
    let clocks = columns.filter_map(|column| panel.value(row, column));
    let mut clocks: Vec<f32> = clocks.filter(|clock| clock.is_finite() && *clock > 0.0).collect();
    let last = clocks.len().checked_sub(1)?;
    let place = (clocks.len() / 4).max(1).min(last);
    Some(*clocks.select_nth_unstable_by(place, f32::total_cmp).1)
}
