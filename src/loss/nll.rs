use super::Reduction;
use super::class_targets::{ClassTargets, denominator};
use super::validate::float;
use crate::kernel::nll::gather_nll;
use crate::kernel::ops;
use crate::kernel::tensor_loss::tensor_loss;
use candle_core::{Result, Tensor};

/// Negative log-likelihood of the class `y` of each sample, for log-probabilities `x`:
///
/// ```text
/// l = -w_y · x_y
/// ```
///
/// Use it for a classifier whose last layer is a log-softmax, such as [`log_softmax`](super::log_softmax). Logarithms
/// are natural: for a predicted probability of 0.1, 0.5 or 0.9 the loss is 2.303, 0.693 or 0.105. For logits use
/// [`CrossEntropyLoss`](super::CrossEntropyLoss), which includes the log-softmax.
///
/// Source: [`torch.nn.NLLLoss`](https://pytorch.org/docs/stable/generated/torch.nn.NLLLoss.html).
///
/// Example: [`examples/nll.rs`](https://docs.rs/crate/candle-losses/latest/source/examples/nll.rs), run by
/// `cargo run --example nll`.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_losses::loss::NllLoss;
///
/// let input = Tensor::new(&[[0.5, 0.25, 0.25]; 3], &Device::Cpu)?.log()?;
/// let target = Tensor::new(&[0i64, 1, -100], &Device::Cpu)?; // the third sample is ignored
/// let weight = Some(Tensor::new(&[1.0, 3.0, 1.0], &Device::Cpu)?);
/// let loss = NllLoss { weight, ..Default::default() };
/// let value = loss.forward(&input, &target)?.to_scalar::<f64>()?;
/// let expected = (1.0 * 2f64.ln() + 3.0 * 4f64.ln()) / (1.0 + 3.0); // divided by the sum of the samples' weights
/// assert!((value - expected).abs() < 1e-9);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
#[cfg_attr(doc, doc = include_str!("../../assets/nll.svg"))]
#[derive(Debug, Clone)]
pub struct NllLoss {
    /// Weight `w` of each class, of shape `(C)` and any float dtype. It gets no gradient. Default: `None`, a weight of
    /// 1.
    pub weight: Option<Tensor>,
    /// Class of samples to ignore: their loss and gradient are 0, and the mean leaves them out. It does not have to be
    /// in `0..C`. Default: -100.
    pub ignore_index: i64,
    /// Reduction of the sample losses. Default: the mean, which divides by the sum of the samples' class weights.
    pub reduction: Reduction,
}

impl Default for NllLoss {
    fn default() -> Self {
        Self { weight: None, ignore_index: -100, reduction: Reduction::default() }
    }
}

const LOSS: &str = "NllLoss";

impl NllLoss {
    /// Returns the loss of the log-probabilities `input` against the classes `target`, which are in `0..C`.
    ///
    /// - Shapes: `input` is `(N, C, d1, …, dK)` and `target` `(N, d1, …, dK)`. Without a batch, `input` is `(C)` and
    ///   `target` a scalar or `(1)`.
    /// - Dtypes: `input` is `f16`, `bf16`, `f32` or `f64`. `target` is of any integer dtype: `u8`, `u32`, `i16`, `i32`
    ///   or `i64`.
    /// - Result: a scalar of the input's dtype. With [`Reduction::None`] it is `(N, d1, …, dK)`, or a scalar without a
    ///   batch. If all samples are ignored, the mean is NaN, as in PyTorch, and its gradient is 0.
    ///
    /// # Errors
    /// If a class is out of range (checked on the CPU only), if the shapes or devices do not fit together, if `input`
    /// is not of a float dtype, if `target` is not of an integer dtype, or if `weight` does not have the shape `(C)` or
    /// is not of a float dtype.
    pub fn forward(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
        let targets = ClassTargets::new(LOSS, input, target, self.weight.as_ref(), Some(self.ignore_index))?;

        if let Some(classes) = targets.for_kernel()? {
            let factor = targets.factor(self.reduction, &classes);
            return gather_nll(input, targets.dim, classes, factor);
        }
        let x = float(LOSS, "input", input)?;
        let classes = targets.for_gather(x.dtype())?;
        let (dim, scale) = (targets.dim, targets.scale(self.reduction, &classes)?);
        let is_ignored = classes.is_ignored.clone();
        let loss = tensor_loss([&x], Some(dim), scale, is_ignored, move |[x], _| {
            let weight = classes.row_weight()?.neg()?;
            let losses = classes.drop_ignored(&(classes.gather(x)? * &weight)?)?;
            let grad = classes.scatter_add(&x.detach().zeros_like()?, &weight)?;
            Ok((losses.squeeze(dim)?.into(), [Some(grad.into())]))
        })?;
        ops::like(&loss, input)
    }

    /// Returns the denominator of the mean loss against `target`, whatever `reduction` is: the sum of the class weights of
    /// the samples that are not ignored, 0 if all samples are ignored.
    ///
    /// Weight the losses of several batches by their denominators to get the loss of one large batch. `Trainer` and `evaluate` do
    /// so if their closure returns the pair `(loss, denominator)`. On a GPU the host waits for `target` and for `weight`.
    ///
    /// ```
    /// use candle_core::{Device, Tensor};
    /// use candle_losses::loss::NllLoss;
    ///
    /// let loss = NllLoss {
    ///     weight: Some(Tensor::new(&[1f32, 3.0], &Device::Cpu)?),
    ///     ..Default::default()
    /// };
    /// let target = Tensor::new(&[0i64, 1, -100, 1], &Device::Cpu)?; // the third sample is ignored
    /// assert_eq!(loss.denominator(&target)?, 1.0 + 3.0 + 3.0);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// If `target` is not of an integer dtype; if a class is negative or, with a `weight`, not less than its length; or if `weight`
    /// is not of shape `(C)` or not of a float dtype.
    pub fn denominator(&self, target: &Tensor) -> Result<f64> {
        denominator(LOSS, target, self.weight.as_ref(), self.ignore_index, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::testing::*;

    #[test]
    fn natural_logarithm_of_the_class_probability() -> Result<()> {
        let log_p = Tensor::new(&[[0.1, 0.9], [0.5, 0.5], [0.1, 0.9]], &device())?.log()?;
        let y = Tensor::new(&[0u32, 0, 1], &device())?;
        let loss = NllLoss { reduction: Reduction::None, ..Default::default() };
        assert_values(loss.forward(&log_p, &y), &[10f64.ln(), 2f64.ln(), -0.9f64.ln()])
    }

    #[test]
    fn mean_leaves_out_ignored_samples() -> Result<()> {
        let log_p = Tensor::new(&[[-1.0, f64::NEG_INFINITY], [-3.0, -4.0]], &device())?;
        let loss = NllLoss { ignore_index: 1, ..Default::default() };
        assert_values(loss.forward(&log_p, &Tensor::new(&[1u8, 0], &device())?), &[3.0])?;
        let none_left = Tensor::new(&[1u8, 1], &device())?;
        assert!(loss.forward(&log_p, &none_left)?.to_scalar::<f64>()?.is_nan());
        assert_values(NllLoss { reduction: Reduction::Sum, ..loss }.forward(&log_p, &none_left), &[0.0])
    }

    #[test]
    fn rejects_invalid_classes_and_weights() -> Result<()> {
        let scalar = NllLoss::default().forward(&vector(&[1.0]).get(0)?, &Tensor::new(0u32, &device())?);
        refuses(scalar, &["NllLoss", "input", "scalar"]);
        refuses_bad_classes("NllLoss", |x, y, weight| NllLoss { weight, ..Default::default() }.forward(x, y))
    }
}
