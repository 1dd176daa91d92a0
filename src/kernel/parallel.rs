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

/// Applies `f` to each element of some rows of a matrix of `width` columns, on all threads, and returns the results row by row. It
/// does not first fill the output with zeros, which saves time.
///
/// # Errors
/// If there is no such row.
#[cfg(feature = "train")]
#[allow(unsafe_code)]
pub(crate) fn map_rows<T: Sync, R: Send>(
    values: &[T],
    width: usize,
    rows: &[u32],
    f: impl Fn(&T) -> R + Copy + Sync,
) -> candle_core::Result<Vec<R>> {
    let len = rows.len() * width;
    if len == 0 {
        return Ok(Vec::new());
    }
    if let Some(row) = rows.iter().find(|&&row| row as usize >= values.len() / width) {
        candle_core::bail!("there is no row {row} among {}", values.len() / width)
    }
    let mut mapped = Vec::with_capacity(len);
    let rows_of_chunk = (super::lanes::CHUNK / width).max(1);
    let chunks = mapped.spare_capacity_mut()[..len].chunks_mut(rows_of_chunk * width).zip(rows.chunks(rows_of_chunk));
    in_parallel(chunks, |(places, rows)| {
        for (places, &row) in places.chunks_mut(width).zip(rows) {
            let row = &values[row as usize * width..][..width];
            pulp::Arch::new().dispatch(
                #[inline(always)]
                || places.iter_mut().zip(row).for_each(|(place, value)| _ = place.write(f(value))),
            );
        }
    });
    // SAFETY: each of the `len` places was written.
    unsafe { mapped.set_len(len) };
    Ok(mapped)
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
