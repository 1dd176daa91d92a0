//! Tensor ops that candle lacks, or that a GPU would refuse, round badly, or lose a NaN in.

use super::graph::{Value, node};
use super::scan;
use super::switches::has_kernels;
use candle_core::{D, DType, Device, Layout, Result, Tensor, bail};

/// The lower bound of PyTorch's denominators: 1e-12 in single precision.
pub(crate) const EPSILON: f64 = 1e-12f32 as f64;

/// A number as a tensor that broadcasts to the shape of `like`, without memory of its own.
pub(crate) fn constant(value: f64, like: &Tensor) -> Result<Tensor> {
    scalar(value, like)?.broadcast_as(like.shape())
}

/// A number as a scalar tensor, of the dtype and device of `like`. Converted on the CPU, as Metal has no `f64`.
pub(crate) fn scalar(value: f64, like: &Tensor) -> Result<Tensor> {
    Tensor::new(value, &Device::Cpu)?.to_dtype(like.dtype())?.to_device(like.device())
}

/// A tensor and a factor that it is still to be multiplied by.
pub(crate) struct Scaled {
    pub tensor: Tensor,
    pub factor: f64,
}

impl From<Tensor> for Scaled {
    fn from(tensor: Tensor) -> Self {
        Self { tensor, factor: 1.0 }
    }
}

/// `x · factor`, or `x` itself if the factor is 1.
pub(crate) fn times(x: &Tensor, factor: f64) -> Result<Tensor> {
    if factor == 1.0 { Ok(x.clone()) } else { x.affine(factor, 0.0) }
}

/// `gradient` times a scalar tensor. On the CPU the host reads the scalar: backward from the loss itself starts with 1, and
/// has nothing to multiply.
pub(crate) fn times_scalar(gradient: &Tensor, scalar: &Tensor) -> Result<Tensor> {
    if !has_kernels(scalar.device()) {
        return gradient.broadcast_mul(scalar);
    }
    times(gradient, scalar.to_dtype(DType::F64)?.to_scalar::<f64>()?)
}

/// The precision that losses of a float dtype are computed in.
pub(crate) fn compute_dtype(dtype: DType) -> DType {
    if dtype == DType::F64 { DType::F64 } else { DType::F32 }
}

/// Arguments in the precision that losses are computed in. Those without elements come to the CPU, as GPU kernels fail on
/// them.
pub(crate) fn to_compute<const N: usize>(args: [&Tensor; N]) -> Result<[Tensor; N]> {
    let mut converted = args.map(Tensor::clone);
    for arg in &mut converted {
        let arg_here = if arg.elem_count() == 0 { arg.to_device(&Device::Cpu)? } else { arg.clone() };
        *arg = cast(&arg_here, compute_dtype(arg.dtype()))?;
    }
    Ok(converted)
}

/// `loss` in the dtype and on the device of `input`.
pub(crate) fn like(loss: &Tensor, input: &Tensor) -> Result<Tensor> {
    loss.to_dtype(input.dtype())?.to_device(input.device())
}

/// Whether candle 0.11 has a CUDA kernel for this conversion.
fn cuda_casts(from: DType, to: DType) -> bool {
    let is_half = |dtype| matches!(dtype, DType::F16 | DType::BF16);
    let is_small_int = |dtype| matches!(dtype, DType::I16 | DType::I32);
    from == to || !(is_small_int(from) || is_small_int(to) || from == DType::I64 && is_half(to))
}

/// `x` in another dtype, by a way that every device has: through `f32` or through the CPU if need be.
pub(crate) fn cast(x: &Tensor, dtype: DType) -> Result<Tensor> {
    if cuda_casts(x.dtype(), dtype) || has_kernels(x.device()) {
        return x.to_dtype(dtype);
    }
    if x.dtype() == DType::I64 {
        return x.to_dtype(DType::F32)?.to_dtype(dtype);
    }
    x.to_device(&Device::Cpu)?.to_dtype(dtype)?.to_device(x.device())
}

/// Whether candle's CUDA backend multiplies matrices of this layout, as they are or transposed.
fn cuda_multiplies(layout: &Layout) -> bool {
    let (&[rows, columns], &[row_stride, column_stride]) = (layout.dims(), layout.stride()) else { return false };
    (column_stride == 1 || columns == 1) && (row_stride == columns || rows == 1)
        || (row_stride == 1 || rows == 1) && (column_stride == rows || columns == 1)
}

/// The product of two matrices. One that candle's CUDA backend would refuse is made contiguous first.
pub(crate) fn matmul(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    for_cuda(a)?.matmul(&for_cuda(b)?)
}

/// A matrix in a layout that candle's CUDA backend multiplies.
fn for_cuda(x: &Tensor) -> Result<Tensor> {
    if cuda_multiplies(x.layout()) { Ok(x.clone()) } else { x.force_contiguous() }
}

/// The sum of all elements, right to 2e-6 for any number of them. Candle's own sum drifts in `f32`: on the CPU by a per
/// cent at sixteen million elements.
pub(crate) fn sum_all(x: &Tensor) -> Result<Tensor> {
    if x.rank() == 0 {
        return Ok(x.clone());
    }
    let values = x.detach();
    let sum = if x.dtype() != DType::F32 {
        values.sum_all()?
    } else if has_kernels(x.device()) {
        Tensor::new(scan::sum(&values)? as f32, x.device())?
    } else {
        sum_in_stages(&values)?
    };
    if !x.track_op() {
        return Ok(sum);
    }
    node([x], Value::Tensor(sum), |[x], grad| Ok([Some(grad.broadcast_as(x.shape())?)]))
}

/// The sum over the last dimension. Long rows are summed in `f64` on the CPU, where candle's own sum drifts.
pub(crate) fn sum_last(x: &Tensor) -> Result<Tensor> {
    if x.dtype() == DType::F32 && x.device().is_cpu() && x.dim(D::Minus1)? > STAGE * STAGE {
        return x.to_dtype(DType::F64)?.sum(D::Minus1)?.to_dtype(DType::F32);
    }
    x.sum(D::Minus1)
}

/// Sums of so many elements are as good as single precision allows.
const STAGE: usize = 256;

/// The sum of sums of sums.
fn sum_in_stages(x: &Tensor) -> Result<Tensor> {
    let mut x = x.flatten_all()?;
    while x.elem_count() > STAGE {
        let whole = x.elem_count() / STAGE * STAGE;
        let sums = x.narrow(0, 0, whole)?.reshape((whole / STAGE, STAGE))?.sum(1)?;
        let rest = x.elem_count() - whole;
        x = if rest == 0 { sums } else { Tensor::cat(&[sums, x.narrow(0, whole, rest)?.sum_keepdim(0)?], 0)? };
    }
    x.sum_all()
}

/// The maximum over `dim`, which keeps size 1; 0 where there are no elements. It is not differentiated.
pub(crate) fn max_keepdim(x: &Tensor, dim: usize) -> Result<Tensor> {
    let x = x.detach();
    if x.elem_count() == 0 { x.sum_keepdim(dim) } else { x.max_keepdim(dim) }
}

/// `x` where it is positive, else 0. Its derivative at 0 is 0, as PyTorch's; that of candle's `relu` is 1.
pub(crate) fn relu(x: &Tensor) -> Result<Tensor> {
    x.le(0f64)?.where_cond(&constant(0.0, x)?, x)
}

/// `x` with `value` where the mask holds.
pub(crate) fn masked_fill(x: &Tensor, mask: &Tensor, value: f64) -> Result<Tensor> {
    mask.broadcast_as(x.shape())?.where_cond(&constant(value, x)?, x)
}

/// `log(softmax(x))` over dimension `dim`, without overflow and without the logarithm of a vanished probability.
///
/// This is the last layer of a model for [`NllLoss`](crate::loss::NllLoss), [`KlDivLoss`](crate::loss::KlDivLoss) or
/// [`CtcLoss`](crate::loss::CtcLoss). [`CrossEntropyLoss`](crate::loss::CrossEntropyLoss) includes it.
///
/// `x` has any shape and is `f16`, `bf16`, `f32` or `f64`. The result has its shape and dtype. The gradient is
/// `g - softmax(x) · Σ g`.
///
/// # Errors
/// If `x` has no dimension `dim`, or its dtype is not a float.
///
/// # Example
/// ```
/// use candle_core::{D, Device, Tensor};
/// use candle_losses::loss::log_softmax;
///
/// let x = Tensor::new(&[1000.0, 1000.0 + 3f64.ln()], &Device::Cpu)?; // e^1000 would be infinite
/// let log_p = log_softmax(&x, D::Minus1)?.to_vec1::<f64>()?; // probabilities 1/4 and 3/4
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
    let [wide] = to_compute([x])?;
    let shifted = wide.broadcast_sub(&max_keepdim(&wide, dim)?)?;
    let log_sum = shifted.exp()?.sum_keepdim(dim)?.log()?;
    shifted.broadcast_sub(&log_sum)?.to_dtype(x.dtype())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_that_cuda_multiplies() -> Result<()> {
        let x = Tensor::zeros((4, 6), DType::F32, &Device::Cpu)?;
        let rows_of_transposed = x.t()?.narrow(0, 1, 2)?;
        assert!(cuda_multiplies(x.layout()) && cuda_multiplies(x.t()?.layout()));
        assert!(cuda_multiplies(x.narrow(0, 1, 2)?.layout()));
        assert!(!cuda_multiplies(rows_of_transposed.layout()) && !cuda_multiplies(x.narrow(1, 1, 2)?.layout()));
        assert_eq!(matmul(&rows_of_transposed, &x.narrow(1, 1, 2)?)?.dims(), [2, 2]);
        for refused in [rows_of_transposed, x.narrow(1, 1, 2)?] {
            assert!(cuda_multiplies(for_cuda(&refused)?.layout()));
        }
        Ok(())
    }

    /// A direct call of candle's product would fail on a GPU for some layouts, and pass every test on the CPU.
    #[test]
    fn matrix_products_call_matmul_of_this_module() {
        for folder in ["kernel", "loss", "nn"] {
            let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(folder);
            for file in std::fs::read_dir(folder).unwrap() {
                let path = file.unwrap().path();
                if path.extension().is_none_or(|extension| extension != "rs") {
                    continue;
                }
                let source = std::fs::read_to_string(&path).unwrap();
                let code = source.split("#[cfg(test)]").next().unwrap();
                let mut lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
                let is_own = path.ends_with("ops.rs");
                assert!(is_own || !lines.any(|line| line.contains(".matmul(")), "{}", path.display());
            }
        }
    }

    #[test]
    fn sums_of_a_million_elements_do_not_drift() -> Result<()> {
        let x = Tensor::full(0.1f32, 1 << 20, &Device::Cpu)?;
        let exact = f64::from(0.1f32) * f64::from(1u32 << 20);
        for sum in [sum_all(&x)?, sum_in_stages(&x)?] {
            assert!((f64::from(sum.to_scalar::<f32>()?) / exact - 1.0).abs() < 1e-6);
        }
        Ok(())
    }
}
