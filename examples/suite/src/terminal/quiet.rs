//! Panics of other crates as values.

use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Runs `f`; `None` if it panics, which is then not reported. Reports of other threads are not suppressed.
pub(super) fn quietly<T>(f: impl FnOnce() -> T) -> Option<T> {
    // One at a time: each puts the hook back that it found.
    static HOOK: Mutex<()> = Mutex::new(());
    let _one = HOOK.lock().unwrap_or_else(PoisonError::into_inner);
    let (report, this) = (std::sync::Arc::new(take_hook()), thread::current().id());
    let others = report.clone();
    set_hook(Box::new(move |info| {
        if thread::current().id() != this {
            others(info);
        }
    }));
    let outcome = catch_unwind(AssertUnwindSafe(f)).ok();
    drop(take_hook());
    if let Some(report) = std::sync::Arc::into_inner(report) {
        set_hook(report);
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn a_panic_is_a_value_and_the_hook_is_put_back() {
        static REPORTS: AtomicUsize = AtomicUsize::new(0);
        let before = take_hook();
        set_hook(Box::new(|_| _ = REPORTS.fetch_add(1, Ordering::SeqCst)));
        assert_eq!((quietly(|| 1), quietly(|| panic!("not reported"))), (Some(1), None));
        assert_eq!(REPORTS.load(Ordering::SeqCst), 0);
        let _ = catch_unwind(|| panic!("reported"));
        set_hook(before);
        assert_eq!(REPORTS.load(Ordering::SeqCst), 1);
    }
}
