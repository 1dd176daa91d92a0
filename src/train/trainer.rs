use crate::data::{Draw, TensorDataset, generator};
use crate::nn::clip;
use candle_core::backprop::GradStore;
use candle_core::{Error, Result, Tensor, TensorId, bail};
use candle_nn::Optimizer;
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
#[derive(Debug, Clone, PartialEq)]
pub struct Trainer {
    /// Passes over the samples. Default 5.
    pub epochs: usize,
    /// Samples in a mini-batch; the last mini-batch of an epoch has the rest. Default 64.
    pub batch_size: usize,
    /// Decides the order of the samples. Default 42.
    pub seed: u64,
    /// Whether each epoch has its own random order; otherwise it is the order of the dataset. Default true.
    pub shuffle: bool,
    /// Mini-batches per step of the optimizer. The step takes the mean of their gradients, weighted by their numbers of samples, so
    /// that a loss that is a mean steps as it would on one batch of all of them. Default 1.
    pub accumulate: usize,
    /// Maximum norm of the gradients of a step, over all variables in the loss; larger gradients are scaled down
    /// ([`clip_grad_norm`](crate::clip_grad_norm)). `None` disables clipping. Default `None`.
    pub clip_norm: Option<f64>,
    /// Steps already taken by an earlier run, to skip when resuming. The remaining steps see the same batches as in an
    /// uninterrupted run. Default 0.
    pub completed_steps: usize,
}

impl Default for Trainer {
    fn default() -> Self {
        Self { epochs: 5, batch_size: 64, seed: 42, shuffle: true, accumulate: 1, clip_norm: None, completed_steps: 0 }
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
        /// The loss, a scalar in the graph. Detach it before you store it.
        loss: &'a Tensor,
    },
    /// The optimizer has taken a step.
    #[non_exhaustive]
    Step {
        /// The epoch, counted from 1.
        epoch: usize,
        /// Steps completed so far, skipped ones included.
        completed_steps: usize,
    },
    /// An epoch is complete.
    #[non_exhaustive]
    Epoch {
        /// The epoch, counted from 1.
        epoch: usize,
        /// Steps completed so far, skipped ones included.
        completed_steps: usize,
    },
}

impl Trainer {
    /// Trains the variables of `optimizer` on the scalar that `loss` computes from the inputs and targets of a batch.
    ///
    /// # Errors
    /// Those of `loss` and of the optimizer; a loss that is not a scalar or does not depend on a variable; a `batch_size` or
    /// `accumulate` of 0; a `clip_norm` that is not positive.
    pub fn fit<O: Optimizer>(
        &self,
        optimizer: &mut O,
        dataset: &TensorDataset,
        loss: impl FnMut(&Tensor, &Tensor) -> Result<Tensor>,
    ) -> Result<()> {
        self.fit_with(optimizer, dataset, loss, |_, _| Ok::<_, Error>(ControlFlow::Continue(())))
    }

    /// Trains like [`fit`](Self::fit), and calls `observe` with the optimizer at each batch, step and epoch.
    /// `ControlFlow::Break` ends training successfully; an error ends it with that error.
    ///
    /// ```
    /// use candle_core::{DType, Device, Error, Tensor, Var};
    /// use candle_losses::{Event, Trainer, data::TensorDataset, loss::MseLoss};
    /// use candle_nn::{Optimizer, SGD};
    /// use std::ops::ControlFlow;
    ///
    /// let ones = Tensor::ones((6, 1), DType::F32, &Device::Cpu)?;
    /// let dataset = TensorDataset::new(ones.clone(), ones)?;
    /// let weight = Var::new(&[[0f32]], &Device::Cpu)?;
    /// let mut sgd = SGD::new(vec![weight.clone()], 0.1)?;
    /// let mut losses = Vec::new();
    /// let loss = |x: &Tensor, y: &Tensor| MseLoss::default().forward(&x.matmul(&weight)?, y);
    /// Trainer { epochs: 2, batch_size: 2, ..Default::default() }.fit_with(&mut sgd, &dataset, loss, |sgd, event| {
    ///     match event {
    ///         Event::Batch { loss, .. } => losses.push(loss.to_scalar::<f32>()?),
    ///         Event::Epoch { .. } => sgd.set_learning_rate(sgd.learning_rate() / 2.),
    ///         _ => {}
    ///     }
    ///     Ok::<_, Error>(ControlFlow::Continue(()))
    /// })?;
    /// assert!(losses.len() == 6 && losses[5] < losses[0] && sgd.learning_rate() == 0.025);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`fit`](Self::fit) and of `observe`.
    pub fn fit_with<O: Optimizer, E: From<Error>>(
        &self,
        optimizer: &mut O,
        dataset: &TensorDataset,
        mut loss: impl FnMut(&Tensor, &Tensor) -> Result<Tensor>,
        mut observe: impl FnMut(&mut O, Event) -> std::result::Result<ControlFlow<()>, E>,
    ) -> std::result::Result<(), E> {
        self.check()?;
        let starts = (0..dataset.len()).step_by(self.batch_size).collect::<Vec<_>>();
        let steps = starts.len().div_ceil(self.accumulate);
        let mut shuffle = generator(self.seed, Draw::Order);
        let mut completed_steps = 0;
        for epoch in 1..=self.epochs {
            // Also for an epoch that is complete, so that the next one draws what it would have drawn.
            let order = if self.shuffle { Some(dataset.order(&mut shuffle)?) } else { None };
            let before = self.completed_steps.saturating_sub(completed_steps).min(steps);
            completed_steps += before;
            if before == steps {
                continue;
            }
            for group in starts.chunks(self.accumulate).skip(before) {
                let end = (group[group.len() - 1] + self.batch_size).min(dataset.len());
                let mut grads = Gradients::default();
                for &start in group {
                    let len = self.batch_size.min(dataset.len() - start);
                    let (inputs, targets) = dataset.batch(order.as_ref(), start, len)?;
                    let value = scalar(loss(&inputs, &targets)?)?;
                    if observe(optimizer, Event::Batch { epoch, samples: len, loss: &value })?.is_break() {
                        return Ok(());
                    }
                    if group.len() == 1 && self.clip_norm.is_none() {
                        grads.store = value.backward()?;
                    } else {
                        grads.add(&(value * (len as f64 / (end - group[0]) as f64))?)?;
                    }
                }
                if let Some(max_norm) = self.clip_norm {
                    clip(&mut grads.store, &grads.variables, max_norm)?;
                }
                optimizer.step(&grads.store)?;
                completed_steps += 1;
                if observe(optimizer, Event::Step { epoch, completed_steps })?.is_break() {
                    return Ok(());
                }
            }
            if observe(optimizer, Event::Epoch { epoch, completed_steps })?.is_break() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        if self.batch_size == 0 || self.accumulate == 0 {
            bail!(
                "Trainer: batch_size is {} and accumulate {}; both must be 1 or more",
                self.batch_size,
                self.accumulate
            )
        }
        match self.clip_norm {
            Some(norm) if norm.is_nan() || norm <= 0.0 => bail!("Trainer: clip_norm is {norm} but must be positive"),
            _ => Ok(()),
        }
    }
}

/// The loss as a scalar, if it has one element and depends on a variable.
fn scalar(loss: Tensor) -> Result<Tensor> {
    if !loss.track_op() || !loss.dtype().is_float() {
        bail!(
            "Trainer: the loss depends on no variable, so there is nothing to train; build the model on variables and do not detach its output"
        )
    }
    match loss.elem_count() {
        1 => loss.reshape(()),
        _ => bail!("Trainer: the loss has shape {:?} but must be a scalar; reduce it", loss.dims()),
    }
}

/// The gradients of a step, and their variables. Candle also computes gradients of constants, such as the inputs of a batch, which
/// belong to no norm and need not be kept.
#[derive(Default)]
struct Gradients {
    store: GradStore,
    variables: Vec<TensorId>,
}

impl Gradients {
    fn add(&mut self, loss: &Tensor) -> Result<()> {
        let mut found = loss.backward()?;
        for variable in loss.sorted_nodes().into_iter().filter(|node| node.is_variable()) {
            let (id, Some(grad)) = (variable.id(), found.remove(variable)) else { continue };
            let sum = match self.store.get_id(id) {
                Some(before) => (before + grad)?,
                None => {
                    self.variables.push(id);
                    grad
                }
            };
            // A gradient may still hold on to the graph that it was computed by.
            self.store.insert_id(id, sum.detach());
        }
        Ok(())
    }
}
