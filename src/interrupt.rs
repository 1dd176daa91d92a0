//! Ctrl-C: once to end in good order, twice to end at once.

use std::sync::atomic::{AtomicBool, Ordering};

/// The exit code of a program that was interrupted, by convention.
pub(crate) const EXIT_CODE: u8 = 130;

static IS_ASKED: AtomicBool = AtomicBool::new(false);

/// The run was interrupted, has said so, and has written its files.
#[derive(Debug)]
pub(crate) struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// From now on the first Ctrl-C only asks to end.
pub(crate) fn listen() {
    // It fails where somebody else listens already, as a training before this one.
    let _ = ctrlc::set_handler(|| {
        if IS_ASKED.swap(true, Ordering::SeqCst) {
            std::process::exit(EXIT_CODE.into());
        }
    });
}

pub(crate) fn is_asked() -> bool {
    IS_ASKED.load(Ordering::SeqCst)
}
