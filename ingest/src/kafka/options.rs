//! How a Kafka cluster is reached, and what our topics are called there.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a Kafka cluster is reached, and what our topics are called there; the table `kafka` of the configuration.
///
/// It holds no secret: a password stays in its file or variable until a client is made.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KafkaOptions {
    /// Brokers to ask first, as `host:port,host:port`.
    pub brokers: String,
    /// Names of the topics.
    #[serde(default)]
    pub topics: TopicNames,
    /// Consumer group: the workers of one group share the runs.
    #[serde(default = "default_group")]
    pub group: String,
    /// Name of this worker in its group. With it a restart within the session timeout keeps the partitions.
    #[serde(default)]
    pub member: Option<String>,
    /// A worker that is not heard of for this long loses its partitions, in milliseconds.
    #[serde(default = "default_session_timeout_ms")]
    pub session_timeout_ms: u32,
    /// Partitions of the telemetry topic when it is made; one that exists keeps its own.
    #[serde(default = "default_partitions")]
    pub partitions: u32,
    /// Copies of each partition when a topic is made; without it, what the brokers are set to.
    #[serde(default)]
    pub replication: Option<u16>,
    /// Encryption, and who we are by certificate.
    #[serde(default)]
    pub tls: Option<TlsOptions>,
    /// Who we are by password.
    #[serde(default)]
    pub sasl: Option<SaslOptions>,
}

/// Names of our topics.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TopicNames {
    /// Frames of runs, keyed by run.
    pub telemetry: String,
    /// Events without a run.
    pub events: String,
    /// State of the workers, compacted.
    pub state: String,
    /// Incidents, compacted.
    pub incidents: String,
}

/// Certificates, as PEM files. A client reads them when it is made: a changed file needs a new client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct TlsOptions {
    /// Authorities that may vouch for a broker; without it, those of the system.
    pub ca: Option<PathBuf>,
    /// Our certificate.
    pub cert: Option<PathBuf>,
    /// Its private key.
    pub key: Option<PathBuf>,
}

/// A user name, and where its password is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SaslOptions {
    /// How the password is shown to the broker.
    pub mechanism: SaslMechanism,
    /// User.
    pub username: String,
    /// File that holds the password; a line break at its end is not part of it.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// Environment variable that holds the password.
    #[serde(default)]
    pub password_env: Option<String>,
}

/// How a password is shown to the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum SaslMechanism {
    /// As it is: only with TLS.
    #[serde(rename = "PLAIN")]
    Plain,
    /// Salted challenge, SHA-256.
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// Salted challenge, SHA-512.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

impl KafkaOptions {
    /// The defaults for a cluster without encryption or passwords.
    #[must_use]
    pub fn new(brokers: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            topics: TopicNames::default(),
            group: default_group(),
            member: None,
            session_timeout_ms: default_session_timeout_ms(),
            partitions: default_partitions(),
            replication: None,
            tls: None,
            sasl: None,
        }
    }
}

impl TopicNames {
    /// The four names with something of one's own before the dot.
    #[must_use]
    pub fn with_prefix(prefix: &str) -> Self {
        Self {
            telemetry: format!("{prefix}.telemetry"),
            events: format!("{prefix}.events"),
            state: format!("{prefix}.state"),
            incidents: format!("{prefix}.incidents"),
        }
    }
}

impl Default for TopicNames {
    fn default() -> Self {
        Self::with_prefix("trainwarden")
    }
}

impl SaslMechanism {
    /// Its name on the wire.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

fn default_group() -> String {
    "trainwarden".to_owned()
}

/// Two missed heartbeats and room for a slow one: a dead worker is replaced well within half a minute.
fn default_session_timeout_ms() -> u32 {
    10_000
}

/// More than workers are likely to be started, few enough that each is worth a thread.
fn default_partitions() -> u32 {
    16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_alone_are_enough() {
        let options: KafkaOptions = serde_json::from_str(r#"{"brokers": "127.0.0.1:9092"}"#).unwrap();
        assert_eq!(options, KafkaOptions::new("127.0.0.1:9092"));
        assert_eq!(options.topics.telemetry, "trainwarden.telemetry");
    }

    #[test]
    fn an_unknown_key_is_an_error() {
        let error = serde_json::from_str::<KafkaOptions>(r#"{"brokers": "b:1", "groop": "x"}"#).unwrap_err();
        assert!(error.to_string().contains("groop"), "{error}");
    }
}
