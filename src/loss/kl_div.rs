use super::Reduction;
use super::validate::{check_elements, matching};
use crate::kernel::elementwise::Elementwise;
use crate::kernel::scalar::{Scalar, one, zero};
use candle_core::{Result, Tensor};

/// Kullback-Leibler divergence of a target distribution `y` from predicted log-probabilities `x`, for each element:
///
/// ```text
/// l = y · (log y - x)     for a target of probabilities, with 0·log 0 = 0
///     e^y · (y - x)       for a target of log-probabilities (log_target)
/// ```
///
/// Use it to learn a whole distribution, such as soft labels or the outputs of a teacher, with a log-softmax as the
/// last layer. The divergence is the sum over the classes. For an input `(N, C)` use [`Reduction::BatchMean`]: the
/// default mean also divides by the number of classes. Do not pass class indices as the target: for classes use
/// [`NllLoss`](super::NllLoss). For logits against a distribution use [`CrossEntropyLoss`](super::CrossEntropyLoss),
/// which has the same gradient.
///
/// Source: Kullback & Leibler, [On Information and Sufficiency](https://doi.org/10.1214/aoms/1177729694), 1951;
/// [`torch.nn.KLDivLoss`](https://pytorch.org/docs/stable/generated/torch.nn.KLDivLoss.html).
///
/// Example: [`examples/kl_div.rs`](https://docs.rs/crate/candle-losses/latest/source/examples/kl_div.rs), run by
/// `cargo run --example kl_div`.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_losses::loss::{KlDivLoss, Reduction};
///
/// let input = Tensor::new(&[[0.5, 0.5]], &Device::Cpu)?.log()?;
/// let target = Tensor::new(&[[0.75, 0.25]], &Device::Cpu)?;
/// let loss = KlDivLoss { reduction: Reduction::BatchMean, ..Default::default() };
/// let value = loss.forward(&input, &target)?.to_scalar::<f64>()?;
/// let expected = 0.75 * 1.5f64.ln() + 0.25 * 0.5f64.ln(); // y · log(y / 0.5), summed over the classes
/// assert!((value - expected).abs() < 1e-9);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
#[cfg_attr(doc, doc = include_str!("../../assets/kl_div.svg"))]
#[derive(Debug, Clone, Copy, Default)]
pub struct KlDivLoss {
    /// Whether the target holds log-probabilities, with natural logarithms as in the input. Default: false.
    pub log_target: bool,
    /// Reduction of the element losses. Default: the mean over all elements, which is not the mean divergence.
    pub reduction: Reduction,
}

const LOSS: &str = "KlDivLoss";

impl KlDivLoss {
    /// Returns the loss of the log-probabilities `input` against the distributions `target`. A distribution should sum
    /// to 1; this is not checked.
    ///
    /// - Shapes: the same for both arguments, of any rank.
    /// - Dtypes: the same for both arguments: `f16`, `bf16`, `f32` or `f64`.
    /// - Result: a scalar of the same dtype. With [`Reduction::None`] it has the shape of the arguments.
    /// - Gradient by a target probability of 0: `-x`, or 0 if `x` is infinite. By a target of -∞ with `log_target`: 0.
    ///
    /// # Errors
    /// If a probability in `target` is negative (checked on the CPU only), if the shapes, dtypes or devices differ, or
    /// if the dtype is not a float.
    pub fn forward(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
        let args = matching(LOSS, [("input", input), ("target", target)])?;
        if !self.log_target {
            let is_negative = |p: f64| p < 0.0;
            check_elements(LOSS, "target", &args[1], |p| !is_negative(p), "a probability, 0 or more")?;
        }

        self.reduction.elements(&args, None, *self)
    }
}

impl Elementwise<2> for KlDivLoss {
    #[inline(always)]
    fn value_and_grad<S: Scalar>(self, [x, y]: [S; 2]) -> (S, [S; 2]) {
        // The loss is 0 where the target probability is 0, for every input but NaN.
        let is_infinite = x.abs().eq(S::constant(f64::INFINITY));
        let unless_infinite = |value: S| S::select(is_infinite, zero(), value);
        if self.log_target {
            let (p, is_impossible) = (y.exp(), y.eq(S::constant(f64::NEG_INFINITY)));
            let at_0 = unless_infinite(p * x);
            let loss = S::select(is_impossible, at_0, p * (y - x));
            return (loss, [-p, S::select(is_impossible, at_0, loss + p)]);
        }
        let (log, product, is_impossible) = (y.ln(), y * x, y.eq(zero()));
        let loss = S::select(is_impossible, unless_infinite(product), y * log - product);
        (loss, [-y, S::select(is_impossible, unless_infinite(-x), log + one() - x)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::testing::*;

    #[test]
    fn divergence_of_equal_distributions_is_0() -> Result<()> {
        let p = vector(&[0.25, 0.75]);
        let loss = KlDivLoss { reduction: Reduction::Sum, ..Default::default() };
        assert_values(loss.forward(&p.log()?, &p), &[0.0])?;
        assert_values(loss.forward(&p.log()?, &vector(&[1.0, 0.0])), &[4f64.ln()])
    }

    #[test]
    fn rejects_negative_probability() {
        let x = vector(&[-1.0, -1.0]);
        refuses(KlDivLoss::default().forward(&x, &vector(&[1.5, -0.5])), &["KlDivLoss", "target", "-0.5"]);
    }

    #[test]
    fn rejects_mismatched_arguments() {
        refuses_mismatches("KlDivLoss", |x, y| KlDivLoss::default().forward(x, &y.abs()?));
    }
}
