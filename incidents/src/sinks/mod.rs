//! Receivers of notices: what each kind is sent, and what its answer means.
//!
//! A sink makes one attempt and says how it went; when to try again is [`crate::deliver`]'s. It reaches the world only
//! through [`Outside`], so that what is sent can be looked at without sending it.

mod alertmanager;
mod command;
mod error;
mod links;
mod log;
mod pagerduty;
mod secret;
mod slack;
mod template;
mod webhook;

use std::time::Duration;

pub use self::alertmanager::Alertmanager;
pub use self::command::CommandSink;
pub use self::error::SinkError;
pub use self::links::Links;
pub use self::log::LogSink;
pub use self::pagerduty::{PAGERDUTY_URL, PagerDuty};
pub use self::secret::{KeyError, Secret, SigningKeys};
pub use self::slack::Slack;
pub use self::template::{Template, TemplateError};
pub use self::webhook::Webhook;
use crate::Notice;

/// Largest body that is sent, whatever the incident: receivers of Standard Webhooks take 20 kB.
pub const BODY_BYTES_MAX: usize = 20_000;

/// A request to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Post {
    /// Where to; it may hold what only the receiver may know.
    pub url: Secret,
    /// Headers beside the body's type; values may be secret.
    pub headers: Vec<(&'static str, Secret)>,
    /// JSON.
    pub body: String,
}

/// An answer to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Of HTTP.
    pub status: u16,
    /// How long it asks to be left alone.
    pub retry_after: Option<Duration>,
    /// The beginning of its body.
    pub body: String,
}

/// What a sink reaches the world with.
///
/// The caller of a sink may assume that each method comes back: an implementer gives up after a limit of its own.
pub trait Outside: Send + Sync {
    /// Nanoseconds since the epoch.
    fn now(&self) -> i64;

    /// Makes a request.
    ///
    /// # Errors
    /// [`SinkError::Unreachable`] or [`SinkError::Denied`] where there is no answer.
    fn post(&self, post: &Post) -> Result<Reply, SinkError>;

    /// Runs a program with a text on its standard input; gives what it printed.
    ///
    /// # Errors
    /// [`SinkError::Unreachable`] where it cannot be started or does not end; [`SinkError::Exited`] where it fails.
    fn run(&self, argv: &[String], input: &str) -> Result<String, SinkError>;

    /// Writes to the service's own log.
    fn log(&self, notice: &Notice, text: &str);
}

/// One receiver.
///
/// An implementer makes one attempt and never waits to try again, and sends the same notice with the same identity however
/// often it is asked to.
pub trait Sink: Send + Sync {
    /// Sends one notice; gives what was answered, in a few words.
    ///
    /// # Errors
    /// [`SinkError`]: the receiver does not have it, or may not have it.
    fn attempt(&self, notice: &Notice, outside: &dyn Outside) -> Result<String, SinkError>;

    /// How often what is open, or ended a while ago, is to be said again; nothing for most.
    fn repeats_every(&self) -> Option<Duration> {
        None
    }

    /// Says again what is open, or has ended.
    ///
    /// # Errors
    /// [`SinkError`]
    fn repeat(&self, _notices: &[Notice], _outside: &dyn Outside) -> Result<String, SinkError> {
        Ok(String::new())
    }
}

/// Every kind of receiver.
#[derive(Clone, Debug)]
pub enum AnySink {
    /// Standard Webhooks.
    Webhook(Webhook),
    /// One member of a cluster of Alertmanager.
    Alertmanager(Alertmanager),
    /// An incoming webhook of Slack.
    Slack(Slack),
    /// Events v2 of PagerDuty.
    PagerDuty(PagerDuty),
    /// A program.
    Command(CommandSink),
    /// The log of the service.
    Log(LogSink),
}

impl AnySink {
    fn sink(&self) -> &dyn Sink {
        match self {
            Self::Webhook(sink) => sink,
            Self::Alertmanager(sink) => sink,
            Self::Slack(sink) => sink,
            Self::PagerDuty(sink) => sink,
            Self::Command(sink) => sink,
            Self::Log(sink) => sink,
        }
    }
}

impl Sink for AnySink {
    fn attempt(&self, notice: &Notice, outside: &dyn Outside) -> Result<String, SinkError> {
        self.sink().attempt(notice, outside)
    }

    fn repeats_every(&self) -> Option<Duration> {
        self.sink().repeats_every()
    }

    fn repeat(&self, notices: &[Notice], outside: &dyn Outside) -> Result<String, SinkError> {
        self.sink().repeat(notices, outside)
    }
}

/// What every receiver is told in words: a title, a text, and where there is more.
#[derive(Clone, Debug, Default)]
pub struct Words {
    /// One line.
    pub title: Template,
    /// Some lines.
    pub text: Template,
    /// Where there is more.
    pub links: Links,
}

impl Words {
    fn of(&self, notice: &Notice) -> Result<Told, SinkError> {
        let links = self.links.of(&notice.incident);
        let render = |template: &Template, bytes_max| {
            let text = template.render(notice, &links).map_err(|source| SinkError::Template { source })?;
            Ok(crate::notice::shortened(&text, bytes_max))
        };
        let title = match self.title.is_empty() {
            true => render(&Template::title(), TITLE_BYTES_MAX)?,
            false => render(&self.title, TITLE_BYTES_MAX)?,
        };
        let text = match self.text.is_empty() {
            true => render(&Template::text(), TEXT_BYTES_MAX)?,
            false => render(&self.text, TEXT_BYTES_MAX)?,
        };
        Ok(Told { title: title.lines().collect::<Vec<_>>().join(" "), text, links })
    }
}

/// What fits a subject line.
const TITLE_BYTES_MAX: usize = 200;
/// What fits one block of Slack, the smallest of them.
const TEXT_BYTES_MAX: usize = 2_500;

struct Told {
    title: String,
    text: String,
    /// Name and address.
    links: Vec<(&'static str, String)>,
}

/// A time as RFC 3339, to the millisecond.
fn rfc3339(nanoseconds: i64) -> String {
    chrono::DateTime::from_timestamp_nanos(nanoseconds).to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

/// An answer as words, or as the error it is.
fn judged(reply: &Reply) -> Result<String, SinkError> {
    let Reply { status, retry_after, body } = reply;
    let body = crate::notice::shortened(body.trim(), 200);
    match status {
        200..=299 => Ok(format!("{status} {body}").trim_end().to_owned()),
        // What is wrong with this notice; everything else is wrong with the receiver, or with how it is set up.
        400 | 413 | 415 | 422 => Err(SinkError::Refused { status: *status, body }),
        _ => Err(SinkError::Answered { status: *status, body, retry_after: *retry_after }),
    }
}

#[cfg(test)]
mod testing;
