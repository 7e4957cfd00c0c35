//! The state: can it be opened, and by whom is it used.

use std::path::Path;

use trainwarden_store::{StateStore, StoreError};

use super::{Finding, port};
use crate::config::Config;
use crate::serve::{Running, STATE_FILE};

const GROUP: &str = "state";

/// Looks at the state.
pub(super) fn look(config: &Config) -> Vec<Finding> {
    let running = Running::find(&config.data);
    let answers = running
        .as_ref()
        .is_some_and(|running| port::get(running.address, "/livez").is_some_and(|answer| answer.ends_with("ok\n")));
    match (running, answers) {
        (Some(running), true) => health(&running),
        (Some(running), false) => {
            let what = format!(
                "`serve.json` names process {} at {}, where nobody answers: it did not stop in peace",
                running.pid, running.address
            );
            vec![Finding::warning(GROUP, what, "start the service: it goes on where it was"), at_rest(&config.data)]
        }
        (None, _) => vec![at_rest(&config.data)],
    }
}

/// What the running service says of itself.
fn health(running: &Running) -> Vec<Finding> {
    let address = running.address;
    let answer = port::get(address, "/readyz?verbose").unwrap_or_default();
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    let failed: Vec<Finding> = body
        .lines()
        .filter_map(|line| line.strip_prefix("[-] "))
        .map(|why| Finding::wrong(GROUP, format!("the running service at {address}: {why}"), "see its log"))
        .collect();
    match failed.is_empty() {
        true => {
            vec![Finding::good(GROUP, format!("a service of this folder runs at {address}, process {}", running.pid))]
        }
        false => failed,
    }
}

/// The state of a folder that no service answers for.
fn at_rest(data: &Path) -> Finding {
    let path = data.join(STATE_FILE);
    match StateStore::open_at_rest(&path) {
        Ok(_) => Finding::good(GROUP, format!("`{}` can be opened, and is of this version", path.display())),
        Err(StoreError::Missing { .. }) => {
            Finding::good(GROUP, format!("`{}` will be made by `serve`", path.display()))
        }
        Err(error @ StoreError::InUse { .. }) => {
            Finding::wrong(GROUP, error.to_string(), "find it with `fuser`: one process at a time has a data folder")
        }
        Err(error @ StoreError::Newer { .. }) => Finding::wrong(
            GROUP,
            error.to_string(),
            "or name another `data`: the log is judged again from its oldest record",
        ),
        Err(error) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            let advice = "move the file away: `serve` then judges what the log still holds, and makes a new one";
            Finding::wrong(GROUP, format!("{error}{cause}"), advice)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_state_that_opens_is_good_and_one_in_use_or_broken_is_not() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let data = dir.path();
        assert_eq!(at_rest(data).verdict, Verdict::Good, "none yet");
        assert!(!data.join(STATE_FILE).exists(), "nothing is made");
        let held = StateStore::open(&data.join(STATE_FILE)).expect("a new state");
        let in_use = at_rest(data);
        assert!(in_use.verdict == Verdict::Wrong && in_use.what.contains("another process"), "{in_use:?}");
        drop(held);
        assert_eq!(at_rest(data).verdict, Verdict::Good);
        std::fs::write(data.join(STATE_FILE), "no state at all").expect("written");
        assert_eq!(at_rest(data).verdict, Verdict::Wrong);
    }

    #[test]
    fn a_service_that_died_is_told() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let config = Config { data: dir.path().to_owned(), ..Config::default() };
        let gone = std::net::TcpListener::bind("127.0.0.1:0").and_then(|held| held.local_addr()).expect("a free port");
        let text = serde_json::to_vec(&Running { address: gone, pid: 1 }).expect("it serialises");
        std::fs::write(dir.path().join("serve.json"), text).expect("written");
        let found = look(&config);
        assert_eq!(found.iter().map(|found| found.verdict).collect::<Vec<_>>(), [Verdict::Warning, Verdict::Good]);
    }
}
