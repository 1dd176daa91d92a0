use super::{Reduction, check_elements, check_option, matching, whole};
use crate::kernel::fused;
use crate::kernel::scalar::{exp, ln};
use candle_core::{Result, Tensor};

/// Negative log-likelihood of a count `y` under a Poisson distribution whose rate is predicted:
///
/// ```text
/// l = e^x - y·x                if log_input: x is the logarithm of the rate
///     x - y·log(x + eps)       otherwise:    x is the rate
///   + y·log y - y + log(2πy)/2 if full, where y > 1: Stirling's approximation of log y!
/// ```
///
/// For counts: events per hour, visits per day. The last layer is linear and read as a log rate, so that every output
/// is a valid one; input and target have one column per counted thing. Ten outputs per sample against a vector of ten
/// labels, as a batch of ten makes it easy to write, would be 10×10 pairs by broadcasting: here it is an error. Counts
/// whose variance is well above their mean want another distribution, and numbers that are no counts
/// [`GaussianNllLoss`](super::GaussianNllLoss) or [`MseLoss`](super::MseLoss).
///
/// Source: [`torch.nn.PoissonNLLLoss`](https://pytorch.org/docs/stable/generated/torch.nn.PoissonNLLLoss.html).
///
/// Example: [`examples/poisson_nll.rs`](https://docs.rs/crate/candle-losses/latest/source/examples/poisson_nll.rs), run
/// by `cargo run --example poisson_nll`.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_losses::loss::PoissonNllLoss;
///
/// let input = Tensor::new(&[2f64.ln(), 0.0], &Device::Cpu)?; // rates 2 and 1; `log_input: false` takes them as such
/// let target = Tensor::new(&[3.0, 5.0], &Device::Cpu)?;
/// let value = PoissonNllLoss::default().forward(&input, &target)?.to_scalar::<f64>()?;
/// let expected = ((2.0 - 3.0 * 2f64.ln()) + (1.0 - 5.0 * 0.0)) / 2.0; // rate - count · log rate
/// assert!((value - expected).abs() < 1e-9);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
#[cfg_attr(doc, doc = include_str!("../../assets/poisson_nll.svg"))]
#[derive(Debug, Clone)]
pub struct PoissonNllLoss {
    /// Whether the input is the logarithm of the rate. Default true.
    pub log_input: bool,
    /// Whether to add Stirling's term, which changes the value but not the input's gradient. Default false.
    pub full: bool,
    /// Added to the rate, in its unit, so that the logarithm is finite at 0; unused with `log_input`. Default 1e-8.
    pub eps: f64,
    /// How the element losses are reduced. Default: the mean.
    pub reduction: Reduction,
}

impl Default for PoissonNllLoss {
    fn default() -> Self {
        Self { log_input: true, full: false, eps: 1e-8, reduction: Reduction::default() }
    }
}

impl PoissonNllLoss {
    /// The loss of the rates, or log rates, `input` against the counts `target`.
    ///
    /// Shapes: both of any shape, the same. Dtypes: both `f16`, `bf16`, `f32` or `f64`, the same. The result has that
    /// dtype and is a scalar, or of the arguments' shape with [`Reduction::None`].
    ///
    /// # Errors
    /// If a rate is below `-eps`, where the logarithm is NaN (seen on the CPU only), if `eps` is NaN, if shape, dtype
    /// or device of the two differ, or the dtype is not a float.
    pub fn forward(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
        check_option("PoissonNllLoss", "eps", self.eps, !self.eps.is_nan(), "a number")?;
        let [x, y] = matching("PoissonNllLoss", [("input", input), ("target", &whole(target, input)?)])?;

        let (eps, factor) = (self.eps as f32, self.reduction.factor(x.dims()).filter(|_| !self.full));
        let fused = if self.log_input {
            fused([&x, &y], factor, |[x, y]| (exp(x) - y * x, [exp(x) - y]))?
        } else {
            let negative = |rate: f64| rate + self.eps < 0.0;
            check_elements("PoissonNllLoss", "input", &x, |rate| !negative(rate), "a rate, 0 or more")?;
            fused([&x, &y], factor, move |[x, y]| (x - y * ln(x + eps), [1.0 - y / (x + eps)]))?
        };
        if let Some(loss) = fused {
            return loss.to_dtype(input.dtype());
        }

        let mut loss =
            if self.log_input { (x.exp()? - (&y * &x)?)? } else { (&x - (&y * (&x + self.eps)?.log()?)?)? };
        if self.full {
            // Where there is nothing to add it is taken of 1, so that a gradient by the target is finite there.
            let is_small = y.le(1f64)?;
            let y = is_small.where_cond(&y.ones_like()?, &y)?;
            let half_log_2pi_y = ((&y * (2. * std::f64::consts::PI))?.log()? / 2.)?;
            let stirling = (((&y * y.log()?)? - &y)? + half_log_2pi_y)?;
            loss = (loss + is_small.where_cond(&y.zeros_like()?, &stirling)?)?;
        }

        self.reduction.reduce(&loss, input)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::testing::*;

    #[test]
    fn least_where_the_rate_is_the_count() -> Result<()> {
        let loss = PoissonNllLoss { reduction: Reduction::None, ..Default::default() };
        assert_values(loss.forward(&vector(&[0.0, 1.0]), &vector(&[1.0, 0.0])), &[1.0, 1f64.exp()])?;
        let loss = PoissonNllLoss { log_input: false, eps: 0.0, ..loss };
        assert_values(loss.forward(&vector(&[1.0, 4.0]), &vector(&[1.0, 0.0])), &[1.0, 4.0])
    }

    #[test]
    fn refuses_a_negative_rate() {
        let loss = PoissonNllLoss { log_input: false, ..Default::default() };
        refuses(
            loss.forward(&vector(&[1.0, -0.5]), &vector(&[1.0, 1.0])),
            &["PoissonNllLoss", "input", "rate", "-0.5"],
        );
        let loss = PoissonNllLoss { eps: f64::NAN, ..Default::default() };
        refuses(loss.forward(&vector(&[1.0]), &vector(&[1.0])), &["PoissonNllLoss", "eps", "NaN"]);
    }

    #[test]
    fn refuses_what_does_not_match() {
        refuses_mismatches("PoissonNllLoss", |x, y| PoissonNllLoss::default().forward(x, y));
    }
}
