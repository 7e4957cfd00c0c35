//! The configuration of the service: a TOML file, the environment, the command line.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use trainwarden_store::ArchiveOptions;
use trainwarden_telemetry::Incident;

use crate::client;
use crate::serve::access::TokenConfig;

/// The data folder without a word.
pub const DATA: &str = "./trainwarden-data";
/// Names of the environment that override the file: `TRAINWARDEN_LISTEN`, `TRAINWARDEN_LOG__PARTITIONS`.
const ENVIRONMENT_PREFIX: &str = "TRAINWARDEN_";
/// Between the name of a section and a key.
const SECTION_SEPARATOR: &str = "__";
/// Names of the environment with our prefix that are not configuration: collectors write and read them.
const NOT_CONFIGURATION: [&str; 6] = [
    "TRAINWARDEN_ATTEMPT",
    "TRAINWARDEN_RUN",
    "TRAINWARDEN_RANK",
    "TRAINWARDEN_LOGGING",
    client::TOKEN_FILE,
    client::CA_FILE,
];

/// What `serve` can be told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The folder of log, state and archive.
    pub data: PathBuf,
    /// Where HTTP and gRPC are answered.
    #[schemars(with = "String")]
    pub listen: SocketAddr,
    /// The embedded log.
    pub log: LogConfig,
    /// Apache Kafka in the place of the embedded log.
    #[cfg(feature = "kafka")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kafka: Option<trainwarden_ingest::kafka::KafkaOptions>,
    /// What is taken.
    pub ingest: IngestConfig,
    /// Metrics of OpenTelemetry.
    pub otlp: OtlpConfig,
    /// Where telemetry is kept as Parquet.
    pub archive: ArchiveOptions,
    /// Who may do what on the port.
    pub access: AccessConfig,
    /// What the port is encrypted with; without it plain, on loopback.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsConfig>,
    /// What lost time costs.
    pub impact: ImpactConfig,
    /// Who is told of incidents.
    #[cfg(feature = "alerts")]
    pub alerts: crate::alerts::AlertsConfig,
}

/// The embedded log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// Partitions of a new log; an old one keeps its own. Runs of one partition are judged one after the other.
    pub partitions: u32,
    /// Megabytes of judged telemetry that each partition keeps.
    pub kept_mb: u64,
}

/// What is taken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct IngestConfig {
    /// Recorded telemetry, as `send` sends it, is judged by its own times. Without a word: where `listen` is loopback.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backfill: Option<bool>,
    /// Whose signatures count. With one key here, every frame needs a signature of a key here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<KeyConfig>,
}

/// Who may do what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AccessConfig {
    /// Bearer tokens; with one here every answer but `/livez` and `/readyz` needs one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<TokenConfig>,
    /// Where signatures are asked for: the Ed25519 secret key, a file of 64 hexadecimal digits, with which this service
    /// signs what people do, as sender `trainwarden`. Without it nothing is acknowledged or annotated then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
}

/// What the port is encrypted with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// PEM file of the certificate and those that vouch for it, its own first.
    pub certificate: PathBuf,
    /// PEM file of its secret key.
    pub key: PathBuf,
}

/// What lost time costs. Without a price incidents tell GPU-seconds alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ImpactConfig {
    /// Price of one GPU for one hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_hour_price: Option<f64>,
    /// Its currency.
    pub currency: String,
}

impl Default for ImpactConfig {
    fn default() -> Self {
        Self { gpu_hour_price: None, currency: "USD".to_owned() }
    }
}

impl ImpactConfig {
    /// Puts the price on what an incident lost, where there is one.
    pub fn price(&self, incident: &mut Incident) {
        let Some(price) = self.gpu_hour_price else { return };
        incident.impact = incident.impact.take().map(|impact| impact.priced(price, &self.currency));
    }
}

/// Metrics of OpenTelemetry (OTLP).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct OtlpConfig {
    /// Topics of the same Kafka to which an OpenTelemetry Collector exports metrics, with its encoding `otlp_proto`.
    #[cfg(feature = "kafka")]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kafka_topics: Vec<String>,
    /// Where signatures are asked for: the Ed25519 secret key, a file of 64 hexadecimal digits, with which this service
    /// signs what comes by OTLP, as sender `otlp`. Without it, nothing is taken by OTLP then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
}

/// A sender's public key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeyConfig {
    /// Whose.
    pub sender: String,
    /// Which of the sender's keys.
    #[serde(default)]
    pub epoch: u32,
    /// Ed25519, 64 hexadecimal digits.
    pub key: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: PathBuf::from(DATA),
            listen: SocketAddr::from(([127, 0, 0, 1], 7788)),
            log: LogConfig::default(),
            #[cfg(feature = "kafka")]
            kafka: None,
            ingest: IngestConfig::default(),
            otlp: OtlpConfig::default(),
            archive: ArchiveOptions::default(),
            access: AccessConfig::default(),
            tls: None,
            impact: ImpactConfig::default(),
            #[cfg(feature = "alerts")]
            alerts: crate::alerts::AlertsConfig::default(),
        }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { partitions: 4, kept_mb: 256 }
    }
}

impl Config {
    /// Reads a file, and what the environment overrides.
    ///
    /// * `file`: none = defaults.
    /// * `environment`: names and values.
    ///
    /// # Errors
    /// When the file cannot be read, or a key or value is wrong; says which, where, and what is accepted.
    pub fn read(file: Option<&Path>, environment: impl IntoIterator<Item = (String, String)>) -> Result<Self> {
        let name = file.map_or_else(|| "the environment".to_owned(), |path| format!("`{}`", path.display()));
        let text = match file {
            // A configuration that cannot be read is a wrong configuration, not a failure outside.
            Some(path) => {
                std::fs::read_to_string(path).map_err(|error| anyhow::anyhow!("cannot read {name}: {error}"))?
            }
            None => String::new(),
        };
        let mut table: toml::Table = text.parse().with_context(|| format!("{name} is no TOML"))?;
        // The file alone first: then an error has its line.
        if file.is_some() {
            toml::from_str::<Self>(&text).map_err(|error| explain(&error)).with_context(|| format!("in {name}"))?;
        }
        for (variable, value) in environment {
            if let Some(path) = variable.strip_prefix(ENVIRONMENT_PREFIX)
                && !NOT_CONFIGURATION.contains(&variable.as_str())
            {
                override_key(&mut table, path, &value).with_context(|| format!("in `{variable}`"))?;
            }
        }
        let config: Self = table.try_into().map_err(|error| explain(&error)).context("in the environment")?;
        config.check()?;
        Ok(config)
    }

    /// True where recorded telemetry is taken.
    #[must_use]
    pub fn takes_backfill(&self) -> bool {
        self.ingest.backfill.unwrap_or(self.listen.ip().is_loopback())
    }

    /// Says what is wrong with values that the types let through.
    ///
    /// # Errors
    /// Names the key, its value, and what is accepted.
    pub fn check(&self) -> Result<()> {
        if !self.listen.ip().is_loopback() && (self.tls.is_none() || self.access.tokens.is_empty()) {
            bail!(
                "`listen` is {}: beyond loopback answers must be encrypted and asked for with a token: set `tls` and \
                 `access.tokens`",
                self.listen
            );
        }
        if cfg!(not(feature = "tls")) && self.tls.is_some() {
            bail!("`tls`: this program was built without TLS; build it with its default features");
        }
        if self.log.partitions == 0 || self.log.partitions > 1024 {
            bail!("`log.partitions` is {}: accepted are 1 to 1024", self.log.partitions);
        }
        if let Some(price) = self.impact.gpu_hour_price.filter(|price| !price.is_finite() || *price < 0.0) {
            bail!("`impact.gpu_hour_price` is {price}: accepted are numbers from 0 on, such as 2.5");
        }
        #[cfg(feature = "alerts")]
        self.alerts.check()?;
        self.check_otlp()?;
        self.senders_keys().map(|_| ())
    }

    #[cfg(not(feature = "kafka"))]
    fn check_otlp(&self) -> Result<()> {
        Ok(())
    }

    #[cfg(feature = "kafka")]
    fn check_otlp(&self) -> Result<()> {
        let OtlpConfig { kafka_topics, key } = &self.otlp;
        if kafka_topics.is_empty() {
            return Ok(());
        }
        if !self.ingest.keys.is_empty() && key.is_none() {
            bail!("`otlp.kafka_topics` needs `otlp.key`, because `ingest.keys` asks for signatures");
        }
        let Some(kafka) = &self.kafka else { bail!("`otlp.kafka_topics` needs `kafka.brokers`") };
        let own = &kafka.topics;
        match kafka_topics
            .iter()
            .find(|topic| [&own.telemetry, &own.events, &own.state, &own.incidents].contains(topic))
        {
            Some(topic) => bail!("`otlp.kafka_topics` names `{topic}`, which is a topic of our own"),
            None => Ok(()),
        }
    }

    /// The key with which the service signs what comes by OTLP; `None` where nothing asks for a signature.
    ///
    /// # Errors
    /// When `otlp.key` cannot be read, or is no key.
    pub fn otlp_key(&self) -> Result<Option<[u8; 32]>> {
        let key = self.otlp.key.as_deref().filter(|_| !self.ingest.keys.is_empty());
        key.map(read_key).transpose().context("in `otlp.key`")
    }

    /// The key with which the service signs what people do; `None` where nothing asks for a signature, or there is none.
    ///
    /// # Errors
    /// When `access.key` cannot be read, or is no key.
    pub fn act_key(&self) -> Result<Option<[u8; 32]>> {
        let key = self.access.key.as_deref().filter(|_| !self.ingest.keys.is_empty());
        key.map(read_key).transpose().context("in `access.key`")
    }

    /// True where what comes by OTLP may be taken.
    #[must_use]
    pub fn takes_otlp(&self) -> bool {
        self.ingest.keys.is_empty() || self.otlp.key.is_some()
    }

    /// The keys that count: of `ingest.keys`, and our own.
    ///
    /// # Errors
    /// When one is no key.
    pub fn trusted_keys(&self) -> Result<trainwarden_ingest::wire::TrustedKeys> {
        let mut keys = self.senders_keys()?;
        if let Some(key) = self.otlp_key()? {
            keys.trust_secret(trainwarden_ingest::otlp::OTLP_SENDER, 0, &key);
        }
        if let Some(key) = self.act_key()? {
            keys.trust_secret(crate::act::ACT_SENDER, 0, &key);
        }
        Ok(keys)
    }

    fn senders_keys(&self) -> Result<trainwarden_ingest::wire::TrustedKeys> {
        let mut keys = trainwarden_ingest::wire::TrustedKeys::default();
        for KeyConfig { sender, epoch, key } in &self.ingest.keys {
            let bytes = from_hex(key).with_context(|| format!("`ingest.keys` of `{sender}` is not hexadecimal"))?;
            keys.trust(sender, *epoch, &bytes).map_err(|why| anyhow::anyhow!("`ingest.keys` of `{sender}`: {why}"))?;
        }
        Ok(keys)
    }

    /// The JSON Schema of the file.
    #[must_use]
    pub fn schema() -> String {
        serde_json::to_string_pretty(&schemars::schema_for!(Self)).expect("a schema is JSON")
    }
}

/// Reads an Ed25519 secret key: a file of 64 hexadecimal digits.
///
/// # Errors
/// When the file cannot be read, or holds something else.
pub fn read_key(path: &Path) -> Result<[u8; 32]> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read the key `{}`", path.display()))?;
    let bytes = from_hex(text.trim()).with_context(|| format!("`{}` is no key", path.display()))?;
    let bytes: Result<[u8; 32], _> = bytes.try_into();
    bytes.map_err(|_| anyhow::anyhow!("`{}` is no key: 64 hexadecimal digits are needed", path.display()))
}

/// Bytes from hexadecimal digits.
///
/// # Errors
/// When the text has another character or an odd length.
pub fn from_hex(text: &str) -> Result<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.is_ascii() {
        bail!("an even number of hexadecimal digits is needed");
    }
    let digits = (0..text.len()).step_by(2).map(|at| &text[at..at + 2]);
    digits.map(|digits| u8::from_str_radix(digits, 16).context("not a hexadecimal digit")).collect()
}

/// Adds the nearest known name to an error that names an unknown one.
fn explain(error: &toml::de::Error) -> anyhow::Error {
    let text = error.to_string();
    let quoted: Vec<&str> = error.message().split('`').skip(1).step_by(2).collect();
    if error.message().starts_with("unknown field")
        && let Some((unknown, known)) = quoted.split_first()
        && let Some(nearest) = known.iter().min_by_key(|name| strsim::damerau_levenshtein(unknown, name))
    {
        return anyhow::anyhow!("{}\ndid you mean `{nearest}`?", text.trim_end());
    }
    anyhow::anyhow!("{}", text.trim_end())
}

/// Sets a key by its name in the environment; the value is TOML, or text where it is none.
fn override_key(table: &mut toml::Table, path: &str, value: &str) -> Result<()> {
    let path = path.to_lowercase();
    let parts: Vec<&str> = path.split(SECTION_SEPARATOR).collect();
    let (key, sections) = parts.split_last().context("the name is empty")?;
    let mut section = table;
    for name in sections {
        let entry = section.entry((*name).to_owned()).or_insert_with(|| toml::Table::new().into());
        section = entry.as_table_mut().with_context(|| format!("`{name}` is no section"))?;
    }
    let parsed = format!("value = {value}").parse::<toml::Table>().ok().and_then(|mut parsed| parsed.remove("value"));
    section.insert((*key).to_owned(), parsed.unwrap_or_else(|| value.into()));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, environment: &[(&str, &str)]) -> Result<Config> {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("trainwarden.toml");
        std::fs::write(&path, text).expect("written");
        Config::read(Some(&path), environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn an_empty_file_is_the_default_and_the_environment_overrides_the_file() {
        assert_eq!(read("", &[]).expect("good"), Config::default());
        let environment =
            [("TRAINWARDEN_LOG__PARTITIONS", "7"), ("TRAINWARDEN_DATA", "/tmp/tw"), ("TRAINWARDEN_ATTEMPT", "3")];
        let config = read("[log]\npartitions = 2\nkept_mb = 9\n", &environment).expect("good");
        assert_eq!((config.log.partitions, config.log.kept_mb), (7, 9));
        assert_eq!(config.data, Path::new("/tmp/tw"));
    }

    #[test]
    fn an_unknown_key_names_its_line_and_the_nearest_known_one() {
        let error = format!("{:#}", read("[log]\npartition = 2\n", &[]).expect_err("unknown"));
        assert!(error.contains("line 2") && error.contains("did you mean `partitions`?"), "{error}");
        let error = format!("{:#}", read("", &[("TRAINWARDEN_LISTE", "x")]).expect_err("unknown"));
        assert!(error.contains("did you mean `listen`?"), "{error}");
    }

    #[test]
    fn wrong_values_say_what_is_accepted() {
        for (text, expected) in [
            ("[log]\npartitions = 0\n", "accepted are 1 to 1024"),
            ("listen = \"0.0.0.0:7788\"\n", "set `tls` and `access.tokens`"),
            ("[impact]\ngpu_hour_price = -1.0\n", "accepted are numbers from 0 on"),
            ("[[ingest.keys]]\nsender = \"n1\"\nkey = \"abc\"\n", "`n1` is not hexadecimal"),
            ("[[ingest.keys]]\nsender = \"n1\"\nkey = \"abcd\"\n", "32 bytes"),
        ] {
            let error = format!("{:#}", read(text, &[]).expect_err("wrong"));
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[cfg(feature = "alerts")]
    #[test]
    fn a_sink_says_what_it_needs_and_what_it_does_not_take() {
        let sink = |lines: &str| format!("[[alerts.sinks]]\nname = \"a\"\n{lines}");
        let slack = "type = \"slack\"\nsecret_env = \"S\"\n";
        let hook = |url: &str| format!("type = \"webhook\"\nsecret_env = \"S\"\nurl = \"{url}\"\n");
        for (lines, expected) in [
            ("type = \"slak\"\n".to_owned(), "`slack`"),
            (format!("{slack}secret_fil = \"x\"\n"), "did you mean `secret_file`?"),
            (format!("{slack}secret_file = \"x\"\n"), "one is accepted"),
            (format!("{slack}url = \"https://x\"\n"), "type \"slack\" does not take `url`"),
            (format!("{slack}kinds = [\"slowdown.rnk\"]\n"), "did you mean `slowdown.rank`?"),
            (format!("{slack}min_severity = \"info\"\n"), "accepted are warning and critical"),
            (format!("{slack}timeout_s = 0\n"), "accepted are 1 to 60"),
            (format!("{slack}title = \"{{{{\"\n"), "`title` is no template"),
            (format!("{slack}allow_private = [\"10\"]\n"), "a network such as `10.1.0.0/16`"),
            ("type = \"webhook\"\nurl = \"https://x\"\n".to_owned(), "needs `secret_file` or `secret_env`"),
            ("type = \"command\"\n".to_owned(), "needs `argv`"),
            (hook("http://x"), "`https` is needed"),
            (hook("https://u:p@x"), "holds a password"),
            (hook("ftp://x"), "neither `https` nor `http`"),
        ] {
            let error = format!("{:#}", read(&sink(&lines), &[]).expect_err("wrong"));
            assert!(error.contains(expected), "{lines}: {error}");
            assert!(!error.contains("u:p@"), "{error}");
        }
        let twice = format!("{}{}", sink(slack), sink(slack));
        assert!(format!("{:#}", read(&twice, &[]).expect_err("twice")).contains("two with the name `a`"));
        let good = read(&sink(&format!("{slack}kinds = [\"weights.*\"]\nallow_private = [\"10.0.0.0/8\"]\n")), &[]);
        assert_eq!(good.expect("good").alerts.sinks[0].timeout_s, 10);
    }

    #[test]
    fn the_schema_in_the_repository_is_the_one_of_the_code() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/trainwarden.schema.json");
        let kept = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(kept.trim_end(), Config::schema(), "run `trainwarden check --schema > {}`", path.display());
    }
}
