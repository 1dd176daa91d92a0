//! Building blocks whose obvious composition would overflow, lose digits or have another gradient than PyTorch's.

use super::{self as kernel, is_host};
use candle_core::{CpuStorage, CudaStorage, CustomOp3, DType, Layout, MetalStorage, Result, Shape, Storage, Tensor};
use candle_core::{backend::BackendStorage, bail};

/// What PyTorch keeps denominators away from 0 with: 1e-12, as a constant of single precision.
pub(crate) const TINY: f64 = 1e-12f32 as f64;

/// The sum of all elements, right to 2e-6 however many they are: candle's own drifts in single precision, on the CPU by a
/// per cent at sixteen million.
pub(crate) fn sum_all(x: &Tensor) -> Result<Tensor> {
    if x.rank() == 0 {
        return Ok(x.clone());
    }
    let values = x.detach();
    let sum = if x.dtype() != DType::F32 {
        values.sum_all()?
    } else if is_host(x.device()) {
        Tensor::new(kernel::sum(&values)? as f32, x.device())?
    } else {
        in_stages(&values)?
    };
    let shape = x.shape().clone();
    with_gradient(x, &sum, move |grad| grad.broadcast_as(&shape))
}

/// How many are summed at once: so few that a sum of them is as good as single precision allows.
const STAGE: usize = 256;

/// The sum of sums of sums.
fn in_stages(x: &Tensor) -> Result<Tensor> {
    let mut x = x.flatten_all()?;
    while x.elem_count() > STAGE {
        let whole = x.elem_count() / STAGE * STAGE;
        let sums = x.narrow(0, 0, whole)?.reshape((whole / STAGE, STAGE))?.sum(1)?;
        let rest = x.elem_count() - whole;
        x = if rest == 0 { sums } else { Tensor::cat(&[sums, x.narrow(0, whole, rest)?.sum_keepdim(0)?], 0)? };
    }
    x.sum_all()
}

/// `a·b`, but 0 where `a` is 0 and `b` infinite. A gradient of `b` is 0 there, too.
pub(crate) fn times(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let is_lost = (a.eq(0f64)? * b.detach().abs()?.eq(f64::INFINITY)?)?;
    a * is_lost.where_cond(&b.zeros_like()?, b)?
}

/// `x`, but not above `bound`; NaN stays, which candle's `minimum` drops on a GPU.
pub(crate) fn at_most(x: &Tensor, bound: f64) -> Result<Tensor> {
    x.gt(bound)?.where_cond(&x.zeros_like()?.affine(0., bound)?, x)
}

/// `x`, but not below `bound`; NaN stays, which candle's `maximum` drops on a GPU.
pub(crate) fn at_least(x: &Tensor, bound: f64) -> Result<Tensor> {
    x.lt(bound)?.where_cond(&x.zeros_like()?.affine(0., bound)?, x)
}

/// `x` where it is positive, else 0. The derivative at 0 is 0, as PyTorch's (candle's `relu` has 1 there).
pub(crate) fn relu(x: &Tensor) -> Result<Tensor> {
    x.le(0f64)?.where_cond(&x.zeros_like()?, x)
}

/// `|x|`, with derivative 0 at 0, as PyTorch's (candle's `abs` has 1 there).
pub(crate) fn abs(x: &Tensor) -> Result<Tensor> {
    let x_at = x.detach();
    // Of NaN a GPU says 0, and then nobody would see it in the gradient.
    x * x_at.eq(&x_at)?.where_cond(&x_at.sign()?, &x_at)?
}

/// `log(1 + e^x)` and `log(1 + e^-x)`, what a yes and a no cost: exact in both tails, and 0 and ∞ at ±∞.
pub(crate) fn softplus(x: &Tensor) -> Result<[Tensor; 2]> {
    let (is_below, zeros, tail) = (x.lt(0f64)?, x.zeros_like()?, tail(x)?);
    Ok([(is_below.where_cond(&zeros, x)? + &tail)?, (is_below.where_cond(&x.neg()?, &zeros)? + tail)?])
}

/// `log(sigmoid(x)) = min(x, 0) - log(1 + e^-|x|)`: finite for every finite `x`, exact in both tails.
pub(crate) fn log_sigmoid(x: &Tensor) -> Result<Tensor> {
    let min = x.lt(0f64)?.where_cond(x, &x.zeros_like()?)?;
    min - tail(x)?
}

/// `log(1 + e^-|x|)`.
fn tail(x: &Tensor) -> Result<Tensor> {
    log1p(&x.abs()?.neg()?.exp()?)
}

/// `log(1 + y)` for `y >= -1`, without losing a `y` that vanishes beside 1: what rounding took from `1 + y` is made
/// good to first order.
pub(crate) fn log1p(y: &Tensor) -> Result<Tensor> {
    let sum = (y + 1.)?;
    let (y, rounded) = (y.detach(), sum.detach());
    // At y = -1 nothing was lost, and the bound keeps 0 / 0 out.
    let lost = ((y - (&rounded - 1.)?)? / rounded.maximum(1e-30)?)?;
    sum.log()? + lost
}

/// `log(softmax(x))` over dimension `dim`, without overflow and without the logarithm of a vanished probability.
///
/// For the last layer of a model under [`NllLoss`](crate::loss::NllLoss), [`KlDivLoss`](crate::loss::KlDivLoss) or
/// [`CtcLoss`](crate::loss::CtcLoss); [`CrossEntropyLoss`](crate::loss::CrossEntropyLoss) has it in it.
///
/// `x` may be of any shape and is `f16`, `bf16`, `f32` or `f64`; the result has its shape and dtype. Its gradient is
/// `g - softmax(x) · Σ g`.
///
/// # Errors
/// If `x` has no dimension `dim`, or is not of a float dtype.
///
/// # Example
/// ```
/// use candle_core::{D, Device, Tensor};
/// use candle_losses::loss::log_softmax;
///
/// let x = Tensor::new(&[1000.0, 1000.0 + 3f64.ln()], &Device::Cpu)?; // 1 to 3; e^1000 would be infinite
/// let log_p = log_softmax(&x, D::Minus1)?.to_vec1::<f64>()?;
/// assert!((log_p[0] - 0.25f64.ln()).abs() < 1e-9);
/// assert!((log_p[1] - 0.75f64.ln()).abs() < 1e-9);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn log_softmax(x: &Tensor, dim: impl candle_core::shape::Dim) -> Result<Tensor> {
    if !x.dtype().is_float() {
        bail!("log_softmax: x has dtype {:?} but needs one of F16, BF16, F32, F64", x.dtype())
    }
    let dim = dim.to_index(x.shape(), "log_softmax")?;
    if x.elem_count() == 0 {
        return Ok(x.clone());
    }
    let shifted = x.broadcast_sub(&x.detach().max_keepdim(dim)?)?;
    let log_sum = shifted.exp()?.sum_keepdim(dim)?.log()?;
    shifted.broadcast_sub(&log_sum)
}

/// `gradient` times `grad`, a scalar.
pub(crate) fn scaled(gradient: &Tensor, grad: &Tensor) -> Result<Tensor> {
    if !is_host(grad.device()) {
        return gradient.broadcast_mul(grad);
    }
    match grad.to_dtype(DType::F64)?.to_scalar::<f64>()? {
        // Where backward starts at the loss itself there is nothing left to do.
        1.0 => Ok(gradient.clone()),
        grad => gradient.affine(grad, 0.0),
    }
}

/// `value` as a function of `arg` with a gradient of its own, for the losses whose gradient in PyTorch is not the
/// derivative of what it computes: `gradient` makes that of `arg` from that of the value.
pub(crate) fn with_gradient<F>(arg: &Tensor, value: &Tensor, gradient: F) -> Result<Tensor>
where
    F: Fn(&Tensor) -> Result<Tensor> + Send + Sync + 'static,
{
    with_gradients([arg; 3], value, move |grad| Ok([Some(gradient(grad)?), None, None]))
}

/// The same for three arguments.
pub(crate) fn with_gradients<F>(args: [&Tensor; 3], value: &Tensor, gradients: F) -> Result<Tensor>
where
    F: Fn(&Tensor) -> Result<[Option<Tensor>; 3]> + Send + Sync + 'static,
{
    // Not `contiguous`, which keeps a view into a larger storage as it is.
    let op = WithGradients { value: value.detach().force_contiguous()?, gradients };
    args[0].apply_op3(args[1], args[2], op)
}

struct WithGradients<F> {
    value: Tensor,
    gradients: F,
}

impl<F> WithGradients<F> {
    /// A copy of the value, which is contiguous, from whichever backend `pick` expects it on.
    fn copy<S: BackendStorage>(&self, pick: impl Fn(&Storage) -> Option<&S>) -> Result<(S, Shape)> {
        let (storage, layout) = self.value.storage_and_layout();
        match pick(&storage) {
            Some(storage) => Ok((storage.try_clone(layout)?, layout.shape().clone())),
            None => bail!("a loss and its argument are on different devices"),
        }
    }
}

macro_rules! forward {
    ($name:ident, $storage:ident, $variant:ident) => {
        fn $name(
            &self,
            _: &$storage,
            _: &Layout,
            _: &$storage,
            _: &Layout,
            _: &$storage,
            _: &Layout,
        ) -> Result<($storage, Shape)> {
            self.copy(|storage| match storage {
                Storage::$variant(storage) => Some(storage),
                _ => None,
            })
        }
    };
}

impl<F: Fn(&Tensor) -> Result<[Option<Tensor>; 3]>> CustomOp3 for WithGradients<F> {
    fn name(&self) -> &'static str {
        "with-gradients"
    }

    forward!(cpu_fwd, CpuStorage, Cpu);
    forward!(cuda_fwd, CudaStorage, Cuda);
    forward!(metal_fwd, MetalStorage, Metal);

    fn bwd(
        &self,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        _: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [a, b, c] = (self.gradients)(grad)?;
        Ok((a, b, c))
    }
}
