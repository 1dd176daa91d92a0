use super::batch_loss::BatchLoss;
use super::gradients::Gradients;
use super::monitor::Monitor;
use crate::data::{Draw, TensorDataset, generator};
use candle_core::{Error, Result, Tensor, bail};
use candle_nn::Optimizer;
use rand::seq::SliceRandom;
use std::ops::ControlFlow;

/// A training loop: iterates over a dataset in mini-batches, and minimizes a scalar loss with an optimizer.
///
/// The closure `loss` runs the model and computes the loss of a batch; the optimizer holds the variables. This works for any Candle
/// model, with its variables in [`Parameters`](crate::Parameters) or a `candle_nn::VarMap`, and for any `candle_nn::Optimizer`.
///
/// ```
/// use candle_core::{DType, Device, Module, Tensor};
/// use candle_losses::{Adam, Parameters, ParamsAdam, Trainer, data::TensorDataset, loss::MseLoss};
/// use candle_nn::Optimizer;
///
/// let x = Tensor::new(&[[0f32], [1.0], [2.0], [3.0]], &Device::Cpu)?;
/// let samples = TensorDataset::new(x.clone(), (&x * 2.)?)?;
/// let parameters = Parameters::seeded(1);
/// let model = candle_nn::linear(1, 1, parameters.var_builder(DType::F32, &Device::Cpu))?;
/// let mut adam = Adam::new(parameters.trainable_vars(), ParamsAdam { lr: 0.05, ..Default::default() })?;
/// Trainer { epochs: 300, batch_size: 2, ..Default::default() }
///     .fit(&mut adam, &samples, |x, y| MseLoss::default().forward(&model.forward(x)?, y))?;
/// let y = model.forward(&Tensor::new(&[[5f32]], &Device::Cpu)?)?.to_vec2::<f32>()?[0][0];
/// assert!((y - 10.0).abs() < 0.01, "{y}");
/// # Ok::<(), candle_core::Error>(())
/// ```
#[doc = include_str!("recipes.md")]
#[derive(Debug, Clone, PartialEq)]
pub struct Trainer {
    /// Total number of passes over the samples, including the passes of an earlier run that is resumed. Default: 5.
    pub epochs: usize,
    /// Samples in a mini-batch; the last mini-batch of an epoch has the rest. Default: 64.
    pub batch_size: usize,
    /// Seed of the order of the samples. Default: 42.
    pub seed: u64,
    /// Whether to shuffle the samples anew for each epoch. If false, each epoch has the order of the dataset. Default: true.
    pub shuffle: bool,
    /// Number of mini-batches per optimizer step (gradient accumulation). Their gradients are averaged by the weights of
    /// [`BatchLoss`], so for a mean loss the step equals a step on one batch of all their samples. Default: 1.
    pub accumulate: usize,
    /// Maximum norm of the gradients of a step; larger gradients are scaled down as by
    /// [`clip_grad_norm`](crate::clip_grad_norm), without waiting for the device. With [`Adam`](crate::Adam) the norm covers the
    /// variables of the optimizer. Other optimizers do not expose their variables, so the norm covers all variables that the loss
    /// depends on. Default: `None`, no clipping.
    pub clip_norm: Option<f64>,
    /// Whether to drop the last mini-batch of an epoch if it has fewer than `batch_size` samples. Set it for a model with a
    /// `BatchNorm` on vectors, whose running variance becomes NaN on a batch of one sample. Default: false.
    pub drop_last: bool,
    /// Loss scale for models in `f16`, whose small gradients would otherwise be rounded to 0: the loss is multiplied by this factor
    /// before `backward`, and the gradients are divided by it before clipping. A step with a gradient that is not finite is skipped
    /// and reported as [`Event::SkippedStep`]; for this check the host waits for the device at each step. Start with 1024. If the
    /// loss itself is `f16`, use at most 32768, so that the factor fits in `f16`. Default: `None`, no scaling and no check.
    ///
    /// Source: Micikevicius et al., [Mixed precision training](https://arxiv.org/abs/1710.03740), 2018.
    pub loss_scale: Option<f64>,
    /// Number of steps, skipped steps included, that an earlier run completed. They are left out: with the same data, `seed`,
    /// `shuffle`, `batch_size`, `accumulate` and `drop_last`, the other steps get the batches of an uninterrupted run. The events of
    /// these steps and of complete epochs are not repeated. Default: 0.
    pub completed_steps: usize,
}

impl Default for Trainer {
    fn default() -> Self {
        Self {
            epochs: 5,
            batch_size: 64,
            seed: 42,
            shuffle: true,
            accumulate: 1,
            clip_norm: None,
            drop_last: false,
            loss_scale: None,
            completed_steps: 0,
        }
    }
}

/// An event that [`Trainer::fit_with`] reports to its observer.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The loss of a mini-batch was computed; its gradient has not been applied.
    #[non_exhaustive]
    Batch {
        /// The epoch, counted from 1.
        epoch: usize,
        /// The number of samples in the mini-batch.
        samples: usize,
        /// The weight of the mini-batch: the denominator that the closure returned, or else the number of samples (see
        /// [`BatchLoss`]). A mini-batch of weight 0, for example only padding, has no effect, and its loss may be NaN.
        weight: f64,
        /// The loss, a scalar in the graph. Detach it before you store it.
        loss: &'a Tensor,
    },
    /// The optimizer has taken a step.
    #[non_exhaustive]
    Step {
        /// The epoch, counted from 1.
        epoch: usize,
        /// Steps completed so far, including those of earlier runs.
        completed_steps: usize,
    },
    /// A step was skipped: the optimizer and the variables are as before.
    #[non_exhaustive]
    SkippedStep {
        /// The epoch, counted from 1.
        epoch: usize,
        /// Steps completed so far, including those of earlier runs and this one.
        completed_steps: usize,
        /// Why it was skipped.
        reason: SkipReason,
    },
    /// An epoch is complete.
    #[non_exhaustive]
    Epoch {
        /// The epoch, counted from 1.
        epoch: usize,
        /// Steps completed so far, including those of earlier runs.
        completed_steps: usize,
    },
}

/// The reason why a step was skipped, in [`Event::SkippedStep`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SkipReason {
    /// All mini-batches of the step have weight 0, because all their targets are padding or ignored.
    ZeroWeight,
    /// A gradient is infinite or NaN. If this happens often, choose a smaller [`Trainer::loss_scale`]. Reported only if it is set.
    NonFiniteGradient,
}

impl Trainer {
    /// Trains the variables of `optimizer` on the scalar that `loss` computes from the inputs and targets of a batch.
    ///
    /// `loss` returns the loss, or a pair of the loss and the denominator of its mean: see [`BatchLoss`].
    ///
    /// # Errors
    /// If `loss` or the optimizer fails; if an option is out of range; if there is no batch to train on, or there are more samples
    /// than a `u32` can count; if the loss is not a float scalar, its denominator is negative or not finite, or it depends on no
    /// variable of the optimizer; or if an epoch changes no variable although there are gradients, skips all its steps, or ends
    /// with variables that are not finite.
    pub fn fit<O: Optimizer + 'static, L: Into<BatchLoss>>(
        &self,
        optimizer: &mut O,
        dataset: &TensorDataset,
        loss: impl FnMut(&Tensor, &Tensor) -> Result<L>,
    ) -> Result<()> {
        self.fit_with(optimizer, dataset, loss, |_, _| Ok::<_, Error>(ControlFlow::Continue(())))
    }

    /// Trains like [`fit`](Self::fit), and calls `observe` with the optimizer after each batch, step, skipped step and epoch.
    /// `ControlFlow::Break` ends training successfully; an error ends it with that error.
    ///
    /// A schedule sets the learning rate of the next step. This one warms up for 10 steps, then follows a cosine to 0:
    ///
    /// ```
    /// use candle_core::{DType, Device, Error, Tensor, Var};
    /// use candle_losses::{Event, Trainer, data::TensorDataset, loss::MseLoss};
    /// use candle_nn::{Optimizer, SGD};
    /// use std::ops::ControlFlow;
    ///
    /// let ones = Tensor::ones((60, 1), DType::F32, &Device::Cpu)?;
    /// let dataset = TensorDataset::new(ones.clone(), ones)?;
    /// let weight = Var::new(&[[0f32]], &Device::Cpu)?;
    /// let (warmup, steps, peak) = (10.0, 60.0, 0.1);
    /// let schedule = |step: f64| match step {
    ///     step if step < warmup => peak * (step + 1.0) / warmup,
    ///     step => peak * 0.5 * (1.0 + (std::f64::consts::PI * (step - warmup) / (steps - warmup)).cos()),
    /// };
    /// let mut sgd = SGD::new(vec![weight.clone()], schedule(0.0))?;
    /// let mut rates = vec![sgd.learning_rate()];
    /// let loss = |x: &Tensor, y: &Tensor| MseLoss::default().forward(&x.matmul(&weight)?, y);
    /// Trainer { epochs: 2, batch_size: 2, ..Default::default() }.fit_with(&mut sgd, &dataset, loss, |sgd, event| {
    ///     if let Event::Step { completed_steps, .. } = event {
    ///         sgd.set_learning_rate(schedule(completed_steps as f64));
    ///         rates.push(sgd.learning_rate());
    ///     }
    ///     Ok::<_, Error>(ControlFlow::Continue(()))
    /// })?;
    /// assert!(rates[0] == 0.01 && rates[9] == 0.1 && rates[35] == 0.05 && rates[60] < 1e-9);
    /// assert!((weight.to_vec2::<f32>()?[0][0] - 1.0).abs() < 0.01);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// This one halves the learning rate after each epoch that does not lower the validation loss, and stops once the rate is below
    /// 1e-4:
    ///
    /// ```
    /// # use candle_core::{DType, Device, Error, Tensor, Var};
    /// # use candle_losses::{Event, Trainer, data::TensorDataset, evaluate, loss::L1Loss};
    /// # use candle_nn::{Optimizer, SGD};
    /// # use std::ops::ControlFlow;
    /// # let ones = Tensor::ones((6, 1), DType::F32, &Device::Cpu)?;
    /// # let dataset = TensorDataset::new(ones.clone(), ones)?;
    /// # let validation = dataset.clone();
    /// # let weight = Var::new(&[[0f32]], &Device::Cpu)?;
    /// # let mut sgd = SGD::new(vec![weight.clone()], 0.3)?;
    /// let loss = |x: &Tensor, y: &Tensor| L1Loss::default().forward(&x.matmul(&weight)?, y);
    /// let mut best = f64::INFINITY;
    /// Trainer { epochs: 100, batch_size: 2, ..Default::default() }.fit_with(&mut sgd, &dataset, loss, |sgd, event| {
    ///     if let Event::Epoch { .. } = event {
    ///         let current = evaluate(&validation, 64, loss)?;
    ///         if current >= best {
    ///             sgd.set_learning_rate(sgd.learning_rate() / 2.0);
    ///         }
    ///         best = best.min(current);
    ///     }
    ///     Ok::<_, Error>(if sgd.learning_rate() < 1e-4 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    /// })?;
    /// assert!(best < 1e-3, "{best}");
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// If [`fit`](Self::fit) would fail, or `observe` returns an error.
    pub fn fit_with<O: Optimizer + 'static, L: Into<BatchLoss>, E: From<Error>>(
        &self,
        optimizer: &mut O,
        dataset: &TensorDataset,
        mut loss: impl FnMut(&Tensor, &Tensor) -> Result<L>,
        observe: impl FnMut(&mut O, Event) -> std::result::Result<ControlFlow<()>, E>,
    ) -> std::result::Result<(), E> {
        let loss = |rows: &[u32]| {
            let (inputs, targets) = dataset.select(rows)?;
            loss(&inputs, &targets)
        };
        self.fit_rows(optimizer, dataset.len(), loss, observe)
    }

    /// Trains like [`fit_with`](Self::fit_with), on data of any kind: `loss` gets the row indices of a batch, each less than
    /// `rows`, and loads or computes the batch itself. Use it for data larger than the memory of the device, for models with
    /// several inputs, and for augmentation.
    ///
    /// ```
    /// use candle_core::{Device, Error, Tensor, Var};
    /// use candle_losses::{Trainer, loss::MseLoss};
    /// use candle_nn::{Optimizer, SGD};
    /// use std::ops::ControlFlow;
    ///
    /// // Stands for a file on disk: only the rows of a batch become tensors.
    /// let file = (0..100).map(|i| [i as f32 / 100.0, 3.0 * i as f32 / 100.0]).collect::<Vec<_>>();
    /// let weight = Var::new(0f32, &Device::Cpu)?;
    /// let mut sgd = SGD::new(vec![weight.clone()], 0.5)?;
    /// let loss = |indices: &[u32]| {
    ///     let column = |i: usize| Tensor::from_iter(indices.iter().map(|&row| file[row as usize][i]), &Device::Cpu);
    ///     MseLoss::default().forward(&column(0)?.broadcast_mul(&weight)?, &column(1)?)
    /// };
    /// let trainer = Trainer { epochs: 20, batch_size: 10, ..Default::default() };
    /// trainer.fit_rows(&mut sgd, file.len(), loss, |_, _| Ok::<_, Error>(ControlFlow::Continue(())))?;
    /// assert!((weight.to_scalar::<f32>()? - 3.0).abs() < 1e-3);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// The errors of [`fit_with`](Self::fit_with).
    pub fn fit_rows<O: Optimizer + 'static, L: Into<BatchLoss>, E: From<Error>>(
        &self,
        optimizer: &mut O,
        rows: usize,
        mut loss: impl FnMut(&[u32]) -> Result<L>,
        mut observe: impl FnMut(&mut O, Event) -> std::result::Result<ControlFlow<()>, E>,
    ) -> std::result::Result<(), E> {
        self.check(rows)?;
        let mut monitor = Monitor::new(optimizer);
        let mut rng = generator(self.seed, Draw::Order);
        let mut completed_steps = 0;
        for epoch in 1..=self.epochs {
            let mut order = (0..rows as u32).collect::<Vec<_>>();
            if self.shuffle {
                // Also for an epoch that is skipped, so that the next one draws what it would have drawn.
                order.shuffle(&mut rng);
            }
            let batches =
                order.chunks(self.batch_size).filter(|batch| !self.drop_last || batch.len() == self.batch_size);
            let batches = batches.collect::<Vec<_>>();
            let steps = batches.len().div_ceil(self.accumulate);
            let skipped = self.completed_steps.saturating_sub(completed_steps).min(steps);
            completed_steps += skipped;
            if skipped == steps {
                continue;
            }
            for group in batches.chunks(self.accumulate).skip(skipped) {
                let mut gradients = Gradients::new(self.loss_scale);
                for batch in group {
                    let (value, weight) = loss(batch)?.into().checked("Trainer", batch.len())?;
                    if observe(optimizer, Event::Batch { epoch, samples: batch.len(), weight, loss: &value })?
                        .is_break()
                    {
                        return Ok(());
                    }
                    gradients.add(&value, weight, &monitor.variables(&value))?;
                }
                completed_steps += 1;
                let event = match gradients.average(self.clip_norm, monitor.is_adam())? {
                    Ok(grads) => {
                        monitor.step(optimizer, &grads)?;
                        Event::Step { epoch, completed_steps }
                    }
                    Err(reason) => {
                        monitor.skip(reason);
                        Event::SkippedStep { epoch, completed_steps, reason }
                    }
                };
                if observe(optimizer, event)?.is_break() {
                    return Ok(());
                }
            }
            monitor.end_epoch(epoch, optimizer.learning_rate(), skipped == 0)?;
            if observe(optimizer, Event::Epoch { epoch, completed_steps })?.is_break() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn check(&self, rows: usize) -> Result<()> {
        let &Self { batch_size, accumulate, clip_norm, loss_scale, drop_last, .. } = self;
        if batch_size == 0 || accumulate == 0 {
            bail!("Trainer: batch_size is {batch_size} and accumulate {accumulate}; both must be 1 or more")
        }
        let is_positive = |x: f64| x > 0.0 && x.is_finite();
        if let Some(norm) = clip_norm.filter(|norm| norm.is_nan() || *norm <= 0.0) {
            bail!("Trainer: clip_norm is {norm} but must be positive")
        }
        if let Some(scale) = loss_scale.filter(|scale| !is_positive(*scale)) {
            bail!("Trainer: loss_scale is {scale} but must be positive and finite")
        }
        if rows == 0 {
            bail!("Trainer: there are no samples to train on")
        }
        if drop_last && rows < batch_size {
            bail!("Trainer: drop_last leaves no batch: there are {rows} samples but batch_size is {batch_size}")
        }
        if u32::try_from(rows).is_err() {
            bail!("Trainer: there are {rows} samples, but a u32 must count them")
        }
        Ok(())
    }
}
