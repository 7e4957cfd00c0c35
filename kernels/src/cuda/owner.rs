//! The one thread that owns a device, its memory and its stream.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use super::device::{Device, Fault};
use super::engine::Engine;

/// Work on the thread of a device, which may borrow for `'a`.
type Borrowing<'a, D> = Box<dyn FnOnce(&mut Engine<D>) + Send + 'a>;
type Job<D> = Borrowing<'static, D>;

/// Runs work on the thread of a device.
pub(super) struct Owner<D: Device> {
    jobs: Option<Sender<Job<D>>>,
    thread: Option<JoinHandle<()>>,
}

impl<D: Device + 'static> Owner<D> {
    /// Starts the thread and opens the device on it; returns also what `describe` says of it.
    ///
    /// A driver that is broken panics where it should give an error; both come out as a fault.
    pub(super) fn open<T: Send + 'static>(
        open: impl FnOnce() -> Result<D, Fault> + Send + 'static,
        describe: impl FnOnce(&D) -> T + Send + 'static,
    ) -> Result<(Self, T), Fault> {
        let (jobs, queue) = channel::<Job<D>>();
        let (opened, is_opened) = channel();
        let work = move || {
            let device = caught("open a device", || {
                let device = open()?;
                let description = describe(&device);
                Ok((device, description))
            });
            let mut engine = match device {
                Ok((device, description)) => {
                    let engine = Engine::new(device);
                    let _ = opened.send(Ok(description));
                    engine
                }
                Err(fault) => {
                    let _ = opened.send(Err(fault));
                    return;
                }
            };
            for job in queue {
                job(&mut engine);
            }
            // What a broken driver does when it is closed is nobody's concern any more.
            let _ = caught("close a device", || {
                drop(engine);
                Ok(())
            });
        };
        let failed = |reason: String| Fault { what: "open a device", reason, is_lost: true };
        let thread = std::thread::Builder::new().name("cuda".into()).spawn(work);
        let thread = thread.map_err(|error| failed(error.to_string()))?;
        let description = is_opened.recv().unwrap_or_else(|_| Err(failed("its thread ended".into())))?;
        Ok((Self { jobs: Some(jobs), thread: Some(thread) }, description))
    }

    /// Does `work` on the device's thread and waits for it.
    pub(super) fn run<T: Send>(
        &self,
        work: impl FnOnce(&mut Engine<D>) -> Result<T, Fault> + Send,
    ) -> Result<T, Fault> {
        let (answer, is_answered) = channel();
        let job = move |engine: &mut Engine<D>| {
            let outcome = caught("run", || work(engine));
            let _ = answer.send(outcome);
        };
        let job: Borrowing<'_, D> = Box::new(job);
        // SAFETY: only the lifetime changes. What `job` borrows outlives it: this function returns after an answer, which
        // is sent when `work` has been consumed, or after `answer` was dropped, which is when the job was; a panic inside
        // `work` is caught before.
        let job: Job<D> = unsafe { std::mem::transmute(job) };
        let jobs = self.jobs.as_ref().expect("the queue is closed by `drop` alone");
        let ended = || Fault { what: "run", reason: "the thread of the device ended".into(), is_lost: true };
        jobs.send(job).map_err(|_| ended())?;
        is_answered.recv().unwrap_or_else(|_| Err(ended()))
    }
}

impl<D: Device> Drop for Owner<D> {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn caught<T>(what: &'static str, work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    let reason = |panic: Box<dyn Any + Send>| match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => panic.downcast_ref::<&str>().map_or("a panic".to_owned(), |text| (*text).to_owned()),
    };
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|panic| Err(Fault { what, reason: reason(panic), is_lost: true }))
}
