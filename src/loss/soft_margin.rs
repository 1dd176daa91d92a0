use super::Reduction;
use super::validate::matching_integers;
use crate::kernel::elementwise::Elementwise;
use crate::kernel::scalar::{Scalar, logistic, zero};
use candle_core::{Result, Tensor};

/// Logistic loss of a score `x` against a side `y`, 1 or -1: `l = log(1 + e^(-y·x))`.
///
/// For two classes that are called 1 and -1. A smooth hinge: it falls with the score's lead on the right side and never
/// quite reaches 0. With an unbounded score it is [`BceWithLogitsLoss`](super::BceWithLogitsLoss) with sides for
/// labels; take that one for labels of 0 and 1, soft ones, or a weight for the rarer class. Behind a tanh, which keeps
/// the score in [-1, 1], it can't fall below `log(1 + 1/e) = 0.313`.
///
/// Computed without overflow: a score of 10,000 on the wrong side costs 10,000, where PyTorch gives infinity and a NaN
/// gradient.
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
    /// How the element losses are reduced. Default: the mean.
    pub reduction: Reduction,
}

const LOSS: &str = "SoftMarginLoss";

impl SoftMarginLoss {
    /// The loss of the scores `input` against `target`, 1 or -1.
    ///
    /// Shapes: both of any shape, the same. Dtypes: both `f16`, `bf16`, `f32` or `f64`, the same. The result has that
    /// dtype and is a scalar, or of the arguments' shape with [`Reduction::None`].
    ///
    /// # Errors
    /// If shape, dtype or device of the two differ, or the dtype is not a float.
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
        let (tail, sigmoid) = logistic(-z);
        (linear + tail, [-(y * sigmoid), -(x * sigmoid)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::testing::*;

    #[test]
    fn a_large_score_on_the_wrong_side_costs_itself() -> Result<()> {
        let loss = SoftMarginLoss { reduction: Reduction::None };
        let (x, y) = (vector(&[0.0, -1e4, -1e4]), vector(&[1.0, 1.0, -1.0]));
        assert_values(loss.forward(&x, &y), &[2f64.ln(), 1e4, 0.0])
    }

    #[test]
    fn refuses_what_does_not_match() {
        refuses_mismatches("SoftMarginLoss", |x, y| SoftMarginLoss::default().forward(x, y));
    }
}
