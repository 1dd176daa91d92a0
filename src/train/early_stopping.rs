use candle_core::{DType, Device, Result, Tensor, Var, bail};
use std::collections::HashMap;

/// Early stopping: detects when the validation loss stops improving, and keeps the best weights.
///
/// Pass all variables of the model ([`Parameters::all_vars`](crate::Parameters::all_vars)), including the running statistics of
/// a `BatchNorm`. Compute the validation loss with a separate closure that runs the model in evaluation mode: the closure used for
/// training would update the running statistics and apply dropout.
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
    best: Option<BestEpoch>,
}

/// The epoch with the lowest validation loss of an [`EarlyStopping`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct BestEpoch {
    /// The epoch, counted from 1.
    pub epoch: usize,
    /// Its validation loss.
    pub loss: f64,
    /// The weights after it, in the order of the variables.
    pub weights: Vec<Tensor>,
}

/// The names of the tensors of a state: three numbers, and the weights of the best epoch.
const NUMBERS: &str = "early_stopping";
const WEIGHTS: &str = "early_stopping.best";

impl EarlyStopping {
    /// Creates early stopping for `variables`. Training should stop after `patience` epochs in a row without a lower loss; 0
    /// has the effect of 1.
    pub fn new(variables: Vec<Var>, patience: usize) -> Self {
        Self { variables, patience, epochs: 0, best: None }
    }

    /// Records the validation loss of the next epoch, and returns whether training should stop. The first loss is always the
    /// best so far; after that, NaN is never an improvement.
    ///
    /// # Errors
    /// If the weights can't be copied.
    pub fn should_stop(&mut self, loss: f64) -> Result<bool> {
        self.epochs = self.epochs.saturating_add(1);
        if self.best.as_ref().is_none_or(|best| loss < best.loss || (best.loss.is_nan() && !loss.is_nan())) {
            let weights = self.variables.iter().map(|variable| variable.as_detached_tensor().force_contiguous());
            self.best = Some(BestEpoch { epoch: self.epochs, loss, weights: weights.collect::<Result<_>>()? });
        }
        Ok(self.is_stopped())
    }

    /// Returns whether training should stop, according to the losses recorded or loaded so far.
    pub fn is_stopped(&self) -> bool {
        self.best.as_ref().is_some_and(|best| self.epochs > best.epoch && self.epochs - best.epoch >= self.patience)
    }

    /// Returns the best epoch so far, or `None` before the first loss.
    pub fn best(&self) -> Option<&BestEpoch> {
        self.best.as_ref()
    }

    /// Returns the number of epochs recorded so far, including the epochs of a loaded state.
    pub fn epochs(&self) -> usize {
        self.epochs
    }

    /// Returns the state as named tensors, for the file of a [`Checkpoint`](crate::Checkpoint): the names begin with
    /// `early_stopping`.
    ///
    /// # Errors
    /// If memory can't be allocated.
    pub fn state(&self) -> Result<HashMap<String, Tensor>> {
        let Some(best) = &self.best else { return Ok(HashMap::new()) };
        let numbers = [self.epochs as f64, best.epoch as f64, best.loss];
        let weights = best.weights.iter().enumerate().map(|(i, weights)| (format!("{WEIGHTS}.{i}"), weights.clone()));
        Ok(weights.chain([(NUMBERS.to_owned(), Tensor::new(&numbers, &Device::Cpu)?)]).collect())
    }

    /// Loads the [`state`](Self::state) of an earlier run. Other tensors are ignored. If `tensors` holds no state, all recorded
    /// losses are forgotten.
    ///
    /// # Errors
    /// If the number, shapes or dtypes of the stored weights do not match the variables, or the epoch counts are invalid. On error,
    /// nothing changes.
    pub fn load_state(&mut self, tensors: &HashMap<String, Tensor>) -> Result<()> {
        let Some(numbers) = tensors.get(NUMBERS) else {
            (self.epochs, self.best) = (0, None);
            return Ok(());
        };
        if numbers.elem_count() != 3 {
            bail!("EarlyStopping: {NUMBERS} has shape {:?} but needs three numbers", numbers.dims())
        }
        let values = numbers.flatten_all()?.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        let is_count = |x: f64| x >= 1.0 && x.fract() == 0.0 && x < 2f64.powi(53);
        let (epochs, epoch, loss) = match values.as_slice() {
            &[epochs, epoch, loss] if is_count(epochs) && is_count(epoch) && epoch <= epochs => (epochs, epoch, loss),
            _ => bail!(
                "EarlyStopping: {NUMBERS} is {values:?} but needs three numbers: epochs, best epoch ≤ epochs, best loss"
            ),
        };
        let mut weights = Vec::new();
        for (i, variable) in self.variables.iter().enumerate() {
            let name = format!("{WEIGHTS}.{i}");
            let Some(stored) = tensors.get(&name) else { bail!("EarlyStopping: the state has no {name}") };
            if stored.dims() != variable.dims() || stored.dtype().is_float() != variable.dtype().is_float() {
                bail!(
                    "EarlyStopping: {name} is {:?} of shape {:?} but its variable {:?} of shape {:?}",
                    stored.dtype(),
                    stored.dims(),
                    variable.dtype(),
                    variable.dims()
                )
            }
            weights.push(stored.to_dtype(variable.dtype())?.to_device(variable.device())?);
        }
        if tensors.contains_key(&format!("{WEIGHTS}.{}", weights.len())) {
            bail!("EarlyStopping: the state has more than {} variables", weights.len())
        }
        (self.epochs, self.best) = (epochs as usize, Some(BestEpoch { epoch: epoch as usize, loss, weights }));
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
