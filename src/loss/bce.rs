use super::Reduction;
use super::validate::{broadcast_weight, check_elements, matching_integers};
use crate::kernel::elementwise::Elementwise;
use crate::kernel::ops::TINY;
use crate::kernel::scalar::{Scalar, clamp_min, ln_1p, one};
use candle_core::{Result, Tensor};

/// Binary cross-entropy of a probability `x` against a target `y`:
///
/// ```text
/// l = -w · (y · log x + (1 - y) · log(1 - x))
/// ```
///
/// For a model whose last layer is a sigmoid. Logarithms are clamped at -100, so a certain mistake costs 100 and not
/// infinity. While training, prefer [`BceWithLogitsLoss`](super::BceWithLogitsLoss): once a sigmoid has rounded to 0
/// or 1, what it rounded away is lost to this loss.
///
/// Source: [`torch.nn.BCELoss`](https://pytorch.org/docs/stable/generated/torch.nn.BCELoss.html).
///
/// Example: [`examples/bce.rs`](https://docs.rs/crate/candle-losses/latest/source/examples/bce.rs), run by
/// `cargo run --example bce`.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_losses::loss::BceLoss;
///
/// let input = Tensor::new(&[0.5, 0.25], &Device::Cpu)?;
/// let target = Tensor::new(&[1.0, 0.0], &Device::Cpu)?;
/// let value = BceLoss::default().forward(&input, &target)?.to_scalar::<f64>()?;
/// let expected = -(0.5f64.ln() + 0.75f64.ln()) / 2.0; // of the second, 1 - 0.25 counts: its target is 0
/// assert!((value - expected).abs() < 1e-9);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
#[cfg_attr(doc, doc = include_str!("../../assets/bce.svg"))]
#[derive(Debug, Clone, Default)]
pub struct BceLoss {
    /// `w`, of any float dtype, broadcast to the input's shape; no gradient flows to it. Default: none, all count 1.
    pub weight: Option<Tensor>,
    /// How the element losses are reduced. Default: the mean.
    pub reduction: Reduction,
}

const LOSS: &str = "BceLoss";

impl BceLoss {
    /// The loss of the probabilities `input` against `target`, both in [0, 1].
    ///
    /// Shapes: both of any shape, the same. Dtypes: both `f16`, `bf16`, `f32` or `f64`, the same. The result has that
    /// dtype and is a scalar, or of the arguments' shape with [`Reduction::None`]. As in PyTorch, the derivative is
    /// `(x - y) / max(x · (1 - x), 1e-12)`: large but finite at 0 and 1.
    ///
    /// # Errors
    /// If an element of `input` or `target` is outside [0, 1] or NaN (seen on the CPU only), if shape, dtype or device
    /// of the two differ, if the dtype is not a float, or if `weight` does not broadcast to `input`, is not of a float
    /// dtype or is on another device.
    pub fn forward(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
        let args = matching_integers(LOSS, [("input", input), ("target", target)])?;
        let weight = broadcast_weight(LOSS, "weight", self.weight.as_ref(), input)?;
        let is_probability = |p: f64| (0.0..=1.0).contains(&p);
        check_elements(LOSS, "input", &args[0], is_probability, "in [0, 1] (a sigmoid makes it so)")?;
        check_elements(LOSS, "target", &args[1], is_probability, "in [0, 1]")?;

        self.reduction.elements(&args, weight.as_ref(), BinaryCrossEntropy)
    }
}

#[derive(Clone, Copy)]
struct BinaryCrossEntropy;

impl Elementwise<2> for BinaryCrossEntropy {
    #[inline(always)]
    fn value_and_grad<S: Scalar>(self, [x, y]: [S; 2]) -> (S, [S; 2]) {
        let (one, bound) = (one::<S>(), S::constant(-100.0));
        let (log_x, log_not_x) = (x.ln(), ln_1p(-x));
        let loss = (y - one) * clamp_min(log_not_x, bound) - y * clamp_min(log_x, bound);
        // As in PyTorch, the bounds have no part in the gradients.
        let grad = (x - y) / clamp_min((one - x) * x, S::constant(TINY));
        (loss, [grad, log_not_x - log_x])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::testing::*;

    #[test]
    fn a_certain_mistake_costs_100() -> Result<()> {
        let loss = BceLoss { reduction: Reduction::None, ..Default::default() };
        assert_values(
            loss.forward(&vector(&[0.5, 0.0, 1.0, 1.0]), &vector(&[1.0, 1.0, 0.0, 1.0])),
            &[2f64.ln(), 100.0, 100.0, 0.0],
        )
    }

    #[test]
    fn refuses_what_is_no_probability() {
        let (half, loss) = (vector(&[0.5, 0.5]), BceLoss::default());
        for bad in [-0.1, 1.1, f64::NAN] {
            let bad = vector(&[0.5, bad]);
            refuses(loss.forward(&bad, &half), &["BceLoss", "input", "[0, 1]", "element 1"]);
            refuses(loss.forward(&half, &bad), &["BceLoss", "target", "[0, 1]", "element 1"]);
        }
    }

    #[test]
    fn refuses_what_does_not_match() {
        refuses_mismatches("BceLoss", |x, y| BceLoss::default().forward(x, y));
        let loss = BceLoss { weight: Some(vector(&[1.0, 2.0, 3.0])), ..Default::default() };
        let half = vector(&[0.5, 0.5]);
        refuses(loss.forward(&half, &half), &["BceLoss", "weight", "[3]", "[2]"]);
    }
}
