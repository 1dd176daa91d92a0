use crate::session::Session;
use anyhow::{Result, bail};
use candle_core::{DType, Tensor};
use candle_losses::{EarlyStopping, Trainer};

/// A training run in progress: its position and its losses so far.
pub struct Run<'a> {
    /// The session: parameters, data and options.
    pub session: &'a Session,
    /// The training loop; `completed_steps` counts the steps of earlier runs.
    pub trainer: Trainer,
    /// Early stopping, if the session has validation samples.
    pub stopping: Option<EarlyStopping>,
    /// Whether the frontend has ended it before its end.
    pub is_interrupted: bool,
    /// The loss of each mini-batch that was read from the device.
    losses: Vec<f32>,
    /// Losses that are still on the device. Reading one makes the host wait for it, so on a GPU they are read together.
    unread: Vec<Tensor>,
    /// The epoch of the last line that announced one.
    announced: usize,
}

impl<'a> Run<'a> {
    pub(crate) fn new(session: &'a Session, trainer: Trainer, stopping: Option<EarlyStopping>) -> Self {
        Self { session, trainer, stopping, is_interrupted: false, losses: Vec::new(), unread: Vec::new(), announced: 0 }
    }

    fn samples(&self) -> usize {
        self.session.data().train.len()
    }

    /// Adam's learning rate.
    pub fn lr(&self) -> f64 {
        self.session.options().lr(self.session.preset())
    }

    /// Mini-batches in an epoch.
    pub fn batches_in_epoch(&self) -> usize {
        self.samples().div_ceil(self.trainer.batch_size).max(1)
    }

    /// The epoch, counted from 1, and the position in it, from 0, of a mini-batch.
    fn position(&self, batch: usize) -> (usize, usize) {
        (batch / self.batches_in_epoch() + 1, batch % self.batches_in_epoch())
    }

    /// Returns the number of optimizer steps in `batches` mini-batches.
    pub fn steps(&self, batches: usize) -> usize {
        let (epoch, rest) = self.position(batches);
        (epoch - 1) * self.steps_in_epoch() + rest.div_ceil(self.trainer.accumulate)
    }

    fn steps_in_epoch(&self) -> usize {
        self.batches_in_epoch().div_ceil(self.trainer.accumulate)
    }

    /// All steps of the run, from the first epoch to the last.
    pub fn total_steps(&self) -> usize {
        self.trainer.epochs.saturating_mul(self.steps_in_epoch())
    }

    /// Complete epochs.
    pub fn epochs(&self) -> usize {
        self.losses.len() / self.batches_in_epoch()
    }

    /// Whether the last mini-batch was the last one of an epoch.
    pub fn is_at_epoch_end(&self) -> bool {
        self.batches().is_multiple_of(self.batches_in_epoch())
    }

    /// Continues a training run with these losses.
    pub fn resume(&mut self, losses: Vec<f32>) {
        self.trainer.completed_steps = self.steps(losses.len());
        self.losses = losses;
    }

    /// The loss of each mini-batch so far. On a GPU the host waits for them.
    ///
    /// # Errors
    /// If one of them is not finite.
    pub fn losses(&mut self) -> Result<&[f32]> {
        self.read()?;
        Ok(&self.losses)
    }

    /// The number of mini-batches so far.
    pub fn batches(&self) -> usize {
        self.losses.len() + self.unread.len()
    }

    pub(crate) fn record(&mut self, loss: &Tensor) -> Result<()> {
        let (epoch, before) = self.position(self.batches());
        if epoch != self.announced {
            self.read()?;
            self.announced = epoch;
            if !self.session.preset().is_table() {
                self.print(&format!("Starting epoch {epoch}"))?;
            }
        }
        self.unread.push(loss.detach());
        let in_epoch = before + 1;
        let interval = self.session.preset().line_interval().filter(|&interval| in_epoch.is_multiple_of(interval));
        if interval.is_some() || loss.device().is_cpu() {
            self.read()?;
        }
        match interval {
            Some(interval) => self.print_mean(interval, &format!("Loss after mini-batch {in_epoch:>5}")),
            None => Ok(()),
        }
    }

    /// Prints a line after each tenth of the epochs of a table run; after each epoch if there are fewer than ten.
    pub(crate) fn end_epoch(&mut self, epoch: usize) -> Result<()> {
        self.read()?;
        let epochs = self.trainer.epochs.max(1);
        let tenths = |epoch: usize| epoch.saturating_mul(10) / epochs;
        if !self.session.preset().is_table() || tenths(epoch) == tenths(epoch - 1) {
            return Ok(());
        }
        let since = (1..epoch).rev().find(|&e| tenths(e) != tenths(e - 1)).unwrap_or(0);
        self.print_mean((epoch - since) * self.batches_in_epoch(), &format!("Loss after epoch {epoch:>5}"))
    }

    /// The mean loss of the last mini-batches.
    pub fn recent_mean(&self, batches: usize) -> f64 {
        let recent = &self.losses[self.losses.len().saturating_sub(batches)..];
        recent.iter().map(|&loss| f64::from(loss)).sum::<f64>() / recent.len() as f64
    }

    fn print_mean(&self, batches: usize, what: &str) -> Result<()> {
        self.print(&format!("{what}: {:.3}", self.recent_mean(batches)))
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
                let (epoch, _) = self.position(self.losses.len());
                let (step, lr) = (self.steps(self.losses.len() + 1), self.lr());
                bail!(
                    "the loss is {loss} in epoch {epoch}, step {step}, {before}; a smaller --lr than {lr} may help, or another --seed"
                )
            }
            self.losses.push(loss);
        }
        Ok(())
    }

    /// The epoch and the loss of each step.
    ///
    /// # Errors
    /// If a loss is not finite.
    pub(crate) fn step_losses(&mut self) -> Result<Vec<(usize, f32)>> {
        self.read()?;
        let mut steps = Vec::new();
        for (i, losses) in self.losses.chunks(self.batches_in_epoch()).enumerate() {
            for (j, group) in losses.chunks(self.trainer.accumulate).enumerate() {
                steps.push((i + 1, self.mean(j * self.trainer.accumulate, group)));
            }
        }
        Ok(steps)
    }

    /// The mean of the losses of some mini-batches, weighted by their numbers of samples. `at` is the position of the first one in
    /// its epoch.
    fn mean(&self, at: usize, losses: &[f32]) -> f32 {
        if let &[loss] = losses {
            return loss;
        }
        let (batch_size, samples) = (self.trainer.batch_size, self.samples());
        let size = |i: usize| batch_size.min(samples - (at + i) * batch_size) as f64;
        let sum = losses.iter().enumerate().map(|(i, &loss)| size(i) * f64::from(loss)).sum::<f64>();
        (sum / (0..losses.len()).map(size).sum::<f64>()) as f32
    }

    pub(crate) fn print(&self, line: &str) -> Result<()> {
        if self.session.options().is_quiet { Ok(()) } else { self.session.ui().print(line) }
    }
}
