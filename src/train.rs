use crate::checkpoint::{self, Plan};
use crate::data::{Draw, Samples, generator};
use crate::interrupt::{self, Interrupted};
use crate::output::Output;
use crate::{Adam, Mlp, Session, plot};
use anyhow::{Result, bail, ensure};
use candle_core::{DType, Tensor};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use std::io::{BufWriter, Write};
use std::time::Instant;

/// How to train: passes in batches, each step by Adam against the gradient of a scalar loss.
///
/// ```
/// use candle_core::{Device, Module, Tensor};
/// use candle_losses::{Activation, Mlp, Training, data::Samples, loss::MseLoss};
/// use rand::{SeedableRng, rngs::StdRng};
///
/// let x = Tensor::new(&[[0f32], [1.0], [2.0], [3.0]], &Device::Cpu)?;
/// let samples = Samples::new(x.clone(), (&x * 2.)?)?;
/// let model = Mlp::new(&[1, 1], Activation::Linear, false, &mut StdRng::seed_from_u64(1), &Device::Cpu)?;
/// let training = Training { epochs: 300, batch_size: 2, lr: 0.05, seed: 1, shuffle: true };
/// training.run(&model, &samples, |x, y| MseLoss::default().forward(&model.forward(x)?, y), |_, _| Ok(()))?;
/// let y = model.forward(&Tensor::new(&[[5f32]], &Device::Cpu)?)?.to_vec2::<f32>()?[0][0];
/// assert!((y - 10.0).abs() < 0.01, "{y}");
/// # Ok::<(), anyhow::Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Training {
    /// Passes over the samples.
    pub epochs: usize,
    /// Samples in a step; the last of a pass has what is left.
    pub batch_size: usize,
    /// Adam's learning rate.
    pub lr: f64,
    /// What the order of the samples is drawn from.
    pub seed: u64,
    /// Whether each pass has an order of its own; else it is that of the samples.
    pub shuffle: bool,
}

impl Training {
    /// Trains `model` on the scalar that `loss` makes of a batch's inputs and targets. `before_step` sees the epoch,
    /// counted from 1, and the loss, and may end the training by an error.
    ///
    /// # Errors
    /// Those of `loss`, of `before_step`, and of the model; a batch size of 0, or a learning rate that is not positive.
    pub fn run(
        &self,
        model: &Mlp,
        samples: &Samples,
        loss: impl Fn(&Tensor, &Tensor) -> candle_core::Result<Tensor>,
        mut before_step: impl FnMut(usize, &Tensor) -> Result<()>,
    ) -> Result<()> {
        let mut position = Position::start(self, model)?;
        self.go_on(samples, loss, &mut position, |_, moment| match moment {
            Moment::Step { epoch, loss } => before_step(epoch, loss),
            Moment::EpochEnd => Ok(()),
        })
    }

    /// The rest of a training from where it is. `observe` may end it by an error.
    fn go_on(
        &self,
        samples: &Samples,
        loss: impl Fn(&Tensor, &Tensor) -> candle_core::Result<Tensor>,
        position: &mut Position,
        mut observe: impl FnMut(&Position, Moment) -> Result<()>,
    ) -> Result<()> {
        ensure!(self.batch_size > 0, "a batch needs a sample or more");
        ensure!(self.lr > 0.0 && self.lr.is_finite(), "the learning rate is {}, not a positive number", self.lr);
        let steps = samples.len().div_ceil(self.batch_size);
        let mut shuffle = generator(self.seed, Draw::Order);
        for epoch in 1..=self.epochs {
            // Also for an epoch that is over, so that the next draws what it would have drawn.
            let order = if self.shuffle { Some(samples.order(&mut shuffle)?) } else { None };
            let done = position.steps.saturating_sub((epoch - 1) * steps);
            if done >= steps {
                continue;
            }
            for start in (0..samples.len()).step_by(self.batch_size).skip(done) {
                let len = self.batch_size.min(samples.len() - start);
                let (inputs, targets) = samples.batch(order.as_ref(), start, len)?;
                let value = loss(&inputs, &targets)?;
                observe(position, Moment::Step { epoch, loss: &value })?;
                position.adam.step(&value.backward()?)?;
                position.steps += 1;
            }
            observe(position, Moment::EpochEnd)?;
        }
        Ok(())
    }
}

/// What changes as a training goes on, besides the model.
pub(crate) struct Position {
    pub adam: Adam,
    /// The steps that were taken.
    pub steps: usize,
}

impl Position {
    pub fn start(training: &Training, model: &Mlp) -> candle_core::Result<Self> {
        Ok(Self { adam: Adam::new(model.variables(), training.lr)?, steps: 0 })
    }
}

enum Moment<'a> {
    /// A step is about to be taken against this loss.
    Step { epoch: usize, loss: &'a Tensor },
    /// An epoch's last step was taken.
    EpochEnd,
}

impl Session {
    /// Trains `model` by Adam on the scalar that `loss` makes of a batch's inputs and targets, prints how it goes, and
    /// writes the files that were asked for. With `--predict` it does nothing: the model is taken as it is.
    ///
    /// # Errors
    /// A loss that is not finite ends the run with an error before its step is taken (on a GPU, before the next line is
    /// printed), and leaves older files as they were, the last checkpoint among them. Ctrl-C ends it after the step, with
    /// the files as of then.
    pub fn fit(&self, model: &Mlp, loss: impl Fn(&Tensor, &Tensor) -> candle_core::Result<Tensor>) -> Result<()> {
        if self.predict.is_some() {
            return Ok(());
        }
        let files = Files::create(self)?;
        let training = self.training();
        // What it is compared with only has to be read where there is something to compare.
        let plan = match (&self.args.checkpoint, &self.args.resume) {
            (None, None) => None,
            _ => Some(Plan::new(&training, &self.train)?),
        };
        if let Some(path) = &self.args.checkpoint {
            // Tells at once if it can't be written.
            Output::create(path)?;
        }
        let mut position = Position::start(&training, model)?;
        let mut journal = Journal::new(self);
        if let (Some(path), Some(plan)) = (&self.args.resume, &plan) {
            journal.go_on_from(&checkpoint::read(path, plan, model, &mut position)?);
            let epochs = position.steps / self.steps_in_epoch();
            ensure!(epochs < training.epochs, "{} is {epochs} epochs on already: more --epochs?", path.display());
        }
        let keep = |position: &Position, journal: &mut Journal| match (&self.args.checkpoint, &plan) {
            (Some(path), Some(plan)) => checkpoint::write(path, plan, model, &position.adam, &journal.losses()?),
            _ => Ok(()),
        };
        let listening = interrupt::listen();
        let (start, before) = (Instant::now(), position.steps);
        let trained = training.go_on(&self.train, loss, &mut position, |position, moment| match moment {
            Moment::Step { .. } if interrupt::is_asked() => Err(Interrupted.into()),
            Moment::Step { epoch, loss } => journal.record(epoch, loss),
            Moment::EpochEnd => {
                // No loss was made of the last step's weights.
                ensure!(
                    model.is_finite()?,
                    "the weights are no numbers any more after epoch {}; a smaller --lr than {} may help",
                    position.steps / self.steps_in_epoch(),
                    self.args.lr
                );
                keep(position, &mut journal)
            }
        });
        drop(listening);
        let interrupted = trained.as_ref().is_err_and(|error| error.is::<Interrupted>());
        if !interrupted {
            trained?;
        }
        let kept = if interrupted { keep(&position, &mut journal) } else { Ok(()) };
        let steps = journal.finish(interrupted)?;
        let _ = self.trained.set((position.steps - before, start.elapsed()));
        files.write(self, model, &steps)?;
        kept?;
        if interrupted {
            let files = self.files().map_or("no file was asked for".to_owned(), |files| format!("wrote {files}"));
            eprintln!("Interrupted after {} steps; {files}.", position.steps);
            return Err(Interrupted.into());
        }
        Ok(())
    }

    fn training(&self) -> Training {
        let args = &self.args;
        Training {
            epochs: args.epochs,
            batch_size: self.batch_size,
            lr: args.lr,
            seed: args.seed,
            shuffle: !args.no_shuffle,
        }
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
        let steps = session.args.epochs.saturating_mul(session.steps_in_epoch());
        // indicatif shows nothing where stderr is not a terminal.
        let target = if session.args.no_progress { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let style = "{bar:30.cyan/dim} {pos}/{len} steps, {rate}/s, {eta} left{msg}";
        let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
        let rate = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
            let _ = write!(out, "{:.0}", state.per_sec());
        };
        let bar = ProgressBar::with_draw_target(Some(steps as u64), target).with_style(style.with_key("rate", rate));
        Self { session, steps: Vec::new(), unread: Vec::new(), epoch: 0, epoch_start: 0, bar }
    }

    /// Takes over the losses of a training that is gone on with.
    fn go_on_from(&mut self, losses: &[f32]) {
        let in_epoch = self.session.steps_in_epoch();
        self.steps.extend(losses.iter().enumerate().map(|(i, &loss)| Step { epoch: i / in_epoch + 1, loss }));
        self.bar.set_position(losses.len() as u64);
    }

    fn losses(&mut self) -> Result<Vec<f32>> {
        self.read()?;
        Ok(self.steps.iter().map(|step| step.loss).collect())
    }

    fn start(&mut self, epoch: usize) -> Result<()> {
        self.read()?;
        (self.epoch, self.epoch_start) = (epoch, (epoch - 1) * self.session.steps_in_epoch());
        self.print(&format!("Starting epoch {epoch}"))
    }

    fn record(&mut self, epoch: usize, loss: &Tensor) -> Result<()> {
        if epoch != self.epoch {
            self.start(epoch)?;
        }
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
                let before = match self.steps.last() {
                    Some(step) => format!("after {}", step.loss),
                    None => "from the start".to_owned(),
                };
                bail!(
                    "the loss is {loss} in epoch {}, step {}, {before}; a smaller --lr than {} may help, or another --seed",
                    self.epoch,
                    self.steps.len() + 1,
                    self.session.args.lr
                )
            }
            self.steps.push(Step { epoch: self.epoch, loss });
        }
        Ok(())
    }

    fn finish(mut self, interrupted: bool) -> Result<Vec<Step>> {
        self.read()?;
        self.bar.finish_and_clear();
        if !interrupted {
            self.print("Training process has finished.")?;
        }
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

    fn write(self, session: &Session, model: &Mlp, steps: &[Step]) -> Result<()> {
        if let Some(save) = self.save {
            save.write(&model.bytes(session.encoding.as_ref())?)?;
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
        if let Some(plot) = self.plot {
            let losses = steps.iter().map(|step| f64::from(step.loss)).collect::<Vec<_>>();
            plot.write(plot::training_curve("Loss of each training step", &losses)?.as_bytes())?;
        }
        Ok(())
    }
}
