//! A loss on the CPU: value and gradients in one pass over the arguments.

use super::element::Element;
use super::graph::{Value, node};
use super::ops;
use super::scalar::Scalar;
use super::storage::with_storages;
use super::strided::Strided;
use candle_core::{DType, Layout, Result, Shape, Tensor, bail};
use std::mem::MaybeUninit;

/// A loss that is computed in one pass over `N` arguments of one shape and dtype.
///
/// # Safety
/// [`run`](Self::run) must write every element of the outputs that it is given.
#[allow(unsafe_code)]
pub(crate) unsafe trait LossKernel<T: Element, const N: usize>: Send + Sync + 'static {
    /// The shape of the unreduced losses.
    fn loss_dims(&self, arg_dims: &[usize]) -> Vec<usize>;

    /// A weight of each element, in the arguments' shape and the precision that is computed in.
    fn weight(&self) -> Option<&Tensor> {
        None
    }

    /// Writes the outputs and returns the sum of the losses.
    fn run(&self, args: [Arg<T>; N], weight: Option<Arg<T::Compute>>, outputs: GradOutputs<T, N>) -> Result<f64>;
}

/// A tensor on the CPU, as a kernel reads it.
#[derive(Clone, Copy)]
pub(crate) struct Arg<'a, T> {
    pub values: &'a [T],
    pub layout: &'a Layout,
}

/// What a kernel writes.
pub(crate) struct GradOutputs<'a, T: Element, const N: usize> {
    /// The unreduced losses.
    pub losses: Option<&'a mut [MaybeUninit<T>]>,
    /// The gradients of the arguments,
    pub grads: [Option<&'a mut [MaybeUninit<T>]>; N],
    /// each multiplied by this number,
    pub factor: f64,
    /// and by the gradient of its loss.
    pub loss_grad: Option<Strided<'a, T>>,
}

/// The sum of the losses times `factor`, or the losses themselves if there is no factor.
///
/// With a factor, forward computes the gradients along with the sum, as they share most of their work, and backward
/// multiplies them by a number. Backward computes them itself without a factor, as they depend on the gradient of each
/// loss, and in half precision, so that they are rounded once, after that multiplication.
pub(crate) fn cpu_loss<T: Element, const N: usize>(
    args: [&Tensor; N],
    factor: Option<f64>,
    kernel: impl LossKernel<T, N>,
) -> Result<Tensor> {
    cpu_loss_of(args, factor, Box::new(kernel))
}

// Behind a pointer, so that this is compiled once for all losses.
fn cpu_loss_of<T: Element, const N: usize>(
    args: [&Tensor; N],
    factor: Option<f64>,
    kernel: Box<dyn LossKernel<T, N>>,
) -> Result<Tensor> {
    let tracked = args.map(Tensor::track_op);
    let none = [false; N];
    let Some(factor) = factor else {
        let (_, losses, _) = run(&*kernel, args, true, none, 1.0, None)?;
        let shape = Shape::from(kernel.loss_dims(args[0].dims()));
        let value = Value::Cpu(T::to_cpu_storage_owned(losses.unwrap_or_default()), shape);
        return node(args, value, move |args, grad| Ok(run_grads(&*kernel, args, tracked, 1.0, Some(grad))?.1));
    };
    let scalar = |sum: f64| {
        let value = T::from_compute(T::Compute::constant(sum * factor));
        Value::Cpu(T::to_cpu_storage_owned(vec![value]), Shape::from(()))
    };
    if T::IS_COMPUTE {
        let (sum, grads) = run_grads(&*kernel, args, tracked, factor, None)?;
        return node(args, scalar(sum), move |_, grad| {
            let mut scaled = [const { None }; N];
            for (scaled, gradient) in scaled.iter_mut().zip(&grads) {
                *scaled = gradient.as_ref().map(|gradient| ops::times_scalar(gradient, grad)).transpose()?;
            }
            Ok(scaled)
        });
    }
    let (sum, ..) = run(&*kernel, args, false, none, factor, None)?;
    node(args, scalar(sum), move |args, grad| {
        let grad = grad.to_dtype(DType::F64)?.to_scalar::<f64>()?;
        Ok(run_grads(&*kernel, args, tracked, factor * grad, None)?.1)
    })
}

/// The sum of the losses, and the gradient of the argument: that of the sum, or, with `loss_grad`, of the losses each
/// times its own.
pub(crate) fn sum_and_grad<T: Element>(
    arg: &Tensor,
    loss_grad: Option<&Tensor>,
    kernel: &dyn LossKernel<T, 1>,
) -> Result<(f64, Tensor)> {
    match run_grads(kernel, [arg], [true], 1.0, loss_grad)? {
        (sum, [Some(grad)]) => Ok((sum, grad)),
        _ => bail!("a kernel gave no gradient"),
    }
}

type Grads<const N: usize> = [Option<Tensor>; N];

fn run_grads<T: Element, const N: usize>(
    kernel: &dyn LossKernel<T, N>,
    args: [&Tensor; N],
    wanted: [bool; N],
    factor: f64,
    loss_grad: Option<&Tensor>,
) -> Result<(f64, Grads<N>)> {
    let (sum, _, grads) = run(kernel, args, false, wanted, factor, loss_grad)?;
    let mut tensors = [const { None }; N];
    for (tensor, grad) in tensors.iter_mut().zip(grads) {
        *tensor = grad.map(|grad| Tensor::from_vec(grad, args[0].shape(), args[0].device())).transpose()?;
    }
    Ok((sum, tensors))
}

type Outputs<T, const N: usize> = (f64, Option<Vec<T>>, [Option<Vec<T>>; N]);

#[allow(unsafe_code)]
fn run<T: Element, const N: usize>(
    kernel: &dyn LossKernel<T, N>,
    args: [&Tensor; N],
    wants_losses: bool,
    wants_grads: [bool; N],
    factor: f64,
    loss_grad: Option<&Tensor>,
) -> Result<Outputs<T, N>> {
    let tensors = args.into_iter().chain(loss_grad).chain(kernel.weight()).collect::<Vec<_>>();
    with_storages(&tensors, |storages| {
        let arg = |i: usize| -> Result<Arg<T>> {
            let (storage, layout) = storages[i];
            Ok(Arg { values: storage.as_slice()?, layout })
        };
        let mut all = Vec::with_capacity(N);
        for i in 0..N {
            all.push(arg(i)?);
        }
        let loss_grad = match loss_grad {
            Some(_) => arg(N).map(|arg| Some(Strided::new(arg.values, arg.layout)))?,
            None => None,
        };
        let weight = match kernel.weight() {
            Some(_) => {
                let (storage, layout) = storages[storages.len() - 1];
                Some(Arg { values: storage.as_slice()?, layout })
            }
            None => None,
        };
        let dims = args[0].dims();
        let loss_count = kernel.loss_dims(dims).iter().product::<usize>();
        let grad_count = args[0].elem_count();
        let mut losses = wants_losses.then(|| Vec::<T>::with_capacity(loss_count));
        let mut grads = wants_grads.map(|is_wanted| is_wanted.then(|| Vec::<T>::with_capacity(grad_count)));
        let outputs = GradOutputs {
            losses: losses.as_mut().map(|losses| &mut losses.spare_capacity_mut()[..loss_count]),
            grads: grads.each_mut().map(|grad| grad.as_mut().map(|grad| &mut grad.spare_capacity_mut()[..grad_count])),
            factor,
            loss_grad,
        };
        let sum = kernel.run(std::array::from_fn(|i| all[i]), weight, outputs)?;
        // SAFETY: the kernel has written every element, as its trait demands.
        unsafe {
            losses.iter_mut().for_each(|losses| losses.set_len(loss_count));
            grads.iter_mut().flatten().for_each(|grad| grad.set_len(grad_count));
        }
        Ok((sum, losses, grads))
    })
}
