use super::fused::fused;
use super::scalar::{logistic, positive};
use super::{Reduction, matching, ops};
use candle_core::{Result, Tensor};

/// Logistic loss of a score `x` against a side `y`, 1 or -1: `l = log(1 + e^(-y·x))`.
///
/// A smooth hinge: it falls with the score's lead on the right side and never quite reaches 0. With an unbounded score
/// it is [`BceWithLogitsLoss`](super::BceWithLogitsLoss) with sides for labels. Behind a tanh, which keeps the score in
/// [-1, 1], it can't fall below `log(1 + 1/e) = 0.313`.
///
/// Computed without overflow: a score of 10,000 on the wrong side costs 10,000, where PyTorch gives infinity and a NaN
/// gradient.
///
/// Source: [`torch.nn.SoftMarginLoss`](https://pytorch.org/docs/stable/generated/torch.nn.SoftMarginLoss.html).
#[derive(Debug, Clone, Default)]
pub struct SoftMarginLoss {
    /// How the element losses are reduced.
    pub reduction: Reduction,
}

impl SoftMarginLoss {
    /// The loss of the scores `input` against `target`, 1 or -1.
    ///
    /// Shapes: both of any shape, the same; the result is a scalar, or of that shape with [`Reduction::None`].
    ///
    /// # Errors
    /// If shape, dtype or device of the two differ, or the dtype is not a float.
    pub fn forward(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
        let [x, y] = matching("SoftMarginLoss", [("input", input), ("target", target)])?;

        let formula = |[x, y]: [f32; 2]| {
            let z = -y * x;
            let (tail, sigmoid) = logistic(z);
            (positive(z) + tail, [-y * sigmoid])
        };
        if let Some(loss) = fused([&x, &y], self.reduction.factor(x.dims()), formula)? {
            return loss.to_dtype(input.dtype());
        }

        let loss = ops::log_sigmoid(&(x * y)?)?.neg()?;

        self.reduction.reduce(&loss, input.dtype())
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
