//! A state as it is left: by a commit, by two processes, by a full disk, by a kill at any step.

use super::*;

fn change(number: u64, json: &str) -> ToldChange {
    ToldChange { run: "llm".to_owned(), number, json: json.to_owned() }
}

fn incident(as_of: u64, json: &str) -> IncidentRow {
    IncidentRow { id: "inc_1".to_owned(), as_of, json: json.to_owned() }
}

fn snapshot(run: &str, text: &str) -> RunSnapshot {
    RunSnapshot { run: run.to_owned(), bytes: text.as_bytes().to_vec() }
}

#[test]
fn what_was_committed_is_there_after_a_restart_and_by_partition() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("state.redb");
    {
        let store = StateStore::open(&path).expect("a new state");
        let runs = vec![snapshot("a", "knows"), snapshot("b", "")];
        let rejects = vec![RejectRow { offset: 3, json: "why".to_owned() }];
        let (changes, incidents) = (vec![change(0, "opened")], vec![incident(7, "{}")]);
        let first = Commit { partition: 1, position: Some(7), runs, changes, incidents, rejects, ..Commit::default() };
        store.commit(&first).expect("written");
        store.commit(&Commit { partition: 2, position: Some(9), ..Commit::default() }).expect("written");
    }
    let store = StateStore::open(&path).expect("the same state");
    let state = store.partition(1).expect("read");
    assert_eq!(state, PartitionState { position: 7, runs: vec![snapshot("a", "knows"), snapshot("b", "")] });
    assert_eq!(store.partition(2).expect("read").position, 9);
    assert_eq!(store.partition(3).expect("read"), PartitionState::default());
    assert_eq!(store.incidents().expect("read"), ["{}"]);
    assert_eq!(store.rejects().expect("read"), [(1, 3, "why".to_owned())]);
}

#[test]
fn runs_may_be_further_than_the_position_that_follows_them() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let store = StateStore::open(&dir.path().join("state.redb")).expect("a new state");
    store.commit(&Commit { as_of: 7, runs: vec![snapshot("a", "7")], ..Commit::default() }).expect("written");
    let ahead = PartitionState { position: 0, runs: vec![snapshot("a", "7")] };
    assert_eq!(store.partition(0).expect("read"), ahead);
    let last = Commit { as_of: 7, position: Some(7), runs: vec![snapshot("b", "7")], ..Commit::default() };
    store.commit(&last).expect("written");
    let whole = PartitionState { position: 7, runs: vec![snapshot("a", "7"), snapshot("b", "7")] };
    assert_eq!(store.partition(0).expect("read"), whole);
}

#[test]
fn a_change_that_is_worked_out_again_is_there_once() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let store = StateStore::open(&dir.path().join("state.redb")).expect("a new state");
    let changes = vec![change(0, "opened"), change(1, "updated")];
    let commit = Commit { changes, incidents: vec![incident(9, "updated")], ..Commit::default() };
    store.commit(&commit).expect("written");
    store.commit(&commit).expect("written again");
    let numbers: Vec<u64> = store.changes("llm", 0).expect("read").into_iter().map(|(number, _)| number).collect();
    assert_eq!(numbers, [0, 1]);
    assert_eq!(store.incidents().expect("read"), ["updated"]);
    store.commit(&Commit { incidents: vec![incident(8, "opened")], ..Commit::default() }).expect("written");
    assert_eq!(store.incidents().expect("read"), ["updated"], "what knows less does not take back what knows more");
}

#[test]
fn a_newer_state_is_refused_and_one_in_use_is_told() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("state.redb");
    let store = StateStore::open(&path).expect("a new state");
    assert!(matches!(StateStore::open(&path), Err(StoreError::InUse { .. })));
    assert!(matches!(StateStore::open_at_rest(&path), Err(StoreError::InUse { .. })));
    let transaction = store.writing().expect("open");
    transaction.open_table(META).expect("a table").insert("version", VERSION + 1).expect("written");
    transaction.commit().expect("written");
    drop(store);
    for refused in [StateStore::open(&path), StateStore::open_at_rest(&path)] {
        assert!(matches!(refused, Err(StoreError::Newer { found, .. }) if found == VERSION + 1));
    }
    assert!(matches!(StateStore::open_at_rest(&dir.path().join("none")), Err(StoreError::Missing { .. })));
}

/// A disk in memory that fails at one of its steps, or from then on.
#[derive(Clone, Debug, Default)]
struct Disk(Arc<Mutex<DiskState>>);

#[derive(Debug, Default)]
struct DiskState {
    bytes: Vec<u8>,
    steps: u64,
    fails_at: Option<u64>,
    /// A process that is killed does nothing more; a full disk gets room again.
    is_killed_then: bool,
}

impl Disk {
    fn state(&self) -> std::sync::MutexGuard<'_, DiskState> {
        self.0.lock().expect("no test panics with it")
    }

    fn step(&self) -> Result<std::sync::MutexGuard<'_, DiskState>, std::io::Error> {
        let mut state = self.state();
        state.steps += 1;
        let is_failing = state.fails_at.is_some_and(|at| match state.is_killed_then {
            true => state.steps >= at,
            false => state.steps == at,
        });
        if is_failing { Err(std::io::ErrorKind::StorageFull.into()) } else { Ok(state) }
    }

    fn store(&self) -> StateStore {
        let disk = self.clone();
        let opener: Opener = Box::new(move || Database::builder().create_with_backend(disk.clone()).map(Handle::Open));
        StateStore::open_by(Path::new("memory"), opener).expect("the disk is well")
    }
}

impl redb::StorageBackend for Disk {
    fn len(&self) -> Result<u64, std::io::Error> {
        Ok(self.state().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), std::io::Error> {
        let at = offset as usize;
        out.copy_from_slice(&self.state().bytes[at..at + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> Result<(), std::io::Error> {
        self.step()?.bytes.resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> Result<(), std::io::Error> {
        self.step().map(drop)
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), std::io::Error> {
        let at = offset as usize;
        self.step()?.bytes[at..at + data.len()].copy_from_slice(data);
        Ok(())
    }
}

fn step_of(number: u64) -> Commit {
    Commit {
        partition: 0,
        as_of: number,
        position: Some(number),
        runs: vec![snapshot("a", &"x".repeat(5_000 * number as usize))],
        changes: vec![change(number, "{}")],
        incidents: vec![incident(number, &format!("as of {number}"))],
        rejects: vec![RejectRow { offset: number, json: "why".to_owned() }],
        outbox: OutboxEdit {
            notices: vec![NoticeRow { sink: "pager".to_owned(), lane: 0, number, json: format!("notice {number}") }],
            told: vec![("llm".to_owned(), number + 1)],
            ..OutboxEdit::default()
        },
    }
}

/// Everything of commit `number`, and nothing of another.
fn assert_holds(store: &StateStore, number: u64, when: &str) {
    let expected = step_of(number);
    let state = PartitionState { position: number, runs: expected.runs };
    assert_eq!(store.partition(0).expect("read"), state, "{when}");
    assert_eq!(store.incidents().expect("read"), [format!("as of {number}")], "{when}");
    assert_eq!(store.rejects().expect("read").len() as u64, number, "{when}");
    assert_eq!(store.changes("llm", 0).expect("read").len() as u64, number, "{when}");
    assert_eq!(store.waiting(("pager", 0), 0, 9).expect("read").len() as u64, number, "{when}");
    assert_eq!(store.told("llm").expect("read"), number + 1, "{when}");
}

#[test]
fn a_full_disk_at_any_step_takes_nothing_away_and_the_next_commit_goes_on() {
    for step in 1.. {
        let disk = Disk::default();
        let store = disk.store();
        store.commit(&step_of(1)).expect("the disk is well");
        let first = disk.state().steps;
        disk.state().fails_at = Some(first + step);
        let outcome = store.commit(&step_of(2));
        if disk.state().steps < first + step {
            assert!(step > 5, "a commit has several steps");
            return;
        }
        let when = format!("the disk was full at step {step}");
        if outcome.is_err() {
            store.commit(&step_of(2)).unwrap_or_else(|error| panic!("{when}: {error:?}"));
        }
        assert_holds(&store, 2, &when);
    }
}

#[test]
fn killed_at_any_step_a_state_holds_one_commit_whole() {
    for step in 1.. {
        let disk = Disk::default();
        let store = disk.store();
        store.commit(&step_of(1)).expect("the disk is well");
        let first = disk.state().steps;
        {
            let mut state = disk.state();
            state.fails_at = Some(first + step);
            state.is_killed_then = true;
        }
        let outcome = store.commit(&step_of(2));
        let is_done = disk.state().steps < first + step;
        // What a kill leaves is what was written until then.
        let left = Disk::default();
        left.state().bytes.clone_from(&disk.state().bytes);
        drop(store);
        let store = left.store();
        let knows_second = store.partition(0).expect("read").position == 2;
        assert!(knows_second || outcome.is_err(), "step {step}: what was told to be durable is there");
        assert_holds(&store, if knows_second { 2 } else { 1 }, &format!("killed at step {step}"));
        if is_done {
            assert!(step > 5, "a commit has several steps");
            return;
        }
    }
}
