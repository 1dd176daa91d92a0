use crate::data::TensorDataset;
use candle_core::{DType, Result, Tensor};

/// Returns the mean of a scalar `loss` over a dataset, computed in batches of `batch_size`, each weighted by its number of
/// samples. An empty dataset gives NaN.
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
/// If `loss` fails or does not return a scalar.
pub fn evaluate(
    dataset: &TensorDataset,
    batch_size: usize,
    mut loss: impl FnMut(&Tensor, &Tensor) -> Result<Tensor>,
) -> Result<f64> {
    let batch_size = batch_size.max(1);
    let mut sum = 0.0;
    for start in (0..dataset.len()).step_by(batch_size) {
        let len = batch_size.min(dataset.len() - start);
        let (inputs, targets) = dataset.batch(None, start, len)?;
        let value = loss(&inputs, &targets)?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
        sum += value * len as f64;
    }
    Ok(sum / dataset.len() as f64)
}
