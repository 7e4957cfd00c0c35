//! The embedded log keeps what every log must keep.

#![expect(unused_crate_dependencies, reason = "what this target does not use serves another one of the package")]

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use trainwarden_ingest::{EmbeddedLog, EmbeddedOptions, Publisher, Source};

#[macro_use]
#[path = "suite/source_suite.rs"]
mod source_suite;

/// A log in a folder of its own.
struct EmbeddedRig {
    dir: tempfile::TempDir,
    log: Option<Arc<EmbeddedLog>>,
}

impl EmbeddedRig {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().expect("a temporary folder"), log: None }
    }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is right");
    i64::try_from(since.as_nanos()).expect("before the year 2262")
}

impl source_suite::Rig for EmbeddedRig {
    fn open(&mut self) -> (Box<dyn Source>, Arc<dyn Publisher>) {
        let log = self.log.get_or_insert_with(|| {
            let options = EmbeddedOptions { segment_bytes: 1 << 16, ..EmbeddedOptions::default() };
            Arc::new(EmbeddedLog::open(self.dir.path(), options, Arc::new(now)).expect("the log opens"))
        });
        (Box::new(log.source()), Arc::clone(log) as Arc<dyn Publisher>)
    }

    fn restart(&mut self) {
        self.log = None;
    }
}

source_suite!(EmbeddedRig::new());
