use candle_core::{Result, Tensor, bail};

/// The value that a loss closure returns for a batch: the loss, a scalar, and optionally the denominator of its mean.
///
/// A closure returns a `Tensor` or a pair `(Tensor, f64)`; both convert to `BatchLoss`. The denominator, a finite number of 0 or
/// more, is the weight of the batch. Batches are averaged by weight, so that several batches give the mean and the gradient of one
/// batch of all their samples. Without a denominator, the weight is the number of samples, which is right for every mean over
/// samples or over elements. With ignored targets, padding or class weights, return the pair, for example with
/// [`CrossEntropyLoss::denominator`](crate::loss::CrossEntropyLoss::denominator). For a sum, return `(loss, 1.0)`: all batches then
/// weigh the same, and the result is the mean of their sums.
///
/// ```
/// use candle_core::{Device, Result, Tensor};
/// use candle_losses::{data::TensorDataset, evaluate, loss::CrossEntropyLoss};
///
/// let logits = Tensor::new(&[[2f32, 0.0], [0.0, 1.0], [0.0, 3.0]], &Device::Cpu)?;
/// let classes = Tensor::new(&[0i64, 1, -100], &Device::Cpu)?; // the third is ignored
/// let dataset = TensorDataset::new(logits.clone(), classes.clone())?;
/// let loss = CrossEntropyLoss::default();
/// let mean = evaluate(&dataset, 2, |x, y| Ok((loss.forward(x, y)?, loss.denominator(y)?)))?;
/// let all = loss.forward(&logits, &classes)?.to_scalar::<f32>()?;
/// assert!((mean - f64::from(all)).abs() < 1e-6);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct BatchLoss {
    loss: Tensor,
    denominator: Option<f64>,
}

impl From<Tensor> for BatchLoss {
    fn from(loss: Tensor) -> Self {
        Self { loss, denominator: None }
    }
}

impl From<(Tensor, f64)> for BatchLoss {
    fn from((loss, denominator): (Tensor, f64)) -> Self {
        Self { loss, denominator: Some(denominator) }
    }
}

impl BatchLoss {
    /// Returns the loss as a scalar, and the weight of its batch of `samples`.
    pub(super) fn checked(self, caller: &str, samples: usize) -> Result<(Tensor, f64)> {
        let Self { loss, denominator } = self;
        if loss.elem_count() != 1 || !loss.dtype().is_float() {
            bail!(
                "{caller}: the loss is {:?} of shape {:?} but must be a scalar of a float dtype; reduce it",
                loss.dtype(),
                loss.dims()
            )
        }
        let weight = denominator.unwrap_or(samples as f64);
        if !(weight >= 0.0 && weight.is_finite()) {
            bail!("{caller}: the denominator of a loss is {weight} but must be a finite number of 0 or more")
        }
        Ok((loss.reshape(())?, weight))
    }
}
