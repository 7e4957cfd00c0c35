//! Whether updates go against the gradient, as they always did.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use trainwarden_kernels::{median, trial_evidence};
use trainwarden_telemetry::{Label, Step};

use super::rows::Row;
use super::{
    AGAINST, Break, CHANCE_MAX, CHANCE_MIN, CHANCE_ROWS, CLEAR_ROWS, DIRECTION_NATS, LEVEL_ROWS, SIGN_ROWS, WRONG, Word,
};
use crate::series::push;

/// What is known of the product in one attempt.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Direction {
    /// The last products in their usual direction, over the norms.
    usual: VecDeque<f64>,
    /// Whether the last rows were against the sign, without those of which it is not decided yet.
    turns: VecDeque<bool>,
    undecided: VecDeque<bool>,
    nats: f64,
    first: Option<(Label, Option<Step>)>,
    calm_rows: u32,
    is_wrong: bool,
}

impl Direction {
    /// Judges a row.
    ///
    /// * `before`: the step of the row before.
    /// * `sign`: that of the run, learned where it is not known.
    pub(super) fn judge(&mut self, row: &Row, before: Option<Step>, sign: &mut Option<f64>) -> Option<Word> {
        let cosine = cosine(row)?;
        *sign = sign.or_else(|| self.learn(cosine));
        let sign = (*sign)?;
        let usual = self.usual_size();
        let is_against = cosine * sign < 0.0 && cosine.abs() >= AGAINST * usual;
        if self.is_wrong {
            return self.follow(is_against);
        }
        self.weigh(is_against);
        if self.nats == 0.0 {
            self.first = None;
            push(&mut self.usual, cosine, LEVEL_ROWS);
            return None;
        }
        let (first, before) = *self.first.get_or_insert((row.label, before));
        if self.nats < DIRECTION_NATS {
            return None;
        }
        (self.is_wrong, self.calm_rows) = (true, 0);
        self.undecided.clear();
        let usual = sign * usual;
        let summary = format!(
            "weights are moved with the gradient instead of against it: the cosine is {cosine:.3}, usually {usual:.3},"
        );
        let expected = Some(usual);
        Some(Word::Wrong(Box::new(Break { first, before, observed: cosine, expected, summary })))
    }

    /// Learns the sign of the run from its first rows.
    fn learn(&mut self, cosine: f64) -> Option<f64> {
        push(&mut self.usual, cosine, SIGN_ROWS);
        let below = self.usual.iter().filter(|cosine| **cosine < 0.0).count();
        let above = self.usual.iter().filter(|cosine| **cosine > 0.0).count();
        match self.usual.len() >= SIGN_ROWS {
            true if 4 * below >= 3 * SIGN_ROWS => Some(-1.0),
            true if 4 * above >= 3 * SIGN_ROWS => Some(1.0),
            _ => None,
        }
    }

    fn usual_size(&self) -> f64 {
        let sizes: Vec<f64> = self.usual.iter().map(|cosine| cosine.abs()).collect();
        median(&sizes).unwrap_or(0.0)
    }

    fn weigh(&mut self, is_against: bool) {
        let turned = self.turns.iter().filter(|turned| **turned).count();
        let chance = (turned + 1) as f64 / (self.turns.len() + 2) as f64;
        let chance = chance.clamp(CHANCE_MIN, CHANCE_MAX);
        self.nats = (self.nats + trial_evidence(is_against, chance, WRONG)).max(0.0);
        push(&mut self.undecided, is_against, CHANCE_ROWS);
        if self.nats == 0.0 {
            std::mem::take(&mut self.undecided).into_iter().for_each(|turn| push(&mut self.turns, turn, CHANCE_ROWS));
        }
    }

    fn follow(&mut self, is_against: bool) -> Option<Word> {
        self.calm_rows = if is_against { 0 } else { self.calm_rows + 1 };
        if self.calm_rows < CLEAR_ROWS {
            return None;
        }
        (self.is_wrong, self.nats, self.first) = (false, 0.0, None);
        Some(Word::Back)
    }
}

/// The product over the norms where both are known; its sign alone otherwise.
fn cosine(row: &Row) -> Option<f64> {
    let product = row.product().filter(|product| *product != 0.0)?;
    let norms = row.update().zip(row.gradient()).map(|(update, gradient)| update * gradient);
    Some(norms.filter(|norms| *norms > 0.0).map_or(product.signum(), |norms| product / norms))
}
