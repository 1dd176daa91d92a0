use super::validate::{check_option, matching};
use super::{L1Loss, Reduction};
use crate::kernel::elementwise::Elementwise;
use crate::kernel::scalar::{Scalar, clamp, one};
use candle_core::{Result, Tensor};

/// Absolute error, made quadratic for small errors, for an error `d = x - y`:
///
/// ```text
/// l = d² / (2·beta)    if |d| < beta
///     |d| - beta / 2   otherwise
/// ```
///
/// Use it for regression with outliers that needs precise predictions too, such as the corners of bounding boxes. The
/// gradient is ±1 for large errors, as in [`L1Loss`], and shrinks to 0 for errors below `beta`. The loss equals
/// [`HuberLoss`](super::HuberLoss) with `delta = beta`, divided by `beta`. If the loss of small errors should not
/// depend on the bound, use Huber. `beta = 0` gives [`L1Loss`].
///
/// Source: Girshick, [Fast R-CNN](https://arxiv.org/abs/1504.08083), 2015 (there with `beta = 1`);
/// [`torch.nn.SmoothL1Loss`](https://pytorch.org/docs/stable/generated/torch.nn.SmoothL1Loss.html).
///
/// Example: [`examples/smooth_l1.rs`](https://docs.rs/crate/candle-losses/latest/source/examples/smooth_l1.rs), run by
/// `cargo run --example smooth_l1`.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_losses::loss::SmoothL1Loss;
///
/// let input = Tensor::new(&[0.25, 3.0], &Device::Cpu)?;
/// let target = Tensor::new(&[0.0, 0.0], &Device::Cpu)?;
/// let loss = SmoothL1Loss { beta: 0.5, ..Default::default() };
/// let value = loss.forward(&input, &target)?.to_scalar::<f64>()?;
/// assert_eq!(value, 1.40625); // (0.25² / (2 · 0.5) + (3 - 0.5/2)) / 2
/// # Ok::<(), candle_core::Error>(())
/// ```
///
#[cfg_attr(doc, doc = include_str!("../../assets/smooth_l1.svg"))]
#[derive(Debug, Clone, Copy)]
pub struct SmoothL1Loss {
    /// Error at which the loss changes from quadratic to linear, in the unit of the target; 0 or more. Default: 1.
    pub beta: f64,
    /// Reduction of the element losses. Default: the mean.
    pub reduction: Reduction,
}

impl Default for SmoothL1Loss {
    fn default() -> Self {
        Self { beta: 1.0, reduction: Reduction::default() }
    }
}

const LOSS: &str = "SmoothL1Loss";

impl SmoothL1Loss {
    /// Returns the loss of `input` against `target`.
    ///
    /// - Shapes: the same for both arguments, of any rank.
    /// - Dtypes: the same for both arguments: `f16`, `bf16`, `f32` or `f64`.
    /// - Result: a scalar of the same dtype. With [`Reduction::None`] it has the shape of the arguments.
    /// - Gradient: continuous at `|d| = beta`. With `beta = 0` it is 0 at `x = y`.
    ///
    /// # Errors
    /// If `beta` is negative or NaN, if the shapes, dtypes or devices differ, or if the dtype is not a float.
    pub fn forward(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
        check_option(LOSS, "beta", self.beta, self.beta >= 0.0, "0 or more")?;
        let args = matching(LOSS, [("input", input), ("target", target)])?;
        // As in PyTorch, this includes a `beta` that becomes 0 in `f32`.
        if self.beta as f32 == 0.0 {
            return L1Loss { reduction: self.reduction }.forward(input, target);
        }

        self.reduction.elements(&args, None, *self)
    }
}

impl Elementwise<2> for SmoothL1Loss {
    #[inline(always)]
    fn value_and_grad<S: Scalar>(self, [x, y]: [S; 2]) -> (S, [S; 2]) {
        let (error, beta) = (x - y, S::constant(self.beta));
        let distance = error.abs();
        // One expression for both branches: c / beta · (|d| - c/2) with c = min(|d|, beta).
        let c = S::select(distance.lt(beta), distance, beta);
        let grad = clamp(error / beta, one());
        (c / beta * (distance - c * S::constant(0.5)), [grad, -grad])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::testing::*;

    #[test]
    fn quadratic_then_linear() -> Result<()> {
        let loss = SmoothL1Loss { beta: 2.0, reduction: Reduction::None };
        let zeros = vector(&[0.0; 4]);
        assert_values(loss.forward(&vector(&[1.0, 2.0, -4.0, 0.0]), &zeros), &[0.25, 1.0, 3.0, 0.0])
    }

    #[test]
    fn rejects_negative_beta() {
        let x = vector(&[1.0]);
        for beta in [-0.5, f64::NAN] {
            refuses(SmoothL1Loss { beta, ..Default::default() }.forward(&x, &x), &["SmoothL1Loss", "beta"]);
        }
    }

    #[test]
    fn rejects_mismatched_arguments() {
        refuses_mismatches("SmoothL1Loss", |x, y| SmoothL1Loss::default().forward(x, y));
    }
}
