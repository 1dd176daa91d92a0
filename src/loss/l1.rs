use super::Reduction;
use super::validate::matching;
use crate::kernel::elementwise::Elementwise;
use crate::kernel::scalar::{Scalar, sign};
use candle_core::{Result, Tensor};

/// Absolute error: `l = |x - y|`, for an input `x` and a target `y`.
///
/// For regression with outliers. The gradient has the same size however far off a prediction is, so outliers pull no
/// harder than any other sample, and the best constant prediction is the median. It does not shrink near the target
/// either: where the last digits matter, [`SmoothL1Loss`](super::SmoothL1Loss) or [`HuberLoss`](super::HuberLoss)
/// settle better.
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
    /// How the element losses are reduced. Default: the mean.
    pub reduction: Reduction,
}

const LOSS: &str = "L1Loss";

impl L1Loss {
    /// The loss of `input` against `target`.
    ///
    /// Shapes: both of any shape, the same. Dtypes: both `f16`, `bf16`, `f32` or `f64`, the same. The result has that
    /// dtype and is a scalar, or of the arguments' shape with [`Reduction::None`]. The derivative at `x = y` is 0.
    ///
    /// # Errors
    /// If shape, dtype or device of the two differ, or the dtype is not a float.
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
    fn distance_without_its_sign() -> Result<()> {
        let loss = L1Loss { reduction: Reduction::None };
        assert_values(loss.forward(&vector(&[1.0, -1.0, 2.0]), &vector(&[0.5, 1.0, 2.0])), &[0.5, 2.0, 0.0])
    }

    #[test]
    fn refuses_what_does_not_match() {
        refuses_mismatches("L1Loss", |x, y| L1Loss::default().forward(x, y));
    }
}
