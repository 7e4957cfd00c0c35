//! The outbox: notices that wait to be sent, written with the changes that they tell of.
//!
//! A notice is durable before its first attempt, and leaves when its receiver has answered: so it arrives at least once.
//! Of each run the outbox knows up to which change it was asked, so that work that is done again tells nothing again.

use redb::{ReadableTable, TableDefinition, WriteTransaction};

use super::{Commit, META, StateStore};
use crate::StoreError;

/// Sink, lane and number → a notice as JSON.
const OUTBOX: TableDefinition<'_, (&str, u8, u64), &str> = TableDefinition::new("outbox");
/// Sink and number → a notice that its receiver refused, as JSON.
const REFUSED: TableDefinition<'_, (&str, u64), &str> = TableDefinition::new("refused_notices");
/// Run → the number of the first change of which nothing was told yet.
const TOLD: TableDefinition<'_, &str, u64> = TableDefinition::new("told");
/// Incident → what was told of it, in the teller's own form.
const ANNOUNCED: TableDefinition<'_, &str, &str> = TableDefinition::new("announced");
/// In `meta`: the number of the next notice.
const NEXT_NOTICE: &str = "next_notice";
/// Lanes of a sink; the first goes first.
const LANES: std::ops::Range<u8> = 0..2;
/// Refused notices kept for a sink: enough to see why; the oldest go.
const REFUSED_KEPT_MAX: u64 = 10_000;

/// One notice that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoticeRow {
    /// To whom it goes.
    pub sink: String,
    /// 0 goes before 1, however much waits there.
    pub lane: u8,
    /// Its place in the lane; counted over all sinks.
    pub number: u64,
    /// The notice as JSON.
    pub json: String,
}

/// What was told of an incident.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnouncedRow {
    /// Which incident.
    pub incident: String,
    /// The teller's own form.
    pub json: String,
}

/// What a commit changes in the outbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutboxEdit {
    /// New notices.
    pub notices: Vec<NoticeRow>,
    /// What was told of incidents, where that changed.
    pub announced: Vec<AnnouncedRow>,
    /// Runs with the number of the first change of which nothing was told yet.
    pub told: Vec<(String, u64)>,
    /// Notices, as sink and number, that go on in the first lane.
    pub hurried: Vec<(String, u64)>,
}

impl OutboxEdit {
    /// True where it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl StateStore {
    /// The number of the next notice.
    ///
    /// # Errors
    /// [`StoreError::State`]
    pub fn next_notice(&self) -> Result<u64, StoreError> {
        self.read(|transaction| Ok(transaction.open_table(META)?.get(NEXT_NOTICE)?.map_or(0, |next| next.value())))
    }

    /// The number of the first change of a run of which nothing was told yet.
    ///
    /// # Errors
    /// [`StoreError::State`]
    pub fn told(&self, run: &str) -> Result<u64, StoreError> {
        self.read(|transaction| Ok(transaction.open_table(TOLD)?.get(run)?.map_or(0, |next| next.value())))
    }

    /// What was told of an incident.
    ///
    /// # Errors
    /// [`StoreError::State`]
    pub fn announced(&self, incident: &str) -> Result<Option<String>, StoreError> {
        self.read(|transaction| {
            Ok(transaction.open_table(ANNOUNCED)?.get(incident)?.map(|known| known.value().to_owned()))
        })
    }

    /// What was told of every incident, in the order of ids.
    ///
    /// # Errors
    /// [`StoreError::State`]
    pub fn all_announced(&self) -> Result<Vec<AnnouncedRow>, StoreError> {
        self.read(|transaction| {
            let announced = transaction.open_table(ANNOUNCED)?;
            let rows = announced.iter()?.map(|row| {
                let (incident, json) = row?;
                Ok(AnnouncedRow { incident: incident.value().to_owned(), json: json.value().to_owned() })
            });
            rows.collect()
        })
    }

    /// The first notices of a lane that wait from a number on, at most `max`.
    ///
    /// # Errors
    /// [`StoreError::State`]
    pub fn waiting(&self, (sink, lane): (&str, u8), from: u64, max: usize) -> Result<Vec<(u64, String)>, StoreError> {
        self.read(|transaction| {
            let outbox = transaction.open_table(OUTBOX)?;
            let rows = outbox.range((sink, lane, from)..=(sink, lane, u64::MAX))?.take(max).map(|row| {
                let (key, json) = row?;
                Ok((key.value().2, json.value().to_owned()))
            });
            rows.collect()
        })
    }

    /// How many notices wait for each sink.
    ///
    /// # Errors
    /// [`StoreError::State`]
    pub fn waiting_counts(&self) -> Result<std::collections::BTreeMap<String, u64>, StoreError> {
        self.read(|transaction| {
            let mut counts = std::collections::BTreeMap::new();
            for row in transaction.open_table(OUTBOX)?.iter()? {
                let (key, _) = row?;
                let sink = key.value().0;
                match counts.get_mut(sink) {
                    Some(count) => *count += 1,
                    None => _ = counts.insert(sink.to_owned(), 1),
                }
            }
            Ok(counts)
        })
    }

    /// Takes notices out: those that arrived, and those that their receiver refused, with the reason.
    ///
    /// A notice that is not there any more is passed over.
    ///
    /// # Errors
    /// [`StoreError::State`]
    pub fn settle(&self, sink: &str, arrived: &[u64], refused: &[(u64, String)]) -> Result<(), StoreError> {
        self.write(|transaction| {
            let mut outbox = transaction.open_table(OUTBOX)?;
            let mut set_aside = transaction.open_table(REFUSED)?;
            for number in arrived.iter().chain(refused.iter().map(|(number, _)| number)) {
                for lane in LANES {
                    outbox.remove((sink, lane, *number))?;
                }
            }
            for (number, json) in refused {
                set_aside.insert((sink, *number), json.as_str())?;
            }
            if !refused.is_empty() {
                let kept = set_aside.range((sink, 0)..=(sink, u64::MAX))?.count() as u64;
                for _ in REFUSED_KEPT_MAX..kept {
                    let oldest = set_aside.range((sink, 0)..=(sink, u64::MAX))?.next().transpose()?;
                    let oldest = oldest.map(|(key, _)| key.value().1);
                    oldest.map(|number| set_aside.remove((sink, number)).map(|_| ())).transpose()?;
                }
            }
            Ok(())
        })
    }

    /// Every notice that its receiver refused: sink, number, and notice with reason as JSON.
    ///
    /// # Errors
    /// [`StoreError::State`]
    pub fn refused_notices(&self) -> Result<Vec<(String, u64, String)>, StoreError> {
        self.read(|transaction| {
            let refused = transaction.open_table(REFUSED)?;
            let rows = refused.iter()?.map(|row| {
                let (key, json) = row?;
                let (sink, number) = key.value();
                Ok((sink.to_owned(), number, json.value().to_owned()))
            });
            rows.collect()
        })
    }
}

/// Makes the tables of the outbox; an older state simply has none yet.
pub(super) fn create(transaction: &WriteTransaction) -> Result<(), redb::Error> {
    transaction.open_table(OUTBOX)?;
    transaction.open_table(REFUSED)?;
    transaction.open_table(TOLD)?;
    transaction.open_table(ANNOUNCED)?;
    Ok(())
}

/// Writes what a commit changes in the outbox.
pub(super) fn write(transaction: &WriteTransaction, commit: &Commit) -> Result<(), redb::Error> {
    let OutboxEdit { notices, announced, told, hurried } = &commit.outbox;
    if commit.outbox.is_empty() {
        return Ok(());
    }
    let mut outbox = transaction.open_table(OUTBOX)?;
    for (sink, number) in hurried {
        for lane in LANES.skip(1) {
            // The one read ends before the next write: both hold the table.
            let waiting = outbox.remove((sink.as_str(), lane, *number))?.map(|json| json.value().to_owned());
            if let Some(json) = waiting {
                outbox.insert((sink.as_str(), 0, *number), json.as_str())?;
            }
        }
    }
    for NoticeRow { sink, lane, number, json } in notices {
        outbox.insert((sink.as_str(), *lane, *number), json.as_str())?;
    }
    if let Some(last) = notices.iter().map(|notice| notice.number).max() {
        transaction.open_table(META)?.insert(NEXT_NOTICE, last + 1)?;
    }
    let mut known = transaction.open_table(ANNOUNCED)?;
    for AnnouncedRow { incident, json } in announced {
        known.insert(incident.as_str(), json.as_str())?;
    }
    let mut marks = transaction.open_table(TOLD)?;
    for (run, next) in told {
        let mark = marks.get(run.as_str())?.map_or(0, |mark| mark.value());
        marks.insert(run.as_str(), mark.max(*next))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notice(sink: &str, lane: u8, number: u64) -> NoticeRow {
        NoticeRow { sink: sink.to_owned(), lane, number, json: format!("{sink}{number}") }
    }

    fn commit(outbox: OutboxEdit) -> Commit {
        Commit { outbox, ..Commit::default() }
    }

    fn numbers(store: &StateStore, sink: &str, lane: u8) -> Vec<u64> {
        store.waiting((sink, lane), 0, 99).expect("read").into_iter().map(|(number, _)| number).collect()
    }

    #[test]
    fn a_notice_waits_over_a_restart_until_it_is_settled() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("state.redb");
        {
            let store = StateStore::open(&path).expect("a new state");
            let notices = vec![notice("a", 1, 0), notice("a", 1, 1), notice("ab", 0, 2), notice("a", 0, 3)];
            let (announced, told) = (
                vec![AnnouncedRow { incident: "inc_1".to_owned(), json: "{}".to_owned() }],
                vec![("llm".to_owned(), 4)],
            );
            let edit = OutboxEdit { notices, announced, told, hurried: Vec::new() };
            store.commit(&commit(edit)).expect("written");
        }
        let store = StateStore::open(&path).expect("the same state");
        assert_eq!((numbers(&store, "a", 0), numbers(&store, "a", 1)), (vec![3], vec![0, 1]));
        assert_eq!(store.waiting(("a", 1), 1, 9).expect("read"), [(1, "a1".to_owned())]);
        assert_eq!(store.waiting_counts().expect("read"), [("a".to_owned(), 3), ("ab".to_owned(), 1)].into());
        assert_eq!((store.next_notice().expect("read"), store.told("llm").expect("read")), (4, 4));
        assert_eq!((store.told("other").expect("read"), store.announced("inc_2").expect("read")), (0, None));
        store.settle("a", &[1, 77], &[(3, "why".to_owned())]).expect("written");
        assert_eq!((numbers(&store, "a", 0), numbers(&store, "a", 1)), (vec![], vec![0]));
        assert_eq!(store.refused_notices().expect("read"), [("a".to_owned(), 3, "why".to_owned())]);
        assert_eq!(store.next_notice().expect("read"), 4, "a number is given once");
    }

    #[test]
    fn what_is_hurried_goes_on_in_the_first_lane_and_what_has_left_stays_away() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let store = StateStore::open(&dir.path().join("state.redb")).expect("a new state");
        let notices = vec![notice("a", 1, 0), notice("a", 1, 1)];
        store.commit(&commit(OutboxEdit { notices, ..OutboxEdit::default() })).expect("written");
        store.settle("a", &[0], &[]).expect("written");
        let hurried = vec![("a".to_owned(), 0), ("a".to_owned(), 1)];
        let edit = OutboxEdit { hurried, notices: vec![notice("a", 0, 2)], ..OutboxEdit::default() };
        store.commit(&commit(edit)).expect("written");
        assert_eq!((numbers(&store, "a", 0), numbers(&store, "a", 1)), (vec![1, 2], vec![]));
        store.settle("a", &[1], &[]).expect("written");
        assert_eq!(numbers(&store, "a", 0), [2]);
    }

    #[test]
    fn a_state_of_before_the_outbox_opens_and_gets_one() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("state.redb");
        {
            let store = StateStore::open(&path).expect("a new state");
            let transaction = store.writing().expect("open");
            assert!(transaction.delete_table(OUTBOX).expect("deleted"));
            assert!(transaction.delete_table(REFUSED).expect("deleted"));
            assert!(transaction.delete_table(TOLD).expect("deleted"));
            assert!(transaction.delete_table(ANNOUNCED).expect("deleted"));
            transaction.commit().expect("written");
        }
        {
            let at_rest = StateStore::open_at_rest(&path).expect("an old state is read");
            assert_eq!(at_rest.incidents().expect("read"), Vec::<String>::new());
        }
        let store = StateStore::open(&path).expect("an old state");
        assert_eq!(numbers(&store, "a", 0), Vec::<u64>::new());
    }
}
