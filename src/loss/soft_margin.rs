use super::Reduction;
use super::validate::matching_integers;
use crate::kernel::elementwise::Elementwise;
use crate::kernel::scalar::{Scalar, logistic, zero};
use candle_core::{Result, Tensor};

/// Logistic loss of a score `x` against a label `y`, which is 1 or -1:
///
/// ```text
/// l = log(1 + e^(-y·x))
/// ```
///
/// Use it for two classes with the labels 1 and -1, with a linear last layer. The loss decreases as the score moves to
/// the side of its label, and never reaches 0. After a tanh, which limits the score to [-1, 1], it can't fall below
/// `log(1 + 1/e) = 0.313`. For labels of 0 and 1, for probabilities, or for a weight of the rarer class, use
/// [`BceWithLogitsLoss`](super::BceWithLogitsLoss), which is the same loss with the label 0 in place of -1.
///
/// The computation does not overflow: the loss of a score of 10,000 on the wrong side is 10,000, where PyTorch returns
/// infinity and a NaN gradient.
///
/// Source: [`torch.nn.SoftMarginLoss`](https://pytorch.org/docs/stable/generated/torch.nn.SoftMarginLoss.html).
///
/// Example: [`examples/soft_margin.rs`](https://docs.rs/crate/candle-losses/latest/source/examples/soft_margin.rs), run
/// by `cargo run --example soft_margin`.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_losses::loss::SoftMarginLoss;
///
/// let input = Tensor::new(&[0.0, 3f64.ln()], &Device::Cpu)?;
/// let target = Tensor::new(&[1.0, -1.0], &Device::Cpu)?;
/// let value = SoftMarginLoss::default().forward(&input, &target)?.to_scalar::<f64>()?;
/// assert!((value - 1.5 * 2f64.ln()).abs() < 1e-9); // (log(1 + 1) + log(1 + 3)) / 2
/// # Ok::<(), candle_core::Error>(())
/// ```
///
#[cfg_attr(doc, doc = include_str!("../../assets/soft_margin.svg"))]
#[derive(Debug, Clone, Copy, Default)]
pub struct SoftMarginLoss {
    /// Reduction of the element losses. Default: the mean.
    pub reduction: Reduction,
}

const LOSS: &str = "SoftMarginLoss";

impl SoftMarginLoss {
    /// Returns the loss of the scores `input` against `target`, which holds 1 and -1.
    ///
    /// - Shapes: the same for both arguments, of any rank.
    /// - Dtypes: `input` is `f16`, `bf16`, `f32` or `f64`. `target` is of the same dtype or of any integer dtype.
    /// - Result: a scalar of the input's dtype. With [`Reduction::None`] it has the shape of the arguments.
    ///
    /// # Errors
    /// If the shapes, dtypes or devices do not fit together, or if `input` is not of a float dtype.
    pub fn forward(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
        let args = matching_integers(LOSS, [("input", input), ("target", target)])?;

        self.reduction.elements(&args, None, *self)
    }
}

impl Elementwise<2> for SoftMarginLoss {
    #[inline(always)]
    fn value_and_grad<S: Scalar>(self, [x, y]: [S; 2]) -> (S, [S; 2]) {
        // log(1 + e^-z) = max(-z, 0) + log(1 + e^-|z|), and its derivative is -σ(-z).
        let z = x * y;
        let linear = S::select(z.lt(zero()), z.abs(), zero());
        let (tail, _, sigmoid) = logistic(z);
        (linear + tail, [-(y * sigmoid), -(x * sigmoid)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::testing::*;

    #[test]
    fn finite_for_large_scores() -> Result<()> {
        let loss = SoftMarginLoss { reduction: Reduction::None };
        let (x, y) = (vector(&[0.0, -1e4, -1e4]), vector(&[1.0, 1.0, -1.0]));
        assert_values(loss.forward(&x, &y), &[2f64.ln(), 1e4, 0.0])
    }

    #[test]
    fn rejects_mismatched_arguments() {
        refuses_mismatches("SoftMarginLoss", |x, y| SoftMarginLoss::default().forward(x, y));
    }
}
