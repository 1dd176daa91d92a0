use super::{Reduction, check_option, matching, ops};
use candle_core::{Result, Tensor};

/// A loss on which of two scores should be the higher, `x1` if `y = 1` or `x2` if `y = -1`:
///
/// ```text
/// l = max(0, margin - y·(x1 - x2))
/// ```
///
/// For learning an order from comparisons: search results, preferences. It asks that the right score lead by `margin`
/// and is then content; with the default of 0, equal scores cost nothing, and two constant ones are a solution.
///
/// Source: [`torch.nn.MarginRankingLoss`](https://pytorch.org/docs/stable/generated/torch.nn.MarginRankingLoss.html).
#[derive(Debug, Clone, Default)]
pub struct MarginRankingLoss {
    /// The lead from which a pair costs nothing, in the unit of the scores. Default 0.
    pub margin: f64,
    /// How the pair losses are reduced.
    pub reduction: Reduction,
}

impl MarginRankingLoss {
    /// The loss of the scores `input1` and `input2` against `target`, 1 or -1.
    ///
    /// Shapes: all three of any shape, the same; the result is a scalar, or of that shape with [`Reduction::None`].
    /// The derivative of a margin that is met exactly is 0.
    ///
    /// # Errors
    /// If `margin` is NaN, if shape, dtype or device of the three differ, or the dtype is not a float.
    pub fn forward(&self, input1: &Tensor, input2: &Tensor, target: &Tensor) -> Result<Tensor> {
        check_option("MarginRankingLoss", "margin", self.margin, !self.margin.is_nan(), "a number")?;
        let [x1, x2, y] = matching("MarginRankingLoss", [("input1", input1), ("input2", input2), ("target", target)])?;

        let loss = ops::relu(&(self.margin - (y * (x1 - x2)?)?)?)?;

        self.reduction.reduce(&loss, input1.dtype())
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
