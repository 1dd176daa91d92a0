use super::Reduction;
use super::validate::{check_option, matching_integers};
use crate::kernel::elementwise::Elementwise;
use crate::kernel::scalar::{Scalar, zero};
use candle_core::{Result, Tensor};

/// Hinge loss on the order of two scores: `x1` should be higher if `y = 1`, and `x2` if `y = -1`:
///
/// ```text
/// l = max(0, margin - y·(x1 - x2))
/// ```
///
/// Use it to learn a ranking from comparisons, such as search results or preferences. The loss is 0 once the right
/// score is higher by `margin`. With the default margin of 0 the loss of equal scores is 0, so a model that outputs a
/// constant is a solution: set a positive margin. If the scores themselves are known, use
/// [`MseLoss`](super::MseLoss).
///
/// Source: [`torch.nn.MarginRankingLoss`](https://pytorch.org/docs/stable/generated/torch.nn.MarginRankingLoss.html).
///
/// Example:
/// [`examples/margin_ranking.rs`](https://docs.rs/crate/candle-losses/latest/source/examples/margin_ranking.rs), run by
/// `cargo run --example margin_ranking`.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_losses::loss::MarginRankingLoss;
///
/// let input1 = Tensor::new(&[2.0, 1.0], &Device::Cpu)?;
/// let input2 = Tensor::new(&[1.5, 3.0], &Device::Cpu)?;
/// let target = Tensor::new(&[1.0, -1.0], &Device::Cpu)?; // input1 should be higher, then input2
/// let loss = MarginRankingLoss { margin: 1.0, ..Default::default() };
/// let value = loss.forward(&input1, &input2, &target)?.to_scalar::<f64>()?;
/// assert_eq!(value, 0.25); // (1 - 0.5 + 0) / 2: the right scores are higher by 0.5 and by 2
/// # Ok::<(), candle_core::Error>(())
/// ```
///
#[cfg_attr(doc, doc = include_str!("../../assets/margin_ranking.svg"))]
#[derive(Debug, Clone, Copy, Default)]
pub struct MarginRankingLoss {
    /// Difference of the scores at which the loss becomes 0, in the unit of the scores. Default: 0.
    pub margin: f64,
    /// Reduction of the pair losses. Default: the mean.
    pub reduction: Reduction,
}

const LOSS: &str = "MarginRankingLoss";

impl MarginRankingLoss {
    /// Returns the loss of the scores `input1` and `input2` against `target`, which holds 1 and -1.
    ///
    /// - Shapes: the same for all three arguments, of any rank.
    /// - Dtypes: `input1` and `input2` have the same dtype: `f16`, `bf16`, `f32` or `f64`. `target` is of the same
    ///   dtype or of any integer dtype.
    /// - Result: a scalar of the inputs' dtype. With [`Reduction::None`] it has the shape of the arguments.
    /// - Gradient at the margin, `y·(x1 - x2) = margin`: 0.
    ///
    /// # Errors
    /// If `margin` is NaN, if the shapes, dtypes or devices do not fit together, or if the inputs are not of a float
    /// dtype.
    pub fn forward(&self, input1: &Tensor, input2: &Tensor, target: &Tensor) -> Result<Tensor> {
        check_option(LOSS, "margin", self.margin, !self.margin.is_nan(), "a number")?;
        let args = matching_integers(LOSS, [("input1", input1), ("input2", input2), ("target", target)])?;

        self.reduction.elements(&args, None, *self)
    }
}

impl Elementwise<3> for MarginRankingLoss {
    #[inline(always)]
    fn value_and_grad<S: Scalar>(self, [x1, x2, y]: [S; 3]) -> (S, [S; 3]) {
        let lead = x1 - x2;
        let missing = S::constant(self.margin) - y * lead;
        let is_met = missing.le(zero());
        let unless_met = |value: S| S::select(is_met, zero(), value);
        let grad = unless_met(y);
        (unless_met(missing), [-grad, grad, -unless_met(lead)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::testing::*;

    #[test]
    fn difference_to_the_margin() -> Result<()> {
        let loss = MarginRankingLoss { margin: 0.5, reduction: Reduction::None };
        let (x1, x2, y) = (vector(&[2.0, 2.0, 1.0]), vector(&[1.0, 1.0, 1.0]), vector(&[1.0, -1.0, 1.0]));
        assert_values(loss.forward(&x1, &x2, &y), &[0.0, 1.5, 0.5])
    }

    #[test]
    fn rejects_nan_margin() {
        let (x, loss) = (vector(&[1.0]), MarginRankingLoss { margin: f64::NAN, ..Default::default() });
        refuses(loss.forward(&x, &x, &x), &["MarginRankingLoss", "margin", "NaN"]);
    }

    #[test]
    fn rejects_mismatched_arguments() {
        let x = vector(&[1.0, 2.0]);
        refuses(MarginRankingLoss::default().forward(&x, &vector(&[1.0]), &x), &["input2", "[1]", "input1", "[2]"]);
        refuses(MarginRankingLoss::default().forward(&x, &x, &vector(&[1.0])), &["target", "[1]", "input1", "[2]"]);
        refuses_mismatches("MarginRankingLoss", |x, y| MarginRankingLoss::default().forward(x, x, y));
    }
}
