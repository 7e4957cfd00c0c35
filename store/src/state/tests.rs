use super::*;

fn change(number: u64, json: &str) -> ToldChange {
    let (run, incident_id) = ("llm".to_owned(), "inc_1".to_owned());
    ToldChange { run, number, incident_id, json: Some(format!("change {json}")), incident_json: json.to_owned() }
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
        let changes = vec![change(0, "{}")];
        let first = Commit { partition: 1, position: Some(7), runs, changes, rejects };
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
fn a_change_that_is_worked_out_again_is_there_once() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let store = StateStore::open(&dir.path().join("state.redb")).expect("a new state");
    let commit = Commit { changes: vec![change(0, "opened"), change(1, "updated")], ..Commit::default() };
    store.commit(&commit).expect("written");
    store.commit(&commit).expect("written again");
    let numbers: Vec<u64> = store.changes("llm", 0).expect("read").into_iter().map(|(number, _)| number).collect();
    assert_eq!(numbers, [0, 1]);
    assert_eq!(store.incidents().expect("read"), ["updated"]);
    store.commit(&Commit { changes: vec![change(0, "opened")], ..Commit::default() }).expect("written");
    assert_eq!(store.incidents().expect("read"), ["updated"], "an older change does not take a newer one back");
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
