//! What a person does: it enters the log of the run as an event, through a running service, so that a replay repeats it.

use std::fmt;

use anyhow::{Result, bail};
use serde_json::json;
use trainwarden_proto::v1::{AcknowledgeRequest, AnnotateRequest, EventReceipt};

use crate::client;
use crate::incident_list::{Place, runtime};

/// Who sends what people do, in the name of a service.
pub const ACT_SENDER: &str = "trainwarden";

/// Who acts, and where.
#[derive(Clone, Debug)]
pub struct Person {
    /// Where the service is.
    pub place: Place,
    /// Their name; empty = not told.
    pub name: String,
}

/// Where the act stands in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    partition: u32,
    offset: u64,
}

impl fmt::Display for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "partition {}, offset {}", self.partition, self.offset)
    }
}

impl From<EventReceipt> for Receipt {
    fn from(receipt: EventReceipt) -> Self {
        Self { partition: receipt.partition, offset: receipt.offset }
    }
}

/// What is told of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note<'a> {
    /// What is planned or was changed.
    pub text: &'a str,
    /// The run pauses from then on, in nanoseconds since the epoch; `None` = from now on, where it pauses at all.
    pub pause_from: Option<i64>,
    /// ... until then.
    pub pause_until: Option<i64>,
}

impl Note<'_> {
    /// Says what is wrong with it.
    ///
    /// # Errors
    /// When the pause ends before it begins.
    pub fn check(&self) -> Result<()> {
        match (self.pause_from, self.pause_until) {
            (Some(from), Some(until)) if from >= until => {
                bail!("the pause ends ({until}) before it begins ({from}): `--pause-until` must be later")
            }
            _ => Ok(()),
        }
    }

    /// As the log has it: JSON, or nothing.
    #[must_use]
    pub fn detail(&self) -> String {
        match (self.pause_from, self.pause_until) {
            (Some(from), Some(until)) => json!({ "pause_from": from, "pause_until": until }).to_string(),
            (None, Some(until)) => json!({ "pause_until": until }).to_string(),
            (_, None) => String::new(),
        }
    }
}

/// Says that somebody looks after an incident; nothing changes where it is acknowledged or resolved already.
///
/// # Errors
/// When no service runs there, it does not answer, or it knows no such incident.
pub fn acknowledge(person: &Person, id: &str, reason: &str) -> Result<Receipt> {
    let request = AcknowledgeRequest { id: id.to_owned(), actor: person.name.clone(), reason: reason.to_owned() };
    let url = service(person)?;
    runtime()?.block_on(async {
        let answer = client::incidents(url).await?.acknowledge(request).await;
        Ok(answer.map_err(|status| client::refused(&status))?.into_inner().into())
    })
}

/// Tells the log of a run what is planned or was changed.
///
/// # Errors
/// When no service runs there, or it does not answer.
pub fn annotate(person: &Person, run: &str, note: &Note<'_>) -> Result<Receipt> {
    let (actor, subject, detail) = (person.name.clone(), note.text.to_owned(), note.detail());
    let request = AnnotateRequest { run: run.to_owned(), actor, subject, detail };
    let url = service(person)?;
    runtime()?.block_on(async {
        let answer = client::incidents(url).await?.annotate(request).await;
        Ok(answer.map_err(|status| client::refused(&status))?.into_inner().into())
    })
}

fn service(person: &Person) -> Result<&str> {
    match &person.place {
        Place::Service(url) => Ok(url),
        Place::Folder(data) => bail!(
            "no service runs on `{}`: start it with `trainwarden serve --data {0}`, or name one with `--url`",
            data.display()
        ),
    }
}
