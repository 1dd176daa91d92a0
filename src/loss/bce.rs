use super::Reduction;
use super::validate::{broadcast_weight, check_elements, matching_integers};
use crate::kernel::elementwise::Elementwise;
use crate::kernel::ops::EPSILON;
use crate::kernel::scalar::{Scalar, clamp_min, ln_1p, one};
use candle_core::{Result, Tensor};

/// Binary cross-entropy of a probability `x` against a target `y`:
///
/// ```text
/// l = -w · (y · log x + (1 - y) · log(1 - x))
/// ```
///
/// Use it for yes-or-no labels if the model outputs probabilities. For training prefer
/// [`BceWithLogitsLoss`](super::BceWithLogitsLoss), which takes the logits: a sigmoid rounds to exactly 0 or 1 for
/// large logits, and this loss then can't tell how large they are. Logarithms are clamped at -100, so the loss of a
/// completely wrong prediction is 100, not infinity.
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
/// let expected = -(0.5f64.ln() + 0.75f64.ln()) / 2.0; // log x for target 1, log(1 - x) for target 0
/// assert!((value - expected).abs() < 1e-9);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
#[cfg_attr(doc, doc = include_str!("../../assets/bce.svg"))]
#[derive(Debug, Clone, Default)]
pub struct BceLoss {
    /// Weight `w` of each element, of any float dtype. It is broadcast to the shape of the input and gets no gradient.
    /// Default: `None`, a weight of 1.
    pub weight: Option<Tensor>,
    /// Reduction of the element losses. Default: the mean.
    pub reduction: Reduction,
}

const LOSS: &str = "BceLoss";

impl BceLoss {
    /// Returns the loss of the probabilities `input` against `target`. Both are in [0, 1].
    ///
    /// - Shapes: the same for both arguments, of any rank.
    /// - Dtypes: `input` is `f16`, `bf16`, `f32` or `f64`. `target` is of the same dtype or of any integer dtype.
    /// - Result: a scalar of the input's dtype. With [`Reduction::None`] it has the shape of the arguments.
    /// - Gradient: `w · (x - y) / max(x · (1 - x), 1e-12)`, as in PyTorch. It is large but finite at 0 and 1.
    ///
    /// # Errors
    /// If an element of `input` or `target` is outside [0, 1] or NaN (checked on the CPU only), if the shapes, dtypes
    /// or devices do not fit together, if `input` is not of a float dtype, or if `weight` does not broadcast to
    /// `input`, is not of a float dtype, or is on another device.
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
        // As in PyTorch, the gradient ignores the bound.
        let grad = (x - y) / clamp_min((one - x) * x, S::constant(EPSILON));
        (loss, [grad, log_not_x - log_x])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::testing::*;

    #[test]
    fn loss_of_a_completely_wrong_prediction_is_100() -> Result<()> {
        let loss = BceLoss { reduction: Reduction::None, ..Default::default() };
        assert_values(
            loss.forward(&vector(&[0.5, 0.0, 1.0, 1.0]), &vector(&[1.0, 1.0, 0.0, 1.0])),
            &[2f64.ln(), 100.0, 100.0, 0.0],
        )
    }

    #[test]
    fn rejects_values_outside_0_to_1() {
        let (half, loss) = (vector(&[0.5, 0.5]), BceLoss::default());
        for bad in [-0.1, 1.1, f64::NAN] {
            let bad = vector(&[0.5, bad]);
            refuses(loss.forward(&bad, &half), &["BceLoss", "input", "[0, 1]", "element 1"]);
            refuses(loss.forward(&half, &bad), &["BceLoss", "target", "[0, 1]", "element 1"]);
        }
    }

    #[test]
    fn rejects_mismatched_arguments() {
        refuses_mismatches("BceLoss", |x, y| BceLoss::default().forward(x, y));
        let loss = BceLoss { weight: Some(vector(&[1.0, 2.0, 3.0])), ..Default::default() };
        let half = vector(&[0.5, 0.5]);
        refuses(loss.forward(&half, &half), &["BceLoss", "weight", "[3]", "[2]"]);
    }
}
