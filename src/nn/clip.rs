use crate::kernel::ops;
use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Result, Tensor, TensorId, Var, bail};

/// Scales the gradients of `vars` down so that their total norm is at most `max_norm`, and returns the norm before scaling.
///
/// Each gradient `g` becomes `g · min(1, max_norm / (n + 1e-6))`, where `n` is the Euclidean norm over all elements of all
/// gradients, computed in `f64` on the CPU and in `f32` on other devices. Variables without a gradient are skipped; if none has
/// one, the norm is 0.
///
/// Call it between `backward` and the optimizer's `step`. On a GPU the host waits for the norm. With
/// [`Trainer::clip_norm`](crate::Trainer::clip_norm), which clips in the same way, it does not wait.
///
/// As in PyTorch, if an element is NaN, all gradients become NaN; if an element is infinite, it becomes NaN and all finite elements
/// become 0. Check that the returned norm is finite.
///
/// Source: Pascanu, Mikolov & Bengio, [On the difficulty of training recurrent neural
/// networks](https://arxiv.org/abs/1211.5063), 2013;
/// [`torch.nn.utils.clip_grad_norm_`](https://pytorch.org/docs/stable/generated/torch.nn.utils.clip_grad_norm_.html).
///
/// # Errors
/// If `max_norm` is not positive.
///
/// ```
/// use candle_core::{Device, Var};
/// use candle_losses::clip_grad_norm;
///
/// let x = Var::new(&[3f64, 4.0], &Device::Cpu)?;
/// let mut grads = (x.sqr()? / 2.)?.sum_all()?.backward()?; // the gradient is x itself
/// let norm = clip_grad_norm(&mut grads, &[x.clone()], 1.0)?;
/// assert_eq!(norm, 5.0);
/// let clipped = grads.get(&x).unwrap().to_vec1::<f64>()?;
/// assert!((clipped[0] - 0.6).abs() < 1e-6 && (clipped[1] - 0.8).abs() < 1e-6);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn clip_grad_norm(grads: &mut GradStore, vars: &[Var], max_norm: f64) -> Result<f64> {
    match clip(grads, vars.iter().map(|var| var.id()), max_norm)? {
        Some(norm) => norm.to_device(&Device::Cpu)?.to_dtype(DType::F64)?.to_scalar(),
        None => Ok(0.0),
    }
}

/// Clips the gradients of the variables with these ids, and returns their norm, a scalar on their device, or `None` if there is
/// no gradient. The host does not wait for a GPU.
pub(crate) fn clip(
    grads: &mut GradStore,
    ids: impl IntoIterator<Item = TensorId>,
    max_norm: f64,
) -> Result<Option<Tensor>> {
    if max_norm.is_nan() || max_norm <= 0.0 {
        bail!("clip_grad_norm: max_norm is {max_norm} but must be positive")
    }
    // Detached, because a gradient may keep the graph that it was computed by.
    let found = ids.into_iter().filter_map(|id| Some((id, grads.get_id(id)?.detach()))).collect::<Vec<_>>();
    let Some((_, first)) = found.first() else { return Ok(None) };
    let device = first.device().clone();
    let dtype = if device.is_cpu() { DType::F64 } else { DType::F32 };
    let squares = found.iter().map(|(_, grad)| square_sum(grad)?.to_device(&device)?.to_dtype(dtype));
    let squares = squares.collect::<Result<Vec<_>>>()?;
    let mut squares = Tensor::stack(&squares, 0)?;
    if device.is_cpu() {
        // In one order, whatever the order of the variables, so that the same run has the same norm to the last bit.
        let mut values = squares.to_vec1::<f64>()?;
        values.sort_by(f64::total_cmp);
        squares = Tensor::new(values, &device)?;
    }
    let norm = squares.sum_all()?.sqrt()?;
    let scale = ((&norm + 1e-6)?.recip()? * max_norm)?;
    // By a comparison, as the `minimum` of some devices drops a NaN.
    let scale = scale.ge(1.0)?.where_cond(&scale.ones_like()?, &scale)?;
    if device.is_cpu() && scale.to_scalar::<f64>()? == 1.0 {
        return Ok(Some(norm));
    }
    for (id, grad) in found {
        grads.insert_id(id, grad.broadcast_mul(&scale.to_device(grad.device())?.to_dtype(grad.dtype())?)?);
    }
    Ok(Some(norm))
}

/// In double precision on the CPU, because a sum in single precision drifts. Not every GPU has double precision.
fn square_sum(grad: &Tensor) -> Result<Tensor> {
    let precise = if grad.device().is_cpu() { DType::F64 } else { DType::F32 };
    ops::sum_all(&grad.to_dtype(precise)?.sqr()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ```python
    /// a = torch.tensor([1., -2., 3.], dtype=torch.float64, requires_grad=True)
    /// b = torch.tensor([[.5, 4.]], dtype=torch.float64, requires_grad=True)
    /// ((a ** 3).sum() + (b ** 2).sum()).backward()
    /// print(torch.nn.utils.clip_grad_norm_([a, b], m).item(), a.grad.tolist(), b.grad.tolist())
    /// ```
    #[test]
    fn norms_and_gradients_are_pytorchs() -> Result<()> {
        for (max_norm, a_grad, b_grad) in [
            (1e9, [3.0, 12.0, 27.0], [1.0, 8.0]),
            (
                2.5,
                [0.24371724477448475, 0.974868979097939, 2.1934552029703624],
                [0.08123908159149491, 0.6499126527319593],
            ),
        ] {
            let a = Var::new(&[1f64, -2.0, 3.0], &Device::Cpu)?;
            let b = Var::new(&[[0.5f64, 4.0]], &Device::Cpu)?;
            let unused = Var::new(&[1f64], &Device::Cpu)?;
            let loss = (a.powf(3.0)?.sum_all()? + b.sqr()?.sum_all()?)?;
            let mut grads = loss.backward()?;
            let norm = clip_grad_norm(&mut grads, &[a.clone(), b.clone(), unused], max_norm)?;
            assert!((norm - 30.773365106858233).abs() < 1e-9, "{norm}");
            for (var, expected) in [(&a, &a_grad[..]), (&b, &b_grad[..])] {
                let found = grads.get(var).unwrap().flatten_all()?.to_vec1::<f64>()?;
                assert!(
                    found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-9),
                    "{found:?}"
                );
            }
        }
        Ok(())
    }

    #[test]
    fn nan_propagates() -> Result<()> {
        let x = Var::new(&[1f32, 2.0], &Device::Cpu)?;
        let mut grads = (x.as_tensor() * f64::NAN)?.sum_all()?.backward()?;
        assert!(clip_grad_norm(&mut grads, std::slice::from_ref(&x), 1.0)?.is_nan());
        assert!(grads.get(&x).unwrap().to_vec1::<f32>()?.iter().all(|grad| grad.is_nan()));
        Ok(())
    }

    #[test]
    fn refuses_a_norm_that_is_not_positive() -> Result<()> {
        let x = Var::new(&[1f32], &Device::Cpu)?;
        let mut grads = x.sum_all()?.backward()?;
        for max_norm in [0.0, -1.0, f64::NAN] {
            let error = clip_grad_norm(&mut grads, std::slice::from_ref(&x), max_norm).unwrap_err().to_string();
            assert!(error.contains("max_norm is") && error.contains("positive"), "{error}");
        }
        Ok(())
    }
}
