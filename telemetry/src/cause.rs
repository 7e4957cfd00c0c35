//! What may be behind an incident, and what it cost.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What may be behind an incident: a sort of cause, never a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Cause {
    /// A device, a host or their memory is broken.
    #[serde(rename = "hardware.fault")]
    HardwareFault,
    /// A device is held back by heat or power.
    #[serde(rename = "hardware.throttle")]
    Throttle,
    /// A link, a switch or an adapter is slow, congested or down.
    #[serde(rename = "network")]
    Network,
    /// Code, configuration, drivers or scheduling changed or are defective, with no ill intent.
    #[serde(rename = "software.change")]
    SoftwareChange,
    /// The training data, or how they are read.
    #[serde(rename = "data")]
    Data,
    /// Ranks are given unequal work.
    #[serde(rename = "workload.imbalance")]
    Imbalance,
    /// The optimisation itself: a training that is unstable at its size, rate and state.
    #[serde(rename = "optimizer.instability")]
    Instability,
    /// Somebody meant it.
    #[serde(rename = "deliberate")]
    Deliberate,
}

impl Cause {
    /// Every cause, the deliberate one last.
    pub const ALL: [Self; 8] = [
        Self::HardwareFault,
        Self::Throttle,
        Self::Network,
        Self::SoftwareChange,
        Self::Data,
        Self::Imbalance,
        Self::Instability,
        Self::Deliberate,
    ];

    /// The name outside, such as `hardware.throttle`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HardwareFault => "hardware.fault",
            Self::Throttle => "hardware.throttle",
            Self::Network => "network",
            Self::SoftwareChange => "software.change",
            Self::Data => "data",
            Self::Imbalance => "workload.imbalance",
            Self::Instability => "optimizer.instability",
            Self::Deliberate => "deliberate",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One thing that may be behind an incident.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hypothesis {
    /// What it may be.
    pub cause: Cause,
    /// 0 to 1; those of one incident sum to 1.
    pub probability: f64,
    /// What speaks for and against it, in words.
    pub why: String,
}

/// What an incident cost so far: the point estimate lies in the interval.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Impact {
    /// GPU-seconds lost: best estimate, whole seconds.
    pub gpu_seconds_lost: u64,
    /// Their price; absent where none is configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<f64>,
    /// Currency of the price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
    /// Not less, in GPU-seconds.
    pub low: u64,
    /// Not more, in GPU-seconds.
    pub high: u64,
}

impl Impact {
    /// The same loss with its price, in whole hundredths of the currency.
    ///
    /// * `gpu_hour_price`: of one GPU for one hour, in `currency`.
    #[must_use]
    pub fn priced(self, gpu_hour_price: f64, currency: &str) -> Self {
        const HOUR_S: f64 = 3_600.0;
        let cost = self.gpu_seconds_lost as f64 / HOUR_S * gpu_hour_price;
        Self { cost: Some((cost * 100.0).round() / 100.0), currency: Some(currency.to_owned()), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_cause_is_the_one_it_is_written_with() {
        for cause in Cause::ALL {
            assert_eq!(serde_json::to_string(&cause).expect("a name"), format!("\"{cause}\""));
        }
        assert_eq!(Cause::ALL.last(), Some(&Cause::Deliberate));
    }

    #[test]
    fn a_price_is_of_hours_and_the_rest_stays() {
        let lost = Impact { gpu_seconds_lost: 81_000, cost: None, currency: None, low: 70_000, high: 92_000 };
        let priced = lost.clone().priced(2.5, "USD");
        assert_eq!((priced.cost, priced.currency.as_deref()), (Some(56.25), Some("USD")));
        assert_eq!((priced.gpu_seconds_lost, priced.low, priced.high), (81_000, 70_000, 92_000));
        let text = serde_json::to_string(&lost).expect("plain data");
        assert_eq!(text, r#"{"gpu_seconds_lost":81000,"low":70000,"high":92000}"#);
    }
}
