use super::Reduction;
use super::validate::{check_option, matching};
use crate::kernel::elementwise::Elementwise;
use crate::kernel::scalar::{Scalar, clamp};
use candle_core::{Result, Tensor};

/// Squared error near the target, absolute error far from it, for an error `d = x - y`:
///
/// ```text
/// l = d² / 2                   if |d| <= delta
///     delta · (|d| - delta/2)  otherwise
/// ```
///
/// Takes the mean's efficiency for small errors and the median's calm for large ones: no sample pulls harder than
/// `delta`. Choose `delta` as the error, in the target's unit, beyond which a sample is rather wrong than informative.
/// Where all errors stay below it, [`MseLoss`](super::MseLoss) is the same and simpler (twice this loss).
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
    /// The error at which the parabola goes over into the line; positive, in the target's unit. Default 1.
    pub delta: f64,
    /// How the element losses are reduced. Default: the mean.
    pub reduction: Reduction,
}

impl Default for HuberLoss {
    fn default() -> Self {
        Self { delta: 1.0, reduction: Reduction::default() }
    }
}

const LOSS: &str = "HuberLoss";

impl HuberLoss {
    /// The loss of `input` against `target`.
    ///
    /// Shapes: both of any shape, the same. Dtypes: both `f16`, `bf16`, `f32` or `f64`, the same. The result has that
    /// dtype and is a scalar, or of the arguments' shape with [`Reduction::None`].
    ///
    /// # Errors
    /// If `delta` is not positive, if shape, dtype or device of the two differ, or the dtype is not a float.
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
        // Both branches at once: c · (|d| - c/2) with c = min(|d|, delta).
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
    fn a_parabola_then_a_line() -> Result<()> {
        let loss = HuberLoss { delta: 2.0, reduction: Reduction::None };
        let zeros = vector(&[0.0; 4]);
        assert_values(loss.forward(&vector(&[1.0, 2.0, -4.0, 0.0]), &zeros), &[0.5, 2.0, 6.0, 0.0])
    }

    #[test]
    fn refuses_a_delta_that_is_not_positive() {
        let x = vector(&[1.0]);
        for delta in [0.0, -1.0, f64::NAN] {
            refuses(HuberLoss { delta, ..Default::default() }.forward(&x, &x), &["HuberLoss", "delta"]);
        }
    }

    #[test]
    fn refuses_what_does_not_match() {
        refuses_mismatches("HuberLoss", |x, y| HuberLoss::default().forward(x, y));
    }
}
