//! Alerts: notices of incidents, from the state to their receivers.
//!
//! The judging thread puts notices into the outbox with the changes that they tell of ([`Teller`]); two threads for each
//! receiver take them out and send them ([`Courier`]). Between the two is only the state, so a kill loses nothing.

mod board;
mod config;
mod courier;
mod guard;
mod teller;
mod trial;
mod world;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use trainwarden_store::StateStore;

pub use self::board::{Board, SinkStatus};
pub use self::config::{AlertsConfig, AllowPrivate, LinksConfig, SinkConfig, SinkType};
pub use self::courier::{Courier, Step};
pub use self::guard::Guard;
pub use self::teller::{Endpoint, Route, Teller};
pub use self::trial::{Trial, try_sinks};
pub use self::world::World;

/// Starts what sends notices, and gives who puts them into the outbox; inside of a runtime.
///
/// # Errors
/// When a secret or the state cannot be read, or a thread cannot be started.
pub fn start(
    config: &AlertsConfig,
    store: &Arc<StateStore>,
    board: &Arc<Board>,
    stop: &Arc<AtomicBool>,
) -> Result<(Teller, Couriers)> {
    let endpoints = config.endpoints()?;
    let dwell_ns = i64::try_from(config.resolve_after_s).unwrap_or(i64::MAX).saturating_mul(1_000_000_000);
    let teller = Teller::open(Arc::clone(store), &endpoints, dwell_ns)?;
    Ok((teller, Couriers::start(endpoints, store, board, stop)?))
}

/// How long a stop waits for attempts that are on their way.
const STOP_WAIT: Duration = Duration::from_secs(3);

/// The threads that send notices.
#[derive(Debug, Default)]
pub struct Couriers {
    threads: Vec<JoinHandle<()>>,
    couriers: Vec<Arc<Courier>>,
}

impl Couriers {
    /// Starts two threads for each receiver: one for everything, one that is kept free for what is critical.
    ///
    /// # Errors
    /// When the state cannot be read, or a thread cannot be started.
    pub fn start(
        endpoints: Vec<Endpoint>,
        store: &Arc<StateStore>,
        board: &Arc<Board>,
        stop: &Arc<AtomicBool>,
    ) -> Result<Self> {
        let mut started = Self::default();
        let waiting = store.waiting_counts()?;
        for (name, count) in &waiting {
            if !endpoints.iter().any(|endpoint| endpoint.name == *name) {
                tracing::warn!(sink = name, count, "notices wait for a receiver that is not configured any more");
            }
        }
        for endpoint in endpoints {
            board.set_pending(&endpoint.name, waiting.get(&endpoint.name).copied().unwrap_or(0));
            let courier = Arc::new(Courier::new(endpoint, Arc::clone(store), Arc::clone(board)));
            for slot in [trainwarden_incidents::deliver::Slot::Any, trainwarden_incidents::deliver::Slot::Urgent] {
                let (courier, stop) = (Arc::clone(&courier), Arc::clone(stop));
                let thread = std::thread::Builder::new().name("notify".to_owned());
                let thread = thread.spawn(move || courier.run(slot, &stop)).context("cannot start a sending thread")?;
                started.threads.push(thread);
            }
            started.couriers.push(courier);
        }
        Ok(started)
    }

    /// Waits until the threads have ended, but not for a receiver that does not answer: what it had not answered is sent
    /// again after the next start.
    pub fn join(self) {
        self.couriers.iter().for_each(|courier| courier.wake());
        let deadline = Instant::now() + STOP_WAIT;
        while self.threads.iter().any(|thread| !thread.is_finished()) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
