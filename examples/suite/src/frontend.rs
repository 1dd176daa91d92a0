//! The edge at which a terminal and a browser differ.

use crate::options::Options;
use crate::preset::Preset;
use crate::progress::Run;
use anyhow::{Result, anyhow};
use candle_losses::Adam;
use candle_losses::data::TrainTestSplit;
use std::ops::ControlFlow;
use std::rc::Rc;

/// The frontend that an example is run with.
pub type Ui = Rc<dyn Frontend>;

/// Shows a run to its user: lines of output, the events of its training, digits.
pub trait Frontend {
    /// Shows a line of the run's output.
    ///
    /// # Errors
    /// If it can't be written.
    fn print(&self, line: &str) -> Result<()>;

    /// Shows a remark that is not part of the output, if that is possible.
    fn note(&self, _text: &str) {}

    /// Called when a session starts, before its data is loaded.
    ///
    /// # Errors
    /// An error ends the session.
    fn started(&self, _options: &Options, _preset: Preset) -> Result<()> {
        Ok(())
    }

    /// The data of a session: what `load` gives, unless the frontend has it already. `name` is the same for the same data.
    ///
    /// # Errors
    /// Those of `load`.
    fn data(&self, _name: &str, load: &mut dyn FnMut() -> Result<TrainTestSplit>) -> Result<TrainTestSplit> {
        load()
    }

    /// Shows how many of `total` bytes of a download are done; 0 of 0 once it has ended.
    fn progress(&self, _name: &str, _done: u64, _total: u64) {}

    /// Observes the training, and may end it.
    ///
    /// # Errors
    /// What makes the run fail.
    fn observe(&self, _run: &mut Run, _adam: &mut Adam, _event: RunEvent) -> Result<ControlFlow<()>> {
        Ok(ControlFlow::Continue(()))
    }

    /// Returns how many digits to show; 0 shows none.
    fn max_digits(&self) -> usize {
        0
    }

    /// Shows held-out digits with the predictions of the model.
    fn show_digits(&self, _digits: &[Digit]) {}

    /// Ends a run; `next` are options to try next.
    fn finish(&self, _next: &str) {}
}

/// An event of a training run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RunEvent {
    /// Training is about to begin; the frontend may restore the state of an earlier run.
    Start,
    /// The loss of a mini-batch was recorded.
    Batch,
    /// The optimizer has taken a step.
    Step,
    /// An epoch is complete, validation included.
    Epoch,
    /// Training has ended, and the parameters have their final values.
    End,
    /// Training has failed.
    Failure,
}

/// A held-out image with the model's prediction and the truth.
#[derive(Debug, Clone)]
pub struct Digit {
    /// 28×28 pixels, 0 to 1, row by row.
    pub pixels: Vec<f32>,
    /// The prediction of the model, in words.
    pub prediction: String,
    /// The truth, in words.
    pub truth: String,
}

/// Reads the options of an example, as every frontend does: a negative number is a value, not an option.
///
/// # Errors
/// Those of clap.
pub fn parse<O: clap::Parser>(arguments: impl IntoIterator<Item = std::ffi::OsString>) -> clap::error::Result<O> {
    let matches = O::command().allow_negative_numbers(true).try_get_matches_from(arguments)?;
    O::from_arg_matches(&matches)
}

/// The same with an error of one line, for a program that runs examples itself.
///
/// # Errors
/// Those of clap, without how to ask for help.
pub fn parse_arguments<O: clap::Parser>(arguments: impl IntoIterator<Item = std::ffi::OsString>) -> Result<O> {
    parse(arguments).map_err(|error| {
        let text = error.to_string();
        anyhow!("{}", text.lines().next().unwrap_or_default().trim_start_matches("error: "))
    })
}

/// Lines on standard output and notes on standard error.
#[cfg(not(feature = "terminal"))]
pub(crate) struct Plain;

#[cfg(not(feature = "terminal"))]
impl Frontend for Plain {
    fn print(&self, line: &str) -> Result<()> {
        use std::io::Write;
        Ok(writeln!(std::io::stdout(), "{line}")?)
    }

    fn note(&self, text: &str) {
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), "{text}");
    }
}
