//! `send`: run folders as telemetry, as agents would have sent it.

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use trainwarden_ingest::wire::{BatchWriter, FrameWriter};
use trainwarden_ingest::{IngestError, Log, LogClock, Publisher, Rejects, RunLog, SourceError};
use trainwarden_telemetry::RunId;

use crate::config::read_key;
use crate::run_judge::{LATENESS_NS, LATENESS_STEPS};

/// The name under which recorded telemetry is sent: the same rows make the same frames, whoever sends them.
const SENDER: &str = "send";
/// Rows of one frame: columns of 32 Ki rows stay in the second-level cache of both sides.
const FRAME_ROWS_MAX: usize = 1 << 15;
/// A frame spans so much less log time than rows may be late that frames of a few slices may change places.
const SLICES_IN_LATENESS: i64 = 4;

/// How folders are sent.
#[derive(Clone, Debug, Default)]
pub struct SendOptions {
    /// How many times faster than recorded; 0 = at once.
    pub speed: f64,
    /// A secret key: 64 hexadecimal digits in a file.
    pub key: Option<PathBuf>,
}

/// What was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Runs.
    pub runs: u64,
    /// Frames, each durable in the log.
    pub frames: u64,
    /// Rows in them.
    pub rows: u64,
}

/// Sends run folders, and waits until everything is durable in the log.
///
/// # Errors
/// When a path holds no table, a disk fails, or the log refuses or does not answer.
pub fn send(paths: &[PathBuf], publisher: &dyn Publisher, options: &SendOptions) -> Result<(Sent, Rejects)> {
    let key = options.key.as_deref().map(read_key).transpose()?;
    let mut rejects = Rejects::new();
    let log = Log::read(paths, &mut rejects)?;
    let outcome = Outcome::default();
    let began = Instant::now();
    let sent: Vec<Result<Sent>> = std::thread::scope(|scope| {
        let mut sent = Vec::new();
        let mut threads = Vec::new();
        for (run, run_log) in log.runs {
            let (key, outcome) = (key.as_ref(), &outcome);
            let shipment = move || Shipment::new(&run, publisher, outcome, key).ship(run_log, options.speed, began);
            // Runs that keep their pace go side by side; at once they go one after the other, in bounded memory.
            match options.speed > 0.0 {
                true => threads.push(scope.spawn(shipment)),
                false => sent.push(shipment()),
            }
        }
        let join = |thread: std::thread::ScopedJoinHandle<'_, Result<Sent>>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        sent.extend(threads.into_iter().map(join));
        sent
    });
    // What the log refused is told before what followed from it.
    outcome.failure()?;
    let mut total = Sent::default();
    for run in sent {
        let run = run?;
        total.runs += 1;
        total.frames += run.frames;
        total.rows += run.rows;
    }
    outcome.wait(total.frames)?;
    Ok((total, rejects))
}

/// What became of the frames.
#[derive(Clone, Default)]
struct Outcome(Arc<OutcomeState>);

#[derive(Default)]
struct OutcomeState {
    answered: Mutex<Answered>,
    changed: Condvar,
}

#[derive(Default)]
struct Answered {
    frames: u64,
    failure: Option<SourceError>,
}

impl Outcome {
    fn answered(&self) -> MutexGuard<'_, Answered> {
        // Each change is whole: a panic elsewhere cannot have broken it.
        self.0.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, result: Result<(u32, u64), SourceError>) {
        let mut answered = self.answered();
        answered.frames += 1;
        if let Err(error) = result {
            answered.failure.get_or_insert(error);
        }
        self.0.changed.notify_all();
    }

    fn has_failed(&self) -> bool {
        self.answered().failure.is_some()
    }

    fn failure(&self) -> Result<()> {
        self.answered().failure.take().map_or(Ok(()), |error| Err(error.into()))
    }

    fn wait(&self, frames: u64) -> Result<()> {
        let is_waiting = |answered: &mut Answered| answered.frames < frames && answered.failure.is_none();
        let waited = self.0.changed.wait_while(self.answered(), is_waiting);
        let failure = waited.unwrap_or_else(PoisonError::into_inner).failure.take();
        failure.map_or(Ok(()), |error| Err(error.into()))
    }
}

/// One run on its way.
struct Shipment<'a> {
    run: &'a RunId,
    publisher: &'a dyn Publisher,
    outcome: &'a Outcome,
    key: Option<&'a [u8; 32]>,
    sent: Sent,
}

impl<'a> Shipment<'a> {
    fn new(run: &'a RunId, publisher: &'a dyn Publisher, outcome: &'a Outcome, key: Option<&'a [u8; 32]>) -> Self {
        Self { run, publisher, outcome, key, sent: Sent::default() }
    }

    fn ship(mut self, log: RunLog, speed: f64, began: Instant) -> Result<Sent> {
        let RunLog { names, rosters, communicators, clock, rows } = log;
        let mut writer = FrameWriter::new(SENDER, &self.run.0, Some(clock));
        if let Some(key) = self.key {
            writer.sign_with(0, key);
        }
        let mut batch = BatchWriter::default();
        rosters.iter().for_each(|(attempt, roster)| batch.roster(*attempt, roster));
        communicators.iter().for_each(|(attempt, told)| batch.communicators(*attempt, told));
        self.send_batch(&mut writer, &mut batch, 0)?;
        let slice = match clock {
            LogClock::Nanoseconds => LATENESS_NS / SLICES_IN_LATENESS,
            LogClock::Steps => LATENESS_STEPS / SLICES_IN_LATENESS,
        };
        let (mut first, mut slice_end, mut now) = (None, i64::MIN, 0);
        for record in rows.into_records(clock) {
            let record = record.map_err(|error: IngestError| error)?;
            if record.log_time >= slice_end || batch.rows() >= FRAME_ROWS_MAX {
                self.send_batch(&mut writer, &mut batch, now)?;
                if record.log_time >= slice_end {
                    slice_end = record.log_time.saturating_add(slice);
                }
                if clock == LogClock::Nanoseconds {
                    keep_pace(record.log_time.saturating_sub(*first.get_or_insert(record.log_time)), speed, began);
                }
            }
            now = record.log_time;
            batch.push(&record, &names);
        }
        self.send_batch(&mut writer, &mut batch, now)?;
        let end = writer.end(now);
        self.send_frame(&end);
        Ok(self.sent)
    }

    fn send_batch(&mut self, writer: &mut FrameWriter, batch: &mut BatchWriter, now: i64) -> Result<()> {
        if self.outcome.has_failed() {
            // The first failure is told by whoever waits for the outcome.
            bail!("the log takes no more telemetry of run `{}`", self.run);
        }
        self.sent.rows += batch.rows() as u64;
        for (table, rows) in batch.finish() {
            let frame = writer.rows(table, &rows, now);
            self.send_frame(&frame);
        }
        Ok(())
    }

    fn send_frame(&mut self, frame: &[u8]) {
        self.sent.frames += 1;
        let outcome = self.outcome.clone();
        self.publisher.publish(&self.run.0, frame, Box::new(move |result| outcome.note(result)));
    }
}

/// Waits until it is time for a row that was recorded so long after the first one.
fn keep_pace(after_ns: i64, speed: f64, began: Instant) {
    if speed <= 0.0 {
        return;
    }
    let due = Duration::from_secs_f64((after_ns.max(0) as f64 / 1e9 / speed).min(1e9));
    std::thread::sleep(due.saturating_sub(began.elapsed()));
}
