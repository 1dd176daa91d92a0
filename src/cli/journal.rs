use super::kind::Kind;
use super::options::Options;
use crate::Training;
use anyhow::{Context, Result, bail};
use candle_core::{DType, Tensor};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use std::io::Write;

const STDOUT: &str = "writing to standard output";

/// Keeps the losses of a training and says how it goes: lines on stdout, a bar on stderr.
pub(super) struct Journal {
    kind: Kind,
    epochs: usize,
    batch_size: usize,
    samples: usize,
    accumulate: usize,
    lr: f64,
    /// The loss of each mini-batch.
    losses: Vec<f32>,
    /// Losses that are still on the device. Reading one makes the host wait for it, so on a GPU they are read together.
    unread: Vec<Tensor>,
    /// The epoch whose start was told last.
    told: usize,
    bar: ProgressBar,
    /// Whether the run has files to write, and so goes on when its lines can't be written any more.
    has_files: bool,
    is_quiet: bool,
    /// Why they can't.
    closed: Option<std::io::Error>,
}

impl Journal {
    pub fn new(training: &Training, samples: usize, kind: Kind, lr: f64, options: &Options) -> Self {
        let &Training { epochs, batch_size, accumulate, .. } = training;
        // indicatif shows nothing where stderr is not a terminal.
        let target = if options.is_watched() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let style = "{bar:30.cyan/dim} {pos}/{len} mini-batches, {rate}/s, {eta} left{msg}";
        let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
        let rate = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            let _ = write!(out, "{:.0}", state.per_sec());
        };
        let mut journal = Self {
            kind,
            epochs,
            batch_size,
            samples,
            accumulate,
            lr,
            losses: Vec::new(),
            unread: Vec::new(),
            told: 0,
            bar: ProgressBar::hidden(),
            has_files: options.written().next().is_some(),
            is_quiet: options.is_quiet,
            closed: None,
        };
        let batches = epochs.saturating_mul(journal.batches_in_epoch()) as u64;
        journal.bar = ProgressBar::with_draw_target(Some(batches), target).with_style(style.with_key("rate", rate));
        journal
    }

    fn batches_in_epoch(&self) -> usize {
        self.samples.div_ceil(self.batch_size).max(1)
    }

    /// The epoch, counted from 1, and the place in it, from 0, of a mini-batch.
    fn place(&self, batch: usize) -> (usize, usize) {
        (batch / self.batches_in_epoch() + 1, batch % self.batches_in_epoch())
    }

    /// How many steps so many mini-batches were.
    pub fn steps(&self, batches: usize) -> usize {
        let (epoch, rest) = self.place(batches);
        (epoch - 1) * self.batches_in_epoch().div_ceil(self.accumulate) + rest.div_ceil(self.accumulate)
    }

    /// How many epochs are over.
    pub fn epochs(&self) -> usize {
        self.losses.len() / self.batches_in_epoch()
    }

    /// Takes over the losses of a training that is gone on with, and says how many steps it has taken.
    pub fn go_on_from(&mut self, losses: &[f32]) -> usize {
        self.losses = losses.to_vec();
        self.bar.set_position(losses.len() as u64);
        self.steps(losses.len())
    }

    /// The loss of each mini-batch so far.
    pub fn losses(&mut self) -> Result<Vec<f32>> {
        self.read()?;
        Ok(self.losses.clone())
    }

    pub fn record(&mut self, loss: &Tensor) -> Result<()> {
        let (epoch, before) = self.place(self.losses.len() + self.unread.len());
        if epoch != self.told {
            self.read()?;
            self.told = epoch;
            if !self.kind.is_table() {
                self.print(&format!("Starting epoch {epoch}"))?;
            }
        }
        self.unread.push(loss.detach());
        self.bar.inc(1);
        let every = match self.kind {
            Kind::Digits => Some(500),
            Kind::FakeImages => Some(10),
            Kind::Text => Some(100),
            Kind::Table | Kind::OwnTable { .. } => None,
        };
        let at = before + 1;
        let lines = every.filter(|&every| at.is_multiple_of(every));
        if lines.is_some() || loss.device().is_cpu() {
            self.read()?;
        }
        match lines {
            Some(every) => self.print_mean(every, &format!("Loss after mini-batch {at:>5}")),
            None => Ok(()),
        }
    }

    /// After each tenth of a training on a table there is a line; where it has fewer epochs than ten, after each.
    pub fn end_epoch(&mut self, epoch: usize) -> Result<()> {
        self.read()?;
        let tenths = |epoch: usize| epoch.saturating_mul(10) / self.epochs.max(1);
        if !self.kind.is_table() || tenths(epoch) == tenths(epoch - 1) {
            return Ok(());
        }
        let since = (1..epoch).rev().find(|&e| tenths(e) != tenths(e - 1)).unwrap_or(0);
        self.print_mean((epoch - since) * self.batches_in_epoch(), &format!("Loss after epoch {epoch:>5}"))
    }

    /// A line with the mean over the last mini-batches.
    fn print_mean(&mut self, batches: usize, what: &str) -> Result<()> {
        let recent = &self.losses[self.losses.len().saturating_sub(batches)..];
        let mean = recent.iter().map(|&loss| f64::from(loss)).sum::<f64>() / recent.len() as f64;
        self.bar.set_message(format!(", loss {mean:.3}"));
        self.print(&format!("{what}: {mean:.3}"))
    }

    fn read(&mut self) -> Result<()> {
        if self.unread.is_empty() {
            return Ok(());
        }
        let losses = Tensor::stack(&self.unread, 0)?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
        self.unread.clear();
        for loss in losses {
            if !loss.is_finite() {
                let before = match self.losses.last() {
                    Some(loss) => format!("after {loss}"),
                    None => "from the start".to_owned(),
                };
                let (epoch, _) = self.place(self.losses.len());
                let step = self.steps(self.losses.len() + 1);
                let lr = self.lr;
                bail!(
                    "the loss is {loss} in epoch {epoch}, step {step}, {before}; a smaller --lr than {lr} may help, or another --seed"
                )
            }
            self.losses.push(loss);
        }
        Ok(())
    }

    /// Whether all lines could be written.
    pub fn lines(&mut self) -> Result<()> {
        self.closed.take().map_or(Ok(()), |error| Err(error).context(STDOUT))
    }

    /// Epoch and loss of each step.
    pub fn finish(&mut self, interrupted: bool) -> Result<Vec<(usize, f32)>> {
        self.read()?;
        self.bar.finish_and_clear();
        if !interrupted {
            self.print("Training process has finished.")?;
        }
        let mut steps = Vec::new();
        for (i, losses) in self.losses.chunks(self.batches_in_epoch()).enumerate() {
            for (j, group) in losses.chunks(self.accumulate).enumerate() {
                steps.push((i + 1, self.mean(j * self.accumulate, group)));
            }
        }
        Ok(steps)
    }

    /// The mean of some mini-batches' losses, each by its number of samples. `at` is the place of the first in its epoch.
    fn mean(&self, at: usize, losses: &[f32]) -> f32 {
        if let &[loss] = losses {
            return loss;
        }
        let size = |i: usize| self.batch_size.min(self.samples - (at + i) * self.batch_size) as f64;
        let sum = losses.iter().enumerate().map(|(i, &loss)| size(i) * f64::from(loss)).sum::<f64>();
        (sum / (0..losses.len()).map(size).sum::<f64>()) as f32
    }

    fn print(&mut self, line: &str) -> Result<()> {
        if self.is_quiet || self.closed.is_some() {
            return Ok(());
        }
        match self.bar.suspend(|| writeln!(std::io::stdout(), "{line}")) {
            Err(error) if self.has_files => {
                self.closed = Some(error);
                Ok(())
            }
            printed => printed.context(STDOUT),
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
