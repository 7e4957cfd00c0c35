//! Attributes of a resource or a point: whose it is, and which series.

use trainwarden_proto::otlp::common::any_value::Value;
use trainwarden_proto::otlp::common::{AnyValue, KeyValue};

use super::points::Refusal;
use crate::{NO_U32, NO_U64};

/// What the attributes say; those that are not ours make the series.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Labels {
    pub(super) run: Option<String>,
    pub(super) attempt: Option<u32>,
    pub(super) rank: Option<u32>,
    pub(super) step: Option<u64>,
    /// Other attributes, by name.
    pub(super) others: Vec<(String, String)>,
}

impl Labels {
    /// Reads attributes.
    ///
    /// # Errors
    /// [`Refusal::Attribute`] when one of ours is no number that fits.
    pub(super) fn read(attributes: &[KeyValue]) -> Result<Self, Refusal> {
        let mut labels = Self::default();
        for KeyValue { key, value, .. } in attributes {
            let Some(value) = value else { continue };
            match key.as_str() {
                "trainwarden.run" => labels.run = Some(text(value)).filter(|run| !run.is_empty()),
                "trainwarden.attempt" => labels.attempt = Some(number_u32("trainwarden.attempt", value)?),
                "trainwarden.rank" => labels.rank = Some(number_u32("trainwarden.rank", value)?),
                "trainwarden.step" => labels.step = Some(number("trainwarden.step", value, NO_U64 - 1)?),
                _ => labels.others.push((key.clone(), text(value))),
            }
        }
        labels.others.sort_unstable();
        Ok(labels)
    }

    /// What is said here, and where nothing is, what the resource says. The series is that of the point alone.
    pub(super) fn within(self, resource: &Self) -> Self {
        Self {
            run: self.run.or_else(|| resource.run.clone()),
            attempt: self.attempt.or(resource.attempt),
            rank: self.rank.or(resource.rank),
            step: self.step.or(resource.step),
            others: self.others,
        }
    }

    /// The name of the series: the metric, with the point's other attributes where it has some.
    pub(super) fn series(&self, metric: &str) -> String {
        if self.others.is_empty() {
            return metric.to_owned();
        }
        let told: Vec<String> = self.others.iter().map(|(name, value)| format!("{name}={value}")).collect();
        format!("{metric}{{{}}}", told.join(","))
    }
}

fn number_u32(name: &'static str, value: &AnyValue) -> Result<u32, Refusal> {
    let number = number(name, value, u64::from(NO_U32 - 1))?;
    Ok(u32::try_from(number).expect("at most as large as was asked for"))
}

/// A number, or the text of one: what comes from `OTEL_RESOURCE_ATTRIBUTES` is text.
fn number(name: &'static str, value: &AnyValue, number_max: u64) -> Result<u64, Refusal> {
    let found = match &value.value {
        Some(Value::IntValue(number)) => u64::try_from(*number).ok(),
        Some(Value::StringValue(text)) => text.trim().parse().ok(),
        _ => None,
    };
    let found = found.filter(|number| *number <= number_max);
    found.ok_or_else(|| Refusal::Attribute { name, value: text(value), number_max })
}

fn text(value: &AnyValue) -> String {
    match &value.value {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::BoolValue(told)) => told.to_string(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::DoubleValue(number)) => number.to_string(),
        Some(Value::BytesValue(bytes)) => format!("{bytes:02x?}"),
        Some(Value::ArrayValue(list)) => list.values.iter().map(text).collect::<Vec<_>>().join(";"),
        Some(Value::KvlistValue(list)) => {
            let pair = |pair: &KeyValue| format!("{}={}", pair.key, pair.value.as_ref().map(text).unwrap_or_default());
            list.values.iter().map(pair).collect::<Vec<_>>().join(";")
        }
        // The last one belongs to profiles, which have texts of their own.
        None | Some(Value::StringValueStrindex(_)) => String::new(),
    }
}
