//! From changes of incidents to notices in the outbox.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::Result;
use tracing::{error, warn};
use trainwarden_incidents::sinks::{AnySink, Outside};
use trainwarden_incidents::{Act, Announced, Notice};
use trainwarden_store::{AnnouncedRow, NoticeRow, OutboxEdit, StateStore, ToldChange};
use trainwarden_telemetry::{Change, ChangeKind, Incident, Severity};

/// Notices of one incident that are remembered as waiting in the slow lane; the oldest have arrived long before.
const SLOW_MAX: usize = 64;

/// One receiver, and what it is told.
#[derive(Clone)]
pub struct Endpoint {
    /// Its name in the outbox.
    pub name: String,
    /// What it is.
    pub sink: AnySink,
    /// What it is reached with.
    pub outside: Arc<dyn Outside>,
    /// What it is told of.
    pub route: Route,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Endpoint").field("name", &self.name).field("sink", &self.sink).finish_non_exhaustive()
    }
}

/// A name, or a beginning with `*` after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern(String);

impl Pattern {
    pub(super) fn new(text: &str) -> Self {
        Self(text.to_owned())
    }

    pub(super) fn fits(&self, name: &str) -> bool {
        self.0.strip_suffix('*').map_or(self.0 == name, |beginning| name.starts_with(beginning))
    }
}

/// Which incidents a receiver is told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    min_severity: Severity,
    runs: Vec<Pattern>,
    kinds: Vec<Pattern>,
}

impl Route {
    /// A route for incidents at least so severe, of these runs and kinds; of any where none is named.
    #[must_use]
    pub fn new(min_severity: Severity, runs: &[String], kinds: &[String]) -> Self {
        let patterns = |texts: &[String]| texts.iter().map(|text| Pattern::new(text)).collect();
        Self { min_severity, runs: patterns(runs), kinds: patterns(kinds) }
    }

    /// True for an incident that the receiver is told of. It stays so: no incident becomes less severe.
    #[must_use]
    pub fn takes(&self, incident: &Incident) -> bool {
        let fits =
            |patterns: &[Pattern], name: &str| patterns.is_empty() || patterns.iter().any(|pattern| pattern.fits(name));
        incident.severity >= self.min_severity.max(Severity::Warning)
            && fits(&self.runs, &incident.run.0)
            && fits(&self.kinds, incident.kind.as_str())
    }
}

/// Puts notices into the outbox. It belongs to the judging thread, which alone writes changes.
pub struct Teller {
    store: Arc<StateStore>,
    routes: Vec<(String, Route)>,
    dwell_ns: i64,
    /// Ends that wait until they have lasted: when each counts, and of which incident.
    held: BTreeSet<(i64, String)>,
    next_number: u64,
}

impl std::fmt::Debug for Teller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Teller").field("routes", &self.routes).finish_non_exhaustive()
    }
}

/// What one edit works with: what was told of the incidents in it, as it becomes.
struct Draft {
    edit: OutboxEdit,
    announced: BTreeMap<String, Option<Announced>>,
    next_number: u64,
}

impl Teller {
    /// A teller that goes on where the state says that the last one ended.
    ///
    /// * `dwell_ns`: how long an end must last before it is told.
    ///
    /// # Errors
    /// When the state cannot be read.
    pub fn open(store: Arc<StateStore>, endpoints: &[Endpoint], dwell_ns: i64) -> Result<Self> {
        let routes = endpoints.iter().map(|endpoint| (endpoint.name.clone(), endpoint.route.clone())).collect();
        let mut held = BTreeSet::new();
        for AnnouncedRow { incident, json } in store.all_announced()? {
            held.extend(parsed(&incident, &json).and_then(|known| known.held).map(|end| (end.due, incident)));
        }
        let next_number = store.next_notice()?;
        Ok(Self { store, routes, dwell_ns, held, next_number })
    }

    /// True where the end of an incident has lasted.
    #[must_use]
    pub fn is_due(&self, now: i64) -> bool {
        self.held.first().is_some_and(|(due, _)| *due <= now)
    }

    /// What changes of incidents, and ends that have lasted, bring into the outbox. To be written with the changes; asked
    /// again for changes that are written, it gives nothing.
    ///
    /// * `now`: nanoseconds since the epoch.
    ///
    /// # Errors
    /// When the state cannot be read; then nothing has changed, and the same may be asked again.
    pub fn edit(&mut self, changes: &[ToldChange], now: i64) -> Result<OutboxEdit> {
        if changes.is_empty() && !self.is_due(now) {
            return Ok(OutboxEdit::default());
        }
        let mut draft =
            Draft { edit: OutboxEdit::default(), announced: BTreeMap::new(), next_number: self.next_number };
        let due: Vec<String> =
            self.held.iter().take_while(|(due, _)| *due <= now).map(|(_, incident)| incident.clone()).collect();
        for incident in due {
            self.end(&mut draft, &incident, now)?;
        }
        let mut marks: BTreeMap<&str, u64> = BTreeMap::new();
        for told in changes {
            let mark = match marks.get(told.run.as_str()) {
                Some(mark) => *mark,
                None => self.store.told(&told.run)?,
            };
            marks.insert(&told.run, mark.max(told.number + 1));
            // Where nobody is told, only the mark goes on: whoever comes later hears of what comes later.
            if told.number >= mark && !self.routes.is_empty() {
                self.take(&mut draft, told, now)?;
            }
        }
        draft.edit.told = marks.into_iter().map(|(run, mark)| (run.to_owned(), mark)).collect();
        Ok(self.adopt(draft))
    }

    fn take(&self, draft: &mut Draft, told: &ToldChange, now: i64) -> Result<()> {
        let Ok(change) = serde_json::from_str::<Change>(&told.json) else {
            error!(run = told.run, number = told.number, "a change is no JSON of ours, and nobody is told of it");
            return Ok(());
        };
        let id = change.incident.id.0.clone();
        let known = self.known(draft, &id)?;
        let (act, mut known) = Announced::after(known, (told.number, &change), now, self.dwell_ns);
        if let (Act::Tell(kind), Some(known)) = (act, &mut known) {
            self.tell(draft, known, (told.number, kind), &change.incident, now);
        }
        draft.announced.insert(id, known);
        Ok(())
    }

    fn end(&self, draft: &mut Draft, id: &str, now: i64) -> Result<()> {
        let Some(known) = self.known(draft, id)? else { return Ok(()) };
        let (held, mut known) = known.ended(now);
        if let Some(held) = held {
            self.tell(draft, &mut known, (held.number, ChangeKind::Resolved), &held.incident, now);
        }
        draft.announced.insert(id.to_owned(), Some(known));
        Ok(())
    }

    /// One notice for each receiver that is told of the incident.
    fn tell(&self, draft: &mut Draft, known: &mut Announced, change: (u64, ChangeKind), incident: &Incident, now: i64) {
        for (sink, _) in self.routes.iter().filter(|(_, route)| route.takes(incident)) {
            let notice = Notice::new(sink, change, incident, now);
            let (lane, number) = (notice.lane(), draft.next_number);
            draft.next_number += 1;
            if lane > 0 {
                known.slow.push((sink.clone(), number));
            }
            let json = serde_json::to_string(&notice).expect("a notice serialises: it is plain data");
            draft.edit.notices.push(NoticeRow { sink: sink.clone(), lane, number, json });
        }
        if incident.severity == Severity::Critical {
            // What was told before of an incident that has become critical goes before it, and not behind all others.
            let slow = std::mem::take(&mut known.slow);
            let (new, old): (Vec<_>, Vec<_>) = slow.into_iter().partition(|(_, number)| *number >= self.next_number);
            draft.edit.hurried.extend(old);
            for (_, number) in new {
                draft.edit.notices.iter_mut().filter(|row| row.number == number).for_each(|row| row.lane = 0);
            }
        }
        let surplus = known.slow.len().saturating_sub(SLOW_MAX);
        known.slow.drain(..surplus);
    }

    fn known(&self, draft: &Draft, id: &str) -> Result<Option<Announced>> {
        match draft.announced.get(id) {
            Some(known) => Ok(known.clone()),
            None => Ok(self.store.announced(id)?.and_then(|json| parsed(id, &json))),
        }
    }

    fn adopt(&mut self, draft: Draft) -> OutboxEdit {
        let Draft { mut edit, announced, next_number } = draft;
        self.next_number = next_number;
        self.held.retain(|(_, incident)| !announced.contains_key(incident));
        for (incident, known) in announced {
            let Some(known) = known else { continue };
            self.held.extend(known.held.as_ref().map(|held| (held.due, incident.clone())));
            let json = serde_json::to_string(&known).expect("plain data serialises");
            edit.announced.push(AnnouncedRow { incident, json });
        }
        edit
    }
}

/// What was told; where that is damaged it is told again rather than never.
fn parsed(incident: &str, json: &str) -> Option<Announced> {
    let known = serde_json::from_str(json);
    known.inspect_err(|error| warn!(incident, %error, "what was told of an incident is damaged in the state")).ok()
}
