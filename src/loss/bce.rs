use super::{Reduction, broadcast_weight, check_elements, matching, whole};
use crate::kernel::scalar::{Float, ln_1p, most, of};
use crate::kernel::{Formula, ops};
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
        let args = matching("BceLoss", [("input", input), ("target", &whole(target, input)?)])?;
        let weight = broadcast_weight("BceLoss", "weight", self.weight.as_ref(), input)?;
        let probability = |p: f64| (0.0..=1.0).contains(&p);
        check_elements("BceLoss", "input", &args[0], probability, "in [0, 1] (a sigmoid makes it so)")?;
        check_elements("BceLoss", "target", &args[1], probability, "in [0, 1]")?;

        self.reduction.elements(args, weight.as_ref(), CrossEntropy, |[x, y]| cross_entropy(&x, &y))
    }
}

#[derive(Clone, Copy)]
struct CrossEntropy;

impl Formula<2> for CrossEntropy {
    #[inline(always)]
    fn at<W: Float>(&self, [x, y]: [W; 2]) -> (W, [W; 2]) {
        let one = W::ONE;
        let (log_x, log_not_x) = (x.ln(), ln_1p(-x));
        let loss = (y - one) * most(log_not_x, of(-100.0)) - y * most(log_x, of(-100.0));
        (loss, [(x - y) / most((one - x) * x, of(ops::TINY)), log_not_x - log_x])
    }
}

/// The same of tensors, with PyTorch's gradients, which its bounds have no part in.
fn cross_entropy(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    let (p, q) = (x.detach(), y.detach());
    let log_p = ops::at_least(&p.log()?, -100.)?;
    let log_not_p = ops::at_least(&ops::log1p(&p.neg()?)?, -100.)?;
    let value = (((&q - 1.)? * log_not_p)? - (&q * log_p)?)?;
    let loss = ops::with_gradient(x, &value, {
        let p = p.clone();
        move |grad| grad * ((&p - &q)? / ops::at_least(&(&p * (1. - &p)?)?, ops::TINY)?)?
    })?;
    if !y.track_op() {
        return Ok(loss);
    }
    let of_target = move |grad: &Tensor| grad * ((1. - &p)?.log()? - p.log()?)?;
    loss + ops::with_gradient(y, &value.zeros_like()?, of_target)?
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
