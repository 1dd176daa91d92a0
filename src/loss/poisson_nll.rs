use super::Reduction;
use super::validate::{check_elements, check_option, matching_integers};
use crate::kernel::elementwise::Elementwise;
use crate::kernel::ops;
use crate::kernel::scalar::{Scalar, one, zero};
use candle_core::{DType, Result, Tensor};
use std::f64::consts::TAU;

/// Negative log-likelihood of a count `y` under a Poisson distribution with a predicted rate:
///
/// ```text
/// l = e^x - y·x                if log_input: x is the logarithm of the rate
///     x - y·log(x + eps)       otherwise: x is the rate
///   + y·log y - y + log(2πy)/2 if full, where y > 1: Stirling's approximation of log y!
/// ```
///
/// Use it for counts, such as events per hour or visits per day. Interpret the output of a linear last layer as the log
/// rate: every output is then valid. Input and target must have the same shape, such as `(N, 1)`. PyTorch broadcasts an
/// input `(10, 10)` and a target `(10)` to 100 pairs; here this is an error. If the variance of the counts is far above
/// their mean, a Poisson distribution does not fit. For numbers that are not counts use
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
/// let input = Tensor::new(&[2f64.ln(), 0.0], &Device::Cpu)?; // rates 2 and 1
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
    /// Whether the input is the logarithm of the rate. Default: true.
    pub log_input: bool,
    /// Whether to add Stirling's term, which does not change the gradient by the input. Default: false.
    pub full: bool,
    /// Number added to the rate, so that the logarithm is finite for a rate of 0. Unused with `log_input`.
    /// Default: 1e-8.
    pub eps: f64,
    /// Reduction of the element losses. Default: the mean.
    pub reduction: Reduction,
}

impl Default for PoissonNllLoss {
    fn default() -> Self {
        Self { log_input: true, full: false, eps: 1e-8, reduction: Reduction::default() }
    }
}

const LOSS: &str = "PoissonNllLoss";

impl PoissonNllLoss {
    /// Returns the loss of `input`, which holds rates or log rates, against the counts `target`.
    ///
    /// - Shapes: the same for both arguments, of any rank.
    /// - Dtypes: `input` is `f16`, `bf16`, `f32` or `f64`. `target` is of the same dtype or of any integer dtype.
    /// - Result: a scalar of the input's dtype. With [`Reduction::None`] it has the shape of the arguments. For a count
    ///   of 0, the term of the logarithm is 0 even at a rate of 0 with `eps` 0.
    ///
    /// # Errors
    /// If a rate is below `-eps`, which has no logarithm (checked on the CPU only), if `eps` is NaN, if the shapes,
    /// dtypes or devices do not fit together, or if `input` is not of a float dtype.
    pub fn forward(&self, input: &Tensor, target: &Tensor) -> Result<Tensor> {
        check_option(LOSS, "eps", self.eps, !self.eps.is_nan(), "a number")?;
        if target.dtype().is_int() && matches!(input.dtype(), DType::F16 | DType::BF16) {
            // Half precision might not hold the counts.
            return ops::like(&self.forward(&ops::to_compute([input])?[0], target)?, input);
        }
        let args = matching_integers(LOSS, [("input", input), ("target", target)])?;
        if !self.log_input {
            let is_negative = |rate: f64| rate + self.eps < 0.0;
            check_elements(LOSS, "input", &args[0], |rate| !is_negative(rate), "a rate, 0 or more")?;
        }

        let Self { log_input, full, eps, reduction } = *self;
        match log_input {
            true => reduction.elements(&args, None, LogRateFormula { full }),
            false => reduction.elements(&args, None, RateFormula { eps, full }),
        }
    }
}

/// Loss of the logarithm of a rate.
#[derive(Clone, Copy)]
struct LogRateFormula {
    full: bool,
}

impl Elementwise<2> for LogRateFormula {
    #[inline(always)]
    fn value_and_grad<S: Scalar>(self, [x, y]: [S; 2]) -> (S, [S; 2]) {
        let (rate, (stirling, grad)) = (x.exp(), stirling(y, self.full));
        (rate - y * x + stirling, [rate - y, grad - x])
    }
}

/// Loss of a rate.
#[derive(Clone, Copy)]
struct RateFormula {
    eps: f64,
    full: bool,
}

impl Elementwise<2> for RateFormula {
    #[inline(always)]
    fn value_and_grad<S: Scalar>(self, [x, y]: [S; 2]) -> (S, [S; 2]) {
        let rate = x + S::constant(self.eps);
        let (log, (stirling, grad)) = (rate.ln(), stirling(y, self.full));
        // At a rate of 0, a count of 0 has neither of these terms.
        let is_unused = S::select(rate.eq(zero()), y, one()).eq(zero());
        let [product, quotient] = [y * log, y / rate].map(|term| S::select(is_unused, zero(), term));
        (x - product + stirling, [one::<S>() - quotient, grad - log])
    }
}

/// Returns Stirling's approximation of `log y!` and its derivative if `full` is set, and 0 otherwise. As in PyTorch,
/// both are 0 for `y` up to 1.
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
    fn losses_of_log_rates_and_rates() -> Result<()> {
        let loss = PoissonNllLoss { reduction: Reduction::None, ..Default::default() };
        assert_values(loss.forward(&vector(&[0.0, 1.0]), &vector(&[1.0, 0.0])), &[1.0, 1f64.exp()])?;
        let loss = PoissonNllLoss { log_input: false, eps: 0.0, ..loss };
        assert_values(loss.forward(&vector(&[1.0, 4.0]), &vector(&[1.0, 0.0])), &[1.0, 4.0])
    }

    #[test]
    fn rejects_negative_rate() {
        let loss = PoissonNllLoss { log_input: false, ..Default::default() };
        refuses(
            loss.forward(&vector(&[1.0, -0.5]), &vector(&[1.0, 1.0])),
            &["PoissonNllLoss", "input", "rate", "-0.5"],
        );
        let loss = PoissonNllLoss { eps: f64::NAN, ..Default::default() };
        refuses(loss.forward(&vector(&[1.0]), &vector(&[1.0])), &["PoissonNllLoss", "eps", "NaN"]);
    }

    #[test]
    fn rejects_mismatched_arguments() {
        refuses_mismatches("PoissonNllLoss", |x, y| PoissonNllLoss::default().forward(x, y));
    }
}
