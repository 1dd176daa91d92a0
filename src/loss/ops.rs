//! Building blocks whose obvious composition would overflow, lose digits or have another gradient than PyTorch's.

use candle_core::{CpuStorage, CudaStorage, CustomOp2, Layout, MetalStorage, Result, Shape, Storage, Tensor};
use candle_core::{backend::BackendStorage, bail};

/// `x` where it is positive, else 0. The derivative at 0 is 0, as PyTorch's (candle's `relu` has 1 there).
pub(super) fn relu(x: &Tensor) -> Result<Tensor> {
    x.le(0f64)?.where_cond(&x.zeros_like()?, x)
}

/// `|x|`, with derivative 0 at 0, as PyTorch's (candle's `abs` has 1 there).
pub(super) fn abs(x: &Tensor) -> Result<Tensor> {
    x * x.detach().sign()?
}

/// `log(sigmoid(x)) = min(x, 0) - log(1 + e^-|x|)`: finite for every finite `x`, exact in both tails.
pub(super) fn log_sigmoid(x: &Tensor) -> Result<Tensor> {
    let min = x.lt(0f64)?.where_cond(x, &x.zeros_like()?)?;
    min - log1p(&x.abs()?.neg()?.exp()?)?
}

/// `log(1 + y)` for `y >= -1`, without losing a `y` that vanishes beside 1: what rounding took from `1 + y` is made
/// good to first order.
pub(super) fn log1p(y: &Tensor) -> Result<Tensor> {
    let sum = (y + 1.)?;
    let (y, rounded) = (y.detach(), sum.detach());
    // At y = -1 nothing was lost, and the bound keeps 0 / 0 out.
    let lost = ((y - (&rounded - 1.)?)? / rounded.maximum(1e-30)?)?;
    sum.log()? + lost
}

/// `log(softmax(x))` over dimension `dim`, without overflow and without the logarithm of a vanished probability.
///
/// The result has `x`'s shape and dtype. Its gradient is `g - softmax(x) · Σ g`.
pub fn log_softmax(x: &Tensor, dim: impl candle_core::shape::Dim) -> Result<Tensor> {
    let dim = dim.to_index(x.shape(), "log_softmax")?;
    let shifted = x.broadcast_sub(&x.detach().max_keepdim(dim)?)?;
    let log_sum = shifted.exp()?.sum_keepdim(dim)?.log()?;
    shifted.broadcast_sub(&log_sum)
}

/// `value` as a function of `a` and `b` with derivatives of its own, for the losses whose gradient in PyTorch is not
/// the derivative of what it computes. `derivatives` gives `dvalue/da` and `dvalue/db`; each must have `value`'s shape.
pub(super) fn with_derivatives<F>(a: &Tensor, b: &Tensor, value: &Tensor, derivatives: F) -> Result<Tensor>
where
    F: Fn(&Tensor, &Tensor) -> Result<(Tensor, Tensor)> + Send + Sync + 'static,
{
    a.apply_op2(b, WithDerivatives { value: value.detach().contiguous()?, derivatives })
}

struct WithDerivatives<F> {
    value: Tensor,
    derivatives: F,
}

impl<F> WithDerivatives<F> {
    /// A copy of the value, which is contiguous, from whichever backend `pick` expects it on.
    fn copy<S: BackendStorage>(&self, pick: impl Fn(&Storage) -> Option<&S>) -> Result<(S, Shape)> {
        let (storage, layout) = self.value.storage_and_layout();
        match pick(&storage) {
            Some(storage) => Ok((storage.try_clone(layout)?, layout.shape().clone())),
            None => bail!("the loss and its arguments are on different devices"),
        }
    }
}

impl<F: Fn(&Tensor, &Tensor) -> Result<(Tensor, Tensor)>> CustomOp2 for WithDerivatives<F> {
    fn name(&self) -> &'static str {
        "loss-with-derivatives"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        self.copy(|storage| match storage {
            Storage::Cpu(storage) => Some(storage),
            _ => None,
        })
    }

    fn cuda_fwd(&self, _: &CudaStorage, _: &Layout, _: &CudaStorage, _: &Layout) -> Result<(CudaStorage, Shape)> {
        self.copy(|storage| match storage {
            Storage::Cuda(storage) => Some(storage),
            _ => None,
        })
    }

    fn metal_fwd(&self, _: &MetalStorage, _: &Layout, _: &MetalStorage, _: &Layout) -> Result<(MetalStorage, Shape)> {
        self.copy(|storage| match storage {
            Storage::Metal(storage) => Some(storage),
            _ => None,
        })
    }

    fn bwd(&self, a: &Tensor, b: &Tensor, _: &Tensor, grad: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let (da, db) = (self.derivatives)(&a.detach(), &b.detach())?;
        // candle asks for a gradient of everything that leads to a variable, and only of that.
        let chain = |arg: &Tensor, d: Tensor| if arg.track_op() { Some(grad.mul(&d)).transpose() } else { Ok(None) };
        Ok((chain(a, da)?, chain(b, db)?))
    }
}
