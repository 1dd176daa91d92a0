use super::Reduction;
use super::validate::{check_elements, check_option, matching_integers};
use crate::kernel::elementwise::Elementwise;
use crate::kernel::scalar::{Scalar, one, zero};
use candle_core::{Result, Tensor};
use std::f64::consts::TAU;

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
#[derive(Debug, Clone, Copy)]
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

const LOSS: &str = "PoissonNllLoss";

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
        check_option(LOSS, "eps", self.eps, !self.eps.is_nan(), "a number")?;
        let args = matching_integers(LOSS, [("input", input), ("target", target)])?;
        if !self.log_input {
            let is_negative = |rate: f64| rate + self.eps < 0.0;
            check_elements(LOSS, "input", &args[0], |rate| !is_negative(rate), "a rate, 0 or more")?;
        }

        let Self { log_input, full, eps, reduction } = *self;
        match log_input {
            true => reduction.elements(&args, None, OfLogRate { full }),
            false => reduction.elements(&args, None, OfRate { eps, full }),
        }
    }
}

/// For the logarithm of a rate.
#[derive(Clone, Copy)]
struct OfLogRate {
    full: bool,
}

impl Elementwise<2> for OfLogRate {
    #[inline(always)]
    fn value_and_grad<S: Scalar>(self, [x, y]: [S; 2]) -> (S, [S; 2]) {
        let (rate, (stirling, grad)) = (x.exp(), stirling(y, self.full));
        (rate - y * x + stirling, [rate - y, grad - x])
    }
}

/// For a rate.
#[derive(Clone, Copy)]
struct OfRate {
    eps: f64,
    full: bool,
}

impl Elementwise<2> for OfRate {
    #[inline(always)]
    fn value_and_grad<S: Scalar>(self, [x, y]: [S; 2]) -> (S, [S; 2]) {
        let rate = x + S::constant(self.eps);
        let (log, (stirling, grad)) = (rate.ln(), stirling(y, self.full));
        // A count of 0 has no such term, even at a rate of 0.
        let unless_0 = |value: S| S::select(y.eq(zero()), zero(), value);
        (x - unless_0(y * log) + stirling, [one::<S>() - unless_0(y / rate), grad - log])
    }
}

/// Stirling's approximation of `log y!` and its derivative, if it is asked for; 0 up to 1, as in PyTorch.
#[inline(always)]
fn stirling<S: Scalar>(y: S, full: bool) -> (S, S) {
    if !full {
        return (zero(), zero());
    }
    let (log, half) = (y.ln(), S::constant(0.5));
    let value = y * log - y + half * (y * S::constant(TAU)).ln();
    let above_1 = |value: S| S::select(y.le(one()), zero(), value);
    (above_1(value), above_1(log + half / y))
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
