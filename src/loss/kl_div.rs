use super::Reduction;
use super::validate::{check_elements, matching};
use crate::kernel::elementwise::Elementwise;
use crate::kernel::scalar::{Scalar, one, zero};
use candle_core::{Result, Tensor};

/// Kullback-Leibler divergence of predicted log-probabilities `x` from a target distribution `y`, element by element:
///
/// ```text
/// l = y · (log y - x)     if the target is probabilities; 0·log 0 = 0
///     e^y · (y - x)       if log_target: it is log-probabilities
/// ```
///
/// For a model whose last layer is a log-softmax, learning a whole distribution: a teacher's outputs, soft labels. The
/// sum over the classes is the divergence, so the reduction to use is [`Reduction::BatchMean`]; the mean divides by the
/// number of classes once more. Class numbers are no target for it: that would compare a probability with a label. For
/// those take [`NllLoss`](super::NllLoss), and for logits against a distribution
/// [`CrossEntropyLoss`](super::CrossEntropyLoss), with the same gradient.
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
    /// Whether the target is log-probabilities, natural ones like the input. Default false.
    pub log_target: bool,
    /// How the element losses are reduced. Default: the mean, which is rarely the one to use here.
    pub reduction: Reduction,
}

const LOSS: &str = "KlDivLoss";

impl KlDivLoss {
    /// The loss of the log-probabilities `input` against the distributions `target`. Whether those sum to 1 is not
    /// checked.
    ///
    /// Shapes: both of any shape, the same. Dtypes: both `f16`, `bf16`, `f32` or `f64`, the same. The result has that
    /// dtype and is a scalar, or of the arguments' shape with [`Reduction::None`].
    ///
    /// # Errors
    /// If a probability in `target` is negative (seen on the CPU only), if shape, dtype or device of the two differ, or
    /// the dtype is not a float.
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
        // What is impossible in the target costs nothing, whatever the input says.
        if self.log_target {
            let p = y.exp();
            let loss = p * (y - x);
            let unless_impossible = |value: S| S::select(y.eq(S::constant(f64::NEG_INFINITY)), zero(), value);
            return (unless_impossible(loss), [-p, unless_impossible(loss + p)]);
        }
        let (log, is_impossible) = (y.ln(), y.eq(zero()));
        let at_0 = S::select(x.abs().eq(S::constant(f64::INFINITY)), zero(), -x);
        let loss = S::select(is_impossible, zero(), y * log - y * x);
        (loss, [-y, S::select(is_impossible, at_0, log + one() - x)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::testing::*;

    #[test]
    fn nothing_between_equal_distributions() -> Result<()> {
        let p = vector(&[0.25, 0.75]);
        let loss = KlDivLoss { reduction: Reduction::Sum, ..Default::default() };
        assert_values(loss.forward(&p.log()?, &p), &[0.0])?;
        assert_values(loss.forward(&p.log()?, &vector(&[1.0, 0.0])), &[4f64.ln()])
    }

    #[test]
    fn refuses_a_negative_probability() {
        let x = vector(&[-1.0, -1.0]);
        refuses(KlDivLoss::default().forward(&x, &vector(&[1.5, -0.5])), &["KlDivLoss", "target", "-0.5"]);
    }

    #[test]
    fn refuses_what_does_not_match() {
        refuses_mismatches("KlDivLoss", |x, y| KlDivLoss::default().forward(x, &y.abs()?));
    }
}
