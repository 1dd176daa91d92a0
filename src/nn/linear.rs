//! A linear layer as one op: product, bias and ReLU together, and only those gradients that somebody asks for.
//!
//! candle's own product would do, at more than twice the time of a small step: on each call it reads the number of cores
//! from the operating system, and its gradient is taken of both factors, though that of a batch of images goes to nobody.

use crate::kernel::gemm::{Matrix, add_product, new_product};
use crate::kernel::ops;
use crate::kernel::storage::{elements, with_elements};
use crate::kernel::switches::is_f32_slice;
use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor, bail};

/// `x·weightᵀ + bias`, then ReLU if asked for. `x` is (N, inputs), `weight` (outputs, inputs), `bias` (outputs).
pub(super) fn linear(x: &Tensor, weight: &Tensor, bias: &Tensor, relu: bool) -> Result<Tensor> {
    if [x, weight, bias].into_iter().all(is_f32_slice) {
        return x.apply_op3(weight, bias, Linear { relu });
    }
    let y = ops::matmul(x, &weight.t()?)?.broadcast_add(bias)?;
    // Not candle's own `relu`, whose derivative at 0 is 1.
    if relu { ops::relu(&y) } else { Ok(y) }
}

struct Linear {
    relu: bool,
}

impl CustomOp3 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        weight: &CpuStorage,
        weight_layout: &Layout,
        bias: &CpuStorage,
        bias_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (rows, inputs) = x_layout.shape().dims2()?;
        let (outputs, width) = weight_layout.shape().dims2()?;
        if width != inputs || bias_layout.shape().dims() != [outputs] {
            bail!("linear: {inputs} inputs and {:?} for {:?}", bias_layout.dims(), weight_layout.dims())
        }
        let (x, weight) = (elements(x, x_layout)?, elements(weight, weight_layout)?);
        let mut y = elements::<f32>(bias, bias_layout)?.repeat(rows);
        add_product(&mut y, Matrix::new(x, rows, inputs), Matrix::new(weight, outputs, inputs).transposed());
        if self.relu {
            // NaN stays, so that a run which diverges shows it.
            y.iter_mut().for_each(|y| *y = if *y <= 0.0 { 0.0 } else { *y });
        }
        Ok((CpuStorage::F32(y), (rows, outputs).into()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        weight: &Tensor,
        _bias: &Tensor,
        y: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let (rows, inputs) = x.dims2()?;
        let outputs = weight.dim(0)?;
        let mut grad = with_elements(grad, <[f32]>::to_vec)?;
        if self.relu {
            // The derivative at 0 is 0, as PyTorch's.
            let pass = |(grad, y): (&mut f32, &f32)| *grad = if *y <= 0.0 { 0.0 } else { *grad };
            with_elements(y, |y| grad.iter_mut().zip(y).for_each(pass))?;
        }
        let grad = Matrix::new(&grad, rows, outputs);
        let of_x = match x.track_op() {
            true => {
                let product = with_elements(weight, |weight| new_product(grad, Matrix::new(weight, outputs, inputs)))?;
                Some(Tensor::from_vec(product, (rows, inputs), x.device())?)
            }
            false => None,
        };
        let of_weight = match weight.track_op() {
            true => {
                let product = with_elements(x, |x| new_product(grad.transposed(), Matrix::new(x, rows, inputs)))?;
                Some(Tensor::from_vec(product, (outputs, inputs), x.device())?)
            }
            false => None,
        };
        let mut sums = vec![0.0; outputs];
        for row in grad.values.chunks_exact(outputs) {
            sums.iter_mut().zip(row).for_each(|(sum, grad)| *sum += grad);
        }
        Ok((of_x, of_weight, Some(Tensor::from_vec(sums, outputs, x.device())?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    fn var(rows: usize, columns: usize, seed: usize) -> Var {
        let values = (0..rows * columns).map(|i| ((i * 37 + seed * 11) % 101) as f32 / 50.0 - 1.0).collect::<Vec<_>>();
        Var::from_tensor(&Tensor::from_vec(values, (rows, columns), &Device::Cpu).unwrap()).unwrap()
    }

    #[test]
    fn computes_and_backpropagates_as_candles_own_ops() -> Result<()> {
        // The two largest use several threads.
        for (rows, inputs, outputs) in [(1, 1, 1), (3, 5, 2), (10, 20, 7), (63, 801, 33), (300, 200, 150)] {
            for relu in [false, true] {
                let (x, weight) = (var(rows, inputs, 1), var(outputs, inputs, 2));
                let bias = Var::from_tensor(&var(1, outputs, 3).squeeze(0)?)?;
                let cotangent = var(rows, outputs, 4);
                let composed = x.matmul(&weight.t()?)?.broadcast_add(&bias)?;
                let composed = if relu { composed.relu()? } else { composed };
                let fused = linear(&x, &weight, &bias, relu)?;
                let grads = |y: &Tensor| (y * cotangent.as_tensor())?.sum_all()?.backward();
                let (expected, found) = (grads(&composed)?, grads(&fused)?);
                let close = |a: &Tensor, b: &Tensor| -> Result<()> {
                    let worst = ((a - b)?.abs()? / (b.abs()? + 1.)?)?.max_all()?.to_scalar::<f32>()?;
                    assert!(worst < 1e-4, "{rows}x{inputs}x{outputs}, ReLU {relu}: {worst}");
                    Ok(())
                };
                close(&fused, &composed)?;
                for var in [&x, &weight, &bias] {
                    close(found.get(var).unwrap(), expected.get(var).unwrap())?;
                }
            }
        }
        Ok(())
    }

    #[test]
    fn what_is_no_number_is_not_hidden_by_the_relu() -> Result<()> {
        let (x, weight) = (Tensor::full(f32::NAN, (2, 3), &Device::Cpu)?, var(4, 3, 2));
        let y = linear(&x, &weight, &Tensor::zeros(4, candle_core::DType::F32, &Device::Cpu)?, true)?;
        assert!(y.flatten_all()?.to_vec1::<f32>()?.iter().all(|y| y.is_nan()));
        Ok(())
    }

    #[test]
    fn refuses_sizes_that_do_not_fit() {
        let bias = var(1, 2, 3).squeeze(0).unwrap();
        assert!(linear(&var(3, 4, 1), &var(2, 5, 2), &bias, false).is_err());
        assert!(linear(&var(3, 5, 1), &var(3, 5, 2), &bias, false).is_err());
    }
}
