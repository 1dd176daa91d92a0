use super::batch_loss::BatchLoss;
use super::gradients::Gradients;
use super::progress::Progress;
use crate::data::{Draw, TensorDataset, generator};
use candle_core::{Error, Result, Tensor, bail};
use candle_nn::Optimizer;
use rand::seq::SliceRandom;
use std::ops::ControlFlow;

/// A training loop: iterates over a dataset in mini-batches, and minimizes a scalar loss with an optimizer.
///
/// The model is whatever `loss` computes on a batch, and the optimizer holds its variables: any Candle model, with its
/// parameters in [`Parameters`](crate::Parameters) or a `candle_nn::VarMap`, and any `candle_nn::Optimizer`.
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
    /// Passes over the samples. Default: 5.
    pub epochs: usize,
    /// Samples in a mini-batch; the last mini-batch of an epoch has the rest. Default: 64.
    pub batch_size: usize,
    /// Seed of the order of the samples. Default: 42.
    pub seed: u64,
    /// Whether each epoch has its own random order; otherwise it is the order of the dataset. Default: true.
    pub shuffle: bool,
    /// Mini-batches per step of the optimizer. The step takes the mean of their gradients, weighted by [`BatchLoss`], so that a loss
    /// that is a mean steps as on one batch of all their samples. Default: 1.
    pub accumulate: usize,
    /// Maximum norm of the gradients of a step; larger gradients are scaled down as by
    /// [`clip_grad_norm`](crate::clip_grad_norm), without waiting for the device. The norm is over the variables of an [`Adam`].
    /// Other optimizers do not say which variables they have, so with them it is over all variables that the loss depends on.
    /// Default: `None`, no clipping.
    pub clip_norm: Option<f64>,
    /// Whether to leave out the last mini-batch of an epoch if it has fewer than `batch_size` samples. Set it for a model with a
    /// `BatchNorm`, whose running variance becomes NaN on a batch of one sample. Default: false.
    pub drop_last: bool,
    /// Factor of the loss in backward, for models in `f16`, whose small gradients are otherwise rounded to 0. The gradients are
    /// divided by it before clipping. A step whose gradients are not finite is skipped and reported as [`Event::SkippedStep`]; to
    /// find out, the host waits for the device at each step. 1024 is a good start, and with a loss in `f16` the limit is 32768.
    /// Default: `None`, which is 1 without the check.
    pub loss_scale: Option<f64>,
    /// Steps completed by an earlier run, to skip when resuming. The remaining steps see the same batches as in an uninterrupted
    /// run. Default: 0.
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
        /// The weight of the mini-batch: what the mean of the loss divided by, or the number of samples ([`BatchLoss`]). A mini-batch
        /// of weight 0, such as one of padding alone, changes nothing, and its loss may be NaN.
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

/// The reason of an [`Event::SkippedStep`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SkipReason {
    /// The mini-batches have the weight 0: they are padding, or all of their targets are ignored.
    NoWeight,
    /// A gradient is not finite; [`Trainer::loss_scale`] is too large for it.
    NotFinite,
}

impl Trainer {
    /// Trains the variables of `optimizer` on the scalar that `loss` computes from the inputs and targets of a batch.
    ///
    /// `loss` returns a tensor, or a tensor and what its mean divided by: see [`BatchLoss`].
    ///
    /// # Errors
    /// Those of `loss` and of the optimizer; an option out of range; no batch to train on; a loss that is not a scalar or does not
    /// depend on a variable of the optimizer; variables that are not finite after an epoch.
    pub fn fit<O: Optimizer + 'static, L: Into<BatchLoss>>(
        &self,
        optimizer: &mut O,
        dataset: &TensorDataset,
        loss: impl FnMut(&Tensor, &Tensor) -> Result<L>,
    ) -> Result<()> {
        self.fit_with(optimizer, dataset, loss, |_, _| Ok::<_, Error>(ControlFlow::Continue(())))
    }

    /// Trains like [`fit`](Self::fit), and calls `observe` with the optimizer at each batch, step and epoch.
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
    /// Those of [`fit`](Self::fit) and of `observe`.
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

    /// Trains like [`fit_with`](Self::fit_with) on data of any kind: `loss` gets the numbers of the rows of a batch, out of
    /// `0..rows`, and loads or computes the batch itself. Use it for data larger than the memory of the device, for models with
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
    /// let loss = |rows: &[u32]| {
    ///     let column = |i: usize| Tensor::from_iter(rows.iter().map(|&row| file[row as usize][i]), &Device::Cpu);
    ///     MseLoss::default().forward(&column(0)?.broadcast_mul(&weight)?, &column(1)?)
    /// };
    /// let trainer = Trainer { epochs: 20, batch_size: 10, ..Default::default() };
    /// trainer.fit_rows(&mut sgd, file.len(), loss, |_, _| Ok::<_, Error>(ControlFlow::Continue(())))?;
    /// assert!((weight.to_scalar::<f32>()? - 3.0).abs() < 1e-3);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`fit`](Self::fit) and of `observe`, and more than 2³² rows.
    pub fn fit_rows<O: Optimizer + 'static, L: Into<BatchLoss>, E: From<Error>>(
        &self,
        optimizer: &mut O,
        rows: usize,
        mut loss: impl FnMut(&[u32]) -> Result<L>,
        mut observe: impl FnMut(&mut O, Event) -> std::result::Result<ControlFlow<()>, E>,
    ) -> std::result::Result<(), E> {
        self.check(rows)?;
        let mut progress = Progress::new(optimizer);
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
                    gradients.add(&value, weight, progress.variables(&value))?;
                }
                completed_steps += 1;
                let event = match gradients.average(self.clip_norm, progress.is_adam())? {
                    Ok(grads) => {
                        progress.step(optimizer, &grads)?;
                        Event::Step { epoch, completed_steps }
                    }
                    Err(reason) => {
                        progress.skip(reason);
                        Event::SkippedStep { epoch, completed_steps, reason }
                    }
                };
                if observe(optimizer, event)?.is_break() {
                    return Ok(());
                }
            }
            progress.end_epoch(epoch, optimizer.learning_rate())?;
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
            bail!("Trainer: with drop_last no batch is left of {rows} samples and a batch_size of {batch_size}")
        }
        if u32::try_from(rows - 1).is_err() {
            bail!("Trainer: there are {rows} samples, but row numbers are u32")
        }
        Ok(())
    }
}
