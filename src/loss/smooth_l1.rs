use super::validate::{check_option, matching};
use super::{L1Loss, Reduction};
use crate::kernel::elementwise::Elementwise;
use crate::kernel::scalar::{Scalar, clamp, one};
use candle_core::{Result, Tensor};

/// Absolute error with its corner rounded off, for an error `d = x - y`:
///
/// ```text
/// l = d² / (2·beta)    if |d| < beta
///     |d| - beta / 2   otherwise
/// ```
///
/// For regression with outliers where the last digits matter too, such as the corners of boxes. The slope is ±1 away
/// from the target, as with [`L1Loss`], and falls to 0 within `beta` of it. It is [`HuberLoss`](super::HuberLoss) with
/// `delta = beta`, divided by `beta`: a larger `beta` makes it flatter where Huber becomes steeper. Take Huber where
/// small errors should cost the same whatever the bound. `beta = 0` is [`L1Loss`].
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
    /// The error at which the parabola goes over into the line; at least 0, in the target's unit. Default 1.
    pub beta: f64,
    /// How the element losses are reduced. Default: the mean.
    pub reduction: Reduction,
}

impl Default for SmoothL1Loss {
    fn default() -> Self {
        Self { beta: 1.0, reduction: Reduction::default() }
    }
}

const LOSS: &str = "SmoothL1Loss";

impl SmoothL1Loss {
    /// The loss of `input` against `target`.
    ///
    /// Shapes: both of any shape, the same. Dtypes: both `f16`, `bf16`, `f32` or `f64`, the same. The result has that
    /// dtype and is a scalar, or of the arguments' shape with [`Reduction::None`].
    ///
    /// # Errors
    /// If `beta` is negative, if shape, dtype or device of the two differ, or the dtype is not a float.
    pub fn forward(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
        check_option(LOSS, "beta", self.beta, self.beta >= 0.0, "0 or more")?;
        let args = matching(LOSS, [("input", input), ("target", target)])?;
        // As in PyTorch, also if `beta` is 0 only in single precision.
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
        // Both branches at once: c / beta · (|d| - c/2) with c = min(|d|, beta).
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
    fn a_parabola_then_a_line() -> Result<()> {
        let loss = SmoothL1Loss { beta: 2.0, reduction: Reduction::None };
        let zeros = vector(&[0.0; 4]);
        assert_values(loss.forward(&vector(&[1.0, 2.0, -4.0, 0.0]), &zeros), &[0.25, 1.0, 3.0, 0.0])
    }

    #[test]
    fn refuses_a_negative_beta() {
        let x = vector(&[1.0]);
        for beta in [-0.5, f64::NAN] {
            refuses(SmoothL1Loss { beta, ..Default::default() }.forward(&x, &x), &["SmoothL1Loss", "beta"]);
        }
    }

    #[test]
    fn refuses_what_does_not_match() {
        refuses_mismatches("SmoothL1Loss", |x, y| SmoothL1Loss::default().forward(x, y));
    }
}
