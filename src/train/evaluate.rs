use super::batch_loss::BatchLoss;
use crate::data::TensorDataset;
use candle_core::{DType, Device, Result, Tensor, bail};

/// Returns the mean of a scalar `loss` over a dataset, computed in batches of `batch_size`.
///
/// `loss` returns a tensor, which is weighted by the number of samples, or a tensor and what its mean divided by: see
/// [`BatchLoss`]. Batches of weight 0 are left out. A model without a graph saves time and memory:
/// [`Parameters::detached_var_builder`](crate::Parameters::detached_var_builder).
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
/// If `loss` fails or does not return a scalar, `batch_size` is 0, the dataset is empty, or the weights of all batches are 0.
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
        bail!("evaluate: there is nothing to evaluate: {} samples, and the weight of each batch is 0", dataset.len())
    }
    Ok(sum / total_weight)
}
