use super::Reduction;
use super::validate::{check_option, matching};
use crate::kernel::elementwise::Elementwise;
use crate::kernel::scalar::{Scalar, clamp};
use candle_core::{Result, Tensor};

/// Squared error for small errors and absolute error for large ones, for an error `d = x - y`:
///
/// ```text
/// l = d² / 2                   if |d| <= delta
///     delta · (|d| - delta/2)  otherwise
/// ```
///
/// Use it for regression with outliers. The gradient of a sample is at most `delta`, so an outlier has limited
/// influence, and small errors are fitted as precisely as with [`MseLoss`](super::MseLoss). Choose `delta`, in the
/// unit of the target, as the error above which a sample is probably an outlier. If all errors are below `delta`, use
/// the simpler [`MseLoss`](super::MseLoss), which is twice this loss.
///
/// Source: Huber, [Robust Estimation of a Location Parameter](https://doi.org/10.1214/aoms/1177703732), 1964;
/// [`torch.nn.HuberLoss`](https://pytorch.org/docs/stable/generated/torch.nn.HuberLoss.html).
///
/// Example: [`examples/huber.rs`](https://docs.rs/crate/candle-losses/latest/source/examples/huber.rs), run by
/// `cargo run --example huber`.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor, Var};
/// use candle_losses::loss::HuberLoss;
///
/// let input = Var::new(&[0.5, 3.0], &Device::Cpu)?;
/// let target = Tensor::new(&[0.0, 0.0], &Device::Cpu)?;
/// let loss = HuberLoss { delta: 2.0, ..Default::default() };
/// let value = loss.forward(&input, &target)?;
/// assert_eq!(value.to_scalar::<f64>()?, 2.0625); // (0.5² / 2 + 2 · (3 - 2/2)) / 2
/// let grads = value.backward()?;
/// assert_eq!(grads.get(&input).unwrap().to_vec1::<f64>()?, [0.25, 1.0]); // 0.5 and delta, each / 2 for the mean
/// # Ok::<(), candle_core::Error>(())
/// ```
///
#[cfg_attr(doc, doc = include_str!("../../assets/huber.svg"))]
#[derive(Debug, Clone, Copy)]
pub struct HuberLoss {
    /// Error at which the loss changes from quadratic to linear, in the unit of the target; positive. Default: 1.
    pub delta: f64,
    /// Reduction of the element losses. Default: the mean.
    pub reduction: Reduction,
}

impl Default for HuberLoss {
    fn default() -> Self {
        Self { delta: 1.0, reduction: Reduction::default() }
    }
}

const LOSS: &str = "HuberLoss";

impl HuberLoss {
    /// Returns the loss of `input` against `target`.
    ///
    /// - Shapes: the same for both arguments, of any rank.
    /// - Dtypes: the same for both arguments: `f16`, `bf16`, `f32` or `f64`.
    /// - Result: a scalar of the same dtype. With [`Reduction::None`] it has the shape of the arguments.
    /// - Gradient at `|d| = delta`: continuous, `±delta`.
    ///
    /// # Errors
    /// If `delta` is not positive, if the shapes, dtypes or devices differ, or if the dtype is not a float.
    pub fn forward(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
        check_option(LOSS, "delta", self.delta, self.delta > 0.0, "positive")?;
        let args = matching(LOSS, [("input", input), ("target", target)])?;

        self.reduction.elements(&args, None, *self)
    }
}

impl Elementwise<2> for HuberLoss {
    #[inline(always)]
    fn value_and_grad<S: Scalar>(self, [x, y]: [S; 2]) -> (S, [S; 2]) {
        let (error, delta) = (x - y, S::constant(self.delta));
        let distance = error.abs();
        // One expression for both branches: c · (|d| - c/2) with c = min(|d|, delta).
        let c = S::select(distance.lt(delta), distance, delta);
        let grad = clamp(error, delta);
        (c * (distance - c * S::constant(0.5)), [grad, -grad])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::testing::*;

    #[test]
    fn quadratic_then_linear() -> Result<()> {
        let loss = HuberLoss { delta: 2.0, reduction: Reduction::None };
        let zeros = vector(&[0.0; 4]);
        assert_values(loss.forward(&vector(&[1.0, 2.0, -4.0, 0.0]), &zeros), &[0.5, 2.0, 6.0, 0.0])
    }

    #[test]
    fn rejects_nonpositive_delta() {
        let x = vector(&[1.0]);
        for delta in [0.0, -1.0, f64::NAN] {
            refuses(HuberLoss { delta, ..Default::default() }.forward(&x, &x), &["HuberLoss", "delta"]);
        }
    }

    #[test]
    fn rejects_mismatched_arguments() {
        refuses_mismatches("HuberLoss", |x, y| HuberLoss::default().forward(x, y));
    }
}
