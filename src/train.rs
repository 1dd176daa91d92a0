use crate::data::{Draw, generator};
use crate::output::Output;
use crate::{Adam, Mlp, Session, plot};
use anyhow::{Result, bail};
use candle_core::{DType, Tensor};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use rand::seq::SliceRandom;
use std::io::{BufWriter, Write};

impl Session {
    /// Trains `model` by Adam on the scalar that `loss` makes of a batch's inputs and targets, prints how it goes, and
    /// writes the files that were asked for.
    ///
    /// A loss that is not finite ends the run with an error before its step is taken (on a GPU, before the next line is
    /// printed), and leaves older files as they were.
    pub fn fit(&self, model: &Mlp, loss: impl Fn(&Tensor, &Tensor) -> candle_core::Result<Tensor>) -> Result<()> {
        let files = Files::create(self)?;
        let mut adam = Adam::new(model.variables(), self.args.lr)?;
        let mut shuffle = generator(self.args.seed, Draw::Order);
        let mut journal = Journal::new(self);
        for epoch in 1..=self.args.epochs {
            journal.start(epoch)?;
            let order = if self.args.no_shuffle { None } else { Some(self.order(&mut shuffle)?) };
            for start in (0..self.train.len()).step_by(self.batch_size) {
                let len = self.batch_size.min(self.train.len() - start);
                let (inputs, targets) = self.train.batch(order.as_ref(), start, len)?;
                let value = loss(&inputs, &targets)?;
                journal.record(&value)?;
                adam.step(&value.backward()?)?;
            }
        }
        let steps = journal.finish()?;
        files.write(model, &steps)
    }

    /// The training samples' numbers, shuffled.
    fn order(&self, shuffle: &mut impl rand::Rng) -> candle_core::Result<Tensor> {
        let mut order = (0..self.train.len() as u32).collect::<Vec<_>>();
        order.shuffle(shuffle);
        Tensor::from_vec(order, self.train.len(), &self.device)
    }
}

/// The loss of one optimizer step.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    pub epoch: usize,
    pub loss: f32,
}

/// Keeps the losses and says how the training goes: lines on stdout, a bar on stderr.
struct Journal<'a> {
    session: &'a Session,
    steps: Vec<Step>,
    /// Losses that are still on the device. Reading one makes the host wait for it, so on a GPU they are read together.
    unread: Vec<Tensor>,
    epoch: usize,
    /// The number of steps before this epoch.
    epoch_start: usize,
    bar: ProgressBar,
}

impl<'a> Journal<'a> {
    fn new(session: &'a Session) -> Self {
        let steps = session.args.epochs * session.train.len().div_ceil(session.batch_size);
        // indicatif shows nothing where stderr is not a terminal.
        let target = if session.args.no_progress { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let style = "{bar:30} {pos}/{len} steps, {per_sec}, {eta} left{msg}";
        let bar = ProgressBar::with_draw_target(Some(steps as u64), target)
            .with_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self { session, steps: Vec::with_capacity(steps), unread: Vec::new(), epoch: 0, epoch_start: 0, bar }
    }

    fn start(&mut self, epoch: usize) -> Result<()> {
        self.read()?;
        (self.epoch, self.epoch_start) = (epoch, self.steps.len());
        self.print(&format!("Starting epoch {epoch}"))
    }

    fn record(&mut self, loss: &Tensor) -> Result<()> {
        self.unread.push(loss.detach());
        self.bar.inc(1);
        let step = self.steps.len() + self.unread.len() - self.epoch_start;
        let at_line = step.is_multiple_of(self.session.print_every);
        if at_line || self.session.device.is_cpu() {
            self.read()?;
        }
        if at_line {
            let recent = &self.steps[self.steps.len() - self.session.print_every..];
            let mean = recent.iter().map(|step| f64::from(step.loss)).sum::<f64>() / recent.len() as f64;
            self.bar.set_message(format!(", loss {mean:.3}"));
            self.print(&format!("Loss after mini-batch {step:>5}: {mean:.3}"))?;
        }
        Ok(())
    }

    fn read(&mut self) -> Result<()> {
        if self.unread.is_empty() {
            return Ok(());
        }
        let losses = Tensor::stack(&self.unread, 0)?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
        self.unread.clear();
        for loss in losses {
            if !loss.is_finite() {
                bail!(
                    "the loss is {loss} in epoch {}, step {}; a smaller --lr than {} may help, or another --seed",
                    self.epoch,
                    self.steps.len() + 1,
                    self.session.args.lr
                )
            }
            self.steps.push(Step { epoch: self.epoch, loss });
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<Step>> {
        self.read()?;
        self.bar.finish_and_clear();
        self.print("Training process has finished.")?;
        Ok(std::mem::take(&mut self.steps))
    }

    fn print(&self, line: &str) -> Result<()> {
        Ok(self.bar.suspend(|| writeln!(std::io::stdout(), "{line}"))?)
    }
}

impl Drop for Journal<'_> {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

/// The files that a run was asked to leave.
struct Files {
    save: Option<Output>,
    log: Option<Output>,
    plot: Option<Output>,
}

impl Files {
    fn create(session: &Session) -> Result<Self> {
        let create = |path: &Option<_>| path.as_deref().map(Output::create).transpose();
        let args = &session.args;
        Ok(Self { save: create(&args.save)?, log: create(&args.log)?, plot: create(&args.plot)? })
    }

    fn write(self, model: &Mlp, steps: &[Step]) -> Result<()> {
        if let Some(save) = self.save {
            model.save(save.path())?;
            save.commit()?;
        }
        if let Some(mut log) = self.log {
            let mut file = BufWriter::new(log.file());
            writeln!(file, "step,epoch,loss")?;
            for (i, step) in steps.iter().enumerate() {
                writeln!(file, "{},{},{}", i + 1, step.epoch, step.loss)?;
            }
            file.flush()?;
            drop(file);
            log.commit()?;
        }
        if let Some(mut plot) = self.plot {
            plot.file().write_all(plot::training_curve(steps)?.as_bytes())?;
            plot.commit()?;
        }
        Ok(())
    }
}
