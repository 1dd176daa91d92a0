use crate::kernel::storage::elements;
use crate::kernel::switches::is_f32_slice;
use candle_core::backprop::GradStore;
use candle_core::{CpuStorage, Device, InplaceOp2, Layout, Result, Tensor, Var, bail};
use candle_nn::Optimizer;
use std::cell::RefCell;

/// The options of [`Adam`], PyTorch's by name and default.
///
/// ```
/// use candle_losses::ParamsAdam;
///
/// let params = ParamsAdam { lr: 1e-4, ..Default::default() };
/// assert_eq!((params.beta1, params.beta2, params.eps, params.weight_decay), (0.9, 0.999, 1e-8, 0.0));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct ParamsAdam {
    /// The learning rate: about how far a step goes in each parameter. Default 1e-3.
    pub lr: f64,
    /// How much of the gradient's running mean is kept at a step, in [0, 1). Default 0.9.
    pub beta1: f64,
    /// The same for its square. Default 0.999.
    pub beta2: f64,
    /// Added to the denominator. Default 1e-8.
    pub eps: f64,
    /// This times the parameter is added to its gradient (L2). Default 0. For weights that decay apart from the gradient
    /// take candle-nn's `AdamW`.
    pub weight_decay: f64,
}

impl Default for ParamsAdam {
    fn default() -> Self {
        Self { lr: 1e-3, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 }
    }
}

impl ParamsAdam {
    fn check(&self) -> Result<()> {
        let at_least_0 = |x: f64| x >= 0.0 && x.is_finite();
        for (name, value, ok, need) in [
            ("lr", self.lr, at_least_0(self.lr), "0 or more"),
            ("beta1", self.beta1, (0.0..1.0).contains(&self.beta1), "in [0, 1)"),
            ("beta2", self.beta2, (0.0..1.0).contains(&self.beta2), "in [0, 1)"),
            ("eps", self.eps, at_least_0(self.eps), "0 or more"),
            ("weight_decay", self.weight_decay, at_least_0(self.weight_decay), "0 or more"),
        ] {
            if !ok {
                bail!("Adam: {name} is {value} but must be {need}")
            }
        }
        Ok(())
    }
}

/// PyTorch's Adam, as one of candle-nn's optimizers.
///
/// On the CPU a step is one pass over each `f32` parameter, in place; elsewhere it is made of tensor ops. A variable
/// without a gradient stays as it is.
///
/// Source: Kingma & Ba, [Adam](https://arxiv.org/abs/1412.6980), 2015;
/// [`torch.optim.Adam`](https://pytorch.org/docs/stable/generated/torch.optim.Adam.html).
///
/// # Errors
/// `new` refuses to start without a variable of a float dtype, and options out of their range. (So `Optimizer::empty`,
/// which starts without variables, is an error too.)
///
/// ```
/// use candle_core::{Device, Var};
/// use candle_losses::{Adam, ParamsAdam};
/// use candle_nn::Optimizer;
///
/// let x = Var::new(&[1.0f32, -2.0], &Device::Cpu)?;
/// let mut adam = Adam::new(vec![x.clone()], ParamsAdam { lr: 0.1, ..Default::default() })?;
/// adam.backward_step(&x.sqr()?.sum_all()?)?;
/// let values = x.to_vec1::<f32>()?; // the first step is the learning rate, against the gradient's sign
/// assert!((values[0] - 0.9).abs() < 1e-5 && (values[1] + 1.9).abs() < 1e-5);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug)]
pub struct Adam {
    params: ParamsAdam,
    steps: usize,
    variables: Vec<(Var, Moments)>,
}

/// The running means of a variable's gradient and of its square.
#[derive(Debug)]
enum Moments {
    InPlace(RefCell<(Vec<f32>, Vec<f32>)>),
    Tensors(Tensor, Tensor),
}

impl Optimizer for Adam {
    type Config = ParamsAdam;

    fn new(vars: Vec<Var>, params: ParamsAdam) -> Result<Self> {
        params.check()?;
        let floats = vars.into_iter().filter(|var| var.dtype().is_float());
        let variables = floats.map(|var| {
            let moments = if is_f32_slice(&var) {
                let zeros = vec![0.0; var.elem_count()];
                Moments::InPlace(RefCell::new((zeros.clone(), zeros)))
            } else {
                Moments::Tensors(var.as_detached_tensor().zeros_like()?, var.as_detached_tensor().zeros_like()?)
            };
            Ok((var, moments))
        });
        let variables = variables.collect::<Result<Vec<_>>>()?;
        if variables.is_empty() {
            bail!("Adam: there is no variable of a float dtype to train: build the model before the optimizer")
        }
        Ok(Self { params, steps: 0, variables })
    }

    fn step(&mut self, grads: &GradStore) -> Result<()> {
        self.steps += 1;
        let &ParamsAdam { lr, beta1, beta2, eps, weight_decay } = &self.params;
        let step_size = lr / (1.0 - beta1.powf(self.steps as f64));
        let correction = (1.0 - beta2.powf(self.steps as f64)).sqrt();
        for (var, moments) in &mut self.variables {
            // Detached, as what is kept of it would keep the graph of every step.
            let Some(grad) = grads.get(var).map(Tensor::detach) else { continue };
            match moments {
                Moments::InPlace(moments) => {
                    let update = Update {
                        moments,
                        params: &self.params,
                        step_size: step_size as f32,
                        correction: correction as f32,
                    };
                    var.inplace_op2(&grad.contiguous()?, &update)?;
                }
                Moments::Tensors(m, v) => {
                    let x = var.as_detached_tensor();
                    let grad = if weight_decay == 0.0 { grad } else { (grad + (&x * weight_decay)?)? };
                    *m = ((&*m * beta1)? + (&grad * (1.0 - beta1))?)?;
                    *v = ((&*v * beta2)? + (grad.sqr()? * (1.0 - beta2))?)?;
                    let scale = ((v.sqrt()? / correction)? + eps)?;
                    var.set(&(x - ((&*m / scale)? * step_size)?)?)?;
                }
            }
        }
        Ok(())
    }

    fn learning_rate(&self) -> f64 {
        self.params.lr
    }

    fn set_learning_rate(&mut self, lr: f64) {
        self.params.lr = lr;
    }
}

impl Adam {
    /// How many steps were taken.
    pub fn steps(&self) -> usize {
        self.steps
    }

    /// The running means of each variable's gradient and of its square, flattened, in the order of the variables: with the
    /// number of [`steps`](Self::steps) and the variables themselves, what [`load_state`](Self::load_state) continues from.
    pub fn state(&self) -> Result<Vec<(Tensor, Tensor)>> {
        let moments = self.variables.iter().map(|(_, moments)| match moments {
            Moments::InPlace(moments) => {
                let (mean, square) = &*moments.borrow();
                Ok((Tensor::new(mean.as_slice(), &Device::Cpu)?, Tensor::new(square.as_slice(), &Device::Cpu)?))
            }
            Moments::Tensors(mean, square) => Ok((mean.flatten_all()?, square.flatten_all()?)),
        });
        moments.collect()
    }

    /// Continues from the [`state`](Self::state) of an optimizer of variables of the same shapes after `steps` steps.
    ///
    /// ```
    /// use candle_core::{Device, Var};
    /// use candle_losses::{Adam, ParamsAdam};
    /// use candle_nn::Optimizer;
    ///
    /// let x = Var::new(&[1.0f32, -2.0], &Device::Cpu)?;
    /// let mut adam = Adam::new(vec![x.clone()], ParamsAdam::default())?;
    /// adam.backward_step(&x.sqr()?.sum_all()?)?;
    ///
    /// let mut other = Adam::new(vec![x.clone()], ParamsAdam::default())?;
    /// other.load_state(adam.steps(), &adam.state()?)?;
    /// other.backward_step(&x.sqr()?.sum_all()?)?; // as `adam` would have
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// If there are not as many moments as variables, or of other sizes.
    pub fn load_state(&mut self, steps: usize, moments: &[(Tensor, Tensor)]) -> Result<()> {
        let sizes = moments.iter().map(|(mean, square)| [mean.elem_count(), square.elem_count()]);
        let own = self.variables.iter().map(|(var, _)| [var.elem_count(); 2]);
        if !sizes.eq(own) {
            bail!(
                "Adam: these are not the moments of its {} variables: other sizes, or another number",
                self.variables.len()
            )
        }
        for ((var, own), (mean, square)) in self.variables.iter_mut().zip(moments) {
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
}

struct Update<'a> {
    moments: &'a RefCell<(Vec<f32>, Vec<f32>)>,
    params: &'a ParamsAdam,
    step_size: f32,
    correction: f32,
}

impl InplaceOp2 for Update<'_> {
    fn name(&self) -> &'static str {
        "adam"
    }

    fn cpu_fwd(&self, var: &mut CpuStorage, at: &Layout, grad: &CpuStorage, layout: &Layout) -> Result<()> {
        let CpuStorage::F32(var) = var else { bail!("adam: not of dtype F32") };
        let Some((start, end)) = at.contiguous_offsets() else { bail!("adam: a variable is not contiguous") };
        let var = &mut var[start..end];
        let grad = elements::<f32>(grad, layout)?;
        let &ParamsAdam { beta1, beta2, eps, weight_decay, .. } = self.params;
        // As in PyTorch, 1 - β is rounded to single precision, not taken from the rounded β.
        let (new1, old2, new2) = ((1.0 - beta1) as f32, beta2 as f32, (1.0 - beta2) as f32);
        let (eps, decay) = (eps as f32, weight_decay as f32);
        let (m, v) = &mut *self.moments.borrow_mut();
        pulp::Arch::new().dispatch(
            #[inline(always)]
            || {
                for (((x, &g), m), v) in var.iter_mut().zip(grad).zip(m).zip(v) {
                    let g = g + decay * *x;
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

    /// How many steps, and the variable after them.
    type After = (usize, [f64; 3]);

    /// `x -= Adam(…)` on the loss `Σ x³` from (1, -2, 0.5), after 1 and 10 steps: at the defaults but lr 0.1, then with
    /// every option another, without and with weight decay.
    ///
    /// ```python
    /// x = torch.tensor([1., -2., .5], dtype=torch.float64, requires_grad=True)
    /// opt = torch.optim.Adam([x], lr=.05, betas=(.8, .99), eps=1e-3, weight_decay=.1)
    /// for step in range(1, 11):
    ///     opt.zero_grad(); (x ** 3).sum().backward(); opt.step()
    ///     if step in (1, 10): print(x.tolist())
    /// ```
    fn pytorch() -> [(ParamsAdam, [After; 2]); 3] {
        let defaults = ParamsAdam { lr: 0.1, ..Default::default() };
        let others = ParamsAdam { lr: 0.05, beta1: 0.8, beta2: 0.99, eps: 1e-3, weight_decay: 0.0 };
        let decaying = ParamsAdam { weight_decay: 0.1, ..others.clone() };
        [
            (
                defaults,
                [
                    (1, [0.9000000003333333, -2.0999999999166667, 0.40000000133333335]),
                    (10, [0.1495504193328808, -3.015996819967722, -0.19424503170342694]),
                ],
            ),
            (
                others,
                [
                    (1, [0.9500166611129623, -2.0499958336805264, 0.45006657789613846]),
                    (10, [0.5438367875838539, -2.5129286538216826, 0.10401821497857065]),
                ],
            ),
            (
                decaying,
                [
                    (1, [0.9500161238310223, -2.049995763070926, 0.4500624219725343]),
                    (10, [0.5429523679604962, -2.513015925545109, 0.10027070677893124]),
                ],
            ),
        ]
    }

    #[test]
    fn steps_as_pytorch_in_place_and_by_tensor_ops() -> Result<()> {
        for (dtype, tolerance) in [(DType::F32, 2e-6), (DType::F64, 1e-12)] {
            for (params, expected) in pytorch() {
                let x = Var::from_tensor(&Tensor::new(&[1f64, -2.0, 0.5], &Device::Cpu)?.to_dtype(dtype)?)?;
                let mut adam = Adam::new(vec![x.clone()], params)?;
                for step in 1..=10 {
                    adam.backward_step(&x.powf(3.0)?.sum_all()?)?;
                    let Some((_, expected)) = expected.iter().find(|(at, _)| *at == step) else { continue };
                    for (found, expected) in x.to_dtype(DType::F64)?.to_vec1::<f64>()?.iter().zip(expected) {
                        assert!((found - expected).abs() < tolerance, "{dtype:?}, step {step}: {found} {expected}");
                    }
                }
            }
        }
        Ok(())
    }

    /// What it keeps of one step must not lead to that step's graph, or the graphs of all steps are kept.
    #[test]
    fn what_it_keeps_is_no_part_of_a_graph() -> Result<()> {
        let weight = Var::from_tensor(&Tensor::ones((3, 3), DType::F64, &Device::Cpu)?)?;
        let input = Tensor::ones((2, 3), DType::F64, &Device::Cpu)?;
        let params = ParamsAdam { weight_decay: 0.1, ..Default::default() };
        let mut adam = Adam::new(vec![weight.clone()], params)?;
        for _ in 0..3 {
            // The gradient of a product of two that are tracked is itself tracked.
            let hidden = input.matmul(&weight)?.matmul(&weight)?;
            let grads = hidden.sqr()?.sum_all()?.backward()?;
            adam.step(&grads)?;
            for (mean, square) in adam.state()? {
                assert!(!mean.track_op() && !square.track_op());
            }
            assert_eq!(weight.sorted_nodes().len(), 1);
        }
        Ok(())
    }

    #[test]
    fn refuses_to_train_nothing_and_options_out_of_range() -> Result<()> {
        let refused = |vars: Vec<Var>, params, part: &str| {
            let error = Adam::new(vars, params).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        };
        let integers = Var::from_tensor(&Tensor::new(&[1u32], &Device::Cpu)?)?;
        refused(vec![], ParamsAdam::default(), "no variable");
        refused(vec![integers], ParamsAdam::default(), "no variable");
        let x = || Var::new(&[1f32], &Device::Cpu).unwrap();
        refused(vec![x()], ParamsAdam { lr: f64::NAN, ..Default::default() }, "lr is NaN");
        refused(vec![x()], ParamsAdam { beta1: 1.0, ..Default::default() }, "beta1 is 1");
        refused(vec![x()], ParamsAdam { beta2: -0.1, ..Default::default() }, "beta2 is -0.1");
        refused(vec![x()], ParamsAdam { eps: -1.0, ..Default::default() }, "eps is -1");
        refused(vec![x()], ParamsAdam { weight_decay: -1.0, ..Default::default() }, "weight_decay is -1");
        Ok(())
    }
}
