//! Checks of arguments and options. Each error names the loss and the argument, and says what the argument is and what
//! it must be.

use crate::kernel::{ops, scan, switches};
use candle_core::{DType, Device, Result, Tensor, bail};

/// Checks that the arguments of an elementwise loss have the same shape, float dtype and device, and returns them.
pub(super) fn matching<const N: usize>(loss: &str, args: [(&str, &Tensor); N]) -> Result<[Tensor; N]> {
    let (first_name, first) = args[0];
    for (name, arg) in args {
        if arg.dims() != first.dims() {
            bail!(
                "{loss}: {name} has shape {:?} but {first_name} has shape {:?}; they must be equal",
                arg.dims(),
                first.dims()
            )
        }
        same_kind(loss, (name, arg), (first_name, first))?;
        float_dtype(loss, name, arg)?;
    }
    Ok(args.map(|(_, arg)| arg.clone()))
}

/// Checks the arguments of an elementwise loss like [`matching`], but takes a last argument of any integer dtype too (0
/// and 1, ±1, or counts) and converts it to a float dtype.
pub(super) fn matching_integers<const N: usize>(loss: &str, mut args: [(&str, &Tensor); N]) -> Result<[Tensor; N]> {
    let (first, (name, last)) = (args[0], args[N - 1]);
    let input = first.1;
    if !last.dtype().is_int() || !input.dtype().is_float() || last.dims() != input.dims() {
        return matching(loss, args);
    }
    same_device(loss, (name, last), first)?;
    // A kernel needs all arguments in one dtype. Tensor ops compute in `f32` or `f64`, and a GPU lacks some casts to
    // half precision.
    let has_kernels = switches::has_kernels_for(&[input]);
    let dtype = if has_kernels { input.dtype() } else { ops::compute_dtype(input.dtype()) };
    args[N - 1] = first;
    let mut matched = matching(loss, args)?;
    matched[N - 1] = if last.elem_count() == 0 { input.clone() } else { ops::cast(last, dtype)? };
    Ok(matched)
}

/// Checks that two arguments have the same dtype and device.
pub(super) fn same_kind(loss: &str, (name, arg): (&str, &Tensor), (other_name, other): (&str, &Tensor)) -> Result<()> {
    if arg.dtype() != other.dtype() {
        bail!(
            "{loss}: {name} has dtype {:?} but {other_name} has {:?}; convert one with to_dtype",
            arg.dtype(),
            other.dtype()
        )
    }
    same_device(loss, (name, arg), (other_name, other))
}

pub(super) fn same_device(
    loss: &str,
    (name, arg): (&str, &Tensor),
    (other_name, other): (&str, &Tensor),
) -> Result<()> {
    // As in candle, by location: two handles of one GPU are the same device.
    if arg.device().location() != other.device().location() {
        bail!(
            "{loss}: {name} is on {:?} but {other_name} is on {:?}; move one with to_device",
            arg.device().location(),
            other.device().location()
        )
    }
    Ok(())
}

/// Returns the compute dtype for `arg`: `f64` for `f64`, and `f32` for other float dtypes.
pub(super) fn float_dtype(loss: &str, name: &str, arg: &Tensor) -> Result<DType> {
    match arg.dtype() {
        DType::F16 | DType::BF16 | DType::F32 => Ok(DType::F32),
        DType::F64 => Ok(DType::F64),
        other => bail!("{loss}: {name} has dtype {other:?} but needs one of F16, BF16, F32, F64"),
    }
}

/// Converts a float tensor to the compute dtype. Moves a tensor without elements to the CPU, because GPU kernels fail
/// on it.
pub(super) fn float(loss: &str, name: &str, arg: &Tensor) -> Result<Tensor> {
    float_dtype(loss, name, arg)?;
    let [arg] = ops::to_compute([arg])?;
    Ok(arg)
}

/// Converts class indices or lengths to `i64`.
pub(super) fn class_indices(loss: &str, name: &str, arg: &Tensor) -> Result<Tensor> {
    if !arg.dtype().is_int() {
        bail!("{loss}: {name} has dtype {:?} but needs one of U8, U32, I16, I32, I64", arg.dtype())
    }
    if arg.elem_count() == 0 {
        return arg.to_device(&Device::Cpu)?.to_dtype(DType::I64)?.to_device(arg.device());
    }
    ops::cast(arg, DType::I64)
}

/// Reads class indices or lengths on the host.
pub(super) fn read_indices(loss: &str, name: &str, arg: &Tensor) -> Result<Vec<i64>> {
    class_indices(loss, name, arg)?.flatten_all()?.to_vec1()
}

/// Checks that a weight broadcasts to the shape of `input`, and returns it detached and in the compute dtype.
pub(super) fn broadcast_weight(
    loss: &str,
    name: &str,
    weight: Option<&Tensor>,
    input: &Tensor,
) -> Result<Option<Tensor>> {
    let Some(weight) = weight else { return Ok(None) };
    same_device(loss, (name, weight), ("input", input))?;
    let fits = weight.rank() <= input.rank()
        && weight.dims().iter().rev().zip(input.dims().iter().rev()).all(|(&w, &i)| w == i || w == 1);
    if !fits {
        bail!("{loss}: {name} has shape {:?}, which does not broadcast to input's {:?}", weight.dims(), input.dims())
    }
    let weight = float(loss, name, &weight.detach())?.to_dtype(float_dtype(loss, "input", input)?)?;
    // An input without elements comes to the CPU, and so does its weight.
    if input.elem_count() == 0 { weight.to_device(&Device::Cpu).map(Some) } else { Ok(Some(weight)) }
}

/// Returns an error for an option that is not `ok`.
pub(super) fn check_option(loss: &str, name: &str, value: f64, ok: bool, need: &str) -> Result<()> {
    if !ok {
        bail!("{loss}: {name} is {value} but must be {need}")
    }
    Ok(())
}

/// Returns an error for the first element that is not `ok`. It checks tensors on the CPU only, because the host would
/// have to wait for a GPU.
pub(super) fn check_elements(
    loss: &str,
    name: &str,
    arg: &Tensor,
    ok: impl Fn(f64) -> bool + Sync,
    need: &str,
) -> Result<()> {
    if !switches::reads_values(arg.device()) || arg.elem_count() == 0 {
        return Ok(());
    }
    match scan::find_invalid(arg, ok)? {
        Some((i, value)) => bail!("{loss}: {name} must be {need}, but element {i} is {value}"),
        None => Ok(()),
    }
}
