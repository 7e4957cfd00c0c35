//! Incidents as they are listed, from a running service or from its folder.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tokio_stream::StreamExt;
use trainwarden_proto::v1::{IncidentChange, ListRequest, PausesRequest, WatchRequest};
use trainwarden_store::StateStore;
use trainwarden_telemetry::Incident;

use crate::client;
use crate::planned_pause::PlannedPause;
use crate::serve::{Running, STATE_FILE};

/// Where incidents are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A running service.
    Service(String),
    /// The folder of one that does not run.
    Folder(PathBuf),
}

impl Place {
    /// The running service of a data folder, or the folder at rest.
    #[must_use]
    pub fn find(data: &Path) -> Self {
        let running = Running::find(data).map(|running| running.address.to_string());
        // A service that was killed has left its address behind.
        let answers = |address: &String| {
            let within = std::time::Duration::from_secs(1);
            address.parse().is_ok_and(|address| std::net::TcpStream::connect_timeout(&address, within).is_ok())
        };
        running.filter(answers).map_or_else(|| Self::Folder(data.to_owned()), Self::Service)
    }

    /// The incidents that are meant, in the order in which they are told.
    ///
    /// # Errors
    /// When the service does not answer, or the folder holds no state.
    pub fn list(&self, filter: &IncidentFilter) -> Result<Vec<Incident>> {
        let lines = match self {
            Self::Folder(data) => StateStore::open_at_rest(&data.join(STATE_FILE))?.incidents()?,
            Self::Service(url) => runtime()?.block_on(list_from(url))?,
        };
        let incidents = sorted(&lines)?;
        Ok(incidents.into_iter().filter(|incident| filter.fits(incident)).collect())
    }

    /// The pauses that people planned, by run and beginning; of a run, or of all.
    ///
    /// # Errors
    /// When no service runs there, or it does not answer.
    pub fn pauses(&self, run: Option<&str>) -> Result<Vec<PlannedPause>> {
        let Self::Service(url) = self else {
            anyhow::bail!("no service runs on this folder: planned pauses are listed by the one that judges");
        };
        runtime()?.block_on(async {
            let request = PausesRequest { run: run.unwrap_or_default().to_owned() };
            let answer = client::incidents(url).await?.pauses(request).await;
            let list = answer.map_err(|status| client::refused(&status))?.into_inner();
            Ok(list.pauses.into_iter().map(Into::into).collect())
        })
    }

    /// Every change from now on, as one JSON object each, until the service ends.
    ///
    /// # Errors
    /// When no service runs, it does not answer, or `each` fails.
    pub fn watch(&self, filter: &IncidentFilter, each: &mut dyn FnMut(&str) -> Result<()>) -> Result<()> {
        let Self::Service(url) = self else {
            anyhow::bail!("no service runs on this folder, and a folder at rest does not change: use `list`");
        };
        runtime()?.block_on(async {
            let mut client = client::incidents(url).await?;
            let run = filter.run.clone().unwrap_or_default();
            let mut changes = client.watch(WatchRequest { run }).await?.into_inner();
            while let Some(change) = changes.next().await {
                let IncidentChange { change, incident } = change?;
                let incident = incident.map(|incident| incident.json).unwrap_or_default();
                each(&format!("{{\"change\":\"{change}\",\"incident\":{incident}}}"))?;
            }
            Ok(())
        })
    }
}

/// What a client waits on.
///
/// # Errors
/// When the system gives none.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start a client")
}

async fn list_from(url: &str) -> Result<Vec<String>> {
    let mut client = client::incidents(url).await?;
    let mut incidents =
        client.list(ListRequest::default()).await.map_err(|status| client::refused(&status))?.into_inner();
    let mut lines = Vec::new();
    while let Some(incident) = incidents.next().await {
        lines.push(incident?.json);
    }
    Ok(lines)
}

/// Which incidents are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IncidentFilter {
    /// Only of this run.
    pub run: Option<String>,
    /// Only those detected at or after this time, in nanoseconds since the epoch.
    pub since: Option<i64>,
    /// Only those that began at or before this time.
    pub until: Option<i64>,
}

impl IncidentFilter {
    /// True for an incident that is meant; one without times is always within them.
    #[must_use]
    pub fn fits(&self, incident: &Incident) -> bool {
        let is_run = self.run.as_deref().is_none_or(|run| run == &*incident.run.0);
        let last = incident.detected_at.or(incident.started_at);
        let is_late_enough = self.since.is_none_or(|since| last.is_none_or(|at| at.0 >= since));
        let is_early_enough = self.until.is_none_or(|until| incident.started_at.is_none_or(|at| at.0 <= until));
        is_run && is_late_enough && is_early_enough
    }
}

/// Incidents from their JSON, in the order in which they are told.
///
/// # Errors
/// When a line is no incident.
pub fn sorted(lines: &[String]) -> Result<Vec<Incident>> {
    let parsed = lines.iter().map(|line| serde_json::from_str(line).context("the state holds a damaged incident"));
    let mut incidents: Vec<Incident> = parsed.collect::<Result<_>>()?;
    sort(&mut incidents);
    Ok(incidents)
}

/// Puts incidents in the order in which they are told.
pub fn sort(incidents: &mut [Incident]) {
    incidents.sort_by(|one, other| {
        let key =
            |incident: &Incident| (incident.run.clone(), incident.attempt, incident.started_at, incident.id.clone());
        key(one).cmp(&key(other))
    });
}
