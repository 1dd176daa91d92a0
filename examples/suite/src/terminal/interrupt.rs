//! Ctrl-C: during training the first one ends the run in good order, and the second one at once. At other times the
//! first one ends the program.
//!
//! A signal handler belongs to the process, and so does its state.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The exit code of an interrupted program, by convention.
pub(super) const EXIT_CODE: u8 = 130;

static IS_TRAINING: AtomicBool = AtomicBool::new(false);
static IS_REQUESTED: AtomicBool = AtomicBool::new(false);

/// The run was interrupted, has reported it, and has written its files.
#[derive(Debug)]
pub(super) struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

static TEMPORARY: Mutex<Option<PathBuf>> = Mutex::new(None);

/// The temporary file that is being written, which the handler removes. A file is created with this lock held, and the handler ends
/// the program with it held, so that none is created that the handler does not know of.
pub(super) fn temporary() -> MutexGuard<'static, Option<PathBuf>> {
    TEMPORARY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As long as it is held, the first Ctrl-C is only a request.
pub(super) struct Listening(());

pub(super) fn listen() -> Listening {
    IS_REQUESTED.store(false, Ordering::SeqCst);
    IS_TRAINING.store(true, Ordering::SeqCst);
    // A parent that has it ignored, as a shell for a job in the background, means it.
    if is_ignored() {
        return Listening(());
    }
    // It fails if there is a handler already, such as that of an earlier training.
    let _ = ctrlc::set_handler(|| {
        if !IS_TRAINING.load(Ordering::SeqCst) || IS_REQUESTED.swap(true, Ordering::SeqCst) {
            let temporary = temporary();
            if let Some(path) = &*temporary {
                let _ = std::fs::remove_file(path);
            }
            std::process::exit(EXIT_CODE.into());
        }
    });
    Listening(())
}

/// Whether Ctrl-C is ignored, as far as the system says.
fn is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // SIGINT is signal 2, and the mask begins with signal 1.
    ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 2 != 0)
}

impl Drop for Listening {
    fn drop(&mut self) {
        IS_TRAINING.store(false, Ordering::SeqCst);
    }
}

pub(super) fn is_requested() -> bool {
    IS_REQUESTED.load(Ordering::SeqCst)
}
