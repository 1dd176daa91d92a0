use super::Reduction;
use super::class_targets::ClassTargets;
use super::validate::float;
use crate::kernel::nll::gather_nll;
use crate::kernel::ops;
use crate::kernel::tensor_loss::tensor_loss;
use candle_core::{Result, Tensor};

/// Negative log-likelihood: `l = -w_y · x_y`, for log-probabilities `x` and the class `y` of each sample.
///
/// For a model whose last layer is a log-softmax, such as [`log_softmax`](super::log_softmax). The logarithms are
/// natural: a class that was given probability 0.1, 0.5, 0.9 costs 2.303, 0.693, 0.105. From logits,
/// [`CrossEntropyLoss`](super::CrossEntropyLoss) is the same in one step.
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
/// let expected = (1.0 * 2f64.ln() + 3.0 * 4f64.ln()) / (1.0 + 3.0); // over the sum of the weights that count
/// assert!((value - expected).abs() < 1e-9);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
#[cfg_attr(doc, doc = include_str!("../../assets/nll.svg"))]
#[derive(Debug, Clone)]
pub struct NllLoss {
    /// `w`, one weight per class, shape `(C)`, any float dtype; no gradient flows to it. Default: none, all count 1.
    pub weight: Option<Tensor>,
    /// Samples of this class cost nothing and don't count in the mean; need not be a class. Default -100.
    pub ignore_index: i64,
    /// How the sample losses are reduced. Default: the mean, which divides by the sum of the samples' weights.
    pub reduction: Reduction,
}

impl Default for NllLoss {
    fn default() -> Self {
        Self { weight: None, ignore_index: -100, reduction: Reduction::default() }
    }
}

const LOSS: &str = "NllLoss";

impl NllLoss {
    /// The loss of the log-probabilities `input` against the classes `target`, `0..C`.
    ///
    /// Shapes: `(C)` with a scalar, or `(N, C, d1, …, dK)` with `(N, d1, …, dK)`. Dtypes: `input` is `f16`, `bf16`,
    /// `f32` or `f64`, `target` is `u8`, `u32` or `i64`. The result has input's dtype and is a scalar, or of target's
    /// shape with [`Reduction::None`]. The mean over no sample, all being ignored, is NaN, as in PyTorch.
    ///
    /// # Errors
    /// If a class is out of range (seen on the CPU only), if the shapes don't fit, if `input` is not of a float dtype
    /// or `target` not of one for classes, if the devices differ, or if `weight` has not `C` elements or is not of a
    /// float dtype.
    pub fn forward(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
        let targets = ClassTargets::new(LOSS, input, target, self.weight.as_ref(), Some(self.ignore_index))?;

        if let Some(classes) = targets.for_kernel()? {
            let factor = targets.factor(self.reduction, &classes);
            return gather_nll(input, targets.dim, classes, factor);
        }
        let x = float(LOSS, "input", input)?;
        let classes = targets.for_gather(x.dtype())?;
        let (dim, scale) = (targets.dim, targets.scale(self.reduction, &classes)?);
        let loss = tensor_loss([&x], Some(dim), scale, move |[x], _| {
            let weight = classes.row_weight()?.neg()?;
            let losses = classes.drop_ignored(&(classes.gather(x)? * &weight)?)?;
            let grad = classes.scatter_add(&x.detach().zeros_like()?, &weight)?;
            Ok((losses.squeeze(dim)?.into(), [Some(grad.into())]))
        })?;
        ops::like(&loss, input)
    }
}



#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::testing::*;

    #[test]
    fn natural_logarithms_of_the_class_that_holds() -> Result<()> {
        let log_p = Tensor::new(&[[0.1, 0.9], [0.5, 0.5], [0.1, 0.9]], &device())?.log()?;
        let y = Tensor::new(&[0u32, 0, 1], &device())?;
        let loss = NllLoss { reduction: Reduction::None, ..Default::default() };
        assert_values(loss.forward(&log_p, &y), &[10f64.ln(), 2f64.ln(), -0.9f64.ln()])
    }

    #[test]
    fn what_is_ignored_costs_nothing_and_does_not_count() -> Result<()> {
        let log_p = Tensor::new(&[[-1.0, f64::NEG_INFINITY], [-3.0, -4.0]], &device())?;
        let loss = NllLoss { ignore_index: 1, ..Default::default() };
        assert_values(loss.forward(&log_p, &Tensor::new(&[1u8, 0], &device())?), &[3.0])?;
        let none_left = Tensor::new(&[1u8, 1], &device())?;
        assert!(loss.forward(&log_p, &none_left)?.to_scalar::<f64>()?.is_nan());
        assert_values(NllLoss { reduction: Reduction::Sum, ..loss }.forward(&log_p, &none_left), &[0.0])
    }

    #[test]
    fn refuses_classes_and_weights_that_do_not_fit() -> Result<()> {
        let scalar = NllLoss::default().forward(&vector(&[1.0]).get(0)?, &Tensor::new(0u32, &device())?);
        refuses(scalar, &["NllLoss", "input", "scalar"]);
        refuses_bad_classes("NllLoss", |x, y, weight| NllLoss { weight, ..Default::default() }.forward(x, y))
    }
}
