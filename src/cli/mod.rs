//! What an example needs on a terminal: options, progress and lines, files, checkpoints, Ctrl-C, a report, pictures. It
//! watches the training and has no part in it.

mod checkpoint;
mod compare;
mod figures;
mod files;
mod interrupt;
mod journal;
mod kind;
mod options;
pub mod plot;
mod report;
mod session;
mod show;
mod sources;
mod values;

#[cfg(any(fuzzing, test))]
pub(crate) use checkpoint::Plan;
#[cfg(any(fuzzing, test))]
pub(crate) use checkpoint::read_from as read_checkpoint;
pub use compare::Comparison;
pub use figures::outputs;
pub use files::{is_stdout, write};
pub use kind::Kind;
pub use options::{Args, Options, Source};
pub use report::Report;
pub use session::Session;
pub use sources::{BostonHousing, Digits, FakeImages, Named};
pub use values::{class_weights, test_fraction};

use anyhow::Result;
use interrupt::Interrupted;
use std::io::ErrorKind;
use std::process::ExitCode;

/// Runs an example: reads its options, and turns an error into one line on stderr and a failing exit code. A reader of
/// the output who has seen enough (`| head`) ends it quietly, unless it has files to write.
///
/// ```
/// #[derive(clap::Parser)]
/// struct Options {
///     #[arg(long, default_value_t = 2)]
///     number: u32,
/// }
///
/// fn main() -> std::process::ExitCode {
///     candle_losses::cli::run(|Options { number }| {
///         println!("{}", number * number);
///         Ok(())
///     })
/// }
/// ```
pub fn run<O: clap::Parser>(example: impl FnOnce(O) -> Result<()>) -> ExitCode {
    // A negative number is a value to check, not an option.
    let mut command = O::command().allow_negative_numbers(true);
    let matches = command.get_matches_mut();
    options::remember(&command, &matches);
    let parsed = O::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let Err(error) = example(parsed) else { return ExitCode::SUCCESS };
    if error.is::<Interrupted>() {
        return interrupt::EXIT_CODE.into();
    }
    if is_closed(&error) {
        return ExitCode::SUCCESS;
    }
    eprintln!("error: {}", one_line(&error));
    ExitCode::FAILURE
}

/// Whether what went wrong is that nobody reads any more.
fn is_closed(error: &anyhow::Error) -> bool {
    let io_error = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>());
    io_error.is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

/// The name of the example that runs.
fn example_name() -> String {
    let program = std::env::current_exe().unwrap_or_default();
    program.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// The error and its causes, without the backtraces that candle's errors may carry.
fn one_line(error: &anyhow::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = match cause.downcast_ref::<candle_core::Error>() {
            Some(error) => without_backtrace(error),
            None => cause.to_string(),
        };
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        // Some errors print their cause themselves.
        if parts.last().is_none_or(|last| !last.contains(&text)) {
            parts.push(text);
        }
    }
    parts.join(": ")
}

fn without_backtrace(error: &candle_core::Error) -> String {
    match error {
        candle_core::Error::WithBacktrace { inner, .. } => without_backtrace(inner),
        candle_core::Error::WithPath { inner, path } => format!("{}: {}", path.display(), without_backtrace(inner)),
        candle_core::Error::Context { inner, context } => format!("{context}: {}", without_backtrace(inner)),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{DType, Device, Tensor};

    #[test]
    fn an_error_of_candle_is_one_line() {
        let shapes = Tensor::zeros((2, 3), DType::F32, &Device::Cpu).unwrap();
        let error = shapes.matmul(&shapes).unwrap_err().with_path("weights.safetensors");
        let line = one_line(&anyhow::Error::from(error).context("multiplying"));
        assert!(line.starts_with("multiplying: weights.safetensors: "), "{line}");
        assert!(line.contains("[2, 3]") && !line.contains('\n') && !line.contains(" 0: "), "{line}");
    }
}
