use super::Reduction;
use super::validate::matching;
use crate::kernel::elementwise::Elementwise;
use crate::kernel::scalar::{Scalar, sign};
use candle_core::{Result, Tensor};

/// Absolute error, for an input `x` and a target `y`:
///
/// ```text
/// l = |x - y|
/// ```
///
/// Use it for regression with outliers. The gradient has the same size for every error, so an outlier has no more
/// influence than any other sample. The best constant prediction is the median. The gradient does not shrink near the
/// target: for precise predictions use [`SmoothL1Loss`](super::SmoothL1Loss) or [`HuberLoss`](super::HuberLoss).
///
/// Source: [`torch.nn.L1Loss`](https://pytorch.org/docs/stable/generated/torch.nn.L1Loss.html).
///
/// Example: [`examples/l1.rs`](https://docs.rs/crate/candle-losses/latest/source/examples/l1.rs), run by
/// `cargo run --example l1`.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_losses::loss::L1Loss;
///
/// let input = Tensor::new(&[0.5, 3.0], &Device::Cpu)?;
/// let target = Tensor::new(&[1.0, 0.0], &Device::Cpu)?;
/// let value = L1Loss::default().forward(&input, &target)?.to_scalar::<f64>()?;
/// assert_eq!(value, 1.75); // (|0.5 - 1| + |3 - 0|) / 2
/// # Ok::<(), candle_core::Error>(())
/// ```
///
#[cfg_attr(doc, doc = include_str!("../../assets/l1.svg"))]
#[derive(Debug, Clone, Copy, Default)]
pub struct L1Loss {
    /// Reduction of the element losses. Default: the mean.
    pub reduction: Reduction,
}

const LOSS: &str = "L1Loss";

impl L1Loss {
    /// Returns the loss of `input` against `target`.
    ///
    /// - Shapes: the same for both arguments, of any rank.
    /// - Dtypes: the same for both arguments: `f16`, `bf16`, `f32` or `f64`.
    /// - Result: a scalar of the same dtype. With [`Reduction::None`] it has the shape of the arguments.
    /// - Gradient at `x = y`: 0.
    ///
    /// # Errors
    /// If the shapes, dtypes or devices differ, or if the dtype is not a float.
    pub fn forward(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
        let args = matching(LOSS, [("input", input), ("target", target)])?;

        self.reduction.elements(&args, None, *self)
    }
}

impl Elementwise<2> for L1Loss {
    #[inline(always)]
    fn value_and_grad<S: Scalar>(self, [x, y]: [S; 2]) -> (S, [S; 2]) {
        let error = x - y;
        let grad = sign(error);
        (error.abs(), [grad, -grad])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::testing::*;

    #[test]
    fn absolute_error() -> Result<()> {
        let loss = L1Loss { reduction: Reduction::None };
        assert_values(loss.forward(&vector(&[1.0, -1.0, 2.0]), &vector(&[0.5, 1.0, 2.0])), &[0.5, 2.0, 0.0])
    }

    #[test]
    fn rejects_mismatched_arguments() {
        refuses_mismatches("L1Loss", |x, y| L1Loss::default().forward(x, y));
    }
}
