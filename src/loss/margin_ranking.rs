use super::Reduction;
use super::validate::{check_option, matching_integers};
use crate::kernel::elementwise::Elementwise;
use crate::kernel::scalar::{Scalar, zero};
use candle_core::{Result, Tensor};

/// A loss on which of two scores should be the higher, `x1` if `y = 1` or `x2` if `y = -1`:
///
/// ```text
/// l = max(0, margin - y·(x1 - x2))
/// ```
///
/// For learning an order from comparisons: search results, preferences. It asks that the right score lead by `margin`
/// and is then content; with the default of 0, equal scores cost nothing, and two constant ones are a solution. Where
/// the scores themselves are known and not only their order, [`MseLoss`](super::MseLoss) tells the model more.
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
/// let target = Tensor::new(&[1.0, -1.0], &Device::Cpu)?; // the first should lead, then the second
/// let loss = MarginRankingLoss { margin: 1.0, ..Default::default() };
/// let value = loss.forward(&input1, &input2, &target)?.to_scalar::<f64>()?;
/// assert_eq!(value, 0.25); // (1 - 0.5 + 0) / 2: one leads by 0.5, the other by 2
/// # Ok::<(), candle_core::Error>(())
/// ```
///
#[cfg_attr(doc, doc = include_str!("../../assets/margin_ranking.svg"))]
#[derive(Debug, Clone, Copy, Default)]
pub struct MarginRankingLoss {
    /// The lead from which a pair costs nothing, in the unit of the scores. Default 0.
    pub margin: f64,
    /// How the pair losses are reduced. Default: the mean.
    pub reduction: Reduction,
}

const LOSS: &str = "MarginRankingLoss";

impl MarginRankingLoss {
    /// The loss of the scores `input1` and `input2` against `target`, 1 or -1.
    ///
    /// Shapes: all three of any shape, the same. Dtypes: all three `f16`, `bf16`, `f32` or `f64`, the same. The result
    /// has that dtype and is a scalar, or of the arguments' shape with [`Reduction::None`]. The derivative of a margin
    /// that is met exactly is 0.
    ///
    /// # Errors
    /// If `margin` is NaN, if shape, dtype or device of the three differ, or the dtype is not a float.
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
    fn what_is_missing_to_the_lead() -> Result<()> {
        let loss = MarginRankingLoss { margin: 0.5, reduction: Reduction::None };
        let (x1, x2, y) = (vector(&[2.0, 2.0, 1.0]), vector(&[1.0, 1.0, 1.0]), vector(&[1.0, -1.0, 1.0]));
        assert_values(loss.forward(&x1, &x2, &y), &[0.0, 1.5, 0.5])
    }

    #[test]
    fn refuses_a_margin_that_is_no_number() {
        let (x, loss) = (vector(&[1.0]), MarginRankingLoss { margin: f64::NAN, ..Default::default() });
        refuses(loss.forward(&x, &x, &x), &["MarginRankingLoss", "margin", "NaN"]);
    }

    #[test]
    fn refuses_what_does_not_match() {
        let x = vector(&[1.0, 2.0]);
        refuses(MarginRankingLoss::default().forward(&x, &vector(&[1.0]), &x), &["input2", "[1]", "input1", "[2]"]);
        refuses(MarginRankingLoss::default().forward(&x, &x, &vector(&[1.0])), &["target", "[1]", "input1", "[2]"]);
        refuses_mismatches("MarginRankingLoss", |x, y| MarginRankingLoss::default().forward(x, x, y));
    }
}
