use super::{Reduction, check_elements, matching};
use crate::kernel::scalar::Float;
use crate::kernel::{Formula, ops};
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
#[derive(Debug, Clone, Default)]
pub struct KlDivLoss {
    /// Whether the target is log-probabilities, natural ones like the input. Default false.
    pub log_target: bool,
    /// How the element losses are reduced. Default: the mean, which is rarely the one to use here.
    pub reduction: Reduction,
}

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
        let args = matching("KlDivLoss", [("input", input), ("target", target)])?;

        if self.log_target {
            return self.reduction.elements(args, None, FromLog, |[x, y]| {
                // What is impossible in the target costs nothing, whatever the input says of it.
                let (is_impossible, zeros) = (y.eq(f64::NEG_INFINITY)?, y.zeros_like()?);
                let [x, y] = [x, y].map(|t| is_impossible.where_cond(&zeros, &t));
                let (x, y) = (x?, y?);
                is_impossible.where_cond(&zeros, &(y.exp()? * (&y - x)?)?)
            });
        }
        let negative = |p: f64| p < 0.0;
        check_elements("KlDivLoss", "target", &args[1], |p| !negative(p), "a probability, 0 or more")?;
        self.reduction.elements(args, None, FromShares, |[x, y]| {
            // At 0 the logarithm is that of 1, so that a gradient by the target is finite there.
            let log_y = y.eq(0f64)?.where_cond(&y.ones_like()?, &y)?.log()?;
            (&y * log_y)? - ops::times(&y, &x)?
        })
    }
}

/// Against log-probabilities.
#[derive(Clone, Copy)]
struct FromLog;

impl Formula<2> for FromLog {
    #[inline(always)]
    fn at<W: Float>(&self, [x, y]: [W; 2]) -> (W, [W; 2]) {
        let p = y.exp();
        let loss = p * (y - x);
        let unless_impossible = |value: W| if y == -W::INFINITY { W::ZERO } else { value };
        (unless_impossible(loss), [-p, unless_impossible(loss + p)])
    }
}

/// Against probabilities.
#[derive(Clone, Copy)]
struct FromShares;

impl Formula<2> for FromShares {
    #[inline(always)]
    fn at<W: Float>(&self, [x, y]: [W; 2]) -> (W, [W; 2]) {
        let (zero, log) = (W::ZERO, y.ln());
        let (loss, slope) = (y * log - y * x, log + W::ONE - x);
        let at_zero = if x.abs() == W::INFINITY { zero } else { -x };
        (if y == zero { zero } else { loss }, [-y, if y == zero { at_zero } else { slope }])
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
