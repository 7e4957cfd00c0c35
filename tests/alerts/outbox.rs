//! Teller, state and courier in one process, in simulated time, ended after every single step.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::json;
use trainwarden::alerts::{Board, Courier, Endpoint, Route, Step, Teller};
use trainwarden_incidents::Notice;
use trainwarden_incidents::deliver::Slot;
use trainwarden_incidents::sinks::{AnySink, LogSink, Outside, Post, Reply, SigningKeys, SinkError, Webhook, Words};
use trainwarden_store::{Commit, StateStore, ToldChange};
use trainwarden_telemetry::Severity;

const SECOND: i64 = 1_000_000_000;
const DWELL: i64 = 60 * SECOND;

/// A receiver that outlives every kill, with the clock.
#[derive(Default)]
struct Elsewhere {
    now: AtomicI64,
    /// The next request arrives, and its answer is lost.
    loses_answer: AtomicBool,
    is_away: AtomicBool,
    got: Mutex<Vec<(String, String)>>,
}

impl Outside for Elsewhere {
    fn now(&self) -> i64 {
        self.now.load(Ordering::Relaxed)
    }

    fn post(&self, post: &Post) -> Result<Reply, SinkError> {
        if self.is_away.load(Ordering::Relaxed) {
            return Err(SinkError::Unreachable { why: "it is away".to_owned() });
        }
        let header =
            |name| post.headers.iter().find(|(known, _)| *known == name).map(|(_, value)| value.reveal().to_owned());
        let body: serde_json::Value = serde_json::from_str(&post.body).expect("JSON");
        let words = format!("{} {}", body["data"]["incident"]["id"], body["type"]).replace('"', "");
        self.got.lock().expect("no test panics with it").push((header("webhook-id").expect("an id"), words));
        if self.loses_answer.swap(false, Ordering::Relaxed) {
            return Err(SinkError::Unreachable { why: "the answer was lost".to_owned() });
        }
        Ok(Reply { status: 200, retry_after: None, body: String::new() })
    }

    fn run(&self, _argv: &[String], _input: &str) -> Result<String, SinkError> {
        Ok(String::new())
    }

    fn log(&self, _notice: &Notice, _text: &str) {}
}

/// What lives in one process.
struct Process {
    store: Arc<StateStore>,
    teller: Teller,
    board: Arc<Board>,
    courier: Courier,
}

impl Process {
    fn start(path: &Path, elsewhere: &Arc<Elsewhere>) -> Self {
        let store = Arc::new(StateStore::open(path).expect("the state opens"));
        let keys = SigningKeys::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a key");
        let url = trainwarden_incidents::sinks::Secret::new("https://hook.example");
        let endpoint = |name: &str, sink| Endpoint {
            name: name.to_owned(),
            sink,
            outside: Arc::clone(elsewhere) as Arc<dyn Outside>,
            route: Route::new(Severity::Warning, &[], &[]),
        };
        let hook = endpoint("hook", AnySink::Webhook(Webhook { url, keys, words: Words::default() }));
        let log = endpoint("log", AnySink::Log(LogSink { words: Words::default() }));
        let teller = Teller::open(Arc::clone(&store), &[hook.clone(), log], DWELL).expect("the state is read");
        let board = Arc::new(Board::default());
        let courier = Courier::new(hook, Arc::clone(&store), Arc::clone(&board));
        Self { store, teller, board, courier }
    }

    fn commit(&mut self, changes: &[ToldChange], now: i64) {
        let outbox = self.teller.edit(changes, now).expect("the state is read");
        let commit = Commit { changes: changes.to_vec(), outbox, ..Commit::default() };
        self.store.commit(&commit).expect("the state is written");
        self.board.ring(commit.outbox.notices.iter().map(|notice| &notice.sink));
    }
}

fn change(number: u64, kind: &str, id: &str, severity: &str) -> ToldChange {
    let state = if kind == "resolved" { "resolved" } else { "open" };
    let incident = json!({"id": id, "run": "llm", "attempt": 0, "kind": "slowdown.rank", "severity": severity,
        "state": state, "suspects": [], "summary": "s", "evidence": []});
    ToldChange { run: "llm".to_owned(), number, json: json!({"change": kind, "incident": incident}).to_string() }
}

/// What a judge tells, commit by commit.
fn story() -> Vec<Vec<ToldChange>> {
    vec![
        vec![change(0, "opened", "a", "warning"), change(1, "opened", "note", "info")],
        vec![change(2, "opened", "b", "critical"), change(3, "updated", "a", "warning")],
        vec![change(4, "updated", "a", "critical"), change(5, "resolved", "b", "critical")],
        vec![change(6, "reopened", "b", "critical"), change(7, "acknowledged", "a", "critical")],
        vec![change(8, "resolved", "a", "critical"), change(9, "merged", "b", "critical")],
    ]
}

/// Plays the story with a kill before one step, and gives what arrived.
///
/// * `loses_answer`: the attempt before the kill arrived, and its answer did not come back.
fn played(kill_at: usize, loses_answer: bool) -> (Vec<(String, String)>, usize) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("state.redb");
    let elsewhere = Arc::new(Elsewhere::default());
    let mut process = Process::start(&path, &elsewhere);
    let (story, mut told, mut step) = (story(), 0, 0);
    loop {
        let waiting = process.store.waiting_counts().expect("read");
        if told >= story.len() && !waiting.contains_key("hook") && !process.teller.is_due(i64::MAX) {
            break;
        }
        let now = step as i64 * 5 * SECOND;
        elsewhere.now.store(now, Ordering::Relaxed);
        if step + 1 == kill_at {
            elsewhere.loses_answer.store(loses_answer, Ordering::Relaxed);
        }
        if step == kill_at {
            drop(process);
            process = Process::start(&path, &elsewhere);
            // The snapshot is as of two commits ago: what came after it is worked out again.
            told = told.saturating_sub(2);
        }
        if step % 2 == 0 && told < story.len() {
            process.commit(&story[told], now);
            told += 1;
        } else if step % 2 == 0 {
            process.commit(&[], now);
        } else {
            let _ = process.courier.step(now, Slot::Any).expect("the outbox works");
        }
        step += 1;
        assert!(step < 2_000, "it ends");
    }
    (elsewhere.got.lock().expect("no test panics with it").clone(), step)
}

#[test]
fn ended_after_any_step_every_notice_arrives_and_ids_tell_repeats() {
    let (calm, steps) = played(usize::MAX, false);
    let words: Vec<&str> = calm.iter().map(|(_, words)| words.as_str()).collect();
    let expected = [
        "a incident.opened",
        "b incident.opened",
        "a incident.updated",
        "a incident.acknowledged",
        "b incident.merged",
        "a incident.resolved",
    ];
    assert_eq!(words.iter().copied().collect::<BTreeSet<_>>(), expected.into_iter().collect(), "{words:?}");
    assert_eq!(words.len(), expected.len(), "each once: {words:?}");
    let calm: BTreeMap<String, String> = calm.into_iter().collect();
    assert!(steps > 20, "{steps} steps");
    let mut repeats = 0;
    for kill_at in 0..steps {
        for loses_answer in [false, true] {
            let (got, _) = played(kill_at, loses_answer);
            repeats += got.len() - calm.len();
            let distinct: BTreeMap<String, String> = got.iter().cloned().collect();
            assert_eq!(distinct, calm, "killed at {kill_at}, answer lost: {loses_answer}");
            for incident in ["a", "b"] {
                let mut firsts: Vec<&str> = Vec::new();
                for (_, words) in got.iter().filter(|(_, words)| words.starts_with(incident)) {
                    if !firsts.contains(&words.as_str()) {
                        firsts.push(words);
                    }
                }
                let order: Vec<&str> = expected.into_iter().filter(|words| words.starts_with(incident)).collect();
                assert_eq!(firsts, order, "killed at {kill_at}: no notice overtakes an older one of its incident");
            }
        }
    }
    assert!(repeats > 0, "the kills hit something");
}

#[test]
fn a_receiver_that_is_away_for_72_hours_loses_nothing_and_a_restart_goes_on() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let path = dir.path().join("state.redb");
    let elsewhere = Arc::new(Elsewhere::default());
    elsewhere.is_away.store(true, Ordering::Relaxed);
    const NOTICES: u64 = 2_000;
    let mut process = Process::start(&path, &elsewhere);
    let changes: Vec<ToldChange> =
        (0..NOTICES).map(|number| change(number, "opened", &format!("i{number}"), "warning")).collect();
    process.commit(&changes, 0);
    let mut now = 0;
    while now < 72 * 3_600 * SECOND {
        now = match process.courier.step(now, Slot::Any).expect("the outbox works") {
            Step::Attempted => now + 10 * SECOND,
            Step::Rests(until) => until.expect("it is tried again"),
        };
    }
    assert_eq!(process.board.sinks()["hook"].delivered, 0);
    assert!(process.board.sinks()["hook"].open_circuit.as_deref().is_some_and(|why| why.contains("it is away")));
    drop(process);
    elsewhere.is_away.store(false, Ordering::Relaxed);
    let process = Process::start(&path, &elsewhere);
    while let Step::Attempted = process.courier.step(now, Slot::Any).expect("the outbox works") {}
    let got: BTreeSet<String> =
        elsewhere.got.lock().expect("no test panics with it").iter().map(|(id, _)| id.clone()).collect();
    assert_eq!(got.len() as u64, NOTICES);
    assert_eq!(process.store.waiting_counts().expect("read").get("hook"), None);
}
