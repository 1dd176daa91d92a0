use crate::data::{Draw, Samples, generator};
use crate::nn::clip;
use candle_core::backprop::GradStore;
use candle_core::{DType, Error, Result, Tensor, TensorId, Var, bail};
use candle_nn::Optimizer;

/// How to train: passes in batches over samples, each step by an optimizer against the gradient of a scalar loss.
///
/// The model is what `loss` makes of a batch, and the optimizer has its variables: any model of candle's, with its
/// parameters in [`Parameters`](crate::Parameters) or a `candle_nn::VarMap`, and any `candle_nn::Optimizer`.
///
/// ```
/// use candle_core::{DType, Device, Module, Tensor};
/// use candle_losses::{Adam, Parameters, ParamsAdam, Training, data::Samples, loss::MseLoss};
/// use candle_nn::Optimizer;
///
/// let x = Tensor::new(&[[0f32], [1.0], [2.0], [3.0]], &Device::Cpu)?;
/// let samples = Samples::new(x.clone(), (&x * 2.)?)?;
/// let parameters = Parameters::seeded(1);
/// let model = candle_nn::linear(1, 1, parameters.builder(DType::F32, &Device::Cpu))?;
/// let mut adam = Adam::new(parameters.vars(), ParamsAdam { lr: 0.05, ..Default::default() })?;
/// Training { epochs: 300, batch_size: 2, ..Default::default() }
///     .run(&mut adam, &samples, |x, y| MseLoss::default().forward(&model.forward(x)?, y))?;
/// let y = model.forward(&Tensor::new(&[[5f32]], &Device::Cpu)?)?.to_vec2::<f32>()?[0][0];
/// assert!((y - 10.0).abs() < 0.01, "{y}");
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Training {
    /// Passes over the samples. Default 5.
    pub epochs: usize,
    /// Samples in a mini-batch; the last of a pass has what is left. Default 64.
    pub batch_size: usize,
    /// What the order of the samples is drawn from. Default 42.
    pub seed: u64,
    /// Whether each pass has an order of its own; else it is that of the samples. Default true.
    pub shuffle: bool,
    /// Mini-batches to a step of the optimizer. Their gradients' mean is taken, each by its number of samples, so that a
    /// loss that is a mean steps as on one batch of them all. Default 1.
    pub accumulate: usize,
    /// The norm that the gradients of a step are scaled down to, together, those of every variable in the loss
    /// ([`clip_grad_norm`](crate::clip_grad_norm)); `None` leaves them as they are. Default `None`.
    pub clip_norm: Option<f64>,
    /// Steps of this training that were taken before, to be passed over: the rest sees what it would have seen. Default 0.
    pub taken: usize,
}

impl Default for Training {
    fn default() -> Self {
        Self { epochs: 5, batch_size: 64, seed: 42, shuffle: true, accumulate: 1, clip_norm: None, taken: 0 }
    }
}

/// What an observer of a training is told.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// The loss of a mini-batch is known, and no step was taken against it yet.
    Batch {
        /// The pass, counted from 1.
        epoch: usize,
        /// How many samples it has.
        samples: usize,
        /// A scalar. Detach what you keep.
        loss: &'a Tensor,
    },
    /// The optimizer has taken a step.
    Step {
        /// The pass, counted from 1.
        epoch: usize,
        /// All steps of this training so far.
        taken: usize,
    },
    /// A pass is over.
    Epoch {
        /// The pass, counted from 1.
        epoch: usize,
        /// All steps of this training so far.
        taken: usize,
    },
}

impl Training {
    /// Trains the variables of `optimizer` on the scalar that `loss` makes of a batch's inputs and targets.
    ///
    /// # Errors
    /// Those of `loss` and of the optimizer; a loss that is no scalar, or has no variable in it; a batch size or `accumulate` of 0, or a `clip_norm`
    /// that is not positive.
    pub fn run<O: Optimizer>(
        &self,
        optimizer: &mut O,
        samples: &Samples,
        loss: impl FnMut(&Tensor, &Tensor) -> Result<Tensor>,
    ) -> Result<()> {
        self.observed(optimizer, samples, loss, |_, _| Ok::<_, Error>(()))
    }

    /// The same, and tells `observe` what happens, with the optimizer as it is then. An error of its ends the training.
    ///
    /// ```
    /// use candle_core::{DType, Device, Error, Tensor, Var};
    /// use candle_losses::{Event, Training, data::Samples, loss::MseLoss};
    /// use candle_nn::{Optimizer, SGD};
    ///
    /// let samples = Samples::new(Tensor::ones((6, 1), DType::F32, &Device::Cpu)?, Tensor::ones((6, 1), DType::F32, &Device::Cpu)?)?;
    /// let weight = Var::new(&[[0f32]], &Device::Cpu)?;
    /// let mut sgd = SGD::new(vec![weight.clone()], 0.1)?;
    /// let mut losses = Vec::new();
    /// let loss = |x: &Tensor, y: &Tensor| MseLoss::default().forward(&x.matmul(&weight)?, y);
    /// Training { epochs: 2, batch_size: 2, ..Default::default() }.observed(&mut sgd, &samples, loss, |sgd, event| {
    ///     if let Event::Batch { loss, .. } = event {
    ///         losses.push(loss.to_scalar::<f32>()?);
    ///     }
    ///     assert_eq!(sgd.learning_rate(), 0.1);
    ///     Ok::<_, Error>(())
    /// })?;
    /// assert!(losses.len() == 6 && losses[5] < losses[0]);
    /// # Ok::<(), Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`run`](Self::run) and of `observe`.
    pub fn observed<O: Optimizer, E: From<Error>>(
        &self,
        optimizer: &mut O,
        samples: &Samples,
        mut loss: impl FnMut(&Tensor, &Tensor) -> Result<Tensor>,
        mut observe: impl FnMut(&O, Event) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        self.check()?;
        let starts = (0..samples.len()).step_by(self.batch_size).collect::<Vec<_>>();
        let steps = starts.len().div_ceil(self.accumulate);
        let mut shuffle = generator(self.seed, Draw::Order);
        let mut taken = 0;
        for epoch in 1..=self.epochs {
            // Also for an epoch that is over, so that the next draws what it would have drawn.
            let order = if self.shuffle { Some(samples.order(&mut shuffle)?) } else { None };
            let before = self.taken.saturating_sub(taken).min(steps);
            taken += before;
            if before == steps {
                continue;
            }
            for group in starts.chunks(self.accumulate).skip(before) {
                let end = (group[group.len() - 1] + self.batch_size).min(samples.len());
                let mut grads = Gradients::default();
                for &start in group {
                    let len = self.batch_size.min(samples.len() - start);
                    let (inputs, targets) = samples.batch(order.as_ref(), start, len)?;
                    let value = scalar(loss(&inputs, &targets)?)?;
                    observe(optimizer, Event::Batch { epoch, samples: len, loss: &value })?;
                    let share = len as f64 / (end - group[0]) as f64;
                    if group.len() == 1 && self.clip_norm.is_none() {
                        grads.store = value.backward()?;
                    } else {
                        grads.add(&(value * share)?)?;
                    }
                }
                if let Some(max_norm) = self.clip_norm {
                    clip(&mut grads.store, &grads.variables, max_norm)?;
                }
                optimizer.step(&grads.store)?;
                taken += 1;
                observe(optimizer, Event::Step { epoch, taken })?;
            }
            observe(optimizer, Event::Epoch { epoch, taken })?;
        }
        Ok(())
    }

    fn check(&self) -> Result<()> {
        if self.batch_size == 0 || self.accumulate == 0 {
            bail!(
                "Training: batch_size is {} and accumulate {}; both must be 1 or more",
                self.batch_size,
                self.accumulate
            )
        }
        match self.clip_norm {
            Some(norm) if norm.is_nan() || norm <= 0.0 => bail!("Training: clip_norm is {norm} but must be positive"),
            _ => Ok(()),
        }
    }
}

/// The mean of a loss over samples, in batches of so many; each batch counts by its samples.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use candle_losses::{data::Samples, loss::MseLoss, mean_loss};
///
/// let x = Tensor::arange(0f32, 5., &Device::Cpu)?.unsqueeze(1)?;
/// let samples = Samples::new(x.clone(), x)?;
/// assert_eq!(mean_loss(&samples, 2, |x, y| MseLoss::default().forward(&(x + 1.)?, y))?, 1.0);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// Those of the loss, and if it is no scalar.
pub fn mean_loss(
    samples: &Samples,
    batch_size: usize,
    mut loss: impl FnMut(&Tensor, &Tensor) -> Result<Tensor>,
) -> Result<f64> {
    let mut sum = 0.0;
    for start in (0..samples.len()).step_by(batch_size.max(1)) {
        let len = batch_size.min(samples.len() - start);
        let (inputs, targets) = samples.batch(None, start, len)?;
        let value = loss(&inputs, &targets)?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
        sum += value * len as f64;
    }
    Ok(sum / samples.len() as f64)
}

/// Knows when a training no longer gets better, and keeps the best weights.
///
/// ```
/// use candle_core::{Device, Tensor, Var};
/// use candle_losses::EarlyStopping;
///
/// let weight = Var::new(0f32, &Device::Cpu)?;
/// let mut stopping = EarlyStopping::new(vec![weight.clone()], 2);
/// for (epoch, loss) in [(1, 0.5), (2, 0.3), (3, 0.4), (4, 0.6)] {
///     weight.set(&Tensor::new(epoch as f32, &Device::Cpu)?)?;
///     assert_eq!(stopping.is_over(epoch, loss)?, epoch == 4);
/// }
/// assert_eq!(stopping.restore()?, Some((2, 0.3)));
/// assert_eq!(weight.to_scalar::<f32>()?, 2.0);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug)]
pub struct EarlyStopping {
    variables: Vec<Var>,
    patience: usize,
    /// The epoch with the lowest loss, that loss, and the weights.
    best: Option<(usize, f64, Vec<Tensor>)>,
}

impl EarlyStopping {
    /// For these variables; `patience` is how many epochs may be no better than the best one before them.
    pub fn new(variables: Vec<Var>, patience: usize) -> Self {
        Self { variables, patience, best: None }
    }

    /// Whether the training should end, after an epoch with this loss on samples that are not trained on.
    ///
    /// # Errors
    /// If the weights can't be copied.
    pub fn is_over(&mut self, epoch: usize, loss: f64) -> Result<bool> {
        match &self.best {
            // Not a number is never better.
            Some((best, lowest, _)) if loss.is_nan() || loss >= *lowest => Ok(epoch - best >= self.patience),
            _ => {
                let weights = self.variables.iter().map(|variable| variable.as_detached_tensor().copy());
                self.best = Some((epoch, loss, weights.collect::<Result<_>>()?));
                Ok(false)
            }
        }
    }

    /// Gives the variables the best weights; the epoch that they are of, and its loss.
    ///
    /// # Errors
    /// If a variable has another shape than it had.
    pub fn restore(self) -> Result<Option<(usize, f64)>> {
        let Some((epoch, loss, weights)) = self.best else { return Ok(None) };
        for (variable, weights) in self.variables.iter().zip(&weights) {
            variable.set(weights)?;
        }
        Ok(Some((epoch, loss)))
    }
}

/// The loss as a scalar, once it is one and leads back to a variable.
fn scalar(loss: Tensor) -> Result<Tensor> {
    if !loss.track_op() || !loss.dtype().is_float() {
        bail!(
            "Training: no variable is in the loss, so there is nothing to train: is the model built on variables, and detached nowhere?"
        )
    }
    match loss.elem_count() {
        1 => loss.reshape(()),
        _ => bail!("Training: the loss has shape {:?} but must be a scalar: reduce it", loss.dims()),
    }
}

/// The gradients of a step, and the variables that they are of. What candle gives also has gradients of constants, such as a
/// batch's inputs, which are in no norm and would be kept for nothing.
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
