use super::Reduction;
use super::validate::{check_elements, check_option, matching, same_kind};
use crate::kernel::elementwise::Elementwise;
use crate::kernel::scalar::{Scalar, clamp_min, one};
use crate::kernel::{ops, switches};
use candle_core::{DType, Device, Result, Tensor, bail};
use std::f64::consts::TAU;

/// Negative log-likelihood of a target `y` under a normal distribution with predicted mean `x` and variance `v`:
///
/// ```text
/// l = (log v + (x - y)² / v) / 2    with v at least eps
///   + log(2π) / 2                   if full
/// ```
///
/// Use it for regression that also predicts its uncertainty. The variance is a third argument. A network usually
/// predicts the log variance with a second output, and the exponential of that output is a positive variance. If the
/// variance is constant, use [`MseLoss`](super::MseLoss), which is simpler and fits the same mean.
///
/// Source: Nix & Weigend, [Estimating the mean and variance of the target probability
/// distribution](https://doi.org/10.1109/ICNN.1994.374138), 1994;
/// [`torch.nn.GaussianNLLLoss`](https://pytorch.org/docs/stable/generated/torch.nn.GaussianNLLLoss.html).
///
/// Example: [`examples/gaussian_nll.rs`](https://docs.rs/crate/candle-losses/latest/source/examples/gaussian_nll.rs),
/// run by `cargo run --example gaussian_nll`.
///
/// # Example
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_losses::loss::GaussianNllLoss;
///
/// let input = Tensor::new(&[1.0, 5.0], &Device::Cpu)?;
/// let target = Tensor::new(&[3.0, 5.0], &Device::Cpu)?;
/// let var = Tensor::new(&[4.0, 1.0], &Device::Cpu)?;
/// let value = GaussianNllLoss::default().forward(&input, &target, &var)?.to_scalar::<f64>()?;
/// let expected = ((4f64.ln() + 1.0) / 2.0 + 0.0) / 2.0; // (log v + (x - y)² / v) / 2 of each; the second is 0
/// assert!((value - expected).abs() < 1e-9);
/// # Ok::<(), candle_core::Error>(())
/// ```
///
#[cfg_attr(doc, doc = include_str!("../../assets/gaussian_nll.svg"))]
#[derive(Debug, Clone, Copy)]
pub struct GaussianNllLoss {
    /// Whether to add the constant `log(2π) / 2`. Default: false.
    pub full: bool,
    /// Lower bound of the variance, in the squared unit of the target; positive. Default: 1e-6.
    pub eps: f64,
    /// Reduction of the element losses. Default: the mean.
    pub reduction: Reduction,
}

impl Default for GaussianNllLoss {
    fn default() -> Self {
        Self { full: false, eps: 1e-6, reduction: Reduction::default() }
    }
}

const LOSS: &str = "GaussianNllLoss";

impl GaussianNllLoss {
    /// Returns the loss of the means `input` and the variances `var` against `target`.
    ///
    /// - Shapes: `input` is of any shape. `target` has the same shape, or the same rank with size 1 in the dimensions
    ///   in which it is repeated. `var` has the shape of `input` (a variance for each element), this shape with size 1
    ///   in one dimension or without the last dimension (a variance for each row), or is a scalar (one variance).
    /// - Dtypes: the same for all three arguments: `f16`, `bf16`, `f32` or `f64`.
    /// - Result: a scalar of the same dtype. With [`Reduction::None`] it has the shape of `input`.
    /// - Gradient by the variance: as in PyTorch, the bound `eps` does not stop it, so a variance below `eps` can still
    ///   grow.
    ///
    /// # Errors
    /// If a variance is negative (checked on every device, as in PyTorch), if `eps` is not positive, if the shapes,
    /// dtypes or devices do not fit together, or if the dtype is not a float.
    pub fn forward(&self, input: &Tensor, target: &Tensor, var: &Tensor) -> Result<Tensor> {
        check_option(LOSS, "eps", self.eps, self.eps > 0.0, "positive")?;
        let repeats = |(&t, &i): (&usize, &usize)| t == i || t == 1;
        let is_repeated = target.rank() == input.rank() && target.dims().iter().zip(input.dims()).all(repeats);
        let repeated = if is_repeated { &target.broadcast_as(input.shape())? } else { target };
        let [x, _] = matching(LOSS, [("input", input), ("target", repeated)])?;
        same_kind(LOSS, ("var", var), ("input", input))?;
        let var = broadcast_var(var, &x)?;
        check_elements(LOSS, "var", &var, |v| v >= 0.0 || v.is_nan(), "0 or more")?;
        if !switches::reads_values(var.device()) && var.elem_count() > 0 {
            // The CPU converts it, because some devices have no `f64`.
            let least = var.detach().min_all()?.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
            if least < 0.0 {
                bail!("{LOSS}: var must be 0 or more, but its least element is {least}")
            }
        }

        if var.dims() == input.dims() && target.dims() == input.dims() {
            return self.reduction.elements(&[x, target.clone(), var], None, *self);
        }
        // The gradient of what is repeated is summed in the compute dtype.
        let [x, y, var] = ops::to_compute([&x, target, &var])?;
        let args = [x, y.broadcast_as(input.shape())?, var.broadcast_as(input.shape())?];
        ops::like(&self.reduction.elements(&args, None, *self)?, input)
    }
}

impl Elementwise<3> for GaussianNllLoss {
    #[inline(always)]
    fn value_and_grad<S: Scalar>(self, [x, y, var]: [S; 3]) -> (S, [S; 3]) {
        // The constant is log(2π) / 2.
        let constant = S::constant(if self.full { TAU.ln() / 2.0 } else { 0.0 });
        let half = S::constant(0.5);
        // The gradient ignores the bound.
        let (error, var) = (x - y, clamp_min(var, S::constant(self.eps)));
        let scaled = error / var;
        let square = error * scaled;
        let by_var = (one::<S>() - square) / var * half;
        ((var.ln() + square) * half + constant, [scaled, -scaled, by_var])
    }
}

/// Returns `var` in a shape that broadcasts to the shape of `input`.
fn broadcast_var(var: &Tensor, input: &Tensor) -> Result<Tensor> {
    let dims = input.dims();
    if var.rank() == 0 {
        return Ok(var.clone());
    }
    if dims.split_last().is_some_and(|(_, but_last)| but_last == var.dims()) {
        return var.unsqueeze(var.rank());
    }
    let differing = || dims.iter().zip(var.dims()).filter(|(i, v)| i != v).map(|(_, &v)| v);
    if var.rank() == dims.len() && differing().all(|v| v == 1) && differing().count() <= 1 {
        return Ok(var.clone());
    }
    bail!(
        "{LOSS}: var has shape {:?} but input of shape {dims:?} needs the same shape, the same with one \
         dimension 1, the same without the last dimension, or a scalar",
        var.dims()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::testing::*;

    #[test]
    fn larger_variance_reduces_the_loss_of_an_error() -> Result<()> {
        let loss = GaussianNllLoss { reduction: Reduction::None, ..Default::default() };
        let (x, y) = (vector(&[2.0, 2.0]), vector(&[0.0, 0.0]));
        assert_values(loss.forward(&x, &y, &vector(&[1.0, 4.0])), &[2.0, 0.5 + 2f64.ln()])
    }

    #[test]
    fn rejects_invalid_variance() {
        let (x, loss) = (vector(&[1.0, 2.0]), GaussianNllLoss::default());
        refuses(loss.forward(&x, &x, &vector(&[1.0, -0.25])), &["GaussianNllLoss", "var", "-0.25"]);
        refuses(loss.forward(&x, &x, &vector(&[1.0, 1.0, 1.0])), &["GaussianNllLoss", "var", "[3]", "[2]"]);
        let loss = GaussianNllLoss { eps: 0.0, ..Default::default() };
        refuses(loss.forward(&x, &x, &x), &["GaussianNllLoss", "eps", "positive"]);
    }

    #[test]
    fn rejects_mismatched_arguments() {
        let forward = |x: &Tensor, y: &Tensor| GaussianNllLoss::default().forward(x, y, x);
        let x = vector(&[0.5, 0.5, 0.5]);
        refuses(forward(&x, &x.reshape((3, 1)).unwrap()), &["GaussianNllLoss", "target", "[3, 1]", "[3]"]);
        refuses(forward(&x, &x.narrow(0, 0, 2).unwrap()), &["GaussianNllLoss", "target", "[2]", "[3]"]);
        let single = x.to_dtype(candle_core::DType::F32).unwrap();
        refuses(forward(&x, &single), &["GaussianNllLoss", "target", "F32", "F64"]);
    }
}
