//! Sharing work among candle's threads.

use candle_core::utils::barrier_pool;
use std::cell::Cell;
use std::sync::{Mutex, PoisonError};

/// The number of threads, the caller's included. `CANDLE_NUM_THREADS` limits it.
pub(crate) fn threads() -> usize {
    barrier_pool().n_workers() + 1
}

thread_local! {
    static IS_BUSY: Cell<bool> = const { Cell::new(false) };
}

/// Calls `work` with each task, on all of candle's threads.
///
/// A nested call runs on the thread of `work` alone. `work` must not call Candle ops, because Candle's thread pool serves one
/// call at a time.
pub(crate) fn in_parallel<T: Send>(tasks: impl ExactSizeIterator<Item = T>, work: impl Fn(T) + Sync) {
    if tasks.len() < 2 || IS_BUSY.get() || threads() < 2 {
        return tasks.for_each(work);
    }
    let tasks = tasks.map(|task| Mutex::new(Some(task))).collect::<Vec<_>>();
    barrier_pool().execute_chunked(tasks.len(), |range| {
        let was_busy = IS_BUSY.replace(true);
        for task in &tasks[range] {
            let task = task.lock().unwrap_or_else(PoisonError::into_inner).take();
            task.into_iter().for_each(&work);
        }
        IS_BUSY.set(was_busy);
    });
}

/// Applies `f` to each value, on all threads. It does not first fill the output with zeros, which saves time.
#[cfg(feature = "train")]
#[allow(unsafe_code)]
pub(crate) fn map<T: Sync, R: Send>(values: &[T], f: impl Fn(&T) -> R + Copy + Sync) -> Vec<R> {
    use super::lanes::CHUNK;
    let mut mapped = Vec::with_capacity(values.len());
    let places = mapped.spare_capacity_mut()[..values.len()].chunks_mut(CHUNK);
    in_parallel(places.zip(values.chunks(CHUNK)), |(places, values)| {
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || places.iter_mut().zip(values).for_each(|(place, value)| _ = place.write(f(value))),
        );
    });
    // SAFETY: each place was written.
    unsafe { mapped.set_len(values.len()) };
    mapped
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    #[test]
    fn each_task_runs_once_from_several_threads_and_nested() {
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for count in 0..100 {
                        let done = (0..count).map(|_| AtomicUsize::new(0)).collect::<Vec<_>>();
                        in_parallel(0..count, |i| {
                            in_parallel(0..3, |_| _ = done[i].fetch_add(1, Ordering::Relaxed));
                        });
                        assert!(done.iter().all(|done| done.load(Ordering::Relaxed) == 3));
                    }
                });
            }
        });
    }
}
