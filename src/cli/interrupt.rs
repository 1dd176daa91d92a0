//! Ctrl-C during a training: once to end in good order, twice to end at once. At other times once is enough.

use std::sync::atomic::{AtomicBool, Ordering};

/// The exit code of a program that was interrupted, by convention.
pub(super) const EXIT_CODE: u8 = 130;

static IS_TRAINING: AtomicBool = AtomicBool::new(false);
static IS_ASKED: AtomicBool = AtomicBool::new(false);

/// The run was interrupted, has said so, and has written its files.
#[derive(Debug)]
pub(super) struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// As long as it is held, the first Ctrl-C only asks to end.
pub(super) struct Listening(());

pub(super) fn listen() -> Listening {
    IS_ASKED.store(false, Ordering::SeqCst);
    IS_TRAINING.store(true, Ordering::SeqCst);
    // It fails where somebody else listens already, as a training before this one.
    let _ = ctrlc::set_handler(|| {
        if !IS_TRAINING.load(Ordering::SeqCst) || IS_ASKED.swap(true, Ordering::SeqCst) {
            std::process::exit(EXIT_CODE.into());
        }
    });
    Listening(())
}

impl Drop for Listening {
    fn drop(&mut self) {
        IS_TRAINING.store(false, Ordering::SeqCst);
    }
}

pub(super) fn is_asked() -> bool {
    IS_ASKED.load(Ordering::SeqCst)
}
