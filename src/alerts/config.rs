//! The configuration of alerts: receivers, and what each is told.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use trainwarden_incidents::sinks::{
    Alertmanager, AnySink, CommandSink, Links, LogSink, PAGERDUTY_URL, PagerDuty, Secret, SigningKeys, Slack, Template,
    Webhook, Words,
};
use trainwarden_telemetry::{Kind, Severity};

use super::teller::{Endpoint, Pattern, Route};
use super::trial::test_notice;
use super::{Guard, World};

/// Receivers; each has two threads and a place in memory.
const SINKS_MAX: usize = 32;
/// Longest wait for a receiver, in seconds.
const TIMEOUT_S_MAX: u64 = 60;
/// Longest time that an end must last, in seconds.
const RESOLVE_AFTER_S_MAX: u64 = 3_600;

/// Who is told of incidents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AlertsConfig {
    /// Seconds that the end of an incident must last before it is told; an incident that comes back earlier was never away.
    pub resolve_after_s: u64,
    /// Where there is more about an incident.
    #[serde(skip_serializing_if = "LinksConfig::is_empty")]
    pub links: LinksConfig,
    /// The receivers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sinks: Vec<SinkConfig>,
}

impl Default for AlertsConfig {
    fn default() -> Self {
        Self { resolve_after_s: 60, links: LinksConfig::default(), sinks: Vec::new() }
    }
}

/// Addresses with `{id}`, `{kind}` and `{run}` in them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct LinksConfig {
    /// Of an incident.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page: Option<String>,
    /// What to do about a kind of incident: `https://…/docs/runbooks/{kind}.md`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runbook: Option<String>,
    /// The telemetry around an incident.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
}

impl LinksConfig {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What a receiver is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SinkType {
    /// Standard Webhooks 1.0.
    Webhook,
    /// Prometheus Alertmanager, API v2.
    Alertmanager,
    /// An incoming webhook of Slack.
    Slack,
    /// PagerDuty, Events API v2.
    Pagerduty,
    /// A program of this machine.
    Command,
    /// The log of the service.
    Log,
}

/// Addresses inside of the site that a receiver may have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum AllowPrivate {
    /// Private ones and loopback, or none.
    All(bool),
    /// Those of these networks: `["10.1.0.0/16"]`.
    Listed(Vec<String>),
}

impl Default for AllowPrivate {
    fn default() -> Self {
        Self::All(false)
    }
}

/// One receiver.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SinkConfig {
    /// Its name, for good: notices that wait for it wait under this name.
    pub name: String,
    /// What it is.
    pub r#type: SinkType,
    /// Where it is: `webhook`, and `pagerduty` outside of its first region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Where every member of the cluster is: `alertmanager`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// A file with its secret: keys of `webhook`, routing key of `pagerduty`, address of `slack`, token of `alertmanager`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<PathBuf>,
    /// ... or a name of the environment that holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_env: Option<String>,
    /// The program and its arguments: `command`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub argv: Vec<String>,
    /// Seconds after which an attempt is given up.
    #[serde(default = "default_timeout_s")]
    pub timeout_s: u64,
    /// Seconds after which an open incident is said again: `alertmanager`.
    #[serde(default = "default_repeat_s")]
    pub repeat_s: u64,
    /// Addresses inside of the site that it may have; without a word none.
    #[serde(default)]
    pub allow_private: AllowPrivate,
    /// Certificates in PEM that are trusted beside those of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// It is told of incidents at least so severe: warning or critical.
    #[serde(default = "default_severity")]
    #[schemars(with = "String")]
    pub min_severity: Severity,
    /// Only of these runs; `*` at the end stands for any rest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<String>,
    /// Only of these kinds; `*` at the end stands for any rest: `weights.*`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kinds: Vec<String>,
    /// Labels of every alert beside its own: `alertmanager`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// A template of the title.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub title: String,
    /// A template of the text.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
}

fn default_timeout_s() -> u64 {
    10
}

fn default_repeat_s() -> u64 {
    60
}

fn default_severity() -> Severity {
    Severity::Warning
}

impl AlertsConfig {
    /// Says what is wrong with values that the types let through.
    ///
    /// # Errors
    /// Names the sink, the key, its value, and what is accepted.
    pub fn check(&self) -> Result<()> {
        let after = self.resolve_after_s;
        ensure!(
            after <= RESOLVE_AFTER_S_MAX,
            "`alerts.resolve_after_s` is {after}: accepted are 0 to {RESOLVE_AFTER_S_MAX}"
        );
        ensure!(self.sinks.len() <= SINKS_MAX, "`alerts.sinks` are {}: at most {SINKS_MAX}", self.sinks.len());
        let links = &self.links;
        for (key, link) in [("page", &links.page), ("runbook", &links.runbook), ("query", &links.query)] {
            let Some(link) = link else { continue };
            let is_web = link.starts_with("https://") || link.starts_with("http://");
            ensure!(is_web, "`alerts.links.{key}` is `{link}`: an address that begins with `https://` is accepted");
        }
        let mut names = BTreeSet::new();
        for sink in &self.sinks {
            ensure!(names.insert(&sink.name), "`alerts.sinks` has two with the name `{}`", sink.name);
            sink.check().with_context(|| format!("`alerts.sinks` of `{}`", sink.name))?;
        }
        Ok(())
    }

    /// The receivers, with their secrets; inside of a runtime.
    ///
    /// # Errors
    /// When a secret or a certificate cannot be read.
    pub fn endpoints(&self) -> Result<Vec<Endpoint>> {
        let mut endpoints = Vec::new();
        for sink in &self.sinks {
            let found = sink.endpoints(&self.links).with_context(|| format!("`alerts.sinks` of `{}`", sink.name))?;
            endpoints.extend(found);
        }
        Ok(endpoints)
    }
}

impl SinkConfig {
    fn check(&self) -> Result<()> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let is_name = (1..=64).contains(&self.name.len()) && self.name.bytes().all(is_plain);
        ensure!(is_name, "`name` is `{}`: accepted are 1 to 64 letters, digits, `-`, `_` and `.`", self.name);
        let timeout = self.timeout_s;
        ensure!((1..=TIMEOUT_S_MAX).contains(&timeout), "`timeout_s` is {timeout}: accepted are 1 to {TIMEOUT_S_MAX}");
        ensure!((1..=3_600).contains(&self.repeat_s), "`repeat_s` is {}: accepted are 1 to 3600", self.repeat_s);
        ensure!(self.min_severity >= Severity::Warning, "`min_severity` is info: accepted are warning and critical");
        ensure!(
            self.secret_file.is_none() || self.secret_env.is_none(),
            "has `secret_file` and `secret_env`: one is accepted"
        );
        Guard::new(&self.allow_private)?;
        self.check_keys()?;
        for url in self.url.iter().chain(&self.urls) {
            self.check_url(url)?;
        }
        for kind in &self.kinds {
            let pattern = Pattern::new(kind);
            if !Kind::ALL.iter().any(|known| pattern.fits(known.as_str())) {
                let distance = |known: &&Kind| strsim::damerau_levenshtein(known.as_str(), kind);
                let nearest = Kind::ALL.iter().min_by_key(distance).map_or("", |known| known.as_str());
                bail!("`kinds` has `{kind}`, and there is no such kind\ndid you mean `{nearest}`?");
            }
        }
        self.words(&LinksConfig::default()).map(|_| ())
    }

    /// What a type needs, and what would be passed over in silence.
    fn check_keys(&self) -> Result<()> {
        let given = [
            ("url", self.url.is_some()),
            ("urls", !self.urls.is_empty()),
            ("secret", self.secret_file.is_some() || self.secret_env.is_some()),
            ("argv", !self.argv.is_empty()),
            ("labels", !self.labels.is_empty()),
        ];
        let (needed, accepted): (&[&str], &[&str]) = match self.r#type {
            SinkType::Webhook => (&["url", "secret"], &[]),
            SinkType::Alertmanager => (&["urls"], &["secret", "labels"]),
            SinkType::Slack => (&["secret"], &[]),
            SinkType::Pagerduty => (&["secret"], &["url"]),
            SinkType::Command => (&["argv"], &[]),
            SinkType::Log => (&[], &[]),
        };
        let shown = |key: &str| match key {
            "secret" => "`secret_file` or `secret_env`".to_owned(),
            key => format!("`{key}`"),
        };
        let word = serde_json::to_value(self.r#type).unwrap_or_default();
        for (key, is_given) in given {
            if !is_given && needed.contains(&key) {
                bail!("type {word} needs {}", shown(key));
            }
            if is_given && !needed.contains(&key) && !accepted.contains(&key) {
                bail!("type {word} does not take {}", shown(key));
            }
        }
        Ok(())
    }

    fn check_url(&self, url: &str) -> Result<reqwest::Url> {
        let parsed = reqwest::Url::parse(url).map_err(|error| anyhow::anyhow!("an address is none: {error}"))?;
        let shown = format!("{}://{}", parsed.scheme(), parsed.host_str().unwrap_or_default());
        ensure!(parsed.has_host(), "an address names no host");
        ensure!(
            parsed.username().is_empty() && parsed.password().is_none(),
            "`{shown}` holds a password: secrets come from `secret_file` or `secret_env`"
        );
        let is_inside = self.allow_private != AllowPrivate::All(false);
        match parsed.scheme() {
            "https" => {}
            "http" if is_inside => {}
            "http" => bail!("`{shown}` is not encrypted: `https` is needed, unless `allow_private` is set"),
            _ => bail!("`{shown}` is neither `https` nor `http`"),
        }
        Ok(parsed)
    }

    fn words(&self, links: &LinksConfig) -> Result<Words> {
        let example = test_notice(&self.name, 0, 0);
        let template = |key: &str, source: &str| {
            Template::new(source, &example).with_context(|| format!("`{key}` is no template"))
        };
        let LinksConfig { page, runbook, query } = links.clone();
        let links = Links { page, runbook, query };
        Ok(Words { title: template("title", &self.title)?, text: template("text", &self.text)?, links })
    }

    fn secret(&self) -> Result<Option<Secret>> {
        let text = match (&self.secret_file, &self.secret_env) {
            (Some(path), _) => std::fs::read_to_string(path)
                .map_err(|error| anyhow::anyhow!("cannot read the secret `{}`: {error}", path.display()))?,
            (None, Some(name)) => {
                std::env::var(name).map_err(|_| anyhow::anyhow!("`{name}` is not set in the environment"))?
            }
            (None, None) => return Ok(None),
        };
        ensure!(!text.trim().is_empty(), "the secret is empty");
        Ok(Some(Secret::new(text.trim())))
    }

    fn endpoints(&self, links: &LinksConfig) -> Result<Vec<Endpoint>> {
        let (words, secret) = (self.words(links)?, self.secret()?);
        let needed = || secret.clone().context("has no secret");
        let given = |url: &Option<String>| Secret::new(url.as_deref().unwrap_or(PAGERDUTY_URL));
        let one = |sink| vec![(self.name.clone(), sink)];
        let sinks = match self.r#type {
            SinkType::Webhook => {
                let keys = SigningKeys::parse(needed()?.reveal())?;
                one(AnySink::Webhook(Webhook { url: given(&self.url), keys, words }))
            }
            SinkType::Alertmanager => self.members(&words, secret.as_ref())?,
            SinkType::Slack => {
                let url = needed()?;
                self.check_url(url.reveal()).context("the secret is to be the address of the webhook")?;
                one(AnySink::Slack(Slack { url, words }))
            }
            SinkType::Pagerduty => {
                one(AnySink::PagerDuty(PagerDuty { url: given(&self.url), routing_key: needed()?, words }))
            }
            SinkType::Command => one(AnySink::Command(CommandSink { argv: self.argv.clone(), words })),
            SinkType::Log => one(AnySink::Log(LogSink { words })),
        };
        let ca = self.ca_file.as_ref().map(|path| {
            std::fs::read(path).map_err(|error| anyhow::anyhow!("cannot read `ca_file` `{}`: {error}", path.display()))
        });
        let ca = ca.transpose()?;
        let guard = Guard::new(&self.allow_private)?;
        let outside = Arc::new(World::new(guard, Duration::from_secs(self.timeout_s), ca.as_deref())?);
        let route = Route::new(self.min_severity, &self.runs, &self.kinds);
        let endpoint = |(name, sink)| Endpoint {
            name,
            sink,
            outside: Arc::clone(&outside) as Arc<dyn trainwarden_incidents::sinks::Outside>,
            route: route.clone(),
        };
        Ok(sinks.into_iter().map(endpoint).collect())
    }

    /// Each member of a cluster is a receiver of its own, named by its place.
    fn members(&self, words: &Words, secret: Option<&Secret>) -> Result<Vec<(String, AnySink)>> {
        let mut members = Vec::new();
        for url in &self.urls {
            let parsed = self.check_url(url)?;
            let host = parsed.host_str().unwrap_or_default();
            let place = parsed.port_or_known_default().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
            let sink = Alertmanager {
                url: Secret::new(url),
                bearer: secret.cloned(),
                repeats_every: Duration::from_secs(self.repeat_s),
                labels: self.labels.clone(),
                words: words.clone(),
            };
            members.push((format!("{}@{place}", self.name), AnySink::Alertmanager(sink)));
        }
        Ok(members)
    }
}
