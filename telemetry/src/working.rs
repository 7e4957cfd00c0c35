//! How a piece of evidence was worked out: what went in, by name, and the rule that joins it.

use serde::Serialize;

/// One thing that went into a verdict.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    /// Its name, as the rules of its working use it.
    pub name: &'static str,
    /// What it was.
    pub value: FigureValue,
}

/// What a figure was.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum FigureValue {
    /// A measured or computed number.
    Number(f64),
    /// How many.
    Count(u64),
    /// Several numbers, oldest first.
    Numbers(Vec<f64>),
    /// A digest, an operation, a reason.
    Text(String),
}

impl From<f64> for FigureValue {
    fn from(number: f64) -> Self {
        Self::Number(number)
    }
}

impl From<f32> for FigureValue {
    fn from(number: f32) -> Self {
        Self::Number(f64::from(number))
    }
}

impl From<u64> for FigureValue {
    fn from(count: u64) -> Self {
        Self::Count(count)
    }
}

impl From<u32> for FigureValue {
    fn from(count: u32) -> Self {
        Self::Count(u64::from(count))
    }
}

impl From<usize> for FigureValue {
    fn from(count: usize) -> Self {
        Self::Count(count as u64)
    }
}

impl From<Vec<f64>> for FigureValue {
    fn from(numbers: Vec<f64>) -> Self {
        Self::Numbers(numbers)
    }
}

impl From<&str> for FigureValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// The figures behind one piece of evidence, and the rules by which it follows from them.
///
/// It rides beside the evidence and is no part of what is told, stored or compared: evidence equals evidence whatever
/// the two carry here, and a state read back carries none.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Working {
    /// What went in, in the order of computing.
    pub figures: Vec<Figure>,
    /// How `observed`, `expected`, the band and the decision follow, as formulas over the names of the figures.
    pub rules: Vec<&'static str>,
}

impl PartialEq for Working {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Working {
    /// A working by these rules, without a figure yet.
    #[must_use]
    pub fn new(rules: &[&'static str]) -> Self {
        Self { figures: Vec::new(), rules: rules.to_vec() }
    }

    /// The same working with one figure more.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<FigureValue>) -> Self {
        self.figures.push(Figure { name, value: value.into() });
        self
    }

    /// The same working with the figures of another before its own.
    #[must_use]
    pub fn after(self, first: Self) -> Self {
        let figures = first.figures.into_iter().chain(self.figures).collect();
        let rules = first.rules.into_iter().chain(self.rules).collect();
        Self { figures, rules }
    }

    /// The number of this name; a count is one too.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<f64> {
        match self.figures.iter().find(|figure| figure.name == name)?.value {
            FigureValue::Number(number) => Some(number),
            FigureValue::Count(count) => Some(count as f64),
            FigureValue::Numbers(_) | FigureValue::Text(_) => None,
        }
    }

    /// True where nothing is known of how the evidence was worked out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.figures.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Evidence, Metric};

    #[test]
    fn a_working_rides_beside_the_evidence_and_is_no_part_of_it() {
        let bare = Evidence::new("straggler", &Metric::new("forward_time_s"));
        let working = Working::new(&["observed = ratio"]).with("ratio", 1.25_f32).with("rows", 3_u32);
        let explained = Evidence { working, ..bare.clone() };
        assert_eq!(bare, explained);
        let text = |evidence: &Evidence| serde_json::to_string(evidence).expect("plain data");
        assert_eq!(text(&bare), text(&explained));
        assert_eq!((explained.working.number("ratio"), explained.working.number("rows")), (Some(1.25), Some(3.0)));
        assert_eq!(serde_json::from_str::<Evidence>(&text(&explained)).expect("evidence").working.figures, []);
    }
}
