use super::batch_loss::BatchLoss;
use crate::data::TensorDataset;
use candle_core::{DType, Device, Result, Tensor, bail};

/// Returns the mean of a scalar `loss` over a dataset, in the order of the dataset and in batches of `batch_size`.
///
/// `loss` can be any scalar metric of a float dtype, such as the accuracy of a batch. It returns the value, or a pair of the
/// value and its denominator: see [`BatchLoss`]. Batches of weight 0 are left out. Put the model in evaluation mode; a model from
/// [`Parameters::detached_var_builder`](crate::Parameters::detached_var_builder) builds no graph, which saves time and memory.
///
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use candle_losses::{data::TensorDataset, loss::MseLoss, evaluate};
///
/// let x = Tensor::arange(0f32, 5., &Device::Cpu)?.unsqueeze(1)?;
/// let dataset = TensorDataset::new(x.clone(), x)?;
/// assert_eq!(evaluate(&dataset, 2, |x, y| MseLoss::default().forward(&(x + 1.)?, y))?, 1.0);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
/// # Errors
/// If `loss` fails or returns no float scalar, a denominator is negative or not finite, `batch_size` is 0, the dataset is empty, or
/// the weight of each batch is 0.
pub fn evaluate<L: Into<BatchLoss>>(
    dataset: &TensorDataset,
    batch_size: usize,
    mut loss: impl FnMut(&Tensor, &Tensor) -> Result<L>,
) -> Result<f64> {
    if batch_size == 0 {
        bail!("evaluate: batch_size is 0 but must be 1 or more")
    }
    let (mut sum, mut total_weight) = (0.0, 0.0);
    for start in (0..dataset.len()).step_by(batch_size) {
        let len = batch_size.min(dataset.len() - start);
        let (inputs, targets) = dataset.batch(None, start, len)?;
        let (value, weight) = loss(&inputs, &targets)?.into().checked("evaluate", len)?;
        if weight > 0.0 {
            sum += value.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_scalar::<f64>()? * weight;
            total_weight += weight;
        }
    }
    if total_weight == 0.0 {
        bail!("evaluate: the total weight is 0: there are {} samples, and the weight of each batch is 0", dataset.len())
    }
    if !total_weight.is_finite() {
        bail!("evaluate: the denominators add up to infinity")
    }
    Ok(sum / total_weight)
}
