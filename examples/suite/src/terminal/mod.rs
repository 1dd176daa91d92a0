//! An example on a terminal: progress, files, checkpoints, Ctrl-C, pictures, and the Hugging Face Hub.

pub mod checkpoint;
mod comparison;
mod device;
mod digits;
mod file_options;
mod files;
pub mod hub;
pub mod idx;
mod interrupt;
pub mod plot;
mod quiet;

pub use comparison::Comparison;
pub use file_options::{FileOptions, InputFile};
pub use files::{is_stdout, probe, write};
pub use hub::DatasetName;

use crate::frontend::{Digit, Frontend, RunEvent, Ui, parse};
use crate::options::Options;
use crate::preset::Preset;
use crate::progress::Run;
use crate::session::Session;
use anyhow::{Context, Result, ensure};
use candle_losses::Adam;
use console::style;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use interrupt::{Interrupted, Listening};
use std::cell::{Cell, RefCell};
use std::io::{ErrorKind, Write};
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Instant;

/// Runs an example: reads its options, and turns an error into one line on stderr and a failing exit code. A reader of the output
/// that stops early (`| head`) ends the run quietly, unless it has files to write.
///
/// ```ignore
/// fn main() -> std::process::ExitCode {
///     suite::run(example)
/// }
/// ```
pub fn run<O: clap::Parser>(example: impl FnOnce(O, &Ui) -> Result<()>) -> ExitCode {
    let options = parse(std::env::args_os()).unwrap_or_else(|error| error.exit());
    let Err(error) = example(options, &(Rc::new(Terminal::default()) as Ui)) else { return ExitCode::SUCCESS };
    if error.is::<Interrupted>() {
        return interrupt::EXIT_CODE.into();
    }
    if is_closed(&error) {
        return ExitCode::SUCCESS;
    }
    say(&format!("error: {}", one_line(&error)));
    ExitCode::FAILURE
}

/// Writes a line to standard error, if that is possible.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// The context of an error of standard output.
#[derive(Debug, Clone, Copy)]
struct StandardOutput;

impl std::fmt::Display for StandardOutput {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.write_str("writing to standard output")
    }
}

/// Whether the error is that standard output is no longer read.
fn is_closed(error: &anyhow::Error) -> bool {
    let io_error = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>());
    error.is::<StandardOutput>() && io_error.is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

/// The name of the running example.
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

/// Lines on standard output, a bar and notes on standard error, files.
#[derive(Default)]
pub struct Terminal {
    /// Whether progress is shown.
    is_watched: Cell<bool>,
    bar: RefCell<Option<ProgressBar>>,
    /// The files that the session leaves, in words; none if empty.
    files: RefCell<String>,
    /// The error of standard output, in a run that continues for its files.
    closed: RefCell<Option<std::io::Error>>,
    training: RefCell<Option<Training>>,
    /// Why the last checkpoint could not be written.
    not_kept: RefCell<Option<anyhow::Error>>,
    /// The mini-batches that were trained on, and the seconds that they took.
    trained: Cell<Option<(usize, f64)>>,
}

/// The state of a training run, from its start to its end.
struct Training {
    /// The plan that a checkpoint is compared with.
    plan: Option<checkpoint::Plan>,
    start: Instant,
    /// The mini-batches of earlier runs.
    resumed: usize,
    /// As long as it is held, the first Ctrl-C ends the training in good order.
    _listening: Listening,
}

impl Frontend for Terminal {
    fn print(&self, line: &str) -> Result<()> {
        if self.closed.borrow().is_some() {
            return Ok(());
        }
        let write = || writeln!(std::io::stdout(), "{line}");
        let written = match &*self.bar.borrow() {
            Some(bar) => bar.suspend(write),
            None => write(),
        };
        match written {
            Err(error) if !self.files.borrow().is_empty() && self.training.borrow().is_some() => {
                *self.closed.borrow_mut() = Some(error);
                Ok(())
            }
            written => written.context(StandardOutput),
        }
    }

    fn note(&self, text: &str) {
        match &*self.bar.borrow() {
            Some(bar) => bar.suspend(|| say(text)),
            None => say(text),
        }
    }

    fn started(&self, options: &Options, _preset: Preset) -> Result<()> {
        self.is_watched.set(options.files.is_watched());
        let files = options.files.written().map(|(_, path)| path.display().to_string()).collect::<Vec<_>>();
        *self.files.borrow_mut() = files.join(", ");
        Ok(())
    }

    fn progress(&self, name: &str, done: u64, total: u64) {
        if total == 0 {
            self.close();
        } else if self.is_watched.get() {
            let mut bar = self.bar.borrow_mut();
            let bar = bar.get_or_insert_with(|| download_bar(name));
            bar.set_length(total);
            bar.set_position(done);
        }
    }

    fn observe(&self, run: &mut Run, adam: &mut Adam, event: RunEvent) -> Result<ControlFlow<()>> {
        match event {
            RunEvent::Start => self.start(run, adam)?,
            RunEvent::Batch => {
                if let Some(bar) = &*self.bar.borrow() {
                    bar.inc(1);
                    if let Some(interval) = run.session.preset().line_interval()
                        && run.batches().is_multiple_of(interval)
                    {
                        bar.set_message(format!(", loss {:.3}", run.recent_mean(interval)));
                    }
                }
            }
            // After the last step of an epoch validation comes first: a resumed run would not repeat it.
            RunEvent::Step if interrupt::is_requested() && !run.is_at_epoch_end() => return self.interrupt(run, adam),
            RunEvent::Step => {}
            RunEvent::Epoch if interrupt::is_requested() && run.epochs() < run.trainer.epochs => {
                return self.interrupt(run, adam);
            }
            RunEvent::Epoch => self.keep(run, adam)?,
            RunEvent::End => self.end(run)?,
            RunEvent::Failure => self.close(),
        }
        Ok(ControlFlow::Continue(()))
    }

    fn max_digits(&self) -> usize {
        if self.is_watched.get() { digits::SHOWN } else { 0 }
    }

    fn show_digits(&self, shown: &[Digit]) {
        say(digits::drawn(shown).trim_end_matches('\n'));
    }

    fn finish(&self, next: &str) {
        if !self.is_watched.get() {
            return;
        }
        if let Some((batches, seconds)) = self.trained.get() {
            let rate = batches as f64 / seconds.max(1e-9);
            say(&format!("Trained {batches} mini-batches in {seconds:.1} s, {rate:.0} per second."));
        }
        if !self.files.borrow().is_empty() {
            say(&format!("Files: {}.", self.files.borrow()));
        }
        let command = format!("cargo run --example {} -- {next}", example_name());
        say(&format!("Next: {}", style(command).for_stderr().cyan()));
    }
}

impl Terminal {
    /// Clears the bar, and lets Ctrl-C end the program.
    fn close(&self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        self.training.take();
    }

    /// Starts from `--init` or `--resume`, and checks that the files can be written.
    fn start(&self, run: &mut Run, adam: &mut Adam) -> Result<()> {
        let session = run.session;
        let (files, parameters) = (&session.options().files, session.parameters());
        if let Some(file) = files.init()? {
            checkpoint::load_weights(&file, parameters)?;
        }
        for (_, path) in files.written() {
            files::probe(path)?;
        }
        // The digest of the data is computed only if a checkpoint is read or written.
        let plan = match (&files.checkpoint, &files.resume) {
            (None, None) => None,
            _ => Some(checkpoint::Plan::new(session)?),
        };
        if let (Some(path), Some(plan)) = (&files.resume, &plan) {
            checkpoint::read(path, plan, run, adam)?;
            let epochs = run.epochs();
            ensure!(epochs < run.trainer.epochs, "{} has {epochs} epochs already; raise --epochs", path.display());
            ensure!(
                !run.stopping.as_ref().is_some_and(|stopping| stopping.is_stopped()),
                "{} is from a run that stopped early after epoch {epochs}, because the validation loss no longer improved",
                path.display()
            );
        }
        let resumed = run.batches();
        if self.is_watched.get() && !session.options().is_quiet {
            let total = run.trainer.epochs.saturating_mul(run.batches_in_epoch()) as u64;
            *self.bar.borrow_mut() = Some(progress_bar(total, resumed as u64));
        }
        let training = Training { plan, start: Instant::now(), resumed, _listening: interrupt::listen() };
        *self.training.borrow_mut() = Some(training);
        Ok(())
    }

    /// Ends the training in good order. The checkpoint is written now, as the weights of the best epoch may replace those of this
    /// step.
    fn interrupt(&self, run: &mut Run, adam: &Adam) -> Result<ControlFlow<()>> {
        ensure!(run.session.parameters().are_finite()?, "the weights are not finite; a smaller --lr may help");
        self.keep(run, adam)?;
        run.is_interrupted = true;
        Ok(ControlFlow::Break(()))
    }

    /// Writes the checkpoint. If that fails, training continues: the next checkpoint may succeed.
    fn keep(&self, run: &mut Run, adam: &Adam) -> Result<()> {
        let Some(path) = &run.session.options().files.checkpoint else { return Ok(()) };
        let training = self.training.borrow();
        let Some(plan) = training.as_ref().and_then(|training| training.plan.as_ref()) else { return Ok(()) };
        let bytes = checkpoint::to_bytes(plan, run, adam)?;
        let failed = files::write(path, &bytes).err();
        if let (Some(error), None) = (&failed, &*self.not_kept.borrow()) {
            self.note(&one_line(error));
        }
        *self.not_kept.borrow_mut() = failed;
        Ok(())
    }

    /// Writes the files, all that can be written, and names those that can't.
    fn end(&self, run: &mut Run) -> Result<()> {
        let training = self.training.take();
        if let Some(Training { start, resumed, .. }) = &training {
            self.trained.set(Some((run.batches() - resumed, start.elapsed().as_secs_f64())));
        }
        self.close();
        let failures = self.not_kept.take().into_iter().chain(run.session.options().files.write(run.session));
        let failures = failures.map(|error| one_line(&error)).collect::<Vec<_>>();
        ensure!(failures.is_empty(), "{}", failures.join("; "));
        if let Some(error) = self.closed.take() {
            return Err(error).context(StandardOutput);
        }
        if run.is_interrupted || interrupt::is_requested() {
            let files = self.files.borrow();
            let files = if files.is_empty() { "no files written".to_owned() } else { format!("wrote {files}") };
            say(&format!("Interrupted after {} steps; {files}.", run.session.steps().len()));
            return Err(Interrupted.into());
        }
        drop(training);
        Ok(())
    }
}

/// A bar over all mini-batches, on standard error.
fn progress_bar(total: u64, done: u64) -> ProgressBar {
    let rate = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        let _ = write!(out, "{:.0}", state.per_sec());
    };
    let style = bar_style("{bar:30.cyan/dim} {pos}/{len} mini-batches, {rate}/s, {eta} left{msg}");
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    bar.set_position(done);
    bar.with_style(style.with_key("rate", rate))
}

/// A bar over the bytes of a download, on standard error.
fn download_bar(name: &str) -> ProgressBar {
    let style = bar_style("Downloading {msg} {bar:30.cyan/dim} {bytes}/{total_bytes}, {bytes_per_sec}, {eta} left");
    ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_style(style).with_message(name.to_owned())
}

fn bar_style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl Session {
    /// Draws the training curve and its outcome to the file of `--plot`.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn plot(&self, title: &str, outcome: &plot::Outcome) -> Result<()> {
        let Some(path) = &self.options().files.plot else { return Ok(()) };
        write(path, plot::training_and_outcome(title, &file_options::losses(self), outcome)?.as_bytes())
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
