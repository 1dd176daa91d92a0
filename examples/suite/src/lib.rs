//! What the examples share: command-line options, data, a training [`Session`], metrics, and the curves of the losses.
//!
//! A session shows itself through a [`Frontend`]: on a terminal ([`run`]), where it also writes files, or on a page of the book.
#![deny(unsafe_code)]

mod datasets;
mod frontend;
mod metrics;
mod options;
mod parsers;
mod preset;
mod progress;
mod report;
mod session;
#[cfg(feature = "terminal")]
mod terminal;
pub mod views;

pub use datasets::{BostonHousing, Digits, FakeImages};
pub use frontend::{Digit, Frontend, RunEvent, Ui, parse, parse_arguments};
pub use metrics::outputs;
pub use options::{Args, DatasetArgs, Options};
pub use parsers::{class_weights, test_fraction};
pub use preset::Preset;
pub use progress::Run;
pub use report::Report;
pub use session::Session;

#[cfg(feature = "terminal")]
pub use terminal::{
    Comparison, DatasetName, FileOptions, InputFile, Terminal, checkpoint, hub, idx, is_stdout, plot, probe, run, write,
};

/// Runs an example without a terminal's comforts: lines on standard output, notes on standard error.
#[cfg(not(feature = "terminal"))]
pub fn run<O: clap::Parser>(example: impl FnOnce(O, &Ui) -> anyhow::Result<()>) -> std::process::ExitCode {
    match example(O::parse(), &(std::rc::Rc::new(frontend::Plain) as Ui)) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            frontend::Plain.note(&format!("error: {error:#}"));
            std::process::ExitCode::FAILURE
        }
    }
}

/// The examples keep up with the many small tensors of a model better than with the allocators of some systems.
#[cfg(feature = "terminal")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;
