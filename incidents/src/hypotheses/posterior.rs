//! Base rates and facts put together by Bayes.

use trainwarden_telemetry::{Cause, Hypothesis, Kind};

use super::facts::Fact;
use super::table::{Weights, base_rates};
use crate::limits::{HYPOTHESIS_SHOWN_MIN, INTENT_SHOWN_MIN};

/// Facts named for and against a cause.
const FOR_MAX: usize = 2;
/// A fact speaks for a cause that makes it so many times as likely as the causes do on the whole ...
const FOR_MIN: f64 = 1.25;
/// ... and against one that makes it only so likely.
const AGAINST_MAX: f64 = 0.5;
/// Probabilities are told in thousandths.
const THOUSAND: f64 = 1_000.0;

/// What may be behind an incident of a kind, given its facts: the likeliest first; sums to 1.
///
/// Facts are taken as independent given the cause. What falls below [`HYPOTHESIS_SHOWN_MIN`] is left out and its share
/// goes to the rest in proportion, but two always stay; a deliberate act is shown from [`INTENT_SHOWN_MIN`] on. Only products, sums and one
/// division: the same bits on every machine.
pub(crate) fn posterior(kind: Kind, facts: &[Fact]) -> Vec<Hypothesis> {
    let base = normalised(base_rates(kind));
    let mut weights = base;
    for fact in facts {
        for (weight, chance) in weights.iter_mut().zip(fact.chances) {
            *weight *= chance;
        }
        // Many small chances multiply to nothing.
        weights = normalised(weights);
    }
    let mut shown: Vec<(usize, f64)> = weights.into_iter().enumerate().collect();
    // Stable, so that equal ones stay in the order of `Cause::ALL`: a deliberate act comes last.
    shown.sort_by(|one, other| other.1.total_cmp(&one.1));
    let least = |cause| if cause == Cause::Deliberate { INTENT_SHOWN_MIN } else { HYPOTHESIS_SHOWN_MIN };
    // Nothing is certain: the second one stays, however small.
    let second = shown[1].1;
    shown.retain(|(place, weight)| *weight >= second.min(least(Cause::ALL[*place])));
    let total: f64 = shown.iter().map(|(_, weight)| weight).sum();
    let mut thousandths: Vec<f64> = shown.iter().map(|(_, weight)| (THOUSAND * weight / total).round()).collect();
    // What rounding left over goes to the likeliest, so that the sum is 1.
    if let Some(first) = thousandths.first().copied() {
        thousandths[0] = first + THOUSAND - thousandths.iter().sum::<f64>();
    }
    let hypothesis = |((place, _), thousandths): (&(usize, f64), f64)| Hypothesis {
        cause: Cause::ALL[*place],
        probability: thousandths / THOUSAND,
        why: why(*place, &base, facts),
    };
    shown.iter().zip(thousandths).map(hypothesis).collect()
}

fn normalised(weights: Weights) -> Weights {
    let total: f64 = weights.iter().sum();
    weights.map(|weight| weight / total)
}

/// What speaks for a cause, what against it, and its base rate.
fn why(place: usize, base: &Weights, facts: &[Fact]) -> String {
    let mut lifts: Vec<(f64, &str)> = facts.iter().map(|fact| (lift(fact, place, base), fact.words.as_str())).collect();
    lifts.sort_by(|one, other| other.0.total_cmp(&one.0).then(one.1.cmp(other.1)));
    let pro: Vec<&str> =
        lifts.iter().filter(|(lift, _)| *lift >= FOR_MIN).take(FOR_MAX).map(|(_, words)| *words).collect();
    let contra = lifts.last().filter(|(lift, _)| *lift <= AGAINST_MAX).map(|(_, words)| *words);
    let mut parts = Vec::new();
    if !pro.is_empty() {
        parts.push(format!("for it: {}", pro.join("; ")));
    }
    parts.extend(contra.map(|words| format!("against it: {words}")));
    parts.push(format!("base rate {}", share(base[place])));
    if Cause::ALL[place] == Cause::Deliberate {
        parts.push("it is about a pattern, not about a person".to_owned());
    }
    parts.join("; ")
}

/// How many times as likely a cause makes a fact as the causes do on the whole.
fn lift(fact: &Fact, place: usize, base: &Weights) -> f64 {
    let usual: f64 = fact.chances.iter().zip(base).map(|(chance, weight)| chance * weight).sum();
    fact.chances[place] / usual
}

fn share(part: f64) -> String {
    match part {
        part if part < 0.01 => "less than 1 %".to_owned(),
        part => format!("{:.0} %", 100.0 * part),
    }
}
