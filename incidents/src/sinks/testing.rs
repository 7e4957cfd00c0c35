//! A world that takes note of what is sent.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};

use super::{Outside, Post, Reply, SinkError};
use crate::Notice;

/// Answers every request with one status.
pub(super) struct Recorder {
    status: u16,
    now: AtomicI64,
    posts: Mutex<Vec<Post>>,
}

impl Recorder {
    pub(super) fn answering(status: u16) -> Self {
        Self { status, now: AtomicI64::new(1_766_000_012_000_000_000), posts: Mutex::default() }
    }

    pub(super) fn pass(&self, seconds: i64) {
        self.now.fetch_add(seconds * 1_000_000_000, Ordering::Relaxed);
    }

    pub(super) fn posts(&self) -> Vec<Post> {
        self.posts.lock().expect("no test panics with it").clone()
    }
}

impl Outside for Recorder {
    fn now(&self) -> i64 {
        self.now.load(Ordering::Relaxed)
    }

    fn post(&self, post: &Post) -> Result<Reply, SinkError> {
        self.posts.lock().expect("no test panics with it").push(post.clone());
        Ok(Reply { status: self.status, retry_after: None, body: String::new() })
    }

    fn run(&self, argv: &[String], _input: &str) -> Result<String, SinkError> {
        Err(SinkError::Unreachable { why: format!("`{}` is not run here", argv[0]) })
    }

    fn log(&self, _notice: &Notice, _text: &str) {}
}

/// Compares JSON with the file kept of it; `GOLDEN=write` writes the file anew.
pub(super) fn golden(name: &str, json: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    let value: serde_json::Value = serde_json::from_str(json).expect("JSON");
    let text = format!("{}\n", serde_json::to_string_pretty(&value).expect("JSON"));
    if std::env::var_os("GOLDEN").is_some_and(|word| word == "write") {
        std::fs::write(&path, &text).expect("written");
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, kept, "`{}` differs; look at it, then run with GOLDEN=write", path.display());
}
