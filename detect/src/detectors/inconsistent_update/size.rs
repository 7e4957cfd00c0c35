//! Whether updates are as large as learning rate and gradient make them.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use trainwarden_kernels::{MAD_TO_SIGMA, mad, median};
use trainwarden_telemetry::{Label, Step};

use super::rows::Row;
use super::{
    BACK_FACTOR, Break, CLEAR_ROWS, LEVEL_ROWS, LEVEL_ROWS_MIN, SETTLE_ROWS, SIZE_FACTOR, SIZE_ROWS, SIZE_SPREADS,
    SLOW_FACTOR, SPIKE, SPIKE_ROWS, Word,
};
use crate::series::push;

/// What is known of the sizes in one attempt; all in natural logarithms.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Size {
    /// Update over learning rate, and the same over the gradient norm.
    ratios: [VecDeque<f64>; 2],
    gradients: VecDeque<f64>,
    frozen: Option<[Option<f64>; 2]>,
    /// Rows accepted into the level.
    rows: u32,
    /// Rows for which nothing new is begun.
    spike_rows: u32,
    off_rows: u32,
    is_above: bool,
    first: Option<(Label, Option<Step>)>,
    calm_rows: u32,
    /// While a case is open, the ratio that varied less before, the law of this optimizer, and its level.
    case: Option<(usize, f64)>,
}

impl Size {
    /// Judges a row.
    ///
    /// * `before`: the step of the row before.
    pub(super) fn judge(&mut self, row: &Row, before: Option<Step>) -> Option<Word> {
        let gradient = row.gradient().map(f64::ln);
        self.spike_rows = if self.has_spike(gradient) { SPIKE_ROWS } else { self.spike_rows.saturating_sub(1) };
        gradient.into_iter().for_each(|gradient| push(&mut self.gradients, gradient, LEVEL_ROWS));
        let ratio = (row.update().filter(|update| *update > 0.0)? / row.rate()?).ln();
        let ratios = [Some(ratio), gradient.map(|gradient| ratio - gradient)];
        if let Some((law, level)) = self.case {
            return self.follow(ratios[law]? - level);
        }
        let Some((departure, levels)) = self.far(&ratios).filter(|_| self.off_rows > 0 || self.spike_rows == 0) else {
            self.accept(&ratios);
            return None;
        };
        if self.off_rows > 0 && self.is_above != (departure > 0.0) {
            self.accept(&ratios);
            return None;
        }
        let (first, before) = *self.first.get_or_insert((row.label, before));
        (self.off_rows, self.is_above) = (self.off_rows + 1, departure > 0.0);
        if self.off_rows < SIZE_ROWS {
            return None;
        }
        let law = self.steadier();
        (self.case, self.calm_rows) = (Some((law, levels[law]?)), 0);
        let (observed, expected) = (ratio.exp(), levels[0]?.exp());
        let summary = format!(
            "weights move {:.3} times as far as learning rate and gradient explain: {observed:.3e} an unit of learning \
             rate, usually {expected:.3e},",
            departure.exp()
        );
        let expected = Some(expected);
        Some(Word::Wrong(Box::new(Break { first, before, observed, expected, summary })))
    }

    fn has_spike(&self, gradient: Option<f64>) -> bool {
        gradient.zip(level(&self.gradients)).is_some_and(|(gradient, level)| gradient - level > SPIKE.ln())
    }

    /// By how much a row departs too far, and from which levels.
    fn far(&self, ratios: &[Option<f64>; 2]) -> Option<(f64, [Option<f64>; 2])> {
        let levels = [0, 1].map(|which| level(&self.ratios[which]));
        let recent = departure(ratios, &levels);
        let spread = self.spread(self.steadier());
        if levels[0].is_some() && recent.abs() > SIZE_FACTOR.ln() && recent.abs() > SIZE_SPREADS * spread {
            return Some((recent, levels));
        }
        let frozen = self.frozen?;
        let slow = departure(ratios, &frozen);
        (slow.abs() > SLOW_FACTOR.ln()).then_some((slow, frozen))
    }

    fn steadier(&self) -> usize {
        let is_known = self.ratios[1].len() >= LEVEL_ROWS_MIN;
        usize::from(is_known && self.spread(1) < self.spread(0))
    }

    fn spread(&self, which: usize) -> f64 {
        let values: Vec<f64> = self.ratios[which].iter().copied().collect();
        let spread = median(&values).and_then(|center| mad(&values, center));
        spread.unwrap_or(0.0) * MAD_TO_SIGMA
    }

    /// A row in order: levels follow it.
    fn accept(&mut self, ratios: &[Option<f64>; 2]) {
        self.off_rows = self.off_rows.saturating_sub(1);
        if self.off_rows == 0 {
            self.first = None;
        }
        for (known, ratio) in self.ratios.iter_mut().zip(ratios) {
            ratio.iter().for_each(|ratio| push(known, *ratio, LEVEL_ROWS));
        }
        self.rows = self.rows.saturating_add(1);
        if self.rows == SETTLE_ROWS {
            self.frozen = Some([0, 1].map(|which| level(&self.ratios[which])));
        }
    }

    fn follow(&mut self, departure: f64) -> Option<Word> {
        self.calm_rows = if departure.abs() < BACK_FACTOR.ln() { self.calm_rows + 1 } else { 0 };
        if self.calm_rows < CLEAR_ROWS {
            return None;
        }
        (self.case, self.off_rows, self.first) = (None, 0, None);
        Some(Word::Back)
    }
}

/// The median of a level with enough rows.
fn level(values: &VecDeque<f64>) -> Option<f64> {
    let values: Vec<f64> = values.iter().copied().collect();
    median(&values).filter(|_| values.len() >= LEVEL_ROWS_MIN)
}

/// By how much both ratios depart in one direction: the lesser of the two; what is not known is not asked.
fn departure(ratios: &[Option<f64>; 2], levels: &[Option<f64>; 2]) -> f64 {
    let known = ratios.iter().zip(levels).filter_map(|(ratio, level)| Some((*ratio)? - (*level)?));
    let least = known.reduce(|one, other| match one * other > 0.0 {
        true if one.abs() <= other.abs() => one,
        true => other,
        false => 0.0,
    });
    least.unwrap_or(0.0)
}
