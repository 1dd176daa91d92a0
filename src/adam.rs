use crate::loss::fused::{elements, is_plain};
use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, Device, InplaceOp2, Layout, Tensor, Var, bail};
use std::cell::RefCell;

const BETA1: f64 = 0.9;
const BETA2: f64 = 0.999;
const EPS: f64 = 1e-8;

/// PyTorch's Adam at its defaults (β 0.9 and 0.999, ε 1e-8, no weight decay).
///
/// On the CPU a step is one pass over each `f32` parameter, in place; elsewhere it is made of tensor ops.
///
/// Source: Kingma & Ba, [Adam](https://arxiv.org/abs/1412.6980), 2015;
/// [`torch.optim.Adam`](https://pytorch.org/docs/stable/generated/torch.optim.Adam.html).
///
/// ```
/// use candle_core::{Device, Var};
/// use candle_losses::Adam;
///
/// let x = Var::new(&[1.0f32, -2.0], &Device::Cpu)?;
/// let mut adam = Adam::new(vec![x.clone()], 0.1)?;
/// adam.step(&x.sqr()?.sum_all()?.backward()?)?;
/// let values = x.to_vec1::<f32>()?; // the first step is the learning rate, against the gradient's sign
/// assert!((values[0] - 0.9).abs() < 1e-5 && (values[1] + 1.9).abs() < 1e-5);
/// # Ok::<(), candle_core::Error>(())
/// ```
pub struct Adam {
    lr: f64,
    steps: i32,
    parameters: Vec<(Var, Moments)>,
}

/// The running means of a parameter's gradient and of its square.
enum Moments {
    InPlace(RefCell<(Vec<f32>, Vec<f32>)>),
    Tensors(Tensor, Tensor),
}

impl Adam {
    /// For these variables, with the learning rate `lr`.
    pub fn new(variables: Vec<Var>, lr: f64) -> candle_core::Result<Self> {
        let parameters = variables.into_iter().map(|var| {
            let moments = if is_plain(&var) {
                let zeros = vec![0.0; var.elem_count()];
                Moments::InPlace(RefCell::new((zeros.clone(), zeros)))
            } else {
                Moments::Tensors(var.zeros_like()?, var.zeros_like()?)
            };
            Ok((var, moments))
        });
        Ok(Self { lr, steps: 0, parameters: parameters.collect::<candle_core::Result<_>>()? })
    }

    /// The running means of each parameter's gradient and of its square, in one dimension each.
    pub(crate) fn moments(&self) -> candle_core::Result<Vec<(Tensor, Tensor)>> {
        let moments = self.parameters.iter().map(|(_, moments)| match moments {
            Moments::InPlace(moments) => {
                let (mean, square) = &*moments.borrow();
                Ok((Tensor::new(mean.as_slice(), &Device::Cpu)?, Tensor::new(square.as_slice(), &Device::Cpu)?))
            }
            Moments::Tensors(mean, square) => Ok((mean.flatten_all()?, square.flatten_all()?)),
        });
        moments.collect()
    }

    /// Goes back to where it was after so many steps.
    pub(crate) fn set_moments(&mut self, steps: i32, moments: &[(Tensor, Tensor)]) -> candle_core::Result<()> {
        for ((var, own), (mean, square)) in self.parameters.iter_mut().zip(moments) {
            let like = |stored: &Tensor| stored.reshape(var.shape())?.to_dtype(var.dtype())?.to_device(var.device());
            let (mean, square) = (like(mean)?, like(square)?);
            *own = match own {
                Moments::InPlace(_) => {
                    let values = |moment: &Tensor| moment.flatten_all()?.to_vec1::<f32>();
                    Moments::InPlace(RefCell::new((values(&mean)?, values(&square)?)))
                }
                Moments::Tensors(..) => Moments::Tensors(mean, square),
            };
        }
        self.steps = steps;
        Ok(())
    }

    /// One step against the gradients `grads`. A variable without one stays as it is.
    pub fn step(&mut self, grads: &GradStore) -> candle_core::Result<()> {
        self.steps += 1;
        let step_size = self.lr / (1.0 - BETA1.powi(self.steps));
        let correction = (1.0 - BETA2.powi(self.steps)).sqrt();
        for (var, moments) in &mut self.parameters {
            let Some(grad) = grads.get(var) else { continue };
            match moments {
                Moments::InPlace(moments) => var.inplace_op2(
                    &grad.contiguous()?,
                    &Update { moments, step_size: step_size as f32, correction: correction as f32 },
                )?,
                Moments::Tensors(m, v) => {
                    *m = ((&*m * BETA1)? + (grad * (1.0 - BETA1))?)?;
                    *v = ((&*v * BETA2)? + (grad.sqr()? * (1.0 - BETA2))?)?;
                    let scale = ((v.sqrt()? / correction)? + EPS)?;
                    var.set(&(var.as_tensor() - ((&*m / scale)? * step_size)?)?)?;
                }
            }
        }
        Ok(())
    }
}

struct Update<'a> {
    moments: &'a RefCell<(Vec<f32>, Vec<f32>)>,
    step_size: f32,
    correction: f32,
}

impl InplaceOp2 for Update<'_> {
    fn name(&self) -> &'static str {
        "adam"
    }

    fn cpu_fwd(&self, var: &mut CpuStorage, _: &Layout, grad: &CpuStorage, layout: &Layout) -> candle_core::Result<()> {
        let CpuStorage::F32(var) = var else { bail!("adam: not of dtype F32") };
        let grad = elements::<f32>(grad, layout)?;
        // As in PyTorch, 1 - β is rounded to single precision, not taken from the rounded β.
        let (new1, old2, new2, eps) = ((1.0 - BETA1) as f32, BETA2 as f32, (1.0 - BETA2) as f32, EPS as f32);
        let (m, v) = &mut *self.moments.borrow_mut();
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || {
                for (((x, &g), m), v) in var.iter_mut().zip(grad).zip(m).zip(v) {
                    *m += (g - *m) * new1;
                    *v = *v * old2 + g * g * new2;
                    *x -= self.step_size * *m / (v.sqrt() / self.correction + eps);
                }
            },
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::DType;

    /// `x -= Adam(lr=0.1)` on the loss `Σ x³` from (1, -2, 0.5), after 1, 2, 3 and 10 steps.
    ///
    /// ```python
    /// x = torch.tensor([1., -2., .5], dtype=torch.float64, requires_grad=True)
    /// opt = torch.optim.Adam([x], lr=.1)
    /// for step in range(1, 11):
    ///     opt.zero_grad(); (x ** 3).sum().backward(); opt.step()
    ///     if step in (1, 2, 3, 10): print(x.tolist())
    /// ```
    const PYTORCH: [(usize, [f64; 3]); 4] = [
        (1, [0.9000000003333333, -2.0999999999166667, 0.40000000133333335]),
        (2, [0.8010907783811203, -2.2001352220006822, 0.30344391188636666]),
        (3, [0.7041537958715121, -2.3004937905256657, 0.21322035758517427]),
        (10, [0.1495504193328808, -3.015996819967722, -0.19424503170342694]),
    ];

    #[test]
    fn steps_as_pytorch_in_place_and_by_tensor_ops() -> candle_core::Result<()> {
        for (dtype, tolerance) in [(DType::F32, 2e-6), (DType::F64, 1e-12)] {
            let x = Var::from_tensor(&Tensor::new(&[1f64, -2.0, 0.5], &Device::Cpu)?.to_dtype(dtype)?)?;
            let mut adam = Adam::new(vec![x.clone()], 0.1)?;
            let mut checked = 0;
            for step in 1..=10 {
                adam.step(&x.powf(3.0)?.sum_all()?.backward()?)?;
                let Some((_, expected)) = PYTORCH.iter().find(|(at, _)| *at == step) else { continue };
                for (found, expected) in x.to_dtype(DType::F64)?.to_vec1::<f64>()?.iter().zip(expected) {
                    assert!((found - expected).abs() < tolerance, "{dtype:?}, step {step}: {found} {expected}");
                }
                checked += 1;
            }
            assert_eq!(checked, PYTORCH.len());
        }
        Ok(())
    }
}
