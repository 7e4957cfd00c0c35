//! Work on all cores.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Does the work of each task on as many threads as there are cores.
///
/// * Returns the results in the order of the tasks, whichever was done first.
///
/// # Panics
/// When the work of a task panics.
pub fn each<T: Sync, R: Send>(tasks: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let take_turns = || {
        let mut done = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(task) = tasks.get(index) else { return done };
            done.push((index, work(task)));
        }
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let mut results: Vec<(usize, R)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..cores.min(tasks.len())).map(|_| scope.spawn(take_turns)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a panic of a task is passed on")).collect()
    });
    results.sort_unstable_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_tasks_and_each_task_is_done_once() {
        let tasks: Vec<u64> = (0..1_000).collect();
        assert_eq!(each(&tasks, |task| task * task), tasks.iter().map(|task| task * task).collect::<Vec<_>>());
        assert_eq!(each(&[], |task: &u64| *task), Vec::<u64>::new());
    }
}
