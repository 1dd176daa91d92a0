use candle_core::{Result, Tensor, Var, bail};

/// Early stopping: detects when the validation loss stops improving, and keeps the best weights.
///
/// ```
/// use candle_core::{Device, Tensor, Var};
/// use candle_losses::EarlyStopping;
///
/// let weight = Var::new(0f32, &Device::Cpu)?;
/// let mut stopping = EarlyStopping::new(vec![weight.clone()], 2);
/// for (epoch, loss) in [(1, 0.5), (2, 0.3), (3, 0.4), (4, 0.6)] {
///     weight.set(&Tensor::new(epoch as f32, &Device::Cpu)?)?;
///     assert_eq!(stopping.should_stop(loss)?, epoch == 4);
/// }
/// stopping.restore()?;
/// assert_eq!(weight.to_scalar::<f32>()?, 2.0);
/// assert_eq!(stopping.best().map(|best| (best.epoch, best.loss)), Some((2, 0.3)));
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug)]
pub struct EarlyStopping {
    variables: Vec<Var>,
    patience: usize,
    /// The number of recorded losses.
    epochs: usize,
    best: Option<Best>,
}

/// The epoch with the lowest validation loss of an [`EarlyStopping`].
#[derive(Debug, Clone)]
pub struct Best {
    /// The epoch, counted from 1.
    pub epoch: usize,
    /// Its validation loss.
    pub loss: f64,
    /// The weights after it, in the order of the variables.
    pub weights: Vec<Tensor>,
}

impl EarlyStopping {
    /// Creates early stopping for `variables`, which stops after `patience` epochs in a row without a lower loss.
    pub fn new(variables: Vec<Var>, patience: usize) -> Self {
        Self { variables, patience, epochs: 0, best: None }
    }

    /// Records the validation loss of one more epoch, and returns whether training should stop. NaN is never an improvement.
    ///
    /// # Errors
    /// If the weights can't be copied.
    pub fn should_stop(&mut self, loss: f64) -> Result<bool> {
        self.epochs += 1;
        if self.best.as_ref().is_none_or(|best| loss < best.loss || (best.loss.is_nan() && !loss.is_nan())) {
            let weights = self.variables.iter().map(|variable| variable.as_detached_tensor().copy());
            self.best = Some(Best { epoch: self.epochs, loss, weights: weights.collect::<Result<_>>()? });
        }
        Ok(self.is_stopped())
    }

    /// Whether the last call of [`should_stop`](Self::should_stop) returned true.
    pub fn is_stopped(&self) -> bool {
        self.best.as_ref().is_some_and(|best| self.epochs > best.epoch && self.epochs - best.epoch >= self.patience)
    }

    /// The best epoch so far.
    pub fn best(&self) -> Option<&Best> {
        self.best.as_ref()
    }

    /// The number of losses so far.
    pub fn epochs(&self) -> usize {
        self.epochs
    }

    /// Continues from an earlier run of `epochs` epochs with this best one, as [`epochs`](Self::epochs) and [`best`](Self::best)
    /// gave them.
    ///
    /// # Errors
    /// If the weights do not have the shapes of the variables, or the best epoch is after `epochs`.
    pub fn load_state(&mut self, epochs: usize, best: Best) -> Result<()> {
        let shapes = best.weights.iter().map(|weights| weights.dims());
        if !shapes.eq(self.variables.iter().map(|variable| variable.dims())) || best.epoch > epochs {
            bail!(
                "EarlyStopping: the {} saved weights do not match the variables, or the best epoch is after epoch {epochs}",
                best.weights.len()
            )
        }
        (self.epochs, self.best) = (epochs, Some(best));
        Ok(())
    }

    /// Sets the variables to the best weights, if there are any.
    ///
    /// # Errors
    /// If the shape of a variable has changed.
    pub fn restore(&self) -> Result<()> {
        let Some(best) = &self.best else { return Ok(()) };
        self.variables.iter().zip(&best.weights).try_for_each(|(variable, weights)| variable.set(weights))
    }
}
