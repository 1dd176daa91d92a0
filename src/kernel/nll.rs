//! The negative log-likelihood of one class per sample, on the CPU.

use super::cpu::{Arg, GradOutputs, LossKernel, cpu_loss};
use super::element::{Element, with_element};
use super::lanes::CHUNK;
use super::parallel::in_parallel;
use super::rows::{RowLayout, WeightedTargets, without_dim};
use super::scalar::{Float, Scalar};
use super::strided::SharedBuffer;
use candle_core::{Layout, Result, Tensor, WithDType};
use std::mem::MaybeUninit;

/// `-w·x` for the element `x` of each row at its class, and their sum times `factor` if there is one.
pub(crate) fn gather_nll(x: &Tensor, dim: usize, targets: WeightedTargets, factor: Option<f64>) -> Result<Tensor> {
    with_element!(x.dtype(), T => cpu_loss::<T, 1>([x], factor, GatherNll { dim, targets }))
}

struct GatherNll {
    /// The dimension of the classes.
    dim: usize,
    targets: WeightedTargets,
}

// SAFETY: the chunks cover every row, whose gradient is filled with 0 and whose loss is written.
#[allow(unsafe_code)]
unsafe impl<T: Element> LossKernel<T, 1> for GatherNll {
    fn loss_dims(&self, arg_dims: &[usize]) -> Vec<usize> {
        without_dim(arg_dims, self.dim)
    }

    fn run(&self, [arg]: [Arg<T>; 1], _: Option<Arg<T::Compute>>, outputs: GradOutputs<T, 1>) -> Result<f64> {
        let from = RowLayout::<T>::new(arg.values, arg.layout, self.dim);
        let to = RowLayout::<T>::new(&[], &Layout::contiguous(arg.layout.shape()), self.dim);
        let GradOutputs { losses, grads: [grad], factor, loss_grad } = outputs;
        let (losses, grad) = (losses.map(SharedBuffer::new), grad.map(SharedBuffer::new));
        let (rows, width) = (self.targets.classes.len(), arg.layout.dims()[self.dim]);
        let at_once = CHUNK.div_ceil(width);
        let mut sums = vec![0f64; rows.div_ceil(at_once)];
        in_parallel(sums.iter_mut().enumerate(), |(chunk, sum)| {
            let (mut first, end) = (chunk * at_once, rows.min((chunk + 1) * at_once));
            while first < end {
                let ((start, step, run), (start_to, step_to, run_to)) = (from.run(first), to.run(first));
                let run = run.min(run_to).min(end - first);
                if let Some(grad) = &grad {
                    // The rows one after the other, or, class by class, the elements that they have of each.
                    let (pieces, len) = if to.stride == 1 { (1, run * width) } else { (width, run) };
                    for piece in 0..pieces {
                        // SAFETY: each row has places of its own.
                        let places = unsafe { grad.slice_mut(start_to + piece * to.stride, len) };
                        places.fill(MaybeUninit::new(T::from_f64(0.0)));
                    }
                }
                for k in 0..run {
                    let i = first + k;
                    // The loss of an ignored row is 0, whatever its elements are.
                    let mut loss = T::Compute::ZERO;
                    if let Some((class, weight)) = self.targets.get(i) {
                        let x = arg.values[start + k * step + class * from.stride].to_compute();
                        loss = x * T::Compute::constant(-weight);
                        if let Some(grad) = &grad {
                            let loss_grad = loss_grad.as_ref().map_or(T::Compute::ONE, |grad| grad.get(i));
                            let value = T::from_compute(T::Compute::constant(-weight * factor) * loss_grad);
                            // SAFETY: each row has one place.
                            unsafe { grad.slice_mut(start_to + k * step_to + class * to.stride, 1)[0].write(value) };
                        }
                    }
                    *sum += loss.to_f64();
                    if let Some(losses) = &losses {
                        // SAFETY: each row has one place.
                        unsafe { losses.slice_mut(i, 1)[0].write(T::from_compute(loss)) };
                    }
                }
                first += run;
            }
        });
        Ok(sums.iter().sum())
    }
}
