use super::Reduction;
use super::validate::matching;
use crate::kernel::elementwise::Elementwise;
use crate::kernel::scalar::Scalar;
use candle_core::{Result, Tensor};

/// Squared error, for an input `x` and a target `y`:
///
/// ```text
/// l = (x - y)²
/// ```
///
/// Use it for regression. It is the maximum-likelihood loss under Gaussian noise of constant variance, and the best
/// constant prediction is the mean. The gradient grows with the error, so a few outliers can dominate the fit: with
/// outliers use [`HuberLoss`](super::HuberLoss) or [`L1Loss`](super::L1Loss).
///
/// Source: [`torch.nn.MSELoss`](https://pytorch.org/docs/stable/generated/torch.nn.MSELoss.html).
///
/// Example: [`examples/mse.rs`](https://docs.rs/crate/candle-losses/latest/source/examples/mse.rs), run by
/// `cargo run --example mse`.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_losses::loss::MseLoss;
///
/// let input = Tensor::new(&[0.5, 3.0], &Device::Cpu)?;
/// let target = Tensor::new(&[1.0, 0.0], &Device::Cpu)?;
/// let value = MseLoss::default().forward(&input, &target)?.to_scalar::<f64>()?;
/// assert_eq!(value, 4.625); // ((0.5 - 1)² + (3 - 0)²) / 2
/// # Ok::<(), candle_core::Error>(())
/// ```
///
#[cfg_attr(doc, doc = include_str!("../../assets/mse.svg"))]
#[derive(Debug, Clone, Copy, Default)]
pub struct MseLoss {
    /// Reduction of the element losses. Default: the mean.
    pub reduction: Reduction,
}

const LOSS: &str = "MseLoss";

impl MseLoss {
    /// Returns the loss of `input` against `target`.
    ///
    /// - Shapes: the same for both arguments, of any rank.
    /// - Dtypes: the same for both arguments: `f16`, `bf16`, `f32` or `f64`.
    /// - Result: a scalar of the same dtype. With [`Reduction::None`] it has the shape of the arguments.
    ///
    /// # Errors
    /// If the shapes, dtypes or devices differ, or if the dtype is not a float.
    pub fn forward(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
        let args = matching(LOSS, [("input", input), ("target", target)])?;

        self.reduction.elements(&args, None, *self)
    }
}

impl Elementwise<2> for MseLoss {
    #[inline(always)]
    fn value_and_grad<S: Scalar>(self, [x, y]: [S; 2]) -> (S, [S; 2]) {
        let error = x - y;
        let grad = error * S::constant(2.0);
        (error * error, [grad, -grad])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::testing::*;

    #[test]
    fn squared_error() -> Result<()> {
        let loss = MseLoss { reduction: Reduction::None };
        assert_values(loss.forward(&vector(&[1.0, -1.0, 2.0]), &vector(&[0.5, 1.0, 2.0])), &[0.25, 4.0, 0.0])
    }

    #[test]
    fn rejects_mismatched_arguments() {
        refuses_mismatches("MseLoss", |x, y| MseLoss::default().forward(x, y));
    }
}
