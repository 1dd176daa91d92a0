//! Work that the cores share in a training step, where candle's own ops are too small for its threads.
//!
//! A call of candle's pool ends when every thread has come. Where something else has the core that a thread waits for, that
//! takes as long as the system lets it wait, some milliseconds instead of microseconds. Here whoever is there takes the next
//! task, and nobody waits for a thread that has taken none.

use candle_core::utils::{barrier_pool, get_num_threads};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::{hint, thread};

/// How many threads there are with the caller.
pub(crate) fn threads() -> usize {
    pool().helpers + 1
}

/// Does `work` on each task, on as many cores as are free. The tasks of another call, from within one as well, may be done
/// at the same time.
pub(crate) fn in_parallel<T: Send>(tasks: impl ExactSizeIterator<Item = T>, work: impl Fn(T) + Sync) {
    share(tasks, work, |count, task| pool().share(count, task));
}

/// The same for a loss with this many numbers in its gradient, on the threads that will add the gradient up: candle's own
/// keep spinning for a while after each call, and others would have to share the cores with them. Those do one call's tasks
/// at a time, so `work` must not itself call this, nor an op of candle's.
pub(crate) fn in_parallel_for<T: Send>(
    numbers: usize,
    tasks: impl ExactSizeIterator<Item = T>,
    work: impl Fn(T) + Sync,
) {
    if numbers < CANDLES {
        return in_parallel(tasks, work);
    }
    share(tasks, work, |count, task| barrier_pool().execute_chunked(count, |range| range.for_each(task)));
}

/// From how many elements on candle uses its threads.
const CANDLES: usize = 1 << 16;

fn share<T: Send>(
    tasks: impl ExactSizeIterator<Item = T>,
    work: impl Fn(T) + Sync,
    call: impl FnOnce(usize, &(dyn Fn(usize) + Sync)),
) {
    if tasks.len() < 2 || threads() < 2 {
        return tasks.for_each(work);
    }
    let tasks = tasks.map(|task| Mutex::new(Some(task))).collect::<Vec<_>>();
    call(tasks.len(), &|i| {
        let task = lock(&tasks[i]).take();
        task.into_iter().for_each(&work);
    });
}

/// How often a helper looks for the next call before it sleeps.
const ROUNDS: usize = 2000;

struct Pool {
    helpers: usize,
    /// The number of the last call,
    number: AtomicUsize,
    /// and what it is to do.
    call: Mutex<Option<Arc<Call>>>,
    bell: Condvar,
}

fn pool() -> &'static Pool {
    static POOL: OnceLock<Pool> = OnceLock::new();
    POOL.get_or_init(|| {
        // As candle counts them, which the user may limit.
        let wanted = get_num_threads().saturating_sub(1);
        let start = |i| thread::Builder::new().name(format!("losses-{i}")).spawn(|| pool().help()).is_ok();
        let helpers = (0..wanted).take_while(|&i| start(i)).count();
        Pool { helpers, number: AtomicUsize::new(0), call: Mutex::new(None), bell: Condvar::new() }
    })
}

impl Pool {
    fn share(&self, count: usize, work: &(dyn Fn(usize) + Sync)) {
        let call = Arc::new(Call::new(count, work));
        {
            let mut last = lock(&self.call);
            *last = Some(call.clone());
            self.number.fetch_add(1, Ordering::Release);
        }
        self.bell.notify_all();
        call.help();
        call.finish();
    }

    fn help(&self) {
        let mut seen = 0;
        loop {
            // The next call may be close: to sleep and be woken takes longer than that.
            let mut rounds = 0;
            while self.number.load(Ordering::Acquire) == seen && rounds < ROUNDS {
                rounds += 1;
                hint::spin_loop();
            }
            let mut last = lock(&self.call);
            while self.number.load(Ordering::Acquire) == seen {
                last = self.bell.wait(last).unwrap_or_else(PoisonError::into_inner);
            }
            seen = self.number.load(Ordering::Acquire);
            let call = last.clone();
            drop(last);
            call.iter().for_each(|call| call.help());
        }
    }
}

/// The tasks of a call.
struct Call {
    work: *const (dyn Fn(usize) + Sync),
    count: usize,
    /// The first that nobody has taken.
    next: AtomicUsize,
    /// How many are done.
    done: AtomicUsize,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

// SAFETY: the work may be shared, and is called only while it is there.
#[allow(unsafe_code)]
unsafe impl Send for Call {}
#[allow(unsafe_code)]
unsafe impl Sync for Call {}

impl Call {
    fn new(count: usize, work: &(dyn Fn(usize) + Sync)) -> Self {
        let work: *const (dyn Fn(usize) + Sync + '_) = work;
        // SAFETY: only the lifetime changes, and `finish` keeps to it.
        #[allow(unsafe_code)]
        let work =
            unsafe { std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), *const (dyn Fn(usize) + Sync)>(work) };
        Self { work, count, next: AtomicUsize::new(0), done: AtomicUsize::new(0), panic: Mutex::new(None) }
    }

    /// Does tasks until all are taken.
    fn help(&self) {
        loop {
            let i = self.next.fetch_add(1, Ordering::Relaxed);
            if i >= self.count {
                return;
            }
            // SAFETY: a task that is taken is not done, and before that `finish` does not return to who lent the work.
            #[allow(unsafe_code)]
            let work = unsafe { &*self.work };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(i))) {
                lock(&self.panic).get_or_insert(panic);
            }
            self.done.fetch_add(1, Ordering::Release);
        }
    }

    /// Waits for the tasks that others have taken.
    fn finish(&self) {
        let mut rounds = 0u32;
        while self.done.load(Ordering::Acquire) < self.count {
            rounds += 1;
            // Whoever is at it may need this core.
            if rounds < 10_000 { hint::spin_loop() } else { thread::yield_now() }
        }
        if let Some(panic) = lock(&self.panic).take() {
            resume_unwind(panic);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_is_done_once_whoever_calls() {
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for count in 0..100 {
                        let done = (0..count).map(|_| AtomicUsize::new(0)).collect::<Vec<_>>();
                        in_parallel(0..count, |i| {
                            // Also from within another call.
                            in_parallel(0..3, |_| _ = done[i].fetch_add(1, Ordering::Relaxed));
                        });
                        assert!(done.iter().all(|done| done.load(Ordering::Relaxed) == 3));
                    }
                });
            }
        });
    }

    #[test]
    fn a_panic_comes_to_who_called_and_the_pool_goes_on() {
        for _ in 0..100 {
            let caught = catch_unwind(|| in_parallel(0..8, |i| assert!(i != 5, "the fifth")));
            assert!(caught.is_err());
        }
        let sum = AtomicUsize::new(0);
        in_parallel(0..8, |i| _ = sum.fetch_add(i, Ordering::Relaxed));
        assert_eq!(sum.into_inner(), 28);
    }
}
